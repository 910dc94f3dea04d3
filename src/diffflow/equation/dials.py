r"""Dials: the two numbers that choose a model of the spectrum, and coefficients of the equation computed from them.

A dial is a number >= 0 or a function of t (spectrum.py says what churn and gan do). A coefficient that follows from
others is a value here and no nested function, so that equations compare, print and pickle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .coefficients import EqualByValue, short
from .schedule import Levels, Schedule
from .times import Time

Dial = float | Tensor | Callable[[Time], float | Tensor]


def checked_dial(name: str, value: Dial) -> Dial:
    """The dial `value`, once it is known to be finite and >= 0; raises ValueError, which calls it `name`."""
    number = 0.0 if callable(value) else value.item() if isinstance(value, Tensor) else value
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name}={number}: a dial is a finite number >= 0")
    return value


def dial_at(dial: Dial, t: Time) -> float | Tensor:
    """The value of a dial at time t."""
    return dial(t) if callable(dial) else dial


@dataclass(frozen=True, eq=False)
class SpectrumPoint(EqualByValue):
    """A point of the noise-schedule spectrum: its coefficients g2 and beta."""

    schedule: Schedule
    gan: Dial
    churn: Dial

    def g2(self, t: Time) -> Tensor:
        """Stochasticity (1 + churn) lam2 at t, float64."""
        return (1 + dial_at(self.churn, t)) * self.schedule.lam2(t)

    def beta(self, t: Time) -> Tensor:
        """Speed g2/2 + gan lam2/2 at t, float64."""
        return 0.5 * self.g2(t) + 0.5 * dial_at(self.gan, t) * self.schedule.lam2(t)

    def __str__(self) -> str:
        dials = {"gan": self.gan, "churn": self.churn}
        settings = [f"{name}={short(v)}" for name, v in dials.items() if callable(v) or v != 0]
        return f"at({', '.join([str(self.schedule), *settings])})"


@dataclass(frozen=True, eq=False)
class Churn(EqualByValue):
    """The dial churn whose noise is that of Langevin churn at the rate chi(t) (`edm_churn`)."""

    schedule: Schedule
    rate: Dial

    def __call__(self, t: Time) -> float | Tensor:
        """The dial's value at t."""
        return dial_at(self.rate, t) / -self.schedule.log_sigma_rate(t)

    def __str__(self) -> str:
        return f"Churn(rate={short(self.rate)})"


@dataclass(frozen=True, eq=False)
class Multiple(EqualByValue):
    """A multiple of a function: of t as a coefficient, of the logit as a speed."""

    factor: float
    of: Callable[[Any], Any]

    def __call__(self, at: Any) -> Any:
        """The factor times the function's value."""
        return self.factor * self.of(at)

    def __str__(self) -> str:
        return f"{self.factor:g} {short(self.of)}"


@dataclass(frozen=True, eq=False)
class Annealed(EqualByValue):
    """The speed beta = rate sigma_k^2 at the noise levels of a staircase."""

    levels: Levels
    rate: float

    def __call__(self, t: Time) -> Tensor:
        """The speed at t, float64."""
        return self.rate * self.levels.sigma(t) ** 2

    def __str__(self) -> str:
        return f"{self.rate:g} sigma^2"
