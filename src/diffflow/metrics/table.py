"""METRICS: the table of metrics, a row each, in the order in which `evaluate` measures and prints them.

A new metric is a function in a file of its own and a row here; one from outside the package is made known by
`register(MetricRow(...))`. Documentation, report and command line take their words from the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..equation.laws import GaussianMixture
from .base import Better, Metric
from .classifier import Classifier, accuracy, c2st
from .frechet import frechet
from .mmd import energy_distance, kid, mmd
from .modes import countable, modes
from .neighbours import nearest, prdc
from .tables import (
    TableComparison,
    boosted_c2st,
    closest_metrics,
    rare_metrics,
    shape_metrics,
    trend_metrics,
    tstr,
)
from .wasserstein import exact_w2, marginal_w2, sliced_w2

Triple = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a metric can ask for in `evaluate`; its methods are the arguments of the usual kinds of metric.

    Args:
        sets: samples (n, *shape), real points and more real points for the floor, in the units that are compared:
            images as bytes or in [0, 1], rows of a table standardised.
        train: the whole reference (m, *shape), in these units.
        heldout: the held-out points in these units; None where half of the reference plays that part.
        features: features (n, k) of the three sets; None without a judge whose features are asked for.
        columns: whether events are rows of a table with columns of their own.
        density: the mixture that the data were drawn from, in decoded units; None where it is unknown, or where the
            samples are too few to look for all of its modes.
        labels: the classes asked for, int64 (n,); None without classes.
        judge: the classifier for them.
        decoded: samples, held-out points or None, and their classes or None, in the units of the data.
        limit: most points in a two-sample metric.
        many: most points in the Frechet distance.
        seed: of every draw.
        enough: whether there are real points enough for two sets, so that two-sample metrics can be taken.
        table: the rows with their schema, of tables that have one; None for others.
    """

    sets: Triple
    train: Tensor
    heldout: Tensor | None
    features: Triple | None
    columns: bool
    density: GaussianMixture | None
    labels: Tensor | None
    judge: Classifier | None
    decoded: tuple[Tensor, Tensor | None, Tensor | None]
    limit: int
    many: int
    seed: int
    enough: bool = True
    table: TableComparison | None = None

    def points(self, most: int | None = None) -> dict[str, Any]:
        """Arguments of a two-sample metric (x, y, other, *, limit, seed) that sees the points."""
        x, y, other = self.sets
        limit = self.limit if most is None else min(self.limit, most)
        return {"x": x, "y": y, "other": other, "limit": limit, "seed": self.seed}

    def seen(self, limit: int | None = None) -> dict[str, Any]:
        """Arguments of a two-sample metric that sees the features, or the points where there are none."""
        x, y, other = self.features or self.sets
        return {"x": x, "y": y, "other": other, "limit": self.limit if limit is None else limit, "seed": self.seed}

    def training_set(self) -> dict[str, Any]:
        """Arguments of `nearest`."""
        limit = min(self.limit, 1000)
        return {"x": self.sets[0], "train": self.train, "other": self.heldout, "limit": limit, "seed": self.seed}

    def mixture(self) -> dict[str, Any]:
        """Arguments of `modes`."""
        (x, other, _), law = self.decoded, self.density
        enough = law is not None and other is not None and countable(law, len(other))
        return {"x": x, "law": law, "other": other if enough else None}

    def classes(self) -> dict[str, Any]:
        """Arguments of `accuracy`."""
        x, real, real_labels = self.decoded
        return {"x": x, "labels": self.labels, "classifier": self.judge, "real": real, "real_labels": real_labels}

    def rows(self) -> dict[str, Any]:
        """Arguments of a metric of tables with a schema."""
        return {"table": self.table}

    def has(self, need: str) -> bool:
        """Whether there is what a row needs."""
        return self.columns if need == "columns" else getattr(self, need) is not None


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """A row of the table of metrics.

    Args:
        name: of the metric, as `evaluation.json` has it.
        function: what measures it: gives a Metric of this name, or a list that holds one. Rows with the same function
            share one call.
        arguments: of the function, by name, from what there is to compare; the default is those of a two-sample metric.
        needs: what it cannot do without: names of fields of Comparison, of "features", "columns", "density", "labels",
            "table".
        meaning: what the value says, in words.
        unit: of the value; "" for numbers without one.
        better: which direction is better.
    """

    name: str
    function: Callable[..., Metric | Sequence[Metric]]
    arguments: Callable[[Comparison], dict[str, Any]] = Comparison.points
    needs: tuple[str, ...] = ()
    meaning: str
    unit: str = ""
    better: Better


