"""CSV tables: each row an event, each column a coordinate, x (n, d).

Comma, semicolon or tab; a first line without a single number is the header, where a number follows below or where none
of its words comes again. Every cell
must be a finite float32 number: gaps are the user's decision, so they are named (row as the file counts lines, column
by its name) and never filled. Columns that a density cannot be asked of as they are (of text, constant, or of few
values) are named too, with the choices that there are (`Columns`).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from ..dataset import Raw
from ..errors import DataError
from ..transform import LARGEST, name_of
from .archives import read_bytes


def read_table(path: Path, text: str = "refuse") -> Raw:
    """A .csv or .csv.gz file; see the head of this file. `text`: what to do with columns without a single number
    (`Columns.text`). Raises DataError naming rows and columns."""
    source = str(path)
    try:
        content = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source!r} is no UTF-8 text ({error}); save it as UTF-8") from None
    file = io.StringIO(content, newline=None)  # every convention of line ends
    delimiter = max(",;\t", key=file.readline().count)
    file.seek(0)
    lines = csv.reader(file, delimiter=delimiter)
    try:
        rows = [(lines.line_num, [c.strip() for c in row]) for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{source!r} is no table of numbers: row {lines.line_num}: {error}") from None
    if not rows:
        raise DataError(f"{source!r} holds no rows")
    width = len(rows[0][1])
    columns = tuple(str(k + 1) for k in range(width))
    if len(rows) == 1 and not _numbers(rows[0][1]):
        raise DataError(f"{source!r} holds a header and no rows")
    if _is_header([row for _, row in rows]):
        columns = tuple(cell or f"column {k}" for cell, k in zip(rows[0][1], columns, strict=True))
        rows = rows[1:]
    if twice := sorted({c for c in columns if columns.count(c) > 1}):
        raise DataError(f"{source!r} has several columns of one name; rename them", [name_of(c) for c in twice])
    found = [(line, 0, f"row {line}: {len(row)} cells, not {width}") for line, row in rows if len(row) != width]
    whole = [(line, row) for line, row in rows if len(row) == width]
    words = [k for k in range(width) if whole and all(row[k] and _number(row[k]) is None for _, row in whole)]
    if words and text == "refuse":
        found += [(0, k, f"column {name_of(columns[k])} holds text: {_some([r[k] for _, r in whole])}") for k in words]
    notes, names = [], {}
    x = np.empty((len(whole), width))
    for k in range(width):
        if k in words:
            names[k] = tuple(sorted({row[k] for _, row in whole}))
            code = {word: i for i, word in enumerate(names[k])}
            x[:, k] = [code[row[k]] for _, row in whole]
            continue
        for i, (line, row) in enumerate(whole):
            value = _number(row[k])
            if value is None or not abs(value) <= LARGEST:
                found.append((line, k, f"row {line}, column {name_of(columns[k])}: {row[k]!r}"))
            else:
                x[i, k] = value
    if found:
        problems = [problem for *_, problem in sorted(found)]
        choice = "; columns of text: --data.text levels models each word as a level, drop leaves them out"
        choice = choice if words and text == "refuse" else ""
        what = f"every cell must be a finite float32 number; remove, impute or recode{choice}"
        raise DataError(f"{source!r} has {len(problems)} bad rows, columns or cells ({what}):", problems, show=20)
    if words and text == "drop":
        keep = [k for k in range(width) if k not in words]
        notes.append(f"left out: {', '.join(columns[k] for k in words)} (text)")
        x, columns, names = x[:, keep], tuple(columns[k] for k in keep), {}
    return Raw(x, notes=tuple(notes), columns=columns, names=names)


def _is_header(rows: list[list[str]]) -> bool:
    """Whether the first line names the columns: words over numbers, or words that no column below has again."""
    first, below = rows[0], rows[1:]
    if _numbers(first) or not below:
        return False
    return any(map(_numbers, below)) or not any(
        c in (row[k] for row in below if k < len(row)) for k, c in enumerate(first)
    )


def _numbers(row: list[str]) -> bool:
    """Whether some cell is a number."""
    return any(_number(cell) is not None for cell in row)


def _some(words: list[str]) -> str:
    found = sorted(set(words))
    return ", ".join(map(repr, found[:5])) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
