"""What a page and a command line say of a table: its columns, pairs and rare values, and what samples give away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base import Metric
from .columns import is_category, shown
from .comparison import TableComparison
from .similarity import Scores

WORST = 10  # columns, pairs and rare values that are named
HEADS = {
    "columns": ("column", "kind", "shape", "real data", "gaps", "gaps of real rows", "samples", "real rows"),
    "pairs": ("pair", "trend", "real data"),
    "rare": ("column", "value", "training rows", "samples", "expected"),
}
PROTECTION = (
    "None of this is a guarantee: the model was trained without noise that protects single rows (differential "
    "privacy), and may hold what these numbers do not see. Words that stand in one row, such as names or addresses, "
    "are people where rows are people; `--min-count 5` merges words of fewer than five rows before training."
)


def content(table: TableComparison, metrics: Sequence[Metric] = ()) -> dict[str, Any]:
    """What is to be said of a table, JSON-able, for evaluation.json; the other functions make words of it.

    Args:
        table: what was compared.
        metrics: its metrics, which the paragraph on privacy reads.

    Returns:
        "columns" in the order of the file; "pairs" and "rare", the worst first; "target" or None; "privacy", sentences.
    """
    by_name = {m.name: m for m in metrics}
    u = table.utility
    return {
        "columns": _columns(table),
        "pairs": _pairs(table.trends),
        "rare": _rare(table),
        "target": None if u is None else {"name": u.target, "why": u.why, "measure": u.measure},
        "privacy": _privacy(table, by_name),
    }


def _columns(table: TableComparison) -> list[dict[str, Any]]:
    real = table.train
    scores = table.shapes
    found = []
    for k, spec in enumerate(table.columns):
        ours, theirs = table.x[:, k], real[:, k]
        found.append(
            {
                "name": spec.name,
                "kind": spec.kind,
                "shape": _number(None if scores is None else scores.values[k]),
                "stderr": _number(None if scores is None else scores.stderr[k]),
                "floor": _number(None if scores is None else scores.floors[k]),
                "gaps": float(np.isnan(ours).mean()),
                "real_gaps": float(np.isnan(theirs).mean()),
                "samples": _summary(table, k, ours),
                "real": _summary(table, k, theirs),
            }
        )
    return found


def _summary(table: TableComparison, k: int, column: np.ndarray) -> str:
    """The commonest words and levels with their shares, or the 5 %, the middle and the 95 % of numbers."""
    spec, seen = table.columns[k], column[~np.isnan(column)]
    if not len(seen):
        return "only gaps"
    if is_category(spec):
        values, counts = np.unique(seen, return_counts=True)
        first = np.argsort(-counts, kind="stable")[:3]
        return ", ".join(f"{shown(spec, float(values[i]))} {counts[i] / len(column):.0%}" for i in first)
    low, middle, high = (shown(spec, v) for v in np.quantile(seen, (0.05, 0.5, 0.95), method="nearest").tolist())
    return f"{low} ... {middle} ... {high}"


def _pairs(scores: Scores | None) -> list[dict[str, Any]]:
    if scores is None:
        return []
    return [
        {
            "pair": list(scores.names[k]),
            "trend": float(scores.values[k]),
            "stderr": float(scores.stderr[k]),
            "floor": _number(scores.floors[k]),
        }
        for k in scores.order()[:WORST]
    ]


def _rare(table: TableComparison) -> list[dict[str, Any]]:
    if table.rare is None:
        return []
    often = table.rare.too_often()
    missed = sorted((v for v in table.rare.values if not v.samples), key=lambda v: -v.training)
    return [
        {
            "column": v.column,
            "value": v.value,
            "training": v.training,
            "samples": v.samples,
            "expected": v.expected,
            "too_often": v.too_often,
        }
        for v in [*often, *missed][:WORST]
    ]


def _privacy(table: TableComparison, metrics: Mapping[str, Metric]) -> list[str]:
    said = []
    if (m := metrics.get("closest_is_training")) is not None:
        beyond = m.value - 0.5 > 3 * m.stderr
        said.append(
            f"{m.value:.0%} ± {m.stderr:.0%} of the samples are closer to a training row than to a row held out, of as "
            "many of both; 50 % is right. "
            + ("So the model repeats training rows or comes near to them." if beyond else "That is no sign of copies.")
        )
    if (m := metrics.get("duplicates")) is not None:
        said.append(
            f"{m.value:.1%} of the samples are equal to a training row in every cell, and {m.floor or 0.0:.1%} of the "
            "rows held out are."
        )
    if table.rare is not None and table.rare.once:
        said.append(
            f"{table.rare.once} words stand in one training row each, and {table.rare.holders:.1%} of the samples have "
            "one of them."
        )
    if table.heldout is None:
        said.append("Nothing was held out, so copies cannot be told from chance.")
    return [*said, PROTECTION]


def _number(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def _share(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def column_rows(said: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of columns, as text, under HEADS["columns"]; the worst shape first."""
    order = sorted(said["columns"], key=lambda c: 2.0 if c["shape"] is None else c["shape"])
    return [
        (
            c["name"],
            c["kind"],
            _share(c["shape"]),
            _share(c["floor"]),
            *(_share(c[key]) if c["gaps"] or c["real_gaps"] else "" for key in ("gaps", "real_gaps")),
            c["samples"],
            c["real"],
        )
        for c in order
    ]


def pair_rows(said: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of the worst pairs, as text, under HEADS["pairs"]."""
    return [(" × ".join(p["pair"]), _share(p["trend"]), _share(p["floor"])) for p in said["pairs"]]


def rare_rows(said: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of rare values that come too often or never, as text, under HEADS["rare"]."""
    return [
        (r["column"], r["value"], str(r["training"]), str(r["samples"]), f"{r['expected']:.1f}") for r in said["rare"]
    ]


def lines(said: Mapping[str, Any], most: int = 5) -> list[str]:
    """What the command line prints below the metrics: the worst columns and pairs, rare values, and privacy.

    Args:
        said: `content`.
        most: columns, pairs and rare values that are named.
    """
    parts = [
        ("columns least like the data", HEADS["columns"][:6], [row[:6] for row in column_rows(said)]),
        ("pairs least like the data", HEADS["pairs"], pair_rows(said)),
        ("rare values too often or never", HEADS["rare"], rare_rows(said)),
    ]
    found: list[str] = []
    for title, heads, rows in parts:
        if rows:
            found += [f"{title}:", *_aligned([heads, *rows[:most]])]
    return [*found, f"privacy: {' '.join(said['privacy'])}"]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    short = [[cell if len(cell) <= 32 else f"{cell[:29]}..." for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*short, strict=True)]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in short]
