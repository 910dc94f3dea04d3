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
    memorised  share of samples that lie three times nearer to one training point than to any other (Yoon et al. 2023);
               the floor is that of held-out points. Among many points without structure in d dimensions it is 3^-d.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from .base import Metric, admitted, binomial_stderr, matched, pick, points

HALVES = 20
RESAMPLES = 200
BLOCK = 20_000_000  # numbers of the training set taken at a time
CLOSER = 3.0  # times nearer to one training point than to the next: a copy
NOTICED = 0.05  # share of copies that is worth a word


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
        and 0 for copies. Where the floor is 0 (data full of duplicates) there is no ratio. `memorised`, the share of
        samples whose nearest training point is three times nearer than the next (of equal training points one counts),
        with a note where it is beyond chance; none where there are too few training points to tell.

    Raises:
        ValueError: for fewer than two training points, and for sets that cannot be compared (`base.admitted`).

    References:
        Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize"; Gu et al. 2023, "On
        memorization in diffusion models", arXiv:2310.02664.
    """
    x, train, *more = admitted(x, train, other, names=("samples", "training points", "held-out points"))
    other = more[0] if more else None
    if len(train) < 2:
        raise ValueError(f"samples need at least two training points to be compared with, got {len(train)}")
    x, real, skip = pick(x, limit, seed), pick(train if other is None else other, limit, seed, 1), int(other is None)
    near, near_real = _to_nearest(points(x), train, 2), _to_nearest(points(real), train, 2 + skip)[:, skip:]
    ours, theirs = near[:, 0], near_real[:, 0]
    generator = torch.Generator().manual_seed(seed)
    a, b = _medians(ours, generator), _medians(theirs, generator)
    value, floor = float(ours.quantile(0.5)), float(theirs.quantile(0.5))
    found = [Metric("nearest", value, float(a.std()), floor, "higher", len(ours))]
    if floor > 0.0:
        found.append(Metric("nearest_ratio", value / floor, float((a / b).std()), 1.0, "higher", len(ours)))
    distinct = _distinct(train)
    if len(distinct) < len(train):  # a copy of one that is there twice is nearer to both than to all others
        near = _to_nearest(points(x), distinct, 2)
        near_real = _to_nearest(points(real), distinct, 2 + skip)[:, skip:]
    if near.shape[1] == near_real.shape[1] == 2:
        found.append(_memorised(near, near_real))
    return found


def _memorised(near: Tensor, near_real: Tensor) -> Metric:
    """The share of copies, from distances (n, 2) to the nearest training point and the next, and those of real ones."""
    copied, real = (d[:, 0] < d[:, 1] / CLOSER for d in (near, near_real))
    n, value, floor = len(copied), float(copied.double().mean()), float(real.double().mean())
    stderr = binomial_stderr(value * n, n)
    chance = floor + 3 * math.hypot(stderr, binomial_stderr(floor * len(real), len(real)))
    note = ""
    if value > max(chance, NOTICED):
        note = (
            f"{value:.0%} of the samples are copies of training examples ({floor:.0%} of real ones look so): the model "
            "has learned them by heart. Use more examples, augmentation, or an earlier average"
        )
    return Metric("memorised", value, stderr, floor, "lower", n, note)


def _distinct(x: Tensor) -> Tensor:
    """The rows of x without their repetitions, in order."""
    flat = x.contiguous().flatten(1).numpy()
    first: dict[bytes, int] = {}
    for i, row in enumerate(flat):
        first.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), i)
    return x if len(first) == len(x) else x[list(first.values())]


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


def _to_nearest(x: Tensor, train: Tensor, count: int) -> Tensor:
    """Distances (n, count) from each row of x (n, d) to its nearest training points, in order; fewer of fewer."""
    best = x.new_empty(len(x), 0)
    for block in train.split(max(count, BLOCK // x.shape[1])):
        base = points(block)
        # float32 finds the candidates, float64 measures them: large sets in half the time, and distance 0 stays 0
        scores = torch.addmm(base.square().sum(1).float(), x.float(), base.float().T, alpha=-2.0)
        for _ in range(min(count, len(base))):
            near = scores.argmin(1, keepdim=True)
            scores.scatter_(1, near, float("inf"))
            best = torch.cat([best, (base[near[:, 0]] - x).norm(dim=1, keepdim=True)], 1)
        best = best.sort(dim=1).values[:, :count]
    return best


def _medians(r: Tensor, generator: torch.Generator) -> Tensor:
    index = torch.randint(len(r), (RESAMPLES, len(r)), generator=generator)
    return r[index].quantile(0.5, dim=1)
