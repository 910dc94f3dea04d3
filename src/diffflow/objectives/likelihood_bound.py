r"""Maximum likelihood for score and discriminator together: what do they minimise, if the bound is all that counts?

On a schedule, with g2 = (1+z) lam2 and beta = g2/2 + k lam2/2, the negative likelihood bound is, up to a constant,

    L(theta, phi) = (1+z)^2/(4 z) int dlog sigma  E |D* - Y|^2 / sigma^2,     D* = D + sigma^2 k/(1+z) grad_y d

the denoising error of the composite denoiser (derivations.md eq. 12; Theorem 3 of the DiffFlow paper). It knows the sum
only: D = E[Y|y] with grad d = 0 is one minimiser, and a d trained this way is no log-ratio. What d adds is capacity of
another kind, a conservative correction. Its gradient in phi goes through grad_y d: double backpropagation.

Shapes: Y (n, *shape), sigma (n,), loss (n,) in nats per dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..equation.noise import Noise
from ..equation.schedule import Schedule
from ..networks.denoiser import Denoiser, per_particle
from ..networks.discriminator import Discriminator
from .base import Batch, Stateless, Turn
from .score_matching import LikelihoodWeighting


@dataclass(frozen=True)
class JointBound(Stateless):
    """Players "denoiser" and "discriminator", both on the bound at the dials (gan, churn) of `schedule`, each on its
    own draw of noise."""

    denoiser: Denoiser
    discriminator: Discriminator
    schedule: Schedule
    weighting: LikelihoodWeighting
    gan: float = 1.0
    churn: float = 1.0
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not (self.gan > 0 and self.churn > 0):
            raise ValueError(
                f"gan={self.gan} must be positive, or the discriminator has no part in it, and churn={self.churn} too: "
                "without noise the bound is -infinity"
            )

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {"denoiser": self.denoiser, "discriminator": self.discriminator}

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        for player in self.players:
            loss, error = self.loss(batch, noise.fork(player))
            yield Turn(player, loss, {"error": error})

    def loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        """The bound per sample (n,) in nats per dimension, up to a constant, and the mean square error of D*."""
        x, cond = batch.x, batch.cond
        n, device = len(x), x.device
        sigma = self.weighting.sigma(noise.fork("sigma").uniform(n, dtype=torch.float64, device=device))
        if cond is not None and self.label_dropout:
            cond = torch.where(noise.fork("label").uniform(n, device=device) < self.label_dropout, -1, cond)
        t = self.schedule.time(sigma)
        scale = self.schedule.scale(t).to(x)
        level = sigma.to(x)
        y = x + per_particle(level, x) * noise.fork("eps").normal(n, tuple(x.shape[1:]), dtype=x.dtype, device=device)
        y = y.requires_grad_(True)
        logit = self.discriminator(per_particle(scale, x) * y, t, cond if self.discriminator.classes else None)
        (grad,) = torch.autograd.grad(logit.sum(), y, create_graph=True)
        D = self.denoiser(y, level, cond) + per_particle(level**2 * self.gan / (1 + self.churn), x) * grad
        error = (D - x).square().flatten(1).mean(1)
        factor = (1 + self.churn) ** 2 / (4 * self.churn)
        return factor * self.weighting.weight(level, self.denoiser.sigma_data) * error, error.detach().mean()
