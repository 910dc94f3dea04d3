"""Pictures of particles and of training, for the report, the command line and the demo.

Shapes: images are float (n, c, h, w) in [0, 1] with c = 1 or 3; points are (n, d) with d >= 2. Nothing here needs a
display or touches matplotlib's global state; `png` turns any picture into bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = "#1b1f24"
SOFT = "#5a6472"
PALE = "#c9ced6"
COLOURS = ("#1f5fbf", "#c2542d", "#2d8a4e", "#7a4fb5")


def grid(images: Any, columns: int | None = None, *, gap: int = 2, scale: int | None = None) -> Image.Image:
    """Images as one picture, in rows; small ones are enlarged by whole pixels.

    Args:
        images: (n, 1 or 3, h, w), floats in [0, 1].
        columns: images in a row; default: about square.
        gap: pixels between images.
        scale: pixels a side of a pixel; default: so that an image has about 48.

    Raises:
        ValueError: another shape.
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


def plain(text: object) -> str:
    """Somebody's words, to be shown in a figure as they are.

    matplotlib reads formulas between dollars, leaves labels that begin with an underscore out of legends, and draws no
    half of a surrogate pair.
    """
    shown = str(text).encode("utf-8", "replace").decode().replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def scatter(points: Any, *, truth: Any = None):
    """A figure of the first two coordinates of points (n, d), over a faint cloud of true ones where given.

    Raises:
        ValueError: points of less than two dimensions.
    """
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
        ax.legend(frameon=False, markerscale=4, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return fig


def marginals(
    samples: Any,
    truth: Any,
    names: Sequence[str] = (),
    levels: Sequence[Sequence[float]] = (),
    words: Sequence[Sequence[str]] = (),
):
    """A figure of histograms of at most 16 columns of samples, over those of true ones.

    Args:
        samples: (n, d).
        truth: (m, d).
        names: of the columns.
        levels: values of each discrete column, which is drawn as bars; () for the others.
        words: what the levels of each column stand for; () for numbers.
    """
    x, y = np.asarray(samples), np.asarray(truth)
    shown = min(16, x.shape[1])
    columns = min(4, shown)
    rows = -(-shown // columns)
    fig = figure(2.6 * columns, 1.9 * rows + 0.2)
    fig.set_layout_engine("constrained")
    for k, ax in enumerate(fig.subplots(rows, columns, squeeze=False).flat):
        if k >= shown:
            ax.set_axis_off()
            continue
        both = np.concatenate([x[:, k], y[:, k]])
        if k < len(levels) and len(levels[k]):
            middle = 0.5 * (np.asarray(levels[k])[1:] + np.asarray(levels[k])[:-1])
            edges = np.concatenate(
                [[min(both.min(), levels[k][0]) - 0.5], middle, [max(both.max(), levels[k][-1]) + 0.5]]
            )
            at = np.arange(len(levels[k]))
            counts = [np.histogram(v[:, k], edges)[0] / len(v) for v in (x, y)]
            ax.bar(at, counts[0], color=COLOURS[0], alpha=0.55)
            ax.hlines(counts[1], at - 0.4, at + 0.4, color=INK, linewidth=1.2)
            texts = words[k] if k < len(words) and words[k] else [f"{v:g}" for v in levels[k]]
            few = range(0, len(at), -(-len(at) // 6))
            ax.set_xticks(list(few), [plain(str(texts[i])[:10]) for i in few])
        else:
            low, high = np.percentile(both, [0.2, 99.8])
            bins = np.linspace(low, high, int(np.clip(2 * len(y) ** 0.5, 10, 40)) + 1)
            ax.hist(x[:, k], bins, density=True, color=COLOURS[0], alpha=0.55)
            ax.hist(y[:, k], bins, density=True, color=INK, histtype="step", linewidth=1)
        ax.set_title(plain(names[k]) if k < len(names) else f"column {k + 1}", fontsize=9)
        ax.set_yticks([])
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right", "left"]].set_visible(False)
    return fig


def pairs(samples: Any, truth: Any, names: Sequence[str] = ()):
    """A figure of every pair of the first 6 columns: samples (n, d) over true ones (m, d), at most 1000 of each."""
    x, y = np.asarray(samples)[:1000], np.asarray(truth)[:1000]
    d, size = min(6, x.shape[1]), 2 if len(y) > 500 else 5
    fig = figure(1.5 * d, 1.5 * d)
    fig.set_layout_engine("constrained")
    for (i, j), ax in np.ndenumerate(fig.subplots(d - 1, d - 1, squeeze=False)):
        if j > i:
            ax.set_axis_off()
            continue
        ax.scatter(y[:, j], y[:, i + 1], s=size, color="#9aa3af", linewidths=0)
        ax.scatter(x[:, j], x[:, i + 1], s=size, color=COLOURS[0], linewidths=0, alpha=0.5)
        ax.set(xticks=[], yticks=[])
        ax.spines[["top", "right"]].set_visible(False)
        if j == 0:
            ax.set_ylabel(plain(names[i + 1]) if names else f"column {i + 2}", fontsize=8)
        if i == d - 2:
            ax.set_xlabel(plain(names[j]) if names else f"column {j + 1}", fontsize=8)
    return fig


@dataclass(frozen=True)
class DialRow:
    """A row of `dial`.

    Args:
        name: of the setting.
        remark: what stands under the name.
        images: what the shared starts became, (n, c, h, w) in [0, 1].
    """

    name: str
    remark: str
    images: Any


def dial(rows: Sequence[DialRow], heads: Sequence[str] = ()):
    """A figure with one row a setting, one column a particle: the same noise and label all the way down a column.

    Images of fewer than 16 pixels a side are drawn smoothly: as blocks the eye reads the grid and not the picture.

    Args:
        rows: the settings.
        heads: what stands above the columns.
    """
    size = 0.62  # inches of an image, with its gap
    margin = 2.5  # left of the images, for names
    top = 0.3  # above them, for heads
    n = len(rows[0].images)
    width, height = margin + n * size, top + len(rows) * size
    fig = figure(width, height)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        fig.text(x / width, 1 - y / height, plain(text), va="center", **style)

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


FRAMES = 60  # of an animation, at most
STRIP = 26  # height of the strip below an animation, in pixels


def animate(frames: Sequence[tuple[float, Any]], *, truth: Any = None, title: str = "") -> bytes:
    """GIF bytes of particles on their way.

    At most 60 of the frames are drawn, evenly chosen, with the first and the last; at most 3000 points, or as many
    images as fill a picture of 640 pixels. A strip below tells t and how far along the frames are. The animation loops,
    with a rest at the end.

    Args:
        frames: (t, x) with x points (n, d >= 2) or images (n, 1 or 3, h, w).
        truth: points (m, d) faintly behind, whose axes are taken; default: those of the last frame.
        title: what stands in the strip.

    Raises:
        ValueError: fewer than 3 frames, or shapes that cannot be drawn.
    """
    if len(frames) < 3:
        raise ValueError(f"{len(frames)} states make no animation, it takes 3: keep more states, or take more steps")
    chosen = [
        frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int))
    ]
    states = [np.asarray(x, dtype=np.float32) for _, x in chosen]
    pictures = _tiles(states) if states[0].ndim == 4 else _clouds(states, truth)
    drawn = [
        _with_strip(p, t, i / (len(chosen) - 1), title)
        for i, (p, (t, _)) in enumerate(zip(pictures, chosen, strict=True))
    ]
    palette = drawn[-1].quantize(32, dither=Image.Dither.NONE)
    coded = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in drawn]
    rest = [500, *[max(40, 4000 // len(coded))] * (len(coded) - 2), 2000]  # milliseconds
    buffer = io.BytesIO()
    coded[0].save(buffer, "GIF", save_all=True, append_images=coded[1:], duration=rest, loop=0, optimize=False)
    return buffer.getvalue()


def _tiles(states: Sequence[np.ndarray]) -> list[Image.Image]:
    """The first images of every state (n, c, h, w) as a square grid that fits."""
    h, w = states[0].shape[-2:]
    side = max(48 // max(h, w), 1) * max(h, w) + 2
    columns = max(1, min(math.ceil(math.sqrt(len(states[0]))), 640 // side))
    return [grid(x[: columns**2], columns).convert("RGB") for x in states]


def _clouds(states: Sequence[np.ndarray], truth: Any) -> list[Image.Image]:
    """The first two coordinates of every state (n, d) on the same axes."""
    if states[0].ndim != 2 or states[0].shape[1] < 2:
        raise ValueError(f"an animation takes points (n, d) with d >= 2 or images, got {states[0].shape}")
    frame = states[-1] if truth is None else np.asarray(truth, dtype=np.float32)
    low, high = np.quantile(frame[:, :2], [0.005, 0.995], axis=0)
    centre, half = (low + high) / 2, 0.65 * float((high - low).max()) or 1.0
    fig = figure(3.2, 3.2)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half))
    ax.axis("off")
    if truth is not None:
        ax.scatter(*frame[:3000, :2].T, s=4, color="#e3e6eb", linewidths=0)
    dots = ax.scatter([], [], s=3.5, color=COLOURS[0], linewidths=0)
    pictures = []
    for x in states:
        dots.set_offsets(x[:3000, :2])
        with io.BytesIO(png(fig)) as drawn:
            pictures.append(Image.open(drawn).convert("RGB"))
    return pictures


def _with_strip(picture: Image.Image, t: float, done: float, title: str) -> Image.Image:
    """The picture over a bar filled to the share `done`, with the title on its left and t on its right."""
    wide, tall = picture.size
    out = Image.new("RGB", (wide, tall + STRIP), "white")
    out.paste(picture)
    draw = ImageDraw.Draw(out)
    font = ImageFont.load_default(12)
    pad = 8
    draw.rectangle((pad, tall + 3, wide - pad, tall + 5), fill=PALE)
    draw.rectangle((pad, tall + 3, pad + round(done * (wide - 2 * pad)), tall + 5), fill=COLOURS[0])
    draw.text((pad, tall + 8), title, fill=SOFT, font=font)
    draw.text((wide - pad, tall + 8), f"t = {t:.4g}", fill=SOFT, font=font, anchor="ra")
    return out


def curves(log: Sequence[Mapping[str, Any]]):
    """A figure of loss and gradient norm of every player, from the lines of metrics.jsonl; None without any."""
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
            examples, value = np.array(pairs, float).T
            ax.plot(examples, value, color=colour, alpha=0.25, linewidth=0.8)
            ax.plot(*smooth(examples, value), color=colour, linewidth=1.6, label=plain(player))
            if (value > 0).all() and value.max() > 5 * value.min():
                ax.set_yscale("log")
        ax.set(title=title, xlabel="examples seen")
        ax.xaxis.set_major_formatter(lambda v, _: count(v))
        ax.grid(color="#e4e7ec", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        if len(lines[0]["loss"]) > 1:
            ax.legend(frameon=False)
    return fig


SHARES = ("accuracy", "calibration", "modes", "within")
SIZES = ("displacement", "std_ratio")


def game_curves(log: Sequence[Mapping[str, Any]]):
    """A figure of how a game goes, from the lines of metrics.jsonl; None where nothing of the kind was logged.

    It has a panel of shares between 0 and 1 (a discriminator's accuracy and calibration, modes reached), and one of
    sizes (the particles' step, the width of the samples).
    """
    keys = dict.fromkeys(key for line in log for key in line.get("log", ()))
    groups = {
        title: group
        for title, names in {"shares": SHARES, "sizes": SIZES}.items()
        if (group := [key for key in keys if key.rpartition("/")[2] in names])
    }
    if not groups:
        return None
    fig = figure(4.2 * len(groups), 2.9)
    fig.set_layout_engine("constrained")
    for ax, (title, group) in zip(fig.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        for i, key in enumerate(group):
            pairs = [(line["images"], line["log"][key]) for line in log if key in line.get("log", ())]
            examples, value = np.array(pairs, float).T
            ax.plot(examples, value, color=COLOURS[i % 4], alpha=0.25, linewidth=0.8)
            ax.plot(*smooth(examples, value), color=COLOURS[i % 4], linewidth=1.6, label=plain(key.replace("/", ": ")))
        ax.set(title=title, xlabel="examples seen")
        ax.set_ylim(*((-0.03, 1.03) if title == "shares" else (0, None)))
        ax.xaxis.set_major_formatter(lambda v, _: count(v))
        ax.grid(color="#e4e7ec", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
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
