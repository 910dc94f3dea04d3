r"""The teacher of a calibration: a batch of starts solved with many small steps, which one fits plans to.

It is the equation in y = x/scale with the same composite denoiser D* and no noise; one teacher serves plans of every
number of steps (calibrate.py).

Shapes: y, D (n, *shape).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..equation.algebra import Cond, Sum
from ..equation.coefficients import value_of
from ..equation.noise import Noise, as_noise
from ..equation.schedule import Schedule
from ..equation.sde import DiffFlow, Speed
from ..equation.times import Time
from .exponential import Exponential
from .multistep import multistep_weights
from .plan import combine
from .sample import sample

FINE = 19  # the teacher's steps per factor e of noise
BATCH = 1 << 17  # numbers in a batch of starts, when nobody says how many


@dataclass(frozen=True)
class Teacher:
    """Fine solutions without noise, in y = x/scale, which serve plans of any number of steps.

    Attributes:
        lam: -log sigma at the nodes, rising, (m,).
        y: positions there, (m, n, *shape).
        d: evaluations of the denoiser there, (m, n, *shape).
        principal_std: largest principal standard deviation of the data, data units.
    """

    lam: np.ndarray
    y: Tensor
    d: Tensor
    principal_std: float

    def at(self, sigma: float) -> Tensor:
        """The positions y at a noise level, or the answers for sigma = 0, by a step of order 4 between the nodes.

        Args:
            sigma: noise level, data units.

        Returns:
            (n, *shape).
        """
        if sigma == 0:
            return self.d[-1]
        lam, last = -math.log(sigma), len(self.lam) - 1
        m = int(np.searchsorted(self.lam, lam + 1e-12)) - 1
        if lam <= self.lam[m] + 1e-12 or m == last:
            return self.y[m]
        lo = min(max(m - 1, 0), last - 3)
        nodes = tuple(float(v) for v in self.lam[lo : lo + 4])
        weights = multistep_weights(nodes, float(self.lam[m]), lam, 1.0, self.principal_std)
        return combine(weights, list(self.d[lo : lo + 4]), math.exp(self.lam[m] - lam) * self.y[m])


@dataclass(frozen=True)
class ScaledEquation:
    """An equation in y = x/scale: its composite denoiser D*, and the flow with this D* and no noise."""

    sde: DiffFlow
    schedule: Schedule
    principal_std: float

    @property
    def quiet(self) -> DiffFlow:
        """The equation without noise and with the same D*, which depends on beta/g2 only.

        Raises:
            ValueError: a speed that depends on the logit, for which there is no D*.
        """
        s, beta, g2 = self.schedule, self.sde.beta, self.sde.g2
        if isinstance(beta, Speed):
            raise ValueError("a speed that depends on the logit has no composite denoiser, which a plan is made of")

        def slower(t: Time) -> Tensor:
            return s.lam2(t) * value_of(beta, t) / value_of(g2, t)

        return replace(self.sde, beta=slower, g2=s.lam2)

    def denoise(self, y: Tensor, sigma: float) -> Tensor:
        """The composite denoiser D*(y, sigma): (n, *shape)."""
        t = self.schedule.time(sigma).item()
        x = y * self.schedule.scale(t).item()
        return self.sde.observe(x, t).denoised(x, t)

    def flow(self, y: Tensor, high: float, low: float) -> Tensor:
        """The points y carried from noise `high` to `low`, or to the answer (low = 0), by a fine solution."""
        s, end = self.schedule, low or self.schedule.sigma_min
        levels = np.geomspace(high, end, 2 + math.ceil(0.5 * FINE * math.log(high / end)))
        levels[0], levels[-1] = high, end
        grid = s.time(torch.as_tensor([*(levels if high > end else levels[:1]), *([] if low else [0.0])]))
        start, method = y * s.scale(grid[0].item()).item(), Exponential(4, selfstart=True)
        solved = sample(self.quiet, start, grid=grid, solver=method, noise=Noise(0))
        return solved.last / s.scale(grid[-1].item()).item()

    def raised(self, levels: Sequence[float], floor: float) -> list[float]:
        """The levels h_i to which noise is raised, from levels of at least `floor`.

        The first, which has all its noise, and the last are not raised.
        """
        s, high = self.schedule, list(levels)
        for i in range(1, len(levels) - 1):
            t = s.time(math.sqrt(levels[i] * levels[i + 1])).item()
            z = self.sde.noise(t).item() ** 2 / s.lam2(t).item()
            if levels[i] >= floor:
                high[i] = min(levels[i] * (levels[i] / levels[i + 1]) ** z, levels[0])
        return high


def scaled_equation(sde: DiffFlow, cond: Cond) -> ScaledEquation:
    """The conditioned equation, once it is known to be one that can be calibrated; raises ValueError else."""
    s = sde.schedule
    if s is None or not sde.on_schedule:
        raise ValueError("calibration needs an equation on a noise schedule (f and lam2 the schedule's own)")
    if isinstance(sde.score, Sum) and not sde.score.is_score:
        raise ValueError("calibration needs a score: weights of sum 1. This field is another: use the default solver")
    principal_std = None if sde.score is None else sde.score.principal_std
    return ScaledEquation(sde if cond is None else sde.given(cond), s, principal_std or 1.0)


def default_starts(shape: Sequence[int]) -> int:
    """Number of starts of event shape `shape` that make BATCH numbers, but at least 128 and at most 4096."""
    return min(max(BATCH // math.prod(shape), 128), 4096)


@torch.no_grad()
def teach(
    sde: DiffFlow, starts: int | Tensor | None = None, noise: Noise | int = Noise(1), cond: Cond = None
) -> Teacher:
    """Fine solutions of an equation, to which plans of any number of steps can be fitted.

    Args:
        sde: an equation on a noise schedule.
        starts: particles at t = 0 (n, *shape), or how many to draw from sde.start; None: `default_starts`.
        noise: streams for the starts, or an integer seed.
        cond: condition for the fields, one per start.

    Returns:
        The solutions.

    Raises:
        ValueError: an equation that is not on a noise schedule, no start, or fewer than 8 starts.
    """
    m, noise = scaled_equation(sde, cond), as_noise(noise)
    if not isinstance(starts, Tensor):
        if sde.start is None:
            raise ValueError("calibration draws starts from sde.start, which is not set: pass the starts themselves")
        starts = sde.start.sample(default_starts(sde.start.shape) if starts is None else starts, noise.fork("start"))
    if len(starts) < 8:
        raise ValueError(f"{len(starts)} starts are too few: a plan is fitted to at least 8")
    high, low = m.schedule.sigma(0.0).item(), m.schedule.sigma_min
    levels = np.geomspace(high, low, 2 + max(3, math.ceil(FINE * math.log(high / low))))
    levels[0], levels[-1] = high, low
    grid, s = m.schedule.time(torch.as_tensor(levels)), m.schedule
    method = Exponential(4)
    x, state, ys, ds = starts, method.init(m.quiet, starts, 0.0), [], []
    for t0, t1 in zip(grid.tolist(), [*grid.tolist()[1:], s.clean_time], strict=True):
        ys.append(x / s.scale(t0).item())
        x, state = method.step(m.quiet, x, t0, t1, None, state)
        ds.append(state.evaluations[0][1] if state.evaluations else x)  # the last step denoises
    return Teacher(-np.log(levels), torch.stack(ys), torch.stack(ds), m.principal_std)
