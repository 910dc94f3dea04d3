"""Moments: what the mover gives a cloud is exactly what its means and covariance lack, and nothing else."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffflow import Noise
from diffflow.objectives.base import Batch
from diffflow.objectives.movers.moments import Moments, cosines, optimal


def clouds(shape, n=600, seed=0, classes=3):
    g = torch.Generator().manual_seed(seed)
    cond = torch.arange(n) % classes

    def cloud(spread, shift):
        mix = torch.randn(math.prod(shape), math.prod(shape), generator=g, dtype=torch.float64)
        x = torch.randn(n, math.prod(shape), generator=g, dtype=torch.float64) @ mix * spread
        return (x + shift * cond[:, None]).view(n, *shape)

    return cloud(0.1, 0.0), cloud(0.2, 0.3), cond


def within(p, cond):
    """Means by class, and the covariance about them."""
    means = torch.stack([p[cond == c].mean(0) for c in cond.unique()])
    r = p - means[cond]
    return means, r.T @ r / len(p)


@pytest.mark.parametrize("shape", [(3,), (1, 5, 4), (2, 3, 3)])
@pytest.mark.parametrize("number", [0, 3])
def test_a_step_brings_means_and_covariance_to_the_datas(shape, number):
    """With only the present samples remembered, x + v has the very moments of the batch, in the cosines it moves."""
    x, real, cond = clouds(shape)
    if not number:
        cond = torch.zeros_like(cond)
    mover = Moments(shape, number, side=3, window=len(x))
    v = mover.velocity(x, cond if number else None, Batch(real, cond, torch.arange(len(x))), Noise(0))
    moved, target = (within(mover._read(y), cond) for y in (x + v, real))
    torch.testing.assert_close(moved, target, rtol=1e-9, atol=1e-10)


def test_it_is_the_shortest_way():
    """The map is the gradient of a convex function, so no other coupling of the two Gaussians is shorter (Brenier): T
    is symmetric and positive, and the mean square of v is the Frechet distance."""
    from diffflow.metrics.frechet import gaussian_frechet

    x, real, cond = clouds((4,))
    one = torch.zeros_like(cond)
    v = Moments((4,), window=len(x)).velocity(x, None, Batch(real, None, torch.arange(len(x))), Noise(0))
    (mx, cx), (mr, cr) = within(x, one), within(real, one)
    assert v.square().sum(1).mean().item() == pytest.approx(gaussian_frechet(mx[0], cx, mr[0], cr), rel=1e-9)
    t = optimal(cx, cr)
    torch.testing.assert_close(t, t.T)
    assert torch.linalg.eigvalsh(t).min() > 0


def test_finer_details_rest_and_so_does_a_cloud_that_is_right():
    x, _, cond = clouds((1, 6, 6), classes=2)
    mover = Moments((1, 6, 6), 2, side=3, window=len(x))
    v = mover.velocity(x, cond, Batch(x * 2, cond, torch.arange(len(x))), Noise(0))
    c = cosines(6, 6)
    spectrum = c @ v @ c.T
    assert spectrum[..., :3, :3].abs().max() > 0.1
    spectrum[..., :3, :3] = 0
    assert spectrum.abs().max() < 1e-12
    still = Moments((1, 6, 6), 2, side=3, window=len(x)).velocity(
        x, cond, Batch(x, cond, torch.arange(len(x))), Noise(0)
    )
    assert still.abs().max() < 1e-9


def test_slow_cosines_are_orthonormal_and_slowest_first():
    for n, m in ((1, 1), (5, 5), (28, 10)):
        c = cosines(n, m)
        torch.testing.assert_close(c @ c.T, torch.eye(m, dtype=torch.float64))
        torch.testing.assert_close(c[0], torch.full((n,), n**-0.5, dtype=torch.float64))
        assert [int((row.sign().diff() != 0).sum()) for row in c] == list(range(m))


def test_a_variance_too_small_is_seen_from_small_batches_in_time():
    """64 samples at a time of a cloud 5 % too narrow in 16 directions: after a window, the velocity says so. Of 4000
    samples (fading: worth twice as many) and 12800 of the data a variance is known to sqrt(2/8000 + 2/12800) = 2 %, its
    mean over 16 directions to 0.5 %, and its root to 0.25 %; an inverse root of a covariance from n samples is biased
    by 3/8 k/n = 0.08 %. The bound is four times the one and the other."""
    g = torch.Generator().manual_seed(0)
    mover = Moments((16,), window=4000.0)
    for _ in range(200):
        x, real = (torch.randn(64, 16, generator=g, dtype=torch.float64) for _ in range(2))
        x = x * 0.95**0.5
        v = mover.velocity(x, None, Batch(real, None, torch.arange(64)), Noise(0))
    pull = (v * x).sum() / x.square().sum()
    assert pull.item() == pytest.approx(0.95**-0.5 - 1, abs=0.011)


def test_it_rests_until_a_quarter_of_its_window_is_there():
    x, real, cond = clouds((3,), n=60)
    mover = Moments((3,), 3, window=400.0)
    batch = Batch(real, cond, torch.arange(60))
    assert mover.velocity(x, cond, batch, Noise(0)).abs().max() == 0
    assert mover.velocity(x, cond, batch, Noise(0)).abs().max() > 0


def test_nothing_moves_beyond_the_cut():
    x, real, cond = clouds((3,))
    v = Moments((3,), 3, window=len(x), data_range=0.2).velocity(
        x, cond, Batch(real, cond, torch.arange(len(x))), Noise(0)
    )
    assert ((v * (x - x.clamp(-0.2, 0.2))) <= 0).all()
    assert v.abs().max() > 0


def test_what_it_remembers_survives_a_checkpoint():
    x, real, cond = clouds((1, 4, 4))
    batches = [(x[i : i + 60], cond[i : i + 60], real[i : i + 60]) for i in range(0, 600, 60)]

    def go(mover, some):
        return [mover.velocity(a, c, Batch(r, c, torch.arange(60)), Noise(0)) for a, c, r in some]

    whole, again = Moments((1, 4, 4), 3, window=100.0), Moments((1, 4, 4), 3, window=100.0)
    go(whole, batches[:5])
    again.load_state({k: v.clone() for k, v in whole.state().items()})
    for a, b in zip(go(whole, batches[5:]), go(again, batches[5:]), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"'made/counts': \(3,\).*checkpoint \{'made/counts': \(4,\)"):
        again.load_state(Moments((1, 4, 4), 4).state())


def covariance(k, span, g):
    """Variances of 10^-span to 1 in directions of their own."""
    q = torch.linalg.qr(torch.randn(k, k, generator=g, dtype=torch.float64)).Q
    return (q * torch.logspace(0, -span, k, dtype=torch.float64)) @ q.T


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**31), st.floats(0, 6), st.floats(0, 6), st.floats(-3, 3))
def test_the_map_takes_one_covariance_to_the_other(k, seed, a, b, size):
    g = torch.Generator().manual_seed(seed)
    s, goal = covariance(k, a, g), covariance(k, b, g) * 10**size
    t = optimal(s, goal)
    torch.testing.assert_close(t, t.T, rtol=1e-9, atol=1e-9 * t.abs().max().item())
    torch.testing.assert_close(t @ s @ t, goal, rtol=0, atol=1e-8 * goal.abs().max().item())


@pytest.mark.parametrize("span", [0, 4, 6, 8, 10])
def test_a_covariance_that_is_right_stays_in_its_thin_directions_too(span):
    """float64 knows a variance of 10^-span of the widest to 10^(span - 16) of itself, times a few."""
    s = covariance(12, span, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        optimal(s, s), torch.eye(12, dtype=torch.float64), rtol=0, atol=100 * 10.0 ** (span - 16)
    )


def test_directions_that_do_not_vary_are_left_out():
    zero, one = torch.zeros(3, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    for s, goal in ((zero, one), (one, zero), (zero, zero)):
        assert torch.equal(optimal(s, goal), zero)
    part = torch.diag(torch.tensor([4.0, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(optimal(part, one), torch.diag(torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sample_that_is_no_number_is_forgotten(bad):
    """Its own velocity is none either, so the loop skips the step; what follows is as if it had never been."""
    x, real, cond = clouds((3,), n=120)
    broken = x.clone()
    broken[7, 1] = bad
    movers = [Moments((3,), 3, window=200.0) for _ in range(2)]
    rows = torch.arange(120)
    v = movers[0].velocity(broken, cond, Batch(real, cond, rows), Noise(0))
    assert not v[7].isfinite().all()
    others = rows != 7
    assert v[others].isfinite().all()
    for sums, full in ((movers[1].made, x), (movers[1].real, real)):
        keep = others if full is x else rows >= 0
        sums.add(full[keep], cond[keep])
    after = [m.velocity(x, cond, Batch(real, cond, rows), Noise(0)) for m in movers]
    torch.testing.assert_close(*after)


@pytest.mark.parametrize(
    "wrong", [{"side": 0}, {"window": 0.0}, {"window": math.inf}, {"data_range": 0.0}, {"window": -1.0}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"shape \(3, 8\): samples are"):
        Moments((3, 8))
    with pytest.raises(ValueError, match="side is at least 1"):
        Moments((1, 8, 8), **wrong)
