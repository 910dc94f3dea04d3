"""log_prob = closed form of the target noised at sigma_min; free of g2; Hutchinson unbiased within its own error
bar."""

import math

import pytest
import torch

import diffflow as df
from diffflow.likelihood.ode import decoded

F64 = torch.float64
Q = df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=F64), [0.3, 0.2], [0.3, 0.7])
SCHEDULES = [df.EDM(), df.VE(), df.VP(), df.SubVP(), df.Cosine(), df.RectifiedFlow()]


@pytest.mark.parametrize("s", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_equals_the_closed_form(s, churn):
    x = Q.sample(20, df.Noise(0)) * 1.2
    got = df.log_prob(df.at(s, s.score(Q), churn=churn), x)
    assert (got.value - s.law(Q, s.horizon).log_prob(x)).abs().max() < 1e-4
    assert got.stderr.abs().max() == 0


def test_is_free_of_g2():
    """The same equation under three gauges, bit for bit; with a wrong start and the exact ratio too."""
    s = df.EDM(sigma_max=5.0)
    x = Q.sample(5, df.Noise(0))
    p = Q.noised(0.9, 0.1)
    sde = df.at(s, s.score(Q), df.LawRatio(lambda t: s.law(Q, t), lambda t: s.law(p, t)), gan=0.5, churn=0.2)
    values = [df.log_prob(sde.gauge(lambda t, k=k: k * s.lam2(t)), x, steps=16).value for k in (1.0, 2.0, 3.7)]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_mismatched_start_with_the_exact_ratio():
    """A Gaussian DiffODE from a wrong start: p_T is the Ornstein-Uhlenbeck law, and the flow's likelihood finds it."""
    q, start = df.Gaussian(torch.tensor([0.5], dtype=F64), 0.6), df.Gaussian(torch.tensor([-1.0], dtype=F64), 1.5)

    def p(t):
        e = math.exp(-float(t) / 0.36)
        return df.Gaussian(torch.tensor([0.5 - 1.5 * e], dtype=F64), math.sqrt(0.36 + (2.25 - 0.36) * e**2))

    sde = df.static(None, df.LawRatio(lambda t: q, p), churn=0.0, horizon=0.4, start=start)
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    assert (df.log_prob(sde, x).value - p(0.4).log_prob(x)).abs().max() < 1e-4


@pytest.mark.parametrize("gaussian", [False, True])
def test_hutchinson_is_unbiased_within_its_error_bar(gaussian):
    s = df.EDM()
    q = df.GaussianMixture(torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=F64), 0.4)
    x = q.sample(64, df.Noise(0))
    # on one grid, however coarse: an estimate of the trace at its nodes is linear in what it adds
    exact = df.log_prob(df.probability_flow(s, s.score(q)), x, steps=24).value
    got = df.log_prob(df.probability_flow(s, s.score(q)), x, steps=24, trace=df.Hutchinson(16, df.Noise(5), gaussian))
    z = (got.value - exact) / got.stderr
    assert (got.stderr > 0).all()
    assert abs(z.mean().item()) < 4.5 * z.std().item() / math.sqrt(64)  # unbiased
    assert (
        0.6 < z.square().mean().sqrt().item() < 1.9
    )  # and honest about its error (t-distribution with 15 degrees of freedom, 64 draws)


def test_signs_vary_less_than_gaussians():
    """Var e^T J e = 2 sum_(i != j) S_ij^2 for signs and 2 |S|^2 for Gaussians, S the symmetric part: for an isotropic
    law, whose J is a multiple of one, signs make no error at all."""
    s, q = df.EDM(), df.Gaussian(torch.linspace(-1, 1, 6, dtype=F64), 0.4)
    sde, x = df.probability_flow(s, s.score(q)), q.sample(8, df.Noise(0))
    rules = (df.Hutchinson(8, df.Noise(1), gaussian) for gaussian in (False, True))
    signs, gaussians = (df.log_prob(sde, x, steps=16, trace=rule).stderr for rule in rules)
    assert signs.max() < 1e-6
    assert gaussians.min() > 1e-2


def test_a_fixed_grid_is_of_order_four():
    """Errors of n and 2 n Runge-Kutta steps are 16 to 1, and a step costs four evaluations."""
    s = df.EDM(0.05, 20.0)
    q = df.Gaussian(torch.tensor([0.3, -0.2], dtype=F64), 0.7)
    sde, x = df.probability_flow(s, s.score(q)), q.sample(10, df.Noise(0))
    found = [df.log_prob(sde, x, steps=n) for n in (16, 32)]
    assert [f.nfe for f in found] == [64, 128]
    a, b = ((f.value - s.law(q, s.horizon).log_prob(x)).abs().mean().item() for f in found)
    assert 12 < a / b < 20


@pytest.mark.parametrize("s", [df.EDM(0.3), df.RectifiedFlow(0.3), df.VP(sigma_min=0.3)], ids=["EDM", "flow", "VP"])
def test_at_data_noised_by_sigma_min_the_density_bounds_that_of_the_data(s):
    """E log p_T(scale (x + sigma_min eps)) + d log scale <= E log q(x), with a gap that is seen at so much noise."""
    x = Q.sample(20_000, df.Noise(2))
    at, extra = decoded(df.probability_flow(s, s.score(Q)), x)
    difference = s.law(Q, s.horizon).log_prob(at) + extra - Q.log_prob(x)
    assert difference.mean() < -10 * difference.std() / math.sqrt(len(x))
    fine = df.EDM(1e-3)
    at, extra = decoded(df.probability_flow(fine, fine.score(Q)), x)
    assert (fine.law(Q, fine.horizon).log_prob(at) + extra - Q.log_prob(x)).mean().abs() < 1e-3


def test_an_event_shape_is_only_a_shape():
    s = df.VP()
    flat = df.Gaussian(torch.linspace(-1, 1, 6, dtype=F64), 0.3)
    cube = df.Gaussian(torch.linspace(-1, 1, 6, dtype=F64).reshape(1, 2, 3), 0.3)
    x = flat.sample(4, df.Noise(0))
    a = df.log_prob(df.probability_flow(s, s.score(flat)), x, steps=16).value
    b = df.log_prob(df.probability_flow(s, s.score(cube)), x.reshape(4, 1, 2, 3), steps=16).value
    assert torch.allclose(a, b, atol=1e-8)


def test_what_has_no_likelihood_says_so():
    with pytest.raises(ValueError, match="no ratio"):
        df.log_prob(df.langevin(Q, start=Q), torch.zeros(1, 2, dtype=F64))
    s = df.EDM()
    with pytest.raises(ValueError, match="start"):
        df.log_prob(df.probability_flow(s, s.score(lambda y, sigma: y)), torch.zeros(1, 2))
    moving = df.probability_flow(s, s.score(Q))
    with pytest.raises(ValueError, match="steps=0"):
        df.log_prob(moving, torch.zeros(1, 2, dtype=F64), steps=0)
    with pytest.raises(ValueError, match="1 of 2 rows are not finite"):
        df.log_prob(moving, torch.tensor([[0.0, math.nan], [0.0, 1.0]], dtype=F64))
    cloud = df.static(None, df.KernelRatio(Q, 0.2), churn=0.0, horizon=1.0, start=Q)
    with pytest.raises(ValueError, match="particles themselves"):
        df.log_prob(cloud, torch.zeros(1, 2, dtype=F64))
