"""How files write numbers: decimal commas, thousands, currencies, per cent; a style is guessed from a whole column.

A style reads what it writes and nothing else, so that no cell is silently taken for another number: "00501", "12_34"
and whole numbers beyond 2^53 are no numbers to any style, "12E4" only where the column has numbers like 1.2e-05 too.
Dates are in `date_styles`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

EXACT = 2**53  # up to here every whole number is a float64
CURRENCIES = "EUR|USD|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|RUB|TRY|ZAR|KRW|SGD|HKD|kr|zł|Fr."
SPACES = " \u00a0\u202f"  # plain, no-break and narrow: between thousands
PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
GENERAL = re.compile(
    rf"(?P<open>\(?)(?P<sign>[-+−]?)(?P<prefix>(?:(?:[A-Z]{{0,3}}[$€£¥₹₽₩]|{CURRENCIES})[{SPACES}]?)?)(?P<inner>[-+−]?)"
    rf"(?P<body>[0-9][0-9.,'’{SPACES}]*(?<![{SPACES}])|[.,][0-9]+)(?P<power>(?:[eE][-+]?[0-9]+)?)"
    rf"(?P<suffix>(?:[{SPACES}]?(?:[%‰$€£¥₹₽₩]|{CURRENCIES})|[{SPACES}][^\W\d_°²³/]{{1,8}})?)(?P<close>\)?)"
)


class Reading(NamedTuple):
    """The numbers of a column: their style, digits after the point (-1: as many as it takes), and the values."""

    style: NumberStyle
    decimals: int
    values: list[float]
    doubt: str = ""


@dataclass(frozen=True)
class NumberStyle:
    """How a column writes its numbers.

    Args:
        decimal: the character before the fraction.
        thousands: the character between groups of three digits; "" without.
        prefix: what stands before each number, such as "$".
        suffix: what stands behind it, such as "%".
        negative: how numbers below zero are told: "-", "−", or "()" for those in brackets.
        plus: whether numbers above zero have a sign.
        least: fewest digits after the point; zeros beyond them are not written. -1: all numbers have the same.
        power: powers of ten: "e" or "E" and the digits of the mantissa where all numbers have one ("e5"), "free" where
            some have, "" without.
        loose: whether leading zeros and powers without a sign are read: where the user says that these are numbers.
    """

    decimal: str = "."
    thousands: str = ""
    prefix: str = ""
    suffix: str = ""
    negative: str = "-"
    plus: bool = False
    least: int = -1
    power: str = ""
    loose: bool = False

    @classmethod
    def from_text(cls, text: str) -> NumberStyle:
        """The style that `text` says, such as "decimal=, suffix=%"."""
        said: dict[str, Any] = dict(part.split("=", 1) for part in shlex.split(text))
        said |= {name: said[name] == "True" for name in ("plus", "loose") if name in said}
        said |= {name: int(said[name]) for name in ("least",) if name in said}
        return cls(**said)

    @property
    def text(self) -> str:
        """What differs from plain numbers, as text."""
        parts = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return " ".join(shlex.quote(f"{name}={value}") for name, value in parts)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether cells are read by `float` as they are."""
        return (self.decimal, self.thousands, self.prefix, self.suffix, self.negative) == (".", "", "", "", "-")

    @cached_property
    def _body(self) -> re.Pattern[str]:
        """The digits of a number in this style."""
        whole = "[0-9]+" if self.loose else "(?:0|[1-9][0-9]*)"
        if self.thousands:
            whole = rf"(?:{whole}|[1-9][0-9]{{0,2}}(?:{re.escape(self.thousands)}[0-9]{{3}})+)"
        point = re.escape(self.decimal)
        return re.compile(rf"{whole}(?:{point}[0-9]*)?|{point}[0-9]+")

    def read(self, cell: str) -> float | None:
        """The number in a cell; None where there is none in this style."""
        if self._is_plain and PLAIN.fullmatch(cell):
            return float(cell) if len(cell) < 16 else _exact(cell)
        match = GENERAL.fullmatch(cell)
        if match is None or not self._body.fullmatch(match["body"]):
            return None
        if (match["prefix"], match["suffix"]) != (self.prefix, self.suffix):
            return None
        if bool(match["open"]) != bool(match["close"]):
            return None
        if match["power"] and not (self.loose or self.power or _is_scientific(match)):
            return None
        signs = match["sign"] + match["inner"] + ("-" if match["open"] else "")
        if len(signs) > 1:
            return None
        digits = match["body"].replace(self.thousands, "") if self.thousands else match["body"]
        value = _exact(digits.replace(self.decimal, ".") + match["power"])
        return value if value is None or signs in ("", "+") else -value

    def write(self, value: float, decimals: int) -> str:
        """A number as the column writes it, rounded to `decimals` digits (-1: as many as it takes)."""
        size = abs(value)
        if self.power not in ("", "free"):
            digits = f"{size:.{self.power[1:]}{self.power[0]}}"
        elif decimals < 0:
            digits = repr(float(size))
            digits = digits.removesuffix(".0") if self.least == 0 else digits
        else:
            digits = f"{size:.{decimals}f}"
            if 0 <= self.least < decimals:
                whole, _, part = digits.partition(".")
                part = part.rstrip("0").ljust(self.least, "0")
                digits = f"{whole}.{part}" if part else whole
            elif self.least > decimals:
                digits = digits + ("" if decimals else ".") + "0" * (self.least - decimals)
        negative = value < 0 and any(c in "123456789" for c in digits)
        if self.thousands:
            whole, point, part = digits.partition(".")
            digits = f"{int(whole):,}".replace(",", self.thousands) + point.replace(".", self.decimal) + part
        elif self.decimal != ".":
            digits = digits.replace(".", self.decimal)
        if negative and self.negative == "()":
            return f"({self.prefix}{digits}{self.suffix})"
        sign = self.negative if negative else "+" if self.plus and value > 0 else ""
        return f"{sign}{self.prefix}{digits}{self.suffix}"


