"""Variational dequantisation: a density on every cell, uniform until it is trained, and a tighter bound afterwards that
still is one."""

import math

import pytest
import torch

import diffflow as df
from diffflow.data import Transform
from diffflow.equation.noise import Noise
from diffflow.likelihood.dequantiser import Dequantiser, fit_dequantiser

LEVELS = tuple(float(v) for v in range(-6, 7))
STD = 0.8  # narrower than a cell, so that the density is far from flat on it


def restless(shape, seed=0):
    """A dequantiser with random weights."""
    torch.manual_seed(seed)
    q = Dequantiser(shape)
    for p in q.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return q


def test_it_starts_uniform():
    q, r = Dequantiser((1, 4, 4)), torch.rand(5, 1, 4, 4)
    u, log_q = q(torch.randn(5, 1, 4, 4), r)
    torch.testing.assert_close(u, r.clamp(1e-6, 1 - 1e-6), rtol=1e-4, atol=1e-6)
    assert log_q.abs().max() < 1e-4


@pytest.mark.parametrize("z", [-1.0, 0.3, 2.0])
def test_it_is_a_density_on_the_cell(z):
    """du/dr = 1/q(u), by differences, and so q integrates to one."""
    q, r = restless((1,)), torch.linspace(0.001, 0.999, 20_001, dtype=torch.float64)[:, None]
    q = q.double()
    u, log_q = q(torch.full_like(r, z), r)
    slope = (u[2:] - u[:-2]) / (r[2:] - r[:-2])
    torch.testing.assert_close(slope[:, 0].log(), -log_q[1:-1], atol=1e-3, rtol=1e-3)
    assert ((u > 0) & (u < 1)).all()
    assert (u.diff(dim=0) >= 0).all()


def test_training_tightens_the_bound_and_keeps_it_one():
    """A Gaussian on integers: E log p + log w - log q is at most log P in every row's mean, and its gap shrinks by a
    factor of five with the score alone."""
    transform = Transform("vector", (2,), (0.0, 0.0), (1.0, 1.0), (LEVELS, LEVELS))
    law = df.Gaussian(torch.zeros(2), STD)
    x = law.sample(4000, Noise(1)).round()
    phi = torch.special.ndtr
    exact = (phi((x + 0.5).double() / STD) - phi((x - 0.5).double() / STD)).log().sum(1)

    def bound(q):
        r = Noise(2).uniform(len(x), (2,))
        u, log_q = q(transform.encode(x), r)
        return law.log_prob(transform.encode(x, u.detach())) + transform.log_units(x) - log_q.detach()

    torch.manual_seed(0)
    before, q = bound(Dequantiser((2,))), Dequantiser((2,))
    after = bound(fit_dequantiser(q, law.score, transform.encode, x, steps=400, batch=128, noise=Noise(3)))
    error = 5 * float((after - exact).std()) / math.sqrt(len(x))
    assert float((before - exact).mean()) < -0.05
    assert 0.2 * float((before - exact).mean()) < float((after - exact).mean()) < error


def test_coordinates_without_cells_take_no_part():
    q = restless((3,))
    half = Dequantiser((3,), torch.tensor([True, False, True]))
    half.load_state_dict(q.state_dict() | {"discrete": half.discrete})
    z, r = torch.randn(6, 3), torch.rand(6, 3)
    (u, _), (same, log_q) = q(z, r), half(z, r)
    torch.testing.assert_close(u, same)
    r[:, 1] = 0.5
    torch.testing.assert_close(half(z, r)[1], log_q)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="shape"):
        Dequantiser((2, 2))
    with pytest.raises(ValueError, match="steps = 0"):
        fit_dequantiser(Dequantiser((2,)), lambda y: y, lambda x, u: x, torch.zeros(3, 2), steps=0)
