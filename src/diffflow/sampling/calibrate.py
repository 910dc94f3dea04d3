r"""Calibration: fit a sampling plan, grid and coefficients, to a model's own trajectories.

General methods waste evaluations: far above the data's scale the denoiser is the data mean, below the smallest scale it
is constant, and between it is no polynomial. What it is, a few of the model's own solutions tell. With the plan's step

    y_i+1 = r_i y_i + (1 - r_i) D_i + sum_j c_ij (D_i-j - D_i)                                     (plan.py)

1. Teacher: a batch of starts, solved with many small steps; one teacher serves every number of steps.
2. Grids: classical ones with a first jump to the data's scale, and grids whose steps are equal in the change of D
   along the teacher's paths.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..equation.algebra import Cond, Sum
from ..equation.noise import Noise, as_noise
from ..equation.schedule import Schedule
from ..equation.sde import DiffFlow, Speed, value_of
from ..equation.times import Time
from .exponential import Exponential, multistep_row, multistep_weights
from .grids import snr_grid
from .plan import Plan, combine
from .sample import sample

FINALISTS = 8  # grids that are tried with every kind of rows
RIDGE = 1e-3  # of the mean diagonal of the Gram matrix
REWEIGHTINGS = 3  # of the robust regression
COMPARED_SCALES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # of the spread: where laws are compared, and where raising may end
FINE = 19  # the teacher's steps per factor e of noise
BATCH = 1 << 17  # numbers in a batch of starts, when nobody says how many


@dataclass(frozen=True)
class Rows:
    """What the rows of a plan are: the classical step of an `order`, corrected or not, and what is fitted to it.

    reach   evaluations that a step looks back on, its own included
    """

    order: int
    correct: bool
    fitted: bool
    reach: int

    def __str__(self) -> str:
        return f"order {self.order}" + ", corrected" * self.correct + ", fitted" * self.fitted


FITTED = Rows(2, correct=False, fitted=True, reach=4)
OTHERS = (Rows(4, correct=True, fitted=True, reach=5), Rows(4, correct=True, fitted=False, reach=5))


@dataclass(frozen=True)
class Teacher:
    """Fine solutions without noise, in y = x/scale, which serve plans of any number of steps.

    lam (m,) are -log sigma, rising; y and d (m, n, *shape) positions and evaluations there.
    """

    lam: np.ndarray
    y: Tensor
    d: Tensor
    principal_std: float

    def at(self, sigma: float) -> Tensor:
        """y at a noise level, or the answers for sigma = 0: (n, *shape). Between the nodes by a step of order 4."""
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
class _Model:
    """The equation in y = x/scale: its D*, and the flow with this D* and no noise."""

    sde: DiffFlow
    schedule: Schedule
    principal_std: float

    @property
    def quiet(self) -> DiffFlow:
        """No noise and the same D*, which depends on beta/g2 only (architecture.md, fact 7)."""
        s, beta, g2 = self.schedule, self.sde.beta, self.sde.g2
        if isinstance(beta, Speed):
            raise ValueError("a speed that depends on the logit has no composite denoiser, which a plan is made of")

        def slower(t: Time) -> Tensor:
            return s.lam2(t) * value_of(beta, t) / value_of(g2, t)

        return replace(self.sde, beta=slower, g2=s.lam2)

    def denoise(self, y: Tensor, sigma: float) -> Tensor:
        t = self.schedule.time(sigma).item()
        x = y * self.schedule.scale(t).item()
        return self.sde.observe(x, t).denoised(x, t)

    def flow(self, y: Tensor, high: float, low: float) -> Tensor:
        """y carried from noise `high` to `low`, or to the answer (low = 0), by a fine solution."""
        s, end = self.schedule, low or self.schedule.sigma_min
        levels = np.geomspace(high, end, 2 + math.ceil(0.5 * FINE * math.log(high / end)))
        levels[0], levels[-1] = high, end
        grid = s.time(torch.as_tensor([*(levels if high > end else levels[:1]), *([] if low else [0.0])]))
        start, method = y * s.scale(grid[0].item()).item(), Exponential(4, selfstart=True)
        solved = sample(self.quiet, start, grid=grid, solver=method, noise=Noise(0))
        return solved.last / s.scale(grid[-1].item()).item()

    def raised(self, levels: Sequence[float], floor: float) -> list[float]:
        """h_i: raised from levels of at least `floor`; not the first, which has all its noise, and not the last."""
        s, high = self.schedule, list(levels)
        for i in range(1, len(levels) - 1):
            t = s.time(math.sqrt(levels[i] * levels[i + 1])).item()
            z = self.sde.noise(t).item() ** 2 / s.lam2(t).item()
            if levels[i] >= floor:
                high[i] = min(levels[i] * (levels[i] / levels[i + 1]) ** z, levels[0])
        return high


def _model(sde: DiffFlow, cond: Cond) -> _Model:
    s = sde.schedule
    if s is None or not sde.on_schedule:
        raise ValueError("calibration needs an equation on a noise schedule (f and lam2 the schedule's own)")
    if isinstance(sde.score, Sum) and not sde.score.is_score:
        raise ValueError("calibration needs a score: weights of sum 1. This field is another: use the default solver")
    principal_std = None if sde.score is None else sde.score.principal_std
    return _Model(sde if cond is None else sde.given(cond), s, principal_std or 1.0)


def default_starts(shape: Sequence[int]) -> int:
    """How many starts make BATCH numbers, but at least 128 and at most 4096."""
    return min(max(BATCH // math.prod(shape), 128), 4096)


@torch.no_grad()
def teach(
    sde: DiffFlow, starts: int | Tensor | None = None, noise: Noise | int = Noise(1), cond: Cond = None
) -> Teacher:
    """Solve `starts` with fine steps; particles x at t = 0 (n, *shape), or how many to draw from sde.start.

    None: `default_starts`. Raises ValueError for equations that are not on a noise schedule, and without a start.
    """
    m, noise = _model(sde, cond), as_noise(noise)
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

    Raises:
        ValueError: steps below 1, an equation that is not on a noise schedule, no start, an error that is not finite.
    """
    if int(steps) != steps or steps < 1:
        raise ValueError(f"steps={steps}: a plan takes a whole number of steps, at least 1")
    m, known, noise = _model(sde, cond), teacher or teach(sde, starts, noise, cond), as_noise(noise)
    if not (known.y[-1].isfinite().all() and known.at(0.0).isfinite().all()):
        raise ValueError("the fine solutions are not finite: look at the denoiser, and at the starts")
    high, low = m.schedule.sigma(0.0).item(), m.schedule.sigma_min
    noisy = any(m.sde.noise(m.schedule.time(v).item()).item() > 0 for v in np.geomspace(high, low, 9))
    default = m.schedule.sigma(snr_grid(m.schedule, steps, m.principal_std)[:-1]).tolist()
    tries = [("default", default), *_grids(known, steps, high, low)]
    floors = [f * m.principal_std for f in COMPARED_SCALES] if noisy and steps > 2 else []
    others = () if noisy or steps < 4 else OTHERS  # rows of order 4 look back on four evaluations
    finals = min(FINALISTS, len(tries)) * len(others)
    total, done = len(tries) + len(floors) + finals + (rounds if steps > 1 else 0), 0

    def attempt(name: str, levels: Sequence[float], floor: float = 0.0, kind: Rows = FITTED) -> _Attempt:
        nonlocal done
        plan, error = _fit(m, known, levels, floor, kind, noisy, noise)
        done += 1
        if on_step is not None:
            on_step(done, total)
        about = {"error": error, "grid": name, "rows": str(kind), "starts": known.y.shape[1]}
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
        levels = _deformed(best.plan.levels, generator, size, smooth=k % 3 == 0)
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
    """A plan with its error on the calibration batch, inf where that is no number, and how it was made."""

    error: float
    plan: Plan
    floor: float
    kind: Rows

    @property
    def grid(self) -> str:
        return self.plan.about["grid"]


