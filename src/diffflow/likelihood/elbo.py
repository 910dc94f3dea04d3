r"""Likelihood bounds: lower bounds of log p for the noisy members of the spectrum (derivations.md 5.1; Theorem 3).

The model dX = mu dt + c dW, c^2 = g2 - lam2 > 0, starts from p_0 and has the density p_T at the horizon. Against any
reference process Q that carries data to noise with the same noise c, Girsanov and Jensen bound log p_T from below. We
take the Gaussian kernels of a noising with its own rate Gamma^2 = gamma lam2 of diffusion, for data x

    Q_t = N(scale x, V),    V = scale^2 (sigma_min^2 + int gamma d sigma^2),    kappa = -(y - scale x) / V

and the drift that gives a process of noise c these marginals. With M = drift - f, everything but the fields is known:

    E log p_T(y)  >=  E log p_0(Y_0) + int_0^T E[ -|M - w kappa|^2 / (2 c^2) + Gamma^2/2 |kappa|^2 - div f ] dt,
                      w = (c^2 + Gamma^2)/2

where y = scale (x + sigma_min eps) on the left is data at the noise of the horizon: the left side is itself a bound of
the log-density of x, whose Gaussian decoder and entropy cancel. Its slack is the integral of |a - c grad log p|^2 / 2,
a = (M + (c^2 - Gamma^2)/2 kappa)/c: zero for an exact score and gamma = 1 iff c^2 = lam2, the reverse SDE.

gamma = 1 is the conditional reference of derivations.md, whose marginals are the schedule's own; gamma = c^2/lam2 is
the classical one, which noises data by the model's own noise. The one is loose near the data, where |kappa| is large,
the other at the prior, which it misses: `blended` goes from the one to the other.

Shapes: x (n, *shape) -> nats (n,).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..equation.conditions import Cond, apply, is_single, repeated
from ..equation.laws import GaussianMixture, Law, as_particles
from ..equation.noise import Noise, as_noise
from ..equation.sde import DiffFlow, Tally
from ..equation.spectrum import Dial
from ..equation.times import Time, per_particle
from .importance import Paths, importance, schedule_and_start

__all__ = [
    "Bound",
    "Node",
    "Paths",
    "Quadrature",
    "ReferenceKernel",
    "Rule",
    "Stratified",
    "blended",
    "elbo",
    "importance",
]


# -- where the integrals are evaluated --------------------------------------------------------------------------------
class Node(NamedTuple):
    """A node of the integral: a place on the path, and values of the noise there.

    Attributes:
        tau: place from data (0) to prior (1), float64, 0-d, or (n,) one per row.
        weight: weight of the place.
        eps: values of the noise, (k, n, *shape).
        weights: their weights, (k,).
    """

    tau: Tensor
    weight: float
    eps: Tensor
    weights: Tensor


class Rule(Protocol):
    """A quadrature rule for the integral over time and noise.

    Attributes:
        random: whether the values at the nodes scatter about the integral, and show its error.
    """

    random: bool

    def nodes(self, x: Tensor) -> Iterator[Node]:
        """The nodes for data x (n, *shape)."""
        ...

    def prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values eps (k, n, *shape) and weights (k,) for the expectation at the start; random: in antithetic pairs."""
        ...


@dataclass(frozen=True)
class Stratified:
    """Random quadrature: one time in each of `times` equal strata, others for every row, with eps and -eps.

    It is unbiased, and free of the pole of a single eps near the data. The error is taken from neighbouring strata,
    hence a little too large.

    Args:
        times: number of strata, even, at least 2.
        noise: streams, one per row, or an integer seed.

    Raises:
        ValueError: another number of strata.
    """

    times: int = 32
    noise: Noise | int = Noise(0)
    random = True

    def __post_init__(self) -> None:
        if self.times < 2 or self.times % 2:
            raise ValueError(f"times={self.times}: an even number of strata, at least 2")

    def _pairs(self, x: Tensor, noise: Noise, pairs: int = 1) -> tuple[Tensor, Tensor]:
        eps = noise.normal(len(x), (pairs, *x.shape[1:]), dtype=x.dtype, device=x.device).transpose(0, 1)
        return torch.cat([eps, -eps]), torch.full((2 * pairs,), 0.5 / pairs, dtype=x.dtype, device=x.device)

    def nodes(self, x: Tensor) -> Iterator[Node]:
        """One random time a stratum and row, with one antithetic pair."""
        for j in range(self.times):
            streams = as_noise(self.noise).fork("time", j)
            u = streams.uniform(len(x), dtype=torch.float64, device=x.device)
            yield Node((j + u) / self.times, 1 / self.times, *self._pairs(x, streams.fork("eps")))

    def prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Eight antithetic pairs."""
        return self._pairs(x, as_noise(self.noise).fork("prior"), 8)


@dataclass(frozen=True)
class Quadrature:
    """Gauss-Legendre quadrature in time and Gauss-Hermite in every coordinate of eps, for few dimensions.

    It is exact to rounding for smooth fields.

    Args:
        times: number of times.
        count: number of nodes in each coordinate; count^d at most 4096.
    """

    times: int = 64
    count: int = 24
    random = False

    def _grid(self, x: Tensor) -> tuple[Tensor, Tensor]:
        d = math.prod(x.shape[1:])
        if self.count**d > 4096:
            raise ValueError(f"count={self.count} nodes in each of {d} dimensions are too many: take Stratified()")
        at, w = (torch.from_numpy(v).to(x) for v in np.polynomial.hermite_e.hermegauss(self.count))
        eps = torch.cartesian_prod(*[at] * d).reshape(-1, 1, *x.shape[1:])
        weights = torch.cartesian_prod(*[w / w.sum()] * d).reshape(len(eps), -1).prod(1)
        return eps.expand(-1, len(x), *x.shape[1:]), weights

    def nodes(self, x: Tensor) -> Iterator[Node]:
        """The times, each with all values of eps. Raises ValueError for too many dimensions."""
        grid = self._grid(x)
        for at, w in zip(*np.polynomial.legendre.leggauss(self.times), strict=True):
            yield Node(torch.tensor(0.5 * (at + 1), dtype=torch.float64, device=x.device), 0.5 * float(w), *grid)

    def prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All values of eps, with their weights."""
        return self._grid(x)


