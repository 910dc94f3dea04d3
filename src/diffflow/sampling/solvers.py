r"""Solvers: methods that take one step of the equation from t0 to t1, and the two that work for any equation.

Euler: x1 = x0 + drift h + noise dw. Heun: a predictor and the trapezoid rule with the same increment. On a noise
schedule the exponential methods (exponential.py) need far fewer steps; these are for equations without one (Langevin,
particle flows).
A step onto sigma = 0 is a denoising, x = D*, for every solver.

Each states its order: `order` for ODEs (global), `weak_order` for SDEs, between positive sigmas.

Contract: init(sde, x, t0) -> state; step(sde, x, t0, t1, dw, state) -> (x, state). Pure; dw ~ N(0, (t1 - t0) I), or
None where the noise is zero. Shapes: x, dw (n, *shape).
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
    """A solver: a frozen value that takes steps, with a state of its own between them."""

    @property
    def order(self) -> int:
        """Global order on an ODE."""
        ...

    @property
    def weak_order(self) -> int:
        """Weak order on an SDE."""
        ...

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> Any:
        """The state before the first step.

        Args:
            sde: the equation.
            x: particles (n, *shape) at t0.
            t0: time of the first step's beginning.

        Returns:
            What `step` takes as `state`.

        Raises:
            ValueError: an equation that this solver cannot solve.
        """
        ...

    def step(self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """One step from t0 to t1.

        Args:
            sde: the equation.
            x: particles (n, *shape) at t0.
            t0: time at the step's beginning.
            t1: time at its end.
            dw: Brownian increments (n, *shape), N(0, (t1 - t0) I); None where the noise is zero.
            state: what `init` or the step before returned.

        Returns:
            The particles (n, *shape) at t1, and the state for the next step.
        """
        ...


def ends_at_sigma_zero(sde: DiffFlow, t1: float) -> bool:
    """True when t1 is the time of sigma = 0."""
    return sde.schedule is not None and sde.schedule.sigma(t1).item() == 0


def _stable(sde: DiffFlow, t0: float, t1: float) -> None:
    """A check that an Euler step of Langevin dynamics is one that its narrowest component can bear.

    On a component of variance v a step h of speed beta has the stationary variance v / (1 - h beta / (2 v)): doubled
    at h beta = v, infinite at 2 v.

    Raises:
        ValueError: h beta > v; the message says how many steps are enough.
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
    """Euler-Maruyama on the drift: x1 = x0 + drift h + noise dw, one evaluation a step.

    Args:
        order: 1.
        weak_order: 1.
    """

    order: int = 1
    weak_order: int = 1

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> None:
        """No state: a step needs nothing from those before."""
        return

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: None
    ) -> tuple[Tensor, None]:
        """One step (see `Solver.step`). Raises ValueError for one too long for the target's narrowest component."""
        sde = sde.observe(x, t0)
        if ends_at_sigma_zero(sde, t1):
            return sde.denoised(x, t0), None
        _stable(sde, t0, t1)
        x = x + sde.drift(x, t0) * (t1 - t0)
        return (x if dw is None else x + per_particle(sde.noise(t0), x) * dw), None


@dataclass(frozen=True)
class Heun:
    """Heun's method, a predictor and the trapezoid rule with the same increment: two evaluations a step.

    Order 2, and weak order 2 for the additive noise of this equation. The increment is scaled by the root mean square
    of the noise at both ends, whose square is the trapezoid rule for its variance.

    Args:
        order: 2.
        weak_order: 2.
    """

    order: int = 2
    weak_order: int = 2

    def init(self, sde: DiffFlow, x: Tensor, t0: float) -> None:
        """No state: a step needs nothing from those before."""
        return

    def step(
        self, sde: DiffFlow, x: Tensor, t0: float, t1: float, dw: Tensor | None, state: None
    ) -> tuple[Tensor, None]:
        """One step (see `Solver.step`). Raises ValueError for one too long for the target's narrowest component."""
        observed = sde.observe(x, t0)
        if ends_at_sigma_zero(sde, t1):
            return observed.denoised(x, t0), None
        _stable(sde, t0, t1)
        h, a = t1 - t0, observed.drift(x, t0)
        if dw is None:
            ahead = x + a * h
            return x + (a + sde.observe(ahead, t1).drift(ahead, t1)) * (h / 2), None
        shock = _scalar_sqrt((_square(sde, t0) + _square(sde, t1)) / 2) * dw
        ahead = x + a * h + shock
        return x + (a + sde.observe(ahead, t1).drift(ahead, t1)) * (h / 2) + shock, None


def _scalar(v: Tensor) -> float | Tensor:
    """The value v (0-d) as a number, unless gradients run through it."""
    return v if wants_gradient(v) else v.item()


def _square(sde: DiffFlow, t: float) -> float | Tensor:
    return _scalar(sde.noise(t)) ** 2


def _scalar_sqrt(v: float | Tensor) -> float | Tensor:
    return v.sqrt() if isinstance(v, Tensor) else math.sqrt(v)
