"""Column Shapes and Pair Trends: how like the real ones single columns and pairs of columns are; 1 is equal.

    a number, a date       1 - KS, the largest distance of the two distribution functions; gaps are left out
    words, levels          1 - TV, half the sum of |p - p'|; a gap is a value like others
    gaps                   1 - |share - share'|, an entry of its own, where either table has any
    two numbers            1 - |r - r'| / 2, Pearson's correlation of the rows that have both
    all other pairs        1 - TV of the contingency table; numbers in 10 bins of equal width over the range of the real
                           ones, the same for both tables and open at the ends; a gap is a bin

These are the scores of `sdmetrics`, but for the bins: that package cuts each table at its own range, so that one sample
out of range moves every bin. Statistics take weights of rows, so that parts and resamples cost no sorting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .columns import Codes, Column, Schema, as_codes, is_category, modelled

Weighted = Callable[[Codes, Codes], float]  # weights of the rows of both tables -> a score, NaN for none
Pair = tuple[int, int]

BINS = 10
LEAST = 3  # rows with both numbers, for a correlation
PAIRS = 1000  # most pairs that are looked at
RESAMPLES = 40  # an error of 11 %
PARTS = 10


def column_shapes(schema: Schema, x: Codes, y: Codes) -> Codes:
    """Column Shapes: the likeness of each column, 1 - KS of numbers and dates, 1 - TV of words and levels.

    Args:
        schema: the columns of both tables.
        x: samples, codes (n, d).
        y: real rows, codes (m, d).

    Returns:
        Shares (d,).
    """
    return _values(_shapes(*_rows(schema, x, y)), len(x), len(y))


def gap_scores(schema: Schema, x: Codes, y: Codes) -> Codes:
    """The likeness of the shares of gaps, 1 - |share - share'|, of each column (d,); NaN where there are none."""
    return _values(_gaps(*_rows(schema, x, y)), len(x), len(y))


def pair_trends(schema: Schema, x: Codes, y: Codes, pairs: Sequence[Pair] | None = None) -> Codes:
    """Pair Trends: the likeness of each pair of columns, of correlations or of contingency tables.

    Args:
        schema: the columns of both tables.
        x: samples, codes (n, d).
        y: real rows, codes (m, d); the bins are theirs.
        pairs: places of the columns of each pair; None: all of them, the first column's first.

    Returns:
        Shares (pairs,); NaN where the real rows have no correlation, as one number is constant.
    """
    columns, x, y = _rows(schema, x, y)
    return _values(_trends(columns, x, y, y, all_pairs(len(columns)) if pairs is None else pairs), len(x), len(y))


def all_pairs(d: int) -> list[Pair]:
    """The pairs of d columns."""
    return [(i, j) for i in range(d) for j in range(i + 1, d)]


def _rows(schema: Schema, x: Codes, y: Codes) -> tuple[tuple[Column, ...], Codes, Codes]:
    return modelled(schema), as_codes(schema, x, "samples"), as_codes(schema, y, "real rows")


def _values(scores: Sequence[Weighted], n: int, m: int) -> Codes:
    return np.array([score(np.ones(n), np.ones(m)) for score in scores])


