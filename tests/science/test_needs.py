"""What is not weighed is not evaluated; what cannot be is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffflow as df
from diffflow.equation.sde import NEGLIGIBLE

F64 = torch.float64
Q = df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=F64), 0.3)
SCHEDULES = [df.EDM(), df.VE(), df.VP(), df.SubVP(), df.Cosine(), df.RectifiedFlow()]


class Forbidden(df.Ratio):
    def value_and_grad(self, x, t):
        raise AssertionError("p was evaluated although its weight is zero")


class ForbiddenScore(df.Field):
    def __call__(self, x, t):
        raise AssertionError("the score was evaluated although its weight is zero")


@given(z=st.floats(0, 50), i=st.integers(0, 5), u=st.floats(0.001, 0.999))
def test_p_is_never_evaluated_at_g2_equal_2_beta(z, i, u):
    s = SCHEDULES[i]
    sde = df.at(s, s.score(Q), Forbidden(), churn=z)
    t = u * s.horizon
    assert sde.needs(t) == (True, False)
    assert torch.isfinite(sde.drift(torch.zeros(2, 2, dtype=F64), t)).all()


@given(beta=st.floats(1e-6, 1e6))
def test_langevin_and_the_diffode_each_need_one_field(beta):
    x = torch.zeros(2, 2, dtype=F64)
    df.static(Q, Forbidden(), churn=1.0, beta=beta, horizon=1.0, start=Q).drift(x, 0.5)
    gan = df.static(ForbiddenScore(), df.LawRatio(lambda t: Q, lambda t: Q), churn=0.0, beta=beta, horizon=1.0, start=Q)
    assert gan.needs(0.5) == (False, True)
    assert gan.drift(x, 0.5).abs().max() == 0  # r = p: nothing to do


def test_sampling_without_ratio_never_asks_for_p():
    s = df.EDM()
    for churn in (0.0, 1.0):
        df.sample(df.at(s, s.score(Q), Forbidden(), churn=churn), 5, 6)


def test_negative_noise_is_an_error_not_a_clamp():
    sde = df.DiffFlow(score=df.LawScore(Q), beta=1.0, g2=0.5, lam2=0.6)
    with pytest.raises(ValueError, match=r"g2 - lam2 = -0\.1.*raise g2"):
        sde.noise(0.3)
    with pytest.raises(ValueError, match="g2 - lam2"):
        df.sample(sde, torch.zeros(3, 2, dtype=F64), 5)
    assert df.DiffFlow(g2=0.5, lam2=-0.6).noise(0.0).item() == pytest.approx(1.1**0.5)


def test_missing_fields_are_named():
    s = df.EDM()
    with pytest.raises(ValueError, match=r"gan=0\.5.*needs a ratio"):
        df.at(s, s.score(Q), gan=0.5)
    with pytest.raises(ValueError, match="no ratio"):
        df.probability_flow(s, s.score(Q)).gauge(lambda t: 3 * s.lam2(t)).drift(torch.zeros(1, 2, dtype=F64), 1.0)
    with pytest.raises(ValueError, match="no ratio"):
        df.langevin(Q, start=Q).velocity(torch.zeros(1, 2, dtype=F64), 0.0)
    with pytest.raises(ValueError, match="churn=-1"):
        df.at(s, s.score(Q), churn=-1.0)


@given(k=st.floats(0, 3), z=st.floats(0, 3), u=st.floats(0.05, 0.95), i=st.integers(0, 5))
def test_drift_is_the_papers_equation(k, z, u, i):
    """The mixed form equals eq. (1), f + beta grad log(r/p) + (g2/2) grad log p, and velocity = drift - (g2 - lam2)/2
    grad log p, for unequal r and p."""
    s = SCHEDULES[i]
    t = u * s.horizon
    p = df.GaussianMixture(Q.means * 0.7 + 0.2, 0.5)
    sde = df.at(s, s.score(Q), df.LawRatio(lambda t: s.law(Q, t), lambda t: s.law(p, t)), gan=k, churn=z)
    x = s.law(Q, t).sample(5, df.Noise(0))
    lr, lp = s.law(Q, t).score(x), s.law(p, t).score(x)
    g2, beta = (1 + z) * s.lam2(t), 0.5 * (1 + z + k) * s.lam2(t)
    paper = s.rate(t) * x + beta * (lr - lp) + g2 / 2 * lp
    assert torch.allclose(sde.drift(x, t), paper, rtol=1e-9, atol=1e-9 * paper.abs().max().item())
    v = paper - (g2 - s.lam2(t)) / 2 * lp
    assert torch.allclose(sde.velocity(x, t), v, rtol=1e-9, atol=1e-9 * paper.abs().max().item())
    if g2 - s.lam2(t) <= NEGLIGIBLE * (g2 + s.lam2(t)):  # that is rounding: exactly no noise
        assert sde.noise(t) == 0
    else:
        # (1 + z) lam2 - lam2 is rounded where lam2 is: a tiny z is known to some units of its last place only
        rounding = 4 * torch.finfo(torch.float64).eps * s.lam2(t).item()
        assert torch.allclose(sde.noise(t) ** 2, z * s.lam2(t), rtol=1e-9, atol=1e-12 + rounding)


def test_ratio_is_the_score_difference_and_the_gradient_of_the_logit():
    p = df.GaussianMixture(Q.means * 0.7 + 0.2, 0.5)
    ratio = df.LawRatio(lambda t: Q, lambda t: p)
    x = Q.sample(20, df.Noise(0)).requires_grad_(True)
    logit, grad = ratio.value_and_grad(x, 0.0)
    assert torch.allclose(torch.autograd.grad(logit.sum(), x)[0], grad)
    assert torch.allclose(grad, Q.score(x) - p.score(x))


def test_speed_of_the_logit():
    """beta = sig(-d), the non-saturating GAN's: drift = sig(-d) grad d."""
    p = df.GaussianMixture(Q.means * 0.7 + 0.2, 0.5)
    ratio = df.LawRatio(lambda t: Q, lambda t: p)
    sde = df.DiffFlow(ratio=ratio, beta=df.Speed(lambda d: torch.sigmoid(-d)))
    x = Q.sample(20, df.Noise(0))
    logit, grad = ratio.value_and_grad(x, 0.0)
    assert torch.allclose(sde.drift(x, 0.0), torch.sigmoid(-logit)[:, None] * grad)
    assert sde.needs(0.0) == (False, True)


def test_nfe_counts_what_is_evaluated():
    s = df.EDM()
    assert df.sample(df.probability_flow(s, s.score(Q)), 4, 12).nfe == 12
    assert df.sample(df.probability_flow(s, s.score(Q)), 4, 12, solver=df.Heun()).nfe == 23
    ratio = df.LawRatio(lambda t: s.law(Q, t), lambda t: s.law(Q, t))  # an input gradient counts 2
    assert df.sample(df.at(s, s.score(Q), ratio, gan=1.0), 4, 12).nfe == 36
    assert (
        df.sample(df.static(None, df.LawRatio(lambda t: Q, lambda t: Q), churn=0.0, horizon=1.0, start=Q), 4, 7).nfe
        == 14
    )


def test_cite_names_the_equation_and_the_row():
    s = df.EDM()
    assert "2307.02159" in df.langevin(Q).cite()
    assert "Elucidating" in df.edm_churn(s, s.score(Q), rate=0.1).cite()
