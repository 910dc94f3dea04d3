"""Muon: orthogonal steps, equal for all directions of a matrix and blind to the size of its gradient."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diffflow.training.muon import Muon, is_matrix, orthogonalised


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 5))
def test_singular_values_become_about_one_and_singular_vectors_stay(rows, columns, seed):
    x = drawn(rows, columns, seed=seed).double()
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    y = orthogonalised(x)
    inner = u.T @ y @ v.T
    assert torch.allclose(inner, torch.diag(inner.diagonal()), atol=1e-6)  # the same vectors
    clear = s > 1e-2 * s.norm()  # the iteration takes smaller ones to less than .6
    assert (inner.diagonal()[clear] > 0.6).all()
    assert (inner.diagonal() < 1.3).all()


def test_it_is_blind_to_scale_and_turns_with_the_matrix():
    x, q = drawn(6, 9).double(), torch.linalg.qr(drawn(6, 6, seed=1).double())[0]
    assert torch.allclose(orthogonalised(1000 * x), orthogonalised(x), atol=1e-9)
    assert torch.allclose(orthogonalised(q @ x), q @ orthogonalised(x), atol=1e-9)
    assert torch.allclose(orthogonalised(x.T), orthogonalised(x).T, atol=1e-9)
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_the_quick_product_is_the_plain_iteration():
    """y <- a y + (b G + c G^2) y, five times, with G = y y'."""
    x = drawn(5, 12).double()
    y = x / x.norm()
    for _ in range(5):
        g = y @ y.T
        y = 3.4445 * y + (-4.7750 * g + 2.0315 * g @ g) @ y
    assert torch.allclose(orthogonalised(x), y, atol=1e-9)


def test_a_first_step_is_the_rate_times_a_fifth_of_the_root_of_the_longer_side():
    """Of a weight of one's own: of orthogonal matrices exactly what the head of the module says."""
    weight = nn.Parameter(torch.zeros(4, 16))
    gradient = drawn(4, 16)
    weight.grad = gradient.clone()
    optimizer = Muon([("body.weight", weight)], lr=0.1, betas=(0.9, 0.99))
    optimizer.step()
    wanted = -0.1 * 0.2 * 16**0.5 * orthogonalised(gradient + 0.9 * gradient)
    assert torch.allclose(weight, wanted, atol=1e-6)


def test_what_is_no_matrix_moves_as_adamw_does():
    ours, theirs = (nn.Parameter(drawn(7)) for _ in range(2))
    adam = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    mixed = Muon([("bias", ours)], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for k in range(5):
        for p, optimizer in ((ours, mixed), (theirs, adam)):
            p.grad = drawn(7, seed=k)
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_which_weights_are_matrices():
    two, one = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(3))
    named = {"down.0.conv.weight": two, "middle.leave.weight": two, "refinement.enter.weight": two}
    assert all(is_matrix(name, p) for name, p in named.items())
    outside = {"enter.weight": two, "leave.weight": two, "embedding.time.0.weight": two, "middle.told.weight": two}
    assert not any(is_matrix(name, p) for name, p in outside.items())
    assert not is_matrix("down.0.conv.bias", one)
    assert not is_matrix("down.0.conv.weight", nn.Parameter(torch.zeros(1, 4)))


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 3)])
def test_a_state_that_is_read_back_goes_on_alike(shape):
    first, second = (nn.Parameter(drawn(*shape)) for _ in range(2))
    a, b = (Muon([("body.weight", p)], lr=0.02) for p in (first, second))
    for k in range(4):
        first.grad = drawn(*shape, seed=k)
        a.step()
        if k == 1:
            second.data.copy_(first.data)
            b.load_state_dict(copy.deepcopy(a.state_dict()))
        if k > 1:
            second.grad = drawn(*shape, seed=k)
            b.step()
    assert torch.equal(first, second)
