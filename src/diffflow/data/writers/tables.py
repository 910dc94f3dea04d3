"""Tables of codes as CSV and as data frames: the columns of the file in its order, as it writes them."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..schema import ColumnSpec


def to_csv(
    schema: Sequence[ColumnSpec], codes: np.ndarray, clip: bool = True, first: int = 0, delimiter: str | None = None
) -> str:
    """A table as CSV.

    Args:
        schema: the columns of the file.
        codes: float64 (n, d): the modelled ones in their order, NaN for a gap. They are brought to what the columns
            can hold (`ColumnSpec.snap`): decimals, steps, words.
        clip: move numbers into the range of the file.
        first: number of the first row, from which identifiers are made anew.
        delimiter: between cells; None: a comma, or a semicolon where the file has decimal commas.

    Returns:
        The text, in the form of the file: its header where it has one, constants, identifiers made anew, and neither
        columns that are left out, except where columns have no names but their places.
    """
    nameless = is_nameless(schema)
    shown = [spec for spec in schema if nameless or spec.kind != "dropped"]
    cells = [
        spec.write(spec.snap(column, clip)) if column is not None else spec.made(len(codes), first)
        for spec, column in _columns(schema, codes)
        if spec in shown
    ]
    commas = any("decimal=," in spec.style for spec in shown)
    buffer = io.StringIO()
    rows = csv.writer(buffer, delimiter=delimiter or (";" if commas else ","), lineterminator="\n")
    if not nameless:
        rows.writerow([spec.name for spec in shown])
    rows.writerows(zip(*cells, strict=True))
    return buffer.getvalue()


def to_frame(schema: Sequence[ColumnSpec], codes: np.ndarray, clip: bool = True, first: int = 0) -> Any:
    """A table as a pandas.DataFrame with the types of its columns.

    Args:
        schema: the columns of the file.
        codes: float64 (n, d), as for `to_csv`.
        clip: move numbers into the range of the file.
        first: number of the first row.

    Returns:
        The frame: words are categories, whole numbers Int64 with gaps, dates datetimes, identifiers text.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("data frames need pandas: pip install 'diffflow[tables]'") from None
    frame = {}
    for spec, column in _columns(schema, codes):
        if spec.kind == "dropped":
            continue
        if column is None:
            made = spec.made(len(codes), first)
            if made and re.fullmatch("-?(0|[1-9][0-9]{0,15})", made[0]):
                frame[spec.name] = pandas.array([int(cell) for cell in made], dtype="Int64")
            else:
                frame[spec.name] = pandas.array([None if c == spec.gap else c for c in made], dtype="string")
            continue
        frame[spec.name] = _series(pandas, spec, spec.snap(column, clip))
    return pandas.DataFrame(frame)


def _series(pandas: Any, spec: ColumnSpec, codes: np.ndarray) -> Any:
    """The values of a modelled column."""
    gaps = np.isnan(codes)
    if spec.kind == "words":
        places = np.where(gaps, -1, codes).astype(np.int64)
        if spec.style == "bool":
            true = np.array([word == "True" for word in spec.words])
            return pandas.array([None if k < 0 else bool(true[k]) for k in places], dtype="boolean")
        return pandas.Categorical.from_codes(places, categories=list(spec.words), ordered=spec.style == "ordered")
    if spec.is_date and "%Y" not in spec.style and "%y" not in spec.style:  # times alone
        written = [None if gap else text for gap, text in zip(gaps, spec.write(codes), strict=True)]
        return pandas.array(written, dtype="string")
    if spec.is_date:
        seconds = codes * (1 if spec.in_seconds else 86_400)
        ticks = [None if gap else round(float(s) * 1e6) for s, gap in zip(seconds, gaps, strict=True)]
        if zone := re.search("([-+])([0-9]{2}):([0-9]{2})$", spec.style):
            ahead = datetime.timedelta(hours=int(zone[2]), minutes=int(zone[3]))
            zone = datetime.timezone(-ahead if zone[1] == "-" else ahead)
        elif spec.style.endswith(("%z", "Z", "UTC")):
            zone = datetime.UTC
        times = pandas.Series(pandas.to_datetime(ticks, unit="us"))
        return times.dt.tz_localize(zone) if zone else times
    whole = spec.kind == "integer" or (spec.kind == "levels" and all(map(float.is_integer, spec.values)))
    if whole and not (np.abs(codes[~gaps]) > 2**62).any():
        values = [None if gap else int(value) for value, gap in zip(codes.tolist(), gaps, strict=True)]
        return pandas.array(values, dtype="Int64")
    return codes


def is_nameless(schema: Sequence[ColumnSpec]) -> bool:
    """Whether the file has no header: its columns are called by their places."""
    return [spec.name for spec in schema] == [str(k + 1) for k in range(len(schema))]


def _columns(schema: Sequence[ColumnSpec], codes: np.ndarray) -> Iterator[tuple[ColumnSpec, np.ndarray | None]]:
    """The columns of the file with the codes of those that are modelled."""
    k = 0
    for spec in schema:
        yield spec, codes[:, k] if spec.modelled else None
        k += spec.modelled
