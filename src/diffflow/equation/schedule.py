r"""Noise schedules: how the target law is blurred and scaled on its way from noise (t = 0) to data (t = horizon).

    r_t = law of  scale(t) * (Y + sigma(t) * eps),      Y ~ data,  eps ~ N(0, I)

with EDM's two functions. sigma falls from sigma_max at t = 0 to sigma_min at t = horizon. Everything a stochastic
differential equation needs follows (derivations.md eq. 4):

    rate(t)   = scale'/scale                 the drift that the scaling dictates is f(x, t) = rate x
    lam2(t)   = -2 scale^2 sigma sigma'      squared diffusion of the forward noising process
    logsnr(t) = -2 log sigma

Each schedule is written once, in noising time s = s_max - t where the textbooks have their formulas; `clean` is the
time at which sigma = 0 (beyond the horizon; a step onto it is a denoising). Clock and coefficients are float64.

Shapes: t a float, 0-d or (n,); results 0-d or (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import Registry
from .fields import ScoreField
from .laws import Gaussian, Law
from .times import Time, clock, per_particle

REMEMBERED = 4096  # values that a schedule keeps


def remembered(coefficient: Callable[[Any, Time], Tensor]) -> Callable[[Any, Time], Tensor]:
    """A coefficient that keeps its values at numbers: solvers ask for the same few times over and over, and what ten
    operations on one number cost adds up. Times that come as tensors are computed anew. The values are shared: do not
    write into them."""

    @wraps(coefficient)
    def asked(self: Any, t: Time) -> Tensor:
        if type(t) is not float:
            return coefficient(self, t)
        known = self.__dict__.setdefault("_known", {})
        value = known.get(key := (coefficient.__qualname__, t))
        if value is None:
            with torch.inference_mode(False):  # what is kept may be wanted where gradients are
                value = coefficient(self, t)
            if any(isinstance(v, nn.Module) or getattr(v, "requires_grad", False) for v in vars(self).values()):
                return value  # of a schedule that learns: another one after the next step
            if len(known) >= REMEMBERED:
                known.clear()
            known[key] = value
        return value

    return asked


class Schedule:
    """sigma(t) and scale(t), with derivatives and inverse. Subclasses give five functions of noising time s."""

    sigma_min: float
    sigma_max: float | None

    # -- in noising time ----------------------------------------------------------------------------------------------
    def _sigma(self, s: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _sigma")

    def _scale(self, s: Tensor) -> Tensor:
        return torch.ones_like(s)

    def _slope(self, s: Tensor) -> Tensor:
        """d log sigma / ds."""
        raise NotImplementedError(f"{type(self).__name__} must define _slope")

    def _scale_slope(self, s: Tensor) -> Tensor:
        """d log scale / ds."""
        return torch.zeros_like(s)

    def _inverse(self, sigma: Tensor) -> Tensor:
        """s with _sigma(s) = sigma."""
        raise NotImplementedError(f"{type(self).__name__} must define _inverse")

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but the values that are remembered."""
        return {name: value for name, value in vars(self).items() if name not in ("_known", "_start")}

    def __str__(self) -> str:
        """Its name and numbers, short: EDM(0.002, 80)."""
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
        """scale'(t) / scale(t)."""
        return -self._scale_slope(self._noising(t))

    @remembered
    def lam2(self, t: Time) -> Tensor:
        """-2 scale^2 sigma sigma': the squared diffusion G^2 of the forward noising process."""
        s = self._noising(t)
        return 2 * (self._scale(s) * self._sigma(s)) ** 2 * self._slope(s)

    def logsnr(self, t: Time) -> Tensor:
        """-2 log sigma(t): signal to noise for data of unit variance."""
        return -2 * self.sigma(t).log()

    def log_sigma_rate(self, t: Time) -> Tensor:
        """d log sigma / dt (negative)."""
        return -self._slope(self._noising(t))

    @remembered
    def time(self, sigma: Time) -> Tensor:
        """The time at which sigma(t) = sigma; sigma = 0 gives `clean`. The ends are exact."""
        sigma = clock(sigma)
        t = self._start - self._inverse(sigma.clamp_min(1e-300))
        t = torch.where(sigma == self._top, 0.0, t)
        t = torch.where(sigma == self.sigma_min, self.horizon, t)
        return torch.where(sigma == 0, self.clean_time, t)

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """f(x, t) = rate(t) x."""
        return per_particle(self.rate(t), x) * x

    # -- meeting laws and networks ------------------------------------------------------------------------------------
    def law(self, data: Law, t: Time) -> Law:
        """r_t: the law of scale(t) * (Y + sigma(t) eps)."""
        return data.noised(self.scale(t).item(), self.sigma(t).item())

    def score(self, source: Law | Callable[[Tensor, Tensor], Tensor]) -> ScoreField:
        """grad log r_t as a Field. `source`: a Law, a Denoiser, or any callable D(y, sigma) ~ E[Y | Y + sigma eps =
        y]."""
        return ScoreField(self, source)

    def prior(self, shape: Sequence[int], data_mean: float = 0.0, data_std: float = 1.0) -> Gaussian:
        """Gaussian start N(scale data_mean, scale^2 (data_std^2 + sigma_max^2)) at t = 0, for models whose data law
        is not known."""
        a = self.scale(0.0).item()
        return Gaussian(torch.full(tuple(shape), a * data_mean), std=a * math.hypot(data_std, self._top))


