"""Tiles: samples of any kind as small pictures, which grids, animations and pages put together.

    images    (n, c, h, w)       of one or three channels in [0, 1]: as they are; others in shades of their own range,
                                 three channels as colours, or the first one alone
    signals   (n, c, l)          line plots, a colour for each of the first channels, each in its own range, as units
                                 differ; a single one over a line at zero
    volumes   (n, c, d, h, w)    their middle slices
    vectors                      none: they are drawn as a cloud (`figures.scatter`)

Nothing here knows what the numbers are: what is beyond [0, 1] is shown in the range of the samples themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .. import figures

WIDE, HIGH = 144, 96  # pixels of a line plot
FINER = 3  # times as large it is drawn, to be smooth
LINES = 4  # channels of a signal that are drawn
PLOTS = 16  # signals of a grid


def can_draw(shape: Sequence[int]) -> bool:
    """Whether samples of this shape have tiles: all but vectors."""
    return len(shape) > 1


def size(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the tile of a sample of this shape."""
    return (HIGH, WIDE) if len(shape) == 2 else (shape[-2], shape[-1])


def tiles(x: Any, like: Any = None) -> np.ndarray:
    """Samples as pictures.

    Args:
        x: samples (n, *shape).
        like: samples (m, *shape) whose range of values is shown; None: x itself.

    Returns:
        float32 (n, 1 or 3, h, w) in [0, 1].

    Raises:
        ValueError: samples without axes to draw.
    """
    x = _flat(x)
    like = x if like is None else _flat(like)
    if x.ndim == 3:
        ranges = [_range(like[:, k], 0.0) for k in range(min(LINES, x.shape[1]))]
        return np.stack([_plot(np.nan_to_num(signal[:LINES]), ranges) for signal in x])
    if x.ndim != 4 or not x.size:
        raise ValueError(f"signals, images and volumes can be drawn, and these have shape {x.shape}")
    shown, like = (v if v.shape[1] in (1, 3) else v[:, :3] if v.shape[1] > 3 else v[:, :1] for v in (x, like))
    if like.shape[1] == x.shape[1] and like.min() >= 0 and like.max() <= 1:
        return shown
    low, high = _range(like, 0.005)
    return ((np.nan_to_num(shown) - low) / max(high - low, 1e-12)).clip(0, 1).astype(np.float32)


def picture(x: Any, columns: int | None = None) -> Any:
    """A picture of samples (n, *shape) of any kind: a grid of tiles, or a figure of vectors as a cloud.

    Args:
        x: samples; of signals the first 16 are drawn.
        columns: tiles in a row; default: about square.

    Raises:
        ValueError: vectors of a single column.
    """
    x = np.asarray(x)
    if x.ndim <= 2:
        return figures.scatter(x)
    if x.ndim == 3:
        return figures.grid(tiles(x[:PLOTS]), 4, gap=8)
    return figures.grid(tiles(x), columns)


def _flat(x: Any) -> np.ndarray:
    """Samples as float32, volumes as their middle slices (n, c, h, w)."""
    x = np.asarray(x, dtype=np.float32)
    return x[:, :, x.shape[2] // 2] if x.ndim == 5 else x


def _range(x: np.ndarray, outside: float) -> tuple[float, float]:
    """The range of the finite values, without a share of them at either end."""
    finite = x[np.isfinite(x)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.quantile(finite, [outside, 1 - outside])
    return float(low), float(high)


def _plot(signal: np.ndarray, ranges: Sequence[tuple[float, float]]) -> np.ndarray:
    """A signal (c, l) as lines, (3, HIGH, WIDE) in [0, 1]; of each channel the values at the bottom and the top."""
    wide, high, pad = WIDE * FINER, HIGH * FINER, 4 * FINER
    image = Image.new("RGB", (wide, high), "#f6f7f9")
    draw = ImageDraw.Draw(image)

    def place(values: np.ndarray, bottom: float, top: float) -> list[float]:
        share = (values.clip(bottom, top) - bottom) / max(top - bottom, 1e-12)
        return (pad + (high - 2 * pad) * (1 - share)).tolist()

    if len(ranges) == 1 and ranges[0][0] < 0 < ranges[0][1]:
        (zero,) = place(np.zeros(1), *ranges[0])
        draw.line([(0, zero), (wide, zero)], fill=figures.PALE, width=FINER)
    across = np.linspace(pad, wide - pad, signal.shape[1]) if signal.shape[1] > 1 else np.array([wide / 2])
    for colour, line, (bottom, top) in zip(figures.COLOURS, signal, ranges, strict=False):
        points = list(zip(across.tolist(), place(line, bottom, top), strict=True))
        draw.line(points if len(points) > 1 else points * 2, fill=colour, width=FINER + 1, joint="curve")
    small = image.resize((WIDE, HIGH), Image.Resampling.LANCZOS)
    return (np.asarray(small, dtype=np.float32) / 255).transpose(2, 0, 1)
