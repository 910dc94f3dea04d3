"""Scores of a table of samples beside the rows of training and test: what quality.py measures every method with.

    read, decide      a CSV file as text; what each column of a training file is: number, date, word, identifier
    shapes            columns: 1 - Kolmogorov-Smirnov distance of numbers, 1 - total variation of words
    trends            pairs: 1 - |difference of correlations| / 2, or 1 - total variation of the joint law in ten bins
                      whose edges are common to both tables (the test's range; what lies beyond is in the last bin)
    c2st              how well boosting tells samples from test rows: AUC over five folds, .5 where it cannot
    tstr              a model of a column trained on samples and asked on test rows: R^2 or AUC
    dcr               share of samples that lie nearer to a training row than to a test row, of equally many: .5
    validity          cells that the training file could not hold, and the shares of gaps

Numbers and dates are compared where they are there; in words a gap is a word. Every score of rows (c2st to dcr) sees a
gap in a number as a gap. Columns that are constant or identifiers are left out of all but `validity`.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

GAPS = frozenset(("", "na", "n/a", "nan", "none", "null", "nat", "<na>", "?"))
DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S",
)  # fmt: skip
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
BINS = 10
C2ST_ROWS = 1500
FOLDS = 5
REPEATS = 3  # foldings of few rows
RESAMPLES = 40

Text = dict[str, np.ndarray]  # a column's cells as the file has them, gaps as ""
Codes = dict[str, np.ndarray]  # numbers and days as float64 with NaN for gaps, words as integers, -1 for a gap


@dataclass(frozen=True)
class Column:
    """What a column of a training file holds.

    Args:
        name: of the header.
        kind: number, date, word, identifier or constant.
        decimal: what stands before the decimals.
        form: of a date.
        decimals: of a number, at most; 0: whole.
        low: smallest number or date.
        high: largest.
        words: what is there, in order.
        gaps: share of the rows.
    """

    name: str
    kind: str
    decimal: str = "."
    form: str = ""
    decimals: int = 0
    low: float = np.nan
    high: float = np.nan
    words: tuple[str, ...] = ()
    gaps: float = 0.0

    @property
    def numeric(self) -> bool:
        """Whether it has an order and distances."""
        return self.kind in ("number", "date")

    @property
    def compared(self) -> bool:
        """Whether it is part of the scores."""
        return self.kind in ("number", "date", "word")


# -- files -------------------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Text, str]:
    """The cells of a CSV file by column, gaps as "", and its delimiter."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        delimiter = ";" if first.count(";") > first.count(",") else ","
        file.seek(0)
        header, *rows = csv.reader(file, delimiter=delimiter)
    short = [k for k, row in enumerate(rows) if len(row) != len(header)]
    if short:
        raise ValueError(f"{path}: line {short[0] + 2} has {len(rows[short[0]])} cells, the header {len(header)}")
    cells = np.array([["" if c.strip().lower() in GAPS else c for c in row] for row in rows], dtype=object)
    cells = cells.reshape(len(rows), len(header))
    return {name: cells[:, k] for k, name in enumerate(header)}, delimiter


def number(cell: str, decimal: str) -> float:
    """A cell as a number; NaN where it is none."""
    text = cell.strip().replace(decimal, ".") if decimal != "." else cell.strip()
    return float(text) if NUMBER.fullmatch(text) else np.nan


def day(cell: str, form: str) -> float:
    """A cell as days since 1970; NaN where it is no date of this form."""
    try:
        return (datetime.strptime(cell.strip(), form) - datetime(1970, 1, 1)).total_seconds() / 86400
    except ValueError:
        return np.nan


def digits(cell: str, decimal: str) -> int:
    """Decimals that a cell has, without zeros at the end."""
    text = cell.strip().replace(decimal, ".")
    return 12 if "e" in text.lower() else len(text.partition(".")[2].rstrip("0"))


