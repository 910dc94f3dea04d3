"""Measured order of convergence = stated order, for every solver: globally on the ODE, weakly on the SDE."""

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffflow as df

F64 = torch.float64
EXPONENTIAL = [df.Exponential(k, selfstart=True) for k in (1, 2, 3, 4)] + [
    df.Exponential(k, correct=False, selfstart=True) for k in (2, 3, 4)
]
SOLVERS = [df.Euler(), df.Heun(), df.NoiseRaising(), *EXPONENTIAL]


def slope(ns, errors) -> float:
    """Least-squares slope of log error against log n, negated: the order."""
    a, b = torch.tensor(ns, dtype=F64).log(), torch.tensor(errors, dtype=F64).log()
    return -(((a - a.mean()) * (b - b.mean())).sum() / ((a - a.mean()) ** 2).sum()).item()


def times(s: df.Schedule, n: int, hi: float = 3.0, lo: float = 0.3) -> torch.Tensor:
    """n steps, uniform in log sigma, between two positive noise levels."""
    return s.time(torch.linspace(math.log(hi), math.log(lo), n + 1, dtype=F64).exp())


def mixture() -> df.GaussianMixture:
    return df.GaussianMixture(torch.tensor([[-1.0, 0.3], [0.8, -0.5], [0.2, 0.9]], dtype=F64), [0.4, 0.5, 0.3])


@functools.cache
def solved(s: df.Schedule) -> tuple[df.DiffFlow, torch.Tensor, torch.Tensor]:
    """The mixture's probability flow, starts, and where it takes them."""
    q = mixture()
    sde = df.probability_flow(s, s.score(q))
    x0 = s.law(q, times(s, 1)[0].item()).sample(200, df.Noise(0))
    return sde, x0, df.sample(sde, x0, grid=times(s, 600), solver=df.Exponential(4, selfstart=True)).last


@pytest.mark.parametrize("s", [df.EDM(), df.VP(), df.RectifiedFlow()], ids=["EDM", "VP", "RectifiedFlow"])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_order_on_the_probability_flow(solver, s):
    sde, x0, exact = solved(s)
    ns = [30, 60, 120]
    errors = [(df.sample(sde, x0, grid=times(s, n), solver=solver).last - exact).norm().item() for n in ns]
    assert abs(slope(ns, errors) - solver.order) < 0.25, errors


@pytest.mark.parametrize(
    "solver", [df.Euler(), df.Heun(), df.Exponential(1), df.Exponential(3, selfstart=True)], ids=str
)
def test_the_ratio_comes_along_at_the_same_order(solver):
    """With a ratio field (gan = 0.7) the composite denoiser keeps every order (architecture.md, fact 7)."""
    q, s = mixture(), df.EDM()
    wrong = df.GaussianMixture(q.means * 0.8 + 0.1, [0.5, 0.5, 0.5])
    sde = df.at(s, s.score(q), df.LawRatio(lambda t: s.law(q, t), lambda t: s.law(wrong, t)), gan=0.7)
    x0 = s.law(q, times(s, 1)[0].item()).sample(100, df.Noise(0))
    exact = df.sample(sde, x0, grid=times(s, 400), solver=df.Exponential(4, selfstart=True)).last
    ns = [30, 60, 120]
    errors = [(df.sample(sde, x0, grid=times(s, n), solver=solver).last - exact).norm().item() for n in ns]
    assert abs(slope(ns, errors) - solver.order) < 0.25, errors


class Impulse:
    """An increment for one particle at a time: particle 2 + k is hit at step k by one unit. A solver of a linear
    equation answers with its response."""

    def increment(self, k, t0, t1, x):
        dw = torch.zeros_like(x)
        dw[2 + k] = 1.0
        return dw


