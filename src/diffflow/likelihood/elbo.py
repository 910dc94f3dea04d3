r"""Lower bounds of log-likelihood for the noisy members of the spectrum (derivations.md 5.1; Theorem 3 of the paper).

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
the
classical one, which noises data by the model's own noise. The one is loose near the data, where |kappa| is large, the
other at the prior, which it misses: `blended` goes from the one to the other.

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

from ..equation.fields import Cond
from ..equation.laws import GaussianMixture, Law, as_particles
from ..equation.noise import Noise, as_noise
from ..equation.schedule import Schedule
from ..equation.sde import DiffFlow, Tally
from ..equation.spectrum import Dial
from ..equation.times import Time, per_particle


# -- where the integrals are evaluated --------------------------------------------------------------------------------
class Node(NamedTuple):
    """A place on the path, tau in [0, 1] from data to prior (0-d, or (n,) one per row), with its weight, and values of
    eps (k, n, *shape) with theirs (k,)."""

    tau: Tensor
    weight: float
    eps: Tensor
    weights: Tensor


class Rule(Protocol):
    """How the integral over time and noise is evaluated."""

    random: bool  # whether the values of the nodes scatter about the integral, and tell its error

    def nodes(self, x: Tensor) -> Iterator[Node]: ...

    def prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """eps (k, n, *shape) and weights (k,) for the expectation at the start; random: in antithetic pairs."""
        ...


@dataclass(frozen=True)
class Stratified:
    """One random time in each of `times` equal strata, other ones for every row, with eps and -eps: unbiased, and free
    of the pole of a single eps near the data. The error is taken from neighbouring strata, hence a little too large."""

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
        for j in range(self.times):
            own = as_noise(self.noise).fork("time", j)
            u = own.uniform(len(x), dtype=torch.float64, device=x.device)
            yield Node((j + u) / self.times, 1 / self.times, *self._pairs(x, own.fork("eps")))

    def prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._pairs(x, as_noise(self.noise).fork("prior"), 8)


@dataclass(frozen=True)
class Quadrature:
    """Gauss-Legendre in time, and Gauss-Hermite in every coordinate of eps: exact to rounding for smooth fields, for
    few dimensions only (nodes^d at most 4096)."""

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
        grid = self._grid(x)
        for at, w in zip(*np.polynomial.legendre.leggauss(self.times), strict=True):
            yield Node(torch.tensor(0.5 * (at + 1), dtype=torch.float64, device=x.device), 0.5 * float(w), *grid)

    def prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._grid(x)


# -- the reference ----------------------------------------------------------------------------------------------------
def blended(sde: DiffFlow, sigma: float | None = None) -> Dial:
    """gamma from c^2/lam2 where the noise is far below `sigma` to 1 far above. `sigma` defaults to the data's spread
    where the score knows it, else 1."""
    s = sde.schedule
    assert s is not None
    middle = (getattr(sde.score, "principal_std", None) or 1.0) if sigma is None else sigma

    def gamma(t: Time) -> Tensor:
        share = 1 / (1 + (s.sigma(t) / middle) ** 2)
        return 1 + share * (sde.noise(t) ** 2 / s.lam2(t) - 1)

    return gamma


class ReferenceKernel:
    """Q_t = N(scale x, V) for a gamma: V / scale^2 by the trapezoidal rule in log sigma (relative error 1e-7)."""

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
        """t and |dt/dtau| at tau."""
        t = self.s.time(
            (self.low + (self.high - self.low) * tau).exp().clamp(self.s.sigma_min, self.s.sigma(0.0).item())
        )
        return t, -(self.high - self.low) / self.s.log_sigma_rate(t)

    def variance(self, t: Time) -> Tensor:
        """V(t), and float64."""
        sigma, scale = self.s.sigma(t), self.s.scale(t)
        if not callable(self.gamma):
            low = math.exp(2 * self.low)
            return scale**2 * (low + self.gamma * (sigma**2 - low))
        u = ((sigma.log() - self.low) / (self.high - self.low)).clamp(0, 1) * (len(self._logs) - 1)
        k = u.floor().long().clamp(max=len(self._logs) - 2)
        logs = self._logs.to(u.device)
        return scale**2 * torch.lerp(logs[k], logs[k + 1], u - k).exp()

    def rate(self, t: Time) -> Tensor:
        """Gamma^2(t)."""
        return torch.as_tensor(self.gamma(t) if callable(self.gamma) else self.gamma) * self.s.lam2(t)


# -- the bound --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bound:
    """A lower bound in nats, one per row."""

    value: Tensor  # (n,)
    stderr: Tensor  # (n,) of the evaluation by chance; 0 for Quadrature
    nfe: int  # evaluations of the drift per row


def _on_schedule(sde: DiffFlow) -> tuple[Schedule, Law]:
    """The schedule and the start that a bound is made of, or why there is none."""
    if sde.schedule is None or not sde.on_schedule:
        raise ValueError("the bound compares the path with a noising of the data: it needs a point of a noise schedule")
    if sde.start is None:
        raise ValueError("a bound starts from a density: set start=, e.g. schedule.prior(shape, data_mean, data_std)")
    if sde.cloud:
        raise ValueError("a field made of the particles themselves has no value at a lone point x")
    return sde.schedule, sde.start


def elbo(
    sde: DiffFlow,
    x: Tensor,
    *,
    rule: Rule = Stratified(),
    reference: Dial = 1.0,
    cond: Cond = None,
) -> Bound:
    """A lower bound of E log p_T(scale (x + sigma_min eps)), for data x (n, *shape) (derivations.md eq. 11).

    reference   gamma, a positive number or a function of t: 1 noises data as the schedule does, see `blended`

    Raises ValueError without a start law, off a noise schedule, for fields of the cloud, and where the process has no
    noise (c = 0: use `log_prob`).
    """
    s, start = _on_schedule(sde)
    as_particles(x, start)
    tally = Tally()
    each = None if cond is None or torch.as_tensor(cond).ndim == 0 else torch.as_tensor(cond)
    sde = replace(sde if cond is None or each is not None else sde.given(cond), tally=tally)
    kernel = ReferenceKernel(sde, reference)
    d, nfe = math.prod(x.shape[1:]), 0

    with torch.no_grad():
        total, squares, before = x.new_zeros(len(x), dtype=torch.float64), 0.0, None
        for j, node in enumerate(rule.nodes(x)):
            t, speed = kernel.place(node.tau)
            c2, rate, v = sde.noise(t) ** 2, kernel.rate(t), kernel.variance(t)
            if not bool((c2 > 0).all()):
                raise ValueError("without noise (g2 = lam2) the bound is -infinity: raise churn, or use log_prob")
            k, root = len(node.eps), v.sqrt()
            y = per_particle(s.scale(t), x) * x + per_particle(root, x) * node.eps
            many = t if t.ndim == 0 else t.repeat(k)
            flat = y.reshape(-1, *x.shape[1:])
            here, before_it = sde if each is None else sde.given(each.repeat(k)), tally.nfe
            M = (here.drift(flat, many) - s.drift(flat, many)).reshape(y.shape)
            nfe += k * (tally.nfe - before_it)
            own, along = _sum(M * M), -_sum(M * node.eps) / root.to(x)  # |M|^2 and M . kappa, (k, n)
            inner = torch.tensordot(node.weights.double(), (-own + (c2 + rate).to(x) * along).double(), 1)
            value = (inner - 0.25 * (c2 - rate) ** 2 * d / v) / (2 * c2) * speed * node.weight
            total = total + value
            if rule.random and j % 2:
                squares = squares + (value - before).square()
            before = value
        # -int div f dt
        total = total - d * math.log(s.scale(sde.horizon).item() / s.scale(0.0).item())
        eps, weights = rule.prior(x)
        if rule.random and isinstance(start, GaussianMixture) and len(start.means) == 1:
            # on the sphere of radius sqrt(d), pairs integrate quadratics without bias, isotropic ones without error
            eps = eps * (math.sqrt(d) / _sum(eps * eps).sqrt()).reshape(*eps.shape[:2], *[1] * (x.ndim - 1))
        y = s.scale(0.0).item() * x + kernel.variance(0.0).sqrt().item() * eps
        logs = start.log_prob(y.reshape(-1, *x.shape[1:])).reshape(len(eps), -1).double()
        total = total + torch.tensordot(weights.double(), logs, 1)
        if rule.random:
            pairs = logs.reshape(2, -1, len(x)).mean(0)
            squares = squares + pairs.var(0) / len(pairs)
    err = torch.as_tensor(squares, dtype=torch.float64, device=x.device).sqrt().expand(len(x))
    return Bound(total.to(x), err.to(x), nfe)


def _sum(x: Tensor) -> Tensor:
    """(k, n, *shape) -> (k, n)."""
    return x.flatten(2).sum(2)


@dataclass(frozen=True)
class Paths:
    """Log-weights (draws, n) in nats of whole paths drawn from the reference: log p(path, x) - log q(path | x)."""

    weights: Tensor
    nfe: int  # evaluations of the drift per row and draw

    def bound(self, k: int | None = None) -> Tensor:
        """The mean of log-mean-exp over groups of k draws (all of them by default), (n,): k = 1 is the bound of the
        discrete path, and a larger k, whose groups contain the smaller ones, never gives less (Burda et al. 2016)."""
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
    """Weighted paths of the sampler of `steps` first-order steps, for data x (n, *shape): their log-mean-exp bounds the
    log-density of x under that sampler with a Gaussian decoder of width sigma_min, in the units of `elbo`, which it
    approaches from below with many steps and k = 1, and exceeds with large k.

    A step is y1 = D* + (y0 - D*) r^(1+z) + sigma1 sqrt(1 - r^(2z)) xi in y = x/scale, with r = sigma1/sigma0 and the
    churn z of its beginning; the reference takes the same steps with x in the place of D*. Raises ValueError as `elbo`.
    """
    s, start = _on_schedule(sde)
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

    def draw(own: Noise) -> Tensor:
        def xi(k: int) -> Tensor:
            return own.fork("xi", k).normal(len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)

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
