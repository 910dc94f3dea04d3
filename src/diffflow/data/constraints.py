"""Constraints: what a user asks of rows, in words, as equalities and comparisons of columns.

    species=Adelie                    a column has a value, as the file writes it: all that follows the sign
    age>60    60<=age<70    sex!=f    comparisons with a value
    a+b<=10   2*a-b>c                 comparisons of sums of columns

Names of columns may hold anything, spaces, quotes and signs included: the longest name that fits is meant, and "..."
or '...' around a name says where it ends (the same quote within is doubled). A number that is the name of a column is
that column. A gap fulfils no comparison. Nothing is evaluated but these sums.

    words     ->  conditions                              sum op sum (op sum), column=value
    sum       ->  [-] term (+|-) term ...                 term: number, column, number*column
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..registry import suggest
from .errors import DataError

Reader = Callable[[str], float]  # a value as the file writes it -> its number

OPERATORS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "!=": lambda a, b: a != b,
    "==": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "=": lambda a, b: a == b,
}
_FLIPPED = {"<=": ">=", ">=": "<=", "<": ">", ">": "<"}
_OPERATOR = re.compile(r"<=|>=|!=|==|<|>|=")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(?![\w.])")


@dataclass(frozen=True)
class Comparison:
    """A comparison of a sum of columns with a number.

    Args:
        terms: pairs (factor, column).
        operator: a row of OPERATORS.
        bound: the number.
        text: what the user wrote.
    """

    terms: tuple[tuple[float, str], ...]
    operator: str
    bound: float
    text: str = field(default="", compare=False)

    def holds(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows fulfil it: bool (n,), of the columns' numbers (n,) by name, NaN for a gap."""
        total = sum(factor * np.asarray(columns[name], dtype=np.float64) for factor, name in self.terms)
        return OPERATORS[self.operator](np.asarray(total), self.bound) & ~np.isnan(total)