NEEDS = {
    "features": "features of a judge",
    "columns": "columns of a table",
    "density": "a toy of known modes",
    "labels": "classes",
    "table": "a table with a schema",
}
DISTANCE = "distance"  # in standard deviations of a table's columns; of images, Euclidean with pixels in [0, 1]

ROWS = (
    MetricRow(
        name="w2",
        function=exact_w2,
        arguments=lambda c: c.points(most=1000),
        meaning="exact Wasserstein-2 distance to the data",
        unit=DISTANCE,
        better="lower",
    ),
    MetricRow(
        name="sliced_w2",
        function=sliced_w2,
        meaning="the same along random directions",
        unit=DISTANCE,
        better="lower",
    ),
    MetricRow(
        name="marginal_w2",
        function=marginal_w2,
        needs=("columns",),
        meaning="the same column by column, in standard deviations of the column",
        unit=DISTANCE,
        better="lower",
    ),
    MetricRow(
        name="mmd2",
        function=mmd,
        meaning="maximum mean discrepancy, squared; unbiased, so it can be negative",
        better="lower",
    ),
    MetricRow(
        name="energy",
        function=energy_distance,
        meaning="energy distance; unbiased, so it can be negative",
        unit=DISTANCE,
        better="lower",
    ),
    MetricRow(
        name="precision",
        function=prdc,
        arguments=Comparison.seen,
        meaning="share of samples among the real points",
        unit="share",
        better="higher",
    ),
    MetricRow(
        name="recall",
        function=prdc,
        arguments=Comparison.seen,
        meaning="share of real points among the samples",
        unit="share",
        better="higher",
    ),
    MetricRow(
        name="density",
        function=prdc,
        arguments=Comparison.seen,
        meaning="how crowded the real neighbourhoods of the samples are; 1 is the data's own",
        better="higher",
    ),
    MetricRow(
        name="coverage",
        function=prdc,
        arguments=Comparison.seen,
        meaning="share of real neighbourhoods that hold a sample",
        unit="share",
        better="higher",
    ),
    MetricRow(
        name="c2st",
        function=c2st,
        meaning="a classifier's success in telling samples from data; 0.5 is a perfect model",
        unit="share",
        better="lower",
    ),
    MetricRow(
        name="nearest",
        function=nearest,
        arguments=Comparison.training_set,
        meaning="median distance to the nearest training example",
        unit=DISTANCE,
        better="higher",
    ),
    MetricRow(
        name="nearest_ratio",
        function=nearest,
        arguments=Comparison.training_set,
        meaning="the same over that of held-out data; far below 1 means copies",
        better="higher",
    ),
    MetricRow(
        name="memorised",
        function=nearest,
        arguments=Comparison.training_set,
        meaning="share of samples three times nearer to one training example than to any other: copies",
        unit="share",
        better="lower",
    ),
    MetricRow(
        name="frechet",
        function=frechet,
        arguments=lambda c: c.seen(limit=c.many),
        needs=("features",),
        meaning="Frechet distance between the features of samples and of data",
        unit="features squared",
        better="lower",
    ),
    MetricRow(
        name="kid",
        function=kid,
        arguments=Comparison.seen,
        needs=("features",),
        meaning="kernel distance of features, by their first three moments; unbiased, so it can be negative",
        better="lower",
    ),
    MetricRow(
        name="modes",
        function=modes,
        arguments=Comparison.mixture,
        needs=("density",),
        meaning="modes of the toy that hold at least a fifth of their fair share of the samples",
        unit="count",
        better="higher",
    ),
    MetricRow(
        name="within",
        function=modes,
        arguments=Comparison.mixture,
        needs=("density",),
        meaning="share of samples within 3 standard deviations of a mode",
        unit="share",
        better="higher",
    ),
    MetricRow(
        name="accuracy",
        function=accuracy,
        arguments=Comparison.classes,
        needs=("labels",),
        meaning="share that a classifier trained on real data sees as the class asked for",
        unit="share",
        better="higher",
    ),
    MetricRow(
        name="column_shapes",
        function=shape_metrics,
        arguments=Comparison.rows,
        needs=("table",),
        meaning="likeness of single columns, their mean: 1 - KS of numbers and dates, 1 - TV of words and levels",
        better="higher",
    ),
    MetricRow(
        name="gap_shares",
        function=shape_metrics,
        arguments=Comparison.rows,
        needs=("table",),
        meaning="likeness of the shares of gaps, 1 - their difference, mean of the columns that have any",
        better="higher",
    ),
    MetricRow(
        name="pair_trends",
        function=trend_metrics,
        arguments=Comparison.rows,
        needs=("table",),
        meaning="likeness of pairs of columns, their mean: of correlations, and of contingency tables with common bins",
        better="higher",
    ),
    MetricRow(
        name="c2st_auc",
        function=boosted_c2st,
        arguments=Comparison.rows,
        needs=("table",),
        meaning="area under the ROC curve of boosted trees that tell samples from data; 0.5 is a perfect model",
        better="lower",
    ),
    MetricRow(
        name="tstr",
        function=tstr,
        arguments=Comparison.rows,
        needs=("table",),
        meaning="R2 or AUC on held-out rows of a model of one column trained on samples; the floor is trained on data",
        better="higher",
    ),
    MetricRow(
        name="closest_is_training",
        function=closest_metrics,
        arguments=Comparison.rows,
        needs=("table",),
        meaning="share of samples whose closest real row is a training row, among as many held-out ones; 0.5 is right",
        unit="share",
        better="lower",
    ),
    MetricRow(
        name="duplicates",
        function=closest_metrics,
        arguments=Comparison.rows,
        needs=("table",),
        meaning="share of samples that are equal to a training row in every cell",
        unit="share",
        better="lower",
    ),
    MetricRow(
        name="rare_values",
        function=rare_metrics,
        arguments=Comparison.rows,
        needs=("table",),
        meaning="share of rare words and levels that samples have; the floor: as many draws from training rows",
        unit="share",
        better="higher",
    ),
    MetricRow(
        name="single_words",
        function=rare_metrics,
        arguments=Comparison.rows,
        needs=("table",),
        meaning="share of samples with a word that one training row has",
        unit="share",
        better="lower",
    ),
)

METRICS: dict[str, MetricRow] = {row.name: row for row in ROWS}


def register(row: MetricRow) -> MetricRow:
    """Add a metric to the table, behind those that are there; `evaluate` measures it from then on.

    Args:
        row: the metric. A row that is there already may be registered again.

    Returns:
        The row.

    Raises:
        ValueError: for a name that another row has, and for a need that `evaluate` does not know.
    """
    if METRICS.get(row.name, row) != row:
        raise ValueError(f"a metric {row.name!r} is there already: give yours another name")
    if strange := [need for need in row.needs if need not in NEEDS]:
        raise ValueError(f"the metric {row.name!r} needs {strange[0]!r}; evaluate knows {', '.join(NEEDS)}")
    METRICS[row.name] = row
    return row


def markdown() -> str:
    """The table as docs/guides/metrics.md has it."""
    head = ["| metric | in Python | meaning | unit | needs | better |", "|---|---|---|---|---|---|"]
    rows = (
        f"| `{row.name}` | `{row.function.__name__}` | {row.meaning} | {row.unit} "
        f"| {', '.join(NEEDS[need] for need in row.needs)} | {row.better} |"
        for row in ROWS
    )
    return "\n".join([*head, *rows])
