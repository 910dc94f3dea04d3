"""Exponential solvers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..equation.algebra import Sum
from ..equation.sde import DiffFlow
from ..equation.times import per_particle, wants_gradient
from .solvers import _plain, _scalar_sqrt, _square


def _variable(lam: np.ndarray, principal_std: float) -> np.ndarray:
    """w - 1 for w = (1 + sigma^2/spread^2)^(-1/2), Lambda = -log sigma; written so that small sigma cancels nothing."""
    r = np.exp(-2 * lam) / principal_std**2
    root = np.sqrt(1 + r)
    return -r / (root * (1 + root))


def _basis(nodes: Sequence[float], lam: np.ndarray, principal_std: float) -> list[np.ndarray]:
    """The Lagrange polynomials of the nodes in w = 1/sqrt(1 + sigma^2/spread^2), at the points lam."""
    u, w = _variable(np.array(nodes), principal_std), _variable(lam, principal_std)
    k = range(len(u))
    return [np.prod([(w - u[i]) / (u[j] - u[i]) for i in k if i != j], axis=0) for j in k]


@lru_cache(maxsize=4096)  # every batch takes the same steps
def multistep_weights(
    nodes: tuple[float, ...], lam0: float, lam1: float, a: float = 1.0, principal_std: float = 1.0
) -> tuple[float, ...]:
    """Weights of the evaluations at `nodes`: int_{lam0}^{lam1} a e^{-a (lam1 - L)} l_j(w(L)) dL; their sum is
    1 - e^{-a (lam1 - lam0)}.

    l_j are the Lagrange polynomials of the nodes in w = 1/sqrt(1 + sigma^2/spread^2), the signal's share of the
    amplitude: D* of Gaussian data is linear along a path in w. Nodes and bounds in Lambda = -log sigma; Gauss-Legendre
    on panels.
    """
    lam, lengths, basis = _integral(nodes, lam0, lam1, a, principal_std)
    mass = lengths * a * np.exp(-a * (lam1 - lam))
    return tuple(float((mass * b).sum()) for b in basis)


def multistep_row(
    nodes: tuple[float, ...],
    lam1: float,
    order: int,
    principal_std: float,
    correct: bool = False,
    finest: float = math.inf,
) -> tuple[float, ...]:
    """What `Exponential` makes of the evaluations at `nodes`, newest first, in a step of the probability flow from
    nodes[0] to lam1, as one row of a table (plan.py): y1 = r y0 + sum_j row_j D_j.

    Redoing a step is linear in the same evaluations: with e the weights that extrapolated over the last step and c
    those that interpolate over it, y0 moves by (c - e).D first, and the row is one wider, w + r (c - e). lam1 = inf:
    the answer, which is the newest evaluation; with `correct` and what y0 moves by, its trend continued to `finest`.
    """
    near, row = nodes[:order], np.zeros(len(nodes))
    if lam1 < math.inf:
        row[: len(near)] = multistep_weights(near, nodes[0], lam1, 1.0, principal_std)
        r = math.exp(nodes[0] - lam1)
    else:
        ends = nodes[: min(order, 2)] if correct else nodes[:1]
        row[: len(ends)] = _basis(ends, np.array(max(nodes[0], finest)), principal_std)
        r = row[0]
    if correct and order > 1 and len(nodes) > 1:
        old = nodes[1 : order + 1]
        row[: len(near)] += r * np.array(multistep_weights(near, nodes[1], nodes[0], 1.0, principal_std))
        row[1 : len(old) + 1] -= r * np.array(multistep_weights(old, nodes[1], nodes[0], 1.0, principal_std))
    return tuple(row[: order + correct].tolist())


PathPoint = tuple[float, Tensor]  # (Lambda, D*)


@dataclass(frozen=True)
class Past:
    """What an exponential step remembers: the evaluations, newest first, and where the last step began, (Lambda, y),
    and with what pull, to redo it."""

    evaluations: tuple[PathPoint, ...] = ()
    begin: PathPoint | None = None
    pull: float | Tensor = 1.0


@dataclass(frozen=True)
class Exponential:
    """Exponential multistep in log sigma: exact for a D* that is a polynomial of degree order - 1 along the path. One
    evaluation a step.

    On the probability flow orders 1 to 4. With `correct`, the evaluation at the end of a step is also used to redo
    that step by interpolation before the next one (predict, evaluate, correct; as in UniPC, Zhao et al. 2023): no
    further evaluation, a smaller error. With noise the polynomial has degree at most 1 (weak order 2), nothing is
    redone, and z is taken at the step's middle.

    The first steps have no past. By default their orders rise 1, 2, ...: free, and right where D* is still constant,
    as it is at sigma_max; from anywhere else that start limits the order to 2. `selfstart` finds the past inside the
    first step by Picard sweeps, (order - 1)^2 evaluations more, for the full order from any point.
    """

    order: int = 4
    correct: bool = True
    selfstart: bool = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise ValueError(f"order={self.order}: this family has orders 1, 2, 3 and 4")

    @property
    def weak_order(self) -> int:
        return min(self.order, 2)

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> Past:
        if not sde.on_schedule:
            raise ValueError(
                "Exponential steps need an equation on a noise schedule (f and lam2 the schedule's own); "
                "use Euler() or Heun()"
            )
        return Past()

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: Past
    ) -> tuple[Tensor, Past]:
        s = sde.schedule
        assert s is not None
        principal_std = getattr(sde.score, "principal_std", None) or 1.0
        sigma0, sigma1 = s.sigma(t0).item(), s.sigma(t1).item()
        lam0, lam1 = -math.log(sigma0), -math.log(sigma1) if sigma1 > 0 else math.inf
        d, pull = _pulled(sde, x, t0), _pull(sde, lam0, lam1)
        seen = ((lam0, d), *state.evaluations)
        if dw is not None:
            mid = s.time(math.sqrt(sigma0 * sigma1)).item()
            z = _square(sde, mid) / s.lam2(mid).item()
            y = _exponential_step(
                x / s.scale(t0).item(), lam0, lam1, seen[: self.weak_order], pull * (1 + z), principal_std
            )
            fresh = -_scalar_expm1(-2 * z * (lam1 - lam0))
            if isinstance(pull, Tensor) or pull != 1:
                more, gap = pull * (1 + z) - 1, lam1 - lam0
                fresh = -_scalar_expm1(-2 * more * gap) * (z / more) if more != 0 else 2 * z * gap
            y = _plus(y, dw, sigma1 * _scalar_sqrt(fresh / (t1 - t0)))
            return y * s.scale(t1).item(), Past(seen[: self.order - 1])
        y = predicted = x / s.scale(t0).item()
        if self.correct and self.order > 1 and state.begin is not None:
            y = _exponential_step(state.begin[1], state.begin[0], lam0, seen[: self.order], state.pull, principal_std)
        if sigma1 == 0:
            # the corrected point less the noise found at the predicted one; after quiet steps its trend is continued to
            # sigma_min
            last = ((lam0, d + (y - predicted)), *state.evaluations)[: min(self.order, 2) if state.begin else 1]
            ends = _basis([lam for lam, _ in last], np.array(max(lam0, -math.log(s.sigma_min))), principal_std)
            return sum((float(w) * past for w, (_, past) in zip(ends, last, strict=True)), torch.zeros_like(d)), Past()
        if self.selfstart and len(seen) == 1 and self.order > 2:
            seen = self._past_within(sde, y, lam1, seen[0], principal_std)
            new = _exponential_step(y, lam0, lam1, seen, pull, principal_std)
            seen = seen[1:]  # the next step evaluates at lam1 itself
        else:
            new = _exponential_step(y, lam0, lam1, seen[: self.order], pull, principal_std)
        return new * s.scale(t1).item(), Past(seen[: self.order - 1], (lam0, y), pull)

    def _past_within(
        self, sde: DiffFlow, y: Tensor, lam1: float, first: PathPoint, principal_std: float
    ) -> tuple[PathPoint, ...]:
        """D* at `order` equal nodes of the first step, newest first: each sweep integrates the last sweep's
        polynomial and gains an order."""
        s, lam0 = sde.schedule, first[0]
        assert s is not None
        pull = _pull(sde, lam0, lam1)
        nodes = [lam0 + (lam1 - lam0) * j / (self.order - 1) for j in range(self.order)]
        past = [(lam, first[1]) for lam in nodes]
        for _ in range(self.order - 1):
            swept = [first]
            for lam in nodes[1:]:
                t = s.time(math.exp(-lam)).item()
                x = _exponential_step(y, lam0, lam, past, pull, principal_std) * s.scale(t).item()
                swept.append((lam, _pulled(sde, x, t)))
            past = swept
        return tuple(reversed(past))


def _exponential_step(
    y: Tensor, lam0: float, lam1: float, past: Sequence[PathPoint], a: float | Tensor, principal_std: float
) -> Tensor:
    """e^{-a (lam1 - lam0)} y + the integral of the polynomial through `past`."""
    out, nodes = _scalar_exp(-a * (lam1 - lam0)) * y, tuple(lam for lam, _ in past)
    if isinstance(a, Tensor):
        weights: tuple[float | Tensor, ...] = _differentiable_weights(nodes, lam0, lam1, a, principal_std)
    else:
        weights = multistep_weights(nodes, lam0, lam1, a, principal_std)
    for w, (_, d) in zip(weights, past, strict=True):
        out = _plus(out, d, w)
    return out


def _scalar_exp(v: float | Tensor) -> float | Tensor:
    return v.exp() if isinstance(v, Tensor) else math.exp(v)


def _scalar_expm1(v: float | Tensor) -> float | Tensor:
    return v.expm1() if isinstance(v, Tensor) else math.expm1(v)


_NODES, _MASS = np.polynomial.legendre.leggauss(24)


def _integral(
    nodes: Sequence[float], lam0: float, lam1: float, a: float, principal_std: float
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Where the integral of `multistep_weights` is evaluated, the lengths that go with the places, and the polynomials
    there."""
    lo = max(lam0, lam1 - 40 / a)  # the kernel is below e^-40 before
    edges = np.linspace(lo, lam1, 1 + math.ceil(a * (lam1 - lo)))
    half, mid = 0.5 * np.diff(edges)[:, None], 0.5 * (edges[1:] + edges[:-1])[:, None]
    lam = (mid + half * _NODES).ravel()
    return lam, (half * _MASS).ravel(), _basis(nodes, lam, principal_std)


