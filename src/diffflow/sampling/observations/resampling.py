r"""Conditional samples of any denoiser by resampling (RePaint): some coordinates are known, the others are drawn.

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

RePaint repairs replacement by a Markov chain at every level. From sigma to sigma' < sigma, U times:

    k  = v + sigma eps                             the known coordinates, noised anew
    y' = step of the reverse SDE from sigma to sigma'
    y  = y' + sqrt(sigma^2 - sigma'^2) xi          back up: the exact law of y given y'        (not after the U-th)

Each round lets u hear another noisy copy k of v, and u agrees with all of them in time. What is left is the bias at the
lowest levels where the chain still moves, which falls with sigma there. U sets how far the chain mixes; evaluations
are (levels - 1) U + 1, the last step being the denoising onto sigma = 0. How near it comes to an exact conditional is
measured in benchmarks/tables/conditional.py.

Every particle draws from its own stream alone, so that it does not depend on the batch that it moves in. Known
coordinates come back exactly.
Shapes: x (n, *shape), observations for all or for each.

References:
    Lugmayr et al. 2022, "RePaint: inpainting using denoising diffusion probabilistic models", arXiv:2201.09865.
    Song et al. 2021, arXiv:2011.13456, appendix I.2 (replacement). Song et al. 2023 (guidance by a pseudo-inverse).
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
class RePaint:
    """Solver that draws particles given some of their coordinates: `inner` rounds of a step and the way back up.

    It is for the reverse SDE, churn 1, on a noise schedule; without noise the chain at a level does not mix.

    Args:
        observation: what is known, for all particles or for each.
        noise: streams of the particles, from which all noise of the rounds is drawn.
        inner: rounds U at each level, at least 1; 1 is replacement, which is biased.
        solver: what takes a step; it is begun anew in each round.

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
            raise ValueError("RePaint needs an equation on a noise schedule (f and lam2 the schedule's own)")
        return 0

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: int
    ) -> tuple[Tensor, int]:
        """The rounds of one level (see `Solver.step`), all on noise of their own. Raises ValueError without noise."""
        s, seen = sde.schedule, self.observation.to(x)
        assert s is not None
        sigma0, sigma1 = s.sigma(t0).item(), s.sigma(t1).item()
        if sigma1 == 0:
            x = self._with_known(x, s, t0, seen, self.noise.fork("known", state, 0))
            x, _ = self.solver.step(sde, x, t0, t1, None, self.solver.init(sde, x, t0))
            return seen.fill(x), state + 1
        if dw is None:
            raise ValueError("RePaint moves particles by noise, and this equation has none: give churn = 1")
        up = math.sqrt(sigma0**2 - sigma1**2)
        for j in range(self.inner):
            x = self._with_known(x, s, t0, seen, self.noise.fork("known", state, j))
            shock = math.sqrt(t1 - t0) * _normal(self.noise.fork("down", state, j), x)
            x, _ = self.solver.step(sde, x, t0, t1, shock, self.solver.init(sde, x, t0))
            if j + 1 < self.inner:
                y = x / s.scale(t1).item() + up * _normal(self.noise.fork("up", state, j), x)
                x = y * s.scale(t0).item()
        return x, state + 1

    def _with_known(self, x: Tensor, s: Schedule, t: float, seen: Observation, noise: Noise) -> Tensor:
        """Particles x at t whose known coordinates are the known values, noised to the level of t."""
        k = s.scale(t).item() * (seen.values + s.sigma(t).item() * _normal(noise, x))
        return k.where(seen.known, x)


def _normal(noise: Noise, like: Tensor) -> Tensor:
    return noise.normal(len(like), tuple(like.shape[1:]), dtype=like.dtype, device=like.device)


METHODS: Registry[Callable[[Observation, Noise, int], Solver]] = Registry(
    "method of conditional sampling", {"repaint": RePaint}
)
