r"""Convergence: the theory of how fast particles reach their target, measured along a path (derivations.md 4).

With r_t the target and p_t the law of the particles, kappa = beta - lam2/2, and f, lam2 consistent with the schedule
(or a fixed target and lam2 = 0),

    d/dt KL(p|r) = -kappa I(p|r),          I(p|r) = E_p |grad log p/r|^2                     (eq. 5, Lemma 1)
    KL(p_t|r_t) <= KL(p_0|r_0) exp(-2 int rho kappa dt)                                       (eq. 7, Theorem 2)
    int I dt <= KL(p_0|r) / beta,  total variation decreases to 0                             (Theorem 1)

for rho the log-Sobolev constant of r_t. A `Decay` holds both sides of these statements along a path. It is computed

    exactly for Gaussians      `gaussian_decay`    moments by their differential equation (eq. 9)
    exactly in one dimension   `grid_decay`        the Fokker-Planck equation (3) on a grid
    from particles             `particle_decay`    kernel estimates along one simulation

Shapes: times (m,), every column (m,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..equation.fields import LawRatio, LawScore, ScoreField
from ..equation.kernels import KernelRatio
from ..equation.laws import Gaussian, GaussianMixture, Law
from ..equation.noise import Noise, as_noise
from ..equation.sde import DiffFlow, Speed
from ..equation.times import Time
from .fokker_planck import Line, fokker_planck_step
from .sample import sample


@dataclass(frozen=True)
class Decay:
    """Both sides of the convergence statements along a path; every column is (m,) float64.

    Attributes:
        times: times.
        kl: KL(p_t|r_t), nats.
        fisher: relative Fisher information I(p_t|r_t).
        kappa: beta - lam2/2, with the mean of beta over I where beta depends on the particle.
        tv: total variation of p_t and r_t; nan but in one dimension.
        rho: lower bound of the log-Sobolev constant of r_t; nan where none is known.
    """

    times: Tensor
    kl: Tensor
    fisher: Tensor
    kappa: Tensor
    tv: Tensor
    rho: Tensor

    @property
    def slope(self) -> Tensor:
        """The theory's slope d KL/dt = -kappa I."""
        return -self.kappa * self.fisher

    @property
    def bound(self) -> Tensor:
        """The theory's bound KL_0 exp(-2 int rho kappa dt) of KL_t, Theorem 2."""
        return self.kl[0] * (-2 * _running(self.times, self.rho * self.kappa)).exp()

    @property
    def dissipated(self) -> Tensor:
        """Dissipation int kappa I dt so far, which is KL_0 - KL_t.

        For a constant beta and lam2 = 0, int I dt <= KL_0/beta (Theorem 1).
        """
        return _running(self.times, self.kappa * self.fisher)


def _running(t: Tensor, y: Tensor) -> Tensor:
    """Integral of y dt up to each time, trapezoidal."""
    return torch.cat([y.new_zeros(1), torch.cumulative_trapezoid(y, t)])


def target(sde: DiffFlow) -> Callable[[Time], Law]:
    """The target law r_t of an equation whose fields know it.

    Args:
        sde: the equation.

    Returns:
        t -> r_t.

    Raises:
        ValueError: fields that are not made of a Law.
    """
    if isinstance(sde.score, ScoreField) and sde.score.law is not None:
        law, schedule = sde.score.law, sde.score.schedule
        return lambda t: law.noised(schedule.scale(t).item(), schedule.sigma(t).item())
    if isinstance(sde.score, LawScore):
        fixed = sde.score.law
        return lambda t: fixed
    if isinstance(sde.ratio, LawRatio):
        return sde.ratio.target
    raise ValueError("the target of this equation is not a known law: build its score or ratio from a Law")


