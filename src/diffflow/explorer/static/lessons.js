// Lessons: each sets up a comparison that can be seen and read off the charts, and says what to look at.
// `a` and `b` are changes of the defaults; with `b` the screen is split, and both sides share seeds and noise.

const base = { family: "at", gan: 0, churn: 1, extra: 0, speed: "kl", start: "prior", wrong: 0, schedule: "VP", steps: 360, horizon: 4 };

export const LESSONS = [
  {
    name: "gauge", title: "g changes the paths, not the law", target: "8gaussians",
    a: { ...base, churn: 0 }, b: { ...base, churn: 1 },
    text: "Left, no noise at all (g² = λ²); right, the reverse SDE (g² = 2λ²). Single particles go entirely different ways, and yet both clouds have the same law at every time: Proposition 2. The distances agree up to the floor.",
  },
  {
    name: "lam2", title: "λ² does change it", target: "8gaussians",
    a: { ...base, family: "static", churn: 1 }, b: { ...base, family: "static", churn: 1, extra: 1 },
    text: "Both sides are Langevin dynamics. Right, λ² = −β: extra noise that no drift balances. The law is flattened, q to the power 1/(1 + ½): every mode is wider by √1.5, and stays so.",
  },
  {
    name: "cancels", title: "At Langevin, p cancels", target: "moons",
    a: { ...base, family: "static", churn: 0 }, b: { ...base, family: "static", churn: 1 },
    text: "Left, the GAN's flow: it has to know the particles' own law p, here by kernels. Right, Langevin dynamics: g² = 2β, the weight of ∇log(r/p) is zero, and the score alone does the same work, with noise in the place of p.",
  },
  {
    name: "imbalance", title: "Langevin does not balance modes", target: "8gaussians",
    a: { ...base, family: "static", churn: 1, start: "away", horizon: 8 }, b: { ...base, churn: 1 },
    text: "Left, Langevin dynamics on the fixed target, begun beside it: particles settle in the modes they meet first, and the barriers are too high to cross. Right, the noise schedule: while noise is large there is a single mode, so each gets its share.",
  },
  {
    name: "lag", title: "Annealing lags", target: "8gaussians",
    a: { ...base, family: "annealed", churn: 1, steps: 36 }, b: { ...base, family: "annealed", churn: 1, steps: 480 },
    text: "Annealed Langevin dynamics follows the falling noise with λ² = 0, so nothing carries the cloud along: it has to relax at each level. Left, three steps a level: it comes too late, and stays too wide. Right, forty: it keeps up.",
  },
  {
    name: "vanishing", title: "Why the saturating loss stands still", target: "8gaussians",
    a: { ...base, family: "static", churn: 0, speed: "saturating", start: "away" }, b: { ...base, family: "static", churn: 0, speed: "non-saturating", start: "away" },
    text: "The same discriminator on both sides, begun away from the data. The saturating loss moves a particle at the speed r/(r+p), next to nothing where the discriminator is sure. The non-saturating one has p/(r+p), next to one there.",
  },
  {
    name: "repair", title: "A discriminator repairs a wrong score", target: "moons",
    a: { ...base, churn: 0, wrong: 0.35 }, b: { ...base, churn: 0, wrong: 0.35, gan: 2 },
    text: "Both sides believe in a score whose law is shifted to the right. Left, the score alone: the samples are shifted. Right, with the log-ratio of the true target and the particles: it sees the difference, and pulls them back.",
  },
];