PLAIN_STYLE = NumberStyle()


def _exact(digits: str) -> float | None:
    """The float64 of a number in plain form; None for whole numbers that it cannot hold, and for infinity."""
    value = float(digits)
    if abs(value) > EXACT and digits.lstrip("+-").isdigit() and int(digits) != int(value):
        return None
    return value if abs(value) < float("inf") else None


def read_numbers(cells: Sequence[str], decimal: str | None = None, loose: bool = False) -> Reading | str:
    """The numbers of a column, in one style.

    Args:
        cells: the distinct cells without gaps, at least one.
        decimal: the character before the fraction where cells such as 1,234 or 1.234 leave it open.
        loose: read leading zeros and powers of ten in any form too.

    Returns:
        The reading; or in words why these are no numbers.
    """
    if all(map(PLAIN.fullmatch, cells)) and not (decimal == "," and _all_in_threes(cells)):
        fractions = [len(cell) - cell.find(".") - 1 if "." in cell else 0 for cell in cells]
        return _finish(PLAIN_STYLE, cells, fractions, [], "")
    found = [GENERAL.fullmatch(cell) for cell in cells]
    if None in found:
        return f"{cells[found.index(None)]!r} is no number"
    matches = [match for match in found if match is not None]
    if len({(match["prefix"], match["suffix"]) for match in matches}) > 1:
        return "the numbers have several units"
    bodies = [match["body"] for match in matches]
    powers = [match["power"] for match in matches]
    if any(powers) and not (loose or any(map(_is_scientific, matches))):
        return f"{next(c for c, power in zip(cells, powers, strict=True) if power)!r} may be a code"
    point, thousands, doubt = _separators(bodies, decimal)
    signs = [match["sign"] + match["inner"] for match in matches]
    style = NumberStyle(
        point,
        thousands,
        matches[0]["prefix"],
        matches[0]["suffix"],
        negative="()" if any(match["open"] for match in matches) else "−" if "−" in signs else "-",
        plus="+" in signs and all(sign or not body.strip("0.,") for sign, body in zip(signs, bodies, strict=True)),
        power="free" if any(powers) else "",
        loose=loose,
    )
    fractions = [len(body) - body.rfind(point) - 1 if point in body else 0 for body in bodies]
    return _finish(style, cells, fractions, powers, doubt)


