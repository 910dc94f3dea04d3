"""Denoisers of mixed rows are exact: of independent columns as they begin, of a joint law with the right net."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffflow as df
from diffflow.data.column_parts import Part, positions
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.mixed_rows import MixedDenoiser

WORDS = Part("words", 0, 3, (0.0, 1.0, 2.0), (0.5, 0.3, 0.2))
LEVELS = Part("levels", 3, 1, (1.0, 2.0, 5.0, 6.0), (0.1, 0.2, 0.3, 0.4), (2.0, 5.0))
NUMBER = Part("number", 4, 1, knots=(0.0, 1.0), scores=(-1.0, 1.0))
ATOM = Part("number", 5, 3, (0.0,), (0.7, 0.3), knots=(0.0, 1.0), scores=(-1.0, 1.0))
PARTS = (WORDS, LEVELS, NUMBER, ATOM)
WIDTH = 8


def begun(parts=PARTS, octaves=(0, 1)):
    torch.manual_seed(0)
    return MixedDenoiser(lambda i, o: MLP(i, width=16, depth=1, embed=8, out=o), parts, 1.0, octaves=octaves).double()


def points(n, sigma, seed=0):
    """Noisy rows near what rows can be."""
    g = torch.Generator().manual_seed(seed)
    y = torch.zeros(n, WIDTH, dtype=torch.float64)
    y[torch.arange(n), torch.randint(3, (n,), generator=g)] = 1.0
    y[:, 3] = positions(LEVELS)[torch.randint(4, (n,), generator=g)]
    y[torch.arange(n), 5 + torch.randint(2, (n,), generator=g)] = 1.0
    y[:, [4, 7]] = torch.randn(n, 2, generator=g, dtype=torch.float64)
    return y + sigma * torch.randn(n, WIDTH, generator=g, dtype=torch.float64)


def posterior(prior, centres, y, sigma):
    """Bayes by hand: weights of atoms at `centres` (k, c) given y (n, c)."""
    log = prior.log() - (y[:, None] - centres).square().sum(2) / (2 * sigma**2)
    return log.softmax(1)


def by_hand(y, sigma):
    """E[Y | y] of independent columns."""
    d = torch.zeros_like(y)
    eye = torch.eye(3, dtype=torch.float64)
    d[:, :3] = posterior(torch.tensor(WORDS.prior, dtype=torch.float64), eye, y[:, :3], sigma) @ eye
    v = positions(LEVELS)[:, None]
    d[:, 3:4] = posterior(torch.tensor(LEVELS.prior, dtype=torch.float64), v, y[:, 3:4], sigma) @ v
    d[:, 4] = y[:, 4] / (1 + sigma**2)
    two = torch.eye(2, dtype=torch.float64)
    d[:, 5:7] = posterior(torch.tensor(ATOM.prior, dtype=torch.float64), two, y[:, 5:7], sigma) @ two
    d[:, 7] = y[:, 7] / (1 + sigma**2)  # a normal score, or a fresh draw of the same law
    return d


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.7, 2.0, 20.0])
def test_it_begins_as_the_exact_denoiser_of_independent_columns(sigma):
    y = points(50, sigma)
    torch.testing.assert_close(begun()(y, torch.tensor(sigma)), by_hand(y, sigma), rtol=1e-5, atol=1e-6)


class Joint(nn.Module):
    """What a perfect net says of two columns of words with a joint law: the other column's evidence."""

    classes = 0

    def __init__(self, law):
        super().__init__()
        self.law = nn.Parameter(law)
        self.y = self.sigma = None

    def forward(self, x, time, cond=None):
        law, y, sigma = self.law, self.y, self.sigma
        own = (law.sum(1), law.sum(0))
        evidence = (y[:, :2] / sigma**2, y[:, 2:] / sigma**2)
        first = torch.logsumexp((law / own[0][:, None]).log() + evidence[1][:, None, :], 2)
        second = torch.logsumexp((law / own[1]).log() + evidence[0][:, :, None], 1)
        return torch.cat([first, second], 1)


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 5.0])
def test_with_the_right_net_it_is_exact_for_a_joint_law(sigma):
    law = torch.tensor([[0.3, 0.05, 0.1], [0.1, 0.25, 0.2]], dtype=torch.float64)
    parts = (
        Part("words", 0, 2, (0.0, 1.0), tuple(law.sum(1).tolist())),
        Part("words", 2, 3, (0.0, 1.0, 2.0), tuple(law.sum(0).tolist())),
    )
    net = Joint(law)
    denoiser = MixedDenoiser(lambda i, o: net, parts, 1.0).double()
    g = torch.Generator().manual_seed(0)
    cells = torch.cat([torch.eye(2).repeat_interleave(3, 0), torch.eye(3).repeat(2, 1)], 1).double()  # (6, 5)
    y = cells[torch.randint(6, (40,), generator=g)] + sigma * torch.randn(40, 5, generator=g, dtype=torch.float64)
    net.y, net.sigma = y, sigma
    exact = posterior(law.flatten(), cells, y, sigma) @ cells
    torch.testing.assert_close(denoiser(y, torch.tensor(sigma)), exact, rtol=1e-5, atol=1e-6)


