r"""Sampling plans: tables that are a solver and its grid in one, made for one model by `calibrate`.

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
from .multistep import multistep_row

TOLERANCE = 1e-6  # relative: how exactly a plan's first level and its rows must fit


@dataclass(frozen=True)
class Plan:
    """A sampling plan: a table with one row per step, which is a solver and its grid.

    Args:
        levels: s, the noise levels reached, falling from the schedule's sigma_max: (N,), data units.
        weights: row i weighs D_i, D_{i-1}, ...: N rows of at most i + 1 numbers, each of sum 1 - r_i.
        raised: h, the noise levels evaluated at, h >= s: (N,). None: a plan of the equation without noise, h = s.
        about: how the plan was found, for people.

    Raises:
        ValueError: levels that do not fall, noise that is lowered, or rows of another number or sum.
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
        """Number of steps, which is the number of evaluations."""
        return len(self.levels)

    @property
    def at(self) -> tuple[float, ...]:
        """The noise levels at which the denoiser is evaluated, h or s: (N,)."""
        return self.levels if self.raised is None else self.raised

    @property
    def noisy(self) -> bool:
        """Whether the plan was made for an equation with noise, raised or not at these few levels."""
        return self.raised is not None

    def kept(self, i: int) -> float:
        """Share r_i of y_i in y_{i+1}."""
        return self.levels[i + 1] / self.at[i] if i + 1 < self.steps else 0.0

    def reach(self, i: int) -> int:
        """Number of evaluations up to D_i that later rows still weigh."""
        return max((len(row) - k for k, row in enumerate(self.weights[i + 1 :], 1)), default=0)

    def grid(self, schedule: Schedule, steps: int = 0) -> Tensor:
        """The times of the levels and of 0.

        Args:
            schedule: the noise schedule.
            steps: not used; a rule for grids takes it.

        Returns:
            (N + 1,) float64.

        Raises:
            ValueError: a schedule that starts at another noise level.
        """
        top = schedule.sigma(0.0).item()
        if abs(self.levels[0] / top - 1) > TOLERANCE:
            raise ValueError(f"this plan starts at the noise level {self.levels[0]:.6g}, the schedule at {top:.6g}")
        levels = torch.tensor([top, *self.levels[1:], 0.0], dtype=torch.float64)
        return schedule.time(levels)

    @classmethod
    def multistep(
        cls, levels: Sequence[float], order: int = 1, principal_std: float = 1.0, *, correct: bool = False
    ) -> Plan:
        """The classical exponential method as a plan, nothing fitted (multistep.multistep_row).

        Args:
            levels: falling noise levels, data units.
            order: number of evaluations through which D is extrapolated; of order 1 D is constant over a step.
            principal_std: largest principal standard deviation of the data, data units.
            correct: False: nothing is redone, and the answer is the last evaluation; True: each step is redone, and the
                answer continues the trend of D to the noise level 0.

        Returns:
            The plan, for an equation without noise.

        Raises:
            ValueError: levels that are not positive and finite.
        """
        if not all(0 < level < math.inf for level in levels):
            raise ValueError(f"the levels of a plan are positive and finite, got {tuple(levels)}")
        lams = [-math.log(s) for s in levels]
        steps = zip([tuple(lams[i::-1]) for i in range(len(lams))], [*lams[1:], math.inf], strict=True)
        return cls(tuple(levels), tuple(multistep_row(past, end, order, principal_std, correct) for past, end in steps))

    # -- a Solver ------------------------------------------------------------------------------------------------------
    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> tuple[int, list[Tensor]]:
        """The first row and no evaluations. Raises ValueError unless the field is a score on a noise schedule."""
        if not sde.on_schedule:
            raise ValueError("a plan needs an equation on a noise schedule (f and lam2 the schedule's own)")
        if isinstance(sde.score, Sum) and not sde.score.is_score:
            raise ValueError("a plan needs a score: weights of sum 1. This field is another: use the default solver")
        return 0, []

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: tuple[int, list[Tensor]]
    ) -> tuple[Tensor, tuple[int, list[Tensor]]]:
        """One row of the table as a step (see `Solver.step`).

        Raises:
            ValueError: more steps than rows, an equation whose noise the plan was not made for, or a gradient wanted
                by that noise.
        """
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
        """The plan as a dictionary of numbers, lists and strings."""
        return asdict(self) | {"about": dict(self.about)}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Plan:
        """The plan of a dictionary from `to_dict`.

        Args:
            d: the dictionary.

        Returns:
            The plan.

        Raises:
            ValueError: anything else.
        """
        try:
            raised = None if d["raised"] is None else tuple(map(float, d["raised"]))
            rows = tuple(tuple(map(float, row)) for row in d["weights"])
            return cls(tuple(map(float, d["levels"])), rows, raised, dict(d["about"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no sampling plan ({error!r})") from None


def combine(weights: Sequence[float], past: list[Tensor], start: Tensor | None = None) -> Tensor:
    """The sum start + sum_j weights[j] past[j]."""
    out = start
    for w, d in zip(weights, past, strict=False):
        out = w * d if out is None else torch.add(out, d, alpha=w)
    assert out is not None
    return out