def log_sobolev(law: Law, sigma: float = 0.0) -> float:
    """A lower bound of the log-Sobolev constant rho of law * N(0, sigma^2): KL(p|r) <= I(p|r) / (2 rho) for every p.

    A Gaussian's is exact, 1/(largest variance + sigma^2). A mixture of equal isotropic components of variance v is a
    law on its means, in a ball of radius R, noised by v: rho >= (v - R^2)/v^2 where v > R^2 (Bakry & Emery 1985), and
    always 1/rho <= 6 (4 R^2 + v) exp(4 R^2/v) (Chen, Chewi & Niles-Weed 2021); the larger of the two.

    Args:
        law: the law.
        sigma: noise level, data units.

    Returns:
        The bound, per squared unit of the data; nan for other laws.
    """
    if not isinstance(law, GaussianMixture):
        return math.nan
    if len(law.means) == 1:
        return 1 / (law.principal_std**2 + sigma**2)
    if bool((law.extra > 0).any()) or not torch.allclose(law.floor, law.floor[:1]):
        return math.nan
    v = law.floor[0].item() + sigma**2
    R2 = (law.means - 0.5 * (law.means.amin(0) + law.means.amax(0))).square().sum(1).max().item()
    general = math.exp(-4 * R2 / v) / (6 * (4 * R2 + v))
    return max(general, (v - R2) / v**2)