def decide(train: Text, delimiter: str = ",") -> tuple[Column, ...]:
    """What each column of a training file is.

    Words that are all different (of 50 or more) are an identifier.
    """
    decimal, found = ("," if delimiter == ";" else "."), []
    for name, cells in train.items():
        there = [c for c in cells if c]
        words, gaps = tuple(sorted(set(there))), 1 - len(there) / len(cells)
        numbers = [number(c, decimal) for c in there]
        if len(words) < 2 and gaps in (0, 1):
            found.append(Column(name, "constant", words=words, gaps=gaps))
            continue
        if not np.isnan(numbers).any():
            places = max(digits(c, decimal) for c in there)
            found.append(Column(name, "number", decimal, "", places, min(numbers), max(numbers), gaps=gaps))
            continue
        for form in DATES:
            days = [day(c, form) for c in there]
            if not np.isnan(days).any():
                found.append(Column(name, "date", form=form, low=min(days), high=max(days), gaps=gaps))
                break
        else:
            kind = "identifier" if len(words) == len(cells) >= 50 else "word"
            found.append(Column(name, kind, words=words, gaps=gaps))
    return tuple(found)


def codes(table: Text, columns: tuple[Column, ...]) -> Codes:
    """The compared columns of a table; a cell that is no number or date reads as a gap, a new word as one more word."""
    found = {}
    for c in columns:
        if not c.compared:
            continue
        if c.numeric:
            of_cell, style = (number, c.decimal) if c.kind == "number" else (day, c.form)
            found[c.name] = np.array([of_cell(s, style) if s else np.nan for s in table[c.name]])
        else:
            place = {w: k for k, w in enumerate(c.words)} | {"": -1}
            found[c.name] = np.array([place.get(s, len(c.words)) for s in table[c.name]])
    return found


def rounded(codes_of: Codes, columns: tuple[Column, ...]) -> Codes:
    """Numbers with the training file's decimals, within its range: what a user of a method can do by hand."""
    same = dict(codes_of)
    for c in columns:
        if c.kind == "number":
            same[c.name] = np.clip(np.round(codes_of[c.name], c.decimals), c.low, c.high)
        elif c.kind == "date":
            parts = 86400 if "%S" in c.form else 1  # of a day
            same[c.name] = np.clip(np.round(codes_of[c.name] * parts) / parts, c.low, c.high)
    return same


def rows(x: Codes, index: np.ndarray) -> Codes:
    """Some rows of a table."""
    return {name: v[index] for name, v in x.items()}


def count(x: Codes) -> int:
    """Rows of a table."""
    return len(next(iter(x.values())))


# -- columns and pairs -------------------------------------------------------------------------------------------------


def shape(a: np.ndarray, b: np.ndarray, numeric: bool) -> float:
    """Likeness of two columns in [0, 1]; 0 where all numbers are gaps on one side only."""
    if not numeric:
        n = max(a.max(), b.max()) + 2
        p, q = (np.bincount(v + 1, minlength=n) / len(v) for v in (a, b))
        return 1 - 0.5 * float(np.abs(p - q).sum())
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    at = np.concatenate([a, b])
    distance = np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)
    return 1 - float(np.abs(distance).max())


def shapes(x: Codes, real: Codes, columns: tuple[Column, ...]) -> dict[str, float]:
    """Likeness of every column."""
    return {c.name: shape(x[c.name], real[c.name], c.numeric) for c in columns if c.compared}


def binned(x: Codes, real: Codes, columns: tuple[Column, ...]) -> tuple[Codes, Codes]:
    """All columns as bins 0, 1, ...: numbers in ten of equal width of the real range, what lies beyond in the last."""
    of_x, of_real = {}, {}
    for c in columns:
        if not c.compared:
            continue
        if not c.numeric:
            of_x[c.name], of_real[c.name] = x[c.name] + 1, real[c.name] + 1
            continue
        there = real[c.name][~np.isnan(real[c.name])]
        edges = np.linspace(there.min(), there.max(), BINS + 1)[1:-1] if len(there) else np.zeros(BINS - 1)
        for v, out in ((x, of_x), (real, of_real)):
            out[c.name] = np.where(np.isnan(v[c.name]), 0, np.searchsorted(edges, v[c.name], "right") + 1)
    return of_x, of_real


