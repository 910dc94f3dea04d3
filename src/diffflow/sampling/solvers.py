r"""Solvers: one step of the equation from t0 to t1. Each states its order: `order` for ODEs (global), `weak_order`
for SDEs, between positive sigmas.

On a schedule, in y = x/scale and with the composite denoiser D* (sde.denoised), the equation is linear but for D*:

    dy = -(1+z) (D* - y) dlog sigma + noise,      z = churn,      Lambda = -log sigma
    y1 = r^(1+z) y0 + int (1+z) e^{-(1+z)(Lambda1 - L)} D*(L) dL + sigma1 sqrt(1 - r^(2z)) xi,      r = sigma1/sigma0

`Exponential` replaces D* by the polynomial through its last values and integrates exactly (order 1 freezes D*: the
classical DDIM and ancestral steps). A step onto sigma = 0 is a denoising, x = D*, for every solver (a multistep one
continues the trend of D* to sigma_min). Without a schedule (Langevin, particle flows) use Euler or Heun.

Contract: init(sde, x, t0) -> state; step(sde, x, t0, t1, dw, state) -> (x, state). Pure; dw ~ N(0, (t1 - t0) I), or
None where the noise is zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..equation.coefficients import value_of
from ..equation.sde import DiffFlow
from ..equation.times import per_particle, wants_gradient


class Solver(Protocol):
    @property
    def order(self) -> int: ...
    @property
    def weak_order(self) -> int: ...
    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> Any: ...
    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: Any
    ) -> tuple[Tensor, Any]: ...


def ends_at_sigma_zero(sde: DiffFlow, t1: float) -> bool:
    """True when t1 is the time of sigma = 0."""
    return sde.schedule is not None and sde.schedule.sigma(t1).item() == 0


def _stable(sde: DiffFlow, t0: float, t1: float) -> None:
    """Refuse an Euler step of Langevin dynamics that its narrowest component cannot bear.

    On a component of variance v a step h of speed beta has the stationary variance v / (1 - h beta / (2 v)): doubled
    at h beta = v, infinite at 2 v.
    """
    std = None if sde.score is None else sde.score.narrowest(t0)
    if std is None:
        return
    v, beta = std**2, value_of(sde.g2, t0).max().item() / 2  # what the score is weighed with
    stiff = beta * (t1 - t0) / v
    if stiff > 1:
        steps = math.ceil(sde.horizon * beta / (0.1 * v))
        raise ValueError(
            f"a step of {t1 - t0:.3g} is too large for components of std {math.sqrt(v):.3g}: "
            f"step * beta / variance = {stiff:.3g}, and above 1 the samples are spread wrongly. "
            f"Use steps={steps} (5 % error of the variance), or a noise schedule, which does not have this problem"
        )


@dataclass(frozen=True)
class Euler:
    """Euler-Maruyama on the drift: x1 = x0 + drift h + noise dw. One evaluation a step."""

    order: int = 1
    weak_order: int = 1

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> None:
        return None

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: None
    ) -> tuple[Tensor, None]:
        sde = sde.observe(x, t0)
        if ends_at_sigma_zero(sde, t1):
            return sde.denoised(x, t0), None
        _stable(sde, t0, t1)
        x = x + sde.drift(x, t0) * (t1 - t0)
        return (x if dw is None else x + per_particle(sde.noise(t0), x) * dw), None


@dataclass(frozen=True)
class Heun:
    """Predictor and trapezoid with the same increment: order 2, weak order 2 for the additive noise of this equation.
    Two evaluations a step.

    The increment is scaled by the root mean square of the noise at both ends, whose square is the trapezoid rule for
    its variance.
    """

    order: int = 2
    weak_order: int = 2

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> None:
        return None

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: None
    ) -> tuple[Tensor, None]:
        here = sde.observe(x, t0)
        if ends_at_sigma_zero(sde, t1):
            return here.denoised(x, t0), None
        _stable(sde, t0, t1)
        h, a = t1 - t0, here.drift(x, t0)
        if dw is None:
            ahead = x + a * h
            return x + (a + sde.observe(ahead, t1).drift(ahead, t1)) * (h / 2), None
        shock = _scalar_sqrt((_square(sde, t0) + _square(sde, t1)) / 2) * dw
        ahead = x + a * h + shock
        return x + (a + sde.observe(ahead, t1).drift(ahead, t1)) * (h / 2) + shock, None


def _plain(v: Tensor) -> float | Tensor:
    """v (0-d) as a number, unless gradients run through it."""
    return v if wants_gradient(v) else v.item()


def _square(sde: DiffFlow, t: float) -> float | Tensor:
    return _plain(sde.noise(t)) ** 2


def _scalar_sqrt(v: float | Tensor) -> float | Tensor:
    return v.sqrt() if isinstance(v, Tensor) else math.sqrt(v)
