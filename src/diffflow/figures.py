"""Pictures of particles and of training: what the report, the command line and the demo show.

Shapes: images are float (n, c, h, w) in [0, 1] with c = 1 or 3; points are (n, d) with d >= 2. Nothing here needs a
display or touches matplotlib's global state; `png` turns any picture into bytes, `save` writes bytes whole or not at
all.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

INK, SOFT, PALE = "#1b1f24", "#5a6472", "#c9ced6"
COLOURS = ("#1f5fbf", "#c2542d", "#2d8a4e", "#7a4fb5")


def grid(images: Any, columns: int | None = None, *, gap: int = 2, scale: int | None = None) -> Image.Image:
    """Images in rows of `columns` (about square by default); small ones are enlarged by whole pixels.

    Raises ValueError for anything but (n, 1 or 3, h, w).
    """
    x = np.asarray(images, dtype=np.float32)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or len(x) == 0:
        raise ValueError(f"a grid takes images of shape (n, 1 or 3, h, w), got {x.shape}")
    n, c, h, w = x.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else min(columns, n)
    rows = math.ceil(n / columns)
    scale = max(1, 48 // max(h, w)) if scale is None else scale
    pixels = np.rint(x.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1).repeat(scale, 1).repeat(scale, 2)
    tall, wide = h * scale, w * scale
    sheet = np.full((rows * (tall + gap) + gap, columns * (wide + gap) + gap, c), 255, np.uint8)
    for i, tile in enumerate(pixels):
        top, left = gap + i // columns * (tall + gap), gap + i % columns * (wide + gap)
        sheet[top : top + tall, left : left + wide] = tile
    if gap == 0:
        sheet = sheet[: rows * tall, : columns * wide]
    return Image.fromarray(sheet[..., 0] if c == 1 else sheet)


def figure(width: float, height: float):
    """An empty matplotlib figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(fig)
    return fig


def scatter(points: Any, *, truth: Any = None):
    """The first two coordinates of points (n, d), over a faint cloud of true ones where given."""
    x = np.asarray(points)
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(f"a scatter plot takes vectors (n, d) with d >= 2, got {x.shape}; .csv and .npz hold any d")
    fig = figure(5, 5)
    ax = fig.add_subplot()
    if truth is not None:
        ax.scatter(*np.asarray(truth)[:, :2].T, s=3, color=PALE, linewidths=0, label="data")
    ax.scatter(*x[:, :2].T, s=3, color=COLOURS[0], linewidths=0, label="samples")
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[["top", "right"]].set_visible(False)
    if truth is not None:
        ax.legend(frameon=False, markerscale=4, loc="upper right")
    return fig


@dataclass(frozen=True)
class DialRow:
    """One setting of the dial: its name, a remark under it, and the images (n, c, h, w) that the shared starts
    became."""

    name: str
    remark: str
    images: Any


def dial(rows: Sequence[DialRow], heads: Sequence[str] = ()):
    """One row a setting, one column a particle: the same noise and the same label all the way down a column.

    Images of fewer than 16 pixels a side are drawn smoothly: as blocks the eye reads the grid and not the picture.
    """
    size, margin, top = 0.62, 2.5, 0.3
    n = len(rows[0].images)
    width, height = margin + n * size, top + len(rows) * size
    fig = figure(width, height)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        fig.text(x / width, 1 - y / height, text, va="center", **style)

    for r, row in enumerate(rows):
        y = top + r * size
        write(margin - 0.12, y + 0.36 * size, row.name, ha="right", size=9.5, weight="bold", color=INK)
        write(margin - 0.12, y + 0.68 * size, row.remark, ha="right", size=7.5, color=SOFT)
        for i, image in enumerate(np.asarray(row.images, dtype=np.float32)):
            corner = ((margin + i * size) / width, 1 - (y + 0.96 * size) / height)
            ax = fig.add_axes((*corner, 0.94 * size / width, 0.94 * size / height))
            drawn = "bicubic" if image.shape[-1] < 16 else "nearest"
            pixels = image.clip(0, 1).transpose(1, 2, 0).squeeze(-1 if len(image) == 1 else ())
            ax.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation=drawn)
            ax.axis("off")
    for i, head in enumerate(heads):
        write(margin + (i + 0.47) * size, 0.55 * top, head, ha="center", size=8, color=SOFT)
    return fig


def curves(log: Sequence[Mapping[str, Any]]):
    """Loss and gradient norm of every player against the examples seen, from the lines of metrics.jsonl; None without
    any."""
    lines = [line for line in log if line.get("loss")]
    if not lines:
        return None
    fig = figure(8.4, 2.9)
    fig.set_layout_engine("constrained")
    for ax, key, title in zip(fig.subplots(1, 2), ("loss", "grad"), ("loss", "gradient norm"), strict=True):
        for colour, player in zip(COLOURS, lines[0]["loss"], strict=False):
            pairs = [(line["images"], line[key][player]) for line in lines if line.get(key, {}).get(player) is not None]
            if not pairs:
                continue
            seen, value = np.array(pairs, float).T
            ax.plot(seen, value, color=colour, alpha=0.25, linewidth=0.8)
            ax.plot(*smooth(seen, value), color=colour, linewidth=1.6, label=player)
            if (value > 0).all() and value.max() > 5 * value.min():
                ax.set_yscale("log")
        ax.set(title=title, xlabel="examples seen")
        ax.xaxis.set_major_formatter(lambda v, _: count(v))
        ax.grid(color="#e4e7ec", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        if len(lines[0]["loss"]) > 1:
            ax.legend(frameon=False)
    return fig


def count(v: float) -> str:
    """12000 as 12k, 2500000 as 2.5M."""
    return f"{v / 1e6:g}M" if v >= 1e6 else f"{v / 1e3:g}k" if v >= 1e3 else f"{v:g}"


def smooth(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over a twentieth of the curve, each at the mean of its own x, so that the ends are not distorted."""
    window = np.ones(width := max(1, len(y) // 20)) / width
    return np.convolve(x, window, "valid"), np.convolve(y, window, "valid")


def png(picture: Any) -> bytes:
    """PNG bytes of a PIL image or a matplotlib figure."""
    buffer = io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(buffer, format="PNG")
    else:
        picture.savefig(buffer, format="png")
    return buffer.getvalue()


def save(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all: to a temporary neighbour first, then into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