def _places(a: Codes, b: Codes) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Values of both as places in the order of all of them, and how many there are; gaps are one value, the last."""
    values, places = np.unique(np.concatenate([a, b]), return_inverse=True)
    return places[: len(a)], places[len(a) :], len(values)


def _shapes(columns: Sequence[Column], x: Codes, y: Codes) -> list[Weighted]:
    found: list[Weighted] = []
    for k, spec in enumerate(columns):
        a, b, count = _places(x[:, k], y[:, k])
        if is_category(spec):
            found.append(partial(_one_minus_tv, a, b, count))
        else:
            has_a, has_b = ~np.isnan(x[:, k]), ~np.isnan(y[:, k])
            found.append(partial(_one_minus_ks, a[has_a], b[has_b], has_a, has_b, count))
    return found


def _one_minus_tv(a: NDArray, b: NDArray, count: int, wa: Codes, wb: Codes) -> float:
    p, q = np.bincount(a, wa, count) / wa.sum(), np.bincount(b, wb, count) / wb.sum()
    return 1.0 - 0.5 * float(np.abs(p - q).sum())


def _one_minus_ks(a: NDArray, b: NDArray, has_a: NDArray, has_b: NDArray, count: int, wa: Codes, wb: Codes) -> float:
    wa, wb = wa[has_a], wb[has_b]
    total_a, total_b = wa.sum(), wb.sum()
    if not (total_a and total_b):
        return float(total_a == total_b)  # only gaps on one side are like nothing
    p, q = np.bincount(a, wa, count).cumsum() / total_a, np.bincount(b, wb, count).cumsum() / total_b
    return 1.0 - float(np.abs(p - q).max())


def _gaps(columns: Sequence[Column], x: Codes, y: Codes) -> list[Weighted]:
    def score(a: Codes, b: Codes, wa: Codes, wb: Codes) -> float:
        return 1.0 - abs(float(wa @ a / wa.sum() - wb @ b / wb.sum()))

    gaps = [(np.isnan(x[:, k]).astype(float), np.isnan(y[:, k]).astype(float)) for k in range(len(columns))]
    return [partial(score, a, b) if a.any() or b.any() else lambda wa, wb: np.nan for a, b in gaps]


def _trends(columns: Sequence[Column], x: Codes, y: Codes, real: Codes, pairs: Sequence[Pair]) -> list[Weighted]:
    """Scores of pairs; numbers are binned over the range of `real`."""
    bins: dict[int, tuple[NDArray, NDArray, int]] = {}
    for k in {k for pair in pairs for k in pair}:
        edges = None if is_category(columns[k]) else bin_edges(real[:, k])
        bins[k] = _places(_binned(x[:, k], edges), _binned(y[:, k], edges))
    found: list[Weighted] = []
    for i, j in pairs:
        if is_category(columns[i]) or is_category(columns[j]):
            (ai, bi, _), (aj, bj, count) = bins[i], bins[j]
            a, b, cells = _places((ai * count + aj).astype(float), (bi * count + bj).astype(float))
            found.append(partial(_one_minus_tv, a, b, cells))
        else:
            found.append(partial(_one_minus_r, Moments(x[:, i], x[:, j]), Moments(y[:, i], y[:, j])))
    return found


def bin_edges(real: Codes) -> Codes:
    """The edges between BINS bins of equal width over the range of real numbers (m,); none where they are equal."""
    seen = real[~np.isnan(real)]
    if not len(seen) or seen.min() == seen.max():
        return np.array([])
    return np.linspace(seen.min(), seen.max(), BINS + 1)[1:-1]


def _binned(values: Codes, edges: Codes | None) -> Codes:
    """Number of the bin of each value, NaN for a gap; categories stay as they are."""
    return values if edges is None else np.where(np.isnan(values), np.nan, np.searchsorted(edges, values, "right"))


def _one_minus_r(a: Moments, b: Moments, wa: Codes, wb: Codes) -> float:
    real = b(wb)
    if np.isnan(real):
        return np.nan
    ours = a(wa)
    return 1.0 - 0.5 * abs((0.0 if np.isnan(ours) else ours) - real)


def correlation(a: Codes, b: Codes) -> float:
    """Pearson's correlation of two columns (n,) over the rows that have both; NaN for fewer than 3, or constants."""
    return Moments(a, b)(np.ones(len(a)))


class Moments:
    """Sums over two columns (n,) that give their correlation for any weights of the rows."""

    def __init__(self, a: Codes, b: Codes) -> None:
        self.both = ~(np.isnan(a) | np.isnan(b))
        z = np.stack([a[self.both], b[self.both]])
        if z.size:
            z = z / np.maximum(np.abs(z).max(1, keepdims=True), np.finfo(float).tiny)  # so that squares stay finite
            z = z - z.mean(1, keepdims=True)
            widths = np.abs(z).max(1, keepdims=True)
            z = np.where(widths > 1e-12, z / np.maximum(widths, 1e-12), 0.0)  # not what rounding leaves of a constant
        x, y = z
        self.terms = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], 1)

    def __call__(self, weights: Codes) -> float:
        """The correlation under weights (n,)."""
        total, x, y, xx, yy, xy = (weights[self.both] @ self.terms).tolist()
        if total < LEAST:
            return np.nan
        spread = (xx - x * x / total, yy - y * y / total)
        if min(spread) <= 1e-12 * total:
            return np.nan
        return (xy - x * y / total) / math.sqrt(spread[0] * spread[1])


@dataclass(frozen=True)
class Scores:
    """Scores of columns or of pairs, their errors and floors.

    Args:
        names: of each, of k.
        values: (k,), at n rows; NaN where there is none.
        stderr: (k,), of fresh draws of samples and real rows, by the bootstrap.
        floors: (k,), of held-out rows, at n rows.
        mean: of the values.
        mean_stderr: its error.
        mean_floor: the mean of the floors.
        n: rows that a score is of.
        of: how many there are, where not all were looked at.
    """

    names: tuple[tuple[str, ...], ...]
    values: Codes
    stderr: Codes
    floors: Codes
    mean: float
    mean_stderr: float
    mean_floor: float
    n: int
    of: int = 0

    def order(self) -> list[int]:
        """Places of those that have a score, the worst first."""
        return [int(k) for k in np.argsort(self.values, kind="stable") if not np.isnan(self.values[k])]

    def worst(self) -> str:
        """The worst of them by name."""
        k = self.order()[0]
        return f"{' and '.join(self.names[k])} ({self.values[k]:.2f}, real data {self.floors[k]:.2f})"


