"""A comparison of the rows of a table: samples, training rows and held-out rows; its metrics, each measured once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..base import Metric, binomial_stderr
from . import boosting, privacy, similarity
from .columns import Codes, Column, Schema, as_codes, modelled

HALVES = "nothing is held out: half of the training rows play that part, which the model has seen"


@dataclass(frozen=True, eq=False)
class TableComparison:
    """Samples of a table beside real rows. Numbers are rounded to the decimals of their file first.

    Args:
        schema: the columns; those that a model does not learn have no codes.
        x: samples, codes (n, d) as the writer would write them.
        train: training rows, codes (m, d).
        heldout: rows that training did not see; None: half of the training rows play that part, and nothing is said of
            the distance to the closest row.
        target: column that models are trained to foretell; None: a guess.
        seed: of every draw.

    Raises:
        ValueError: for rows that are no codes of the schema, a target that is not there, and fewer than 2 real rows.
    """

    schema: Schema
    x: Codes
    train: Codes
    heldout: Codes | None = None
    target: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, called in (("x", "samples"), ("train", "training rows"), ("heldout", "held-out rows")):
            rows = getattr(self, name)
            if rows is not None:
                object.__setattr__(self, name, as_codes(self.schema, rows, called))
        if self.heldout is None and len(self.train) < 2:
            raise ValueError("one training row and none held out: nothing can be compared. Give two rows or more")
        if self.target is not None:
            boosting.place_of(self.columns, self.target)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those that are modelled."""
        return modelled(self.schema)

    @cached_property
    def real(self) -> tuple[Codes, Codes]:
        """Training rows and held-out rows, or two halves of the training rows."""
        if self.heldout is not None:
            return self.train, self.heldout
        order = np.random.default_rng(self.seed).permutation(len(self.train))
        half = len(order) // 2
        return self.train[order[half:]], self.train[order[:half]]

    @cached_property
    def shapes(self) -> similarity.Scores | None:
        """Column Shapes."""
        return similarity.shape_scores(self.schema, self.x, *self.real, self.seed)

    @cached_property
    def gaps(self) -> similarity.Scores | None:
        """Likeness of the shares of gaps; None where there are none."""
        return similarity.gap_share_scores(self.schema, self.x, *self.real, self.seed)

    @cached_property
    def trends(self) -> similarity.Scores | None:
        """Pair Trends; None for one column."""
        return similarity.trend_scores(self.schema, self.x, *self.real, self.seed)

    @cached_property
    def utility(self) -> boosting.Utility | None:
        """What models learn from samples; None where nothing can be foretold."""
        return boosting.utility(self.schema, self.x, *self.real, self.target, seed=self.seed)

    @cached_property
    def c2st(self) -> tuple[float, float, float, int] | None:
        """C2ST's area, its error, the floor, and how many rows each set had; None for fewer than 10."""
        train, held = self.real
        n = min(1500, len(self.x), len(train), len(held))
        if n < 2 * boosting.FOLDS:
            return None
        floor = boosting.c2st_auc(self.schema, held, train, limit=n, seed=self.seed)[0]
        value, stderr, n = boosting.c2st_auc(self.schema, self.x, train, limit=n, seed=self.seed)
        return value, stderr, floor, n

    @cached_property
    def closest(self) -> tuple[float, float, int] | None:
        """Share of samples whose closest real row is a training row, its error, and n; None if nothing is held out."""
        if self.heldout is None:
            return None
        return privacy.closest_share(self.schema, self.x, self.train, self.heldout, seed=self.seed)

    @cached_property
    def rare(self) -> privacy.Rare | None:
        """Rare words and levels; None where there are none."""
        return privacy.rare(self.schema, self.x, self.train, self.real[1])


def _of_scores(name: str, scores: similarity.Scores | None, what: str) -> list[Metric]:
    if scores is None:
        return []
    looked = f", {len(scores.names)} of {scores.of} pairs at random" if scores.of > len(scores.names) else ""
    note = f"the worst {what} is {scores.worst()}{looked}"
    return [Metric(name, scores.mean, scores.mean_stderr, scores.mean_floor, "higher", scores.n, note)]


def shape_metrics(table: TableComparison) -> Sequence[Metric]:
    """Column Shapes, their mean with the worst column by name, and the likeness of the shares of gaps.

    Args:
        table: what is compared.
    """
    return [*_of_scores("column_shapes", table.shapes, "column"), *_of_scores("gap_shares", table.gaps, "column")]


def trend_metrics(table: TableComparison) -> Sequence[Metric]:
    """Pair Trends, their mean with the worst pair by name.

    Args:
        table: what is compared.
    """
    return _of_scores("pair_trends", table.trends, "pair")


def boosted_c2st(table: TableComparison) -> Sequence[Metric]:
    """Classifier two-sample test by gradient boosting: samples against training rows, held-out rows for the floor.

    Args:
        table: what is compared; as many rows of each set are taken, 1500 at most.
    """
    if table.c2st is None:
        return []
    value, stderr, floor, n = table.c2st
    return [Metric("c2st_auc", value, stderr, floor, "lower", n)]


def tstr(table: TableComparison) -> Sequence[Metric]:
    """Train on synthetic, test on real: R2 or AUC of a column; the floor is the same trained on as many real rows.

    Args:
        table: what is compared.
    """
    u = table.utility
    if u is None:
        return []
    note = (
        f"{u.measure} of {u.target} ({u.why}), trained on {u.trained} rows; minus that trained on real rows "
        f"{u.value - u.floor:+.3f} ± {u.difference_stderr:.3f}"
    )
    if table.heldout is None:
        note += f"; {HALVES}"
    return [Metric("tstr", u.value, u.stderr, u.floor, "higher", u.n, note)]


def closest_metrics(table: TableComparison) -> Sequence[Metric]:
    """Share of samples whose closest real row is a training row, and share that are equal to one.

    Args:
        table: what is compared; without held-out rows nothing is said.
    """
    if table.closest is None or table.heldout is None:
        return []
    share, stderr, n = table.closest
    found = [Metric("closest_is_training", share, stderr, 0.5, "lower", n)]
    same, real = (privacy.duplicates(rows, table.train) for rows in (table.x, table.heldout))
    value, floor = float(same.mean()), float(real.mean())
    stderr = binomial_stderr(int(same.sum()), len(same))
    note = ""
    if value > floor + 3 * math.hypot(stderr, binomial_stderr(int(real.sum()), len(real))):
        note = (
            f"{int(same.sum())} of {len(same)} samples equal a training row in every cell, more than held-out rows do"
        )
    return [*found, Metric("duplicates", value, stderr, floor, "lower", len(same), note)]


def rare_metrics(table: TableComparison) -> Sequence[Metric]:
    """Share of rare words and levels that samples reach, and share of samples with a word that one training row has.

    Args:
        table: what is compared.
    """
    found = table.rare
    if found is None:
        return []
    n = len(table.x)
    often = found.too_often()
    note = f"{len(found.values)} values of at most 5 rows or 1 %"
    if often:
        names = ", ".join(f"{v.column} = {v.value} ({v.samples} for {v.expected:.1f})" for v in often[:3])
        note += f"; {len(often)} come too often: {names}"
    metrics = [Metric("rare_values", found.reached, found.stderr, found.expected, "higher", n, note)]
    if found.once:
        note = f"{found.once} words stand in one training row each: merge them where rows are people (--min-count 5)"
        stderr = binomial_stderr(found.holders * n, n)
        metrics.append(Metric("single_words", found.holders, stderr, found.real_holders, "lower", n, note))
    return metrics
