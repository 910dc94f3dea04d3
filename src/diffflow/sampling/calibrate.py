r"""Calibration: a fit of a sampling plan, grid and coefficients, to a model's own trajectories.

General methods waste evaluations: far above the data's scale the denoiser is the data mean, below the smallest scale it
is constant, and between it is no polynomial. A few of the model's own solutions show what it is. With the plan's step

    y_i+1 = r_i y_i + (1 - r_i) D_i + sum_j c_ij (D_i-j - D_i)                                     (plan.py)

1. Teacher (teacher.py): a batch of starts, solved with many small steps; one teacher serves every number of steps.
2. Grids (candidate_grids.py): classical ones with a first jump to the data's scale, and grids whose steps are equal in
   the change of D along the teacher's paths.
3. Coefficients, on policy: the batch is rolled out once with the plan itself. Each step's c is a robust ridge
   regression onto the teacher's y at the next level, so a step also mends what those before it have missed; sum |c| is
   kept below 1 - r_i, which keeps the plan stable on starts that it has not seen. The regression starts from the
   classical step of order 2. On the best grids two more kinds of rows are tried: from the corrected step of order 4
   (better where D is smooth and the steps are long), and this step as it is (better where they are short).
4. The best of these, by sqrt(mean error * root mean square error) of the answers, is deformed at random, smoothly and
   node by node, while that helps.

With noise (churn z) a step begins by raising it to h_i = s_i (s_i/s_i+1)^z, which keeps the law. The teacher is raised
by the same random numbers and goes on from there by a fine solution, so its law stays exact. What counts is then the
law of the answers, as the model's own denoiser sees it at several scales. Noise that is raised late leaves no step to
mend its errors; the lowest level at which it is raised is chosen, too: a profile of g.

Everything is forward evaluations, (candidates + rounds) * steps of them per start and some hundreds for the teacher.
Shapes: y, D (n, *shape).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..equation.algebra import Cond
from ..equation.noise import Noise, as_noise
from ..equation.sde import DiffFlow
from .candidate_grids import candidate_grids, deformed
from .grids import snr_grid
from .multistep import multistep_row
from .plan import Plan, combine
from .teacher import ScaledEquation, Teacher, scaled_equation, teach

FINALISTS = 8  # grids that are tried with every kind of rows
RIDGE = 1e-3  # of the mean diagonal of the Gram matrix
REWEIGHTINGS = 3  # of the robust regression
COMPARED_SCALES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # of principal_std: where laws are compared, and raising may end


@dataclass(frozen=True)
class Rows:
    """The kind of a plan's rows: a classical step, and whether a correction is fitted to it.

    Args:
        order: order of the classical step.
        correct: whether that step redoes the one before it.
        fitted: whether its weights are corrected by regression.
        reach: evaluations that a step looks back on, its own included.
    """

    order: int
    correct: bool
    fitted: bool
    reach: int

    def __str__(self) -> str:
        return f"order {self.order}" + ", corrected" * self.correct + ", fitted" * self.fitted


FITTED = Rows(2, correct=False, fitted=True, reach=4)
OTHERS = (Rows(4, correct=True, fitted=True, reach=5), Rows(4, correct=True, fitted=False, reach=5))


@torch.no_grad()
def calibrate(
    sde: DiffFlow,
    steps: int = 8,
    *,
    noise: Noise | int = Noise(1),
    starts: int | Tensor | None = None,
    cond: Cond = None,
    teacher: Teacher | None = None,
    rounds: int = 40,
    on_step: Callable[[int, int], None] | None = None,
) -> Plan:
    """A plan of `steps` evaluations for this equation: its model, its churn and gan, its schedule.

    Args:
        sde: an equation on a noise schedule.
        steps: evaluations of the plan.
        noise: streams for the starts and, with churn, for the raised noise; or an integer seed.
        starts: particles at t = 0 (n, *shape), or how many to draw from sde.start; None: see `teach`.
        cond: condition for the fields, one per start.
        teacher: fine solutions of the same equation from `teach`, to use again; instead of `starts`.
        rounds: attempts to improve the best grid.
        on_step: called with (done, total) after each grid that was tried.

    Returns:
        The plan; its `about` says how it was found, with the error on the calibration batch.

    Raises:
        ValueError: steps below 1, an equation that is not on a noise schedule, no start, an error that is not finite.
    """
    if int(steps) != steps or steps < 1:
        raise ValueError(f"steps={steps}: a plan takes a whole number of steps, at least 1")
    m = scaled_equation(sde, cond)
    solutions = teacher or teach(sde, starts, noise, cond)
    noise = as_noise(noise)
    if not (solutions.y[-1].isfinite().all() and solutions.at(0.0).isfinite().all()):
        raise ValueError("the fine solutions are not finite: look at the denoiser, and at the starts")
    high, low = m.schedule.sigma(0.0).item(), m.schedule.sigma_min
    noisy = any(m.sde.noise(m.schedule.time(v).item()).item() > 0 for v in np.geomspace(high, low, 9))
    default = m.schedule.sigma(snr_grid(m.schedule, steps, m.principal_std)[:-1]).tolist()
    tries = [
        ("default", default),
        *candidate_grids(solutions.lam, solutions.d, solutions.principal_std, steps, high, low),
    ]
    floors = [f * m.principal_std for f in COMPARED_SCALES] if noisy and steps > 2 else []
    others = () if noisy or steps < 4 else OTHERS  # rows of order 4 look back on four evaluations
    finals = min(FINALISTS, len(tries)) * len(others)
    total, done = len(tries) + len(floors) + finals + (rounds if steps > 1 else 0), 0

    def attempt(name: str, levels: Sequence[float], floor: float = 0.0, kind: Rows = FITTED) -> _Attempt:
        nonlocal done
        plan, error = _fit(m, solutions, levels, floor, kind, noisy, noise)
        done += 1
        if on_step is not None:
            on_step(done, total)
        about = {"error": error, "grid": name, "rows": str(kind), "starts": solutions.y.shape[1]}
        about |= {"floor": floor} if noisy else {}
        return _Attempt(error if math.isfinite(error) else math.inf, replace(plan, about=about), floor, kind)

    tried = sorted((attempt(*grid) for grid in tries), key=lambda a: a.error)
    best = tried[0]
    if best.error == math.inf:
        raise ValueError("no grid gave a finite error: do the starts belong to this equation?")
    more = [attempt(best.grid, best.plan.levels, floor) for floor in floors]
    more += [attempt(a.grid, a.plan.levels, kind=kind) for kind in others for a in tried[:FINALISTS]]
    best = min([best, *more], key=lambda a: a.error)
    generator, size = np.random.default_rng(abs(noise.seed)), 0.3
    for k in range(rounds if steps > 1 else 0):
        levels = deformed(best.plan.levels, generator, size, smooth=k % 3 == 0)
        if levels[-1] < low or not all(a > 1.001 * b for a, b in itertools.pairwise(levels)):
            done += 1
            continue
        new = attempt(best.grid, levels, best.floor, best.kind)
        size, best = (min(1.3 * size, 0.5), new) if new.error < best.error else (max(0.93 * size, 0.05), best)
    if on_step is not None:
        on_step(total, total)
    return best.plan


@dataclass(frozen=True)
class _Attempt:
    """A fitted plan with its error on the calibration batch, inf where that is no number, and how it was made."""

    error: float
    plan: Plan
    floor: float
    kind: Rows

    @property
    def grid(self) -> str:
        """Name of the plan's grid."""
        return self.plan.about["grid"]


