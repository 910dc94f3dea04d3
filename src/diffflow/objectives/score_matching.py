"""Denoising score matching: a denoiser learns the score of the data at every noise level.

    minimise   E_{Y, sigma, eps}  w(sigma) |D(Y + sigma eps, sigma) - Y|^2 / dim     (Vincent 2011; Karras et al. 2022)

Its minimiser is D = E[Y | y] for any law of sigma and any weight w > 0, so the famous losses differ in these two
only. In terms of D's error each loss "mean square of what the net predicts" is a weight, because every prediction is
affine in D (denoiser.py: w = 1/b^2):

    weighting   law of sigma                                             w(sigma)           source
    EDM         ln sigma ~ N(mean, std^2)                                (s^2+d^2)/(s d)^2  Karras et al. 2022
    Eps         VP: sigma^2 = exp(b0 t + (b1-b0) t^2/2) - 1, t uniform   1/s^2              Ho et al. 2020
    V           cosine: sigma = tan(pi t/2), t uniform                   (1+s^2)/s^2        Salimans & Ho 2022
    Flow        sigma = u/(1-u), u uniform or logit-normal               (1+s)^2/s^2        Lipman et al. 2023
    Likelihood  d log sigma / (1 + (s/m)^2), cut to [min, max]           Z (s^2+m^2)/(s m)^2 Song et al. 2021

s is sigma, d = sigma_data, m = middle, Z makes the law of sigma a density.
Shapes: uniform numbers u (n,) in (0, 1) -> sigma (n,); w (n,).

References:
    Vincent 2011, "A connection between score matching and denoising autoencoders".
    Ho et al. 2020, arXiv:2006.11239. Song et al. 2021, arXiv:2101.09258. Karras et al. 2022, arXiv:2206.00364.
    Salimans & Ho 2022, arXiv:2202.00512. Lipman et al. 2023, arXiv:2210.02747. Esser et al. 2024, arXiv:2403.03206.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..equation.conditions import hide
from ..equation.noise import Noise
from ..equation.times import per_particle
from ..networks.denoiser import Denoiser
from .base import Batch, Stateless, Turn
from .masks import random_masks


class NoiseWeighting(Protocol):
    """The law of sigma in training, as its quantile function, and the weight of the denoising error at each sigma."""

    def sigma(self, u: Tensor) -> Tensor:
        """Noise levels (n,) from uniform numbers u in (0, 1), (n,)."""
        ...

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """Weight w(sigma) of the mean square error of the denoiser, (n,)."""
        ...


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} = {value} must be positive")


@dataclass(frozen=True)
class EDMWeighting:
    """Weighting of EDM: log-normal noise levels, every level's loss of unit size at initialisation.

    Args:
        mean: mean of ln sigma.
        std: standard deviation of ln sigma, > 0.

    Raises:
        ValueError: for a std that is not positive.

    References:
        Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _positive(std=self.std)

    def sigma(self, u: Tensor) -> Tensor:
        """Noise levels, ln sigma ~ N(mean, std^2)."""
        return torch.exp(self.mean + self.std * torch.special.ndtri(u))

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """1/sigma^2 + 1/sigma_data^2."""
        return 1 / sigma**2 + 1 / sigma_data**2


