"""Train."""

import diffflow as df
from diffflow.models.settings.serialise import replace
from diffflow.training.train import train

config = df.presets.recipe("toy").config  # a small network, EDM loss
config = replace(config, {"data.source": "moons", "fit.steps": 200, "model.net.width": 64})
run = df.load(train(config, "runs/moons"))
print(run.step, run.sample(5).last)