def _differentiable_weights(
    nodes: Sequence[float], lam0: float, lam1: float, a: Tensor, principal_std: float
) -> tuple[Tensor, ...]:
    """`multistep_weights` with the gradient that runs through a."""
    lam, lengths, basis = _integral(nodes, lam0, lam1, a.item(), principal_std)
    mass = torch.from_numpy(lengths) * a * (-a * torch.from_numpy(lam1 - lam)).exp()
    return tuple((mass * torch.as_tensor(b)).sum() for b in basis)


def _plus(x: Tensor, y: Tensor, w: float | Tensor) -> Tensor:
    """x + w y."""
    return x + w.to(x) * y if isinstance(w, Tensor) else torch.add(x, y, alpha=w)


def _pull(sde: DiffFlow, lam0: float, lam1: float) -> float | Tensor:
    """W, what the scores of a sum weigh together on average over a step, where it is positive at all times: D* - y is
    then W (D - y), and the equation is one with pull W toward D, which is smooth where D* is not."""
    score, s = sde.score, sde.schedule
    if not isinstance(score, Sum) or s is None or not score.attracts or score.is_score:
        return 1.0
    if lam1 == math.inf or not any(callable(weight) for weight, _ in score.terms):
        return _plain(score.total(s.time(math.exp(-lam0)).item()))
    at, share = np.polynomial.legendre.leggauss(8)
    times = [s.time(math.exp(-(lam0 + 0.5 * (1 + u) * (lam1 - lam0)))).item() for u in at]
    totals = [0.5 * w * score.total(t) for w, t in zip(share.tolist(), times, strict=True)]
    return _plain(torch.stack(totals).sum())