@dataclass(frozen=True)
class EpsWeighting:
    """Weighting of DDPM: the mean square error of eps along the variance-preserving path with linear beta.

    Args:
        beta_min: beta at time 0, > 0.
        beta_max: beta at time 1, > 0.
        earliest: smallest time in training, > 0.

    Raises:
        ValueError: for a value that is not positive.

    References:
        Ho et al. 2020, arXiv:2006.11239.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    earliest: float = 1e-5

    def __post_init__(self) -> None:
        _positive(beta_min=self.beta_min, beta_max=self.beta_max, earliest=self.earliest)

    def sigma(self, u: Tensor) -> Tensor:
        """Noise levels of the path at uniform times t: sigma^2 = exp(b0 t + (b1 - b0) t^2/2) - 1."""
        t = self.earliest + (1 - self.earliest) * u
        return torch.expm1(self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2).sqrt()

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """1/sigma^2."""
        return sigma**-2


@dataclass(frozen=True)
class VWeighting:
    """Weighting of v-prediction: the mean square error of v on the cosine path.

    Args:
        sigma_min: smallest noise level in training, in data units, > 0.
        sigma_max: largest noise level, > sigma_min.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.

    References:
        Salimans & Ho 2022, arXiv:2202.00512.
    """

    sigma_min: float = 0.002
    sigma_max: float = 500.0

    def __post_init__(self) -> None:
        _positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max - self.sigma_min)

    def sigma(self, u: Tensor) -> Tensor:
        """Noise levels tan of a uniform angle."""
        low, high = math.atan(self.sigma_min), math.atan(self.sigma_max)
        return torch.tan(low + (high - low) * u)

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """1 + 1/sigma^2."""
        return 1 + sigma**-2


@dataclass(frozen=True)
class FlowWeighting:
    """Weighting of flow matching: the mean square error of the rectified-flow velocity eps - Y.

    The time u = sigma/(1+sigma) is uniform between those of sigma_min and sigma_max, or logit-normal where `std` is
    given.

    Args:
        mean: mean of logit u = ln sigma, read where `std` is given.
        std: its standard deviation, > 0; None for uniform times.
        sigma_min: smallest noise level of uniform times, in data units, > 0.
        sigma_max: their largest noise level, > sigma_min.

    Raises:
        ValueError: for values out of range.

    References:
        Lipman et al. 2023, arXiv:2210.02747. Esser et al. 2024, arXiv:2403.03206 (logit-normal times).
    """

    mean: float = 0.0
    std: float | None = None
    sigma_min: float = 0.002
    sigma_max: float = 500.0

    def __post_init__(self) -> None:
        _positive(
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max - self.sigma_min,
            std=1.0 if self.std is None else self.std,
        )

    def sigma(self, u: Tensor) -> Tensor:
        """Noise levels sigma = time/(1 - time)."""
        if self.std is not None:
            return torch.exp(self.mean + self.std * torch.special.ndtri(u))
        low, high = self.sigma_min / (1 + self.sigma_min), self.sigma_max / (1 + self.sigma_max)
        time = low + (high - low) * u
        return time / (1 - time)

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """(1 + 1/sigma)^2."""
        return (1 + 1 / sigma) ** 2


@dataclass(frozen=True)
class LikelihoodWeighting:
    """Weighting of maximum likelihood: the loss is the negative likelihood bound of the reverse SDE.

    Per dimension, in nats and up to a constant, that is the integral of E|D - Y|^2 / (dim sigma^2) over log sigma
    between sigma_min and sigma_max (derivations.md eq. 12). Written in log sigma it is the same for every schedule
    between these levels.

    Levels are drawn where the integrand is: |D - Y|^2 is about sigma^2 far below the data's size and constant far
    above, so log sigma has density 1 / (Z (1 + (sigma/middle)^2)). Any `middle` gives the same mean, a good one little
    variance.

    Args:
        sigma_min: smallest noise level, in data units, > 0.
        sigma_max: largest noise level, > sigma_min.
        middle: noise level at which the density of log sigma has halved, > 0.

    Raises:
        ValueError: for values out of range.

    References:
        Song et al. 2021, "Maximum likelihood training of score-based diffusion models", arXiv:2101.09258.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    middle: float = 0.5

    def __post_init__(self) -> None:
        _positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max - self.sigma_min, middle=self.middle)

    def _log(self, sigma: float) -> float:
        """Integral of dlog sigma / (1 + (sigma/middle)^2), up to a constant."""
        return -0.5 * math.log1p((self.middle / sigma) ** 2)

    def sigma(self, u: Tensor) -> Tensor:
        """Noise levels, log sigma with density 1 / (Z (1 + (sigma/middle)^2))."""
        low, high = self._log(self.sigma_min), self._log(self.sigma_max)
        return self.middle * torch.expm1(-2 * (low + (high - low) * u)).rsqrt()

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """Z (1/sigma^2 + 1/middle^2), the bound's weight over that density."""
        total = self._log(self.sigma_max) - self._log(self.sigma_min)
        return total * (sigma**-2 + self.middle**-2)


@dataclass(frozen=True)
class ScoreMatching(Stateless):
    """Denoising score matching of one player, "denoiser".

    A turn logs `error`, the mean square error of D per dimension.

    Args:
        denoiser: D(y, sigma).
        weighting: the law of sigma and the weight of the error.
        label_dropout: share of samples whose condition is hidden (a class becomes -1), so that the net also learns the
            unconditional score and classifier-free guidance has both. Of a dict of conditions each part is hidden by
            itself as often, too.
        masks: share of samples of which random columns are known (`random_masks`); the denoiser sees these without
            noise and is told which, and learns E[Y | y, these] of the others. All laws of the columns given some are
            learned at once, that of none too where the share is below 1.

    Raises:
        ValueError: for a share outside [0, 1], or masks for a denoiser that cannot be told them.

    References:
        Vincent 2011. Karras et al. 2022, arXiv:2206.00364. Ho & Salimans 2022, arXiv:2207.12598 (guidance).
    """

    denoiser: Denoiser
    weighting: NoiseWeighting = EDMWeighting()
    label_dropout: float = 0.1
    masks: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout = {self.label_dropout} must be between 0 and 1")
        if not 0 <= self.masks <= 1:
            raise ValueError(f"masks = {self.masks} must be between 0 and 1")
        if self.masks and not self.denoiser.takes_known:
            raise ValueError(f"masks = {self.masks}, and the net of this denoiser cannot be told what is known")

    @property
    def players(self) -> Mapping[str, Denoiser]:
        """The denoiser."""
        return {"denoiser": self.denoiser}

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        """One turn, each sample at its own sigma."""
        x, cond = batch.x, batch.cond
        n = len(x)
        shape = tuple(x.shape[1:])
        device = x.device
        sigma = self.weighting.sigma(noise.fork("sigma").uniform(n, device=device))
        eps = noise.fork("eps").normal(n, shape, device=device)
        if cond is not None and self.label_dropout:
            cond = hide(cond, noise.fork("label").uniform(n, device=device) < self.label_dropout)
            if isinstance(cond, Mapping):
                parts = {k: noise.fork("label", k).uniform(n, device=device) for k in cond}
                cond = hide(cond, {k: u < self.label_dropout for k, u in parts.items()})
        told = () if batch.augment is None else (batch.augment,)  # D(y, sigma, cond) is all that others need to know
        y, known = x + per_particle(sigma, x) * eps, {}
        if self.masks:
            mask = random_masks(noise.fork("masks"), n, shape, self.masks, self.denoiser.groups, device)
            y, known = torch.where(mask, x, y), {"known": mask}
        D = self.denoiser(y, sigma, cond, *told, **known)
        error = (D - x).square().flatten(1).mean(1)
        yield Turn(
            "denoiser", self.weighting.weight(sigma, self.denoiser.sigma_data) * error, {"error": error.detach().mean()}
        )
