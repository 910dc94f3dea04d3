"""The part of a report that is about a table: which columns and pairs are right, and what samples give away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from ..metrics.tables.page import HEADS, column_rows, pair_rows, rare_rows

PICTURES = {
    "columns.png": "Every column by itself: samples (filled) and real rows (line); gaps are a bar of words.",
    "correlations.png": "Associations of pairs of columns: Pearson’s correlation of two numbers, Cramér’s V of others.",
}


def section(
    evaluation: Mapping,
    home: Path,
    table: Callable[[Sequence[Sequence[str]], Sequence[str], Sequence[int]], str],
    image: Callable[[bytes, str, str], str],
) -> str:
    """The section as HTML; "" where the evaluation is of no table.

    Args:
        evaluation: as in evaluation.json; its "table" is `metrics.tables.content`.
        home: the run directory, where the pictures are.
        table: rows of cells that are HTML, heads and the columns of numbers -> HTML.
        image: bytes of a PNG, a caption and words for it -> HTML.
    """
    said = evaluation.get("table")
    if not said:
        return ""
    parts = ["<h2>Columns and pairs</h2>"]
    target = said.get("target")
    if target:
        parts.append(
            f"<p>Usefulness is the {escape(target['measure'])} of <b>{escape(target['name'])}</b> "
            f"({escape(target['why'])}), foretold on rows held out by models that samples trained.</p>"
        )
    parts += [
        image((home / name).read_bytes(), caption, name.removesuffix(".png"))
        for name, caption in PICTURES.items()
        if (home / name).exists()
    ]
    titles = (
        ("columns", "Columns, the least like the data first.", column_rows(said), (2, 3, 4, 5)),
        ("pairs", "The pairs least like the data.", pair_rows(said), (1, 2)),
        ("rare", "Rare words and levels that come too often, or never.", rare_rows(said), (2, 3, 4)),
    )
    for key, title, rows, numbers in titles:
        if rows:
            cells = [[escape(cell) for cell in row] for row in rows]
            parts.append(f"<p class=soft>{title}</p>\n{table(cells, HEADS[key], numbers)}")
    parts.append(f"<h2>Privacy</h2>\n<p>{escape(' '.join(said['privacy']))}</p>")
    return "\n".join(parts)
