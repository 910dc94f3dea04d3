"""How files write dates and times: a format is guessed from a whole column, ISO first.

A format is spelt as for `strftime` (%Y-%m-%d %H:%M:%S), with %-d, %-m and %-H for numbers without a leading zero. Dates
count days since 1970-01-01, dates with a time and times alone count seconds; zones that differ are brought to UTC.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from functools import lru_cache

EPOCH = datetime.date(1970, 1, 1).toordinal()
LAST = datetime.date.max.toordinal()
DAY = 86_400
SHORT = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LONG = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
DIRECTIVES = {  # what each reads
    "%Y": "(?P<Y>[0-9]{4})",
    "%y": "(?P<y>[0-9]{2})",
    "%m": "(?P<m>[0-9]{1,2})",
    "%d": "(?P<d>[0-9]{1,2})",
    "%b": f"(?P<b>{'|'.join(SHORT)})",
    "%B": f"(?P<B>{'|'.join(LONG)})",
    "%H": "(?P<H>[0-9]{1,2})",
    "%I": "(?P<I>[0-9]{1,2})",
    "%M": "(?P<M>[0-9]{2})",
    "%S": r"(?P<S>[0-9]{2})",
    "%f": r"(?P<f>[0-9]{1,9})",
    "%p": "(?P<p>[AaPp][Mm])",
    "%z": "(?P<z>Z|[-+][0-9]{2}:?[0-9]{2})",
}
DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d"),
    *(f"{a}{s}{b}{s}{y}" for y in ("%Y", "%y") for s in "/-." for a, b in (("%d", "%m"), ("%m", "%d"))),
    *(f"%d{s}{month}{s}{y}" for s in " -/" for month in ("%b", "%B") for y in ("%Y", "%y")),
    *(f"{month} %d{s}%Y" for month in ("%b", "%B") for s in (", ", " ")),
    *("%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%B %Y", "%b-%Y", "%b-%y"),
)
TIMES = ("%H:%M:%S.%f", "%H:%M:%S,%f", "%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%I:%M:%S%p", "%I:%M%p")
ZONE = re.compile(r"(?<=[0-9]) ?(?:Z|UTC|[-+][0-9]{2}:[0-9]{2})$")
LIKELY = re.compile(r"[0-9]{1,4}[-/. ][0-9A-Za-z]{1,9}(?:[-/. ].*)?|[0-9]{8}|[A-Z][a-z]{2,8}[- ].*[0-9]|[0-9]{1,2}:.*")


class DateStyle:
    """A format of dates.

    Args:
        form: the format, as for `strftime`.

    Raises:
        ValueError: a format without a year or an hour, or of unknown directives.
    """

    def __init__(self, form: str) -> None:
        self.form = form
        self.parts = re.findall(r"%-?[A-Za-z%]|[^%]+", form)
        kinds = {part.replace("-", "") for part in self.parts if part[0] == "%"}
        if kinds - {*DIRECTIVES} or not kinds & {"%Y", "%y", "%H", "%I"} or "".join(self.parts) != form:
            raise ValueError(f"{form!r} is no format of dates: use {' '.join(DIRECTIVES)}, such as %d/%m/%Y")
        self.has_date = bool(kinds & {"%Y", "%y"})
        self.has_time = bool(kinds & {"%H", "%I"})
        self.unit = (1.0 if "%S" in kinds else 60.0 if "%M" in kinds else 3600.0) if self.has_time else 1.0
        pattern = "".join(DIRECTIVES[p.replace("-", "")] if p[0] == "%" else re.escape(p) for p in self.parts)
        # isoformat leaves a fraction of zero out
        pattern = re.sub(r"(\\\.|,)(\(\?P<f>.*?\))", r"(?:\1\2)?", pattern)
        if "%Y%m%d" in form:
            pattern = pattern.replace("{1,2}", "{2}")
        self.match = re.compile(pattern).fullmatch

    def read(self, cell: str) -> float | None:
        """Days or seconds since 1970-01-01; None where there is no such date."""
        match = self.match(cell)
        if match is None:
            return None
        found = match.groupdict()
        days = 0
        if self.has_date:
            year = int(found["Y"]) if "Y" in found else 2000 + int(found["y"]) - 100 * (int(found["y"]) > 68)
            names = SHORT if "b" in found else LONG
            month = names.index(found.get("b") or found["B"]) + 1 if "b" in found or "B" in found else int(found["m"])
            try:
                days = datetime.date(year, month, int(found.get("d", 1))).toordinal() - EPOCH
            except ValueError:
                return None
        if not self.has_time:
            return float(days)
        hour, minute, second = int(found.get("H", found.get("I", 0))), int(found.get("M", 0)), int(found.get("S", 0))
        if "p" in found:
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + 12 * (found["p"] in ("PM", "pm", "Pm", "pM"))
        if hour > 23 or minute > 59 or second > 59:
            return None
        whole = days * DAY + hour * 3600 + minute * 60 + second - _offset(found.get("z"))
        return whole + int(found["f"]) / 10 ** len(found["f"]) if found.get("f") else float(whole)

    def write(self, value: float, decimals: int = 0) -> str:
        """A date in this format, rounded to what the format says; beyond the years 1 to 9999 the nearest of these."""
        if self.has_time:
            decimals = decimals if self.unit == 1 else 0
            ticks = math.floor(value / self.unit * 10**decimals + 0.5)
            whole, fraction = divmod(ticks, 10**decimals)
            days, second = divmod(whole * int(self.unit), DAY)
        else:
            days, second, fraction = math.floor(value + 0.5), 0, 0
        day = datetime.date.fromordinal(min(max(days + EPOCH, 1), LAST))
        hour = second // 3600
        said: dict[str, int | str] = {
            "%m": day.month,
            "%d": day.day,
            "%H": hour,
            "%I": (hour + 11) % 12 + 1,
            "%M": second // 60 % 60,
            "%S": second % 60,
            "%y": day.year % 100,
        }
        names = {
            "%Y": f"{day.year:04d}",
            "%b": SHORT[day.month - 1],
            "%B": LONG[day.month - 1],
            "%p": "PM" if hour >= 12 else "AM",
            "%f": f"{fraction:0{max(decimals, 1)}d}",
            "%z": "+00:00",
        }
        written = []
        for part in self.parts:
            if part in names:
                written.append(names[part])
            elif part[0] == "%":
                written.append(str(said[part.replace("-", "")]) if part[1] == "-" else f"{said[part]:02d}")
            else:
                written.append(part)
        return "".join(written)


@lru_cache(512)
def date_style(form: str) -> DateStyle:
    """The style of a format, made once."""
    return DateStyle(form)


def _offset(zone: str | None) -> int:
    """Seconds that a zone is ahead of UTC."""
    if not zone or zone == "Z":
        return 0
    return (-1 if zone[0] == "-" else 1) * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)


def read_dates(cells: Sequence[str]) -> tuple[str, int, list[float], str] | None:
    """The dates of a column, in one format.

    Args:
        cells: the distinct cells without gaps, in the order of the file.

    Returns:
        The format, digits of the fraction of a second, the codes, and what is in doubt; None where these are no dates.
    """
    first = cells[0]
    if not LIKELY.fullmatch(first):
        return None
    zones = {match[0] if (match := ZONE.search(cell)) else "" for cell in cells}
    zone = zones.pop() if len(zones) == 1 else "%z"
    dates = [form for form in DATES if _starts(form, first)]
    forms = [*dates, *(f"{form}{s}{time}{zone}" for form in dates for s in " T" for time in TIMES)]
    forms += [f"{time}{zone}" for time in TIMES]
    fitting = []
    for form in forms:
        style = date_style(form)
        if style.read(first) is None or ("%f" in form and not any(_has_fraction(style, cell) for cell in cells)):
            continue
        codes = [style.read(cell) for cell in cells]
        if None not in codes:
            fitting.append((form, [code for code in codes if code is not None]))
    if not fitting:
        return None
    (form, codes), doubt = fitting[0], ""
    other = next((fit for fit in fitting[1:] if fit[0] == _swapped(form)), None)
    if other is not None and other[1] != codes:  # both orders fit: rows in order of time tell, else it is said
        rising = [numbers == sorted(numbers) for numbers in (codes, other[1])]
        doubt = "" if rising[0] != rising[1] else "day and month may be exchanged"
        if rising == [False, True] or (doubt and "%p" in form):
            form, codes = other
    form = _unpadded(form, cells)
    digits = max(len(_has_fraction(date_style(form), cell)) for cell in cells) if "%f" in form else 0
    return form, digits, codes, doubt


def _has_fraction(style: DateStyle, cell: str) -> str:
    """The digits of the fraction of a second in a cell; "" without."""
    return (match["f"] or "") if (match := style.match(cell)) else ""


def _starts(form: str, cell: str) -> bool:
    """Whether a cell starts with a date of a format."""
    return _start(form).match(cell) is not None


@lru_cache(len(DATES))
def _start(form: str) -> re.Pattern[str]:
    """The date that a cell starts with."""
    return re.compile("".join(DIRECTIVES[p] if p[0] == "%" else re.escape(p) for p in re.findall("%.|[^%]+", form)))


def _swapped(form: str) -> str:
    """The format with day and month exchanged."""
    return form.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")


def _unpadded(form: str, cells: Sequence[str]) -> str:
    """The format without leading zeros, where some cell has none."""
    style = date_style(form)
    for part in ("d", "m", "H", "I"):
        if f"%{part}" in form and any((m := style.match(cell)) and len(m[part]) == 1 for cell in cells):
            form = form.replace(f"%{part}", f"%-{part}")
    return form
