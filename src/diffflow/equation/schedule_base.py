r"""The base of all noise schedules: from sigma(t) and scale(t) everything else follows.

    r_t = law of  scale(t) * (Y + sigma(t) * eps),      Y ~ data,  eps ~ N(0, I)

with EDM's two functions of time. sigma falls from sigma_max at t = 0 to sigma_min at t = horizon. Everything that a
stochastic differential equation needs follows (derivations.md eq. 4):

    rate(t)   = scale'/scale                 the drift that the scaling dictates is f(x, t) = rate x
    lam2(t)   = -2 scale^2 sigma sigma'      squared diffusion of the forward noising process
    logsnr(t) = -2 log sigma

A schedule (schedule.py) gives five functions of noising time s = s_max - t; `clean_time` is the time at which
sigma = 0 (beyond the horizon; a step onto it is a denoising). Clock and coefficients are float64.

Shapes: t a float, 0-d or (n,); results 0-d or (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor, nn

from .coefficients import ALIKE, Coefficient, value_of
from .fields import ScoreField
from .laws import Gaussian, Law
from .noise import Noise
from .times import Time, clock, per_particle, wants_gradient

REMEMBERED = 4096  # values that a schedule keeps


def remembered(coefficient: Callable[[Any, Time], Tensor]) -> Callable[[Any, Time], Tensor]:
    """A decorator for coefficients: it keeps their values at times that are floats.

    Solvers ask for the same few times over and over, and what ten operations on one number cost adds up. Times that
    come as tensors are computed anew. The values are shared: do not write into them.

    Args:
        coefficient: a method (self, t) -> float64 tensor.

    Returns:
        The method with at most REMEMBERED values kept in the object.
    """

    @wraps(coefficient)
    def lookup(self: Any, t: Time) -> Tensor:
        if type(t) is not float:
            return coefficient(self, t)
        cache = self.__dict__.setdefault("_known", {})
        value = cache.get(key := (coefficient.__qualname__, t))
        if value is None:
            with torch.inference_mode(False):  # what is kept may be wanted where gradients are
                value = coefficient(self, t)
            if any(isinstance(v, nn.Module) or getattr(v, "requires_grad", False) for v in vars(self).values()):
                return value  # of a schedule that learns: another one after the next step
            if len(cache) >= REMEMBERED:
                cache.clear()
            cache[key] = value
        return value

    return lookup


class Schedule:
    """A noise schedule: sigma(t) and scale(t), with derivatives and inverse.

    Subclasses are dataclasses of numbers that give five functions of noising time s: `_sigma`, `_scale`, `_slope`,
    `_scale_slope` and `_inverse`. Times t are floats, 0-d or (n,); coefficients float64, 0-d or (n,).

    Attributes:
        sigma_min: noise level at the horizon, data units.
        sigma_max: noise level at t = 0, data units; None until it follows from the other numbers.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max < inf, or for a number that requires a gradient.
    """

    sigma_min: float
    sigma_max: float | None

    # -- in noising time ----------------------------------------------------------------------------------------------
    def _sigma(self, s: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _sigma")

    def _scale(self, s: Tensor) -> Tensor:
        return torch.ones_like(s)

    def _slope(self, s: Tensor) -> Tensor:
        """The slope d log sigma / ds."""
        raise NotImplementedError(f"{type(self).__name__} must define _slope")

    def _scale_slope(self, s: Tensor) -> Tensor:
        """The slope d log scale / ds."""
        return torch.zeros_like(s)

    def _inverse(self, sigma: Tensor) -> Tensor:
        """Noising time s at which _sigma(s) = sigma."""
        raise NotImplementedError(f"{type(self).__name__} must define _inverse")

    def __getstate__(self) -> dict[str, Any]:
        """The state that is copied and pickled: all but the values that are remembered."""
        return {name: value for name, value in vars(self).items() if name not in ("_known", "_start")}

    def __str__(self) -> str:
        """Name and numbers in short form: EDM(0.002, 80)."""
        values = (getattr(self, f.name) for f in fields(self)) if is_dataclass(self) else ()
        short = (f"{v:g}" if isinstance(v, (int, float)) else f"{v}" for v in values)
        return f"{type(self).__name__}({', '.join(short)})"

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and value.requires_grad:
                raise ValueError(f"{name} requires a gradient, and schedules are made of numbers: give {name}.item()")
        if self.sigma_max is None:
            object.__setattr__(self, "sigma_max", self._sigma(torch.tensor(1.0, dtype=torch.float64)).item())
        if not 0 < self.sigma_min < self._top < math.inf:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max < inf, got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}"
            )

    @property
    def _top(self) -> float:
        assert self.sigma_max is not None
        return self.sigma_max

    @cached_property  # every coefficient asks for it at every step
    def _start(self) -> float:
        """Noising time at t = 0."""
        return self._inverse(clock(self._top)).item()

    # -- in generation time -------------------------------------------------------------------------------------------
    @property
    def horizon(self) -> float:
        """Generation time at which sigma = sigma_min."""
        return self._start - self._inverse(clock(self.sigma_min)).item()

    @property
    def clean_time(self) -> float:
        """The time beyond the horizon at which sigma = 0 and scale = 1."""
        return self._start

    def _noising(self, t: Time) -> Tensor:
        return self._start - clock(t)

    @remembered
    def sigma(self, t: Time) -> Tensor:
        """Noise level of the blurred data, in data units."""
        s = self._noising(t)
        return torch.where(s <= 0, 0.0, self._sigma(s))

    @remembered
    def scale(self, t: Time) -> Tensor:
        """Factor between data units and x; the paper's u(t) is its inverse."""
        s = self._noising(t)
        return torch.where(s <= 0, 1.0, self._scale(s))

    def rate(self, t: Time) -> Tensor:
        """Logarithmic slope of the scale, scale'(t) / scale(t)."""
        return -self._scale_slope(self._noising(t))

    @remembered
    def lam2(self, t: Time) -> Tensor:
        """Squared diffusion G^2 = -2 scale^2 sigma sigma' of the forward noising process."""
        s = self._noising(t)
        return 2 * (self._scale(s) * self._sigma(s)) ** 2 * self._slope(s)

    def logsnr(self, t: Time) -> Tensor:
        """Log signal-to-noise ratio of data of unit variance, -2 log sigma(t)."""
        return -2 * self.sigma(t).log()

    def log_sigma_rate(self, t: Time) -> Tensor:
        """Logarithmic slope of the noise, d log sigma / dt (negative)."""
        return -self._slope(self._noising(t))

    @remembered
    def time(self, sigma: Time) -> Tensor:
        """Time at which sigma(t) = sigma: the inverse of `sigma`, exact at both ends.

        Args:
            sigma: noise level in [0, sigma_max], a float, 0-d or (n,), data units; 0 gives `clean_time`.

        Returns:
            float64, 0-d or (n,).
        """
        sigma = clock(sigma)
        t = self._start - self._inverse(sigma.clamp_min(1e-300))
        t = torch.where(sigma == self._top, 0.0, t)
        t = torch.where(sigma == self.sigma_min, self.horizon, t)
        return torch.where(sigma == 0, self.clean_time, t)

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """The linear drift f(x, t) = rate(t) x: (n, *shape)."""
        return per_particle(self.rate(t), x) * x

    # -- meeting laws and networks ------------------------------------------------------------------------------------
    def law(self, data: Law, t: Time) -> Law:
        """The target law r_t of scale(t) * (Y + sigma(t) eps), Y from the law `data`.

        Args:
            data: law of the data.
            t: time, a float or 0-d.

        Returns:
            The noised law.
        """
        return data.noised(self.scale(t).item(), self.sigma(t).item())

    def score(self, source: Law | Callable[[Tensor, Tensor], Tensor]) -> ScoreField:
        """The score grad log r_t as a Field.

        Args:
            source: a Law, a Denoiser, or any callable D(y, sigma) ~ E[Y | Y + sigma eps = y].

        Returns:
            The field.

        Raises:
            TypeError: a source of another kind.
        """
        return ScoreField(self, source)

    def prior(self, shape: Sequence[int], data_mean: float = 0.0, data_std: float = 1.0) -> Gaussian:
        """Gaussian start N(scale data_mean, scale^2 (data_std^2 + sigma_max^2)) at t = 0, for data of unknown law.

        Args:
            shape: event shape of a particle.
            data_mean: mean of the data, one number for all coordinates, data units.
            data_std: standard deviation of the data, likewise.

        Returns:
            The law of the particles at t = 0.
        """
        a = self.scale(0.0).item()
        return Gaussian(torch.full(tuple(shape), a * data_mean), std=a * math.hypot(data_std, self._top))

    def matches(self, f: Callable[[Tensor, Time], Tensor] | None, lam2: Coefficient, law: Law | None = None) -> bool:
        """Whether f and lam2 have the values of the schedule's own, at a set of times and particles.

        Where gradients run through f or lam2 they are functions of their own.

        Args:
            f: the drift to compare, (x, t) -> (n, *shape), or None for 0.
            lam2: the coefficient to compare, a float or a function of t.
            law: the law of the particles to try; None: where it is not known.

        Returns:
            True where both agree to a relative difference of ALIKE.
        """
        levels = torch.logspace(0, 1, 7, dtype=torch.float64, base=(self.sigma(self.horizon) / self.sigma(0.0)).item())
        times = [*self.time(levels * self.sigma(0.0)).tolist(), *(self.horizon * u for u in (0.05, 0.3, 0.6, 0.95))]
        for t in times:
            value, expected = value_of(lam2, t), self.lam2(t)
            if wants_gradient(value) or not bool(((value - expected).abs() <= ALIKE * expected.abs()).all()):
                return False
        if f is None:
            return all(self.rate(t).item() == 0 for t in times)
        x = torch.linspace(-1, 2, 6, dtype=torch.float64).reshape(3, 2) if law is None else law.sample(3, Noise(0))
        for t in times:
            try:
                value, expected = f(x, t), self.drift(x, t)
            except (RuntimeError, ValueError, TypeError, IndexError):  # it is made for other particles
                return False
            comparable = isinstance(value, Tensor) and value.shape == expected.shape and not wants_gradient(value)
            if not (comparable and bool((value - expected).abs().max() <= ALIKE * expected.abs().max())):
                return False
        return True
