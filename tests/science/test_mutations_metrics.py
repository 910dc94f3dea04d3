"""Would a slip in a metric be noticed? Each formula is written out once more, by loops, closed forms or brute force,
and every module is run with one place of its source changed: an axis, a sign, a root, a neighbour, a floor. Some law
must break.
"""

from __future__ import annotations

import importlib
import itertools
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffflow as df
from diffflow.data.prepare import finish
from diffflow.data.raw import Raw
from diffflow.metrics import Classifier, Metric, MetricRow
from diffflow.metrics.base import pick

F64 = torch.float64


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=F64)


def near(a: float | None, b: float, rel: float = 1e-9) -> None:
    assert a is not None
    assert math.isclose(a, b, rel_tol=rel, abs_tol=1e-12), (a, b)


def variance(x: Tensor) -> float:
    """Unbiased, by its definition."""
    x = x.flatten()
    return float((x - x.sum() / len(x)).square().sum() / (len(x) - 1))


def share_error(hits: float, n: int) -> float:
    p = (hits + 2) / (n + 4)
    return math.sqrt(p * (1 - p) / (n + 4))


# -- what all metrics stand on ----------------------------------------------------------------------------------------
def shares(m: ModuleType) -> None:
    near(m.binomial_stderr(3, 6), math.sqrt(0.5 * 0.5 / 10))
    near(m.binomial_stderr(1, 8), math.sqrt(0.25 * 0.75 / 12))


def conversion(m: ModuleType) -> None:
    x = torch.tensor([[[0, 255]], [[51, 102]]], dtype=torch.uint8)
    assert torch.allclose(m.points(x), torch.tensor([[0.0, 1.0], [0.2, 0.4]], dtype=F64))
    assert m.points(x.half()).dtype == F64
    assert m.points(x.half()).max() == 255


def draws(m: ModuleType) -> None:
    """Without replacement, by seed and stream."""
    x = torch.arange(50)
    a, b, c = m.pick(x, 20, 1), m.pick(x, 20, 1, 1), m.pick(x, 20, 2)
    assert len(a.unique()) == 20
    assert torch.equal(a, m.pick(x, 20, 1))
    assert not torch.equal(a, b)
    assert not torch.equal(a, c)
    assert len(m.pick(x, 80, 0)) == 50


def value_and_floor(m: ModuleType) -> None:
    """The statistic of (x, y) and of (other, y), all of one size."""
    statistic = lambda a, b: (float(a.mean() - 2 * b.mean() + 10 * len(a) + 100 * len(b)), 0.25)
    x, y, other = (torch.full((n, 2), float(n)) for n in (7, 9, 8))
    found = m.two_sample("s", statistic, x, y, other, 5, 0, "lower")
    assert found == m.Metric("s", 7 - 18 + 550, 0.25, 8 - 18 + 550, "lower", 5)
    found = m.two_sample("s", statistic, x, y, None, 99, 0, "lower")
    assert found == m.Metric("s", 7 - 18 + 770, 0.25, None, "lower", 7)
    assert m.two_sample("s", statistic, x, y, other[:4], 99, 0, "lower").n == 4
    assert len(m.matched(x, y, other, 99, 0, least=7)) == 3
    with pytest.raises(ValueError, match="at least 8 points"):
        m.matched(x, y, other, 99, 0, least=8)


def refusals(m: ModuleType) -> None:
    pixels = torch.arange(16.0).reshape(4, 1, 2, 2) / 15
    m.admitted(pixels, 1 - pixels)
    m.admitted(pixels - 0.5, 0.9 - pixels, 1 - pixels)
    m.admitted(1.4 * pixels, pixels)
    m.admitted(pixels, (255 * pixels).byte())
    m.admitted(0.1 * pixels, 255 * pixels)  # a bad model's: within the range, not filling another
    broken = pixels.clone()
    broken[2, 0, 1, 1] = math.nan
    for sets, told in (
        ((broken, pixels), "number 2"),
        ((pixels, pixels, broken), "number 2"),
        ((pixels.clone().index_fill_(0, torch.tensor(3), math.inf), pixels), "number 3"),
        ((pixels, pixels.clone().index_fill_(0, torch.tensor(1), -math.inf)), "number 1"),
        ((pixels, pixels[..., :1]), "shapes"),
        ((pixels[:0],), "empty"),
        ((2 * pixels - 1, pixels), "units"),
        ((pixels, 2 * pixels - 1), "units"),
        ((pixels, 255 * pixels), "units"),
        ((255 * pixels, pixels), "units"),
        ((1.6 * pixels, pixels), "units"),
        ((pixels, pixels, 2 * pixels - 1), "units"),
        ((1.1 * pixels, (255 * pixels).byte()), "live in"),
        (((255 * pixels).byte(), pixels - 0.1), "live in"),
        ((pixels, (pixels > 0.5).byte()), "count from 0 to 255"),
    ):
        with pytest.raises(ValueError, match=told):
            m.admitted(*sets)
    with pytest.raises(ValueError, match="live in"):
        m.admitted(2 * pixels - 1, unit=True)
    with pytest.warns(UserWarning, match="same units"):
        m.admitted(pixels.flatten(1), 2 * pixels.flatten(1) - 1)


