"""Score matching: each weighting's law of sigma and weight are the ones of its paper, and the exact denoiser is where
the loss is stationary.
"""

import math

import pytest
import torch

from diffflow.equation.laws import GaussianMixture
from diffflow.equation.noise import Noise
from diffflow.equation.schedule import VP
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.denoiser import FORMS, Denoiser
from diffflow.objectives.base import Batch
from diffflow.objectives.score_matching import (
    EDMWeighting,
    EpsWeighting,
    FlowWeighting,
    LikelihoodWeighting,
    ScoreMatching,
    VWeighting,
)

WEIGHTINGS = [
    EDMWeighting(),
    EpsWeighting(),
    VWeighting(),
    FlowWeighting(),
    FlowWeighting(std=1.0),
    LikelihoodWeighting(),
    LikelihoodWeighting(0.01, 20.0, middle=3.0),
]
U = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000


@pytest.mark.parametrize(
    ("form", "weighting"),
    [("edm", EDMWeighting()), ("eps", EpsWeighting()), ("v", VWeighting()), ("flow", FlowWeighting())],
)
def test_the_weight_makes_it_the_mean_square_error_of_that_prediction(form, weighting):
    sigma, d = torch.logspace(-2.5, 2.5, 50, dtype=torch.float64), 0.7
    b = FORMS[form].at(sigma, d).b
    torch.testing.assert_close(
        weighting.weight(sigma, d) * b**2, torch.ones(50, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_the_laws_of_sigma_are_those_of_the_papers():
    log = EDMWeighting(-1.0, 1.5).sigma(U).log()
    assert float(log.mean()) == pytest.approx(-1.0, abs=1e-6)
    assert float(log.std()) == pytest.approx(1.5, rel=2e-3)  # the midpoint rule misses the tails beyond 1/40000
    s = VP(0.1, 20.0)
    noising = 1e-5 + (1 - 1e-5) * U
    vp = ((0.1 * noising + 19.9 * noising**2 / 2).exp() - 1).sqrt()
    torch.testing.assert_close(EpsWeighting().sigma(U), vp, rtol=1e-9, atol=0)
    assert float(EpsWeighting().sigma(U[-1:])) == pytest.approx(float(s.sigma(0.0)), rel=1e-3)
    alpha = torch.cos(torch.atan(VWeighting().sigma(U)))  # cosine path: the angle is uniform
    assert float(torch.acos(alpha).diff().std()) < 1e-9
    sigma = FlowWeighting().sigma(U)
    assert float((sigma / (1 + sigma)).diff().std()) < 1e-9
    logit = FlowWeighting(0.5, 0.8).sigma(U).log()  # logit of u = sigma/(1+sigma)
    assert (float(logit.mean()), float(logit.std())) == (pytest.approx(0.5, abs=1e-6), pytest.approx(0.8, rel=2e-3))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_float32_noise_levels_rise_with_u_and_stay_finite(weighting):
    sigma = weighting.sigma(torch.tensor([2.0**-24, 0.1, 0.5, 0.9, 1 - 2.0**-24]))
    assert sigma.isfinite().all()
    assert (sigma > 0).all()
    assert (sigma.diff() > 0).all()
    assert weighting.weight(sigma, 0.5).isfinite().all()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_exact_denoiser_is_a_stationary_point_of_the_loss(weighting):
    """d/dc of the loss at (1 + c) D(y) + c' y is zero in the mean, to 4.5 standard errors; with D off by 10 % it is
    far from zero.
    """
    law = GaussianMixture([[-1.0, 0.5], [1.0, 0.0]], stds=[0.3, 0.5])
    n = 40_000
    x = law.sample(n, noise=Noise(5)).float()
    sigma = weighting.sigma(Noise(6).uniform(n))
    y = x + sigma[:, None] * Noise(7).normal(n, (2,))
    D = law.denoise(y, sigma).float()
    w = weighting.weight(sigma, 1.0).clamp(max=100.0)[
        :, None
    ]  # any weight of sigma alone will do; this one bounds the variance

    def z(denoised, direction):
        slope = (w * (denoised - x) * direction).sum(1).double()
        return float(slope.mean() / slope.std() * math.sqrt(n))

    for direction in (D, y, torch.tanh(D) * (sigma < 1)[:, None]):
        assert abs(z(D, direction)) < 4.5
    assert abs(z(1.1 * D, D)) > 10


def batch(n: int, shape=(3,), classes: int | None = 4) -> Batch:
    cond = None if classes is None else torch.arange(n) % classes
    return Batch(Noise(1).normal(n, shape), cond, torch.arange(n))


def net(classes: int) -> Denoiser:
    torch.manual_seed(0)
    out = Denoiser(MLP(3, classes, width=16, depth=1), 0.8)
    torch.nn.init.normal_(out.net.leave.weight)
    return out


def test_a_sample_has_the_same_loss_in_any_batch():
    objective, whole, noise = ScoreMatching(net(4), label_dropout=0.5), batch(64), Noise(9, first=100)
    (turn,) = objective.turns(whole, noise)
    assert turn.player == "denoiser"
    assert turn.loss.shape == (64,)
    for low, high in ((0, 1), (1, 8), (8, 64)):
        part = Batch(whole.x[low:high], whole.cond[low:high], whole.rows[low:high])
        (piece,) = objective.turns(part, noise.shift(low))
        torch.testing.assert_close(piece.loss, turn.loss[low:high], rtol=1e-4, atol=1e-5)
    (other,) = objective.turns(whole, noise.shift(64))
    assert not torch.allclose(other.loss, turn.loss)


def test_labels_are_hidden_at_the_stated_rate():
    seen = []

    class Spy(torch.nn.Module):
        classes = 4

        def forward(self, x, time, cond):
            seen.append(cond)
            return x

    n, share = 4000, 0.2
    (_,) = ScoreMatching(Denoiser(Spy(), 1.0), label_dropout=share).turns(batch(n), Noise(3))
    hidden = seen[0] == -1
    assert abs(float(hidden.float().mean()) - share) < 4.5 * math.sqrt(share * (1 - share) / n)
    assert torch.equal(seen[0][~hidden], batch(n).cond[~hidden])
    (_,) = ScoreMatching(Denoiser(Spy(), 1.0), label_dropout=0.0).turns(batch(n), Noise(3))
    assert torch.equal(seen[1], batch(n).cond)
    (_,) = ScoreMatching(net(0)).turns(batch(8, classes=None), Noise(3))  # no classes, nothing to hide


def test_impossible_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="std = 0"):
        EDMWeighting(std=0.0)
    with pytest.raises(ValueError, match="label_dropout = 2"):
        ScoreMatching(net(0), label_dropout=2.0)
    with pytest.raises(ValueError, match="another objective"):
        ScoreMatching(net(0)).load_state({"pool": torch.zeros(1)})