def measured(
    names: Sequence[tuple[str, ...]],
    ours: Sequence[Weighted],
    real: Sequence[Weighted],
    counts: tuple[int, int, int],
    seed: int,
    of: int = 0,
) -> Scores | None:
    """Scores of samples, with errors, and those of held-out rows at the same number of rows.

    A score of few rows is low by chance. So it is taken of n rows, as many as the smaller of both sets has, and the
    mean over up to 10 disjoint parts of the larger one is stated. Errors are the bootstrap's over all rows of samples
    and training set; near 1 they are too large, by up to a half, as the bootstrap adds its noise to that of the data.

    Args:
        names: of columns or pairs.
        ours: scores of samples against training rows.
        real: scores of held-out rows against training rows.
        counts: numbers of samples, training rows and held-out rows.
        seed: of parts and resamples.
        of: how many pairs there are.

    Returns:
        The scores; None where there are none.
    """
    samples, train, held = counts
    n = min(samples, held)
    rng = np.random.default_rng(seed)
    values, floors = (_in_parts(f, size, n, train, rng) for f, size in ((ours, samples), (real, held)))
    if np.isnan(values).all():
        return None
    draws = []
    for _ in range(RESAMPLES):
        wx, wy = (rng.multinomial(size, np.full(size, 1.0 / size)).astype(float) for size in (samples, train))
        draws.append([f(wx, wy) for f in ours])
    known = ~np.isnan(values)
    spread = np.array(draws)
    ours_mean, stderr = _mean_of(spread[:, known]), np.full(len(values), np.nan)
    stderr[known] = [_std(column) for column in spread[:, known].T]
    floor = _mean_of(floors[None, known])
    return Scores(
        tuple(names), values, stderr, floors, float(values[known].mean()), _std(ours_mean), float(floor[0]), n, of
    )


def _in_parts(scores: Sequence[Weighted], size: int, n: int, train: int, rng: np.random.Generator) -> Codes:
    """Mean scores of disjoint random parts of n of `size` rows."""
    order, total, everything = rng.permutation(size), np.zeros((0, len(scores))), np.ones(train)
    for part in range(min(PARTS, size // n)):
        weights = np.zeros(size)
        weights[order[part * n : (part + 1) * n]] = 1.0
        total = np.vstack([total, [f(weights, everything) for f in scores]])
    return np.array([column[~np.isnan(column)].mean() if not np.isnan(column).all() else np.nan for column in total.T])


def _mean_of(rows: Codes) -> Codes:
    """Means of the entries of each row that are numbers."""
    return np.array([row[~np.isnan(row)].mean() if not np.isnan(row).all() else np.nan for row in rows])


def _std(draws: Codes) -> float:
    draws = draws[~np.isnan(draws)]
    return float(draws.std(ddof=1)) if len(draws) > 1 else 0.0


def shape_scores(schema: Schema, x: Codes, train: Codes, held: Codes, seed: int = 0) -> Scores | None:
    """Column Shapes of samples against training rows, the floor that of held-out rows (`measured`)."""
    columns = modelled(schema)
    return measured(
        [(spec.name,) for spec in columns],
        _shapes(columns, x, train),
        _shapes(columns, held, train),
        (len(x), len(train), len(held)),
        seed,
    )


def gap_share_scores(schema: Schema, x: Codes, train: Codes, held: Codes, seed: int = 0) -> Scores | None:
    """Likeness of the shares of gaps, of the columns that have any; None where none has."""
    columns = modelled(schema)
    names = [(spec.name,) for spec in columns]
    ours, real = _gaps(columns, x, train), _gaps(columns, held, train)
    return measured(names, ours, real, (len(x), len(train), len(held)), seed)


def trend_scores(schema: Schema, x: Codes, train: Codes, held: Codes, seed: int = 0) -> Scores | None:
    """Pair Trends of samples against training rows; of more than 1000 pairs, 1000 at random. None for one column."""
    columns = modelled(schema)
    d = len(columns)
    pairs = all_pairs(d)
    if not pairs:
        return None
    if len(pairs) > PAIRS:
        chosen = np.random.default_rng(seed).choice(len(pairs), PAIRS, replace=False)
        pairs = [pairs[k] for k in sorted(chosen)]
    names = [(columns[i].name, columns[j].name) for i, j in pairs]
    ours, real = _trends(columns, x, train, train, pairs), _trends(columns, held, train, train, pairs)
    return measured(names, ours, real, (len(x), len(train), len(held)), seed, d * (d - 1) // 2)