def variation(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation between the laws of two columns of codes."""
    where, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    p = np.bincount(place[: len(a)], minlength=len(where)) / len(a)
    q = np.bincount(place[len(a) :], minlength=len(where)) / len(b)
    return 0.5 * float(np.abs(p - q).sum())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation where both are there; NaN where one of them does not vary."""
    there = ~(np.isnan(a) | np.isnan(b))
    a, b = a[there], b[there]
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])


def trends(x: Codes, real: Codes, columns: tuple[Column, ...]) -> dict[str, float]:
    """Likeness of every pair of columns; pairs of numbers whose correlation the real rows do not tell are left out."""
    of_x, of_real = binned(x, real, columns)
    found = {}
    for a, b in combinations([c for c in columns if c.compared], 2):
        if a.numeric and b.numeric:
            real_one, one = (correlation(v[a.name], v[b.name]) for v in (real, x))
            if np.isnan(real_one):
                continue
            value = 0.0 if np.isnan(one) else 1 - abs(one - real_one) / 2
        else:
            width = 1 + max(of_x[b.name].max(), of_real[b.name].max())
            value = 1 - variation(*(v[a.name] * width + v[b.name] for v in (of_x, of_real)))
        found[f"{a.name} x {b.name}"] = value
    return found


# -- rows --------------------------------------------------------------------------------------------------------------


def matrix(x: Codes, columns: tuple[Column, ...], leave: str | None = None) -> tuple[np.ndarray, list[int]]:
    """Columns side by side for boosting, NaN for gaps, and which are of words (254 at most, the last for the rest)."""
    parts = [c for c in columns if c.compared and c.name != leave]
    found = [x[c.name] if c.numeric else np.where(x[c.name] < 0, np.nan, np.minimum(x[c.name], 253)) for c in parts]
    return np.stack(found, 1).astype(float), [k for k, c in enumerate(parts) if not c.numeric]


def c2st(x: Codes, real: Codes, columns: tuple[Column, ...], seed: int = 0) -> dict[str, float]:
    """AUC of boosting that tells samples from real rows, over five folds; of few rows, of several foldings.

    Its stderr is that over folds, as if they were independent: they share rows, so that it is a little small.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    n = min(C2ST_ROWS, count(x), count(real))
    repeats = REPEATS if n < 400 else 1
    found = []
    for k in range(repeats):
        draw = np.random.default_rng([seed, k])
        both = [matrix(rows(v, draw.permutation(count(v))[:n]), columns) for v in (x, real)]
        features, label = np.concatenate([m for m, _ in both]), np.repeat([0, 1], n)
        for fit, ask in StratifiedKFold(FOLDS, shuffle=True, random_state=seed + k).split(features, label):
            model = HistGradientBoostingClassifier(categorical_features=both[0][1] or None, random_state=0)
            model.fit(features[fit], label[fit])
            found.append(roc_auc_score(label[ask], model.predict_proba(features[ask])[:, 1]))
    folds = np.array(found).reshape(repeats, FOLDS)
    return {"value": float(folds.mean()), "stderr": float(folds.std(1, ddof=1).mean() / FOLDS**0.5), "rows": n}


def tstr(x: Codes, real: Codes, columns: tuple[Column, ...], target: str, resamples: int = RESAMPLES) -> dict[str, Any]:
    """R^2 (numbers) or AUC (words, or numbers of two values) on real rows of boosting that was trained on samples.

    Rows where the target is a gap are left out.

    Returns:
        `value`, and `resampled`: those of bootstrap samples of the real rows, the same for every method.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    (column,) = [c for c in columns if c.name == target]
    (of_x, words), (of_real, _) = (matrix(v, columns, target) for v in (x, real))
    y, truth = x[target], real[target]
    there, asked = (~np.isnan(v) if column.numeric else v >= 0 for v in (y, truth))
    of_x, y, of_real, truth = of_x[there], y[there], of_real[asked], truth[asked]
    classes = not column.numeric or len(np.unique(truth)) == 2
    options: dict[str, Any] = {"categorical_features": words or None, "random_state": 0}
    if classes:
        known = np.unique(truth)
        if column.numeric:  # 0 and 1, say: what a method puts between them counts as the nearer
            y = known[np.abs(y[:, None] - known).argmin(1)]
        guess = np.zeros((len(truth), len(known)))
        if len(np.unique(y)) > 1:
            model = HistGradientBoostingClassifier(**options).fit(of_x, y)
            for k, c in enumerate(model.classes_):
                guess[:, known == c] = model.predict_proba(of_real)[:, [k]]
        measure = lambda at: np.mean([auc(guess[at, k], truth[at] == c) for k, c in enumerate(known)])  # noqa: E731
    else:
        guess = HistGradientBoostingRegressor(**options).fit(of_x, y).predict(of_real)
        measure = lambda at: 1 - np.mean((guess[at] - truth[at]) ** 2) / np.var(truth[at])  # noqa: E731
    n = len(truth)
    again = [float(measure(np.random.default_rng(k).integers(0, n, n))) for k in range(resamples)]
    found = {"value": float(measure(np.arange(n))), "stderr": float(np.nanstd(again)), "resampled": again}
    return found | {"measure": "AUC" if classes else "R2", "rows": n}


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the curve, ties by halves; NaN where there is one class."""
    a, b = np.sort(score[~positive]), score[positive]
    if not len(a) or not len(b):
        return np.nan
    below = np.searchsorted(a, b, "left") + np.searchsorted(a, b, "right")
    return float(below.mean() / (2 * len(a)))


def nearest(x: np.ndarray, to: np.ndarray, numeric: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Distance of each row to the nearest of others, Gower's sum; a gap is as far from a value as two words."""
    found = np.full(len(x), np.inf)
    for start in range(0, len(to), 64):
        part, total = to[start : start + 64], 0.0
        for k in range(x.shape[1]):
            a, b = x[:, k, None], part[None, :, k]
            if numeric[k]:
                apart = np.minimum(np.abs(a - b) / scale[k], 1.0)
                apart = np.where(np.isnan(a) & np.isnan(b), 0.0, np.where(np.isnan(apart), 1.0, apart))
            else:
                apart = (a != b).astype(float)
            total = total + apart
        found = np.minimum(found, np.min(total, 1))
    return found


