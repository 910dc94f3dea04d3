r"""Exponential solvers: steps on a noise schedule that are exact but for the denoiser's change along the way.

In y = x/scale and with the composite denoiser D* (sde.denoised), the equation is linear but for D*:

    dy = -(1+z) (D* - y) dlog sigma + noise,      z = churn,      Lambda = -log sigma
    y1 = r^(1+z) y0 + int (1+z) e^{-(1+z)(Lambda1 - L)} D*(L) dL + sigma1 sqrt(1 - r^(2z)) xi,      r = sigma1/sigma0

`Exponential` replaces D* by the polynomial through its last values and integrates exactly (order 1 freezes D*: the
classical DDIM and ancestral steps); a step onto sigma = 0 is a denoising that continues the trend of D* to sigma_min.
The weights of the evaluations stand in multistep.py. `step_per_particle` is the step of order 1 for particles at
different times, `NoiseRaising` EDM's stochastic step.

A sum of fields that pulls with total weight W != 1 (algebra.Sum) has D* = y + W (D - y): then a = W (1+z) stands in
the place of 1+z, and D in that of D*.

Shapes: x, y, D (n, *shape).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..equation.algebra import Sum
from ..equation.sde import DiffFlow
from ..equation.times import per_particle, wants_gradient
from .multistep import basis, differentiable_weights, multistep_weights
from .solvers import _scalar, _scalar_sqrt, _square

PathPoint = tuple[float, Tensor]  # (Lambda, D* or y there)


@dataclass(frozen=True)
class Past:
    """The state of an exponential solver between steps.

    Attributes:
        evaluations: pairs (Lambda, D*), newest first.
        begin: where the last step began, (Lambda, y), to redo it.
        pull: the total weight W of its field.
    """

    evaluations: tuple[PathPoint, ...] = ()
    begin: PathPoint | None = None
    pull: float | Tensor = 1.0


@dataclass(frozen=True)
class Exponential:
    """Exponential multistep method in log sigma, the default on a noise schedule: one evaluation a step.

    It is exact for a D* that is a polynomial of degree order - 1 along the path, on the probability flow with orders
    1 to 4. With `correct`, the evaluation at the end of a step is also used to redo that step by interpolation before
    the next one (predict, evaluate, correct; as in UniPC): no further evaluation, a smaller error. With noise the
    polynomial has degree at most 1 (weak order 2), nothing is redone, and z is taken at the step's middle.

    The first steps have no past. By default their orders rise 1, 2, ...: free, and right where D* is still constant,
    as it is at sigma_max; from anywhere else that start limits the order to 2. `selfstart` finds the past inside the
    first step by Picard sweeps, (order - 1)^2 evaluations more, for the full order from any point.

    Args:
        order: number of evaluations that the polynomial goes through, 1 to 4.
        correct: whether each step is redone with the evaluation at its end.
        selfstart: whether the first step finds a past of its own.

    Raises:
        ValueError: another order.

    References:
        Zhang & Chen 2023, "Fast sampling of diffusion models with exponential integrator"; Zhao et al. 2023, "UniPC".
    """

    order: int = 4
    correct: bool = True
    selfstart: bool = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise ValueError(f"order={self.order}: this family has orders 1, 2, 3 and 4")

    @property
    def weak_order(self) -> int:
        """Weak order with noise, at most 2."""
        return min(self.order, 2)

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> Past:
        """An empty past. Raises ValueError for an equation that is not on a noise schedule."""
        if not sde.on_schedule:
            raise ValueError(
                "Exponential steps need an equation on a noise schedule (f and lam2 the schedule's own); "
                "use Euler() or Heun()"
            )
        return Past()

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: Past
    ) -> tuple[Tensor, Past]:
        """One step (see `Solver.step`)."""
        s = sde.schedule
        assert s is not None
        principal_std = getattr(sde.score, "principal_std", None) or 1.0
        sigma0, sigma1 = s.sigma(t0).item(), s.sigma(t1).item()
        lam0, lam1 = -math.log(sigma0), -math.log(sigma1) if sigma1 > 0 else math.inf
        d, pull = _pulled(sde, x, t0), _pull(sde, lam0, lam1)
        evaluations = ((lam0, d), *state.evaluations)
        if dw is not None:
            mid = s.time(math.sqrt(sigma0 * sigma1)).item()
            z = _square(sde, mid) / s.lam2(mid).item()
            y = _exponential_step(
                x / s.scale(t0).item(), lam0, lam1, evaluations[: self.weak_order], pull * (1 + z), principal_std
            )
            fresh = -_scalar_expm1(-2 * z * (lam1 - lam0))
            if isinstance(pull, Tensor) or pull != 1:
                more, gap = pull * (1 + z) - 1, lam1 - lam0
                fresh = -_scalar_expm1(-2 * more * gap) * (z / more) if more != 0 else 2 * z * gap
            y = _plus(y, dw, sigma1 * _scalar_sqrt(fresh / (t1 - t0)))
            return y * s.scale(t1).item(), Past(evaluations[: self.order - 1])
        y = predicted = x / s.scale(t0).item()
        if self.correct and self.order > 1 and state.begin is not None:
            y = _exponential_step(
                state.begin[1], state.begin[0], lam0, evaluations[: self.order], state.pull, principal_std
            )
        if sigma1 == 0:
            # the corrected point less the noise found at the predicted one; after quiet steps its trend is continued to
            # sigma_min
            last = ((lam0, d + (y - predicted)), *state.evaluations)[: min(self.order, 2) if state.begin else 1]
            ends = basis([lam for lam, _ in last], np.array(max(lam0, -math.log(s.sigma_min))), principal_std)
            return sum((float(w) * past for w, (_, past) in zip(ends, last, strict=True)), torch.zeros_like(d)), Past()
        if self.selfstart and len(evaluations) == 1 and self.order > 2:
            evaluations = self._past_within(sde, y, lam1, evaluations[0], principal_std)
            new = _exponential_step(y, lam0, lam1, evaluations, pull, principal_std)
            evaluations = evaluations[1:]  # the next step evaluates at lam1 itself
        else:
            new = _exponential_step(y, lam0, lam1, evaluations[: self.order], pull, principal_std)
        return new * s.scale(t1).item(), Past(evaluations[: self.order - 1], (lam0, y), pull)

    def _past_within(
        self, sde: DiffFlow, y: Tensor, lam1: float, first: PathPoint, principal_std: float
    ) -> tuple[PathPoint, ...]:
        """Evaluations of D* at `order` equal nodes of the first step, newest first.

        Each sweep integrates the last sweep's polynomial and gains an order.
        """
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
    """The point y at lam1: e^{-a (lam1 - lam0)} y + the integral of the polynomial through `past`."""
    out, nodes = _scalar_exp(-a * (lam1 - lam0)) * y, tuple(lam for lam, _ in past)
    if isinstance(a, Tensor):
        weights: tuple[float | Tensor, ...] = differentiable_weights(nodes, lam0, lam1, a, principal_std)
    else:
        weights = multistep_weights(nodes, lam0, lam1, a, principal_std)
    for w, (_, d) in zip(weights, past, strict=True):
        out = _plus(out, d, w)
    return out


def _scalar_exp(v: float | Tensor) -> float | Tensor:
    return v.exp() if isinstance(v, Tensor) else math.exp(v)


def _scalar_expm1(v: float | Tensor) -> float | Tensor:
    return v.expm1() if isinstance(v, Tensor) else math.expm1(v)


def _plus(x: Tensor, y: Tensor, w: float | Tensor) -> Tensor:
    """The sum x + w y."""
    return x + w.to(x) * y if isinstance(w, Tensor) else torch.add(x, y, alpha=w)


def _pull(sde: DiffFlow, lam0: float, lam1: float) -> float | Tensor:
    """The weight W of a sum's scores together, averaged over a step, where it is positive at all times; else 1.

    D* - y is then W (D - y), and the equation is one with pull W toward D, which is smooth where D* is not.
    """
    score, s = sde.score, sde.schedule
    if not isinstance(score, Sum) or s is None or not score.attracts or score.is_score:
        return 1.0
    if lam1 == math.inf or not any(callable(weight) for weight, _ in score.terms):
        return _scalar(score.total(s.time(math.exp(-lam0)).item()))
    at, share = np.polynomial.legendre.leggauss(8)
    times = [s.time(math.exp(-(lam0 + 0.5 * (1 + u) * (lam1 - lam0)))).item() for u in at]
    totals = [0.5 * w * score.total(t) for w, t in zip(share.tolist(), times, strict=True)]
    return _scalar(torch.stack(totals).sum())


def _pulled(sde: DiffFlow, x: Tensor, t: float) -> Tensor:
    """The point to which the particles x are pulled at t, in y = x/scale units: D* itself, or D (`_pull`)."""
    d, score = sde.observe(x, t).denoised(x, t), sde.score
    if isinstance(score, Sum) and score.attracts and not score.is_score:
        assert sde.schedule is not None
        y = x / sde.schedule.scale(t).item()
        d = y + (d - y) / per_particle(score.total(t), x)
    return d


def step_per_particle(sde: DiffFlow, x: Tensor, t0: Tensor, t1: Tensor, xi: Tensor) -> Tensor:
    """One first-order step of particles that are at different times.

    On a schedule it is the step of Exponential(order=1, correct=False), and a step onto sigma = 0 is the denoising;
    elsewhere it is Euler's. The coefficients of `sde` may be (n,) too.

    Args:
        sde: the equation.
        x: particles (n, *shape).
        t0: time of each at the beginning, float64 (n,).
        t1: time of each at the end, float64 (n,).
        xi: standard normals (n, *shape).

    Returns:
        The particles (n, *shape), each at its t1.
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
    """EDM's stochastic step: raise the noise from sigma0 to sigma_hat, then Heun on the ODE down to sigma1.

    sigma_hat^2 = sigma0^2 + (g2 - lam2) h / scale^2. Weak order 1 in general (a splitting); from the exact start
    raising keeps the law exactly and only Heun's error remains.

    Args:
        order: 2.
        weak_order: 1.

    References:
        Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", Algorithm 2.
    """

    order: int = 2
    weak_order: int = 1

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> None:
        """No state. Raises ValueError for an equation that is not on a noise schedule."""
        if not sde.on_schedule:
            raise ValueError("the noise-raising step needs an equation on a noise schedule; use Euler() or Heun()")

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: None
    ) -> tuple[Tensor, None]:
        """One step (see `Solver.step`). Raises ValueError where a gradient by the noise is wanted."""
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