@dataclass(frozen=True)
class EDM(Schedule):
    """sigma(t) = sigma_max - t, scale = 1 (Karras et al. 2022)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def _sigma(self, s: Tensor) -> Tensor:
        return s

    def _slope(self, s: Tensor) -> Tensor:
        return 1 / s

    def _inverse(self, sigma: Tensor) -> Tensor:
        return sigma


@dataclass(frozen=True)
class VE(Schedule):
    """sigma geometric on s in [0, 1], scale = 1 (Song et al. 2021). It never reaches 0: its clock jumps there just
    past the horizon."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def _sigma(self, s: Tensor) -> Tensor:
        return self.sigma_min * (s * self._log_ratio).exp()

    def _slope(self, s: Tensor) -> Tensor:
        return torch.full_like(s, self._log_ratio)

    def _inverse(self, sigma: Tensor) -> Tensor:
        return (sigma / self.sigma_min).log() / self._log_ratio

    @property
    def clean_time(self) -> float:
        return math.nextafter(1.0, 2.0)

    @remembered
    def sigma(self, t: Time) -> Tensor:
        return torch.where(clock(t) >= self.clean_time, 0.0, self._sigma(self._noising(t)))


@dataclass(frozen=True)
class VP(Schedule):
    """Variance preserving with rate b(s) = beta_min + s (beta_max - beta_min): scale = e^(-B/2), sigma^2 = e^B - 1, B
    = int b (Song et al. 2021)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    sigma_min: float = 0.002
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"need 0 < beta_min < beta_max, got beta_min={self.beta_min}, beta_max={self.beta_max}")
        super().__post_init__()

    def _b(self, s: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * s

    def _B(self, s: Tensor) -> Tensor:
        return self.beta_min * s + 0.5 * (self.beta_max - self.beta_min) * s**2

    def _s_of_B(self, B: Tensor) -> Tensor:
        return 2 * B / (self.beta_min + (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * B).sqrt())

    def _sigma(self, s: Tensor) -> Tensor:
        return torch.expm1(self._B(s)).sqrt()

    def _scale(self, s: Tensor) -> Tensor:
        return (-0.5 * self._B(s)).exp()

    def _slope(self, s: Tensor) -> Tensor:
        return -0.5 * self._b(s) / torch.expm1(-self._B(s))

    def _scale_slope(self, s: Tensor) -> Tensor:
        return -0.5 * self._b(s)

    def _inverse(self, sigma: Tensor) -> Tensor:
        return self._s_of_B(torch.log1p(sigma**2))


@dataclass(frozen=True)
class SubVP(VP):
    """As VP with the smaller variance (1 - e^(-B))^2: sigma = 2 sinh(B/2) (Song et al. 2021)."""

    def _sigma(self, s: Tensor) -> Tensor:
        return 2 * torch.sinh(0.5 * self._B(s))

    def _slope(self, s: Tensor) -> Tensor:
        return 0.5 * self._b(s) / torch.tanh(0.5 * self._B(s))

    def _inverse(self, sigma: Tensor) -> Tensor:
        return self._s_of_B(2 * torch.asinh(0.5 * sigma))


@dataclass(frozen=True)
class Cosine(Schedule):
    """sigma = tan(pi s / 2), scale = cos(pi s / 2): variance preserving on the circle (Nichol & Dhariwal 2021,
    without offset)."""

    sigma_min: float = 0.002
    sigma_max: float = 500.0

    def _sigma(self, s: Tensor) -> Tensor:
        return torch.tan(0.5 * math.pi * s)

    def _scale(self, s: Tensor) -> Tensor:
        return torch.cos(0.5 * math.pi * s)

    def _slope(self, s: Tensor) -> Tensor:
        return math.pi / torch.sin(math.pi * s)

    def _scale_slope(self, s: Tensor) -> Tensor:
        return -0.5 * math.pi * torch.tan(0.5 * math.pi * s)

    def _inverse(self, sigma: Tensor) -> Tensor:
        return torch.atan(sigma) * (2 / math.pi)


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """x = (1 - s) Y + s eps: scale = 1 - s, sigma = s / (1 - s) (Liu et al. 2023; Lipman et al. 2023)."""

    sigma_min: float = 0.002
    sigma_max: float = 500.0

    def _sigma(self, s: Tensor) -> Tensor:
        return s / (1 - s)

    def _scale(self, s: Tensor) -> Tensor:
        return 1 - s

    def _slope(self, s: Tensor) -> Tensor:
        return 1 / (s * (1 - s))

    def _scale_slope(self, s: Tensor) -> Tensor:
        return -1 / (1 - s)

    def _inverse(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)


@dataclass(frozen=True)
class Levels(Schedule):
    """NCSN's staircase: sigma(t) = sigmas[k] for t in [k steps, (k+1) steps), scale = 1 (Song & Ermon 2019). Constant
    between jumps, so lam2 = 0."""

    sigmas: tuple[float, ...]
    steps: int = 5  # unit-time steps per level

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(float(v) for v in self.sigmas))
        if (
            len(self.sigmas) == 0
            or min(self.sigmas) <= 0
            or any(a <= b for a, b in zip(self.sigmas, self.sigmas[1:], strict=False))
        ):
            raise ValueError(f"sigmas must be positive and falling, got {self.sigmas}")
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: need at least one step per level")
        object.__setattr__(self, "sigma_max", self.sigmas[0])
        object.__setattr__(self, "sigma_min", self.sigmas[-1])

    @classmethod
    def geometric(cls, sigma_max: float, sigma_min: float, count: int, steps: int = 5) -> Levels:
        """`count` levels in equal ratio from sigma_max to sigma_min."""
        q = (sigma_min / sigma_max) ** (1 / (count - 1))
        return cls(tuple(sigma_max * q**k for k in range(count)), steps)

    @property
    def horizon(self) -> float:
        return float(len(self.sigmas) * self.steps)

    @property
    def clean_time(self) -> float:
        return self.horizon + 1.0

    @remembered
    def sigma(self, t: Time) -> Tensor:
        t = clock(t)
        k = torch.div(t, self.steps, rounding_mode="floor").long().clamp(0, len(self.sigmas) - 1)
        return torch.where(t >= self.clean_time, 0.0, torch.tensor(self.sigmas, dtype=torch.float64)[k])

    @remembered
    def scale(self, t: Time) -> Tensor:
        return torch.ones_like(clock(t))

    def rate(self, t: Time) -> Tensor:
        return torch.zeros_like(clock(t))

    @remembered
    def lam2(self, t: Time) -> Tensor:
        return torch.zeros_like(clock(t))

    @remembered
    def time(self, sigma: Time) -> Tensor:
        raise ValueError("a staircase of levels has no inverse: many times share one sigma")


SCHEDULES: Registry[Callable[..., Schedule]] = Registry(
    "noise schedule", {"edm": EDM, "ve": VE, "vp": VP, "subvp": SubVP, "cosine": Cosine, "flow": RectifiedFlow}
)  # by the name that settings use; all take sigma_min and sigma_max