def dcr(
    x: Codes, train: Codes, real: Codes, columns: tuple[Column, ...], seed: int = 0, thinnings: int = 5
) -> dict[str, float]:
    """Share of samples nearer to one of as many training rows (drawn several times) as test rows; ties by halves."""
    parts = [c for c in columns if c.compared]
    numeric = np.array([c.numeric for c in parts])
    scale = np.array([max(c.high - c.low, 1e-12) if c.numeric else 1.0 for c in parts])
    of_x, of_train, of_real = (np.stack([v[c.name].astype(float) for c in parts], 1) for v in (x, train, real))
    draw = np.random.default_rng(seed)
    of_x = of_x[draw.permutation(len(of_x))[:C2ST_ROWS]]
    to_real, shares = nearest(of_x, of_real, numeric, scale), []
    for _ in range(thinnings):
        to_train = nearest(of_x, of_train[draw.permutation(len(of_train))[: len(of_real)]], numeric, scale)
        shares.append(float(np.mean((to_train < to_real) + 0.5 * (to_train == to_real))))
    # Each sample is a coin, and so is each test row: the smaller of the two decides.
    error = 0.5 / min(len(of_x), len(of_real)) ** 0.5
    return {"value": float(np.mean(shares)), "stderr": error, "over_thinnings": float(np.std(shares, ddof=1))}


# -- cells -------------------------------------------------------------------------------------------------------------


