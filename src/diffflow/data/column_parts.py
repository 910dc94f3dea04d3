"""Parts: the coordinates of one column of a table, and the normal scores of its numbers.

A score is Phi^-1(F(x)), piecewise linear between some quantiles of the training rows and beyond them as in the last
interval; how many quantiles there are is decided by the values that they were not taken of (`knots_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MOST_KNOTS, FOLDS = 1000, 5


@dataclass(frozen=True)
class Part:
    """The coordinates of one column.

    Args:
        kind: "words", "levels" or "number".
        first: number of its first coordinate.
        width: how many coordinates it has.
        values: words and levels: the codes that it takes; number: its atoms. A gap is NaN, the last one.
        prior: their shares of the training rows; of a number with atoms that of all present values before them.
        knots: number: rising values; levels: two values whose coordinates are -1 and 1.
        scores: number: the normal scores of the knots.
        spread: number: the width over which a value is spread: the step of the column, or its last digit.
    """

    kind: str
    first: int
    width: int
    values: tuple[float, ...] = ()
    prior: tuple[float, ...] = ()
    knots: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    spread: float = 0.0

    @property
    def last(self) -> int:
        """The coordinate after its last one; of a number this one before is the score."""
        return self.first + self.width

    @property
    def flagged(self) -> bool:
        """Whether it is a number with atoms."""
        return self.kind == "number" and self.width > 1


def numbers(values: Sequence[float]) -> Tensor:
    """Values as float64 (k,)."""
    return torch.tensor(values, dtype=torch.float64)


# -- levels ------------------------------------------------------------------------------------------------------------


def positions(part: Part) -> Tensor:
    """Coordinates of the values of a column of few values, float64 (k,)."""
    low, high = part.knots
    return 2 * (numbers(part.values) - low) / (high - low) - 1


# -- scores ------------------------------------------------------------------------------------------------------------


def to_scores(x: Tensor, part: Part) -> Tensor:
    """Normal scores of values (n,), float64: linear between the knots, and beyond them as in the last interval."""
    return _linear(x, numbers(part.knots), numbers(part.scores))


def from_scores(z: Tensor, part: Part) -> Tensor:
    """Values of normal scores (n,), float64."""
    return _linear(z, numbers(part.scores), numbers(part.knots))


def slopes(x: Tensor, part: Part) -> Tensor:
    """Derivatives dscore/dx at values (n,), float64."""
    knots, scores = numbers(part.knots), numbers(part.scores)
    return (scores.diff() / knots.diff())[_interval(x, knots)]


def _interval(x: Tensor, knots: Tensor) -> Tensor:
    return (torch.searchsorted(knots, x.contiguous(), right=True) - 1).clamp(0, len(knots) - 2)


def _linear(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    k = _interval(x, knots)
    return values[k] + (x - knots[k]) * (values.diff() / knots.diff())[k]


def knots_of(x: np.ndarray, seed: int = 0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The knots and the scores of a column of numbers.

    Candidates are a straight line and quantiles, more and more of them. That is taken under which values kept aside,
    each fifth in turn, are most probable; of those that are not worse by more than a standard error, the simplest.

    Args:
        x: values of the training rows (n,), spread over their last digit.
        seed: of the fifths.
    """
    n, x = len(x), np.sort(x)
    counts = [0, *(m for m in (5, 9, 17, 33, 65, 129, 257, 513, MOST_KNOTS) if m <= n // 3)]
    if n < 2 * FOLDS or len(counts) == 1:
        return line(x)
    fold = np.random.RandomState(seed).permutation(n) % FOLDS
    logs = np.zeros((len(counts), n))
    for k in range(FOLDS):
        for i, m in enumerate(counts):
            logs[i, fold == k] = _densities(x[fold == k], *quantiles(x[fold != k], m))
    best = logs[logs.mean(1).argmax()]
    worse = [(best - mine).mean() <= (best - mine).std() / n**0.5 for mine in logs]
    return quantiles(x, counts[worse.index(True)])


def line(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The straight line through mean and standard deviation."""
    mean, std = float(x.mean()), float(x.std()) or 1.0
    return (mean - std, mean + std), (-1.0, 1.0)


def quantiles(x: np.ndarray, m: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """M quantiles of rising values (n,) and their normal scores; 0: the straight line."""
    if m == 0:
        return line(x)
    share = (np.arange(m) + 0.5) / m
    at = np.quantile(x, share, method="hazen")
    keep = np.concatenate([[True], np.diff(at) > 1e-12 * max(np.abs(at).max(), 1e-300)])
    if keep.sum() < 2:
        return line(x)
    score = torch.special.ndtri(torch.from_numpy(share[keep])).numpy()
    return tuple(at[keep].tolist()), tuple(score.tolist())


def _densities(x: np.ndarray, knots: tuple[float, ...], scores: tuple[float, ...]) -> np.ndarray:
    """Log-densities of values (n,) whose scores are normal, up to a constant."""
    part, values = Part("number", 0, 1, knots=knots, scores=scores), torch.from_numpy(x)
    return (slopes(values, part).log() - 0.5 * to_scores(values, part).square()).numpy()
