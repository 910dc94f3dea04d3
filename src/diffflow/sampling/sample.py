r"""The sampling loop, the only one that moves particles: `sample`.

    x_0 ~ start;    for k = 0, 1, ...:   x_{k+1} = solver.step(x_k, t_k -> t_{k+1}, dw_k)

The default solver on a schedule is the exponential multistep and its grid ends on the clean data (sigma = 0) after
exactly `steps` evaluations; elsewhere it is Euler, on the equation's own times or equal steps to the
horizon. Shapes: x (n, *shape).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from ..equation.algebra import Cond, Sum
from ..equation.laws import as_particles
from ..equation.noise import Increments, Noise, as_noise
from ..equation.schedule import Schedule
from ..equation.sde import DiffFlow, Tally
from .exponential import Exponential
from .grids import karras, snr_grid
from .plan import Plan
from .solvers import Euler, Solver, ends_at_sigma_zero

Grid = Sequence[float] | Tensor | Callable[[Schedule, int], Tensor]


@dataclass(frozen=True, repr=False)
class Trajectory:
    """The result of a solve.

    Attributes:
        last: the particles at the end, (n, *shape).
        nfe: network evaluations per particle.
        times: the grid, (steps + 1,) float64.
        kept: pairs (t, x) of the states that `keep` asked for.
    """

    last: Tensor
    nfe: int
    times: Tensor
    kept: list[tuple[float, Tensor]]

    def __repr__(self) -> str:
        kept = f", {len(self.kept)} states kept" if self.kept else ""
        return f"Trajectory(last: {len(self.last)} x {tuple(self.last.shape[1:])}, nfe {self.nfe}{kept})"


@dataclass(frozen=True)
class Step:
    """The state of a solve after a step, which `on_step` is given.

    Attributes:
        index: number of the step, 1 to total.
        total: number of steps.
        t: time at its end.
        x: the particles, (n, *shape).
    """

    index: int
    total: int
    t: float
    x: Tensor


class NotFinite(ValueError):
    """The error of particles that became infinite or no number; its message says after which step."""


def default_solver(sde: DiffFlow) -> Solver:
    """The solver of an equation when none is given: Exponential on a schedule, else Euler."""
    if isinstance(sde.score, Sum) and not sde.score.attracts:
        return Exponential(2) if sde.on_schedule else Euler()
    return Exponential() if sde.on_schedule else Euler()


def default_grid(sde: DiffFlow, steps: int) -> Tensor:
    """The times that a solve of `steps` steps visits when none are given: (steps + 1,), or the equation's own."""
    if sde.grid is not None:
        return torch.as_tensor(sde.grid(steps) if callable(sde.grid) else sde.grid, dtype=torch.float64)
    if sde.schedule is not None and sde.on_schedule:
        principal_std = None if sde.score is None else sde.score.principal_std
        if isinstance(sde.score, Sum) and not sde.score.attracts:  # nothing is constant far above the data
            return karras(sde.schedule, steps)
        return snr_grid(sde.schedule, steps, 1.0 if principal_std is None else principal_std)
    return torch.linspace(0, sde.horizon, steps + 1, dtype=torch.float64)


def _grid_times(sde: DiffFlow, steps: int, grid: Grid | None) -> Tensor:
    """The times of a solve (m,), float64. Raises ValueError where they do not rise within the equation's life."""
    if int(steps) != steps or steps < 1:
        raise ValueError(f"steps={steps}: a solve takes a whole number of steps, at least 1")
    if grid is None:
        times = default_grid(sde, int(steps))
    elif callable(grid):
        if sde.schedule is None:
            raise ValueError("a grid rule needs an equation on a schedule; give the times themselves")
        times = grid(sde.schedule, int(steps))
    else:
        times = torch.as_tensor(grid, dtype=torch.float64)
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise ValueError(f"a grid is a rising row of at least two times, got {times.tolist()}")
    last = max(sde.horizon, sde.schedule.clean_time) if sde.schedule is not None else sde.horizon
    if times[0] < 0 or times[-1] > last * (1 + 1e-12):
        raise ValueError(
            f"the grid runs from {times[0].item():.6g} to {times[-1].item():.6g}, "
            f"outside [0, {last:.6g}] where this equation lives"
        )
    return times


