"""What samples give away: rows that are nearer to training rows than to others, copies, words that only one row has.

None of it is a guarantee. A model may hold what none of these numbers sees; only noise in training (differential
privacy) bounds what can be learned of a person, and there is none here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..base import binomial_stderr
from .columns import Codes, Column, Schema, is_category, modelled, shown, thinned

THINNINGS = 5
BLOCK = 4_000_000  # distances taken at a time
RARE_ROWS, RARE_SHARE = 5, 0.01  # a rare word or level: that of at most 5 rows or 1 % of them
SURELY = 0.01  # chance that any rare word is called too frequent where none is


def distances(schema: Schema, x: Codes, y: Codes, scales: Codes) -> Codes:
    """Mixed distances between rows (n, m), summed over columns.

    Of words 0 or 1; of numbers, dates and levels |a - b| over the scale; between a gap and a value 1, of two gaps 0.

    Args:
        schema: the columns.
        x: codes (n, d).
        y: codes (m, d).
        scales: (d,), such as standard deviations.
    """
    total = np.zeros((len(x), len(y)))
    for k, spec in enumerate(modelled(schema)):
        a, b = x[:, k, None], y[None, :, k]
        apart = (a != b).astype(float) if spec.kind == "words" else np.abs(a / scales[k] - b / scales[k])
        gap_a, gap_b = np.isnan(a), np.isnan(b)
        if gap_a.any() or gap_b.any():
            apart = np.where(gap_a | gap_b, (gap_a != gap_b).astype(float), apart)
        total += apart
    return total


def scales_of(schema: Schema, rows: Codes) -> Codes:
    """Standard deviations (d,) of the columns of rows, 1 where there is none."""
    found = np.ones(rows.shape[1])
    for k in range(len(modelled(schema))):
        seen = rows[~np.isnan(rows[:, k]), k]
        if len(seen) and 0 < seen.std() < math.inf:
            found[k] = seen.std()
    return found


def closest_share(
    schema: Schema, x: Codes, train: Codes, heldout: Codes, *, limit: int = 2000, seed: int = 0
) -> tuple[float, float, int]:
    """Share of samples whose closest real row is one of training, among as many training rows as held-out ones.

    It is 1/2 where samples are nearer to neither, as held-out rows are exchangeable with training rows then, and 1 for
    copies. A row that is equally near to both counts half. The error is that of the exchange: which of the 2m rows are
    the training ones is a draw, and a row that is closest to many samples counts for as many; never below the binomial
    one. Of many training rows, 5 random parts are taken, which the error does not count on.

    Args:
        schema: the columns.
        x: samples, codes (n, d).
        train: training rows, codes.
        heldout: rows that training did not see, codes.
        limit: most rows taken of each.
        seed: of which are taken.

    Returns:
        The share, its standard error, and the number of samples.
    """
    rng = np.random.default_rng(seed)
    scales = scales_of(schema, train)
    x, held = thinned(x, limit, rng), thinned(heldout, min(limit, len(train)), rng)
    n, m = len(x), len(held)
    to_held, which_held = _closest(schema, x, held, scales)
    order = rng.permutation(len(train))
    shares, spreads = [], []
    for part in range(min(THINNINGS, len(train) // m)):
        to_train, which_train = _closest(schema, x, train[order[part * m : (part + 1) * m]], scales)
        won = np.where(to_train < to_held, 1.0, np.where(to_train == to_held, 0.5, 0.0))
        shares.append(won.mean())
        mass = np.bincount(which_train, won, m), np.bincount(which_held, 1.0 - won, m)
        mass = np.concatenate(mass) / n
        # m of 2m rows are training rows: the variance of the mass of a random half
        spreads.append(m * np.var(mass, ddof=1) / 2)
    share = float(np.mean(shares))
    return share, max(float(np.sqrt(np.mean(spreads))), binomial_stderr(share * n, n)), n


def _closest(schema: Schema, x: Codes, rows: Codes, scales: Codes) -> tuple[Codes, np.ndarray]:
    """Distance from each row of x to the closest of rows, and which that is."""
    step = max(1, BLOCK // len(rows))
    near, which = np.empty(len(x)), np.empty(len(x), dtype=int)
    for first in range(0, len(x), step):
        d = distances(schema, x[first : first + step], rows, scales)
        which[first : first + step], near[first : first + step] = d.argmin(1), d.min(1)
    return near, which


def duplicates(x: Codes, train: Codes) -> np.ndarray:
    """Which rows of x (n, d) are equal to a training row, in every cell; bool (n,)."""
    known = {row.tobytes() for row in _one_nan(train)}
    return np.array([row.tobytes() in known for row in _one_nan(x)])


def _one_nan(rows: Codes) -> Codes:
    return np.where(np.isnan(rows), np.nan, rows) + 0.0


@dataclass(frozen=True)
class RareValue:
    """A rare word or level.

    Args:
        column: its name.
        value: as the file writes it.
        training: rows of training that have it.
        samples: samples that have it.
        expected: samples that would, were they drawn from the training rows.
        too_often: whether there are more than chance allows, of all rare ones together.
    """

    column: str
    value: str
    training: int
    samples: int
    expected: float
    too_often: bool


@dataclass(frozen=True)
class Rare:
    """The rare words and levels of a table, those of at most 5 rows or 1 % of them.

    Args:
        values: of the training rows, the rarest first.
        reached: share of them that samples have.
        expected: share that as many draws from the training rows would have.
        stderr: error of `reached` over draws.
        once: words that one training row has, in all columns.
        holders: share of samples that have such a word.
        real_holders: share of held-out rows that have one.
    """

    values: tuple[RareValue, ...]
    reached: float
    expected: float
    stderr: float
    once: int
    holders: float
    real_holders: float

    def too_often(self) -> list[RareValue]:
        """Those of which there are too many samples, the worst first."""
        return sorted((v for v in self.values if v.too_often), key=lambda v: v.expected - v.samples)


def rare(schema: Schema, x: Codes, train: Codes, heldout: Codes) -> Rare | None:
    """Count the rare words and levels of training rows among samples.

    n draws from the training rows, with replacement, have a value of share p with chance 1 - (1 - p)^n: that is what
    is expected. Too often is a value of which samples have c and training rows t, where c or more of c + t would be
    samples with a chance below 0.01 over the number of rare values (binomial, Bonferroni).

    Args:
        schema: the columns.
        x: samples, codes (n, d).
        train: training rows, codes (m, d).
        heldout: rows that training did not see.

    Returns:
        The counts; None for a table that has no rare words or levels.
    """
    from scipy.stats import binom

    n, m = len(x), len(train)
    found: list[tuple[Column, float, int, int]] = []
    holders, real_holders, once = np.zeros(n, bool), np.zeros(len(heldout), bool), 0
    for k, spec in enumerate(modelled(schema)):
        if not is_category(spec):
            continue
        values, counts = np.unique(train[~np.isnan(train[:, k]), k], return_counts=True)
        few = counts <= max(RARE_ROWS, RARE_SHARE * m)
        ours = dict(zip(*np.unique(x[:, k], return_counts=True), strict=True))
        found += [(spec, v, int(t), int(ours.get(v, 0))) for v, t in zip(values[few], counts[few], strict=True)]
        if spec.kind == "words":
            single = values[counts == 1]
            once += len(single)
            holders |= np.isin(x[:, k], single)
            real_holders |= np.isin(heldout[:, k], single)
    if not found:
        return None
    chance = np.array([1.0 - (1.0 - t / m) ** n for _, _, t, _ in found])
    rows = [
        RareValue(
            spec.name, shown(spec, v), t, c, n * t / m, bool(binom.sf(c - 1, c + t, n / (n + m)) < SURELY / len(found))
        )
        for spec, v, t, c in found
    ]
    return Rare(
        tuple(sorted(rows, key=lambda v: v.training)),
        float(np.mean([v.samples > 0 for v in rows])),
        float(chance.mean()),
        float(np.sqrt((chance * (1 - chance)).sum())) / len(rows),
        once,
        float(holders.mean()),
        float(real_holders.mean()),
    )