def test_rising_orders_cost_nothing_from_the_top():
    """From sigma_max, where D* is still constant, the free start is as accurate as the self-start."""
    q, s = mixture(), df.EDM()
    sde = df.probability_flow(s, s.score(q))
    x0 = s.law(q, 0.0).sample(200, df.Noise(0))
    grid = df.log_uniform(s, 121)[:-1]
    exact = df.sample(sde, x0, grid=df.log_uniform(s, 961)[:-1], solver=df.Exponential(4)).last
    for order in (3, 4):
        free, paid = (
            (df.sample(sde, x0, grid=grid, solver=df.Exponential(order, selfstart=b)).last - exact).norm().item()
            for b in (False, True)
        )
        assert free < 1.5 * paid, (order, free, paid)


def linear_response(sde: df.DiffFlow, grid: torch.Tensor, solver, mean0: float, var0: float) -> tuple[float, float]:
    """Exact mean and variance of the scheme's output on a Gaussian target, where each scheme is an affine map of
    start and increments: no sampling error."""
    n = len(grid) - 1
    x0 = torch.zeros(n + 2, 1, dtype=F64)
    x0[1] = 1.0
    out = df.sample(sde, x0, grid=grid, solver=solver, noise=Impulse()).last[:, 0]
    gain = out[1:] - out[0]
    return (out[0] + gain[0] * mean0).item(), (gain[0] ** 2 * var0 + (gain[1:] ** 2 * grid.diff()).sum()).item()


@pytest.mark.parametrize("churn", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("s", [df.EDM(), df.VP()], ids=["EDM", "VP"])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_weak_order_on_the_sde(solver, s, churn):
    """Gaussian target N(0.7, 0.8^2), wrong start. In y = x/scale: mean and variance gaps to r shrink by Phi and
    Phi^2, Phi = (v1/v0)^((1+z)/2), v = 0.64 + sigma^2."""
    q = df.Gaussian(torch.tensor([0.7], dtype=F64), 0.8)
    sde = df.at(s, s.score(q), churn=churn)
    hi, lo = 3.0, 0.3
    v0, v1 = 0.64 + hi**2, 0.64 + lo**2
    phi = (v1 / v0) ** ((1 + churn) / 2)
    a0, a1 = s.scale(s.time(hi)).item(), s.scale(s.time(lo)).item()
    mean, var = a1 * (0.7 + phi * 1.0), a1**2 * (v1 + phi**2 * (0.5 * v0))
    ns, errors = [32, 64, 128], []
    for n in ns:
        m, c = linear_response(sde, times(s, n, hi, lo), solver, a0 * 1.7, a0**2 * 1.5 * v0)
        errors.append(math.hypot(m - mean, c - var))
    measured = slope(ns, errors)
    assert solver.weak_order - 0.3 < measured, (measured, errors)
    if not isinstance(
        solver, df.Exponential
    ):  # a scheme may be better than its word on a linear equation; the plain ones are not
        assert measured < solver.weak_order + 0.6, (measured, errors)


def test_noise_raising_keeps_the_exact_law_to_second_order():
    """From the exact start only Heun's error is left."""
    q, s = df.Gaussian(torch.tensor([0.7], dtype=F64), 0.8), df.EDM()
    sde = df.reverse_sde(s, s.score(q))
    ns, errors = [32, 64, 128], []
    for n in ns:
        _, c = linear_response(sde, times(s, n), df.NoiseRaising(), 0.7, 0.64 + 9.0)
        errors.append(abs(c - 0.64 - 0.09))
    assert slope(ns, errors) > 1.7


def test_euler_maruyama_converges_strongly():
    """Against one Brownian path shared by coarse and fine solves: strong order 1 for additive noise."""
    q = df.Gaussian(torch.tensor([0.3, -0.2], dtype=F64), 0.7)
    x0 = df.Gaussian(torch.zeros(2, dtype=F64), 1.0).sample(200, df.Noise(1))
    sde = df.langevin(q, beta=1.0, horizon=1.0)
    path = df.BrownianPath(df.Noise(9), 1.0)
    fine = df.sample(sde, x0, 256, noise=path).last
    errors = [(df.sample(sde, x0, n, noise=path).last - fine).square().mean().sqrt().item() for n in (4, 8, 16)]
    assert abs(slope([4, 8, 16], errors) - 1.0) < 0.2, errors


def test_brownian_path_is_additive_and_brownian():
    path, x = df.BrownianPath(df.Noise(2), 3.0), torch.zeros(4000, 2, dtype=F64)
    a, b, c = path.increment(0, 0.3, 1.1, x), path.increment(1, 1.1, 2.7, x), path.increment(0, 0.3, 2.7, x)
    assert torch.allclose(a + b, c, atol=1e-12)
    for w, h in ((a, 0.8), (b, 1.6)):
        assert abs(w.var().item() / h - 1) < 4.5 * math.sqrt(2 / 8000)
    assert abs((a * b).mean().item()) < 4.5 * math.sqrt(0.8 * 1.6 / 8000)


def test_stiff_langevin_is_refused_with_a_step_count_that_would_do():
    q = df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=F64), 0.1)
    sde = df.langevin(q, beta=1.0, horizon=1.0, start=q)
    with pytest.raises(ValueError, match=r"steps=(\d+)") as refusal:
        df.sample(sde, 10, 50)
    import re

    steps = int(re.search(r"steps=(\d+)", str(refusal.value))[1])
    x = df.sample(sde, 3000, steps, noise=df.Noise(3)).last
    r = x - q.means[torch.cdist(x, q.means).argmin(1)]
    assert abs(r.std().item() / 0.1 - 1) < 0.03 + 4.5 / math.sqrt(2 * 6000)


