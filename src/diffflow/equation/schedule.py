r"""Noise schedules: functions that blur and scale the target law on its way from noise (t = 0) to data (t = horizon).

    r_t = law of  scale(t) * (Y + sigma(t) * eps),      Y ~ data,  eps ~ N(0, I)

sigma falls from sigma_max at t = 0 to sigma_min at t = horizon. Each schedule is written once, in noising time
s = s_max - t, where the textbooks have their formulas; what follows from them (rate, lam2, log SNR, the inverse) stands
in schedule_base.py. `SCHEDULES` has them by name.

Shapes: t a float, 0-d or (n,); results 0-d or (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..registry import Registry
from .schedule_base import Schedule, remembered
from .times import Time, clock

__all__ = ["EDM", "SCHEDULES", "VE", "VP", "Cosine", "Levels", "RectifiedFlow", "Schedule", "SubVP"]


@dataclass(frozen=True)
class EDM(Schedule):
    """EDM's schedule: sigma(t) = sigma_max - t, scale = 1.

    Args:
        sigma_min: noise level at the horizon, data units.
        sigma_max: noise level at t = 0, data units.

    References:
        Karras et al. 2022, "Elucidating the design space of diffusion-based generative models".
    """

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
    """Variance exploding: sigma geometric on s in [0, 1], scale = 1.

    It never reaches 0: its clock jumps there just past the horizon.

    Args:
        sigma_min: noise level at the horizon, data units.
        sigma_max: noise level at t = 0, data units.

    References:
        Song et al. 2021, "Score-based generative modeling through stochastic differential equations".
    """

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
        """The next number after the horizon, where sigma = 0."""
        return math.nextafter(1.0, 2.0)

    @remembered
    def sigma(self, t: Time) -> Tensor:
        """Noise level, 0 from `clean_time` on."""
        return torch.where(clock(t) >= self.clean_time, 0.0, self._sigma(self._noising(t)))


@dataclass(frozen=True)
class VP(Schedule):
    """Variance preserving: scale = e^(-B/2), sigma^2 = e^B - 1, with B(s) the integral of a linear rate b.

    Args:
        beta_min: rate b at s = 0 (data).
        beta_max: rate b at s = 1 (noise).
        sigma_min: noise level at the horizon, data units.
        sigma_max: noise level at t = 0, data units; None: that of s = 1.

    Raises:
        ValueError: unless 0 < beta_min < beta_max and 0 < sigma_min < sigma_max < inf.

    References:
        Song et al. 2021, "Score-based generative modeling through stochastic differential equations".
    """

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
    """Sub-variance preserving: VP's scale with the smaller variance (1 - e^(-B))^2, sigma = 2 sinh(B/2).

    Args:
        beta_min: rate b at s = 0 (data).
        beta_max: rate b at s = 1 (noise).
        sigma_min: noise level at the horizon, data units.
        sigma_max: noise level at t = 0, data units; None: that of s = 1.

    References:
        Song et al. 2021, "Score-based generative modeling through stochastic differential equations".
    """

    def _sigma(self, s: Tensor) -> Tensor:
        return 2 * torch.sinh(0.5 * self._B(s))

    def _slope(self, s: Tensor) -> Tensor:
        return 0.5 * self._b(s) / torch.tanh(0.5 * self._B(s))

    def _inverse(self, sigma: Tensor) -> Tensor:
        return self._s_of_B(2 * torch.asinh(0.5 * sigma))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Variance preserving on the circle: sigma = tan(pi s / 2), scale = cos(pi s / 2).

    Args:
        sigma_min: noise level at the horizon, data units.
        sigma_max: noise level at t = 0, data units.

    References:
        Nichol & Dhariwal 2021, "Improved denoising diffusion probabilistic models", without the offset.
    """

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
    """Straight paths x = (1 - s) Y + s eps from data to noise: scale = 1 - s, sigma = s / (1 - s).

    Args:
        sigma_min: noise level at the horizon, data units.
        sigma_max: noise level at t = 0, data units.

    References:
        Liu et al. 2023, "Flow straight and fast"; Lipman et al. 2023, "Flow matching for generative modeling".
    """

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
    """NCSN's staircase: sigma(t) = sigmas[k] for t in [k steps, (k+1) steps), scale = 1.

    It is constant between jumps, so lam2 = 0.

    Args:
        sigmas: falling noise levels, data units.
        steps: steps of unit time per level.

    Raises:
        ValueError: levels that are not positive or do not fall, or no steps.

    References:
        Song & Ermon 2019, "Generative modeling by estimating gradients of the data distribution".
    """

    sigmas: tuple[float, ...]
    steps: int = 5

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
        """A staircase whose levels have equal ratios.

        Args:
            sigma_max: first level, data units.
            sigma_min: last level, data units.
            count: number of levels, at least 2.
            steps: steps of unit time per level.

        Returns:
            The schedule.
        """
        q = (sigma_min / sigma_max) ** (1 / (count - 1))
        return cls(tuple(sigma_max * q**k for k in range(count)), steps)

    @property
    def horizon(self) -> float:
        """Time at the end of the last level."""
        return float(len(self.sigmas) * self.steps)

    @property
    def clean_time(self) -> float:
        """Time one step past the horizon, where sigma = 0."""
        return self.horizon + 1.0

    @remembered
    def sigma(self, t: Time) -> Tensor:
        """Noise level of the stair at t."""
        t = clock(t)
        k = torch.div(t, self.steps, rounding_mode="floor").long().clamp(0, len(self.sigmas) - 1)
        return torch.where(t >= self.clean_time, 0.0, torch.tensor(self.sigmas, dtype=torch.float64)[k])

    @remembered
    def scale(self, t: Time) -> Tensor:
        """One at all times."""
        return torch.ones_like(clock(t))

    def rate(self, t: Time) -> Tensor:
        """Zero at all times."""
        return torch.zeros_like(clock(t))

    @remembered
    def lam2(self, t: Time) -> Tensor:
        """Zero at all times."""
        return torch.zeros_like(clock(t))

    @remembered
    def time(self, sigma: Time) -> Tensor:
        """No inverse: raises ValueError, for many times share one sigma."""
        raise ValueError("a staircase of levels has no inverse: many times share one sigma")


SCHEDULES: Registry[Callable[..., Schedule]] = Registry(
    "noise schedule", {"edm": EDM, "ve": VE, "vp": VP, "subvp": SubVP, "cosine": Cosine, "flow": RectifiedFlow}
)  # by the name that settings use; all take sigma_min and sigma_max
