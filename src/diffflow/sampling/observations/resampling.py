r"""Conditional samples of any denoiser by resampling: some coordinates are known, the others are drawn.

With y = Y + sigma eps split into known and unknown coordinates, y = (k, u), the law of Y_u given Y_k = v has at noise
level sigma the score

    grad_u log p_sigma(u | v) = ( E[Y_u | u, Y_k = v] - u ) / sigma^2        v without noise, u with noise

and a denoiser offers E[Y_u | u, k] instead, k with as much noise as u. Two ways to put v in are biased even when the
denoiser is exact and the steps are small:

    replacement   k = v + sigma eps at each level, u steps on. It conditions on the noised k only, and k is another one
                  at each level: u never hears the whole of v, the law that results is too wide and pulled to the
                  marginal. Not even p(u | v) for a single Gaussian comes out.
    guidance      the score of the likelihood, grad_y log N(v; D_k, C), C isotropic or sigma^2 dD/dy. p(v | y) is a
                  Gaussian only where the data are one: on a mixture u falls between the modes.

Both methods here repair replacement by a Markov chain at every level sigma, in each of whose U rounds k is noised anew,
k = v + sigma eps. Each round lets u hear another noisy copy of v, and in time u agrees with all of them. What is left
is the bias k's noise makes at the lowest levels where the chain still moves, which falls with sigma there.

    repaint    y' = step of the reverse SDE from sigma to sigma';   y = y' + sqrt(sigma^2 - sigma'^2) xi, back up (not
               after the U-th round). It moves u by (1 - r^2) (D - u), r = sigma'/sigma, so that little moves between
               near levels, and with D frozen over the step the variance comes out short by (1 - r^2)/2.
    langevin   u <- D_u(y) + sigma (xi_j + xi_j+1)/sqrt(2) at the level itself, and in the U-th round the step to
               sigma'. It is Langevin's equation, u + h score + sqrt(2 h) noise, with h = sigma^2, the longest step that
               does not overshoot D, whatever sigma'; half of each round's noise is that of the round before, which
               makes the variance right for every Gaussian at any h (Leimkuhler & Matthews).

Evaluations are (levels - 1) U + 1, the last step being the denoising onto sigma = 0. How near both come to an exact
conditional is measured in benchmarks/tables/conditional.py. Every particle draws from its own stream alone, so that it
does not depend on the batch that it moves in. Known coordinates come back exactly.
Shapes: x (n, *shape), observations for all or for each.

References:
    Lugmayr et al. 2022, "RePaint: inpainting using denoising diffusion probabilistic models", arXiv:2201.09865.
    Leimkuhler & Matthews 2013, "Rational construction of stochastic numerical methods for molecular sampling".
    Song et al. 2021, arXiv:2011.13456, appendix I.2 (replacement) and section 4.2 (Langevin steps at each level).
    Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems" (guidance).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...equation.noise import Noise
from ...equation.schedule import Schedule
from ...equation.sde import DiffFlow
from ...registry import Registry
from ..exponential import Exponential
from ..solvers import Solver
from .observation import Observation

INNER = 20  # rounds at each level
FROZEN = Exponential(1, correct=False)  # D frozen over a step: a round has no past


@dataclass(frozen=True)
class Rounds:
    """Base of solvers that draw particles given some of their coordinates by rounds at each level.

    They are for the reverse SDE, churn 1, on a noise schedule: without noise nothing mixes.

    Args:
        observation: what is known, for all particles or for each.
        noise: streams of the particles, from which all noise of the rounds is drawn.
        inner: rounds U at each level, at least 1; 1 is replacement, which is biased.
        solver: what takes a step down; it is begun anew in each round.

    Raises:
        ValueError: less than one round.
    """

    observation: Observation
    noise: Noise
    inner: int = INNER
    solver: Solver = FROZEN

    order = weak_order = 1

    def __post_init__(self) -> None:
        if self.inner < 1:
            raise ValueError(f"inner = {self.inner}: each level takes at least one round")

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> int:
        """Number of the first step. Raises ValueError for an equation that is not on a noise schedule."""
        if not sde.on_schedule:
            raise ValueError("rounds at levels need an equation on a noise schedule (f and lam2 the schedule's own)")
        return 0

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: int
    ) -> tuple[Tensor, int]:
        """All rounds of one level, which end at t1 (see `Solver.step`). Raises ValueError without noise."""
        s, seen = sde.schedule, self.observation.to(x)
        assert s is not None
        noise = self.noise.fork("level", state)
        if s.sigma(t1).item() == 0:
            x, _ = self.solver.step(sde, _with_known(x, s, t0, seen, noise), t0, t1, None, self.solver.init(sde, x, t0))
            return seen.fill(x), state + 1
        if dw is None:
            raise ValueError("known coordinates are brought in by noise, and this equation has none: give churn = 1")
        return self.rounds(sde, s, x, t0, t1, seen, noise), state + 1

    def rounds(
        self, sde: DiffFlow, s: Schedule, x: Tensor, t0: float, t1: float, seen: Observation, noise: Noise
    ) -> Tensor:
        """The rounds of a level.

        Args:
            sde: the equation.
            s: its schedule.
            x: particles (n, *shape) at t0.
            t0: time of the level.
            t1: time of the next.
            seen: what is known, as x has its numbers.
            noise: streams of the particles for this level.

        Returns:
            The particles at t1.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rounds")

    def _down(self, sde: DiffFlow, x: Tensor, t0: float, t1: float, noise: Noise) -> Tensor:
        """One step of the reverse SDE."""
        dw = math.sqrt(t1 - t0) * _normal(noise.fork("down"), x)
        return self.solver.step(sde, x, t0, t1, dw, self.solver.init(sde, x, t0))[0]