def _fit(
    m: _Model, teacher: Teacher, levels: Sequence[float], floor: float, kind: Rows, noisy: bool, noise: Noise
) -> tuple[Plan, float]:
    """The coefficients for these levels, and the error of the answers on the calibration batch."""
    high, y, goal = m.raised(levels, floor), teacher.y[0], teacher.y[0]
    finest = -math.log(m.schedule.sigma_min)
    past: list[Tensor] = []
    lams: list[float] = []
    rows: list[tuple[float, ...]] = []
    anew = False
    for i, (s, h, low) in enumerate(zip(levels, high, [*levels[1:], 0.0], strict=True)):
        if h > s:
            xi = noise.fork("raise", i).normal(len(y), tuple(y.shape[1:]), device=y.device, dtype=y.dtype)
            y, goal, anew = y + math.sqrt(h**2 - s**2) * xi, goal + math.sqrt(h**2 - s**2) * xi, True
        past, lams = [m.denoise(y, h), *past[: kind.reach - 1]], [-math.log(h), *lams[: kind.reach - 1]]
        goal = m.flow(goal, h, low) if anew else teacher.at(low)
        r, row = low / h, (1 - low / h,)
        if h == s:  # a raised step forgets too much for a trend
            end = -math.log(low) if low > 0 else math.inf
            row = multistep_row(tuple(lams), end, kind.order, m.principal_std, kind.correct, finest)
        if kind.fitted:
            row = _row(row, past, goal - r * y, 1 - r if low > 0 else 0.5, anew)
        y = combine(row, past, r * y)
        rows.append(tuple(row))
    error = _unlike(m, y, goal) if noisy else _error(y, goal)
    return Plan(tuple(levels), tuple(rows), tuple(high) if noisy else None), error


