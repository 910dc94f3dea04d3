"""What a column of a table holds, decided from all its cells.

Numbers and dates are tried first, with every usual sign of a gap; then the column is words, in which "nan", "None" and
"-" are words too. A user overrides a column with a request: "integer", "words", "drop", "gap=-999",
"number,gap=-999", "date=%m/%d/%Y".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..registry import suggest
from .column_styles import PLAIN, Reading, read_numbers
from .date_styles import date_style, read_dates
from .errors import DataError
from .schema import GAPS, KINDS, NUMBER_GAPS, ColumnSpec
from .words import natural

FEW, FEW_OF_MANY, MANY = 16, 64, 2000  # levels; of tables with many rows; which are many
REPEATS = 5  # how often a level comes, on average, at least
MOST_WORDS = 1000  # words of a column; the rarer ones are merged
ALL_DIFFERENT = 0.95  # share of different cells from which words are identifiers
FEWEST = 20  # rows from which they may be
LONG = 40  # characters of free text, on average
ID_NAME = re.compile(
    r"(?:.*[_\s.-])?(?:id|ids|idx|uuid|guid|key|no|nr|nbr)|row(?:_?names?|_?num|_?id)|index|unnamed: 0|#", re.I
)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)


@dataclass(frozen=True)
class ColumnRequest:
    """What the user says of a column.

    Args:
        kind: one of `KINDS`; None: as the cells say.
        gaps: cells that are gaps, beside the usual ones.
        form: the format of its dates; "" as the cells say.
    """

    kind: str | None = None
    gaps: tuple[str, ...] = ()
    form: str = ""

    @classmethod
    def from_text(cls, name: str, text: str) -> ColumnRequest:
        """The request in words; see the head of this file. Raises DataError for one that says nothing known."""
        form = ""
        if match := re.search(r"(?:^|,)date=(.*%.*)$", text):
            form, text = match[1], text[: match.start()] + ",date"
        gaps, kind = [], None
        for part in filter(None, (part.strip() for part in text.split(","))):
            word, equals, value = part.partition("=")
            word = {"drop": "dropped", "text": "words", "id": "identifier"}.get(word, word)
            if word == "gap" and equals:
                gaps.append(value)
            elif word in KINDS and not equals:
                kind = word
            else:
                known = [*KINDS[:-1], "drop", "gap=CELL", "date=FORMAT"]
                raise DataError(f"column {name!r} cannot be {part!r}{suggest(part, known)}")
        if form:
            try:
                date_style(form)
            except ValueError as error:
                raise DataError(f"column {name!r}: {error}") from None
        return cls(kind, tuple(gaps), form)

    def is_gap(self, cell: str) -> bool:
        """Whether the user says that a cell is a gap: as it is written, or by its value."""
        if not self.gaps or cell in self.gaps:
            return bool(self.gaps)
        numbers = [_float(gap) for gap in self.gaps]
        return (value := _float(cell)) is not None and value in numbers


class _Cells(NamedTuple):
    """The distinct cells of a column that are no gaps, in the order of the file, and the gaps, with their counts."""

    counts: dict[str, int]
    gaps: dict[str, int]

    @property
    def total(self) -> int:
        """Number of rows that are no gaps."""
        return sum(self.counts.values())

    @property
    def gap(self) -> str | None:
        """The commonest sign of a gap."""
        return max(self.gaps, key=self.gaps.__getitem__) if self.gaps else None


def infer(
    name: str,
    cells: Sequence[str],
    *,
    n_train: int | None = None,
    as_kind: str | None = None,
    min_count: int = 1,
    decimal: str | None = None,
    gaps: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
) -> ColumnSpec:
    """What a column holds.

    Args:
        name: of the column.
        cells: all of them, n.
        n_train: how many of the rows will train; None: all.
        as_kind: what the user says of it; see the head of this file.
        min_count: words that occur fewer times become one word, "other".
        decimal: the character before the fraction, where cells such as 1,234 leave it open.
        gaps: the cells that are gaps, in any column; None: the usual ones.
        rows: the numbers of the rows in messages; None: from 1.

    Raises:
        DataError: cells that are not what the user says, by their rows.
    """
    cells = [cell.strip() for cell in cells]
    request = ColumnRequest.from_text(name, as_kind or "")
    kind = request.kind
    if kind == "dropped":
        return ColumnSpec(name, "dropped", why="as you say")
    counts = Counter(cells)
    share = 1.0 if n_train is None else min(1.0, n_train / max(len(cells), 1))
    found = _split(counts, NUMBER_GAPS if gaps is None else gaps, request)
    words = _split(counts, GAPS if gaps is None else gaps, request)
    if not found.counts or (kind in ("words", None) and not words.counts):
        return ColumnSpec(name, "constant", gap=found.gap, content=found.gap or "", why="empty")
    if kind is None and len(words.counts) == 1 and not words.gaps:
        return ColumnSpec(name, "constant", content=next(iter(words.counts)), why="one value")
    if kind == "constant":
        if len(counts) > 1:
            raise DataError(f"column {name!r} is no constant: it holds {_some(list(counts))}")
        return ColumnSpec(name, "constant", content=cells[0], why="as you say")
    why = ""
    if kind in (None, "levels", "integer", "number", "date") and (kind is not None or len(found.counts) > 1):
        spec, why = _measured(name, found, request, decimal, share)
        lone = [cell for cell in found.counts if not re.search("[0-9]", cell)] if spec is None and kind is None else []
        if len(lone) == 1 and len(found.counts) > FEW + 1:
            without = _split(counts, [*found.gaps, *lone], request)
            spec, _ = _measured(name, without, request, decimal, share)
            if spec is not None:
                found, spec = without, replace(spec, gap=lone[0], why=f"{spec.why}; {lone[0]!r} is taken as a gap")
        if spec is not None:
            return _told(spec, found)
        if kind is not None:
            raise DataError(f"column {name!r} cannot be {kind}: {why}", _misfits(cells, found, request, rows), show=20)
        why = f": {why}" if any(re.fullmatch("[-+]?[0-9][0-9.,_eE]*", cell) for cell in found.counts) else ""
    return _told(_worded(name, words, kind, min_count, why), words)


def _split(counts: Mapping[str, int], gaps: Sequence[str], request: ColumnRequest) -> _Cells:
    """The cells of a column without its gaps."""
    is_gap = {cell: cell in gaps or request.is_gap(cell) for cell in counts}
    return _Cells(
        {cell: k for cell, k in counts.items() if not is_gap[cell]},
        {cell: k for cell, k in counts.items() if is_gap[cell]},
    )


def _told(spec: ColumnSpec, cells: _Cells) -> ColumnSpec:
    """The spec with its gaps, which are written as the commonest of them."""
    if not cells.gaps:
        return spec
    missing = sum(cells.gaps.values())
    others = [repr(gap) for gap in cells.gaps if gap != cells.gap]
    also = f", {', '.join(others)} too" if others else ""
    why = f"{spec.why}; gaps in {missing:,} of {cells.total + missing:,} rows{also}"
    return replace(spec, gap=spec.gap or cells.gap, why=why)


# -- numbers and dates -------------------------------------------------------------------------------------------------


def _measured(
    name: str, cells: _Cells, request: ColumnRequest, decimal: str | None, share: float
) -> tuple[ColumnSpec | None, str]:
    """The spec of a column of numbers or dates; None and why it is neither."""
    texts, kind = list(cells.counts), request.kind
    if kind in (None, "date", "levels"):
        codes: list[float] = []
        form, decimals, doubt = request.form, 0, ""
        if form:
            codes = [code for text in texts if (code := date_style(form).read(text)) is not None]
        elif (len(texts[0]) == 8 or not PLAIN.fullmatch(texts[0])) and (dates := read_dates(texts)):
            form, decimals, codes, doubt = dates
        if form and len(codes) == len(texts):
            unit = date_style(form).unit
            found = _Column(name, cells, codes, decimals, form, doubt or form, unit)
            if kind != "date" and found.are_levels(kind, share):
                return found.levels(), ""
            if kind is not None or not (len(texts) <= FEW and form == "%Y%m%d"):
                return found.spec("date"), ""
        if kind == "date":
            return None, f"not all cells are dates {form}" if form else "no format fits all cells (date=FORMAT says it)"
    reading = read_numbers(texts, decimal, loose=kind is not None)
    if not isinstance(reading, Reading):
        return None, reading
    style, decimals, codes, doubt = reading
    found = _Column(name, cells, codes, decimals, style.text, doubt)
    whole = decimals == 0 or (kind == "integer" and all(map(float.is_integer, codes)))
    if kind == "integer" and not whole:
        return None, "not all cells are whole numbers"
    if found.are_levels(kind, share):
        return found.levels(), ""
    if kind is None and whole and _is_running(name, codes, cells):
        low, high = min(codes), max(codes)
        running = "running" if high - low + 1 == len(codes) else ""
        return ColumnSpec(name, "identifier", low=low, high=high, style=running, content="{:d}", why="row numbers"), ""
    return found.spec(kind or ("integer" if whole else "number")), ""


class _Column(NamedTuple):
    """A column of numbers or dates: its distinct cells and their codes."""

    name: str
    cells: _Cells
    codes: list[float]
    decimals: int
    style: str
    doubt: str
    unit: float = 1.0

    def are_levels(self, kind: str | None, share: float) -> bool:
        """Whether the column is one of few values, or the user says so."""
        if kind is not None:
            return kind == "levels"
        rows, distinct = self.cells.total * share, len(set(self.codes))
        most = FEW if rows < MANY else FEW_OF_MANY
        return distinct <= most and (rows >= REPEATS * distinct or (distinct == 2 and rows > 2))

    def spec(self, kind: str) -> ColumnSpec:
        """The spec of a column that is not one of few values."""
        low, high = min(self.codes), max(self.codes)
        decimals = self.decimals if kind != "integer" else 0
        step = _step(np.array(self.codes), decimals, self.unit if kind == "date" else 1.0)
        step = 0.0 if re.search("power=[eE]", self.style) else step  # each has a step of its own
        why = [{"integer": "whole numbers", "number": "numbers", "date": "dates"}[kind]]
        if kind == "number":
            why = [f"numbers of {decimals} decimals" if decimals >= 0 else "numbers"]
        if decimals >= 0 and step > 1.5 * max(10.0**-decimals, self.unit if kind == "date" else 0.0):
            why.append(f"steps of {step:g}")
        said = ", ".join([*why, *filter(None, [self.doubt])])
        return ColumnSpec(
            *(self.name, kind), decimals=decimals, low=low, high=high, style=self.style, why=said, step=step
        )

    def levels(self) -> ColumnSpec:
        """The spec of a column of few values."""
        spelt: dict[float, str] = {}
        counts = self.cells.counts
        for text, code in sorted(zip(counts, self.codes, strict=True), key=lambda pair: -counts[pair[0]]):
            spelt.setdefault(code, text)  # the commonest spelling of a number
        values = tuple(sorted(spelt))
        spec = ColumnSpec(
            *(self.name, "levels", (), values),
            decimals=self.decimals,
            low=values[0],
            high=values[-1],
            style=self.style,
            why=", ".join(["few values", *filter(None, [self.doubt])]),
        )
        texts = [spelt[value] for value in values]
        return spec if spec.write(np.array(values)) == texts else replace(spec, texts=tuple(texts))


def _step(codes: np.ndarray, decimals: int, unit: float) -> float:
    """The distance of the grid that the distinct values of a column lie on, float; 0.0: none.

    Ten values or more share a divisor by chance with a probability of 2^-9 or less. Where sums of a few decimals were
    written with 17 digits (0.30000000000000004), the grid is that of the decimals.
    """
    if decimals < 0:
        for digits in range(1, 10):
            ticks = codes * 10.0**digits
            if np.abs(ticks - np.rint(ticks)).max() < 1e-6 and np.abs(ticks).max() < 2**31:
                return 10.0**-digits
    if decimals < 0 or len(codes) < 2 or np.abs(codes).max() * 10.0**decimals > 2**51:
        return 0.0
    finest = unit * 10.0**-decimals
    ticks = np.rint((codes - codes.min()) / finest).astype(np.int64)
    common = int(np.gcd.reduce(ticks)) if len(set(ticks.tolist())) >= 10 else 1
    return max(common, 1) * finest if decimals == 0 else max(common, 1) / 10.0**decimals * unit


def _is_running(name: str, codes: list[float], cells: _Cells) -> bool:
    """Whether whole numbers are those of rows: all different, and called so or counted from 0 or 1."""
    if len(codes) < FEWEST or len(codes) < ALL_DIFFERENT * cells.total or len(set(codes)) < len(codes):
        return False
    counted = min(codes) in (0.0, 1.0) and max(codes) - min(codes) + 1 == len(codes) == cells.total and not cells.gaps
    return counted or ID_NAME.fullmatch(name) is not None


def _misfits(
    cells: Sequence[str], found: _Cells, request: ColumnRequest, rows: Sequence[int] | None
) -> list[str]:
    """The cells that are not of the kind that the user asks for, by row."""

    def fits(cell: str) -> bool:
        if request.kind == "date":
            return bool(date_style(request.form).read(cell) is not None if request.form else read_dates([cell]))
        reading = read_numbers([cell], loose=True)
        return isinstance(reading, Reading) and (request.kind != "integer" or reading.values[0].is_integer())

    good = {cell: fits(cell) for cell in found.counts}
    numbers = rows or range(1, len(cells) + 1)
    return [f"row {i}: {cell!r}" for i, cell in zip(numbers, cells, strict=True) if not good.get(cell, True)]


# -- words -------------------------------------------------------------------------------------------------------------


def _worded(name: str, cells: _Cells, kind: str | None, min_count: int, why: str) -> ColumnSpec:
    """The spec of a column of words, or of identifiers."""
    texts = list(cells.counts)
    if kind == "identifier" or (kind is None and _are_identifiers(cells)):
        return _identifier(name, texts, why)
    spec = ColumnSpec(name, "words", why=f"words{why}" if why else "words")
    fewest = min_count
    if kind is None and len(texts) > MOST_WORDS:  # the commonest, all of a count or none
        fewest = max(fewest, sorted(cells.counts.values(), reverse=True)[MOST_WORDS - 1] + 1)
    rare = [text for text in texts if cells.counts[text] < fewest]
    if len(rare) > 1 or (rare and min_count > 1):
        other = "other" if "other" not in texts else "other words"
        texts = [*(text for text in texts if cells.counts[text] >= fewest), other]
        spec = replace(spec, content=other, why=f"{len(rare)} words that come fewer than {fewest} times are {other!r}")
    return replace(spec, words=tuple(sorted(texts, key=natural)))


def _are_identifiers(cells: _Cells) -> bool:
    """Whether words are all or nearly all different, or free text."""
    distinct, total = len(cells.counts), cells.total
    if total < FEWEST or distinct < total / 2:
        return False
    return distinct >= ALL_DIFFERENT * total or sum(map(len, cells.counts)) > LONG * distinct


def _identifier(name: str, texts: list[str], why: str) -> ColumnSpec:
    """The spec of identifiers, with the pattern that new ones follow."""
    spec = ColumnSpec(name, "identifier", why=f"nearly all different{why}; made anew")
    if all(map(UUID.fullmatch, texts)):
        return replace(spec, content="uuid")
    if sum(map(len, texts)) > LONG * len(texts):
        return replace(spec, content="", why="free text, left blank")
    matches = [match for text in texts if (match := re.fullmatch(r"(.*?)([0-9]{1,18})([^0-9]*)", text))]
    around = {(match[1], match[3]) for match in matches}
    numbers = [int(match[2]) for match in matches]
    if len(matches) < len(texts) or len(around) > 1:
        width = len(str(len(texts)))
        return replace(spec, content=f"{_plain(name)}-{{:0{width}d}}", low=1.0, high=0.0)
    ((before, behind),) = around
    widths = {len(match[2]) for match in matches}
    padded = any(match[2][0] == "0" and len(match[2]) > 1 for match in matches)
    digits = f"{{:0{max(widths)}d}}" if padded or len(widths) == 1 else "{:d}"
    return replace(
        spec, content=f"{_plain(before)}{digits}{_plain(behind)}", low=float(min(numbers)), high=float(max(numbers))
    )


def _plain(text: str) -> str:
    """Text as a pattern of itself."""
    return text.replace("{", "{{").replace("}", "}}")


def _some(texts: Sequence[str]) -> str:
    """The first five cells."""
    return ", ".join(map(repr, texts[:5])) + (", ..." if len(texts) > 5 else "")


def _float(text: str) -> float | None:
    """The number that a cell is, plainly."""
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None
