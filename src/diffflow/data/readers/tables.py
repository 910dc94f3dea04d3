"""Tables in CSV files: each row is an event, each column a coordinate, x (n, d).

`read_columns` decides what each column holds, and refuses nothing that can be modelled. `read_table` is the older way,
in which all columns are numbers with a density:

Comma, semicolon or tab; a first line without a single number is the header, where a number follows below or where none
of its words comes again. Every cell must be a finite float32 number: gaps are the user's decision, so they are named
(row as the file counts lines, column by its name) and never filled. Columns that a density cannot be asked of as they
are (of text, constant, or of few values) are named too, with the choices that there are (`Columns`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..by_columns import NO_WISHES, TextColumn, Wishes, by_columns
from ..columns import Column, column_label, parse_number
from ..errors import DataError
from ..raw import Raw
from .archives import read_bytes
from .lines import read_sheet


class TableLine(NamedTuple):
    """A line of a table: its number, as the file counts them from 1, and its cells, without blanks around."""

    number: int
    cells: list[str]


def read_columns(path: Path, wishes: Wishes = NO_WISHES) -> Raw:
    """Read a table by columns: .csv, .tsv, .txt, each also in gzip, or .parquet.

    Args:
        path: the file: cells between commas, semicolons, tabs, bars or blanks, in UTF-8, UTF-16 or cp1252, with a
            header or without.
        wishes: what is said of its columns, by the user or by a model.

    Returns:
        Raw with `schema`, what each column holds, and x (n, d) float64, the codes of the modelled ones.

    Raises:
        DataError: no table, or wishes that do not fit it; every bad row, column and cell is named.
    """
    if path.suffix.lower() == ".parquet":
        from ..frames import parquet_columns

        return by_columns(str(path), parquet_columns(path), wishes)
    sheet = read_sheet(path, [spec.name for spec in wishes.like])
    names = column_names(str(path), sheet.names)
    columns = [TextColumn(name, cells) for name, cells in zip(names, sheet.columns, strict=True)]
    return by_columns(str(path), columns, wishes, sheet.rows, sheet.decimal, sheet.notes)


def read_table(path: Path, text: str = "refuse") -> Raw:
    """Read a .csv or .csv.gz file.

    Args:
        path: the file; see the head of this module for its form.
        text: what becomes of columns of words (`Columns.text`): refuse, drop, or levels.

    Returns:
        Raw with x (n, d) float64, its columns, and the words that the codes of columns of words stand for.

    Raises:
        DataError: the file cannot be read as a table; every bad row, column and cell is named.
    """
    source = str(path)
    names, lines = _split_header(source, _read_lines(path))
    width = len(names)
    complete = [line for line in lines if len(line.cells) == width]
    columns = [Column.parse(name, [line.cells[k] for line in complete]) for k, name in enumerate(names)]
    ragged = [
        (line.number, 0, f"row {line.number}: {len(line.cells)} cells, not {width}")
        for line in lines
        if len(line.cells) != width
    ]
    return join_columns(source, columns, lambda i, k: (complete[i].number, complete[i].cells[k]), text, ragged)


def join_columns(
    source: str,
    columns: Sequence[Column],
    cell: Callable[[int, int], tuple[int, object]],
    text: str,
    problems: Sequence[tuple[int, int, str]] = (),
) -> Raw:
    """The columns of a table as one array.

    Args:
        source: what messages call the table.
        columns: of equal length n.
        cell: (row from 0, column from 0) -> the number of the row in messages, and what stands there.
        text: what becomes of columns of words (`Columns.text`).
        problems: what is wrong already: line (0 for a column as a whole), column, and the words for it.

    Raises:
        DataError: every bad row, column and cell is named.
    """
    refused = [column for column in columns if column.words and text == "refuse"]
    problems = list(problems)
    for k, column in enumerate(columns):
        if column in refused:
            problems.append((0, k, f"column {column.label} holds text: {_shorten(column.words)}"))
        for i in column.unusable:
            number, content = cell(int(i), k)
            problems.append((number, k, f"row {number}, column {column.label}: {content!r}"))
    if problems:
        choice = "; columns of text: --data.text levels models each word as a level, drop leaves them out"
        raise DataError(
            f"{source!r} has {len(problems)} bad rows, columns or cells (every cell must be a finite float32 number; "
            f"remove, impute or recode{choice if refused else ''}):",
            [problem for *_, problem in sorted(problems)],
            show=20,
        )
    dropped = [column for column in columns if column.words and text == "drop"]
    kept = [column for column in columns if column not in dropped]
    x = np.empty((len(columns[0].values), len(kept)))
    for k, column in enumerate(kept):
        x[:, k] = column.values
    return Raw(
        x,
        notes=(f"left out: {', '.join(column.name for column in dropped)} (text)",) if dropped else (),
        columns=tuple(column.name for column in kept),
        names={k: column.words for k, column in enumerate(kept) if column.words},
    )


def _read_lines(path: Path) -> list[TableLine]:
    """The lines of a file that are not blank. Raises DataError where it is no table, or holds none."""
    source = str(path)
    try:
        content = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source!r} is no UTF-8 text ({error}); save it as UTF-8") from None
    file = io.StringIO(content, newline=None)  # every convention of line ends
    delimiter = max(",;\t", key=file.readline().count)
    file.seek(0)
    rows = csv.reader(file, delimiter=delimiter)
    try:
        lines = [TableLine(rows.line_num, [c.strip() for c in row]) for row in rows if any(c.strip() for c in row)]
    except csv.Error as error:
        raise DataError(f"{source!r} is no table of numbers: row {rows.line_num}: {error}") from None
    if not lines:
        raise DataError(f"{source!r} holds no rows")
    return lines


def _split_header(source: str, lines: list[TableLine]) -> tuple[tuple[str, ...], list[TableLine]]:
    """The names of the columns, their numbers where there is no header, and the lines below it.

    Raises:
        DataError: a header alone, or several columns of one name.
    """
    first = lines[0].cells
    if len(lines) == 1 and not _has_number(first):
        raise DataError(f"{source!r} holds a header and no rows")
    numbers = tuple(str(k + 1) for k in range(len(first)))
    if not _is_header([line.cells for line in lines]):
        return numbers, lines
    return column_names(source, first), lines[1:]


def column_names(source: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names of a header, with numbers for empty ones. Raises DataError where several columns have one name."""
    names = tuple(cell or f"column {k + 1}" for k, cell in enumerate(names))
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{source!r} has several columns of one name; rename them", [column_label(name) for name in repeated]
        )
    return names


def _is_header(rows: list[list[str]]) -> bool:
    """Whether the first line names the columns: words over numbers, or words that no column below has again."""
    first, below = rows[0], rows[1:]
    if _has_number(first) or not below:
        return False
    return any(map(_has_number, below)) or not any(
        cell in (row[k] for row in below if k < len(row)) for k, cell in enumerate(first)
    )


def _has_number(row: list[str]) -> bool:
    """Whether some cell is a number."""
    return any(parse_number(cell) is not None for cell in row)


def _shorten(words: Sequence[str]) -> str:
    """The first five words, and how many more there are."""
    return ", ".join(map(repr, words[:5])) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
