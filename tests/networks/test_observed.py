"""Denoisers that are told what is known: the exact one draws the exact conditional at an ordinary solve's cost, the
loss is stationary there, and without masks nothing changes."""

import dataclasses
import math

import pytest
import torch
from torch import nn

import diffflow as df
from diffflow.models.settings.serialise import ConfigError, to_dict
from diffflow.networks.observed import Observed, observed
from diffflow.objectives.masks import random_masks
from diffflow.objectives.score_matching import EDMWeighting, ScoreMatching
from diffflow.sampling.observations.exact import Conditional
from diffflow.sampling.observations.observation import Observation

F64 = torch.float64
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.6, 0.6]], dtype=F64)
COV = ROOT @ ROOT.T
KNOWN = torch.tensor([True, False, True])


class ExactNet(nn.Module):
    """The denoiser's net of form x0 for N(0, COV): E[Y | y], the known coordinates of y without noise."""

    takes_known = True

    def __init__(self, slip: float = 0.0):
        super().__init__()
        self.slip = slip

    def forward(self, x, time, cond=None, known=None):
        """E[Y | y] from what the net is shown, c(sigma) y and c(0) y."""
        sigma = torch.exp(4 * time)[:, None].to(x)
        known = torch.zeros_like(x, dtype=torch.bool) if known is None else known
        y = torch.where(known, x, x * (1 + sigma**2).sqrt())
        noise = torch.where(known, 1e-10, sigma**2)
        mean = torch.linalg.solve(COV.to(x) + torch.diag_embed(noise), y[..., None])[..., 0] @ COV.to(x)
        return (1 + self.slip) * mean


def exact(slip: float = 0.0) -> df.Denoiser:
    return df.Denoiser(ExactNet(slip), 1.0, form=df.FORMS["x0"])


def test_the_exact_observed_denoiser_draws_the_exact_conditional_in_one_ordinary_solve():
    law, n, m = df.Gaussian(torch.zeros(3, dtype=F64), covariance=COV), 40, 64
    x = law.sample(n, 1)
    seen = Observation(x, KNOWN).repeated(m)
    s = df.EDM(0.01, 40.0)
    sde = observed(df.at(s, s.score(exact()), churn=1.0, start=s.prior((3,)).to(F64)), seen)
    solved = df.sample(sde, n * m, 40, noise=2)
    c = Conditional.of(law, x, KNOWN)
    excess = c.excess_score(seen.fill(solved.last).reshape(n, m, 3)[..., 1:2])[:, 0]
    assert solved.nfe == 40
    assert float(excess.mean()) < 0.02 * float(c.least_score().mean()) + 3 * float(excess.std()) / math.sqrt(n)


@pytest.mark.parametrize("form", df.FORMS)
def test_what_is_known_is_shown_clean_and_returned_and_the_rest_of_y_there_is_not_read(form):
    seen = Observation(torch.tensor([0.7, 0.0, -1.2], dtype=F64), KNOWN)
    y = df.Noise(0).normal(4, (3,), dtype=F64)
    shown = {}

    def net(x, time, cond=None, known=None):
        shown["x"], shown["known"] = x, known
        return torch.ones_like(x)

    net.takes_known = True
    D = df.Denoiser(net, 0.5, form=df.FORMS[form])
    c = D.form.at(torch.tensor([3.0, 1e-30], dtype=F64), 0.5).c
    out = Observed(D, seen)(y, torch.tensor(3.0, dtype=F64))
    assert torch.equal(out[:, KNOWN], seen.values[KNOWN].expand(4, 2))
    torch.testing.assert_close(shown["x"][:, KNOWN], (c[1] * seen.values[KNOWN]).expand(4, 2))
    torch.testing.assert_close(shown["x"][:, 1], c[0] * y[:, 1])
    assert shown["known"].tolist() == [KNOWN.tolist()] * 4
    noised = torch.where(KNOWN, y + 5, y)
    assert torch.equal(Observed(D, seen)(noised, torch.tensor(3.0, dtype=F64)), out)


