"""`diffflow compare`: several evaluations in one table, if they were taken the same way.

A number about samples belongs to its protocol: the data it was compared with, how many samples, whose features. Where
the cards of two evaluations disagree in these, their numbers are not ranked, and the command says in what they differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from diffflow.cli import UsageError, parse
from diffflow.console import plus_minus, table, to_stdout


@dataclass(frozen=True)
class Compare:
    """Compare several evaluations in one table.

    The best of a row, and what two standard errors do not tell from it, are marked with *.

    Examples:
        diffflow compare runs/mnist runs/mnist-gan
        diffflow compare runs/a/evaluation.json saved/b.json
    """

    evaluations: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """Run directories that were evaluated, or evaluation files."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        from diffflow.metrics.evaluate import differences

        if len(set(self.evaluations)) < 2:
            raise UsageError("give at least two evaluations to compare.")
        evaluations = {name: read(name) for name in self.evaluations}
        first, *others = evaluations
        for name in others:
            unlike = differences(evaluations[first]["card"], evaluations[name]["card"])
            if unlike:
                raise UsageError(
                    f"{first} and {name} cannot be ranked: they differ in {', '.join(unlike)}. Evaluate them alike."
                )
        rows = table("metric", *(short(name) for name in evaluations), "real data", "better")
        metrics = {m["name"]: m for e in reversed(evaluations.values()) for m in e["metrics"]}
        order = dict.fromkeys(m["name"] for e in evaluations.values() for m in e["metrics"])
        for m in (metrics[name] for name in order):
            row = [next((x for x in e["metrics"] if x["name"] == m["name"]), None) for e in evaluations.values()]
            marks = best(row)
            cells = ("-" if x is None else plus_minus(x["value"], x["stderr"]) for x in row)
            marked = (f"{cell} *" if mark else cell for cell, mark in zip(cells, marks, strict=True))
            rows.add_row(m["name"], *marked, plus_minus(m["floor"]), m["better"])
        to_stdout().print(rows)
        for name, m in ((name, m) for name, e in evaluations.items() for m in e["metrics"] if m.get("note")):
            print(f"note: {short(name)}: {m['name']}: {m['note']}")
        return 0


def best(row: Sequence[dict[str, Any] | None]) -> list[bool]:
    """Which of these metrics are the best, or within two standard errors of the difference to it."""
    measured = [m for m in row if m is not None]
    sign = 1 if measured[0]["better"] == "lower" else -1
    top = min(measured, key=lambda m: sign * m["value"])

    def close(m: dict[str, Any]) -> bool:
        return sign * (m["value"] - top["value"]) <= 2 * (m["stderr"] ** 2 + top["stderr"] ** 2) ** 0.5

    return [m is not None and (m is top or close(m)) for m in row]


def short(name: str) -> str:
    """The name of a run's folder, or of a file: the head of a column."""
    path = Path(name)
    return (path.parent if path.name == "evaluation.json" else path).name or str(path)


def read(name: str) -> dict[str, Any]:
    """The evaluation in a run directory or a file. Raises UsageError."""
    path = Path(name)
    path = path / "evaluation.json" if path.is_dir() else path
    try:
        evaluation = json.loads(path.read_bytes())
        if not (evaluation["metrics"] and evaluation["card"]["samples"]["n"]):
            raise KeyError("metrics")
        for m in evaluation["metrics"]:
            if not {"name", "floor", "better"} <= m.keys() or m["value"] + m["stderr"] is None:
                raise KeyError(m)
    except FileNotFoundError:
        raise UsageError(f"{path} is not there: run `diffflow evaluate` first.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} holds no evaluation ({error!r}).") from None
    return evaluation


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Compare, args).main()