def _fit(
    m: ScaledEquation, teacher: Teacher, levels: Sequence[float], floor: float, kind: Rows, noisy: bool, noise: Noise
) -> tuple[Plan, float]:
    """The coefficients for these levels, and the error of the answers on the calibration batch."""
    high, finest = m.raised(levels, floor), -math.log(m.schedule.sigma_min)
    y = goal = teacher.y[0]
    past: list[Tensor] = []
    lams: list[float] = []
    rows: list[tuple[float, ...]] = []
    was_raised = False
    for i, (s, h, low) in enumerate(zip(levels, high, [*levels[1:], 0.0], strict=True)):
        if h > s:
            xi = noise.fork("raise", i).normal(len(y), tuple(y.shape[1:]), device=y.device, dtype=y.dtype)
            y, goal = y + math.sqrt(h**2 - s**2) * xi, goal + math.sqrt(h**2 - s**2) * xi
            was_raised = True
        past, lams = [m.denoise(y, h), *past[: kind.reach - 1]], [-math.log(h), *lams[: kind.reach - 1]]
        goal = m.flow(goal, h, low) if was_raised else teacher.at(low)
        r, row = low / h, (1 - low / h,)
        if h == s:  # a raised step forgets too much for a trend
            end = -math.log(low) if low > 0 else math.inf
            row = multistep_row(tuple(lams), end, kind.order, m.principal_std, kind.correct, finest)
        if kind.fitted:
            row = _row(row, past, goal - r * y, 1 - r if low > 0 else 0.5, was_raised)
        y = combine(row, past, r * y)
        rows.append(tuple(row))
    error = _distance_in_law(m, y, goal) if noisy else _error(y, goal)
    return Plan(tuple(levels), tuple(rows), tuple(high) if noisy else None), error