def _pulled(sde: DiffFlow, x: Tensor, t: float) -> Tensor:
    """What the particles x are pulled to at t, in y = x/scale units: D* itself, or D (`_pull`)."""
    d, score = sde.observe(x, t).denoised(x, t), sde.score
    if isinstance(score, Sum) and score.attracts and not score.is_score:
        assert sde.schedule is not None
        y = x / sde.schedule.scale(t).item()
        d = y + (d - y) / per_particle(score.total(t), x)
    return d


def step_per_particle(sde: DiffFlow, x: Tensor, t0: Tensor, t1: Tensor, xi: Tensor) -> Tensor:
    """One first-order step of particles that are at different times: particle i of x (n, *shape) goes from t0[i] to
    t1[i], float64 (n,), with standard normals xi (n, *shape).

    On a schedule it is the step of Exponential(order=1, correct=False), whose formula with D* frozen stands above, and
    a step onto sigma = 0 is the denoising; elsewhere it is Euler's. The coefficients of `sde` may be (n,) too.
    """
    if not sde.on_schedule:
        h = t1 - t0
        return x + per_particle(h, x) * sde.drift(x, t0) + per_particle(sde.noise(t0) * h.sqrt(), x) * xi
    s = sde.schedule
    assert s is not None
    sigma0, sigma1 = s.sigma(t0), s.sigma(t1)
    positive = torch.where(sigma1 > 0, sigma1, sigma0)  # landing on 0 forgets y and noise: any level will do for them
    mid = s.time((sigma0 * positive).sqrt())
    z = sde.noise(mid) ** 2 / s.lam2(mid)
    fresh = sigma1 * (-torch.expm1(2 * z * (positive / sigma0).log())).sqrt()
    d = sde.denoised(x, t0)
    y = d + per_particle((sigma1 / sigma0) ** (1 + z), x) * (x / per_particle(s.scale(t0), x) - d)
    return per_particle(s.scale(t1), x) * (y + per_particle(fresh, x) * xi)