# -- the reference ----------------------------------------------------------------------------------------------------
def blended(sde: DiffFlow, sigma: float | None = None) -> Dial:
    """The reference gamma that goes from c^2/lam2 where the noise is far below `sigma` to 1 far above.

    Args:
        sde: the equation, on a noise schedule.
        sigma: noise level in the middle, data units; None: the data's largest principal standard deviation where the
            score knows it, else 1.

    Returns:
        gamma, a function of t.
    """
    s = sde.schedule
    assert s is not None
    middle = (getattr(sde.score, "principal_std", None) or 1.0) if sigma is None else sigma

    def gamma(t: Time) -> Tensor:
        share = 1 / (1 + (s.sigma(t) / middle) ** 2)
        return 1 + share * (sde.noise(t) ** 2 / s.lam2(t) - 1)

    return gamma


class ReferenceKernel:
    """The reference process Q_t = N(scale x, V) of a gamma.

    V / scale^2 is integrated by the trapezoidal rule in log sigma (relative error 1e-7).

    Args:
        sde: the equation, on a noise schedule.
        gamma: a positive number or a function of t.

    Raises:
        ValueError: a gamma that is not positive and finite.
    """

    def __init__(self, sde: DiffFlow, gamma: Dial) -> None:
        s = sde.schedule
        assert s is not None
        self.s, self.gamma = s, gamma
        self.low, self.high = math.log(s.sigma(sde.horizon).item()), math.log(s.sigma(0.0).item())
        if callable(gamma):
            grid = torch.linspace(self.low, self.high, 4097, dtype=torch.float64)
            times = s.time(grid.exp().clamp(s.sigma_min, s.sigma(0.0).item()))
            rate = torch.as_tensor(gamma(times), dtype=torch.float64).expand_as(grid)
            if not bool((rate > 0).all()):
                raise ValueError("reference: gamma must be positive at every time")
            # int gamma d sigma^2, exact on each interval for a gamma linear in sigma^2
            steps = 0.5 * (rate[1:] + rate[:-1]) * (2 * grid).exp().diff()
            total = math.exp(2 * self.low) + torch.cat([grid.new_zeros(1), steps.cumsum(0)])
            self._logs = total.log()
        elif not (math.isfinite(gamma) and gamma > 0):
            raise ValueError(f"reference={gamma}: gamma must be positive and finite; 1 is the schedule's own noising")

    def place(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Time t and |dt/dtau| at the place tau, float64."""
        t = self.s.time(
            (self.low + (self.high - self.low) * tau).exp().clamp(self.s.sigma_min, self.s.sigma(0.0).item())
        )
        return t, -(self.high - self.low) / self.s.log_sigma_rate(t)

    def variance(self, t: Time) -> Tensor:
        """Variance V(t) of the reference, float64."""
        sigma, scale = self.s.sigma(t), self.s.scale(t)
        if not callable(self.gamma):
            low = math.exp(2 * self.low)
            return scale**2 * (low + self.gamma * (sigma**2 - low))
        u = ((sigma.log() - self.low) / (self.high - self.low)).clamp(0, 1) * (len(self._logs) - 1)
        k = u.floor().long().clamp(max=len(self._logs) - 2)
        logs = self._logs.to(u.device)
        return scale**2 * torch.lerp(logs[k], logs[k + 1], u - k).exp()

    def rate(self, t: Time) -> Tensor:
        """Diffusion Gamma^2(t) of the reference's own noising, float64."""
        return torch.as_tensor(self.gamma(t) if callable(self.gamma) else self.gamma) * self.s.lam2(t)


# -- the bound --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bound:
    """A lower bound of the log-density.

    Attributes:
        value: the bound, nats, (n,).
        stderr: standard error of its evaluation by chance, nats, (n,); 0 for Quadrature.
        nfe: evaluations of the drift per row.
    """

    value: Tensor
    stderr: Tensor
    nfe: int


def elbo(
    sde: DiffFlow,
    x: Tensor,
    *,
    rule: Rule = Stratified(),
    reference: Dial = 1.0,
    cond: Cond = None,
) -> Bound:
    """A lower bound of E log p_T(scale (x + sigma_min eps)), for data x (derivations.md eq. 11).

    Args:
        sde: a point of a noise schedule, with noise (g2 > lam2) and a start.
        x: data (n, *shape).
        rule: how the integral over time and noise is evaluated.
        reference: gamma, a positive number or a function of t: 1 noises data as the schedule does, see `blended`.
        cond: condition for the fields, one per row or one for all.

    Returns:
        The bound in nats, one per row, with its standard error and the number of evaluations.

    Raises:
        ValueError: no start law, an equation off a noise schedule, a field of the cloud, or a process without noise
            (c = 0: use `log_prob`).

    References:
        Zhang et al. 2023, arXiv 2307.02159, Theorem 3.
    """
    s, start = schedule_and_start(sde)
    as_particles(x, start)
    cond = apply(torch.as_tensor, cond)
    labels = None if is_single(cond) else cond
    tally = Tally()
    sde = replace(sde if cond is None or labels is not None else sde.given(cond), tally=tally)
    kernel = ReferenceKernel(sde, reference)
    nfe, values = 0, []
    with torch.no_grad():
        for node in rule.nodes(x):
            before = tally.nfe
            values.append(_integrand(sde, kernel, x, node, labels))
            nfe += len(node.eps) * (tally.nfe - before)
        path = sum(values, x.new_zeros(len(x), dtype=torch.float64))
        divergence = math.prod(x.shape[1:]) * math.log(s.scale(sde.horizon).item() / s.scale(0.0).item())  # int div f
        logs, weights = _start_densities(start, kernel, x, rule)
        total = path - divergence + torch.tensordot(weights.double(), logs, 1)
        variance = torch.zeros((), dtype=torch.float64, device=x.device)
        if rule.random:
            for first, second in zip(values[::2], values[1::2], strict=False):  # neighbouring strata
                variance = variance + (second - first).square()
            pairs = logs.reshape(2, -1, len(x)).mean(0)
            variance = variance + pairs.var(0) / len(pairs)
    return Bound(total.to(x), variance.sqrt().expand(len(x)).to(x), nfe)


def _integrand(sde: DiffFlow, kernel: ReferenceKernel, x: Tensor, node: Node, labels: Cond) -> Tensor:
    """The weighted integrand at a node, E[-|M - w kappa|^2 / (2 c^2) + Gamma^2/2 |kappa|^2] dt, float64 (n,)."""
    s, d, k = kernel.s, math.prod(x.shape[1:]), len(node.eps)
    t, speed = kernel.place(node.tau)
    c2, rate, v = sde.noise(t) ** 2, kernel.rate(t), kernel.variance(t)
    if not bool((c2 > 0).all()):
        raise ValueError("without noise (g2 = lam2) the bound is -infinity: raise churn, or use log_prob")
    root = v.sqrt()
    y = per_particle(s.scale(t), x) * x + per_particle(root, x) * node.eps
    flat, times = y.reshape(-1, *x.shape[1:]), t if t.ndim == 0 else t.repeat(k)
    conditioned = sde if labels is None else sde.given(repeated(labels, k))
    M = (conditioned.drift(flat, times) - s.drift(flat, times)).reshape(y.shape)
    M2, M_kappa = _sum(M * M), -_sum(M * node.eps) / root.to(x)  # |M|^2 and M . kappa, (k, n)
    inner = torch.tensordot(node.weights.double(), (-M2 + (c2 + rate).to(x) * M_kappa).double(), 1)
    # with E|kappa|^2 = d/V, and w^2 - c^2 Gamma^2 = (c^2 - Gamma^2)^2 / 4
    return (inner - 0.25 * (c2 - rate) ** 2 * d / v) / (2 * c2) * speed * node.weight


def _start_densities(start: Law, kernel: ReferenceKernel, x: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Values of log p_0(Y_0) under the reference, float64 (k, n), and their weights (k,)."""
    eps, weights = rule.prior(x)
    if rule.random and isinstance(start, GaussianMixture) and len(start.means) == 1:
        # on the sphere of radius sqrt(d), pairs integrate quadratics without bias, isotropic ones without error
        radius = math.sqrt(math.prod(x.shape[1:]))
        eps = eps * (radius / _sum(eps * eps).sqrt()).reshape(*eps.shape[:2], *[1] * (x.ndim - 1))
    y = kernel.s.scale(0.0).item() * x + kernel.variance(0.0).sqrt().item() * eps
    return start.log_prob(y.reshape(-1, *x.shape[1:])).reshape(len(eps), -1).double(), weights


def _sum(x: Tensor) -> Tensor:
    """Sums over the event: (k, n, *shape) -> (k, n)."""
    return x.flatten(2).sum(2)
