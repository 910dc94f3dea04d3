"""p_t = r_t on every schedule, for every churn, in 1, 2 and 64 dimensions, component by component; and the invariance
in g2 behind it."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import diffflow as df

F64 = torch.float64
SCHEDULES = [df.EDM(), df.VE(), df.VP(), df.SubVP(), df.Cosine(), df.RectifiedFlow()]
IDS = [type(s).__name__ for s in SCHEDULES]


def target(d: int) -> df.GaussianMixture:
    """Three components over eight standard deviations apart, of unequal weight and width, none centred at 0; full
    covariances in 2-D."""
    direction = torch.ones(d, dtype=F64) / math.sqrt(d)
    means = torch.tensor([-1.2, 0.1, 1.3], dtype=F64)[:, None] * direction + 0.1
    weights = [0.2, 0.3, 0.5]
    if d == 2:
        c = torch.tensor(
            [[[0.02, 0.005], [0.005, 0.008]], [[0.01, 0.0], [0.0, 0.004]], [[0.008, -0.004], [-0.004, 0.015]]],
            dtype=F64,
        )
        return df.GaussianMixture(means, weights=weights, covariances=c)
    return df.GaussianMixture(means, [0.08, 0.12, 0.1], weights)


def assert_component_by_component(x: torch.Tensor, law: df.GaussianMixture) -> None:
    """Weights and means within 4.5 standard errors, std ratios along and across the line of means within 3 % plus
    their own 4.5 standard errors."""
    n, d = x.shape
    k = law._components(x, 0.0)[0].argmax(1)
    covariance = law.covariances()
    for j, w in enumerate(law.weights.tolist()):
        own = x[k == j]
        m = len(own)
        assert abs(m / n - w) < 4.5 * math.sqrt(w * (1 - w) / n), f"weight of component {j}: {m / n} instead of {w}"
        directions = [torch.ones(d, dtype=F64) / math.sqrt(d)]
        if d > 1:
            directions.append(
                torch.nn.functional.normalize(torch.tensor([1.0, -1.0] + [0.0] * (d - 2), dtype=F64), dim=0)
            )
        for e in directions:
            std = math.sqrt(e @ covariance[j] @ e)
            gap = ((own @ e).mean() - law.means[j] @ e).item()
            assert abs(gap) < 4.5 * std / math.sqrt(m), f"mean of component {j} is off by {gap}"
            ratio = (own @ e).std().item() / std
            assert abs(ratio - 1) < 0.03 + 4.5 / math.sqrt(2 * m), f"std of component {j} is {ratio} times the law's"
        total = (
            (own - own.mean(0)).square().sum().item() / (m - 1) / covariance[j].trace().item()
        )  # d times the information: a sharper bound in 64-D
        assert abs(math.sqrt(total) - 1) < 0.03 + 4.5 / math.sqrt(2 * m * (d if d == 64 else 1))


def end_at_horizon(steps: int):
    def rule(s: df.Schedule, _: int) -> torch.Tensor:
        return df.log_uniform(s, steps)[:-1]

    return rule


@pytest.mark.parametrize("d", [1, 2, 64])
@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("s", SCHEDULES, ids=IDS)
def test_particles_follow_the_target(s, churn, d):
    q, n = target(d), 1000 if d == 64 else 4000  # in 64-D, the bound on the sum of variances is the sharper one still
    tr = df.sample(df.at(s, s.score(q), churn=churn), n, grid=end_at_horizon(161), noise=df.Noise(11))
    assert_component_by_component(tr.last, s.law(q, s.horizon))


@pytest.mark.parametrize("churn", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("s", SCHEDULES, ids=IDS)
def test_marginals_on_the_way(s, churn):
    """Kolmogorov-Smirnov distance to r_t at four times on the way, at the 1e-5 level."""
    q = target(1)
    times = end_at_horizon(121)(s, 0)
    tr = df.sample(df.at(s, s.score(q), churn=churn), 4000, grid=times, noise=df.Noise(3), keep=30)
    for t, x in tr.kept:
        r = s.law(q, t)

        def cdf(v, r=r):
            return sum(
                w * stats.norm.cdf(v, m, sd)
                for w, m, sd in zip(r.weights.tolist(), r.means[:, 0].tolist(), r.floor.sqrt().tolist(), strict=True)
            )

        assert stats.kstest(x[:, 0].numpy(), cdf).pvalue > 1e-5, f"t={t}"


@pytest.mark.parametrize(
    "make",
    [lambda s, f: df.edm_churn(s, f, rate=0.5 / s.horizon), lambda s, f: df.slcd(s, f, g2=lambda t: 1.5 * s.lam2(t))],
)
@pytest.mark.parametrize("s", [df.EDM(), df.VP()], ids=["EDM", "VP"])
def test_the_named_churns_keep_the_law(s, make):
    q = target(2)
    assert_component_by_component(
        df.sample(make(s, s.score(q)), 4000, grid=end_at_horizon(161), noise=df.Noise(5)).last, s.law(q, s.horizon)
    )


@pytest.mark.parametrize("solver", [df.Heun(), df.NoiseRaising(), df.Exponential(2)])
def test_every_solver_samples_the_sde(solver):
    q, s = target(2), df.EDM()
    tr = df.sample(
        df.reverse_sde(s, s.score(q)), 4000, grid=lambda s, _: df.karras(s, 160)[:-1], solver=solver, noise=df.Noise(6)
    )
    assert_component_by_component(tr.last, s.law(q, s.horizon))


@pytest.mark.parametrize("s", [df.EDM(), df.VP(), df.RectifiedFlow()], ids=["EDM", "VP", "RectifiedFlow"])
@pytest.mark.parametrize(
    "solver",
    [
        df.Euler(),
        df.Heun(),
        df.NoiseRaising(),
        df.Exponential(1),
        df.Exponential(2),
        df.Exponential(3),
        df.Exponential(4),
    ],
)
def test_the_last_step_lands_on_the_data(s, solver):
    """A step onto sigma = 0 is the denoising x = D(y, sigma): exact whatever the solver."""
    q = target(2)
    sde = df.reverse_sde(s, s.score(q))
    t0 = s.time(0.05).item()
    x = s.law(q, t0).sample(50, df.Noise(1))
    tr = df.sample(sde, x, grid=[t0, s.clean_time], solver=solver)
    assert torch.allclose(tr.last, q.denoise(x / s.scale(t0).item(), 0.05), atol=1e-12)
    assert tr.nfe == 1


def gaussian_flow(sde: df.DiffFlow, m: float, c: float, mu, S, times) -> list[tuple[float, float]]:
    """Mean and variance of p_t for a Gaussian target with mean mu(t), variance S(t) (derivations.md eq. 9), by
    Runge-Kutta 4."""

    def rate(t, m, c):
        b, lam2, a = (
            float(sde.beta(t)),
            float(sde.lam2(t)) if callable(sde.lam2) else sde.lam2,
            float(sde.schedule.rate(t)) if sde.schedule else 0.0,
        )
        return np.array([a * m - b * (m - mu(t)) / S(t), 2 * a * c - 2 * b * c / S(t) + 2 * b - lam2])

    out, y = [(m, c)], np.array([m, c])
    for t0, t1 in itertools.pairwise(times):
        h = (t1 - t0) / 8
        for i in range(8):
            t = t0 + i * h
            k1 = rate(t, *y)
            k2 = rate(t + h / 2, *(y + h / 2 * k1))
            k3 = rate(t + h / 2, *(y + h / 2 * k2))
            k4 = rate(t + h, *(y + h * k3))
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        out.append((float(y[0]), float(y[1])))
    return out


class Line:
    """Mean and variance between tabulated times."""

    def __init__(self, times, values):
        self.t, self.v = np.array(times), np.array(values)

    def __call__(self, t) -> df.Gaussian:
        m, c = (np.interp(float(t), self.t, self.v[:, j]) for j in (0, 1))
        return df.Gaussian(torch.tensor([m], dtype=F64), math.sqrt(c))


def run_gaussian(lam2_factor: float, g2_factor: float, n: int) -> tuple[float, float, float, float]:
    """From a wrong start toward N(0.5, 0.6^2) at rate beta = 1 with lam2 = lam2_factor, g2 = g2_factor: measured and
    predicted mean and variance."""
    q = df.Gaussian(torch.tensor([0.5], dtype=F64), 0.6)
    start = df.Gaussian(torch.tensor([-1.0], dtype=F64), 1.5)
    times = torch.linspace(0, 0.5, 81, dtype=F64).tolist()
    sde = df.DiffFlow(beta=lambda t: 1.0, lam2=lam2_factor, g2=g2_factor, start=start, horizon=0.5)
    path = gaussian_flow(sde, -1.0, 2.25, lambda t: 0.5, lambda t: 0.36, times)
    from dataclasses import replace

    sde = replace(sde, score=df.LawScore(q), ratio=df.LawRatio(lambda t: q, Line(times, path)))
    x = df.sample(sde, n, grid=times, solver=df.Heun(), noise=df.Noise(2)).last
    return x.mean().item(), x.var().item(), *path[-1]


@pytest.mark.parametrize("lam2", [0.0, 0.7, -0.8])
def test_invariant_in_g2_at_fixed_f_beta_lam2(lam2):
    """Proposition 2: the law equals eq. (9), which has no g2 in it, from the ODE to past 2 beta (where the ratio's
    weight is negative)."""
    n = 6000
    for g2 in {max(0.0, lam2), 1.0, 2.0, 3.0}:
        mean, var, m, c = run_gaussian(lam2, g2, n)
        assert abs(mean - m) < 4.5 * math.sqrt(c / n) + 1e-4
        assert abs(var / c - 1) < 4.5 * math.sqrt(2 / n) + 1e-3


def test_not_invariant_in_lam2():
    """lam2 enters as -(lam2/2) Laplace p: the variances for lam2 = 0 and 0.7 differ by what eq. (9) says, many
    standard errors apart."""
    n = 20000
    (_, v0, _, c0), (_, v1, _, c1) = run_gaussian(0.0, 2.0, n), run_gaussian(0.7, 2.0, n)
    error = 4.5 * math.sqrt(2 / n) * (c0 + c1)
    assert c0 - c1 > 2 * error
    assert abs((v0 - v1) - (c0 - c1)) < error


@pytest.mark.parametrize("lam2", [-2.0, -0.5, 0.0, 1.0])
def test_tempered_stationary_law(lam2):
    """Constant coefficients, f = 0: p_inf ~ q^(beta / (beta - lam2/2)): flattened for lam2 < 0, q^2 at lam2 = beta
    (derivations.md section 1)."""
    q = df.GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), [0.6, 0.8], [0.35, 0.65])
    beta, h, steps, n = 1.0, 0.02, 600, 3000
    sde = df.DiffFlow(
        score=df.LawScore(q),
        beta=beta,
        g2=2 * beta,
        lam2=lam2,
        horizon=h * steps,
        start=df.Gaussian(torch.zeros(1, dtype=F64), 1.5),
    )
    x = df.sample(sde, n, steps, solver=df.Heun(), noise=df.Noise(4)).last[:, 0]
    grid = torch.linspace(-12, 12, 24001, dtype=F64)
    p = (q.log_prob(grid[:, None]) * (beta / (beta - lam2 / 2))).exp()
    p = p / p.sum()
    for f in (lambda v: v, lambda v: v**2, lambda v: (v > 0).double(), lambda v: (v.abs() < 1).double()):
        mean = (p * f(grid)).sum()
        error = math.sqrt((p * (f(grid) - mean) ** 2).sum() / n)
        assert (
            abs(f(x).mean() - mean) < 4.5 * error + 2e-3
        )  # the second term: Heun's O(h^2) and the O(h) of an indicator's edge
