"""Lines of tables in text files: encodings, delimiters, quotes, and whether the first line names the columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..column_styles import GENERAL, PLAIN
from ..date_styles import LIKELY
from ..errors import DataError
from ..schema import NUMBER_GAPS
from .archives import read_bytes

DELIMITERS = ";\t|,"  # of equally good ones the first: a comma may be that of a decimal
NONE = "\x1f"  # between the columns of a file of one
SAMPLE = 1000  # lines that decide delimiter and header
PAIRS = 30  # lines from which 3,14 is two whole numbers where no line shows otherwise


class Sheet(NamedTuple):
    """The columns of a table as text, and what was decided about the file.

    Attributes:
        names: of the header; numbers from 1 where there is none.
        columns: the cells of each column, n of them, without blanks around.
        rows: the numbers of the rows, as the file counts its lines.
        decimal: the character before the fraction that the file suggests; None: nothing does.
        notes: what was decided, one sentence each.
        header: whether the file names its columns.
    """

    names: tuple[str, ...]
    columns: list[Sequence[str]]
    rows: list[int]
    decimal: str | None
    notes: tuple[str, ...]
    header: bool


def read_sheet(path: Path, names: Sequence[str] = ()) -> Sheet:
    """Read a table of text.

    Args:
        path: a .csv, .tsv or .txt file, or one of these in gzip.
        names: columns that are looked for: a first line with one of them is the header.

    Raises:
        DataError: no text, no rows, rows of several widths, which are named, or a form that would be a guess.
    """
    source = str(path)
    text, notes = _decode(read_bytes(path), source)
    delimiter = _delimiter(text)
    numbers, lines = _split(text, delimiter, source)
    if not lines:
        raise DataError(f"{source!r} holds no rows")
    has_header = bool(set(names) & set(lines[0])) or _has_header(lines[: SAMPLE + 1])
    if has_header and len(lines) == 1:
        raise DataError(f"{source!r} holds a header and no rows")
    width = len(lines[0])
    if others := [(i, len(line)) for i, line in zip(numbers, lines, strict=True) if len(line) != width]:
        raise DataError(
            f"{source!r} has {len(others)} rows of another width than the first one; mend them, or put quotes around "
            f"cells that hold {'commas' if delimiter == ',' else repr(delimiter)}:",
            [f"row {i}: {count} cells, not {width}" for i, count in others],
            show=20,
        )
    if delimiter == "," and not has_header and width == 2:
        delimiter, lines = _one_of_decimals(source, lines)
    named = tuple(name.strip() for name in lines[0]) if has_header else tuple(str(k + 1) for k in range(len(lines[0])))
    first = int(has_header)
    columns: list[Sequence[str]] = list(zip(*lines[first:], strict=True))
    sample = [cell for line in lines[first:SAMPLE] for cell in line if "," in cell]
    commas = delimiter != "," and any(re.fullmatch("-?[0-9]+,([0-9]{1,2}|[0-9]{4,})", cell) for cell in sample)
    return Sheet(named, columns, numbers[first:], "," if commas else None, notes, has_header)


def _decode(content: bytes, source: str) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and what had to be guessed of its encoding."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in content[:1000]:  # every other byte of Latin text in UTF-16
        zeros = content[:1000:2].count(0), content[1:1000:2].count(0)
        encoding = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    else:
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
        if "\0" in text:
            raise DataError(f"{source!r} is no text: it holds zero bytes; give a table as text, or .parquet")
        return text, ()
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise DataError(f"{source!r} is no text ({error}); save it as UTF-8") from None
    for encoding in ("cp1252", "latin-1"):
        try:
            said = f"no UTF-8 text: read as {encoding}; save it as UTF-8 if words look wrong"
            return content.decode(encoding), (said,)
        except UnicodeDecodeError:
            continue
    raise AssertionError("latin-1 decodes every byte")


def _delimiter(text: str) -> str:
    """What separates the cells: the character that cuts most lines as the first one; " " for runs of blanks."""
    head = [line for line in text[: 200 * SAMPLE].splitlines()[:SAMPLE] if line.strip()]
    best, most = NONE, 0.0
    for delimiter in DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(head, delimiter=delimiter, skipinitialspace=delimiter != "\t")]
        except csv.Error:
            continue
        share = widths.count(widths[0]) / len(widths) if widths and widths[0] > 1 else 0.0
        if share > most:
            best, most = delimiter, share
    if best == NONE and head:
        widths = {len(line.split()) for line in head}
        if len(widths) == 1 and widths != {1} and sum(map(_is_value, head[-1].split())) * 2 >= len(head[-1].split()):
            return " "
        if len(head[0].split(",")) == 1 and not any(PLAIN.fullmatch(c) for c in head[0].split(",")):
            return NONE
    return best


def _split(text: str, delimiter: str, source: str) -> tuple[list[int], list[list[str]]]:
    """The numbers and the cells of the lines that are not blank. Raises DataError for a cell that has no end."""
    if delimiter == " ":
        pairs = [(i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
        return [i for i, _ in pairs], [cells for _, cells in pairs]
    rows = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=delimiter != "\t")
    numbers: list[int] = []
    lines: list[list[str]] = []
    try:
        for row in rows:
            row = [cell.strip() for cell in row]
            if any(row) or (len(row) == 1 and lines and len(lines[0]) == 1):  # a gap of the only column
                numbers.append(rows.line_num)
                lines.append(row)
    except csv.Error as error:
        raise DataError(f"{source!r} is no table: row {rows.line_num}: {error}") from None
    while lines and not any(lines[-1]):
        del lines[-1], numbers[-1]
    return numbers, lines


def _is_value(cell: str) -> bool:
    """Whether a cell is a number in some style, or looks like a date."""
    if PLAIN.fullmatch(cell) or GENERAL.fullmatch(cell):
        return True
    return LIKELY.fullmatch(cell) is not None and re.search("[0-9]", cell) is not None


def _has_header(lines: Sequence[Sequence[str]]) -> bool:
    """Whether the first line names the columns.

    It does where one of its words stands over numbers, or where none of its words comes again in its column. A first
    line with numbers in it is one only where these are years, unlike what stands below.
    """
    first, below = lines[0], lines[1:]
    values = [cell for cell in first if _is_value(cell)]
    if values and not (all(re.fullmatch("[1-9][0-9]{3}", cell) for cell in values) and len(set(first)) == len(first)):
        return False
    if len(values) == len(first):
        return False
    if not below:
        return True
    for k, cell in enumerate(first):
        under = [line[k] for line in below if k < len(line) and line[k] not in NUMBER_GAPS]
        if cell not in (*NUMBER_GAPS, *values) and under and all(map(_is_value, under)):
            return True
    again = any(cell and cell == line[k] for line in below for k, cell in enumerate(first) if k < len(line))
    years = [line[k] for line in below for k, cell in enumerate(first) if cell in values and k < len(line)]
    return not again and not any(re.fullmatch("[0-9]{4}", cell) for cell in years)


def _one_of_decimals(source: str, lines: list[list[str]]) -> tuple[str, list[list[str]]]:
    """Lines such as 3,14 without a header, as one column of decimals or two of whole numbers.

    Raises:
        DataError: few lines, which could be either.
    """
    if not all(re.fullmatch("-?[0-9]+", a) and re.fullmatch("[0-9]+", b) for a, b in lines):
        return ",", lines
    behind = [b for _, b in lines]
    widths = {len(b) for b in behind}
    if any(len(b) > 1 and b[0] == "0" for b in behind):  # a fraction
        return NONE, [[",".join(line)] for line in lines]
    if len(lines) < PAIRS and len(widths) == 1 and widths != {1}:
        raise DataError(
            f"{source!r} may be one column of decimals ({','.join(lines[0])}) or two of whole numbers: write a header "
            "above them, or separate columns by ; or tabs"
        )
    return ",", lines