@dataclass(frozen=True)
class RePaint(Rounds):
    """Rounds of a step down and the way back up (Lugmayr et al. 2022). See `Rounds`."""

    def rounds(
        self, sde: DiffFlow, s: Schedule, x: Tensor, t0: float, t1: float, seen: Observation, noise: Noise
    ) -> Tensor:
        """The rounds of a level (see `Rounds.rounds`)."""
        up = math.sqrt(s.sigma(t0).item() ** 2 - s.sigma(t1).item() ** 2)
        for j in range(self.inner):
            streams = noise.fork("round", j)
            if j:
                x = s.scale(t0).item() * (x / s.scale(t1).item() + up * _normal(streams.fork("up"), x))
            x = self._down(sde, _with_known(x, s, t0, seen, streams), t0, t1, streams)
        return x


@dataclass(frozen=True)
class Langevin(Rounds):
    """Rounds of Langevin's equation at the level itself, the last one a step down. See `Rounds`."""

    def rounds(
        self, sde: DiffFlow, s: Schedule, x: Tensor, t0: float, t1: float, seen: Observation, noise: Noise
    ) -> Tensor:
        """The rounds of a level (see `Rounds.rounds`)."""
        half = s.sigma(t0).item() * math.sqrt(0.5)
        before = _normal(noise.fork("before"), x) if self.inner > 1 else x
        for j in range(self.inner - 1):
            streams = noise.fork("round", j)
            x = _with_known(x, s, t0, seen, streams)
            xi = _normal(streams.fork("langevin"), x)
            x = s.scale(t0).item() * (sde.observe(x, t0).denoised(x, t0) + half * (before + xi))
            before = xi
        last = noise.fork("round", self.inner - 1)
        return self._down(sde, _with_known(x, s, t0, seen, last), t0, t1, last)


def _with_known(x: Tensor, s: Schedule, t: float, seen: Observation, noise: Noise) -> Tensor:
    """Particles x at t whose known coordinates are the known values, noised to the level of t."""
    k = s.scale(t).item() * (seen.values + s.sigma(t).item() * _normal(noise.fork("known"), x))
    return k.where(seen.known, x)


def _normal(noise: Noise, like: Tensor) -> Tensor:
    return noise.normal(len(like), tuple(like.shape[1:]), dtype=like.dtype, device=like.device)


METHODS: Registry[Callable[[Observation, Noise, int], Solver]] = Registry(
    "method of conditional sampling", {"langevin": Langevin, "repaint": RePaint}
)