# -- Gaussians --------------------------------------------------------------------------------------------------------
def _gaussian_moments(law: Law) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of a Gaussian, float64."""
    if not (isinstance(law, GaussianMixture) and len(law.means) == 1):
        raise ValueError(f"closed forms want Gaussians, got {type(law).__name__}: use grid_decay or particle_decay")
    return law.means[0].double(), law.covariances()[0].double()


def kl_gaussian(p: Law, r: Law) -> float:
    """Kullback-Leibler divergence KL(p|r) of two Gaussians, nats. Raises ValueError for other laws."""
    (m, C), (mu, S) = _gaussian_moments(p), _gaussian_moments(r)
    inverse = torch.linalg.inv(S)
    trace = (inverse * C).sum() - len(m) + (mu - m) @ inverse @ (mu - m)
    return 0.5 * (trace + torch.linalg.slogdet(S)[1] - torch.linalg.slogdet(C)[1]).item()


def fisher_gaussian(p: Law, r: Law) -> float:
    """Relative Fisher information E_p |grad log p/r|^2 of two Gaussians. Raises ValueError for other laws."""
    (m, C), (mu, S) = _gaussian_moments(p), _gaussian_moments(r)
    A, inverse = torch.linalg.inv(C) - torch.linalg.inv(S), torch.linalg.inv(S)
    return (torch.trace(A @ C @ A) + (inverse @ (mu - m)).square().sum()).item()


def gaussian_decay(sde: DiffFlow, steps: int = 400, substeps: int = 10) -> Decay:
    """The decay along a path of Gaussians, with exact fields of every kind that the equation weighs.

    Mean and covariance follow derivations.md eq. 9, by classical Runge-Kutta.

    Args:
        sde: the equation.
        steps: number of recorded times after the first.
        substeps: Runge-Kutta steps between two of them.

    Returns:
        The decay at steps + 1 times.

    Raises:
        ValueError: unless start and target are Gaussian, beta depends on t alone and f is linear.
    """
    if isinstance(sde.beta, Speed) or sde.start is None:
        raise ValueError("Gaussians stay Gaussian for a start= and a beta that depends on time alone")
    r, (m, C) = target(sde), _gaussian_moments(sde.start)
    eye, zero = torch.eye(len(m), dtype=torch.float64), torch.zeros(1, *sde.start.shape, dtype=torch.float64)

    def a(t: float) -> float:
        """The rate a of the drift f = a x."""
        if sde.f is None:
            return 0.0
        one, two = (sde.f(zero + v, t).flatten() for v in (1.0, 2.0))
        if not (torch.allclose(2 * one, two) and torch.allclose(one, one[:1].expand_as(one))):
            raise ValueError("closed forms want a drift f = a(t) x: use grid_decay or particle_decay")
        return one[0].item()

    def rate(t: float, m: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        mu, S = _gaussian_moments(r(t))
        inverse, beta, lam2 = torch.linalg.inv(S), _coefficient_at(sde.beta, t), _coefficient_at(sde.lam2, t)
        drift = a(t) * m - beta * inverse @ (m - mu)
        return drift, 2 * a(t) * C - beta * (inverse @ C + C @ inverse) + (2 * beta - lam2) * eye

    times = torch.linspace(0.0, sde.horizon, steps + 1, dtype=torch.float64)
    rows = []
    for k, t in enumerate(times.tolist()):
        law, goal = Gaussian(m, covariance=C), r(t)
        kappa = _coefficient_at(sde.beta, t) - 0.5 * _coefficient_at(sde.lam2, t)
        rows.append((kl_gaussian(law, goal), fisher_gaussian(law, goal), kappa, math.nan, log_sobolev(goal)))
        if k == steps:
            break
        h = sde.horizon / steps / substeps
        for j in range(substeps):  # classical Runge-Kutta
            now = t + j * h
            k1 = rate(now, m, C)
            k2 = rate(now + h / 2, m + h / 2 * k1[0], C + h / 2 * k1[1])
            k3 = rate(now + h / 2, m + h / 2 * k2[0], C + h / 2 * k2[1])
            k4 = rate(now + h, m + h * k3[0], C + h * k3[1])
            m, C = (
                y + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
                for y, a1, a2, a3, a4 in zip((m, C), k1, k2, k3, k4, strict=True)
            )
    return _decay(times, rows)


def _coefficient_at(c: object, t: float) -> float:
    """The value of a coefficient at t as a number."""
    return float(c(t)) if callable(c) else float(c)  # type: ignore[arg-type]


def _decay(times: Tensor, rows: list[tuple[float, ...]]) -> Decay:
    return Decay(times, *torch.tensor(rows, dtype=torch.float64).T)


# -- one dimension, exactly -------------------------------------------------------------------------------------------
def grid_decay(sde: DiffFlow, line: Line, steps: int = 2000, records: int = 200) -> tuple[Decay, Tensor]:
    """The decay along the exact law of the particles in one dimension, and that law at the recorded times (m, cells).

    Equation (3), in conservative form with no flux through the ends, F = f + beta grad log r and K = beta - lam2/2,

        dp/dt = -div (p F - K grad p),

    by Crank and Nicolson (the first steps implicit, which damps what an abrupt start excites): second order in time and
    space. A beta that depends on the logit is taken at log r/p of the step before.

    Args:
        sde: the equation, in one dimension and with a start.
        line: the cells.
        steps: number of time steps.
        records: about how many times are recorded.

    Returns:
        The decay at m recorded times, and the density at them (m, cells).

    Raises:
        ValueError: another dimension, no start, or K < 0, where the equation is ill-posed.
    """
    if sde.start is None or sde.start.shape != (1,):
        raise ValueError("the Fokker-Planck equation on a line wants one dimension and a start=")
    r, x, h, dt = target(sde), line.x, line.h, sde.horizon / steps
    edges = (line.low + torch.arange(1, line.count, dtype=torch.float64) * h)[:, None]
    p = sde.start.to(torch.float64).log_prob(x[:, None]).exp()  # type: ignore[attr-defined]
    p = p / (p.sum() * h)
    rows: list[tuple[float, ...]] = []
    laws: list[Tensor] = []
    every = max(1, steps // records)

    def halves(t: float, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients beta and K at the edges."""
        beta = (
            sde.beta(0.5 * (log_ratio[1:] + log_ratio[:-1]))
            if isinstance(sde.beta, Speed)
            else torch.full((len(edges),), _coefficient_at(sde.beta, t), dtype=torch.float64)
        )
        K = beta - 0.5 * _coefficient_at(sde.lam2, t)
        if bool((K < -1e-12).any()):
            raise ValueError(
                f"beta - lam2/2 = {K.min():.3g} < 0 at t = {t:.3g}: this equation is ill-posed forward in time"
            )
        return beta, K

    for k in range(steps + 1):
        t = k * dt
        log_r = r(t).log_prob(x[:, None])
        log_ratio = log_r - p.clamp_min(1e-300).log()
        beta, K = halves(t, log_ratio)
        if k % every == 0 or k == steps:
            q = log_r.exp() / (log_r.exp().sum() * h)
            middle = 0.5 * (p[1:] + p[:-1])
            slope = (log_ratio[1:] - log_ratio[:-1]) / h
            inside = middle > 1e-14 * middle.max()
            weight = torch.where(inside, middle * slope**2, 0.0) * h
            fisher = weight.sum().item()
            kappa = (K * weight).sum().item() / max(fisher, 1e-300)
            kl = (p * (p.clamp_min(1e-300).log() - q.clamp_min(1e-300).log())).sum().item() * h
            rows.append((kl, fisher, kappa, 0.5 * (p - q).abs().sum().item() * h, log_sobolev(r(t))))
            laws.append(p)
        if k < steps:
            mid = t + 0.5 * dt
            beta, K = halves(mid, log_ratio)
            F = beta * r(mid).score(edges)[:, 0]
            if sde.f is not None:
                F = F + sde.f(edges, mid)[:, 0]
            p = fokker_planck_step(p, F, K, h, dt, 1.0 if k < 4 else 0.5)
    times = torch.tensor([k * dt for k in range(steps + 1) if k % every == 0 or k == steps], dtype=torch.float64)
    return _decay(times, rows), torch.stack(laws)


