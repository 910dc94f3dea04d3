"""Two-sample metrics against what theory says of known laws: shifted, scaled, equal, collapsed and disjoint ones."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch

from diffflow.metrics import c2st, energy_distance, exact_w2, marginal_w2, mmd, nearest, prdc, sliced_w2
from diffflow.metrics.base import binomial_stderr


def normal(n: int, d: int, seed: int, std: float = 1.0) -> torch.Tensor:
    return std * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def replicates(metric, draws: int, n: int, d: int, shift: float = 0.0, std: float = 1.0):
    """Values and stated standard errors over fresh pairs of sets."""
    found = [metric(normal(n, d, 2 * r, std) + shift, normal(n, d, 2 * r + 1)) for r in range(draws)]
    return torch.tensor([m.value for m in found]), torch.tensor([m.stderr for m in found])


@pytest.mark.parametrize("metric", [exact_w2, sliced_w2], ids=["exact", "sliced"])
def test_w2_of_a_pure_shift(metric):
    # the same points moved: the optimal map is the shift, with no sampling error but that of the directions
    x = normal(300, 3, 0)
    move = torch.tensor([3.0, -4.0, 12.0], dtype=torch.float64)
    found = metric(x + move, x, limit=300)
    if metric is exact_w2:
        assert found.value == pytest.approx(13.0, rel=1e-9)
    else:
        assert found.value == pytest.approx(13.0 / math.sqrt(3), rel=4.5 * found.stderr / found.value)


@pytest.mark.parametrize(("shift", "std", "truth"), [(3.0, 1.0, 3.0), (0.0, 3.0, 2.0), (2.0, 2.0, math.sqrt(5.0))])
def test_w2_of_gaussians_in_one_dimension(shift, std, truth):
    # W2^2 = shift^2 + (std - 1)^2, and in one dimension sliced = exact
    x, y = normal(1000, 1, 1, std) + shift, normal(1000, 1, 2)
    exact, sliced = exact_w2(x, y), sliced_w2(x, y)
    assert abs(exact.value - truth) < 4.5 * exact.stderr
    assert sliced.value == pytest.approx(exact.value, rel=1e-9)
    assert sliced.stderr == pytest.approx(exact.stderr, rel=0.02)


@pytest.mark.parametrize(("n", "d", "shift", "std"), [(100, 2, 1.0, 1.0), (100, 2, 0.0, 2.0), (60, 8, 0.5, 1.0)])
def test_stated_errors_of_w2_are_the_spread_over_fresh_draws(n, d, shift, std):
    draws = 120
    for metric in (exact_w2, sliced_w2):
        values, stated = replicates(metric, draws, n, d, shift, std)
        # the sd of `draws` normals is known to 1/sqrt(2 draws) = 6.5 %: four of these and 20 % for the linearisation
        assert 0.6 < stated.mean() / values.std() < 1.6


def test_marginal_w2_sees_columns_and_nothing_between_them():
    x = normal(400, 3, 0)
    move = torch.tensor([3.0, -4.0, 12.0], dtype=torch.float64)
    assert marginal_w2(x + move, x, limit=400).value == pytest.approx(13.0 / math.sqrt(3), rel=1e-9)
    turned = torch.stack([x[:, 0], x[:, 1].roll(1), x[:, 2].roll(7)], 1)  # other pairs of the same values
    assert marginal_w2(turned, x, limit=400).value == pytest.approx(0.0, abs=1e-9)
    assert exact_w2(turned, x, limit=400).value > 0.3


def test_stated_errors_of_marginal_w2_are_the_spread_over_fresh_draws():
    values, stated = replicates(marginal_w2, 120, 100, 2, 1.0, 1.0)
    assert 0.6 < stated.mean() / values.std() < 1.6


def test_sliced_w2_is_w2_over_sqrt_d_for_isotropic_changes():
    # N(0, 4 I) to N(0, I) in d dimensions: W2 = sqrt(d), SW2 = 1; with empirical bias of order d / n below the bound
    found = sliced_w2(normal(2000, 16, 3, 2.0), normal(2000, 16, 4))
    assert abs(found.value - 1.0) < 4.5 * found.stderr
    values = ot.sliced_wasserstein_distance(
        normal(2000, 16, 3, 2.0).numpy(), normal(2000, 16, 4).numpy(), n_projections=256, seed=0
    )
    assert found.value == pytest.approx(values, rel=0.05)


@pytest.mark.parametrize("metric", [mmd, energy_distance], ids=["mmd", "energy"])
def test_kernel_distances_are_unbiased_and_their_errors_honest(metric):
    draws = 200
    values, stated = replicates(metric, draws, 50, 3)
    assert abs(values.mean()) < 4.5 * values.std() / math.sqrt(draws)
    assert 0.75 < stated.mean() / values.std() < 1.3
    assert (values < 0).any()  # unbiased: it must be able to go below zero
    values, stated = replicates(metric, draws, 50, 3, shift=1.0)
    assert 0.75 < stated.mean() / values.std() < 1.3
    assert (values > 0).all()


@pytest.mark.parametrize("metric", [mmd, energy_distance], ids=["mmd", "energy"])
def test_kernel_distances_on_equal_and_shifted_laws(metric):
    x, y, z = (normal(1500, 4, s) for s in range(3))
    equal, shifted = metric(x, y, z), metric(x + 0.3, y, z)
    assert abs(equal.value) < 4 * equal.stderr
    assert shifted.value > 4 * shifted.stderr
    assert abs(equal.floor) < 4 * equal.stderr


def test_energy_distance_of_a_shift_in_closed_form():
    # X - Y ~ N(m, 2): E|X - Y| = 2/sqrt(pi) exp(-m^2/4) + m erf(m/2)
    m = 1.5
    far = 2 / math.sqrt(math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)
    truth = 2 * far - 4 / math.sqrt(math.pi)
    found = energy_distance(normal(2000, 1, 5) + m, normal(2000, 1, 6))
    assert abs(found.value - truth) < 4 * found.stderr


def test_prdc_of_equal_laws():
    n, k = 1000, 5
    precision, recall, density, coverage = prdc(normal(n, 4, 7), normal(n, 4, 8), normal(n, 4, 9), k=k)
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert abs(coverage.value - expected) < 4 * coverage.stderr
    assert abs(density.value - 1.0) < 4 * density.stderr
    assert abs(precision.value - recall.value) < 4 * math.hypot(precision.stderr, recall.stderr)
    for m in (precision, recall, density, coverage):
        assert abs(m.value - m.floor) < 4 * math.sqrt(2) * m.stderr


def weyl(n: int, d: int, first: int) -> torch.Tensor:
    """frac(i^2 sqrt(p)) for i = first, first + 1, ... and the first d primes p: the same numbers on every machine."""
    primes = [p for p in range(2, 400) if all(p % q for q in range(2, p))][:d]
    i = torch.arange(first, first + n, dtype=torch.float64)[:, None]
    return (i**2 * torch.tensor(primes, dtype=torch.float64).sqrt()) % 1


@pytest.mark.parametrize(
    ("n", "d", "k", "scale", "shift", "published"),
    [
        (100, 2, 5, 1.0, 0.0, (0.99, 0.98, 0.938, 0.97)),
        (100, 2, 5, 0.7, 0.4, (0.95, 0.44, 0.822, 0.43)),
        (80, 20, 3, 0.8, 0.1, (1.0, 0.425, 2.95, 1.0)),
        (60, 64, 5, 0.9, 0.0, (1.0, 0.6, 2.47, 1.0)),
        (90, 3, 1, 1.2, 0.0, (42 / 90, 68 / 90, 59 / 90, 39 / 90)),
    ],
)
def test_prdc_is_that_of_the_published_package(n, d, k, scale, shift, published):
    # pip install prdc==0.2; prdc.compute_prdc(weyl(n, d, 1).numpy(), x.numpy(), k), in float64. Where a sample lies
    # exactly on a ball it takes < and the paper of precision and recall <=, as here; no point of these sets does.
    x = scale * weyl(n, d, 1000) + shift
    found = [m.value for m in prdc(x, weyl(n, d, 1), k=k)]
    assert found == pytest.approx(published, rel=1e-6)
    # and so it is for bare tensors in float32, the features of a net
    assert [m.value for m in prdc(x.float(), weyl(n, d, 1).float(), k=k)] == pytest.approx(published, rel=1e-6)


def test_prdc_tells_collapse_from_strangeness():
    y = normal(500, 2, 10)
    collapsed = {m.name: m.value for m in prdc(normal(500, 2, 11, 0.05), y)}
    assert collapsed["precision"] > 0.95  # all samples are plausible,
    assert collapsed["recall"] < 0.2  # but they reach few of the data
    assert collapsed["coverage"] < 0.2
    disjoint = {m.name: m.value for m in prdc(normal(500, 2, 12) + 50.0, y)}
    assert all(v == 0.0 for v in disjoint.values())


def test_nearest_tells_copies_from_fresh_draws():
    train, held, fresh = normal(2000, 5, 13), normal(500, 5, 14), normal(500, 5, 15)
    distance, ratio, copied = nearest(fresh, train, held)
    assert abs(ratio.value - 1.0) < 4 * ratio.stderr
    assert distance.floor is not None
    assert ratio.value == pytest.approx(distance.value / distance.floor)
    copies = nearest(train[:300], train, held)
    assert [m.value for m in copies] == [0.0, 0.0, 1.0]
    assert abs(copied.value - copied.floor) < 4.5 * math.sqrt(2) * copied.stderr
    assert not copied.note
    assert "100% of the samples are copies of training examples" in copies[2].note
    # without held-out points training points stand in, their own copy left out
    alone = nearest(fresh, train)[1]
    assert abs(alone.value - 1.0) < 4 * math.hypot(alone.stderr, ratio.stderr)
    exact = torch.cdist(fresh, train).min(1).values.median()
    assert distance.value == pytest.approx(float(exact), rel=1e-2)
    assert [m.name for m in nearest(fresh, train[:1].repeat(50, 1))] == ["nearest"]  # only duplicates: no ratio


@pytest.mark.parametrize("d", [1, 2, 3])
def test_by_chance_a_share_of_3_to_the_minus_d_looks_copied(d: int) -> None:
    """Of uniform points (d1/d2)^d is uniform, for the first of the two nearest lies anywhere in the second's ball.

    So P(d1 < d2/3) = 3^-d. The boundaries of the cube are out of reach.
    """
    generator = torch.Generator().manual_seed(d)
    train = torch.rand(6000, d, generator=generator, dtype=torch.float64)
    x = 0.15 + 0.7 * torch.rand(1000, d, generator=generator, dtype=torch.float64)
    copied = nearest(x, train, x.flip(0))[2]
    assert copied.value == pytest.approx(3.0**-d, abs=4.5 * math.sqrt(3.0**-d * (1 - 3.0**-d) / 1000))
    assert copied.floor == copied.value
    assert copied.stderr == pytest.approx(math.sqrt(3.0**-d * (1 - 3.0**-d) / 1000), rel=0.2)


def test_memorised_counts_the_copies_whatever_is_there_twice():
    """A third of the samples are training points with a little noise; doubled training points change nothing."""
    train, held = normal(300, 8, 21), normal(200, 8, 22)
    x = torch.cat([train[:100] + 1e-3 * normal(100, 8, 23), normal(200, 8, 24)])
    once, twice = (nearest(x, points, held)[2] for points in (train, train.repeat(2, 1)))
    alone = nearest(x, train.repeat(3, 1))[-1]
    assert once.name == alone.name == "memorised"
    assert once.value == pytest.approx(1 / 3, abs=0.01)  # by chance 3^-8 of the others
    assert (twice.value, twice.floor) == (once.value, once.floor)
    assert alone.value == once.value
    assert alone.floor < 0.02  # training points among their fellows, their own copies left out
    assert "33% of the samples" in once.note
    assert nearest(normal(30, 2, 1), normal(2, 2, 2))[-1].name == "nearest_ratio"  # three points are needed alone


def test_nearest_searches_all_blocks_of_a_large_set(monkeypatch):
    train, x = normal(50, 4, 16), normal(30, 4, 17)
    whole = nearest(x, train), nearest(x, train, x)
    monkeypatch.setattr("diffflow.metrics.neighbours.BLOCK", 4 * 7)  # seven rows at a time
    assert (nearest(x, train), nearest(x, train, x)) == whole


def test_c2st_is_a_coin_on_equal_laws_and_certain_on_disjoint_ones():
    x, y, z = (normal(800, 2, s) for s in (17, 18, 19))
    equal = c2st(x, y, z, limit=800)
    assert equal.n == 800
    assert abs(equal.value - 0.5) < 4 * equal.stderr
    assert abs(equal.floor - 0.5) < 4 * equal.stderr
    # best possible accuracy for N(0, I) against N(m, I) is Phi(|m| / 2)
    shifted = c2st(x + torch.tensor([2.0, 0.0]), y, limit=800)
    assert abs(shifted.value - 0.5 * (1 + math.erf(1.0 / math.sqrt(2)))) < 4 * shifted.stderr
    assert c2st(x + 40.0, y, limit=800).value == 1.0


SINGLES = (exact_w2, sliced_w2, mmd, energy_distance)


def all_metrics(x, y, z, limit=1000):
    singles = [f(x, y, z, limit=limit) for f in SINGLES]
    return [*singles, *prdc(x, y, z, limit=limit), *nearest(x, y, z, limit=limit)]


def test_values_do_not_depend_on_the_order_of_the_points():
    x, y, z = normal(200, 3, 20) + 0.2, normal(200, 3, 21), normal(200, 3, 22)
    generator = torch.Generator().manual_seed(23)
    shuffled = [s[torch.randperm(200, generator=generator)] for s in (x, y, z)]
    for a, b in zip(all_metrics(x, y, z), all_metrics(*shuffled), strict=True):
        if a.name in ("mmd2", "energy"):  # pairs x_i, y_i are left out of the cross term: one part in n
            assert a.value == pytest.approx(b.value, abs=a.stderr / 2)
        else:
            assert a.value == pytest.approx(b.value, rel=1e-6, abs=1e-9)
            assert a.floor == pytest.approx(b.floor, rel=1e-6, abs=1e-9)


def test_everything_is_deterministic_in_the_seed_and_leaves_the_global_state_alone():
    x, y, z = normal(3000, 2, 24), normal(3000, 2, 25), normal(3000, 2, 26)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = [*all_metrics(x, y, z, 300), c2st(x, y, limit=200, steps=50)]  # 300 of the 3000 of each, drawn
    assert torch.equal(torch.get_rng_state(), before)
    np.random.seed(99)  # noqa: NPY002 - POT falls back on this global state when it is not told otherwise
    assert first == [*all_metrics(x, y, z, 300), c2st(x, y, limit=200, steps=50)]
    assert [m.n for m in first[:4]] == [300] * 4
    assert [f(x, y).n for f in SINGLES] == [1000, 2000, 2000, 2000]


def test_bad_input_is_named():
    x = normal(50, 2, 27)
    with pytest.raises(ValueError, match="different shapes"):
        exact_w2(x, normal(50, 3, 28))
    broken = x.clone()
    broken[7, 0] = float("nan")
    with pytest.raises(ValueError, match="1 of 50 samples are not finite, the first is number"):
        mmd(broken, x)
    with pytest.raises(ValueError, match=r"at least 12 points in each set, got \[5, 50\]"):
        prdc(x[:5], x)
    with pytest.raises(ValueError, match="at least 8"):
        c2st(x[:3], x)
    with pytest.raises(ValueError, match="at least two training points"):
        nearest(x, x[:1])


def test_a_share_of_nought_or_all_keeps_an_error():
    assert binomial_stderr(0, 100) > 0
    assert binomial_stderr(100, 100) == pytest.approx(binomial_stderr(0, 100))
    assert binomial_stderr(5000, 10000) == pytest.approx(0.005, rel=1e-3)