@given(st.integers(0, 1000), st.floats(0.02, 50))
@settings(max_examples=20, deadline=None)
def test_its_words_are_probabilities_whatever_the_net_says(seed, sigma):
    denoiser = begun()
    for parameter in denoiser.net.parameters():
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(seed))
    d = denoiser(points(20, sigma, seed), torch.tensor(sigma))
    for first, last in ((0, 3), (5, 7)):
        assert (d[:, first:last] >= 0).all()
        torch.testing.assert_close(d[:, first:last].sum(1), torch.ones(20, dtype=torch.float64))
    low, high = positions(LEVELS).min(), positions(LEVELS).max()
    assert ((d[:, 3] >= low - 1e-6) & (d[:, 3] <= high + 1e-6)).all()


def test_near_the_data_it_knows_them_whatever_the_net_says():
    denoiser = begun()
    for parameter in denoiser.net.parameters():
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(3))
    clean = points(30, 0.0)
    d = denoiser(clean + 0.01 * points(30, 0.0, 1), torch.tensor(0.01))
    torch.testing.assert_close(d[:, :4], clean[:, :4], atol=1e-6, rtol=0)


def test_every_output_of_the_net_is_learned():
    """Each weight of the last layer has a gradient of the denoising error: no output is left out."""
    denoiser = begun()
    y = points(200, 0.5)
    (denoiser(y, torch.tensor(0.5)) - points(200, 0.0)).square().mean().backward()
    assert (denoiser.net.leave.bias.grad.abs() > 0).all()


def test_the_probability_of_words_is_that_of_the_law():
    """The density of independent columns by the flow, with the entropy of the noise, is the table of probabilities."""
    from diffflow.equation.schedule import SCHEDULES

    part = Part("words", 0, 3, (0.0, 1.0, 2.0), (0.5, 0.3, 0.2))
    denoiser, low = begun((part,), ()), 0.05
    schedule = SCHEDULES["edm"](sigma_min=low, sigma_max=20.0)
    sde = df.spectrum.at(schedule, schedule.score(denoiser), churn=0.0, start=schedule.prior((3,), 1 / 3, 0.45))
    n = 64
    y = torch.eye(3, dtype=torch.float64).repeat_interleave(n, 0)
    y = y + low * torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = df.log_prob(sde, y).value + 3 * 0.5 * math.log(2 * math.pi * math.e * low**2)
    found = value.reshape(3, n)
    error = found.std(1) / n**0.5
    assert ((found.mean(1) - torch.tensor(part.prior).log()).abs() < 4 * error + 5e-3).all()