# -- kernels ----------------------------------------------------------------------------------------------------------
def pairs(kernel: Any, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean over i != j of h_ij, and its standard error, each from its definition."""
    n = len(x)
    h = {
        (i, j): kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i])
        for i, j in itertools.permutations(range(n), 2)
    }
    mean = sum(h.values()) / len(h)
    zeta2 = sum(v**2 for v in h.values()) / len(h) - mean**2
    rows = torch.tensor([sum(h[i, j] for j in range(n) if j != i) / (n - 1) for i in range(n)], dtype=F64)
    zeta1 = max(0.0, variance(rows) - zeta2 / (n - 1))
    return mean, math.sqrt((4 * (n - 2) * zeta1 + 2 * zeta2) / (n * (n - 1)))


def kernels(m: ModuleType) -> None:
    for shift in (0.0, 2.0):  # with and without a first-order term in the error
        x, y, other = 1.5 * normal(6, 3, 0) + shift, normal(7, 3, 1), normal(8, 3, 2)
        a, b, c = (pick(s, 6, 0, k) for k, s in enumerate((x, y, other)))
        h = sorted(math.dist(u, v) for u, v in itertools.permutations(b.tolist(), 2))[14]  # the lower median of 30
        for metric, kernel in (
            (m.mmd, lambda u, v, h=h: math.exp(-(math.dist(u, v) ** 2) / (2 * h**2))),
            (m.energy_distance, lambda u, v: -math.dist(u, v)),
            (m.kid, lambda u, v: (float(u @ v) / 3 + 1) ** 3),
        ):
            found, (value, error) = metric(x, y, other), pairs(kernel, a, b)
            near(found.value, value)
            near(found.stderr, error)
            near(found.floor, pairs(kernel, c, b)[0])
            assert (found.better, found.n) == ("lower", 6)


# -- Wasserstein ------------------------------------------------------------------------------------------------------
def matchings(m: ModuleType) -> None:
    """The best of all matchings of five points, and of three for the floor."""
    x, y, other = normal(5, 3, 0), normal(5, 3, 1) + 1, normal(5, 3, 2)

    def least(a: Tensor, b: Tensor) -> float:
        return min(
            sum(math.dist(a[i].tolist(), b[j].tolist()) ** 2 for i, j in enumerate(p)) / 5
            for p in itertools.permutations(range(5))
        )

    found = m.exact_w2(x, y, other)
    near(found.value, math.sqrt(least(x, y)))
    near(found.floor, math.sqrt(least(other, y)))
    assert (found.better, found.n) == ("lower", 5)


def directions(k: int, d: int, seed: int) -> Tensor:
    theta = torch.randn(d, k, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return theta / theta.square().sum(0).sqrt()


def sliced(m: ModuleType) -> None:
    """Sorting along each direction."""
    x, y, other = 2 * normal(9, 3, 0), normal(9, 3, 1) + 1, normal(9, 3, 2)

    def square(a: Tensor, b: Tensor, t: Tensor) -> float:
        return sum((u - v) ** 2 for u, v in zip(sorted((a @ t).tolist()), sorted((b @ t).tolist()), strict=True)) / 9

    theta = directions(20, 3, 4)
    for found, rows in (
        (m.sliced_w2(x, y, other, directions=20, seed=4), list(theta.T)),
        (m.marginal_w2(x, y, other), list(torch.eye(3, dtype=F64))),
    ):
        near(found.value, math.sqrt(sum(square(x, y, t) for t in rows) / len(rows)))
        near(found.floor, math.sqrt(sum(square(other, y, t) for t in rows) / len(rows)))
        assert (found.better, found.n) == ("lower", 9)


def errors_of_transport(m: ModuleType) -> None:
    """A shift has the potential 2 m.x, a change of width from y to 3 y the potentials 2 x^2 / 3 and -2 y^2."""
    y, move, n = normal(40, 3, 1), torch.tensor([1.0, 5.0, -2.0], dtype=F64), 40
    theta = directions(30, 3, 4)
    for found, axes, sampled in (
        (m.sliced_w2(y + move, y, directions=30, seed=4), theta, True),
        (m.marginal_w2(y + move, y), torch.eye(3, dtype=F64), False),
    ):
        along = move @ axes  # shift in each direction
        phi = y @ (2 * axes * along).mean(1)
        total = 2 * variance(phi) / n + (variance(along**2) / axes.shape[1] if sampled else 0.0)
        near(found.stderr, math.sqrt(total) / (2 * math.sqrt(float((along**2).mean()))))
    y = normal(300, 1, 2)
    total = (variance(2 / 3 * (3 * y) ** 2) + variance(2 * y**2)) / 300
    want = math.sqrt(total) / (2 * math.sqrt(float((2 * y).square().mean())))
    near(m.sliced_w2(3 * y, y).stderr, want)
    near(m.exact_w2(3 * y, y).stderr, want, rel=0.03)  # the dual of a finite matching is not quite unique
    # at W = 0 the delta method gives way to the root of the error of the square
    assert m._distance_and_stderr(0.0, 0.04) == (0.0, pytest.approx(math.sqrt(0.2)))
    assert m._distance_and_stderr(4.0, 0.04) == (2.0, pytest.approx(0.05))
    assert m._distance_and_stderr(1e-6, 0.04) == (pytest.approx(1e-3), pytest.approx(math.sqrt(0.2)))


# -- Frechet ----------------------------------------------------------------------------------------------------------
def white(n: int, d: int, seed: int) -> Tensor:
    """Points of mean 0 and unbiased covariance I, exactly."""
    x = normal(n, d, seed)
    return torch.linalg.qr(x - x.mean(0))[0] * math.sqrt(n - 1)


def gaussians(m: ModuleType) -> None:
    """Commuting covariances: |m1 - m2|^2 + sum of (s1 - s2)^2; others by the eigenvalues of the product."""
    s1, s2, mean = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 3.0, 1.5]), torch.tensor([1.0, -2.0, 0.5])
    found = m.gaussian_frechet(mean + 2, (s1**2).diag(), 0 * mean + 2, (s2**2).diag())
    near(found, 5.25 + float((s1 - s2).square().sum()), rel=1e-6)
    a, b = normal(3, 3, 0), normal(3, 3, 1)
    c1, c2 = a @ a.T, b @ b.T
    overlap = float(torch.linalg.eigvals(c1 @ c2).real.sqrt().sum())
    want = float(c1.trace() + c2.trace()) - 2 * overlap + 14
    near(m.gaussian_frechet(torch.tensor([1.0, 2.0, 3.0]), c1, torch.zeros(3), c2), want)


def fitted(m: ModuleType) -> None:
    """Sets of which mean and covariance are known, and so the optimal map: diag(s2 / s1)."""
    s1, s2 = torch.tensor([2.0, 0.5, 1.0], dtype=F64), torch.tensor([1.0, 1.5, 1.0], dtype=F64)
    mean, n, k = torch.tensor([1.0, 0.0, -3.0], dtype=F64), 50, 80
    x, y, other = white(n, 3, 0) * s1 + mean, white(k, 3, 1) * s2, 2 * white(n, 3, 2)
    found = m.frechet(x, y, other)
    near(found.value, float(mean.square().sum() + (s1 - s2).square().sum()))
    near(found.floor, float((2 - s2).square().sum()))
    u, v, t = x - mean, y, s2 / s1
    phi = 2 * u @ mean + ((1 - t) * u**2).sum(1)
    psi = -2 * v @ mean + ((1 - 1 / t) * v**2).sum(1)
    near(found.stderr, math.sqrt(variance(phi) / n + variance(psi) / k))
    assert (found.better, found.n, found.note) == ("lower", 50, "")
    assert m.frechet(x, y, other, limit=30).n == 30
    assert m.frechet(x, y, other[:20]).n == 20
    assert m.frechet(normal(9, 9, 0), y @ normal(3, 9, 1)).note == ""
    assert m.frechet(normal(8, 9, 0), y @ normal(3, 9, 1)).note.startswith("8 points are fewer than 9 features")
    flat = torch.cat([x, torch.zeros(n, 1)], 1), torch.cat([y, torch.zeros(k, 1)], 1)  # a feature that never varies
    near(m.frechet(*flat).stderr, found.stderr)


class Odds(nn.Module):
    """P(class 0) = sig(2 x)."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], -x[:, 0]], 1) + self.bias


def sureness(m: ModuleType) -> None:
    x = torch.tensor([[0.0], [1.0], [-1.0], [2.0]])
    sure = torch.tensor([1 / (1 + math.exp(-2 * abs(v))) for v in (0, 1, -1, 2)], dtype=F64)
    found = m.confidence(x, Classifier(Odds(), (1,), 2, "known"), x[1:2])
    near(found.value, float(sure.mean()), rel=1e-6)
    near(found.stderr, math.sqrt(variance(sure) / 4), rel=1e-5)
    near(found.floor, float(sure[1]), rel=1e-6)
    assert (found.better, found.n) == ("higher", 4)
    layers = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    x = normal(600, 2, 0).float()
    see = m.embedding(Classifier(layers, None, 3, "net"))
    assert torch.allclose(layers[2](see(x)), layers(x), atol=1e-5)


# -- neighbours -------------------------------------------------------------------------------------------------------
def balls(x: Tensor, y: Tensor, k: int) -> list[float]:
    """Precision, recall, density and coverage by loops, as the papers define them."""
    d = lambda a, b: math.dist(a.tolist(), b.tolist())
    radius = lambda s: [sorted(d(p, q) for j, q in enumerate(s) if j != i)[k - 1] for i, p in enumerate(s)]
    rx, ry = radius(x), radius(y)
    precision = sum(any(d(p, q) <= r for q, r in zip(y, ry, strict=True)) for p in x) / len(x)
    recall = sum(any(d(p, q) <= r for p, r in zip(x, rx, strict=True)) for q in y) / len(y)
    density = sum(d(p, q) <= r for p in x for q, r in zip(y, ry, strict=True)) / k / len(x)
    coverage = sum(any(d(p, q) <= r for p in x) for q, r in zip(y, ry, strict=True)) / len(y)
    return [precision, recall, density, coverage]


def neighbourhoods(m: ModuleType) -> None:
    x, y, other = 0.7 * normal(24, 2, 0) + 0.5, normal(24, 2, 1), normal(24, 2, 2)
    found = m.prdc(x, y, other, k=3)
    assert [f.name for f in found] == ["precision", "recall", "density", "coverage"]
    for f, value, floor in zip(found, balls(x, y, 3), balls(other, y, 3), strict=True):
        near(f.value, value, rel=1e-6)  # the density is counted in float32
        near(f.floor, floor, rel=1e-6)
        assert (f.better, f.n) == ("higher", 24)
    with pytest.raises(ValueError, match="at least 8 points"):
        m.prdc(x[:7], y, k=3)


def spread_of_halves(m: ModuleType) -> None:
    """Standard deviation over 20 halves, drawn anew of both sets; of shares no less than the binomial error."""
    x, y = 0.7 * normal(16, 2, 0) + 0.5, normal(16, 2, 1)
    found, generator = m.prdc(x, y, k=3), torch.Generator().manual_seed(0)
    x, y, halves = pick(x, 16, 0), pick(y, 16, 0, 1), []
    for _ in range(20):
        i, j = (torch.randperm(16, generator=generator)[:8] for _ in range(2))
        halves.append(balls(x[i], y[j], 3))
    for f, scores in zip(found, zip(*halves, strict=True), strict=True):
        least = 0.0 if f.name == "density" else share_error(f.value * 16, 16)
        near(f.stderr, max(math.sqrt(variance(torch.tensor(scores, dtype=F64))), least), rel=1e-6)


def ranges_to_training(m: ModuleType) -> None:
    """Medians of the distances to the nearest training point, and to the nearest fellow, and their bootstrap."""
    d = lambda a, b: math.dist(a.tolist(), b.tolist())
    x, train, other = normal(9, 2, 0) + 1, normal(15, 2, 1), normal(7, 2, 2)
    gaps = lambda s: torch.tensor([min(d(p, q) for q in train) for p in s], dtype=F64)
    fellows = lambda s: torch.tensor([min(d(p, q) for q in train if not torch.equal(p, q)) for p in s], dtype=F64)
    for held, floors in ((other, gaps(pick(other, 9, 0, 1))), (None, fellows(pick(train, 9, 0, 1)))):
        ours = gaps(pick(x, 9, 0))
        near_, ratio, copied = m.nearest(x, train, held, limit=9)
        value, floor = float(ours.quantile(0.5)), float(floors.quantile(0.5))
        near(near_.value, value)
        near(near_.floor, floor)
        near(ratio.value, value / floor)
        assert ratio.floor == 1.0
        assert {near_.better, ratio.better} == {"higher"}
        assert (near_.name, ratio.name, near_.n) == ("nearest", "nearest_ratio", 9)
        generator = torch.Generator().manual_seed(0)
        drawn = [r[torch.randint(len(r), (200, len(r)), generator=generator)] for r in (ours, floors)]
        a, b = (r.quantile(0.5, dim=1) for r in drawn)
        near(near_.stderr, math.sqrt(variance(a)))
        near(ratio.stderr, math.sqrt(variance(a / b)))
        others = pick(other, 9, 0, 1) if held is not None else pick(train, 9, 0, 1)
        firsts = lambda s: [sorted(d(p, q) for q in train if not torch.equal(p, q))[:2] for p in s]
        shares = [[a < b / 3 for a, b in firsts(s)] for s in (pick(x, 9, 0), others)]
        value, floor = (sum(s) / len(s) for s in shares)
        near(copied.value, value)
        near(copied.floor, floor)
        near(copied.stderr, share_error(9 * value, 9))
        assert (copied.name, copied.better, copied.n, copied.note) == ("memorised", "lower", 9, "")
    close = train + 1e-4 * normal(15, 2, 3)
    (copied,) = (f for f in m.nearest(close[:9], torch.cat([train, train[:5]]), other) if f.name == "memorised")
    assert copied.value == 1
    assert "100%" in copied.note
    twice = torch.cat([train, train + 0.0])
    others = [m.nearest(x, t, limit=30)[-1].floor for t in (train, twice)]
    assert others[0] == others[1]  # each row's own copy is no fellow
    assert [f.name for f in m.nearest(x, train[:1].repeat(9, 1))] == ["nearest"]
    mine, theirs = m.copies(torch.cat([x, train[4:5], train[11:12] + 1e-3]), train, 2)
    assert (mine.tolist(), theirs.tolist()) == ([9, 10], [4, 11])


# -- modes ------------------------------------------------------------------------------------------------------------
def coverage_of_modes(m: ModuleType) -> None:
    """Three modes of known widths, one of two components, with 10, 3 and 4 of 20 points within 3 of them."""
    wide = torch.tensor([[5.0, 4.0], [4.0, 5.0]])  # standard deviations 3 and 1 along the diagonals
    law = df.GaussianMixture(
        [[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [0.0, 90.0]],
        covariances=torch.stack([wide, 4 * torch.eye(2), torch.eye(2), torch.eye(2)]),
        weights=[0.25, 0.5, 0.125, 0.125],
    )
    along, across = torch.tensor([1.0, 1.0]) / 2**0.5, torch.tensor([1.0, -1.0]) / 2**0.5
    inside = [8.9 * along, 2.9 * across] * 5 + [torch.tensor([55.8, 0.0])] * 3 + [torch.tensor([0.0, 88.0])] * 4
    outside = [9.1 * along, 3.1 * across, torch.tensor([56.2, 0.0])]
    x, groups = torch.stack([*inside, *outside]).double(), torch.tensor([0, 1, 2, 2])
    count, share = m.modes(x, law, torch.cat([x[:10], x[:7], x[17:]]), groups=groups)
    near(count.value, 3)
    near(share.value, 17 / 20)
    near(share.stderr, share_error(17, 20))
    near(m.modes(x, law, x[:10].repeat(2, 1), groups=groups)[1].floor, 1)
    near(count.floor, 1)
    near(share.floor, 17 / 20)
    odds = zip((10, 3, 4), (1.0, 2.0, 1.0), strict=True)  # how many lie within, how many are needed
    chance = [0.5 * (1 + math.erf((held - need) / math.sqrt(2 * (held + 1)))) for held, need in odds]
    near(count.stderr, math.sqrt(sum(p * (1 - p) for p in chance)))
    assert {count.better, share.better} == {"higher"}
    for held, covered in ((2, 2), (1, 1)):  # of 20; the second mode needs two
        sample = torch.cat([x[:10].repeat(2, 1)[held:], x[10:12][:held]])
        near(m.modes(sample, law, groups=groups)[0].value, covered)
    with pytest.raises(ValueError, match="19 samples are too few to look for 3 modes"):
        m.modes(x[:19], law, groups=groups)
    assert m.countable(law, 40)
    assert not m.countable(law, 39)


# -- judges -----------------------------------------------------------------------------------------------------------
def judging(m: ModuleType) -> None:
    judge = m.Classifier(Odds(), (1,), 2, "known")
    x, labels = torch.tensor([[1.0], [2.0], [-1.0], [3.0], [-5.0]]), torch.tensor([0, 0, 0, 0, 1])
    found = m.accuracy(x, labels, judge, x[:3], labels[:3])
    near(found.value, 4 / 5)
    near(found.stderr, share_error(4, 5))
    near(found.floor, 2 / 3)
    assert (found.better, found.n) == ("higher", 5)
    assert m.accuracy(x, labels, judge).floor is None
    assert torch.equal(m.class_labels(torch.tensor([0.0, 1.0]), 2, 2), torch.tensor([0, 1]))
    strange = (([0, 2], "label 1 is 2"), ([-1, 0], "label 0 is -1"), ([0.5, 1], "label 0 is 0.5"))
    for wrong, told in (([0, 1, 1], "as many labels"), *strange):
        with pytest.raises(ValueError, match=told):
            m.class_labels(torch.tensor(wrong), 2, 2)


def telling_apart(m: ModuleType) -> None:
    """Far sets are told apart always; equal laws are not, though 40 points in 40 dimensions are learnt by heart."""
    x, y, other = normal(41, 40, 0) + 9, normal(41, 40, 1), normal(41, 40, 2)
    found = m.c2st(x, y, other, steps=80)
    near(found.value, 1.0)
    near(found.stderr, share_error(42, 42))
    assert abs(found.floor - 0.5) < 4.5 * 0.5 / math.sqrt(42)
    assert (found.better, found.n) == ("lower", 42)
    half = m.c2st(torch.cat([x[:20], other[:20]]), y[:40], steps=80)  # one half of the samples is far
    assert abs(half.value - 0.75) < 4.5 * 0.5 / math.sqrt(40)
    near(half.stderr, share_error(half.value * 40, 40))
    with pytest.raises(ValueError, match="at least 8"):
        m.c2st(x[:7], y)


def what_judges_see(m: ModuleType) -> None:
    assert torch.allclose(m.unit(torch.tensor([0, 51, 255], dtype=torch.uint8)), torch.tensor([0.0, 0.2, 1.0]))
    assert m.unit(torch.tensor([2.5])).item() == 2.5
    x = (3 * normal(50, 2, 0) + 7).float()
    z = m.perceptron(x, 2)[0](x)
    assert z.mean(0).abs().max() < 1e-5
    assert (z.square().mean(0) - 1).abs().max() < 1e-5
    picture = torch.arange(12.0).view(1, 1, 3, 4)
    rows, columns = torch.arange(3), torch.arange(4)
    moved = {
        tuple(picture[0, 0][(rows + i).clamp(0, 2)][:, (columns + j).clamp(0, 3)].flatten().tolist())
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shown = m._shifted(picture.expand(300, -1, -1, -1), 1)
    assert {tuple(v.flatten().tolist()) for v in shown} == moved


# -- the table and the evaluation -------------------------------------------------------------------------------------
def arguments(m: ModuleType) -> None:
    sets, seen = ("x", "y", "other"), ("features of x", "of y", "of other")
    law = df.TOYS["8gaussians"]()
    decoded, train, held = (normal(300, 2, 0), normal(300, 2, 1), torch.zeros(300)), normal(9, 2, 0), normal(9, 2, 1)
    more = {"columns": False, "density": law, "labels": 7, "judge": 8, "limit": 1500, "many": 4000, "seed": 5}
    c = m.Comparison(sets=sets, train=train, heldout=held, features=seen, decoded=decoded, **more)
    named = lambda triple, limit: dict(zip(("x", "y", "other"), triple, strict=True)) | {"limit": limit, "seed": 5}
    given = lambda name: m.METRICS[name].arguments(c)
    assert given("w2") == named(sets, 1000)
    assert given("sliced_w2") == given("c2st") == given("mmd2") == given("energy") == named(sets, 1500)
    assert given("recall") == given("kid") == named(seen, 1500)
    assert given("frechet") == named(seen, 4000)
    assert given("nearest") == {"x": sets[0], "train": train, "other": held, "limit": 1000, "seed": 5}
    assert given("modes") == {"x": decoded[0], "law": law, "other": decoded[1]}
    names = ("x", "labels", "classifier", "real", "real_labels")
    assert given("accuracy") == dict(zip(names, (decoded[0], 7, 8, *decoded[1:]), strict=True))
    assert (c.has("features"), c.has("columns"), c.has("density")) == (True, False, True)
    few = (decoded[0], decoded[1][:10], None)
    c = m.Comparison(sets=sets, train=train, heldout=None, features=None, decoded=few, **more)
    assert given("recall") == named(sets, 1500)
    assert given("modes")["other"] is None  # ten points are too few to look for eight modes
    assert not c.has("features")
    assert len({m.METRICS[name].function for name in ("precision", "recall", "density", "coverage")}) == 1


def compared(m: ModuleType, *args: Any, **how: Any) -> tuple[Any, Any]:
    """What evaluate hands to the rows of the table, and what it returns."""
    seen: list[Any] = []

    def probe(c: Any) -> Metric:
        seen.append(c)
        return Metric("probe", 1.0, 0.1, None, "lower", 3)

    rows = (("probe", ()), ("dense", ("density",)), ("labelled", ("labels",)))  # one call, which gives the first only
    how_called: dict[str, Any] = {"function": probe, "arguments": lambda c: {"c": c}, "meaning": "", "better": "lower"}
    table, m.METRICS = m.METRICS, {name: MetricRow(name=name, needs=needs, **how_called) for name, needs in rows}
    try:
        found = m.evaluate(*args, **how)
        assert [f.name for f in found] == ["probe"]
        return found, *seen
    finally:
        m.METRICS = table


def comparisons(m: ModuleType) -> None:
    x, y, z = normal(40, 2, 0), normal(90, 2, 1), normal(90, 2, 2)
    found, c = compared(m, x, y, z, limit=20, seed=3)
    assert all(map(torch.equal, (*c.sets, c.train, c.heldout), (x, y, z, y, z)))
    assert (c.limit, c.many, c.seed, c.columns) == (20, 10_000, 3, False)
    assert (c.density, c.labels, c.features) == (None, None, None)
    found, c = compared(m, x, y)  # half of the reference plays the part of the held-out points
    assert len(c.sets[1]) == 45
    assert torch.equal(torch.cat(c.sets[1:]).sort(0).values, y.sort(0).values)
    assert c.heldout is None
    assert torch.equal(c.train, y)
    few, c, swapped = compared(m, x, y, z[:31])  # either half of all real points in turn
    assert [len(s) for s in c.sets] == [40, 60, 61]
    assert all(map(torch.equal, swapped.sets, (c.sets[0], c.sets[2], c.sets[1])))
    assert torch.equal(torch.cat(c.sets[1:]).sort(0).values, torch.cat([y, z[:31]]).sort(0).values)
    assert all(map(torch.equal, (c.train, c.heldout), (y, z[:31])))
    assert c.enough
    assert "only 31 held out" in few.card["note"]
    assert "note" not in found.card
    card = found.card
    assert (card["samples"]["n"], card["reference"]["n"], card["heldout"]) == (40, 90, "half of the reference")
    assert m.differences(card, card) == []
    assert m.differences(card, card | {"seed": 9, "heldout": None}) == ["heldout", "seed"]
    assert m.differences(card, card | {"samples": {"n": 41}}) == ["number of samples"]
    assert m.differences(card, card | {"reference": card["reference"] | {"name": "moved"}}) == []

    images = torch.randint(0, 256, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for off in (0.4, -0.4):
        near_ = ((images + off) / 255).clamp(0, 1)
        assert torch.equal(compared(m, near_, images, images)[1].sets[0], images)  # as saving would round them
    assert torch.allclose(compared(m, images, images / 255, images)[1].sets[0], images / 255)
    train, test = (df.data.load("8gaussians", split) for split in ("train", "test"))
    x = train.law.sample(50, df.Noise(0))
    _, c = compared(m, x, train, test)
    assert torch.equal(c.decoded[0], x)
    assert torch.equal(c.decoded[1], test.x)
    assert c.columns
    assert c.density is train.law
    rows, held = (finish(Raw((9 * normal(40, 2, k) + 5).numpy()), "rows", "all", False) for k in (0, 1))
    c = compared(m, rows.x[:20], rows, held)[1]
    assert all(map(torch.equal, c.sets, (rows.encode(rows.x[:20]), rows.encode(rows.x), rows.encode(held.x))))
    assert compared(m, x[:39], train, test)[1].density is None  # a fifth of an eighth of 39 is less than one
    for few in ((x[:11], y, z), (x, y[:1], z), (x, y[:1])):
        with pytest.raises(ValueError, match="at least 12 samples and 2 training points"):
            compared(m, *few)
    for few in ((x, y[:23]), (x, y[:12], z[:11])):  # no two sets of 12
        with pytest.raises(AssertionError):
            compared(m, *few)
    assert "one by one" in m.counted(12, 12, 11)
    compared(m, x[:12], y[:24])
    compared(m, x[:12], y[:13], z[:11])
    a, b = Metric("a", 1.0, 0.2, 3.0, "lower", 5), Metric("a", 2.0, 0.4, 5.0, "lower", 5)
    assert m._mean(a, a) == a
    assert m._mean(a, b) == Metric("a", 1.5, pytest.approx(0.3), 4.0, "lower", 5)
    judge = Classifier(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), None, 2, "line")
    _, c = compared(m, x, y.float(), z.float(), torch.ones(50), judge, features=judge)
    assert all(torch.allclose(f, judge.net[0](s)) for f, s in zip(c.features, c.sets, strict=True))
    assert c.judge is judge
    with pytest.raises(ValueError, match="label 0 is 2"):
        compared(m, x, y, z, 2 * torch.ones(50), judge)


LAWS: dict[str, list[Any]] = {
    "base": [shares, conversion, draws, value_and_floor, refusals],
    "mmd": [kernels],
    "wasserstein": [matchings, sliced, errors_of_transport],
    "frechet": [gaussians, fitted, sureness],
    "neighbours": [neighbourhoods, spread_of_halves, ranges_to_training],
    "modes": [coverage_of_modes],
    "classifier": [judging, what_judges_see, telling_apart],
    "table": [arguments],
    "evaluate": [comparisons],
}


@pytest.mark.parametrize("name", LAWS)
def test_the_laws_hold(name: str) -> None:
    for law in LAWS[name]:
        law(importlib.import_module(f"diffflow.metrics.{name}"))


# -- the mutations ----------------------------------------------------------------------------------------------------
MUTANTS = {
    "base": r"""
        hits + 2.0 | hits + 1.0
        p * (1.0 - p) / (n + 4.0)) ** 0.5 | p * (1.0 - p) / (n + 4.0))
        p * (1.0 - p) / | p * (1.0 + p) /
        float() / 255.0 | float() / 256.0
        .double().reshape | .reshape
        + stream) | )
        1_000_003 * seed + | 0 * seed +
        torch.randperm(len(x), generator=generator)[:n] | torch.randint(len(x), (min(n, len(x)),), generator=generator)
        statistic(sets[0], sets[1]) | statistic(sets[1], sets[0])
        statistic(sets[2], sets[1])[0] | statistic(sets[1], sets[2])[0]
        statistic(sets[2], sets[1])[0] | statistic(sets[0], sets[1])[0]
        statistic(sets[2], sets[1])[0] | statistic(sets[2], sets[1])[1]
        n = min(limit, *(len(s) for s in sets)) | n = min(len(s) for s in sets)
        n = min(limit, *(len(s) for s in sets)) | n = min(limit, *(len(s) for s in sets[:2]))
        if n < least | if n <= least
        int(bad[0]) | len(bad)
        ~x.isfinite().flatten(1).all(1) | ~x.isfinite().flatten(1).any(1)
        tuple(x.shape[1:]) for _, x in named}) > 1 | tuple(x.shape[:1]) for _, x in named}) > 1
        < low and high < | < low or high <
        -slack or | -slack and
        > 1.0 + slack | > 2.0 + slack
        slack = 0.5 / 255 | slack = 0.5
        i != 1 and | i > 1 and
        i != 1 and | i < 1 and
        named[1], spans[1] | named[0], spans[0]
        astray or (home_a | astray and (home_a
        _fills(a_span, home_a, 0.9) and _beyond | _beyond
        _beyond(b_span, home_a) | _beyond(a_span, home_a)
        half = (home[1] - home[0]) / 2 | half = 0.0
        half = (home[1] - home[0]) / 2 | half = 2 * (home[1] - home[0])
        bytes_b and b_span[1] == 1.0 | bytes_a and b_span[1] == 1.0
        (b_name, b_span) if bytes_a else (a_name, a_span) | (a_name, a_span) if bytes_a else (b_name, b_span)
        if bytes_a and bytes_b | if bytes_a or bytes_b
        home_a != home_b and home_a | home_a == home_b and home_a
    """,
    "mmd": r"""
        -0.5 * (r / width) ** 2 | -(r / width) ** 2
        (r / width) ** 2 | (r / width)
        within[~torch.eye(len(b), dtype=torch.bool)].median() | within.median()
        within[~torch.eye(len(b), dtype=torch.bool)].median() | within[~torch.eye(len(b), dtype=torch.bool)].mean()
        within = _distances(b, b) | within = _distances(a, a)
        within, _distances(a, b) | within, _distances(a, a)
        -_distances(a, a), -_distances | -_distances(a, a), _distances
        -_distances(a, b) | -_distances(a, b).square()
        u.shape[1] + 1 | u.shape[0] + 1
        + 1) ** 3 | + 1) ** 2
        + 1) ** 3 | ) ** 3
        (a, a), (b, b), (a, b) | (a, a), (b, b), (b, b)
        xx + yy - xy - xy.T | xx + yy - 2 * xy
        xx + yy - xy - xy.T | xx - yy - xy + xy.T
        h.fill_diagonal_(0.0) | pass
        pairs = n * (n - 1) | pairs = n * n
        / pairs - mean**2 | / pairs
        / pairs - mean**2 | / pairs - mean
        h.sum(1) / (n - 1) | h.sum(1) / n
        rows.var() | rows.var(correction=0)
        - zeta2 / (n - 1)) | )
        - zeta2 / (n - 1)) | + zeta2 / (n - 1))
        4 * (n - 2) * zeta1 | 4 * (n - 1) * zeta1
        4 * (n - 2) * zeta1 + 2 * zeta2 | 4 * (n - 2) * zeta1
        4 * (n - 2) * zeta1 + 2 * zeta2 | 2 * zeta2
        .clamp_min(0.0).sqrt()) | .clamp_min(0.0))
        x - centre, y - centre | x - centre, y
    """,
    "wasserstein": r"""
        ).square().numpy() | ).numpy()
        log["u"].var() + log["v"].var() | log["u"].var()
        log["u"].var() + log["v"].var() | log["u"].std() + log["v"].std()
        log["v"].var()) / len(x) | log["v"].var())
        theta / theta.norm(dim=0) | theta
        theta / theta.norm(dim=0) | theta / theta.norm(dim=1, keepdim=True)
        theta / theta.norm(dim=0) | theta.sign()
        manual_seed(seed) | manual_seed(0)
        _sliced(a, b, axes, sampled=False) | _sliced(a, b, axes)
        phi.var() + psi.var() | phi.var()
        phi.var() + psi.var() | phi.var() - psi.var()
        psi.var()) / len(x) | psi.var()) / theta.shape[1]
        squares.var() / theta.shape[1] | squares.var()
        squares.var() / theta.shape[1] if sampled else 0.0 | 0.0
        _dual_potential(y @ theta, x @ theta) | _dual_potential(x @ theta, y @ theta)
        squares.mean() | squares.sum()
        squares.mean() | squares.sqrt().mean().square()
        b.sort(0).values | b
        a.argsort(0) | a.argsort(0, descending=True)
        (a[1:] - a[:-1]) | (a[:-1] - a[1:]).abs() * 2
        (a - b)[1:] + (a - b)[:-1] | (a - b)[1:]
        (a - b)[1:] + (a - b)[:-1] | (a + b)[1:] + (a + b)[:-1]
        steps.cumsum(0) | steps
        phi = phi - phi.mean(0) | phi = phi * phi
        scatter_(0, order, phi).mean(1) | scatter_(0, order, phi).amax(1)
        scatter_(0, order, phi) | copy_(phi)
        variance**0.5 | variance
        max(square, 0.0) ** 0.5 | max(square, 0.0)
        se / (2.0 * value) | se / value
        se / (2.0 * value) | 2.0 * se / value
        se**0.5) | se)
    """,
    "frechet": r"""
        _matrix_root(c1.double()), _matrix_root(c2.double()) | _matrix_root(c1.double()), _matrix_root(c1.double())
        a1.mT @ a2 | a1 @ a2
        (m1 - m2).double().square().sum() | (m1 - m2).double().norm()
        (m1 - m2).double() | (m1 + m2).double()
        - 2.0 * overlap | - overlap
        - 2.0 * overlap | + 2.0 * overlap
        c1.double().trace() + c2 | 2 * c2
        svdvals(a1.mT @ a2).sum() | svdvals(a1.mT @ a2).square().sum()
        n = min(limit, len(x) | n = min(len(x)
        *(() if other is None else (len(other),)) | *()
        pick(x, n, seed) | pick(x, 2 * n, seed)[: n - 1]
        value, variance = _frechet(a, b) | value, variance = _frechet(a[: len(b)], b[: len(a)])
        _frechet(_seen(pick(other, n, seed, 2), see), b)[0] | _frechet(a, b)[0]
        _frechet(_seen(pick(other, n, seed, 2), see), b)[0] | _frechet(_seen(pick(other, n, seed, 2), see), a)[0]
        variance**0.5, floor | variance, floor
        (least < k) | (least <= k)
        min(n, len(y)), a.shape[1] | max(n, len(y)), a.shape[1]
        net = judge.net[:-1] | net = judge.net
        double().softmax(1).amax(1)\n | double().sigmoid().amax(1)\n
        float(sure.std()) / len(x) ** 0.5 | float(sure.std()) / len(x)
        float(sure.std()) / | float(sure.var()) /
        values.clamp_min(0.0).sqrt()\n\n\ndef _mean_and | values.clamp_min(0.0)\n\n\ndef _mean_and
        (len(x) - 1) | len(x)
        x = x - mean | x = x - 0 * mean
        _quadratic_potential(x, mx - my, cx, cy) | _quadratic_potential(x, my - mx, cx, cy)
        _quadratic_potential(y, my - mx, cy, cx) | _quadratic_potential(y, my - mx, cx, cy)
        phi.var() / len(x) | phi.var() / len(y)
        psi.var() / len(y) | psi.var() / len(x)
        phi.var() / len(x) + | phi.var(correction=0) / len(x) +
        width = values.clamp_min(0.0).sqrt() | width = values.clamp_min(0.0)
        1e-7 * width[-1] | 0.7 * width[-1]
        pow(0.25) | pow(0.5)
        2.0 * x @ shift | x @ shift
        x.square().sum(1) - moved | x.square().sum(1) + moved
        moved.square().sum(1) | moved.sum(1)
    """,
    "neighbours": r"""
        xx.kthvalue(k + 1, dim=1) | xx.kthvalue(k, dim=1)
        yy.kthvalue(k + 1, dim=1) | yy.kthvalue(k, dim=1)
        yy.kthvalue(k + 1, dim=1) | yy.kthvalue(k + 2, dim=1)
        real, fake = xy <= ry, xy <= rx | real, fake = xy <= rx, xy <= ry
        real, fake = xy <= ry, xy <= rx | real, fake = xy >= ry, xy <= rx
        real, fake = xy <= ry | real, fake = xy <= ry[:, None]
        .values[:, None] | .values
        real.any(1) | real.all(1)
        real.any(1) | real.any(0)
        fake.any(0) | fake.any(1)
        fake.any(0) | fake.all(0)
        real.sum(1) / k | real.sum(1) / (k + 1)
        real.sum(1) / k | fake.sum(1) / k
        real.any(0)] | real.any(1)]
        real.any(0)] | fake.any(1)]
        _scores(*_within_and_between(sets[2], sets[1]), k) | _scores(*_within_and_between(sets[1], sets[2]), k)
        _scores(*_within_and_between(sets[2], sets[1]), k) | _scores(*_within_and_between(sets[0], sets[1]), k)
        least=2 * (k + 1) | least=2 * k
        [: n // 2] | [: n // 3]
        (i, i), (j, j), (i, j) | (i, i), (j, j), (j, i)
        (i, i), (j, j), (i, j) | (i, i), (i, i), (i, j)
        range(HALVES) | range(HALVES - 1)
        .std(0).tolist() | .var(0).tolist()
        .std(0).tolist() | .std(0, correction=0).tolist()
        shares = (0, 1, 3) | shares = (0, 1, 2, 3)
        shares = (0, 1, 3) | shares = (0, 1)
        max(s, binomial | min(s, binomial
        values[j] * n, n) | values[j], n)
        x - centre, y - centre\n    return | x - centre, y\n    return
        int(other is None) | 0
        int(other is None) | 1
        limit, seed, 1), int | limit, seed, 0), int
        train, 2 + skip)[:, skip:]\n    ours | train, 2 + skip)[:, :2]\n    ours
        distinct, 2 + skip)[:, skip:] | distinct, 2 + skip)[:, :2]
        d[:, 1] / CLOSER | d[:, 1] * CLOSER
        CLOSER = 3.0 | CLOSER = 2.0
        value, stderr, floor, "lower" | floor, stderr, floor, "lower"
        binomial_stderr(value * n, n) | binomial_stderr(value, n)
        if value > max | if value < max
        if len(first) == len(x) | if True
        ours.quantile(0.5)), float(theirs | ours.mean()), float(theirs
        float(theirs.quantile(0.5)) | float(theirs.quantile(0.6))
        float(a.std()), floor | float(b.std()), floor
        value / floor | floor / value
        (a / b).std() | (b / a).std()
        (a / b).std()), 1.0 | (a / b).std()), 0.0
        if floor > 0.0 | if True
        r[index].quantile(0.5, dim=1) | r[index].quantile(0.5, dim=0)
        (RESAMPLES, len(r)) | (RESAMPLES, len(r) // 2)
        alpha=-2.0 | alpha=2.0
        alpha=-2.0 | alpha=-1.0
        base.square().sum(1).float() | base.norm(dim=1).float()
        .sort(dim=1).values[:, :count] | .sort(dim=1, descending=True).values[:, :count]
        first + near.indices | near.indices + 1
        near.values.double() < best | near.values.double() > best
        best.argsort()[:count] | best.argsort(descending=True)[:count]
    """,
    "modes": r"""
        STDS = 3.0 | STDS = 2.8
        STDS = 3.0 | STDS = 3.2
        FAIR = 0.2 | FAIR = 0.3
        distance <= STDS | distance >= STDS
        counts >= need | counts > need
        counts - need | need - counts + 1
        (counts + 1.0).sqrt() | (counts + 1.0)
        (counts + 1.0).sqrt() | counts.clamp_min(0.1).sqrt()
        (p * (1.0 - p)).sum().sqrt() | (p * (1.0 - p)).sum()
        (p * (1.0 - p)).sum().sqrt() | p.sum().sqrt()
        kinds[component[inside]] | component[inside] % len(fair)
        kinds[component[inside]] | kinds[component]
        _counted(points(other), law | _counted(points(x), law
        binomial_stderr(inside, len(x)), floors[1] | binomial_stderr(share, len(x)), floors[1]
        floors[0], "higher" | floors[1], "higher"
        FAIR * fair * len(x) | FAIR * len(x) / len(fair) + 0 * fair
        need.min()) < 1.0 | need.max()) < 1.0
        law.weights.min() | law.weights.max()
        * n >= 1.0 | * n > 1.0
        law.extra / (law.extra + law.floor[:, None]) | law.extra / law.floor[:, None]
        - (share * along.square()) | + (share * along.square())
        / law.floor\n | \n
        square.min(1) | square.max(1)
        parts]).sqrt(), | parts]),
    """,
    "classifier": r"""
        self.logits(x).argmax(1) | self.logits(x).argmin(1)
        float() / 255.0 | float() / 256.0
        (x - self.mean) / self.std | (x - self.mean) * self.std
        x.std(0, correction=0) | x.var(0, correction=0)
        x.mean(0), x.std | 0 * x.mean(0), x.std
        x, labels)\n    floor | x, 1 - labels)\n    floor
        binomial_stderr(value * len(x), len(x)) | binomial_stderr(value, len(x))
        classifier.accuracy(real, real_labels) if | classifier.accuracy(x, labels) if
        labels >= classes | labels > classes
        labels < 0 | labels < -1
        labels != labels.long() | labels > classes
        [torch.arange(half, n), torch.arange(n + half, 2 * n)] | [torch.arange(half), n + torch.arange(half)]
        torch.arange(2).repeat_interleave(n) | torch.arange(2).repeat(n)
        judge(sets[2], sets[1]) | judge(sets[0], sets[1])
        2 * (n - half) | 2 * half
        value * tested, tested | value * tested, n
        binomial_stderr(value * tested | binomial_stderr(value
        rows = (dy[:, None] | rows = (dx[:, None]
        2 * most + 1 | 2 * most
        mode="replicate" | mode="constant"
    """,
    "table": r"""
        min(self.limit, most) | max(self.limit, most)
        self.features or self.sets | self.sets
        self.features or self.sets | self.features
        min(self.limit, 1000) | self.limit
        "train": self.train | "train": self.sets[1]
        "other": self.heldout | "other": self.sets[2]
        countable(law, len(other)) | True
        other if enough | x if enough
        "real": real, "real_labels": real_labels | "real": x, "real_labels": real_labels
        c.points(most=1000) | c.points()
        c.seen(limit=c.many) | c.seen()
        self.columns if | True if
    """,
    "evaluate": r"""
        LEAST = 12 | LEAST = 11
        real // 2 < LEAST | real < LEAST
        heldout < FEW and | heldout > FEW and
        (x, other, real) | (x, real, other)
        (a.value + b.value) / 2 | (a.value - b.value) / 2
        (a.floor + b.floor) / 2 | a.floor
        (a.stderr + b.stderr) / 2 | (a.stderr + b.stderr)
        enough=min(len(real), len(other)) | enough=max(len(real), len(other))
        (x * 255.0).round() | (x * 255.0)
        (x * 255.0).round() | (x * 256.0).round()
        x = unit(x) | pass
        real, other = y, held | real, other = held, y
        shuffled[: len(shuffled) // 2], shuffled | shuffled, shuffled
        shuffled[: len(shuffled) // 2], shuffled | y[: len(y) // 2], shuffled
        see(x), see(real), see(other) | see(real), see(x), see(other)
        see(x), see(real), see(other) | see(x), see(real), see(real)
        encoded[0], encoded[1], encoded[2] if | x, encoded[1], encoded[2] if
        encoded[0], encoded[1], encoded[2] if | encoded[0], encoded[1], held if
        sets=(x, real, other) | sets=(real, x, other)
        train=y | train=real[:9]
        heldout=held | heldout=other
        decoded = (x, held, truth) | decoded = (x, y, truth)
        countable(law, n) | True
        _countable(data, len(x)) | _countable(data, len(y))
        limit=limit | limit=many
        seed=seed,\n        enough | seed=0,\n        enough
        if not all(given.has | if not any(given.has
        if rows.get(m.name) != m.better | if rows.get(m.name) == m.better
        if call not in calls | if True
        k != "name" | k != "n"
        content(a, k) != content(b, k) | content(a, k) == content(b, k)
        a["samples"]["n"] != b | a["samples"]["n"] == b
    """,
}


def mutants() -> list[Any]:
    """(module, what is there, what is put there), from the lines `old | new`."""
    found = []
    for name, lines in MUTANTS.items():
        for line in filter(None, map(str.strip, lines.splitlines())):
            old, new = line.replace("\\n", "\n").split(" | ")
            found.append(pytest.param(name, old, new, id=f"{name}: {line}"))
    return found


def mutated(name: str, old: str, new: str) -> ModuleType:
    """The module with one place of its source changed, beside the real one."""
    real = importlib.import_module(f"diffflow.metrics.{name}")
    assert real.__file__ is not None
    source = Path(real.__file__).read_text()
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {name}.py"
    module = ModuleType(real.__name__)
    module.__package__, module.__file__ = real.__package__, real.__file__
    exec(compile(source.replace(old, new), f"{name}.py, changed", "exec"), module.__dict__)
    return module


def broken(name: str, module: ModuleType) -> str | None:
    """The first law that does not hold, by name."""
    for law in LAWS[name]:
        try:
            law(module)
        except (Exception, pytest.fail.Exception):
            return law.__name__
    return None


@pytest.mark.parametrize(("name", "old", "new"), mutants())
def test_a_slip_in_a_metric_is_noticed(name: str, old: str, new: str) -> None:
    assert broken(name, mutated(name, old, new)) is not None
