"""Maximum likelihood: the weighted denoising error is the negative likelihood bound, for any law of noise levels, of
the score alone and of score and discriminator together."""

import math
from dataclasses import replace

import pytest
import torch

import diffflow as df
from diffflow.equation.noise import Noise
from diffflow.networks.backbones.discriminator import MLPDiscriminator
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.denoiser import Denoiser
from diffflow.objectives.base import Batch
from diffflow.objectives.likelihood_bound import JointBound
from diffflow.objectives.score_matching import EDMWeighting, LikelihoodWeighting, ScoreMatching

F64 = torch.float64
LOW, HIGH, D = 0.1, 20.0, 2
LAW = df.GaussianMixture(torch.tensor([[-0.6, 0.3], [0.7, -0.2]], dtype=F64), [0.4, 0.6])


class Wrong(torch.nn.Module):
    """A denoiser with an error that depends on place and noise, of no trained net."""

    cost, classes, principal_std, sigma_data = 1, 0, 1.0, 1.0

    def forward(self, y, sigma, cond=None):
        level = torch.as_tensor(sigma).to(y).reshape(-1, 1)
        return LAW.denoise(y, sigma) + 0.5 * level / (1 + level) * torch.sin(y)

    def given(self, cond):
        return self


class Logit(torch.nn.Module):
    classes, timed, dials = 0, False, 0

    def forward(self, x, time, cond, dials):
        return 0.8 * (x[:, 0] + 0.5 * x[:, 1]) / (1 + x.square().sum(1))


CRITIC = df.Discriminator(Logit())


def integral(weighting: LikelihoodWeighting, f) -> float:
    """E over the law of sigma of weight f, by midpoints in its quantiles."""
    u = (torch.arange(200_000, dtype=F64) + 0.5) / 200_000
    sigma = weighting.sigma(u)
    return (weighting.weight(sigma, 1.0) * f(sigma)).mean().item()


@pytest.mark.parametrize("middle", [0.05, 0.5, 5.0])
def test_its_law_and_weight_make_the_integral_over_log_sigma(middle):
    """E[w e] = int e/sigma^2 dlog sigma, for e = sigma^2/(1 + sigma^2): log of sqrt((1 + 1/low^2)/(1 + 1/high^2))."""
    got = integral(LikelihoodWeighting(LOW, HIGH, middle), lambda s: s**2 / (1 + s**2))
    assert got == pytest.approx(0.5 * math.log((1 + LOW**-2) / (1 + HIGH**-2)), rel=1e-6)
    ends = LikelihoodWeighting(LOW, HIGH, middle).sigma(torch.tensor([0.0, 1.0], dtype=F64))
    torch.testing.assert_close(ends, torch.tensor([LOW, HIGH], dtype=F64))


def test_the_variance_is_least_where_the_law_follows_the_error():
    """For e = sigma^2 m^2/(sigma^2 + m^2), that of a Gaussian of size m, the weighted error is constant."""
    weighting, u = LikelihoodWeighting(LOW, HIGH, 0.7), torch.rand(1000, dtype=F64)
    sigma = weighting.sigma(u)
    value = weighting.weight(sigma, 1.0) * sigma**2 * 0.7**2 / (sigma**2 + 0.7**2)
    assert value.std() < 1e-9 * value.mean()


def objective(s, gan: float, churn: float) -> JointBound:
    return JointBound(Wrong(), CRITIC, s, LikelihoodWeighting(LOW, HIGH), gan, churn, label_dropout=0.0)


@pytest.mark.parametrize("churn", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("s", [df.EDM(LOW, HIGH), df.VP(sigma_min=LOW)], ids=["EDM", "VP"])
def test_the_joint_loss_is_the_bound_up_to_what_knows_no_player(s, churn):
    """Two settings of the players differ in loss by as many nats as in the bound (derivations.md eq. 12), on every
    schedule and at every noise, within five standard errors."""
    n, gan = 200_000, 0.7
    high = s.sigma(0.0).item()
    x = LAW.sample(n, Noise(3))
    both = objective(s, gan, churn)
    both = replace(both, weighting=LikelihoodWeighting(LOW, high))
    loss = D * both.loss(Batch(x, None, torch.arange(n)), Noise(4))[0].detach()
    alone = ScoreMatching(Denoised(LAW), LikelihoodWeighting(LOW, high))
    (turn,) = alone.turns(Batch(x, None, torch.arange(n)), Noise(4))
    factor = (1 + churn) ** 2 / (4 * churn)
    exact = D * factor * turn.loss.detach()

    start, few = s.prior((D,), 0.0, 0.8).to(F64), x[:40_000]
    rule = df.Stratified(16, Noise(5))
    wrong = df.at(s, s.score(Wrong()), CRITIC.ratio(), gan=gan, churn=churn, start=start)
    right = df.at(s, s.score(LAW), churn=churn, start=start)
    bounds = df.elbo(right, few, rule=rule).value - df.elbo(wrong, few, rule=rule).value
    difference = loss - exact
    error = math.hypot(*(float(v.std()) / math.sqrt(len(v)) for v in (difference, bounds)))
    assert abs(float(difference.mean() - bounds.mean())) < 5 * error
    assert float(difference.mean()) > 6 * error  # it is a difference that the test can see


class Denoised(torch.nn.Module):
    """A law as a denoiser."""

    classes, sigma_data = 0, 1.0

    def __init__(self, law):
        super().__init__()
        self.law = law

    def forward(self, y, sigma, cond=None):
        return self.law.denoise(y, sigma)


def test_both_players_learn_and_only_in_their_turn():
    torch.manual_seed(0)
    denoiser = Denoiser(MLP(D, width=16, depth=1), 1.0)
    discriminator = df.Discriminator(MLPDiscriminator(D, width=16, depth=1, timed=False))
    both = JointBound(denoiser, discriminator, df.EDM(0.01, 10.0), LikelihoodWeighting(0.01, 10.0), 1.0, 1.0)
    batch = Batch(torch.randn(32, D), None, torch.arange(32))
    for turn in both.turns(batch, Noise(0)):
        player = both.players[turn.player]
        grads = torch.autograd.grad(turn.loss.mean(), list(player.parameters()), allow_unused=True)
        assert any(g is not None and bool((g != 0).any()) for g in grads), turn.player
        assert turn.loss.shape == (32,)
        assert turn.loss.isfinite().all()


def test_impossible_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="churn=0"):
        objective(df.EDM(LOW, HIGH), 1.0, 0.0)
    with pytest.raises(ValueError, match="gan=0"):
        objective(df.EDM(LOW, HIGH), 0.0, 1.0)
    with pytest.raises(ValueError, match="sigma_max"):
        LikelihoodWeighting(1.0, 0.5)
    with pytest.raises(ValueError, match="middle"):
        LikelihoodWeighting(middle=0.0)
    assert EDMWeighting() != LikelihoodWeighting()