def sample(
    sde: DiffFlow,
    x0: Tensor | int,
    steps: int = 20,
    *,
    solver: Solver | None = None,
    grid: Grid | None = None,
    plan: Plan | None = None,
    noise: Increments | int | None = None,
    cond: Cond = None,
    keep: int | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Trajectory:
    """Move particles from t = 0 to the end of the grid.

    Args:
        sde: the equation.
        x0: particles (n, *shape) at the grid's first time, or how many to draw from sde.start.
        steps: number of steps; on a schedule with the default solver also the number of evaluations. Ignored where
            `grid`, or the equation, gives the times themselves.
        solver: default Exponential(4) on a schedule (weak order 2 with noise), else Euler.
        grid: times, or a rule such as `karras`; a last time of schedule.clean_time denoises to sigma = 0, a last time
            of horizon stops at sigma_min.
        plan: solver and grid in one, from `df.calibrate`; instead of steps, solver and grid.
        noise: streams, one per particle; an integer seed; or a BrownianPath. None: a fresh seed from torch's generator.
        cond: condition for the fields, e.g. labels (n,).
        keep: keep every k-th state (and the first and last).
        on_step: called with a `Step` after each step.

    Returns:
        The particles at the end, with the times, the number of evaluations, and the states kept.

    Raises:
        ValueError: steps below 1, a grid that does not rise, a plan made for another equation, no start for a number
            of particles, a step too large for a stiff target; NotFinite, a ValueError, for particles that became
            infinite or no number.
        TypeError: noise that is none.
    """
    if plan is not None:
        if solver is not None or grid is not None:
            raise ValueError("a plan is a solver and its grid: give the plan alone")
        solver, grid, steps = plan, plan.grid, plan.steps
    times = _grid_times(sde, steps, grid)
    noise = noise if isinstance(noise, Increments) else as_noise(noise)
    if isinstance(x0, int):
        if sde.start is None:
            raise ValueError(
                f"x0={x0} asks for particles from sde.start, which is not set: "
                "pass particles, or start=schedule.prior(shape, ...)"
            )
        if x0 < 1:
            raise ValueError(f"x0={x0}: how many particles? at least 1")
        if not isinstance(noise, Noise):
            raise ValueError("particles are drawn from streams: pass x0 as a tensor when noise is a path")
        x = sde.start.sample(x0, noise.fork("start"))
    else:
        x = x0 if sde.start is None else as_particles(x0, sde.start)
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    if keep is not None and keep < 1:
        raise ValueError(f"keep={keep}: keep every k-th state, k >= 1")
    tally = Tally()
    sde = replace(sde if cond is None else sde.given(cond), tally=tally)
    method = default_solver(sde) if solver is None else solver
    clock = times.tolist()
    kept = [(clock[0], x)] if keep else []
    state = method.init(sde, x, clock[0])
    total = len(clock) - 1
    sums = [x.detach().sum(dtype=torch.float64)]  # one that is not finite tells of a particle that is not
    noisy = cache(lambda t: bool(sde.noise(t).item()))  # the end of a step is where the next one begins
    for k, (t0, t1) in enumerate(itertools.pairwise(clock)):
        quiet = ends_at_sigma_zero(sde, t1) or not any(noisy(t) for t in (t0, 0.5 * (t0 + t1), t1))
        dw = None if quiet else noise.increment(k, t0, t1, x)
        x, state = method.step(sde, x, t0, t1, dw, state)
        sums.append(x.detach().sum(dtype=torch.float64))
        if x.device.type == "cpu" and not math.isfinite(sums[-1].item()):  # elsewhere this would wait for the device
            _require_finite(sums, clock, x)
        if keep and ((k + 1) % keep == 0 or k + 1 == total):
            kept.append((t1, x))
        if on_step is not None:
            on_step(Step(k + 1, total, t1, x))
    _require_finite(sums, clock, x)
    return Trajectory(x, tally.nfe, times, kept)


def _require_finite(sums: list[Tensor], clock: list[float], x: Tensor) -> None:
    """A check that particles stayed finite, by the sum over all of them at the start and after each step.

    Raises:
        NotFinite: they did not; the message names the first step after which they were not.
    """
    if not x.is_meta and bool((bad := ~torch.stack(sums).isfinite()).any()):
        k, n = int(bad.nonzero()[0]), int((~x.flatten(1).isfinite().all(1)).sum())
        when = f"after step {k} of {len(clock) - 1} (t = {clock[k]:.6g})" if k else "at the start (x0)"
        why = "; the fields are not finite there, or the steps are too long for them" if k else ""
        raise NotFinite(f"particles are not finite {when}: {n} of {len(x)} are infinite or no number now{why}")