def validity(x: Text, train: Text, test: Text, columns: tuple[Column, ...]) -> dict[str, Any]:
    """Counts of cells that the training file could not hold, and shares of gaps in samples, training and test rows.

    Returns:
        Sums of `non_integers`, `too_fine` (more decimals than the file has), `outside` (of the range), `unknown`
        (words, or cells that cannot be read), `gaps_off` (columns whose share of gaps is further than .02 and three
        standard errors from that of training or test rows); of an identifier, `copied` and `repeated` cells;
        `columns`: these by column; `header`: whether it is the training file's; `copies`: share of rows that stand in
        the training file as they are.
    """
    by_column: dict[str, dict[str, float]] = {}
    n = len(next(iter(train.values())))
    for c in columns:
        if c.name not in x:
            continue
        cells = [str(v) for v in x[c.name]]
        there = [v for v in cells if v]
        found: dict[str, float] = {}
        if c.kind == "number":
            values = np.array([number(v, c.decimal) for v in there])
            found["unknown"] = int(np.isnan(values).sum())
            found["outside"] = int(((values < c.low) | (values > c.high)).sum())
            if c.decimals == 0:
                found["non_integers"] = int((values[~np.isnan(values)] % 1 != 0).sum())
            found["too_fine"] = sum(digits(v, c.decimal) > c.decimals for v in there)
        elif c.kind == "date":
            values = np.array([day(v, c.form) for v in there])
            found["unknown"] = int(np.isnan(values).sum())
            found["outside"] = int(((values < c.low) | (values > c.high)).sum())
        elif c.kind == "identifier":
            found |= {"copied": len(set(there) & set(c.words)), "repeated": len(there) - len(set(there))}
        else:
            found["unknown"] = len([v for v in there if v not in set(c.words)])
        gaps = 1 - len(there) / len(cells)
        beside = [float(np.mean(v[c.name] == "")) for v in (train, test)]
        allowed = [max(0.02, 3 * (p * (1 - p) / n) ** 0.5) for p in beside]
        found["gaps"], found["gaps_train"], found["gaps_test"] = gaps, *beside
        found["gaps_off"] = int(any(abs(gaps - p) > a for p, a in zip(beside, allowed, strict=True)))
        by_column[c.name] = found
    sums = ("non_integers", "too_fine", "outside", "unknown", "gaps_off", "copied", "repeated")
    known = set(zip(*train.values(), strict=True))
    same = [row in known for row in zip(*(x[name] for name in train), strict=True)] if set(train) <= set(x) else [False]
    totals = {k: sum(f.get(k, 0) for f in by_column.values()) for k in sums}
    return totals | {"header": list(x) == list(train), "copies": float(np.mean(same)), "columns": by_column}


# -- all of them -------------------------------------------------------------------------------------------------------


def compare(
    x: Codes, train: Codes, test: Codes, columns: tuple[Column, ...], target: str | None, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """All scores of a table of samples against test rows.

    Args:
        x: samples, as many as training rows.
        train: what the method was trained on.
        test: what it never saw.
        columns: of the training file.
        target: of `tstr`; None: it is left out.
        resamples: bootstrap samples of samples and test rows; those of the test rows are the same for every method.
    """
    found: dict[str, Any] = {}
    for name, measure in (("shapes", shapes), ("trends", trends)):
        parts = measure(x, test, columns)
        again = [
            float(np.mean(list(measure(resampled(x, k, 1), resampled(test, k, 0), columns).values())))
            for k in range(resamples)
        ]
        worst = sorted(parts, key=lambda k: parts[k])[:3]
        found[name] = {
            "value": float(np.mean(list(parts.values()))),
            "stderr": float(np.std(again, ddof=1)) if resamples > 1 else np.nan,
            "resampled": again,
            "worst": {k: parts[k] for k in worst},
        }
    found["c2st"] = c2st(x, test, columns)
    if target is not None:
        found["tstr"] = tstr(x, test, columns, target, resamples)
    found["dcr"] = dcr(x, train, test, columns)
    return found


def resampled(x: Codes, k: int, stream: int) -> Codes:
    """A bootstrap sample of a table."""
    n = count(x)
    return rows(x, np.random.default_rng([stream, k]).integers(0, n, n))


def smoothed(train: Codes, columns: tuple[Column, ...], seed: int = 0) -> Codes:
    """Training rows drawn again, with a tenth of a standard deviation of noise on their numbers."""
    draw = np.random.default_rng(seed)
    x = rows(train, draw.integers(0, count(train), count(train)))
    for c in columns:
        if c.compared and c.numeric:
            x[c.name] = x[c.name] + 0.1 * np.nanstd(train[c.name]) * draw.normal(size=count(train))
    return x
