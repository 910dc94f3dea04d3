// The named places of the map; `set` is what choosing one changes. Written from the catalogue of models:
// python -m diffflow.models.catalogue writes it again, and a test compares.

export const LANDMARKS = [
  {"name": "reverse_sde", "title": "Diffusion SDE", "set": {"family": "at", "extra": 0, "speed": "kl", "start": "prior", "wrong": 0, "gan": 0, "churn": 1}, "label": [9, 4, "start"]},
  {"name": "probability_flow", "title": "Diffusion ODE", "set": {"family": "at", "extra": 0, "speed": "kl", "start": "prior", "wrong": 0, "gan": 0, "churn": 0}, "label": [-8, 4, "end"]},
  {"name": "edm_churn", "title": "EDM churn", "set": {"family": "at", "extra": 0, "speed": "kl", "start": "prior", "wrong": 0, "gan": 0, "churn": 0.3}, "label": [9, 4, "start"]},
  {"name": "slcd", "title": "SLCD", "set": {"family": "at", "extra": 0, "speed": "kl", "start": "prior", "wrong": 0, "gan": 0, "churn": 2.5}, "label": [9, 4, "start"]},
  {"name": "langevin", "title": "Langevin", "set": {"family": "static", "gan": 0, "extra": 0, "speed": "kl", "wrong": 0, "churn": 1}, "label": [9, 4, "start"]},
  {"name": "annealed_langevin", "title": "NCSN", "set": {"family": "annealed", "gan": 0, "extra": 0, "speed": "kl", "wrong": 0, "churn": 1}, "label": [9, 17, "start"]},
  {"name": "gan_flow", "title": "GAN", "set": {"family": "static", "gan": 0, "extra": 0, "speed": "kl", "wrong": 0, "churn": 0}, "label": [-9, -7, "end"]},
  {"name": "improved_gan", "title": "improved GAN", "set": {"family": "cooled", "gan": 0, "extra": 0, "speed": "kl", "wrong": 0, "churn": 0}, "label": [2, 17, "start"]},
  {"name": "diffusion_gan", "title": "Diffusion-GAN", "set": {"family": "at", "extra": 0, "speed": "kl", "start": "prior", "wrong": 0, "gan": 1, "churn": 1}, "label": [-9, 4, "end"]},
  {"name": "continued", "title": "continuation", "set": {"family": "static", "gan": 0, "extra": 0.4, "speed": "kl", "wrong": 0, "churn": 1}, "label": [9, 4, "start"]},
  {"name": "discriminator_guidance", "title": "Guided ODE", "set": {"family": "at", "extra": 0, "speed": "kl", "start": "prior", "wrong": 0, "gan": 1, "churn": 0}, "label": [-9, 4, "end"]},
  {"name": "static", "title": "half and half", "set": {"family": "static", "gan": 0, "extra": 0, "speed": "kl", "wrong": 0, "churn": 0.5}, "label": [26, -8, "middle"]},
];