# -- particles --------------------------------------------------------------------------------------------------------
def particle_decay(
    sde: DiffFlow,
    particles: int = 2000,
    steps: int = 100,
    bandwidth: float = 0.1,
    noise: Noise | int = Noise(0),
    keep: int = 5,
) -> Decay:
    """The decay estimated along one simulation, by kernels.

    KL and I are those of target and particles, both blurred by `bandwidth` (so that bias cancels where they agree), at
    the particles themselves, each left out of its own sum. Coarse: the estimate of a KL of 0 is of order
    1/(particles h^d).

    Args:
        sde: the equation, with a start.
        particles: number of particles.
        steps: number of steps.
        bandwidth: width h of the kernel, in units of x.
        noise: streams, or an integer seed.
        keep: every how many steps the decay is recorded.

    Returns:
        The decay at the recorded times; tv is nan.

    Raises:
        ValueError: a speed that depends on the logit, or an unknown target.
    """
    if isinstance(sde.beta, Speed):
        raise ValueError("kappa of a beta that depends on the logit is no single number: use grid_decay")
    r, noise = target(sde), as_noise(noise)
    path = sample(sde, particles, steps, noise=noise, keep=keep)
    kept = (
        [(0.0, sde.start.sample(particles, noise.fork("start")))]
        if sde.start is not None and not path.kept
        else path.kept
    )
    rows, times = [], []
    for t, x in kept:
        if t > sde.horizon:
            continue
        logit, grad = KernelRatio(r, bandwidth, leave_one_out=True).observe(x, t).value_and_grad(x, t)
        kappa = _coefficient_at(sde.beta, t) - 0.5 * _coefficient_at(sde.lam2, t)
        rows.append(
            (-logit.mean().item(), grad.flatten(1).square().sum(1).mean().item(), kappa, math.nan, log_sobolev(r(t)))
        )
        times.append(float(t))
    return _decay(torch.tensor(times, dtype=torch.float64), rows)


# -- statements about single laws -------------------------------------------------------------------------------------
def tempered(log_q: Tensor, beta: float, lam2: float, h: float) -> Tensor:
    """The stationary density for constant beta and lam2: the target to the power beta / (beta - lam2/2), normalised.

    Args:
        log_q: log density of the target on cells (n,), nats.
        beta: speed.
        lam2: signed entropy.
        h: width of a cell.

    Returns:
        The density on the cells (n,) (derivations.md section 1).

    Raises:
        ValueError: lam2 >= 2 beta, for which there is none.
    """
    if not lam2 < 2 * beta:
        raise ValueError(f"lam2 = {lam2} must be below 2 beta = {2 * beta}: else there is no stationary law")
    p = (log_q * (beta / (beta - 0.5 * lam2))).softmax(0)
    return p / h


def lemma2(x: Tensor, sigma: float, radius: float, epsilon: float) -> tuple[float, Tensor]:
    """Bounds of -log q(x; sigma) by Lemma 2 of the paper (derivations.md eq. 6).

    Args:
        x: points (n, *shape).
        sigma: noise level, data units.
        radius: the ball about 0 in which the data lie with probability 1 - epsilon at least.
        epsilon: the probability outside.

    Returns:
        The lower bound, one number, and the upper one (n,), nats.
    """
    flat = x.flatten(1)
    base = 0.5 * flat.shape[1] * math.log(2 * math.pi * sigma**2)
    return base, (flat.square().sum(1) + radius**2) / sigma**2 + base - math.log1p(-epsilon)
