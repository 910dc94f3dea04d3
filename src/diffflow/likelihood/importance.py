r"""Importance-weighted paths: bounds of the log-density of data under the sampler itself, tighter with more draws.

The sampler is that of first-order steps, its reference the same steps with the data in the place of the denoiser. With
one draw it is the discrete counterpart of `elbo` (elbo.py); with k draws the log-mean-exp of the weights never gives
less (Burda et al. 2016).

Shapes: x (n, *shape) -> nats (n,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..equation.algebra import Cond
from ..equation.laws import Law, as_particles
from ..equation.noise import Noise, as_noise
from ..equation.schedule import Schedule
from ..equation.sde import DiffFlow, Tally


def schedule_and_start(sde: DiffFlow) -> tuple[Schedule, Law]:
    """The schedule and the start of which a bound is made; raises ValueError where there is none."""
    if sde.schedule is None or not sde.on_schedule:
        raise ValueError("the bound compares the path with a noising of the data: it needs a point of a noise schedule")
    if sde.start is None:
        raise ValueError("a bound starts from a density: set start=, e.g. schedule.prior(shape, data_mean, data_std)")
    if sde.cloud:
        raise ValueError("a field made of the particles themselves has no value at a lone point x")
    return sde.schedule, sde.start


@dataclass(frozen=True)
class Paths:
    """Weighted paths drawn from the reference.

    Attributes:
        weights: log-weights log p(path, x) - log q(path | x), nats, (draws, n).
        nfe: evaluations of the drift per row and draw.
    """

    weights: Tensor
    nfe: int

    def bound(self, k: int | None = None) -> Tensor:
        """Mean of log-mean-exp of the weights over groups of k draws.

        k = 1 is the bound of the discrete path, and a larger k, whose groups contain the smaller ones, never gives
        less (Burda et al. 2016).

        Args:
            k: draws in a group, a divisor of their number; None: all.

        Returns:
            The bound in nats, (n,).

        Raises:
            ValueError: a k that does not divide the number of draws.
        """
        draws, n = self.weights.shape
        k = draws if k is None else k
        if not (k >= 1 and draws % k == 0):
            raise ValueError(f"k={k} must divide the {draws} draws")
        return self.weights.reshape(draws // k, k, n).logsumexp(1).mean(0) - math.log(k)


def importance(
    sde: DiffFlow,
    x: Tensor,
    *,
    draws: int = 16,
    steps: int = 50,
    noise: Noise | int = Noise(0),
    cond: Cond = None,
) -> Paths:
    """Weighted paths of the sampler of `steps` first-order steps, for data x.

    Their log-mean-exp bounds the log-density of x under that sampler with a Gaussian decoder of width sigma_min, in the
    units of `elbo`, which it approaches from below with many steps and k = 1, and exceeds with large k.

    A step is y1 = D* + (y0 - D*) r^(1+z) + sigma1 sqrt(1 - r^(2z)) xi in y = x/scale, with r = sigma1/sigma0 and the
    churn z of its beginning; the reference takes the same steps with x in the place of D*.

    Args:
        sde: a point of a noise schedule, with noise (g2 > lam2) and a start.
        x: data (n, *shape).
        draws: number of paths per row.
        steps: steps of a path.
        noise: streams, one per row, or an integer seed.
        cond: condition for the fields.

    Returns:
        The paths' log-weights.

    Raises:
        ValueError: as `elbo`, and for no draws or steps.
    """
    s, start = schedule_and_start(sde)
    as_particles(x, start)
    tally = Tally()
    sde = replace(sde if cond is None else sde.given(cond), tally=tally)
    noise = as_noise(noise)
    if draws < 1 or steps < 1:
        raise ValueError(f"draws={draws} and steps={steps} must be at least 1")
    d, (high, low) = math.prod(x.shape[1:]), (math.log(s.sigma(t).item()) for t in (0.0, sde.horizon))
    levels = torch.linspace(high, low, steps + 1, dtype=torch.float64).exp().clamp(s.sigma_min, s.sigma(0.0).item())
    times = s.time(levels).tolist()

    def log_normal(y: Tensor, mean: Tensor, std: float) -> Tensor:
        z = ((y - mean) / std).double().flatten(1)
        return -0.5 * (z * z).sum(1) - d * (math.log(std) + 0.5 * math.log(2 * math.pi))

    def draw(streams: Noise) -> Tensor:
        def xi(k: int) -> Tensor:
            return streams.fork("xi", k).normal(len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)

        y = x + levels[0].item() * xi(0)
        scale = s.scale(0.0).item()
        log = start.log_prob(scale * y).double() + d * math.log(scale) - log_normal(y, x, levels[0].item())
        for k, t in enumerate(times[:-1]):
            z = (sde.noise(t) ** 2 / s.lam2(t)).item()
            if not z > 0:
                raise ValueError("without noise (g2 = lam2) paths have no density: raise churn, or use log_prob")
            sigma, r = levels[k + 1].item(), (levels[k + 1] / levels[k]).item()
            std = sigma * math.sqrt(-math.expm1(2 * z * math.log(r)))
            mean = torch.lerp(x, y, r ** (1 + z))
            y1 = mean + std * xi(k + 1)
            D = sde.denoised(s.scale(t).item() * y, t)
            log = log + log_normal(y1, torch.lerp(D, y, r ** (1 + z)), std) - log_normal(y1, mean, std)
            y = y1
        return log + log_normal(x, y, levels[-1].item()) - d * math.log(s.scale(sde.horizon).item())

    with torch.no_grad():
        weights = torch.stack([draw(noise.fork("draw", j)) for j in range(draws)])
    return Paths(weights.to(x), tally.nfe // draws)
