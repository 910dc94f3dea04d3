"""Pictures of a table: every column by itself, and the associations of all pairs, samples beside real rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import figures
from .columns import Codes, Column, Schema, is_category, modelled, shown
from .similarity import bin_edges, correlation

SHOWN = 24  # columns
BARS = 12  # words of a column that have a bar


def column_picture(schema: Schema, x: Codes, y: Codes) -> Any:
    """A figure of the first 24 columns of samples x (n, d), over those of real rows y (m, d); gaps are a bar of words.

    Args:
        schema: the columns.
        x: samples, codes (n, d).
        y: real rows, codes (m, d).
    """
    columns = modelled(schema)[:SHOWN]
    wide = min(4, len(columns))
    tall = -(-len(columns) // wide)
    fig = figures.figure(2.6 * wide, 1.9 * tall + 0.2)
    fig.set_layout_engine("constrained")
    axes = list(fig.subplots(tall, wide, squeeze=False).flat)
    for k, ax in enumerate(axes):
        if k >= len(columns):
            ax.set_axis_off()
            continue
        spec, ours, real = columns[k], x[:, k], y[:, k]
        if is_category(spec):
            _bars(ax, spec, ours, real)
        else:
            _histograms(ax, ours, real)
            if spec.kind == "date":
                low, high = ax.get_xlim()
                ticks = np.linspace(low, high, 5)[1:-1:2].round()
                ax.set_xticks(ticks, [figures.plain(shown(spec, v)[:10]) for v in ticks.tolist()])
        gaps = [np.isnan(v).mean() for v in (ours, real)]
        note = f" (gaps {gaps[0]:.0%}, real {gaps[1]:.0%})" if any(gaps) else ""
        ax.set_title(figures.plain(f"{spec.name}{note}"), fontsize=9)
        ax.set_yticks([])
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right", "left"]].set_visible(False)
    return fig


def _bars(ax: Any, spec: Column, ours: Codes, real: Codes) -> None:
    """Shares of the commonest values; levels stay in their order."""
    values, counts = np.unique(np.concatenate([real, ours]), return_counts=True)
    common = values[np.argsort(-counts, kind="stable")[:BARS]]
    common = np.sort(common) if spec.kind == "levels" else common
    same = [np.isnan(v)[:, None] & np.isnan(common) | (v[:, None] == common) for v in (ours, real)]
    at = np.arange(len(common))
    ax.bar(at, same[0].mean(0), color=figures.COLOURS[0], alpha=0.55)
    ax.hlines(same[1].mean(0), at - 0.4, at + 0.4, color=figures.INK, linewidth=1.2)
    few = range(0, len(at), -(-len(at) // 6))
    ax.set_xticks(list(few), [figures.plain(shown(spec, common[i])[:10]) for i in few])


def _histograms(ax: Any, ours: Codes, real: Codes) -> None:
    ours, real = (v[~np.isnan(v)] for v in (ours, real))
    both = np.concatenate([ours, real])
    if not len(both):
        return
    low, high = np.quantile(both, (0.002, 0.998))
    if low == high:
        low, high = both.min() - 0.5, both.max() + 0.5
    bins = np.linspace(low, high, int(np.clip(2 * len(real) ** 0.5, 10, 40)) + 1)
    if (np.diff(bins) <= 0).any():  # large numbers that lie closer than floats tell apart
        bins = np.array([both.min() - abs(both.min()) - 1.0, both.max() + abs(both.max()) + 1.0])
    for values, style in ((ours, {"color": figures.COLOURS[0], "alpha": 0.55}), (real, {"color": figures.INK})):
        inside = values[(values >= bins[0]) & (values <= bins[-1])]
        if len(inside):
            ax.hist(inside, bins, density=True, histtype="step" if values is real else "bar", **style)


def associations(schema: Schema, x: Codes, real: Codes) -> Codes:
    """Associations of all pairs of columns (d, d): Pearson's correlation of two numbers, Cramer's V of other pairs.

    Args:
        schema: the columns.
        x: rows whose associations are wanted, codes (n, d).
        real: rows over whose range numbers are binned beside words.

    Returns:
        In [-1, 1], 1 on the diagonal; NaN where there is none, as a column is constant.
    """
    columns = modelled(schema)
    found = np.eye(len(columns))
    ids = []
    for k, spec in enumerate(columns):
        values = x[:, k]
        if not is_category(spec):
            values = np.where(np.isnan(values), np.nan, np.searchsorted(bin_edges(real[:, k]), values, "right"))
        ids.append(np.unique(values, return_inverse=True)[1])
    for i in range(len(columns)):
        for j in range(i):
            if is_category(columns[i]) or is_category(columns[j]):
                value = cramers_v(ids[i], ids[j])
            else:
                value = correlation(x[:, i], x[:, j])
            found[i, j] = found[j, i] = value
    return found


def cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    """Cramer's V of two columns of places (n,): 0 for independent ones, 1 where one decides the other."""
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    if min(rows, columns) < 2:
        return np.nan
    n = len(a)
    # chi-squared / n + 1 = sum of p_ij^2 / (p_i p_j), over the cells that there are
    cells, counts = np.unique(a.astype(np.int64) * columns + b, return_counts=True)
    p_a, p_b = np.bincount(a) / n, np.bincount(b) / n
    total = float(((counts / n) ** 2 / (p_a[cells // columns] * p_b[cells % columns])).sum())
    return float(np.sqrt(max(0.0, total - 1.0) / (min(rows, columns) - 1)))


def association_picture(schema: Schema, x: Codes, y: Codes) -> Any:
    """A figure of the associations of the first 24 columns: real rows y (m, d), samples x (n, d), and the difference.

    Args:
        schema: the columns.
        x: samples, codes (n, d).
        y: real rows, codes (m, d).
    """
    columns = modelled(schema)[:SHOWN]
    x, y = x[:, : len(columns)], y[:, : len(columns)]
    ours, real = associations(columns, x, y), associations(columns, y, y)
    size = 2.2 + 0.14 * len(columns)
    fig = figures.figure(3 * size, size)
    fig.set_layout_engine("constrained")
    axes = fig.subplots(1, 3)
    drawn: Any = None
    for ax, matrix, title in zip(axes, (real, ours, ours - real), ("real rows", "samples", "difference"), strict=True):
        drawn = ax.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
        ax.set_title(title, fontsize=9)
        names = [figures.plain(spec.name[:12]) for spec in columns]
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
        ax.set_yticks(range(len(names)), names if ax is axes[0] else [""] * len(names), fontsize=6)
    fig.colorbar(drawn, ax=list(axes), shrink=0.8)
    return fig
