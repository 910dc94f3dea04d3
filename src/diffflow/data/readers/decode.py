"""One picture file becomes pixels: opened by its content, turned upright, laid over the background, and resized.

Formats are told by content; those whose decoders start other programs, such as EPS, are never tried. HEIC and AVIF are
read where pillow-heif or pillow-avif-plugin is installed (or Pillow does it alone).
"""

from __future__ import annotations

import importlib
import io
import warnings
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from .form import AS_THEY_ARE, Form, fitted

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm"}
EXTRA = {".avif": ("AVIF", "pillow-avif-plugin")} | dict.fromkeys((".heic", ".heif", ".hif"), ("HEIF", "pillow-heif"))
MAX_PIXELS = 1 << 27
REDUCED, MASK, ORIENTATION = 1, 4, 0x0112  # of TIFF's NewSubfileType; of EXIF


def readable(suffixes: set[str]) -> tuple[set[str], tuple[str, ...]]:
    """The suffixes of pictures that can be read here, and the formats to try; plug-ins only for suffixes that are met.

    Args:
        suffixes: of the files at hand, in lower case.
    """
    found, formats = set(SUFFIXES), list(FORMATS)
    for suffix in sorted(suffixes & EXTRA.keys()):
        name, package = EXTRA[suffix]
        Image.init()
        if name not in Image.OPEN:
            try:
                module = importlib.import_module(package.replace("-", "_").removesuffix("_plugin"))
            except ImportError:
                continue
            if hasattr(module, "register_heif_opener"):
                module.register_heif_opener()
        if name in Image.OPEN:
            found.add(suffix)
            formats = [*dict.fromkeys([*formats, name])]
    return found, tuple(formats)


def opened(file: IO[bytes], formats: tuple[str, ...] = FORMATS, count: int | None = None) -> Image.Image:
    """Open a picture, of which nothing is decoded yet.

    Args:
        file: where it is.
        formats: those that are tried.
        count: its bytes, for messages.

    Raises:
        ValueError: no picture of a known format, or too large.
    """
    try:
        with warnings.catch_warnings():  # of sizes below our own limit
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=formats)
    except Image.DecompressionBombError:
        raise ValueError(f"far more pixels than the {MAX_PIXELS} that are read") from None
    except Image.UnidentifiedImageError:
        what = "" if count is None else f" ({count} bytes)"
        raise ValueError(f"not an image of a known format{what}") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels; at most {MAX_PIXELS} are read")
    return image


def pages(image: Image.Image, form: Form) -> list[tuple[int, tuple[int, int], int]]:
    """The pictures in an opened file: the pages of a TIFF, without thumbnails and masks; one of any other.

    Returns:
        Number, (height, width) upright, and channels, 1 or 3, of each.
    """
    if image.format != "TIFF":
        known = image.info.get("exif") if image.format == "PNG" else True  # else a PNG is decoded to look for it
        turned = bool(known) and image.getexif().get(ORIENTATION, 1) >= 5
        shape = (image.width, image.height) if turned else (image.height, image.width)
        return [(0, shape, channels(image, form))]
    found = []
    for k in range(getattr(image, "n_frames", 1)):
        image.seek(k)
        if not getattr(image, "tag_v2", {}).get(254, 0) & (REDUCED | MASK):
            found.append((k, (image.height, image.width), channels(image, form)))
    image.seek(0)
    return found or [(0, (image.height, image.width), channels(image, form))]


def channels(image: Image.Image, form: Form) -> int:
    """The channels that `to_pixels` gives of a picture, 1 or 3."""
    mode = image.mode
    if mode in ("LA", "La") or (mode in ("L", "1") and "transparency" in image.info):
        return 1 if form.grey and mode != "1" else 3
    return 1 if mode in ("L", "1", "F") or mode.startswith("I") else 3


def decode(
    content: bytes, page: int, form: Form, size: tuple[int, int] | None, formats: tuple[str, ...] = FORMATS
) -> tuple[np.ndarray, list[str]]:
    """Decode one picture of a file.

    Args:
        content: the file's bytes.
        page: of a TIFF, else 0.
        form: what becomes of other sizes and of transparency.
        size: (height, width) that it is brought to; None: as it is.
        formats: those that are tried.

    Returns:
        As `to_pixels`.

    Raises:
        ValueError: as `opened` and `to_pixels`; of a damaged file, whatever its decoder raises.
    """
    image = opened(io.BytesIO(content), formats, len(content))
    if page:
        image.seek(page)
    if size is not None and image.format == "JPEG":  # decoded at 1/2, 1/4 or 1/8, and still resized by half or more
        image.draft(None, (2 * max(size), 2 * max(size)))
    return to_pixels(image, form, size)


def to_pixels(
    image: Image.Image, form: Form = AS_THEY_ARE, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, list[str]]:
    """The pixels of an opened picture.

    Args:
        image: the picture.
        form: what becomes of other sizes and of transparency.
        size: (height, width) that it is brought to; None: as it is.

    Returns:
        pixels: uint8 (h, w, 1 or 3), or uint16 or float32 (h, w, 1), whose range others decide (pixels.py).
        conversions: what had to be converted, in words.

    Raises:
        ValueError: pixels beyond 16 bits, or that are not finite.
    """
    conversions: list[str] = []
    if getattr(image, "n_frames", 1) > 1 and image.format != "TIFF":
        several = "further pictures inside, first one used"
        conversions.append(several if image.format == "MPO" else "animated, first frame used")
    if image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())[:1]):
        conversions.append("16 bits a channel, of which the upper 8 are read")
    image.load()
    upright = ImageOps.exif_transpose(image)
    if image.getexif().get(ORIENTATION, 1) != 1:
        conversions.append("turned upright as their EXIF flag says")
    image = upright
    mode = image.mode
    if mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"integer pixels from {values.min()} to {values.max()}; 8 or 16 bits are read")
        image = Image.fromarray(values.astype(np.uint16))
    elif mode == "F":
        if not np.isfinite(np.asarray(image)).all():
            raise ValueError("pixels that are NaN or infinite")
    elif mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*form.colour, 255)), image)
        image = image.convert("L" if mode in ("L", "LA", "La") and form.grey else "RGB")
        conversions.append(f"transparent, laid over {form.background}")
    elif mode not in ("L", "RGB"):
        image = image.convert("L" if mode == "1" else "RGB")
        conversions.append(f"{'palette' if mode == 'P' else mode}, converted to {image.mode}")
    if size is not None and (image.height, image.width) != size:
        image = fitted(image, size, form)
        conversions.append(form.says(size))
    pixels = np.asarray(image)
    if mode.startswith("I") and pixels.dtype != np.uint16:  # resized
        pixels = np.rint(pixels).clip(0, 65535).astype(np.uint16)
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels), conversions
