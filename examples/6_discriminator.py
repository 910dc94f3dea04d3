"""Particles and a discriminator."""

import diffflow as df
from diffflow.models.settings.serialise import replace
from diffflow.training.train import train

config = df.presets.recipe("discriminator-flow", "8gaussians").config
config = replace(config, {"fit.steps": 100, "model.net.width": 32, "path.steps": 10})
run = df.load(train(config, "runs/flow"))
path = run.sample(500, keep=2)  # the particles on their way: 10 steps, 2 evaluations each
print(path.nfe, [round(x.std().item(), 2) for _, x in path.kept])
print(run.sde().needs(0.5))  # the ratio alone
