"""Image files, in a folder or a zip, become one uint8 array.

    layout   root/name.png (no labels), root/class/.../name.png, root/train/class/... beside root/test/class/...
    pixels   8 bits, one channel when every image is grey, else three

Everything is decoded once before anything else happens, and every bad file is named in one error. Conversions (palette,
16 bits, transparency, rotation flags) are counted and reported in the notes; images of different sizes are refused
unless `size` asks for a resize and centre crop.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from itertools import takewhile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..dataset import Raw
from ..errors import DataError
from .archives import LIMITS, Entry, Limits, open_zip

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # by content; others, such as EPS, start programs
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
TEST_NAMES = ("test", "val", "valid", "validation")
MAX_PIXELS = 1 << 27


def read_folder(path: Path, size: tuple[int, int] | None = None) -> Raw:
    """Read the images under a folder.

    Args:
        path: the folder; see the head of this module for its layouts.
        size: (height, width) in pixels of a resize and centre crop; None: all images have one size.

    Returns:
        Raw with x uint8 (n, 1 or 3, h, w), and labels, class names and test rows where the folders say them.

    Raises:
        DataError: there are no images, they do not fit together, or some cannot be read; every bad file is named.
    """
    entries: list[Entry] = []
    for root, folders, files in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        links = [f for f in folders if os.path.islink(os.path.join(root, f))]
        if links:
            raise DataError(f"{os.path.join(root, links[0])!r} is a link to a folder; pass the folder it points to")
        for file in sorted(files):
            full = Path(root) / file
            entries.append((full.relative_to(path).as_posix(), full.read_bytes))
    return _read_images(str(path), entries, size)


def read_zip(path: Path, size: tuple[int, int] | None = None, limits: Limits = LIMITS) -> Raw:
    """Read the images in a zip archive, in memory.

    Args:
        path: the archive; see the head of this module for its layouts.
        size: as in `read_folder`.
        limits: what the archive may hold.

    Returns:
        As `read_folder`.

    Raises:
        DataError: as `read_folder`, and for an archive that is refused.
    """
    with open_zip(path, limits) as entries:
        return _read_images(str(path), sorted(entries, key=lambda e: e[0]), size)


def _read_images(source: str, entries: list[Entry], size: tuple[int, int] | None) -> Raw:
    """Images among files, decoded and put into one array. Raises DataError."""
    visible = [e for e in entries if not any(p.startswith((".", "__MACOSX")) for p in e[0].split("/"))]
    chosen = [e for e in visible if os.path.splitext(e[0])[1].lower() in SUFFIXES]
    if not chosen:
        contents = f"; it holds {', '.join(repr(e[0]) for e in visible[:5])}" if visible else ", it is empty"
        raise DataError(f"no images in {source!r}{contents}. Images end in {' '.join(sorted(SUFFIXES))}")
    y, classes, test = layout(source, [e[0] for e in chosen])
    arrays: list[np.ndarray] = []
    problems: list[str] = []
    sizes: Counter[tuple[int, ...]] = Counter()
    converted: Counter[str] = Counter()
    for name, read in chosen:
        try:
            pixels, conversions = decode(read(), size)
        except Exception as error:  # decoders of damaged files raise almost anything; each one becomes a named problem
            problems.append(f"{name}: {error}")
            continue
        sizes[pixels.shape[:2]] += 1
        converted.update(conversions)
        if len(sizes) == 1:
            arrays.append(pixels)
    if problems:
        raise DataError(
            f"{len(problems)} of {len(chosen)} images in {source!r} cannot be read; repair or remove them:", problems
        )
    x, notes = stack_images(source, arrays, sizes, converted)
    ignored = [e[0] for e in visible if e not in chosen]
    if ignored:
        notes.append(f"{len(ignored)} files that are no images were left out: {', '.join(ignored[:5])}")
    return Raw(x, y, classes, test, tuple(notes))


def stack_images(
    source: str, arrays: list[np.ndarray], sizes: Counter[tuple[int, ...]], converted: Counter[str]
) -> tuple[np.ndarray, list[str]]:
    """Decoded images as one array.

    Args:
        source: what messages call the data.
        arrays: pixels, uint8 (h, w, 1 or 3) each; complete where there is one size only.
        sizes: how many images have each (height, width).
        converted: how many images were converted, by the words for it.

    Returns:
        x: uint8 (n, 1 or 3, h, w); grey ones among others get three channels.
        notes: what was converted, one sentence each.

    Raises:
        DataError: images of different sizes.
    """
    if len(sizes) > 1:
        counts = ", ".join(f"{w}x{h} ({n} images)" for (h, w), n in sizes.most_common(10))
        common = min(min(s) for s in sizes)
        raise DataError(
            f"images in {source!r} have {len(sizes)} different sizes (width x height): {counts}. "
            f"Resize them, or ask for a resize and centre crop, for example size={common} (--data.size {common})"
        )
    colours = Counter(a.shape[2] for a in arrays)
    channels = max(colours)
    if len(colours) > 1:
        converted[f"grey, repeated in three channels because {colours[3]} others are in colour"] = colours[1]
    notes = [f"{count} of {len(arrays)} images: {what}" for what, count in sorted(converted.items())]
    x = np.empty((len(arrays), channels, *arrays[0].shape[:2]), np.uint8)
    for i, a in enumerate(arrays):
        x[i] = a.transpose(2, 0, 1)
    return x, notes


def layout(source: str, names: list[str]) -> tuple[np.ndarray | None, list[str] | None, np.ndarray | None]:
    """What the folders of images say; folders that all files share mean nothing.

    Args:
        source: what messages call the data.
        names: relative paths of the images, "/" between folders.

    Returns:
        labels: int64 (n,) in the order of `classes`; None without class folders.
        classes: the names of the class folders, sorted; None without.
        test: mask (n,) of the images of the test folder; None without split folders.

    Raises:
        DataError: more than two splits, or images beside class folders.
    """
    parts = [n.split("/") for n in names]
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*(p[:-1] for p in parts), strict=False)))
    parts = [p[shared:] for p in parts]
    test = None
    tops = {p[0] for p in parts if len(p) > 1}
    if "train" in tops and tops <= {"train", *TEST_NAMES} and all(len(p) > 1 for p in parts):
        test_name = next(t for t in TEST_NAMES if t in tops)
        unused = sorted(tops - {"train", test_name})
        if unused:
            raise DataError(
                f"{source!r} has the splits {sorted(tops)}; keep 'train' and one other, move {unused} elsewhere"
            )
        test = np.array([p[0] == test_name for p in parts])
        parts = [p[1:] for p in parts]
    loose = [n for n, p in zip(names, parts, strict=True) if len(p) == 1]
    if len(loose) == len(names):
        return None, None, test
    if loose:
        raise DataError(
            f"{source!r} has class folders, and images outside them; move these into a class folder:", loose
        )
    classes = sorted({p[0] for p in parts})
    return np.array([classes.index(p[0]) for p in parts]), classes, test


def decode(content: bytes, size: tuple[int, int] | None = None) -> tuple[np.ndarray, list[str]]:
    """Decode one image file.

    Args:
        content: its bytes.
        size: (height, width) in pixels of an antialiased resize that covers it, followed by a centre crop; None: as it
            is.

    Returns:
        pixels: uint8 (h, w, 1 or 3).
        conversions: what had to be converted, in words.

    Raises:
        ValueError: no image of a known format, too large, or pixels without a stated range; of a damaged file, whatever
            its decoder raises.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise ValueError(f"not an image of a known format ({len(content)} bytes)") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels; at most {MAX_PIXELS} are read")
    return to_pixels(image, size)


def to_pixels(image: Image.Image, size: tuple[int, int] | None = None) -> tuple[np.ndarray, list[str]]:
    """The pixels of an opened image; as `decode`."""
    conversions: list[str] = []
    if getattr(image, "n_frames", 1) > 1:
        conversions.append("animated, first frame used")
    image.load()
    upright = ImageOps.exif_transpose(image)
    if image.getexif().get(0x0112, 1) != 1:
        conversions.append("turned upright as their EXIF flag says")
    image = upright
    mode = image.mode
    if mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"integer pixels from {values.min()} to {values.max()}; 8 or 16 bits are read")
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        conversions.append("16 bits, scaled to 8")
    elif mode == "F":
        raise ValueError("floating-point pixels have no stated range; save as 8 or 16 bits")
    elif mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if mode in ("L", "LA", "La") else "RGB")
        conversions.append("transparent, laid over white")
    elif mode not in ("L", "RGB"):
        image = image.convert("L" if mode == "1" else "RGB")
        conversions.append(f"{'palette' if mode == 'P' else mode}, converted to {image.mode}")
    if size is not None and (image.height, image.width) != size:
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
        conversions.append(f"resized and centre-cropped to {size[1]}x{size[0]}")
    pixels = np.asarray(image)
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels), conversions
