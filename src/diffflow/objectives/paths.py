"""Paths: how the particles move that a discriminator learns along, and which settings of their motion it learns.

A path is an equation with a log-ratio put in, in which a discriminator's own will stand: on its gradient the particles
move, and between them and the data it learns (discriminator_path.py). Particles may have dials of their own, drawn
between bounds and kept along the path; the discriminator is told them, because the law of the particles depends on
them.

Shapes: dials float64 (n, 3): steps, gan, churn.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..equation.fields import Ratio
from ..equation.laws import Law
from ..equation.schedule import Schedule
from ..equation.sde import DiffFlow
from ..equation.spectrum import diffusion_gan
from ..equation.times import Time
from ..networks.discriminator import Discriminator
from ..sampling.exponential import Exponential
from ..sampling.solvers import Solver


class Path(Protocol):
    """How particles move, and between which bounds (low, high) the dials of their motion are drawn."""

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Bounds (low, high) of steps, gan and churn."""
        ...

    def sde(self, ratio: Ratio, dials: Tensor) -> DiffFlow:
        """The motion of particles.

        Args:
            ratio: the log-ratio that moves them.
            dials: their dials (n, 3).

        Returns:
            The equation, with a start.
        """
        ...

    def dial_inputs(self, dials: Tensor) -> Tensor | None:
        """What a discriminator is told of the dials (n, 3): float32 (n, j), or None for nothing."""
        ...


@dataclass(frozen=True)
class ParticlePath:
    """Path of a particle flow without score: Euler steps, equal unless its equation has a grid.

    Discriminator Flow and the improved GAN are such flows:

        lambda ratio: discriminator_flow(ratio, game.speed, eta=5.0, start=Gaussian(torch.zeros(2)))
        lambda ratio: improved_gan(VE(0.01, 1.0), ratio, beta=4.0, start=...)

    either one `continued(..., -entropy)` for entropic noise.

    Args:
        flow: the log-ratio -> its equation, with a start.
        steps: N; df.sample(path.flow(ratio), n, steps=N) is the same process.

    Raises:
        ValueError: for less than one step.
    """

    flow: Callable[[Ratio], DiffFlow]
    steps: int = 25

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: a path has at least one step")

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The number of steps; neither gan nor churn."""
        return (self.steps, self.steps), (0.0, 0.0), (0.0, 0.0)

    def sde(self, ratio: Ratio, dials: Tensor) -> DiffFlow:
        """The flow, the same for all particles."""
        return self.flow(ratio)

    def dial_inputs(self, dials: Tensor) -> None:
        """Nothing: the dials are the same for all particles."""
        return


@dataclass(frozen=True)
class SchedulePath:
    """Path of Diffusion-GAN's process on a noise schedule: score and discriminator move the particles together.

    Steps are exact with the composite D* frozen, on the default grid of N steps, the last of which is the clean
    denoising. Every particle has dials of its own: gan uniform on [0, gan], churn uniform on [0, churn], N between
    steps[0] and steps[1] with log N uniform, so that a batch shows all N alike. The discriminator is told (gan, churn,
    log2 N). Its inputs are best told as a denoiser's are: Discriminator(net, time=log sigma(t) / 4, precondition=1 /
    (scale sqrt(sigma^2 + std^2))).

    Args:
        schedule: the noise schedule.
        source: what the score is made of: a Denoiser (which may be learning at the same time) or a Law.
        start: law of the particles at t = 0, for instance schedule.prior(shape).
        steps: bounds (low, high) of N.
        gan: largest dial gan, > 0.
        churn: largest dial churn, >= 0.
        reach: noise level in data units, > 0, above which the log-ratio fades: it weighs gan reach^2 / (reach^2 +
            sigma^2), gan at small noise. Above it the laws hardly differ, while D* multiplies whatever error grad d has
            by sigma^2.

    Raises:
        ValueError: for values out of range.

    References:
        Zhang et al. 2023, arXiv:2307.02159, eqs. 29 and 30; derivations.md 3.3.
    """

    schedule: Schedule
    source: Any
    start: Law
    steps: tuple[int, int] = (8, 32)
    gan: float = 2.0
    churn: float = 1.0
    reach: float = math.inf

    solver = Exponential(order=1, correct=False)  # the steps of the pool, for `sample`

    def __post_init__(self) -> None:
        low, high = self.steps
        if not 1 <= low <= high:
            raise ValueError(f"steps={self.steps}: bounds (low, high) with 1 <= low <= high")
        if not (0 < self.gan < math.inf and 0 <= self.churn < math.inf):
            raise ValueError(f"gan={self.gan} must be positive and churn={self.churn} not negative, both finite")
        if not self.reach > 0:
            raise ValueError(f"reach={self.reach}: the noise level above which the log-ratio fades is positive")

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Bounds of steps, gan and churn."""
        return self.steps, (0.0, self.gan), (0.0, self.churn)

    def sde(self, ratio: Ratio, dials: Tensor) -> DiffFlow:
        """Diffusion-GAN at these dials, one particle each."""
        gan, churn = dials[..., 1], dials[..., 2]

        def fading(t: Time) -> Tensor:
            return gan / (1 + (self.schedule.sigma(t) / self.reach) ** 2)

        score = self.schedule.score(self.source)
        return diffusion_gan(self.schedule, score, ratio, gan=fading, churn=lambda t: churn, start=self.start)

    def dial_inputs(self, dials: Tensor) -> Tensor:
        """The dials as (gan, churn, log2 N)."""
        return torch.stack([dials[..., 1], dials[..., 2], dials[..., 0].log2()], -1).float()

    def sampler(self, discriminator: Discriminator, steps: int, gan: float, churn: float) -> tuple[DiffFlow, Solver]:
        """The very process that the discriminator was trained on, for `sample(sde, n, steps, solver=solver)`.

        Warns outside the trained ranges, where the discriminator's ratio is a guess.

        Args:
            discriminator: trained along this path.
            steps: N, at least 1.
            gan: the dial gan, > 0.
            churn: the dial churn, >= 0.

        Returns:
            The equation and the solver.

        Raises:
            ValueError: for values that no process has.
        """
        if not (steps >= 1 and 0 < gan < math.inf and 0 <= churn < math.inf):
            raise ValueError(
                f"steps={steps} must be at least 1, gan={gan} positive and churn={churn} not negative, both finite"
            )
        dials = torch.tensor([steps, gan, churn], dtype=torch.float64)
        names = ("steps", "gan", "churn")
        for name, value, (low, high) in zip(names, dials.tolist(), self.ranges, strict=True):
            if not low <= value <= high:
                warnings.warn(
                    f"{name}={value:g} is outside [{low:g}, {high:g}], where this discriminator was trained: it does "
                    "not know the particles of that process",
                    stacklevel=2,
                )
        return self.sde(discriminator.ratio(dials=self.dial_inputs(dials)), dials), self.solver