def _finish(
    style: NumberStyle, cells: Sequence[str], fractions: Sequence[int], powers: Sequence[str], doubt: str
) -> Reading | str:
    """The reading in a style, which learns the digits that the column writes after the point."""
    numbers = [style.read(cell) for cell in cells]
    values = [number for number in numbers if number is not None]
    if len(values) < len(cells):
        cell = cells[numbers.index(None)]
        zeros = re.fullmatch(r"[^0-9]*0[0-9].*", cell)
        return f"{cell!r} has {'leading zeros' if zeros else 'more digits than a number keeps'}"
    decimals, least = max(fractions), min(fractions)
    if powers and all(powers) and decimals == least:
        return Reading(replace(style, power=f"{powers[0][0]}{decimals}"), -1, values, doubt)
    if any(powers):  # 1e+05 among whole numbers, 1e-04 among 0.0123
        exponents = [int(power[1:] or 0) if power else 0 for power in powers]
        decimals = max(max(f - e for f, e in zip(fractions, exponents, strict=True)), 0)
        least = min(least, decimals)
    elif decimals == 0:
        return Reading(style, 0, values, doubt)
    if max(map(abs, values)) * 10.0**decimals >= 1e15:  # more digits than float64 is sure to have
        return Reading(replace(style, least=min(least, 1)), -1, values, doubt)
    if all(map(float.is_integer, values)):  # 1.0, 2.0 too
        return Reading(replace(style, least=least or -1), 0, values, doubt)
    return Reading(replace(style, least=-1 if least == decimals else least), decimals, values, doubt)


def _is_scientific(match: re.Match[str]) -> bool:
    """Whether a number has a power of ten that can be nothing else: 1.2e5 or 1e-05, not 12E4."""
    return bool(match["power"]) and (match["power"][1] in "+-" or "." in match["body"] or "," in match["body"])


def _all_in_threes(cells: Iterable[str]) -> bool:
    """Whether plain numbers with a point may be whole ones with thousands: 1.234, 12.345, 999."""
    in_threes = re.compile(r"-?[1-9][0-9]{0,2}(?:\.[0-9]{3})?|0")
    return any("." in cell for cell in cells) and all(map(in_threes.fullmatch, cells))


def _separators(bodies: Sequence[str], decimal: str | None) -> tuple[str, str, str]:
    """The characters before the fraction and between thousands of digits with separators, and what is in doubt."""
    marks = [re.sub("[0-9]", "", body) for body in bodies]
    used = set("".join(marks))
    spaces = next((c for c in used if c not in ".,"), "")
    last = {mark[-1] for mark in marks if len(set(mark) & {".", ","}) == 2}
    if last:  # both in one number
        point = last.pop()
        return point, "," if point == "." else ".", ""
    groups = {mark[0] for mark in marks if len(mark) > 1 and mark[0] in ".,"}  # 1.234.567
    if groups:
        comma = groups.pop()
        return ("," if comma == "." else "."), comma, ""
    if "," not in used:
        if decimal == "," and _all_in_threes(bodies):
            return ",", ".", f"{next(b for b in bodies if '.' in b)} is read with thousands"
        return ".", spaces, ""
    with_comma = [body for body in bodies if "," in body]
    in_threes = all(re.fullmatch(r"[1-9][0-9]{0,2},[0-9]{3}", body) for body in with_comma)
    ungrouped = any(re.fullmatch(r"[0-9]{4,}(?:\.[0-9]+)?", body) for body in bodies)
    if not in_threes or spaces or (ungrouped and "." not in used):
        return ",", spaces, ""
    if "." in used:
        return ".", ",", ""
    sure = decimal is not None
    point = decimal or "."
    return point, "" if point == "," else ",", "" if sure else f"{with_comma[0]} is read with thousands"
