"""Data frames and parquet files as columns of text, by their types: categories, whole numbers with gaps, dates.

Neither pandas nor pyarrow is imported before a user has something of theirs.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .by_columns import NO_WISHES, TextColumn, Wishes, by_columns
from .errors import DataError
from .raw import Raw


def read_frame(frame: Any, wishes: Wishes = NO_WISHES, name: str = "data") -> Raw:
    """Read a data frame by columns.

    Args:
        frame: what has columns by name, such as pandas.DataFrame (its index is not read).
        wishes: what is said of its columns, by the user or by a model.
        name: what messages call it.

    Returns:
        Raw as of a file (`read_columns`). Categories keep their order, gaps are those of the frame.

    Raises:
        DataError: no rows, or wishes that do not fit; every bad row, column and cell is named.
    """
    keys = list(frame.columns)
    nameless = keys == list(range(len(keys)))
    columns = [frame_column(str(k + 1) if nameless else str(key), frame[key]) for k, key in enumerate(keys)]
    if not columns or not len(columns[0].cells):
        raise DataError(f"{name!r} holds no rows")
    return by_columns(name, columns, wishes)


def frame_column(name: str, series: Any) -> TextColumn:
    """A column of a data frame as text."""
    missing = np.asarray(series.isna(), bool) if hasattr(series, "isna") else None
    dtype = str(getattr(series, "dtype", ""))
    if dtype == "category":
        column = text_column(name, series.astype(object).tolist(), missing, "words")
        words = tuple(map(_text, series.cat.categories.tolist()))
        return TextColumn(name, column.cells, column.kind, words, "ordered" if series.cat.ordered else "", column.gaps)
    values = series.tolist() if hasattr(series, "tolist") else list(np.asarray(series))
    return text_column(name, values, missing)


def text_column(
    name: str, values: Sequence[Any], missing: np.ndarray | None = None, kind: str | None = None
) -> TextColumn:
    """Values of Python as a column of text.

    Args:
        name: of the column.
        values: numbers, text, dates, booleans, n of them.
        missing: mask (n,) of the gaps; None: those that are None or no number.
        kind: what is known of it.
    """
    if missing is None:
        missing = np.array([value is None or (isinstance(value, float) and value != value) for value in values], bool)
    there = [value for value, gap in zip(values, missing, strict=True) if not gap]
    types = {type(value) for value in there}
    if types and all(issubclass(t, float | np.floating) for t in types) and all(float(v).is_integer() for v in there):
        cells = ["" if gap else str(int(value)) for value, gap in zip(values, missing, strict=True)]
    elif types and all(issubclass(t, datetime.datetime) for t in types):
        cells = _dates(values, missing)
    else:
        cells = ["" if gap else _text(value) for value, gap in zip(values, missing, strict=True)]
    style = "bool" if types and types <= {bool, np.bool_} else ""
    # what a frame has as text beside gaps of its own are words
    gaps = ("",) if missing.any() or not any(issubclass(t, str) for t in types) else None
    return TextColumn(name, cells, kind or ("words" if style and len(set(there)) > 1 else None), style=style, gaps=gaps)


def _dates(values: Sequence[Any], missing: np.ndarray) -> list[str]:
    """Dates in ISO form: days alone where all are at midnight."""
    there = [value for value, gap in zip(values, missing, strict=True) if not gap]
    midnight = all(v.time() == datetime.time() and v.tzinfo is None for v in there)
    return ["" if gap else str(v.date()) if midnight else v.isoformat() for v, gap in zip(values, missing, strict=True)]


def _text(value: Any) -> str:
    """A value as a file would have it."""
    if isinstance(value, float | np.floating):
        return repr(float(str(value)))  # 0.1 of float32 is written as 0.1
    if isinstance(value, datetime.timedelta):
        return repr(value.total_seconds())
    return str(value).strip()


def parquet_columns(path: Path) -> list[TextColumn]:
    """The columns of a parquet file. Raises DataError without pyarrow, or for a file that is none."""
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError(
            f"{str(path)!r}: parquet files need pyarrow: pip install 'diffflow[tables]', or save the table as .csv"
        ) from None
    try:
        table = parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{str(path)!r} is no readable parquet file ({error})") from None
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name.startswith("__index_level_"):  # pandas' index
            continue
        known = pa.types.is_dictionary(column.type)
        text = text_column(name, column.to_pylist(), kind="words" if known else None)
        if known:
            order = column.combine_chunks().dictionary.to_pylist() if column.num_chunks else []
            style = "ordered" if column.type.ordered else ""
            text = TextColumn(name, text.cells, "words", tuple(map(_text, order)), style, text.gaps)
        columns.append(text)
    if not columns or not len(columns[0].cells):
        raise DataError(f"{str(path)!r} holds no rows")
    return columns