def test_multistep_weights_integrate_polynomials():
    """Exact for polynomials in w = (1 + (sigma/principal_std)^2)^-0.5 up to degree k - 1, against a midpoint rule; sum
    = 1 - e^{-ah}."""
    from diffflow.sampling.multistep import multistep_weights

    for a in (1.0, 1.5, 3.0):
        for h in (1e-3, 0.1, 1.0, 5.0):
            for principal_std in (0.3, 1.0, 4.0):
                lam0 = 0.4
                nodes = (lam0, lam0 - 0.7 * h, lam0 - 1.9 * h, lam0 - 2.5 * h)
                w = torch.tensor(multistep_weights(nodes, lam0, lam0 + h, a, principal_std), dtype=F64)
                assert abs(w.sum().item() + math.expm1(-a * h)) < 1e-7
                signal = lambda lam, principal_std=principal_std: 1 / (1 + (-2 * lam).exp() / principal_std**2).sqrt()
                lam = lam0 + h * (torch.arange(20000, dtype=F64) + 0.5) / 20000
                for k in (1, 2, 3):
                    want = (a * (-a * (lam0 + h - lam)).exp() * signal(lam) ** k).mean().item() * h
                    assert abs((w * signal(torch.tensor(nodes, dtype=F64)) ** k).sum().item() - want) < 1e-6


@given(mean=st.floats(-3, 3), std=st.floats(0.05, 5), steps=st.integers(3, 12))
def test_two_nodes_are_exact_on_a_gaussian(mean, std, steps):
    """With the data's principal std, D* of a Gaussian is linear in w along a path: order 2 makes no error, however
    coarse the grid, once it has two evaluations."""
    q, s = df.Gaussian(torch.tensor([mean], dtype=F64), std), df.EDM()
    sde = df.probability_flow(s, s.score(q))
    x0 = torch.linspace(-2, 2, 5, dtype=F64)[:, None] * math.hypot(3.0, std) + mean
    # a first step of relative length 1e-4 gives the second evaluation, with an error of that size in the slope
    sigma = torch.cat(
        [
            torch.tensor([3.0], dtype=F64),
            torch.linspace(math.log(3.0 * (1 - 1e-4)), math.log(0.1), steps + 1, dtype=F64).exp(),
        ]
    )
    grid = s.time(sigma)
    exact = mean + (x0 - mean) * math.hypot(0.1, std) / math.hypot(3.0, std)
    got = df.sample(sde, x0, grid=grid, solver=df.Exponential(2)).last
    assert torch.allclose(got, exact, atol=1e-3 * math.hypot(3.0, std))
