"""Columns of text as a table of codes, each decided by all its cells (infer.py), or read as those of an older table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..registry import suggest
from .columns import column_label
from .errors import DataError
from .infer import ColumnRequest, infer
from .raw import Raw
from .schema import ColumnSpec


@dataclass(frozen=True)
class TextColumn:
    """The cells of a column, and what its source knows of them.

    Args:
        name: of the column.
        cells: text, n of them.
        kind: a request (infer.py) where the source says what it is; None: as the cells say.
        words: of a category the words in its own order; ().
        style: of words "bool" or "ordered".
        gaps: the cells that are gaps; None: the usual ones.
    """

    name: str
    cells: Sequence[str]
    kind: str | None = None
    words: tuple[str, ...] = ()
    style: str = ""
    gaps: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Wishes:
    """What the user, or a model that is there, says of the columns of a table.

    Args:
        kinds: requests (infer.py) by the names of columns, such as {"age": "integer", "id": "drop"}.
        like: the columns of a table that a model was trained on; (): a new table.
        min_count: words that occur fewer times become one word.
        n_train: how many rows will train; None: all.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    like: tuple[ColumnSpec, ...] = ()
    min_count: int = 1
    n_train: int | None = None


NO_WISHES = Wishes()


def by_columns(
    source: str,
    columns: Sequence[TextColumn],
    wishes: Wishes = NO_WISHES,
    rows: Sequence[int] | None = None,
    decimal: str | None = None,
    notes: Sequence[str] = (),
) -> Raw:
    """A table of text as codes.

    Args:
        source: what messages call the table.
        columns: of equal length n.
        wishes: what is said of them.
        rows: the numbers of the rows in messages; None: from 1.
        decimal: the character before the fraction where cells leave it open.
        notes: what was decided already.

    Returns:
        Raw with `schema`, all columns, and x (n, d) float64, the codes of the modelled ones; NaN is a gap.

    Raises:
        DataError: wishes about columns or kinds that there are not; of a model's columns those that are missing, and
            cells that it does not know, row by row.
    """
    names = [column.name for column in columns]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{source!r} has several columns of one name; rename them", list(map(column_label, repeated)))
    if wishes.like:
        return _as_before(source, columns, wishes.like, rows, notes)
    for name, text in wishes.kinds.items():
        if name not in names:
            raise DataError(f"{source!r} has no column {name!r} (column {name}={text}){suggest(name, names)}")
        ColumnRequest.from_text(name, text)
    schema = [_spec(column, wishes, decimal, rows) for column in columns]
    x, problems = _codes(schema, columns, rows)
    if problems:
        raise DataError(f"{source!r} has {len(problems)} cells that cannot be used:", problems, show=20)
    return _raw(x, schema, notes)


def _spec(column: TextColumn, wishes: Wishes, decimal: str | None, rows: Sequence[int] | None) -> ColumnSpec:
    """What a column holds."""
    kind = wishes.kinds.get(column.name)
    spec = infer(
        column.name,
        column.cells,
        n_train=wishes.n_train,
        as_kind=kind or column.kind,
        min_count=wishes.min_count,
        decimal=decimal,
        gaps=column.gaps,
        rows=rows,
    )
    if spec.kind != "words":
        return spec
    if column.words and not spec.content:
        spec = replace(spec, words=tuple(word for word in column.words if word in spec.words))
    return replace(spec, style=column.style)


def _codes(
    schema: Sequence[ColumnSpec], columns: Sequence[TextColumn], rows: Sequence[int] | None
) -> tuple[np.ndarray, list[str]]:
    """The codes of the modelled columns (n, d), and the cells that have none."""
    kept = [(spec, column) for spec, column in zip(schema, columns, strict=True) if spec.modelled]
    x = np.empty((len(columns[0].cells) if columns else 0, len(kept)))
    problems: list[str] = []
    for k, (spec, column) in enumerate(kept):
        x[:, k], wrong = spec.parse_all(column.cells, rows)
        problems += wrong
    return x, problems


def _as_before(
    source: str,
    columns: Sequence[TextColumn],
    like: Sequence[ColumnSpec],
    rows: Sequence[int] | None,
    notes: Sequence[str],
) -> Raw:
    """A table as one of columns that are known: by their names in any order, others are left out."""
    found = {column.name: column for column in columns}
    wanted = [spec for spec in like if spec.modelled]
    by_place = {len(like): like, len(wanted): wanted}.get(len(columns))
    nameless = [column.name for column in columns] == [str(k + 1) for k in range(len(columns))]
    if nameless and by_place is not None and not any(spec.name in found for spec in wanted):
        found = {spec.name: column for spec, column in zip(by_place, columns, strict=True)}
        notes = [*notes, "the columns have no names: taken in the order of the model's"]
    if lacking := [spec.label for spec in wanted if spec.name not in found]:
        names = ", ".join(column_label(column.name) for column in columns[:20])
        raise DataError(f"{source!r} lacks columns that the model has (it has {names}):", lacking)
    x, problems = _codes(wanted, [found[spec.name] for spec in wanted], rows)
    if problems:
        raise DataError(
            f"{source!r} has {len(problems)} cells that the model does not know; remove or recode these rows:",
            problems,
            show=20,
        )
    known = {spec.name for spec in like}
    extra = [column.name for column in columns if column.name in found and column.name not in known]
    said = (f"not read, for the model has no such column: {', '.join(extra)}",) if extra else ()
    return _raw(x, like, (*notes, *said))


def _raw(x: np.ndarray, schema: Sequence[ColumnSpec], notes: Sequence[str]) -> Raw:
    """What the readers hand over."""
    kept = [spec for spec in schema if spec.modelled]
    return Raw(
        x,
        notes=tuple(notes),
        columns=tuple(spec.name for spec in kept),
        names={k: spec.words for k, spec in enumerate(kept) if spec.words},
        kind="vector",
        schema=tuple(schema),
    )