def _row(base: Sequence[float], past: list[Tensor], goal: Tensor, cap: float, was_raised: bool) -> list[float]:
    """The row base + c with sum_j row_j D_j nearest to goal (n, *shape): c_j weighs D_j - D_0, and sum |c| <= cap.

    Starts that end in another mode must not decide. They are few without noise, where weights 1/error suffice (least
    absolute errors), and many after noise was raised, where a far one counts next to nothing.
    """
    row = np.pad(np.array(base), (0, len(past) - len(base)))
    if len(past) == 1:
        return row.tolist()
    features = torch.stack([(d - past[0]).flatten(1).double() for d in past[1:]])  # (p, n, d)
    residual = (goal - combine(row.tolist(), past)).flatten(1).double()
    gram = torch.einsum("pnd,qnd->npq", features, features)  # per start, to weigh the starts anew
    products = torch.einsum("pnd,nd->np", features, residual)
    weights = residual.new_ones(len(residual))
    c = products.new_zeros(len(features))
    eye = torch.eye(len(features)).to(gram)
    for _ in range(1 + REWEIGHTINGS):
        a, b = torch.einsum("n,npq->pq", weights, gram), torch.einsum("n,np->p", weights, products)
        ridge = RIDGE
        size = a.diagonal().mean()
        if not (size > 0 and size.isfinite()):  # D is constant, or no number: nothing to fit
            return row.tolist()
        while True:
            c = torch.linalg.solve(a + ridge * size * eye, b)
            if c.abs().sum() <= cap or ridge > 1e6:
                break
            ridge *= 3
        e = (residual - torch.einsum("p,pnd->nd", c, features)).square().sum(1).sqrt()
        far = e / e.median() if e.median() > 0 else torch.zeros_like(e)
        weights = 1 / (1 + far**2) if was_raised else 1 / far.clamp_min(1)
    row[1:] += c.cpu().numpy()
    row[0] -= float(c.sum())
    return row.tolist()


def _error(y: Tensor, goal: Tensor) -> float:
    """Error sqrt(mean * root mean square) of the distances per root dimension.

    A few starts in another mode count, but do not decide.
    """
    e = (y - goal).flatten(1).double().square().mean(1)
    return math.sqrt(e.sqrt().mean().item() * e.mean().sqrt().item())


def _distance_in_law(m: ScaledEquation, y: Tensor, goal: Tensor) -> float:
    """Distance in law of the answers y from the goals, as the model's own denoiser sees it.

    It is the Wasserstein distance of u = |y - D(y, sigma)| over its mean, averaged over noise levels sigma.

    A start that ends in another mode than its goal is no error in law, if others end there in its stead. A mode drawn
    too wide is, and so is a point between modes, and u shows both. That y and goal share starts and noise leaves a
    small statistical error.
    """
    total = 0.0
    for level in COMPARED_SCALES:
        sigma = max(level * m.principal_std, m.schedule.sigma_min)
        a, b = ((v - m.denoise(v, sigma)).flatten(1).double().norm(dim=1).sort().values for v in (y, goal))
        total += ((a - b).abs().mean() / b.mean()).item() / len(COMPARED_SCALES)
    return total
