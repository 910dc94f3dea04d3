"""Power-function averages have the stated weights and width, and any other average is rebuilt from snapshots of two."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diffflow.training.ema import PowerEMA, Profile, early_share, exponent, mixture, put, snapshot_due

widths = st.floats(0.01, 0.27)


def profile(sigma_rel: float, t: int) -> np.ndarray:
    """Weights of steps 1..t that the update rule gives exactly: (s^(gamma+1) - (s-1)^(gamma+1)) / t^(gamma+1)."""
    edges = (np.arange(t + 1) / t) ** (exponent(sigma_rel) + 1)
    return np.diff(edges)


class Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))


def follow(trajectory: np.ndarray, sigma_rels) -> tuple[PowerEMA, list[tuple[Profile, float, float]]]:
    module = Scalar().double()
    ema, stored = PowerEMA(module, sigma_rels), []
    for value in trajectory:
        module.w.data.fill_(value)
        ema.update()
        if snapshot_due(ema.clock) or ema.clock == len(trajectory):
            stored += [(Profile(ema.clock, ema.gammas[s]), float(ema.averages[s]["w"]), s) for s in sigma_rels]
    return ema, stored


@settings(deadline=None)
@given(widths)
def test_gamma_solves_the_definition_of_the_width(sigma_rel):
    gamma = exponent(sigma_rel)
    assert (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)) == pytest.approx(sigma_rel**2, rel=1e-9)
    weights = profile(sigma_rel, 4000)
    s = np.arange(1, 4001) / 4000
    mean = weights @ s
    assert np.sqrt(weights @ (s - mean) ** 2) == pytest.approx(sigma_rel, rel=0.02)


def test_the_update_gives_exactly_the_profile_s_weights():
    trajectory = np.random.default_rng(0).normal(size=300).cumsum()
    ema, _ = follow(trajectory, (0.05, 0.1, 0.2))
    for s in (0.05, 0.1, 0.2):
        assert float(ema.averages[s]["w"]) == pytest.approx(profile(s, 300) @ trajectory, rel=1e-10)


@pytest.mark.parametrize("target", [0.03, 0.04, 0.08, 0.10, 0.15, 0.25])
def test_any_width_is_rebuilt_from_snapshots_of_two(target):
    """The error is at most |sum_i x_i p_i - p|_1 max|theta|, computed here from the exact discrete profiles; that
    bound itself is small.
    """
    t = 5000
    trajectory = np.sin(np.arange(t) / 300) + np.random.default_rng(1).normal(size=t).cumsum() / 70
    _, stored = follow(trajectory, (0.05, 0.10))
    parts = mixture([p for p, _, _ in stored], Profile(t, exponent(target)))
    assert parts.sum() == pytest.approx(1, abs=1e-9)
    wanted, built = profile(target, t), np.zeros(t)
    for x, (p, _, s) in zip(parts, stored, strict=True):
        built[: int(p.t)] += x * profile(s, int(p.t))
    gap = np.abs(built - wanted).sum()
    rebuilt = sum(x * value for x, (_, value, _) in zip(parts, stored, strict=True))
    assert abs(rebuilt - wanted @ trajectory) <= gap * np.abs(trajectory).max() + 1e-9
    assert gap < (0.04 if 0.04 <= target <= 0.16 else 0.1)  # beyond that it extrapolates from .05 and .10


@settings(deadline=None, max_examples=30)
@given(widths, widths, st.floats(10, 1000), st.floats(10, 1000))
def test_inner_products_of_profiles_are_their_integrals(a, b, t, u):
    p, q = Profile(t, exponent(a)), Profile(u, exponent(b))
    # substitute z = (s/low)^(gamma sum + 1) so that the quadrature sees a constant times a power it integrates exactly
    s = (np.arange(200_000) + 0.5) / 200_000 * min(t, u)

    def f(r):
        return (r.gamma + 1) / r.t * (s / r.t) ** r.gamma

    assert p.dot(q) == pytest.approx((f(p) * f(q)).mean() * min(t, u), rel=1e-4)
    assert p.dot(q) == pytest.approx(q.dot(p), rel=1e-12)


def test_a_module_gets_its_own_weights_back_to_the_bit():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ema = PowerEMA(module, (0.05, 0.1))
    for _ in range(5):
        for p in module.parameters():
            p.data += torch.randn_like(p)
        ema.update()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with ema.applied(0.1):
        assert not torch.equal(module[0].weight, before["0.weight"])
        torch.testing.assert_close(module[0].weight.data, ema.averages[0.1]["0.weight"])
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_weights_that_do_not_fit_are_refused():
    module = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="bias"):
        put(module, {"weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        put(module, {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"sigma_rel = 0.5"):
        exponent(0.5)


def test_the_share_of_early_steps_is_the_profile_s_own():
    for t in (150, 400):
        assert early_share(0.1, 100, t) == pytest.approx(profile(0.1, t)[:100].sum(), rel=1e-9)
    assert early_share(0.1, 100, 50) == 1
    assert early_share(0.1, 100, 0) == 1


def test_snapshots_come_at_geometric_steps():
    steps = np.array([t for t in range(1, 100_000) if snapshot_due(t)])
    ratios = steps[1:] / steps[:-1]
    assert ratios[steps[1:] > 100] == pytest.approx(2**0.25, rel=0.02)
