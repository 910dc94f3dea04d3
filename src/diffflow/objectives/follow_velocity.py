"""Generators that follow a velocity: their samples are moved along a field, and the generator regresses to them.

    x = G(z),    target = x + eta v(x),    descend  1/2 |G(z) - target|^2        (derivations.md 3.1, Algorithm 1)

The gradient of one such step is -eta E_z [J_G(z)^T v(G(z))]: an inner product with the field. With v = beta(d) grad d,
beta = -l'(d), it is exactly the gradient eta E_z l(d(G(z))) of a GAN; with more regression steps, another speed or
another field it is something else, of the same kind (derivations.md 6.1). What gives the field is a `Mover`
(movers/): a discriminator, two scores, the cloud itself.

Shapes: x (n, *shape), velocity (n, *shape), cond int64 (n,) or None, loss (n,).

References:
    Franceschi et al. 2023, arXiv:2305.16150. Zhang et al. 2023, arXiv:2307.02159, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..equation.noise import Noise
from ..networks.generator import Generator
from .base import Batch, Turn
from .movers.base import Mover, at_least_one


@dataclass(frozen=True)
class FollowVelocity:
    """Training of a generator, player "generator", that follows a mover.

    The classes of generated samples are those of the batch. A turn logs `displacement`, the root mean square of the
    samples' step per coordinate, and `std_ratio`, their standard deviation over that of the batch.

    Args:
        generator: G(z, cond).
        mover: what gives its samples a velocity; its players' turns come first.
        eta: how far the samples are moved, in units of the velocity, > 0. With one regression step it only scales the
            gradient, as the weight of the loss does.
        steps: regression steps toward each target. 1 is exactly the GAN step where the mover is a
            `DiscriminatorMover`.
        reuse: whether the samples about to move are those that the mover's own turns learn from, in place of fresh ones
            for each: the generator runs once in a step.

    Raises:
        ValueError: when generator and mover tell different classes apart, when a conditional generator meets data
            without classes, and for values out of range.
    """

    generator: Generator
    mover: Mover
    eta: float = 1.0
    steps: int = 1
    reuse: bool = False

    def __post_init__(self) -> None:
        at_least_one("steps", self.steps)
        if not 0 < self.eta < math.inf:
            raise ValueError(f"eta = {self.eta} must be positive and finite")
        if self.mover.classes not in (None, self.generator.classes):
            raise ValueError(
                f"the generator makes {self.generator.classes} classes, but what moves it tells {self.mover.classes} "
                "apart: both must be conditional, on the same classes, or neither"
            )
        if "generator" in self.mover.players:
            raise ValueError('the mover has a player named "generator": rename it')
        if not all(p.requires_grad for p in self.generator.parameters()):
            raise ValueError("the generator shares weights with a frozen network: give it a copy")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """The mover's players and the generator."""
        return {**self.mover.players, "generator": self.generator}

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        """Turns of the mover's players, then `steps` turns of the generator."""
        n, cond = len(batch.x), batch.cond if self.generator.classes else None
        if self.generator.classes and cond is None:
            raise ValueError(
                f"the generator makes {self.generator.classes} classes, but the data have none: use labelled data, or "
                "a generator without classes"
            )

        def begin() -> tuple[Tensor, Tensor, Tensor]:
            z = self._latent(n, noise.fork("z"))
            x = self.generator(z, cond)
            return z, x, x.detach().clone()  # a net may return a view of its parameters

        def draw_fake(noise: Noise) -> Tensor:
            with torch.no_grad():
                return self.generator(self._latent(n, noise), cond)

        if self.reuse:
            z, x, start = begin()
            yield from self.mover.learn(batch, lambda noise: start, cond, noise.fork("mover"))
        else:
            yield from self.mover.learn(batch, draw_fake, cond, noise.fork("mover"))
            z, x, start = begin()
        step = self.eta * self.mover.velocity(start, cond, batch, noise.fork("velocity"), z)
        log = {"displacement": step.square().mean().sqrt(), "std_ratio": _std(start) / _std(batch.x)}
        for k in range(self.steps):
            if k:
                x = self.generator(z, cond)
            # x - target, written so that the first residual is -step to the last bit
            yield Turn("generator", 0.5 * ((x - start) - step).square().flatten(1).sum(1), log)

    def _latent(self, n: int, noise: Noise) -> Tensor:
        weight = next(self.generator.parameters())
        return noise.normal(n, self.generator.latent_shape, dtype=weight.dtype, device=weight.device)

    def state(self) -> dict[str, Tensor]:
        """Tensors of the mover."""
        return self.mover.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Hand them to the mover."""
        self.mover.load_state(state)


def _std(x: Tensor) -> Tensor:
    """Standard deviation of a cloud, all its dimensions together."""
    return x.float().var(0, correction=0).mean().sqrt()