@dataclass(frozen=True)
class Constraints:
    """What is asked of rows.

    Args:
        equalities: values of columns, as the file writes them.
        comparisons: what else has to hold, all of them.
    """

    equalities: dict[str, str]
    comparisons: tuple[Comparison, ...]

    def holds(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows fulfil all comparisons: bool (n,)."""
        n = len(next(iter(columns.values())))
        return np.logical_and.reduce([c.holds(columns) for c in self.comparisons] or [np.ones(n, dtype=bool)])


def parse_constraints(
    words: Sequence[str], columns: Mapping[str, Reader] | Collection[str], unordered: Collection[str] = ()
) -> Constraints:
    """Read what a user asks of rows.

    Args:
        words: one condition each.
        columns: names of the columns with the reader of their values; without readers all values are numbers.
        unordered: columns of words, which can be equal to a value or not, neither less nor more.

    Returns:
        Equalities and comparisons. The values of equalities are left as they stand.

    Raises:
        DataError: a column that is not there, two values for one column, what is no condition, or a value that its
            column cannot have.
    """
    readers = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns, float)
    equalities: dict[str, str] = {}
    comparisons: list[Comparison] = []
    for word in words:
        if (equality := _equality(word, readers)) is not None:
            name, value = equality
            if equalities.setdefault(name, value) != value:
                raise DataError(f"{name} is asked to be {equalities[name]!r} and {value!r}: give one of them")
        else:
            comparisons += _comparisons(word, readers, unordered)
    return Constraints(equalities, tuple(comparisons))


def quoted(name: str) -> str:
    """A column's name in quotes, as it can always stand in a condition."""
    return '"' + name.replace('"', '""') + '"'


def _names_at(text: str, i: int, names: Collection[str]) -> list[tuple[str, int]]:
    """Columns whose names may begin at text[i], with where they end: a quoted one first, then the longest."""
    found = []
    if text[i] in "\"'":
        q = text[i]
        if match := re.compile(f"{q}((?:[^{q}]|{q}{q})*){q}(?!{q})").match(text, i):
            name = match[1].replace(q + q, q)
            found = [(name, match.end())] if name in names else []
    plain = sorted((name for name in names if name and text.startswith(name, i)), key=len, reverse=True)
    ends = [(name, i + len(name)) for name in plain]
    return found + [(name, e) for name, e in ends if not (_in_word(name[-1]) and e < len(text) and _in_word(text[e]))]


def _in_word(c: str) -> bool:
    return c.isalnum() or c == "_"


def _skip(text: str, i: int) -> int:
    while i < len(text) and text[i].isspace():
        i += 1
    return i


def _equality(word: str, names: Collection[str]) -> tuple[str, str] | None:
    """Column and value of "column=value"; None where it is something else."""
    start = _skip(word, 0)
    for name, end in _names_at(word, start, names) if start < len(word) else ():
        sign = re.compile(r"==?").match(word, _skip(word, end))
        if sign is not None:
            if not (value := word[sign.end() :].strip()):
                raise DataError(f"{word!r}: no value stands behind the sign of equality")
            return name, value
    return None


def _comparisons(word: str, readers: Mapping[str, Reader], unordered: Collection[str]) -> list[Comparison]:
    """The comparisons of one condition."""
    sides, operators = _split(word, readers)
    if not operators or len(operators) > 2 or not all(sides):
        raise DataError(
            f"{word!r} is no condition: write column=value, a comparison such as 'age>60' or '60<=age<70', or one of "
            f"sums, 'a+b<=10'{_unknown(word, readers)}"
        )
    out = []
    for left, operator, right in zip(sides, operators, sides[1:], strict=False):
        a, b = (_sum(side, readers, word) for side in (left, right))
        if a is not None and len(a[0]) == 1 and a[0][0][1] in unordered:
            b = None  # a word, also where a column is called like it
        if a is None:
            left, right, a, b, operator = right, left, b, a, _FLIPPED.get(operator, operator)
        if a is None:
            raise DataError(f"{word!r} names no column{_unknown(word, readers)}")
        terms, constant = a
        words = [name for _, name in (*terms, *(b[0] if b else ())) if name in unordered]
        if words and (len(terms) > 1 or b is not None or operator not in ("!=", "=", "==")):
            raise DataError(
                f"{word!r}: column {words[0]} holds words, which are equal or not (=, !=) and neither less nor more"
            )
        if b is not None:
            terms, bound = terms + tuple((-f, name) for f, name in b[0]), b[1] - constant
        elif len(terms) == 1 and terms[0][0] == 1 and constant == 0:
            bound = _value(right, terms[0][1], readers, word)
        else:
            bound = _number(right, word) - constant
        out.append(Comparison(_collected(terms), operator, bound, word))
    return out


def _collected(terms: tuple[tuple[float, str], ...]) -> tuple[tuple[float, str], ...]:
    """The terms with one factor a column, in the order of their first use."""
    factors: dict[str, float] = {}
    for factor, name in terms:
        factors[name] = factors.get(name, 0.0) + factor
    return tuple((factor, name) for name, factor in factors.items())


def _split(word: str, names: Collection[str]) -> tuple[list[str], list[str]]:
    """The sides of comparison signs, and these; signs within names are not among them."""
    sides, operators, i, start = [], [], 0, 0
    while i < len(word):
        if (sign := _OPERATOR.match(word, i)) is not None:
            sides.append(word[start:i].strip())
            operators.append(sign[0])
            i = start = sign.end()
        elif i > start and _in_word(word[i]) and _in_word(word[i - 1]):
            i += 1  # within a word, where no name begins
        else:
            i = next((end for _, end in _terms_at(word, i, names)), i + 1)
    return [*sides, word[start:].strip()], operators


def _terms_at(text: str, i: int, names: Collection[str]) -> list[tuple[str, int]]:
    """Columns, with where they end, that may begin at text[i] as terms of a sum: nothing, or a sign, follows them."""
    found = _names_at(text, i, names) if i < len(text) else []
    return [(name, end) for name, end in found if text[_skip(text, end) :][:1] in ("", *"<>=!+-*")]


def _sum(side: str, names: Collection[str], word: str) -> tuple[tuple[tuple[float, str], ...], float] | None:
    """Terms and constant of a sum of columns; None of a side that names no column."""
    terms: list[tuple[float, str]] = []
    constant, i, sign, wants = 0.0, _skip(side, 0), 1.0, True
    while i < len(side):
        if side[i] in "+-":
            sign, wants, i = (sign if wants else 1.0) * (-1 if side[i] == "-" else 1), True, _skip(side, i + 1)
            continue
        factor, j = sign, i
        number = _NUMBER.match(side, i)
        names_here = _terms_at(side, i, names)
        if not names_here and number is not None:
            factor, j = sign * float(number[0]), _skip(side, number.end())
            if j < len(side) and side[j] == "*":
                j = _skip(side, j + 1)
                names_here = _terms_at(side, j, names)
            elif wants:
                constant, i, wants = constant + factor, j, False
                continue
        if not wants or not names_here:
            if terms:
                raise DataError(f"{word!r}: {side[i:]!r} is neither a column nor a number{_unknown(side[i:], names)}")
            return None
        name, end = names_here[0]
        terms.append((factor, name))
        i, wants = _skip(side, end), False
    if terms and wants:
        raise DataError(f"{word!r}: a sign stands at the end of {side!r}, and nothing behind it")
    return (tuple(terms), constant) if terms else None


def _value(text: str, column: str, readers: Mapping[str, Reader], word: str) -> float:
    """The number of a column's value, by its reader."""
    try:
        value = float(readers[column](text))
    except (ValueError, KeyError) as error:
        raise DataError(f"{word!r}: column {column} has no value {text!r}{_unknown(text, readers)}") from error
    if math.isnan(value):
        raise DataError(f"{word!r}: {text!r} is a gap, and nothing compares with a gap")
    return value


def _number(text: str, word: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise DataError(f"{word!r}: {text!r} is no number, with which a sum of columns could be compared")
    return value


def _unknown(text: str, names: Collection[str]) -> str:
    """A hint at the column that a text may have meant."""
    name = re.split(r"[<>=!+*-]", text.strip(), maxsplit=1)[0].strip(" \"'")
    return f": there is no column {name!r}{suggest(name, names)}" if name and name not in names else ""