def _row(base: Sequence[float], past: list[Tensor], goal: Tensor, cap: float, anew: bool) -> list[float]:
    """base + c with sum_j row_j D_j nearest to goal (n, *shape): c_j weighs D_j - D_0, and sum |c| <= cap.

    Starts that end in another mode must not decide. They are few without noise, where weights 1/error suffice (least
    absolute errors), and many after a raise (anew), where a far one counts next to nothing.
    """
    row = np.pad(np.array(base), (0, len(past) - len(base)))
    if len(past) == 1:
        return row.tolist()
    features = torch.stack([(d - past[0]).flatten(1).double() for d in past[1:]])  # (p, n, d)
    left = (goal - combine(row.tolist(), past)).flatten(1).double()
    gram = torch.einsum("pnd,qnd->npq", features, features)  # per start, to weigh the starts anew
    right = torch.einsum("pnd,nd->np", features, left)
    weights, c, eye = left.new_ones(len(left)), right.new_zeros(len(features)), torch.eye(len(features)).to(gram)
    for _ in range(1 + REWEIGHTINGS):
        a, b, ridge = torch.einsum("n,npq->pq", weights, gram), torch.einsum("n,np->p", weights, right), RIDGE
        size = a.diagonal().mean()
        if not (size > 0 and size.isfinite()):  # D is constant, or no number: nothing to fit
            return row.tolist()
        while True:
            c = torch.linalg.solve(a + ridge * size * eye, b)
            if c.abs().sum() <= cap or ridge > 1e6:
                break
            ridge *= 3
        e = (left - torch.einsum("p,pnd->nd", c, features)).square().sum(1).sqrt()
        far = e / e.median() if e.median() > 0 else torch.zeros_like(e)
        weights = 1 / (1 + far**2) if anew else 1 / far.clamp_min(1)
    row[1:] += c.cpu().numpy()
    row[0] -= float(c.sum())
    return row.tolist()


def _error(y: Tensor, goal: Tensor) -> float:
    """sqrt(mean * root mean square) of the distances per root dimension: a few starts in another mode count, but do not
    decide."""
    e = (y - goal).flatten(1).double().square().mean(1)
    return math.sqrt(e.sqrt().mean().item() * e.mean().sqrt().item())


def _unlike(m: _Model, y: Tensor, goal: Tensor) -> float:
    """How unlike the answers y are to the goals in law, by the model's own denoiser: of u = |y - D(y, sigma)| the
    Wasserstein distance over the mean, averaged over noise levels sigma.

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


def _grids(teacher: Teacher, steps: int, high: float, low: float) -> Iterator[tuple[str, list[float]]]:
    """Grids worth trying, with a name: levels from `high`, at least `low`, the last above 0."""
    top, principal_std, m = min(high, math.exp(-teacher.lam[0])), teacher.principal_std, steps - 1
    if m == 0:
        return
    for first in (10.0, 24.0) if m > 1 else (0.5, 1.0, 2.0, 4.0, 10.0):
        for last in (0.02, 0.05, 0.1, 0.2, 0.4):
            a, b = first * principal_std, max(last * principal_std, low)
            if not low < a < top or b >= a:
                continue
            yield f"jump to {first:g} spreads, equal ratios to {last:g}", [high, *np.geomspace(a, b, m).tolist()]
            cubes = np.linspace(a ** (1 / 3), b ** (1 / 3), m) ** 3
            yield f"jump to {first:g} spreads, Karras 3 to {last:g}", [high, *cubes.tolist()]
    change, gap = teacher.d, float(teacher.lam[1] - teacher.lam[0])
    for order in (1, 2, 3):
        change = change.diff(dim=0)
        size = change.flatten(2).double().square().mean(2).sqrt().mean(1).cpu().numpy() / gap**order
        lam = teacher.lam[: len(size)] + 0.5 * order * gap
        size = (size * np.minimum(1, principal_std * np.exp(lam))) ** (
            1 / (order + 1)
        )  # an early error is forgotten in part
        bell = np.hanning(9) / np.hanning(9).sum()
        size = np.convolve(np.pad(size, 4, mode="edge"), bell, "valid")
        for floor in (0.02, 0.1) if order == 1 else (0.02,):  # below, higher orders hardly tell
            density = np.interp(teacher.lam, lam, np.maximum(size, floor * size.max()))
            share = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
            for tail in (0.1, 0.4):
                at = np.interp(np.arange(steps) / (m + tail), share / share[-1], teacher.lam)
                name = f"equal changes of order {order}, floor {floor:g}, tail {tail:g}"
                yield name, [high, *np.exp(-at[1:]).tolist()]


def _deformed(levels: Sequence[float], generator: np.random.Generator, size: float, smooth: bool) -> list[float]:
    """Another grid near this one: a smooth change of all levels but the first, or one level moved between its
    neighbours."""
    n, log = len(levels), np.log(np.array(levels))
    move = np.zeros(n)
    if smooth:
        waves = np.cos(math.pi * np.outer(np.arange(4), np.linspace(0, 1, n)))
        move = size * (generator.normal(size=4) / (1 + np.arange(4))) @ waves
    else:
        i = int(generator.integers(1, n))
        move[i] = size * generator.normal() * (log[i - 1] - log[min(i + 1, n - 1)])
    move[0] = 0.0
    return [levels[0], *np.exp(log + move)[1:].tolist()]
