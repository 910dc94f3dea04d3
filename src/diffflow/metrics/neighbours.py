"""Nearest-neighbour metrics: whether samples look real, whether they cover the data, and whether they are copies.

With B_k(y) the ball round y that reaches its k-th nearest neighbour within its own set, k = 5:

    precision  share of samples inside some ball of a real point
    recall     share of real points inside some ball of a sample
    density    number of balls of real points that a sample lies in, over k
    coverage   share of real balls that hold a sample

(Kynkaanniemi et al. 2019 for the first two, Naeem et al. 2020 for the others.) For equal laws density is 1 and coverage
1 - prod_{i=1..k} (n - i) / (2n - i), near 1 - 2^-k, in expectation. Standard errors: the spread over 20 random halves
of both sets, recomputed from scratch, never below the binomial one of a share (the delete-half jackknife of Shao and Wu
1989 needs no smoothness; measured between 1.0 and 1.5 times the spread over fresh draws).

    nearest    median distance from a sample to its nearest training point; the floor is that of held-out points (or of
               training points among themselves). Its ratio to the floor is 1 for fresh draws and 0 for copies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Metric, admitted, binomial_stderr, matched, pick, points

HALVES = 20
RESAMPLES = 200
BLOCK = 20_000_000  # numbers of the training set taken at a time


def prdc(
    x: Tensor, y: Tensor, other: Tensor | None = None, *, k: int = 5, limit: int = 2000, seed: int = 0
) -> list[Metric]:
    """Precision, recall, density and coverage of samples, by balls that reach to the k-th nearest neighbour.

    Args:
        x: samples (n, *shape).
        y: real points (m, *shape), in the same units.
        other: more real points, for the floor, or None.
        k: which neighbour a ball reaches to.
        limit: most points taken of each.
        seed: of which points are taken, and of the halves that the errors come from.

    Returns:
        `precision`, `recall`, `density` and `coverage`: shares, but for the density, which is 1 for equal laws.

    Raises:
        ValueError: for fewer than 2 (k + 1) points in a set, and for sets that cannot be compared (`base.admitted`).

    References:
        Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing generative models"; Naeem et al.
        2020, "Reliable fidelity and diversity metrics for generative models", whose package `prdc` gives the same.
    """
    sets = matched(x, y, other, limit, seed, least=2 * (k + 1))
    values, errors = _prdc(sets[0], sets[1], k, seed)
    floors = _scores(*_within_and_between(sets[2], sets[1]), k).tolist() if len(sets) == 3 else [None] * 4
    names = ("precision", "recall", "density", "coverage")
    return [Metric(*row, "higher", len(sets[0])) for row in zip(names, values, errors, floors, strict=True)]


def _prdc(x: Tensor, y: Tensor, k: int, seed: int) -> tuple[list[float], list[float]]:
    n, generator = len(x), torch.Generator().manual_seed(seed)
    distances = _within_and_between(x, y)
    values = _scores(*distances, k).tolist()
    halves = []
    for _ in range(HALVES):
        i, j = (torch.randperm(n, generator=generator)[: n // 2] for _ in range(2))
        pairs = ((i, i), (j, j), (i, j))
        xx, yy, xy = (m[a][:, b] for m, (a, b) in zip(distances, pairs, strict=True))
        halves.append(_scores(xx, yy, xy, k))
    spread = torch.stack(halves).std(0).tolist()
    shares = (0, 1, 3)  # the density is no share
    return values, [max(s, binomial_stderr(values[j] * n, n)) if j in shares else s for j, s in enumerate(spread)]


def _within_and_between(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    centre = y.mean(0)
    x, y = x - centre, y - centre
    return torch.cdist(x, x), torch.cdist(y, y), torch.cdist(x, y)


def _scores(xx: Tensor, yy: Tensor, xy: Tensor, k: int) -> Tensor:
    """The four scores from the distances within x, within y, and from x to y."""
    rx = xx.kthvalue(k + 1, dim=1).values[:, None]  # k + 1: the point itself comes first
    ry = yy.kthvalue(k + 1, dim=1).values
    real, fake = xy <= ry, xy <= rx
    scores = [real.any(1), fake.any(0), real.sum(1) / k, real.any(0)]
    return torch.stack([v.double().mean() for v in scores])


def nearest(x: Tensor, train: Tensor, other: Tensor | None = None, *, limit: int = 1000, seed: int = 0) -> list[Metric]:
    """Median distance of samples to their nearest training point, and its ratio to that of held-out points.

    Standard errors: bootstrap of the medians, 200 resamples.

    Args:
        x: samples (n, *shape).
        train: the whole training set (m, *shape), in the same units.
        other: held-out points for the floor; None: training points, each compared with its nearest fellow.
        limit: most samples, and most points of the floor, that are used.
        seed: of which are used, and of the bootstrap.

    Returns:
        `nearest`, in the units of the points (images: of pixels in [0, 1]), and `nearest_ratio`, near 1 for fresh draws
        and 0 for copies. Where the floor is 0 (data full of duplicates) there is no ratio.

    Raises:
        ValueError: for fewer than two training points, and for sets that cannot be compared (`base.admitted`).
    """
    x, train, *more = admitted(x, train, other, names=("samples", "training points", "held-out points"))
    other = more[0] if more else None
    if len(train) < 2:
        raise ValueError(f"samples need at least two training points to be compared with, got {len(train)}")
    ours = _to_nearest(points(pick(x, limit, seed)), train)
    real, skip = (train, 1) if other is None else (other, 0)
    theirs = _to_nearest(points(pick(real, limit, seed, 1)), train, skip)
    generator = torch.Generator().manual_seed(seed)
    a, b = _medians(ours, generator), _medians(theirs, generator)
    value, floor = float(ours.quantile(0.5)), float(theirs.quantile(0.5))
    found = [Metric("nearest", value, float(a.std()), floor, "higher", len(ours))]
    if floor > 0.0:
        found.append(Metric("nearest_ratio", value / floor, float((a / b).std()), 1.0, "higher", len(ours)))
    return found


def copies(x: Tensor, train: Tensor, count: int = 10) -> tuple[Tensor, Tensor]:
    """Find the samples that lie closest to a training point. Looking at the pairs tells a copy from an accident.

    Args:
        x: samples (n, *shape).
        train: the training set (m, *shape), in the same units.
        count: how many to find.

    Returns:
        Indices into x and into train, int64 (count,) each, closest first.

    Raises:
        ValueError: for sets that cannot be compared (`base.admitted`).
    """
    x, train = admitted(x, train, names=("samples", "training points"))
    base, best, which = points(x), torch.full((len(x),), float("inf"), dtype=torch.float64), torch.zeros(len(x)).long()
    first = 0
    for block in train.split(max(1, BLOCK // base.shape[1])):
        near = torch.cdist(base.float(), points(block).float()).min(1)
        closer = near.values.double() < best
        best = torch.where(closer, near.values.double(), best)
        which = torch.where(closer, first + near.indices, which)
        first += len(block)
    order = best.argsort()[:count]
    return order, which[order]


def _to_nearest(x: Tensor, train: Tensor, skip: int = 0) -> Tensor:
    """Distance from each row of x (n, d) to its nearest training point, or with skip = 1 to the second nearest."""
    best = x.new_empty(len(x), 0)
    for block in train.split(max(1 + skip, BLOCK // x.shape[1])):
        base = points(block)
        # float32 finds the candidates, float64 measures them: large sets in half the time, and distance 0 stays 0
        scores = torch.addmm(base.square().sum(1).float(), x.float(), base.float().T, alpha=-2.0)
        for _ in range(min(1 + skip, len(base))):
            near = scores.argmin(1, keepdim=True)
            scores.scatter_(1, near, float("inf"))
            best = torch.cat([best, (base[near[:, 0]] - x).norm(dim=1, keepdim=True)], 1)
    return best.sort(dim=1).values[:, skip]


def _medians(r: Tensor, generator: torch.Generator) -> Tensor:
    index = torch.randint(len(r), (RESAMPLES, len(r)), generator=generator)
    return r[index].quantile(0.5, dim=1)
