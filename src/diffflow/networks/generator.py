"""Generators: networks that make a sample from noise in one evaluation or a fixed few, x = G(z) with z ~ N(0, I).

A generator is a particle flow that has learned where its particles end: every z is a particle, and training moves G(z)
along a velocity field (objectives/follow_velocity.py). Its law has no density to ask for, but any field that moves
samples can train it. A denoiser is a generator from the start, by few long steps from noise (`FewSteps`); by a single
one, the start of Score GAN, it is

    G(z) = D(mean + sqrt(sigma^2 + sigma_data^2) z, sigma)

Shapes: z (n, *latent_shape), cond int64 (n,) or None -> x (n, *shape).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..equation.noise import Noise, as_noise
from ..sampling.plan import Plan, combine
from .denoiser import Denoiser
from .discriminator import at_least_two, labels


class Generator(nn.Module):
    """Generator G(z, cond): one sample for each latent z.

    Args:
        net: (z (n, *latent_shape), cond int64 (n,) or None) -> (n, *shape), with attributes `latent_shape` and
            `classes` (0: takes no condition).
        shape: shape of one sample.

    Raises:
        ValueError: for a net of one class.
    """

    def __init__(self, net: Any, shape: tuple[int, ...]):
        super().__init__()
        self.net, self.shape = net, tuple(shape)
        self.latent_shape, self.classes = tuple(net.latent_shape), at_least_two(net.classes)

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Samples of the latents, in z's dtype.

        Args:
            z: latents (n, *latent_shape), standard normal.
            cond: classes int64 (n,), or None for a generator without classes.

        Returns:
            Samples (n, *shape).

        Raises:
            ValueError: when cond is missing (or not wanted), or when the net makes samples of another shape.
        """
        if (cond is None) == bool(self.classes):
            raise ValueError(
                f"this generator makes samples of {self.classes} classes: give cond, one class per sample"
                if self.classes
                else "cond was given, but this generator knows no classes: leave cond out"
            )
        x = self.net(z, cond)
        if tuple(x.shape) != (len(z), *self.shape):
            raise ValueError(
                f"the generator made samples of shape {tuple(x.shape[1:])}, but the data have shape {self.shape}: "
                "build its net for that shape"
            )
        return x.to(z.dtype)

    def draw(
        self, n: int, noise: Noise | int, cond: Tensor | int | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Fresh samples, sample i from stream i of `noise`.

        Args:
            n: how many.
            noise: a Noise, or the seed of one.
            cond: a class for all, or one each (n,); None for a generator without classes.
            device: where they are made; default the network's.

        Returns:
            Samples (n, *shape).

        Raises:
            ValueError: for classes that the generator does not know, or lacks.
        """
        weight = next(self.parameters())
        device = weight.device if device is None else device
        if cond is not None:
            cond = labels(cond, self.classes, least=0).to(device).expand(n)
        return self(as_noise(noise).normal(n, self.latent_shape, dtype=weight.dtype, device=device), cond)


class FewSteps(nn.Module):
    """Few-step sampler of a denoiser, by a plan of N steps, as the net of a `Generator`.

    y_0 = mean + sqrt(s_0^2 + sigma_data^2) z, then the rows of the plan. With the data's mean y_0 is where data noised
    by s_0 are, and as wide. All N steps share the denoiser's weights, and gradients go through all of them.

    Where D is the data's own denoiser, one step from a large s_0 draws blurred samples near the mean; s_0 of a few data
    standard deviations is the usual start (derivations.md 6.3).

    Args:
        denoiser: D(y, sigma), which it owns: give it a copy where the original must stay as it is.
        plan: levels s_0 > s_1 > ... and the weights of its N steps.
        shape: shape of one sample, and of z.
        mean: the data's mean, in model units.

    Raises:
        ValueError: for a plan that raises the noise.
    """

    def __init__(self, denoiser: Denoiser, plan: Plan, shape: tuple[int, ...], mean: float = 0.0):
        super().__init__()
        if plan.noisy:
            raise ValueError("this plan raises the noise, and a generator has none but its z: take one without churn")
        self.denoiser = denoiser
        self.plan = plan
        self.mean = float(mean)
        self.latent_shape, self.classes = tuple(shape), denoiser.classes

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Samples (n, *shape) of latents z (n, *shape), N evaluations of the denoiser each."""
        plan, past = self.plan, []
        y = self.mean + math.hypot(plan.levels[0], self.denoiser.sigma_data) * z
        for i, level in enumerate(plan.levels):
            D = self.denoiser(y, torch.tensor(level, dtype=z.dtype, device=z.device), cond)
            past, kept = [D, *past], plan.kept(i)
            y = combine(plan.weights[i], past, kept * y if kept else None)
            past = past[: plan.reach(i)]
        return y
