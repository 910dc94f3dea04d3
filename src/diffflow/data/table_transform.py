r"""Transforms of tables: columns of any kind as coordinates of a vector, side by side, and back.

    words (K of them)   one-hot, K coordinates                  a gap is one more word
    few values          one coordinate, the value standardised  with gaps: one-hot, as words
    numbers, dates      one coordinate, the normal score        gaps and values that come again and again ("atoms") are
                        Phi^-1(F(x)) of the value               one-hot {present, atom 1, ...} beside it

A score is piecewise linear between some quantiles of the training rows, as many as describe rows kept aside best. A
number is spread over the step of its column, x + (u - 1/2) step, at least the last digit that its file writes, so that
it has a density; where it is absent (a gap, an atom) its coordinate is a fresh draw of N(0, 1), Phi^-1(u), which
nothing depends on: the joint law of all coordinates then has a density in each score, and

    log p(row) = log p(scores, one-hots) + sum over present numbers of log dscore/dx - sum over absent of log N(score)

Shapes: rows x (n, d) float64, gaps NaN, words as their places; model units z (n, D) float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .column_parts import Part, from_scores, knots_of, numbers, positions, slopes, to_scores
from .columns import column_label
from .schema import ColumnSpec
from .transform import Transform

FEW_ROWS = 2000  # below it a value must come more often to be an atom
LEVEL_GAP, WIDEST = 0.25, 4.0  # few values lie so far apart in model units, unless that makes their column so wide


@dataclass(frozen=True)
class TableTransform(Transform):
    """The invertible map between the rows of a table and model units.

    Args:
        kind: "vector".
        shape: of an example in model units, (D,).
        schema: what the columns of the file hold.
        parts: the coordinates of each column that is modelled.
        clip: whether numbers stay in the range that the file has.
    """

    schema: tuple[ColumnSpec, ...] = ()
    parts: tuple[Part, ...] = ()
    clip: bool = True

    def __post_init__(self):
        width = self.parts[-1].last if self.parts else 0
        if self.kind != "vector" or self.shape != (width,) or len(self.parts) != len(self.modelled):
            raise ValueError(
                f"{len(self.modelled)} columns with {width} coordinates, and {len(self.parts)} parts of {self.shape}"
            )
        object.__setattr__(self, "columns", tuple(column.name for column in self.modelled))
        object.__setattr__(self, "names", tuple(column.words for column in self.modelled))

    @cached_property
    def modelled(self) -> tuple[ColumnSpec, ...]:
        """The columns that are modelled."""
        return tuple(column for column in self.schema if column.modelled)

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of a row, (d,)."""
        return (len(self.parts),)

    @property
    def of_bytes(self) -> bool:
        """False: rows are no images."""
        return False

    @property
    def spreads(self) -> bool:
        """True: numbers are spread over their last digit wherever a density is learned."""
        return True

    @cached_property
    def points(self) -> int:
        """How many coordinates have probabilities and no density: all but the scores of numbers."""
        return self.shape[0] - sum(part.kind == "number" for part in self.parts)

    def encode(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Rows to model units.

        Args:
            x: rows (n, d), gaps NaN.
            u: uniform numbers in [0, 1) (n, d): where in their last digit numbers are put, and what absent ones are;
                None: in the middle, and 0.

        Returns:
            float32 (n, D).

        Raises:
            ValueError: values that no training row has, where only these can be.
        """
        x = x.double()
        if x.ndim != 2 or x.shape[1] != len(self.parts):
            raise ValueError(f"rows have {len(self.parts)} columns, and these are of shape {tuple(x.shape)}")
        z = x.new_zeros(len(x), *self.shape)
        for k, part in enumerate(self.parts):
            column = x[:, k]
            if part.kind == "number":
                place = self._atom(column, part)
                absent = place > 0
                v = None if u is None else u[:, k].double()
                moved = column if v is None else column + (v - 0.5) * part.spread
                score = to_scores(torch.where(absent, part.knots[0], moved), part)
                filled = 0.0 if v is None else torch.special.ndtri(v.clamp(1e-9, 1 - 1e-9))
                z[:, part.last - 1] = torch.where(absent, filled, score)
                if part.flagged:
                    z[:, part.first : part.last - 1] = torch.nn.functional.one_hot(place, part.width - 1).double()
            else:
                place = self._place(column, part, k)
                if part.kind == "words":
                    z[:, part.first : part.last] = torch.nn.functional.one_hot(place, part.width).double()
                else:
                    z[:, part.first] = positions(part)[place]
        return z.float()

    def decode(self, z: Tensor) -> Tensor:
        """Model units z (n, D) to rows, float64 (n, d): numbers rounded as their file writes them, gaps NaN."""
        z = z.detach().double().cpu()
        x = z.new_empty(len(z), len(self.parts))
        for k, (part, column) in enumerate(zip(self.parts, self.modelled, strict=True)):
            if part.kind == "words":
                x[:, k] = numbers(part.values)[z[:, part.first : part.last].argmax(1)]
            elif part.kind == "levels":
                place = (z[:, part.first, None] - positions(part)).abs().argmin(1)
                x[:, k] = numbers(part.values)[place]
            else:
                value = torch.from_numpy(column.snap(from_scores(z[:, part.last - 1], part).numpy(), self.clip))
                if part.flagged:
                    place = z[:, part.first : part.last - 1].argmax(1)
                    atoms = torch.cat([value.new_zeros(1), numbers(part.values)])
                    value = torch.where(place == 0, value, atoms[place])
                x[:, k] = value
        return x

    def log_units(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """What turns the log-density of encode(x, u) into that of rows x in their own units, when added to it.

        Args:
            x: rows (n, d).
            u: as in `encode`; None: absent numbers on average.

        Returns:
            Nats (n,) float64.
        """
        x = x.double()
        total = x.new_zeros(len(x))
        for k, part in enumerate(self.parts):
            if part.kind != "number":
                continue
            absent = self._atom(x[:, k], part) > 0
            moved = x[:, k] if u is None else x[:, k] + (u[:, k].double() - 0.5) * part.spread
            slope = slopes(torch.where(absent, part.knots[0], moved), part)
            square = 1.0 if u is None else torch.special.ndtri(u[:, k].double().clamp(1e-9, 1 - 1e-9)).square()
            total = total + torch.where(absent, 0.5 * square + 0.5 * math.log(2 * math.pi), slope.log())
        return total

    def _atom(self, column: Tensor, part: Part) -> Tensor:
        """0 where a number (n,) is present, else 1 + the place of its atom. Raises ValueError for gaps never seen."""
        place = torch.zeros(len(column), dtype=torch.int64)
        for i, value in enumerate(part.values):
            place[column.isnan() if math.isnan(value) else column == value] = 1 + i
        if bool((column.isnan() & (place == 0)).any()):
            raise ValueError(f"column {self._label(part)} has gaps, and none of the training rows had one there")
        return place

    def _place(self, column: Tensor, part: Part, k: int) -> Tensor:
        """The places of codes (n,) among the values of a part. Raises ValueError for values never seen."""
        known = numbers(part.values)
        gap = bool(known[-1].isnan())
        rising = known[: len(known) - gap]
        place = torch.searchsorted(rising, column.nan_to_num(float(rising[0])).contiguous()).clamp(max=len(rising) - 1)
        wrong = (rising[place] != column) & ~(column.isnan() if gap else torch.zeros_like(column, dtype=torch.bool))
        if bool(wrong.any()):
            raise ValueError(
                f"column {self._label(part)} takes {len(rising)} values, and here another one, "
                f"{column[wrong][0].item():g}: these are not the data that the transform was made for"
            )
        return torch.where(column.isnan(), len(rising), place) if gap else place

    def _label(self, part: Part) -> str:
        return column_label(self.modelled[self.parts.index(part)].name)

    def to_meta(self) -> dict[str, Any]:
        """The map as plain values, JSON-able."""
        parts = [{k: v for k, v in asdict(part).items() if v != ()} for part in self.parts]
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "schema": [column.to_meta() for column in self.schema],
            "parts": parts,
        }

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> TableTransform:
        """The inverse of to_meta."""
        parts = []
        for part in meta["parts"]:
            lists = {k: tuple(map(_number, part.get(k, ()))) for k in ("values", "prior", "knots", "scores")}
            parts.append(Part(part["kind"], part["first"], part["width"], **lists, spread=part["spread"]))
        schema = tuple(ColumnSpec.from_meta(column) for column in meta["schema"])
        return cls(meta["kind"], tuple(meta["shape"]), schema=schema, parts=tuple(parts))


def _number(v: float | None) -> float:
    return math.nan if v is None else float(v)


# -- measured ----------------------------------------------------------------------------------------------------------


def measure(schema: Sequence[ColumnSpec], x: np.ndarray) -> TableTransform:
    """The transform of a table, measured on its training rows.

    Args:
        schema: what the columns of the file hold.
        x: training rows (n, d) of the columns that are modelled, gaps NaN.
    """
    parts: list[Part] = []
    first = 0
    for k, column in enumerate(c for c in schema if c.modelled):
        part = _part(column, x[:, k], first)
        parts.append(part)
        first = part.last
    return TableTransform("vector", (first,), schema=tuple(schema), parts=tuple(parts))


def _part(column: ColumnSpec, x: np.ndarray, first: int) -> Part:
    """The coordinates of a column with the training values x (n,), the first of them numbered."""
    gap = (math.nan,) if column.gap is not None else ()
    if column.kind in ("words", "levels"):
        codes = column.values if column.kind == "levels" else tuple(map(float, range(len(column.words))))
        values = (*codes, *gap)
        prior = _shares(x, values)
        if column.kind == "words" or gap:
            return Part("words", first, len(values), values, prior)
        return Part("levels", first, 1, values, prior, _scale(np.array(values), np.array(prior)))
    present = x[~np.isnan(x)]
    spread = column.step or (10.0**-column.decimals if column.decimals >= 0 else 0.0)
    values, counts = np.unique(present, return_counts=True)
    least = (0.05 if len(x) >= FEW_ROWS else 0.2) * len(x)
    atoms = (*values[counts >= least].tolist(), *gap)
    rest = present[~np.isin(present, atoms)]
    jitter = np.random.RandomState(0).uniform(-0.5, 0.5, len(rest)) * spread
    knots, scores = knots_of(rest + jitter) if len(rest) else ((0.0, 1.0), (-1.0, 1.0))
    if not atoms:
        return Part("number", first, 1, knots=knots, scores=scores, spread=spread)
    shares = _shares(x, atoms)
    prior = (max(1 - sum(shares), 0.5 / len(x)), *shares)
    return Part("number", first, 2 + len(atoms), atoms, prior, knots, scores, spread)


def _shares(x: np.ndarray, values: Sequence[float]) -> tuple[float, ...]:
    """The shares of values (NaN: gaps) in x (n,); of one that is not there half a row's."""
    counts = np.array([np.isnan(x).sum() if math.isnan(v) else (x == v).sum() for v in values], float)
    return tuple((np.maximum(counts, 0.5) / len(x)).tolist())


def _scale(values: np.ndarray, prior: np.ndarray) -> tuple[float, float]:
    """The values whose coordinates are -1 and 1: one standard deviation to either side, or less to part the levels."""
    weights = prior / prior.sum()
    mean = float(weights @ values)
    std = float(np.sqrt(weights @ (values - mean) ** 2)) or 1.0
    wider = min(max(LEVEL_GAP * std / float(np.median(np.diff(values))), 1.0), WIDEST) if len(values) > 1 else 1.0
    return mean - std / wider, mean + std / wider


Transform.others["parts"] = TableTransform
