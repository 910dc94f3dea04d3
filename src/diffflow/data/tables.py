"""CSV tables: each row an event, each column a coordinate, x (n, d).

Comma, semicolon or tab; a first line without a single number is the header. Every cell must be a finite float32
number: gaps are the user's decision, so they are named (row as the file counts lines, column by its name) and never
filled.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from .archives import read_bytes
from .base import LARGEST, DataError, Raw


def read_table(path: Path) -> Raw:
    """A .csv or .csv.gz file; see the head of this file. Raises DataError naming rows and columns."""
    source = str(path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source!r} is no UTF-8 text ({error}); save it as UTF-8") from None
    file = io.StringIO(text, newline=None)  # every convention of line ends
    delimiter = max(",;\t", key=file.readline().count)
    file.seek(0)
    lines = csv.reader(file, delimiter=delimiter)
    try:
        rows = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{source!r} is no table of numbers: row {lines.line_num}: {error}") from None
    if not rows:
        raise DataError(f"{source!r} holds no rows")
    columns = tuple(str(k + 1) for k in range(len(rows[0][1])))
    if not any(_number(cell) is not None for cell in rows[0][1]):
        columns = tuple(repr(cell.strip()) if cell.strip() else k for cell, k in zip(rows[0][1], columns, strict=True))
        rows = rows[1:]
    if not rows:
        raise DataError(f"{source!r} holds a header and no rows")
    x = np.empty((len(rows), len(columns)))
    problems: list[str] = []
    for i, (line, row) in enumerate(rows):
        if len(row) != len(columns):
            problems.append(f"row {line}: {len(row)} cells, not {len(columns)}")
            continue
        for k, cell in enumerate(row):
            value = _number(cell)
            if value is None or not abs(value) <= LARGEST:
                problems.append(f"row {line}, column {columns[k]}: {cell.strip()!r}")
            else:
                x[i, k] = value
    if problems:
        what = "every cell must be a finite float32 number; remove, impute or recode"
        raise DataError(f"{source!r} has {len(problems)} bad rows or cells ({what}):", problems, show=20)
    return Raw(x, columns=columns)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
