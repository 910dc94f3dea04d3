"""Joint likelihood bound: denoiser and discriminator trained together for the likelihood of their equation.

On a schedule, with g2 = (1+z) lam2 and beta = g2/2 + k lam2/2, the negative likelihood bound is, up to a constant,

    L(theta, phi) = (1+z)^2/(4 z) int dlog sigma  E |D* - Y|^2 / sigma^2,     D* = D + sigma^2 k/(1+z) grad_y d

the denoising error of the composite denoiser (derivations.md eq. 12; Theorem 3 of the DiffFlow paper). It knows the sum
only: D = E[Y|y] with grad d = 0 is one minimiser, and a d trained this way is no log-ratio. What d adds is capacity of
another kind, a conservative correction. Its gradient in phi goes through grad_y d: double backpropagation.

Shapes: Y (n, *shape), sigma (n,), loss (n,) in nats per dimension.

References:
    Zhang et al. 2023, arXiv:2307.02159, Theorem 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..equation.noise import Noise
from ..equation.schedule import Schedule
from ..equation.times import per_particle
from ..networks.denoiser import Denoiser
from ..networks.discriminator import Discriminator
from .base import Batch, Stateless, Turn
from .score_matching import LikelihoodWeighting


@dataclass(frozen=True)
class JointBound(Stateless):
    """Training of players "denoiser" and "discriminator" on one likelihood bound, each on its own draw of noise.

    A turn logs `error`, the mean square error of D* per dimension.

    Args:
        denoiser: D(y, sigma).
        discriminator: d(x, t).
        schedule: the noise schedule of the equation.
        weighting: the range of sigma in the bound, and where in it levels are drawn.
        gan: the dial k of the equation, > 0.
        churn: the dial z of the equation, > 0.
        label_dropout: share of samples whose class is hidden.

    Raises:
        ValueError: for dials that are not positive.
    """

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
        """The denoiser and the discriminator."""
        return {"denoiser": self.denoiser, "discriminator": self.discriminator}

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        """One turn of each player, on the same loss and different noise."""
        for player in self.players:
            loss, error = self.loss(batch, noise.fork(player))
            yield Turn(player, loss, {"error": error})

    def loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        """The negative bound of each sample, at one noise level each.

        Args:
            batch: data of this step.
            noise: of levels, hidden labels and blur, stream i for sample i.

        Returns:
            The loss (n,) in nats per dimension, up to a constant, and the mean square error of D* per dimension, 0-d.
        """
        x, cond = batch.x, batch.cond
        n, device = len(x), x.device
        if cond is not None and self.label_dropout:
            hidden = noise.fork("label").uniform(n, device=device) < self.label_dropout
            cond = torch.where(hidden, -1, cond)
        levels = self.weighting.sigma(noise.fork("sigma").uniform(n, dtype=torch.float64, device=device))
        sigma = levels.to(x)  # the time needs float64, the networks do not
        eps = noise.fork("eps").normal(n, tuple(x.shape[1:]), dtype=x.dtype, device=device)
        y = (x + per_particle(sigma, x) * eps).requires_grad_(True)

        # D* = D + sigma^2 k/(1+z) grad_y d, and its error
        grad = self._grad(y, self.schedule.time(levels), cond)
        D = self.denoiser(y, sigma, cond) + per_particle(sigma**2 * self.gan / (1 + self.churn), x) * grad
        error = (D - x).square().flatten(1).mean(1)

        factor = (1 + self.churn) ** 2 / (4 * self.churn)
        return factor * self.weighting.weight(sigma, self.denoiser.sigma_data) * error, error.detach().mean()

    def _grad(self, y: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """The gradient of d in y = x / scale, differentiable (n, *shape)."""
        scale = self.schedule.scale(t).to(y)
        logit = self.discriminator(per_particle(scale, y) * y, t, cond if self.discriminator.classes else None)
        return torch.autograd.grad(logit.sum(), y, create_graph=True)[0]
