"""Grids: the noise levels that a solver visits, ending on the clean sigma = 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..equation.schedule import Schedule


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> Tensor:
    """Karras' grid: noise levels that are equally spaced in sigma^(1/rho), then 0.

    sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho.

    Args:
        schedule: the noise schedule.
        steps: number of steps n.
        rho: exponent; the larger, the more steps at small noise.

    Returns:
        Times (steps + 1,), float64; the last is that of sigma = 0.

    References:
        Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", eq. 5.
    """
    a, b = schedule._top ** (1 / rho), schedule.sigma_min ** (1 / rho)
    sigma = (a + torch.linspace(0, 1, steps, dtype=torch.float64) * (b - a)) ** rho
    return _times_of(schedule, sigma)


def log_uniform(schedule: Schedule, steps: int) -> Tensor:
    """Log-uniform grid: noise levels in equal ratios from sigma_max to sigma_min, then 0.

    Args:
        schedule: the noise schedule.
        steps: number of steps.

    Returns:
        Times (steps + 1,), float64; the last is that of sigma = 0.
    """
    sigma = torch.linspace(math.log(schedule._top), math.log(schedule.sigma_min), steps, dtype=torch.float64).exp()
    return _times_of(schedule, sigma)


def _times_of(schedule: Schedule, sigma: Tensor) -> Tensor:
    """Times of falling noise levels (steps,) and of 0: (steps + 1,), the ends exact."""
    sigma[0] = schedule._top
    if len(sigma) > 1 and abs(sigma[-1].item() / schedule.sigma_min - 1) < 1e-9:
        sigma[-1] = schedule.sigma_min
    return schedule.time(torch.cat([sigma, sigma.new_zeros(1)]))


def snr_grid(schedule: Schedule, steps: int, principal_std: float = 1.0) -> Tensor:
    """Signal-to-noise grid, the default: uniform in log(1 + (b/sigma)^2) with b = 10 principal_std, then 0.

    Far above the data's size the denoiser is the constant data mean, and long steps are exact: equal steps in b/sigma
    squared. Below, the ratios are equal. The last level is sigma_min, or with less than 50 steps sigma_min 50/steps:
    few are better spent above it, and one denoising ends the way.

    Args:
        schedule: the noise schedule.
        steps: number of steps.
        principal_std: largest principal standard deviation of the data, data units.

    Returns:
        Times (steps + 1,), float64; the last is that of sigma = 0.
    """
    b, top = 10 * principal_std, schedule._top
    last = min(schedule.sigma_min * max(1.0, 50 / steps), 0.5 * top)
    if steps == 1:
        return _times_of(schedule, torch.tensor([top], dtype=torch.float64))
    u = torch.linspace(math.log1p((b / top) ** 2), math.log1p((b / last) ** 2), steps, dtype=torch.float64)
    return _times_of(schedule, b / torch.expm1(u).sqrt())
