"""Denoising score matching: how does a network learn the score of the data at every noise level?

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

Shapes: uniform numbers u (n,) in (0, 1) -> sigma (n,); w (n,).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..equation.noise import Noise
from ..networks.denoiser import Denoiser, per_particle
from .base import Batch, Stateless, Turn


class Weighting(Protocol):
    """The law of sigma, as its quantile function, and the weight of the denoising error."""

    def sigma(self, u: Tensor) -> Tensor: ...

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor: ...


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} = {value} must be positive")


@dataclass(frozen=True)
class EDMWeighting:
    """Log-normal noise levels, every level's loss of unit size at initialisation (Karras et al. 2022)."""

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _positive(std=self.std)

    def sigma(self, u: Tensor) -> Tensor:
        return torch.exp(self.mean + self.std * torch.special.ndtri(u))

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return 1 / sigma**2 + 1 / sigma_data**2


@dataclass(frozen=True)
class EpsWeighting:
    """The mean square error of eps along the variance-preserving path with linear beta (Ho et al. 2020)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    earliest: float = 1e-5

    def __post_init__(self) -> None:
        _positive(beta_min=self.beta_min, beta_max=self.beta_max, earliest=self.earliest)

    def sigma(self, u: Tensor) -> Tensor:
        t = self.earliest + (1 - self.earliest) * u
        return torch.expm1(self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2).sqrt()

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return sigma**-2


@dataclass(frozen=True)
class VWeighting:
    """The mean square error of v on the cosine path, cut to [sigma_min, sigma_max] (Salimans & Ho 2022)."""

    sigma_min: float = 0.002
    sigma_max: float = 500.0

    def __post_init__(self) -> None:
        _positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max - self.sigma_min)

    def sigma(self, u: Tensor) -> Tensor:
        low, high = math.atan(self.sigma_min), math.atan(self.sigma_max)
        return torch.tan(low + (high - low) * u)

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return 1 + sigma**-2


@dataclass(frozen=True)
class FlowWeighting:
    """The mean square error of the rectified-flow velocity eps - Y. The time u = sigma/(1+sigma) is uniform between
    those of sigma_min and sigma_max, or logit-normal (mean, std) where `std` is given (Esser et al. 2024).
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
        if self.std is not None:
            return torch.exp(self.mean + self.std * torch.special.ndtri(u))
        low, high = self.sigma_min / (1 + self.sigma_min), self.sigma_max / (1 + self.sigma_max)
        time = low + (high - low) * u
        return time / (1 - time)

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return (1 + 1 / sigma) ** 2


@dataclass(frozen=True)
class LikelihoodWeighting:
    """The loss is the negative likelihood bound of the reverse SDE per dimension, in nats, up to a constant: the
    integral of E|D - Y|^2 / (dim sigma^2) over log sigma between sigma_min and sigma_max (derivations.md eq. 12; Song
    et al.
    2021, "Maximum likelihood training"). Written in log sigma it is the same for every schedule between these levels.

    Levels are drawn where the integrand is: |D - Y|^2 is about sigma^2 far below the data's size and constant far
    above, so log sigma has density 1 / (Z (1 + (sigma/middle)^2)). Any `middle` gives the same mean, a good one little
    variance.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    middle: float = 0.5

    def __post_init__(self) -> None:
        _positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max - self.sigma_min, middle=self.middle)

    def _log(self, sigma: float) -> float:
        """int dlog sigma / (1 + (sigma/middle)^2), up to a constant."""
        return -0.5 * math.log1p((self.middle / sigma) ** 2)

    def sigma(self, u: Tensor) -> Tensor:
        low, high = self._log(self.sigma_min), self._log(self.sigma_max)
        return self.middle * torch.expm1(-2 * (low + (high - low) * u)).rsqrt()

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        total = self._log(self.sigma_max) - self._log(self.sigma_min)
        return total * (sigma**-2 + self.middle**-2)


@dataclass(frozen=True)
class ScoreMatching(Stateless):
    """Denoising score matching of one player, "denoiser".

    label_dropout   share of samples whose class is hidden (cond = -1), so that the net also learns the unconditional
                    score and classifier-free guidance has both (Ho & Salimans 2022)
    """

    denoiser: Denoiser
    weighting: Weighting = EDMWeighting()
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout = {self.label_dropout} must be between 0 and 1")

    @property
    def players(self) -> Mapping[str, Denoiser]:
        return {"denoiser": self.denoiser}

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        x, cond = batch.x, batch.cond
        n, shape, device = len(x), tuple(x.shape[1:]), x.device
        sigma = self.weighting.sigma(noise.fork("sigma").uniform(n, device=device))
        eps = noise.fork("eps").normal(n, shape, device=device)
        if cond is not None and self.label_dropout:
            hidden = noise.fork("label").uniform(n, device=device) < self.label_dropout
            cond = torch.where(hidden, -1, cond)
        D = self.denoiser(x + per_particle(sigma, x) * eps, sigma, cond)
        error = (D - x).square().flatten(1).mean(1)
        yield Turn(
            "denoiser", self.weighting.weight(sigma, self.denoiser.sigma_data) * error, {"error": error.detach().mean()}
        )
