r"""A sampling plan: a solver and its grid as one fixed table, made for one model by `calibrate`.

Every explicit multistep method on a noise schedule is a table. In y = x/scale, at noise levels s_0 > ... > s_{N-1},
with one evaluation D_i of the composite denoiser a step and s_N = 0:

    y_i    <- y_i + sqrt(h_i^2 - s_i^2) xi_i                 the noise raised from s_i to h_i: exact in law
    D_i    =  D*(y_i, h_i)
    y_i+1  =  r_i y_i + sum_j w_ij D_i-j                     r_i = s_i+1 / h_i,   sum_j w_ij = 1 - r_i

The last row has r = 0: the answer is a mean of the last evaluations. h = s is the probability flow; raising by h_i =
s_i (s_i/s_i+1)^z and coming down again is the equation with churn z in small steps (EDM's sampler). The rows sum to
1 - r_i, so that data that are moved are sampled moved; everything else about them is the calibration's.

A plan is a `Solver` that brings its own grid: sample(sde, x0, plan=plan). It holds a few numbers, not the model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..equation.algebra import Sum
from ..equation.schedule import Schedule
from ..equation.sde import DiffFlow
from .exponential import multistep_row

TOLERANCE = 1e-6  # relative: how exactly a plan's first level and its rows must fit


@dataclass(frozen=True)
class Plan:
    """A table of `steps` rows.

    Args:
        levels: s, the noise levels reached, falling from the schedule's sigma_max: (N,).
        weights: row i weighs D_i, D_{i-1}, ...: N rows of at most i + 1 numbers, each of sum 1 - r_i.
        raised: h, the noise levels evaluated at, h >= s: (N,). None: a plan of the equation without noise, h = s.
        about: how the plan was found, for people.
    """

    levels: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    raised: tuple[float, ...] | None = None
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    order = weak_order = 1  # a table for one number of steps has no order; every solver states one

    def __post_init__(self) -> None:
        s, h, n = self.levels, self.at, len(self.levels)
        if n < 1 or len(self.weights) != n or len(h) != n:
            raise ValueError(f"a plan has a row and a raised level for each of its {n} levels (at least 1)")
        if not (all(a > b for a, b in itertools.pairwise(s)) and s[-1] > 0):
            raise ValueError(f"the levels of a plan are positive and fall, got {s}")
        if not all(b >= a and math.isfinite(b) for a, b in zip(s, h, strict=True)):
            raise ValueError(f"the noise is raised, not lowered: from {s} to {h}")
        if h[0] > s[0] or h[-1] > s[-1]:
            raise ValueError("the noise is raised on the way, not at the first level, nor at the last")
        for i, row in enumerate(self.weights):
            if not 1 <= len(row) <= i + 1 or not abs(sum(row) - (1 - self.kept(i))) <= TOLERANCE:
                raise ValueError(f"row {i} has 1 to {i + 1} weights of sum {1 - self.kept(i):.6g}, got {row}")

    @property
    def steps(self) -> int:
        return len(self.levels)

    @property
    def at(self) -> tuple[float, ...]:
        """The noise levels at which the denoiser is evaluated."""
        return self.levels if self.raised is None else self.raised

    @property
    def noisy(self) -> bool:
        """Whether it was made for an equation with noise, raised or not at these few levels."""
        return self.raised is not None

    def kept(self, i: int) -> float:
        """r_i, the share of y_i in y_{i+1}."""
        return self.levels[i + 1] / self.at[i] if i + 1 < self.steps else 0.0

    def reach(self, i: int) -> int:
        """How many of the evaluations up to D_i later rows still weigh."""
        return max((len(row) - k for k, row in enumerate(self.weights[i + 1 :], 1)), default=0)

    def grid(self, schedule: Schedule, steps: int = 0) -> Tensor:
        """The times of the levels and of 0: (N + 1,). Raises ValueError for a schedule that starts elsewhere."""
        top = schedule.sigma(0.0).item()
        if abs(self.levels[0] / top - 1) > TOLERANCE:
            raise ValueError(f"this plan starts at the noise level {self.levels[0]:.6g}, the schedule at {top:.6g}")
        levels = torch.tensor([top, *self.levels[1:], 0.0], dtype=torch.float64)
        return schedule.time(levels)

    @classmethod
    def multistep(
        cls, levels: Sequence[float], order: int = 1, principal_std: float = 1.0, *, correct: bool = False
    ) -> Plan:
        """The classical exponential method as a plan, nothing fitted (solvers.multistep_row): D extrapolated through
        the last `order` evaluations, of data whose largest principal standard deviation is `spread`. Of order 1 D is
        constant over a step. Without `correct` nothing is redone, and the answer is the last evaluation; with it, the
        answer continues the trend of D to the noise level 0."""
        if not all(0 < level < math.inf for level in levels):
            raise ValueError(f"the levels of a plan are positive and finite, got {tuple(levels)}")
        lams = [-math.log(s) for s in levels]
        steps = zip([tuple(lams[i::-1]) for i in range(len(lams))], [*lams[1:], math.inf], strict=True)
        return cls(tuple(levels), tuple(multistep_row(past, end, order, principal_std, correct) for past, end in steps))

    # -- a Solver ------------------------------------------------------------------------------------------------------
    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> tuple[int, list[Tensor]]:
        if not sde.on_schedule:
            raise ValueError("a plan needs an equation on a noise schedule (f and lam2 the schedule's own)")
        if isinstance(sde.score, Sum) and not sde.score.is_score:
            raise ValueError("a plan needs a score: weights of sum 1. This field is another: use the default solver")
        return 0, []

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: tuple[int, list[Tensor]]
    ) -> tuple[Tensor, tuple[int, list[Tensor]]]:
        s, (i, past) = sde.schedule, state
        assert s is not None
        if i >= self.steps:
            raise ValueError(f"a plan of {self.steps} steps cannot take another: use its own grid")
        if dw is not None and torch.is_grad_enabled() and sde.noise(t0).requires_grad:
            raise ValueError(
                "a plan is a table for one churn, and its gradient is wanted: leave the plan out, or compute "
                "without gradients (torch.no_grad)"
            )
        y, level, high = x / s.scale(t0).item(), self.levels[i], self.at[i]
        if high > level:
            if dw is None:
                raise ValueError("this plan raises the noise, and the equation has none: calibrate it for this churn")
            y = y + math.sqrt((high**2 - level**2) / (t1 - t0)) * dw
            t0 = s.time(high).item()
            x = y * s.scale(t0).item()
        elif dw is not None and not self.noisy:
            raise ValueError(
                "this plan is one of the probability flow, and the equation has noise: calibrate it for this churn"
            )
        past = [sde.observe(x, t0).denoised(x, t0), *past]
        kept = self.kept(i)
        y = combine(self.weights[i], past, kept * y if kept else None)
        return y * s.scale(t1).item(), (i + 1, past[: self.reach(i)])

    # -- as JSON -------------------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"about": dict(self.about)}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Plan:
        """What `to_dict` gave. Raises ValueError for anything else."""
        try:
            raised = None if d["raised"] is None else tuple(map(float, d["raised"]))
            rows = tuple(tuple(map(float, row)) for row in d["weights"])
            return cls(tuple(map(float, d["levels"])), rows, raised, dict(d["about"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no sampling plan ({error!r})") from None


def combine(weights: Sequence[float], past: list[Tensor], start: Tensor | None = None) -> Tensor:
    """start + sum_j weights[j] past[j]."""
    out = start
    for w, d in zip(weights, past, strict=False):
        out = w * d if out is None else torch.add(out, d, alpha=w)
    assert out is not None
    return out
