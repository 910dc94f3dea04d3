"""Particles and a discriminator."""

import diffflow as df

small = {"model.net.width": 32, "path.steps": 10}
run = df.train("8gaussians", "runs/flow", model="discriminator-flow", steps=100, settings=small)
path = run.sample(500, keep=2)                        # the particles on their way: 10 steps, 2 evaluations each
print(path.nfe, [round(x.std().item(), 2) for _, x in path.kept])
print(run.sde().needs(0.5))                           # the ratio alone