@dataclass(frozen=True)
class NoiseRaising:
    """EDM's stochastic step: raise the noise from sigma0 to sigma_hat, sigma_hat^2 = sigma0^2 + (g2 - lam2) h /
    scale^2, then Heun on the ODE down to sigma1.

    Karras et al. 2022, Algorithm 2. Weak order 1 in general (a splitting); from the exact start raising keeps the law
    exactly and only Heun's error remains.
    """

    order: int = 2
    weak_order: int = 1

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> None:
        if not sde.on_schedule:
            raise ValueError("the noise-raising step needs an equation on a noise schedule; use Euler() or Heun()")

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: None
    ) -> tuple[Tensor, None]:
        s = sde.schedule
        assert s is not None
        y, sigma, sigma1 = x / s.scale(t0).item(), s.sigma(t0).item(), s.sigma(t1).item()
        if dw is not None and sigma1 > 0:
            noise = sde.noise(t0)
            if wants_gradient(noise):
                raise ValueError(
                    "the noise-raising step takes its noise as a number, and a gradient by it is wanted: use the "
                    "default solver, Euler() or Heun()"
                )
            c = noise.item() / s.scale(t0).item()
            y, sigma = y + c * dw, math.sqrt(sigma**2 + c**2 * (t1 - t0))
        t = s.time(sigma).item()

        def slope(y: Tensor, t: float) -> Tensor:
            x = y * s.scale(t).item()
            return (y - sde.observe(x, t).denoised(x, t)) / s.sigma(t).item()

        d0 = slope(y, t)
        ahead = y + (sigma1 - sigma) * d0
        if sigma1 > 0:
            ahead = y + (sigma1 - sigma) * 0.5 * (d0 + slope(ahead, t1))
        return ahead * s.scale(t1).item(), None