def test_the_exact_denoiser_is_where_the_loss_with_masks_is_stationary():
    """The derivative by a factor (1 + c) of D is zero in the mean at the exact net, to 4.5 standard errors, and far
    from it at one that is 10 % off."""
    x = df.Gaussian(torch.zeros(3, dtype=F64), covariance=COV).sample(20_000, 3)
    batch = df.Batch(x, None, torch.arange(len(x)))

    def losses(slip):
        (turn,) = ScoreMatching(exact(slip), EDMWeighting(), masks=0.7).turns(batch, df.Noise(4))
        return turn.loss

    for slip, stationary in ((0.0, True), (0.1, False)):
        slope = (losses(slip + 1e-3) - losses(slip - 1e-3)) / 2e-3
        off = abs(float(slope.mean())) / float(slope.std()) * math.sqrt(len(slope))
        assert (off < 4.5) == stationary


def test_masks_know_any_number_of_whole_columns_alike_and_never_all():
    n, groups = 30_000, torch.tensor([0, 0, 1, 2, 2, 2])
    masks = random_masks(df.Noise(0), n, (6,), 0.75, groups)
    assert torch.equal(masks[:, 0], masks[:, 1])
    assert torch.equal(masks[:, 3], masks[:, 5])
    columns = masks[:, [0, 2, 3]]
    share = torch.bincount(columns.sum(1), minlength=4) / n
    for value, p in zip(share.tolist(), (0.25 + 0.25, 0.25, 0.25, 0.0), strict=True):
        assert abs(value - p) <= 4.5 * math.sqrt(p * (1 - p) / n)
    each = columns.double().mean(0)
    assert ((each - 0.25).abs() < 4.5 * math.sqrt(0.25 * 0.75 / n)).all()  # .75 (0 + 1/3 + 2/3) / 3
    assert torch.equal(random_masks(df.Noise(0, first=7), 5, (6,), 0.75, groups), masks[7:12])
    assert not random_masks(df.Noise(0), 99, (6,), 0.0).any()


def test_a_perceptron_that_is_told_of_nothing_known_says_the_same_as_without_a_mask():
    torch.manual_seed(0)
    plain = df.MLP(3, width=16, depth=1)
    torch.manual_seed(0)
    masked = df.MLP(3, width=16, depth=1, known=3)
    assert [k for k in masked.state_dict() if k not in plain.state_dict()] == ["known.weight"]
    assert all(torch.equal(v, masked.state_dict()[k]) for k, v in plain.state_dict().items())
    nn.init.ones_(masked.leave.weight)
    x, time = df.Noise(1).normal(5, (3,)), torch.zeros(5)
    nothing = torch.zeros(5, 3, dtype=torch.bool)
    assert torch.equal(masked(x, time, known=nothing), masked(x, time))
    assert not torch.equal(masked(x, time, known=~nothing), masked(x, time))


def test_settings_without_masks_are_those_of_before_and_masks_are_for_vectors():
    meta = {"shape": [3], "classes": None, "std": 1.0, "principal_std": 1.0}
    config = df.ModelConfig(df.MLPConfig(width=16, depth=1))
    assert "masks" not in to_dict(config)
    assert "masks" not in to_dict(config)["net"]
    assert not config.build(meta).takes_known
    assert dataclasses.replace(config, masks=0.5).build(meta).takes_known
    with pytest.raises(ConfigError, match=r"model\.masks = 0\.5 is for vectors"):
        df.ModelConfig(df.UNetConfig(widths=(8,)), masks=0.5).build(meta | {"shape": [1, 8, 8]})
    with pytest.raises(ConfigError, match="must be in"):
        df.ModelConfig(masks=1.5)


def test_a_denoiser_that_cannot_be_told_refuses_by_name():
    D = df.Denoiser(df.MLP(3, width=16, depth=1), 1.0)
    seen = Observation(torch.zeros(3), KNOWN)
    with pytest.raises(ValueError, match="was trained without masks"):
        Observed(D, seen)
    with pytest.raises(ValueError, match="cannot be told them"):
        D(torch.zeros(2, 3), torch.tensor(1.0), known=KNOWN.expand(2, 3))
    with pytest.raises(ValueError, match="cannot be told what is known"):
        ScoreMatching(D, masks=0.5)
    s = df.EDM()
    with pytest.raises(ValueError, match="use method='langevin'"):
        observed(df.at(s, s.score(df.Gaussian(torch.zeros(3)))), seen)
