"""One form for pictures of any size: the common size, and how each one meets it.

One that has it already stays as it is.

    crop     resized, antialiased, so that it covers the size, and cropped around its centre
    pad      resized so that it fits in, with the background around it
    resize   resized to the size, which changes its proportions
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageColor, ImageOps

from ..errors import DataError

FITS = ("crop", "pad", "resize")
LARGEST = 256  # side that pictures of different sizes are brought to, at most, where nobody says another


@dataclass(frozen=True)
class Form:
    """The form that pictures are brought to.

    Args:
        size: (height, width) in pixels; None: as they are, and where sizes differ a common one (`common_size`).
        fit: "crop", "pad" or "resize": see the head of this module.
        background: what transparent pictures are laid over, and padded with: a colour by name or "#rrggbb".
        otherwise: (height, width) where sizes differ and `size` says nothing; None: `common_size`.

    Raises:
        DataError: a fit or a colour that there is not.
    """

    size: tuple[int, int] | None = None
    fit: str = "crop"
    background: str = "white"
    otherwise: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise DataError(f"fit (--data.fit) is one of {', '.join(FITS)}, not {self.fit!r}")
        try:
            ImageColor.getrgb(self.background)
        except ValueError:
            raise DataError(
                f"background (--data.background) = {self.background!r} is no colour: give a name, such as white, "
                "black or grey, or '#rrggbb'"
            ) from None

    @cached_property
    def colour(self) -> tuple[int, int, int]:
        """The background, red, green and blue in 0..255."""
        return ImageColor.getrgb(self.background)[:3]

    @property
    def grey(self) -> bool:
        """Whether the background is grey: then grey pictures stay grey."""
        return len(set(self.colour)) == 1

    def says(self, size: tuple[int, int]) -> str:
        """What happens to a picture of another size, in words."""
        at = f"{size[1]}x{size[0]}"
        return {
            "crop": f"resized and centre-cropped to {at}",
            "pad": f"resized into {at} and padded with {self.background}",
            "resize": f"resized to {at}, without regard to proportions",
        }[self.fit]


AS_THEY_ARE = Form()


def common_size(shapes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """The square that pictures of different sizes are brought to.

    Its side is the most frequent shorter side, where at least half of the pictures have it; else the largest power of
    two that three quarters of them reach without being enlarged; at most `LARGEST`.

    Args:
        shapes: how many pictures have each (height, width).
    """
    sides: Counter[int] = Counter()
    for shape, count in shapes.items():
        sides[min(shape)] += count
    side, count = max(sides.items(), key=lambda item: (item[1], -item[0]))
    if 2 * count < sides.total():
        rising = np.repeat(*(np.array(v) for v in zip(*sorted(sides.items()), strict=True)))
        side = 1 << int(rising[len(rising) // 4]).bit_length() - 1
    side = min(side, LARGEST)
    return side, side


def fitted(image: Image.Image, size: tuple[int, int], form: Form) -> Image.Image:
    """A picture brought to a size (height, width); with "pad" its part within the padding (`place`).

    Pictures of more than 8 bits become floats of the same values.
    """
    target = size[1], size[0]
    if image.size == target:
        return image
    if image.mode.startswith("I"):
        image = Image.fromarray(np.asarray(image).astype(np.float32))
    if form.fit == "resize":
        return image.resize(target, Image.Resampling.LANCZOS)
    if form.fit == "pad":  # as ImageOps.contain, but a line stays one pixel thin
        width, height = target
        if image.width * height > image.height * width:
            height = max(1, round(image.height / image.width * width))
        else:
            width = max(1, round(image.width / image.height * height))
        return image.resize((width, height), Image.Resampling.LANCZOS)
    return ImageOps.fit(image, target, Image.Resampling.LANCZOS)


def place(x: np.ndarray, pixels: np.ndarray, form: Form) -> None:
    """Put pixels (h, w, 1 or 3) into x (c, height, width), in the middle of the background where they are smaller."""
    top, left = ((a - b) // 2 for a, b in zip(x.shape[1:], pixels.shape[:2], strict=True))
    if pixels.shape[:2] != x.shape[1:]:
        colour = form.colour if len(x) == 3 else (Image.new("RGB", (1, 1), form.colour).convert("L").getpixel((0, 0)),)
        x[:] = np.array(colour, np.uint8)[:, None, None]
    x[:, top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels.transpose(2, 0, 1)
