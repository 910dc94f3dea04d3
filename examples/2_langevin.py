"""Langevin dynamics, and what it costs."""

import torch
import diffflow as df

q = df.GaussianMixture([[-1.0, 0.0], [1.5, 1.0]], stds=0.5)
sde = df.langevin(q, beta=1.0, horizon=8.0, start=df.Gaussian(torch.zeros(2), 1.0))
x = df.sample(sde, 4000, steps=400).last
print(x.mean(0), q.sample(4000).mean(0))
print(sde.needs(0.0), sde.noise(0.0))                 # the score alone; sqrt(2 beta)
