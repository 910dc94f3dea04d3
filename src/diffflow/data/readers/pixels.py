"""Pixels of any numbers become bytes, by the range that all of them have; what is lost on the way is said, or refused.

The range is that of the whole set, never that of one picture.

    whole numbers   0..255 as they are; 16 bits by the bits that are used: 10, 12, 14 or all 16
    floats          [0, 1], [-1, 1] (a twentieth beyond is cut), or whole numbers in 0..255
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError

BEYOND = 0.05  # of the unit range: overshoot of a resize, or rounding
RANGE, LEVELS = 26, 32  # least range of bytes, a tenth; fewer levels are said
REMEDY = (
    "multiply masks of 0 and 1 by 255, stretch pictures of fewer bits to 8 or 16 bits, save floats in [0, 1], or as an "
    ".npy of floats, which stay floats with --data.kind image (kind='image' in Python)"
)


def to_bytes(source: str, parts: Sequence[np.ndarray]) -> tuple[list[np.ndarray], str]:
    """Pixels as bytes.

    Args:
        source: what messages call the data.
        parts: arrays of pixels, of one type.

    Returns:
        bytes_: uint8, an array for each part.
        words: what was done; "" where nothing was.

    Raises:
        DataError: a range that fits no convention.
    """
    low, high = min(p.min() for p in parts), max(p.max() for p in parts)
    dtype = parts[0].dtype
    if dtype.kind in "ui":
        if low >= 0 and high <= 255:
            few = dtype == np.uint16
            return [p.astype(np.uint8) for p in parts], f"16 bits of which 8 are used (up to {high})" if few else ""
        if dtype == np.uint16:
            bits = next(b for b in (10, 12, 14, 16) if high < 1 << b)
            top = (1 << bits) - 1
            words = "16 bits" if bits == 16 else f"16 bits of which {bits} are used (up to {high})"
            return [((p.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8) for p in parts], (
                f"{words}, scaled to 8"
            )
    elif low >= -BEYOND and high <= 1 + BEYOND:
        inside = low >= 0 and high <= 1
        cut = "" if inside else f" (they run from {low:.3g} to {high:.6g}: what is beyond was cut)"
        return [np.rint((p if inside else p.clip(0, 1)) * 255.0).astype(np.uint8) for p in parts], (
            f"floats in [0, 1] stored as 8 bits{cut}"
        )
    elif low >= -1 - BEYOND and high <= 1 + BEYOND:
        inside = low >= -1 and high <= 1
        cut = "" if inside else f" (they run from {low:.6g} to {high:.6g}: what is beyond was cut)"
        return [np.rint(((p if inside else p.clip(-1, 1)) + 1.0) * 127.5).astype(np.uint8) for p in parts], (
            f"floats in [-1, 1] stored as 8 bits{cut}"
        )
    elif low >= 0 and high <= 255 and all((p == np.rint(p)).all() for p in parts):
        return [p.astype(np.uint8) for p in parts], ""
    raise DataError(
        f"pixels of {source!r} ({dtype}) run from {low:.6g} to {high:.6g}; save them as uint8, or floats in [0, 1], "
        "or keep them as floats: --data.kind image (kind='image' in Python)"
    )


def levels_of(x: np.ndarray) -> np.ndarray:
    """The values of bytes that are used, rising; of many that use enough (`RANGE`, `LEVELS`) some are enough.

    Args:
        x: uint8 (n, ...); read only until enough levels are met.
    """
    used = np.zeros(256, bool)
    step = max(1, (1 << 18) // max(x[0].size, 1))
    for first in range(0, len(x), step):
        used |= np.bincount(x[first : first + step].reshape(-1), minlength=256) > 0
        levels = np.flatnonzero(used)
        if levels[-1] - levels[0] >= RANGE - 1 and len(levels) >= LEVELS:
            break
    return np.flatnonzero(used)


def check_levels(x: np.ndarray, words: str = "") -> list[str]:
    """Notes on bytes of which few levels are used: such pictures may be looked at, but see `refuse_dim`.

    Args:
        x: uint8 (n, c, h, w).
        words: what was done to their values before.
    """
    levels, before = levels_of(x), f" ({words})" if words else ""
    low, high = int(levels[0]), int(levels[-1])
    if low == high:
        return [f"ATTENTION: every pixel is {low} of 255{before}: there is nothing to learn"]
    if high - low < RANGE - 1:
        return [f"ATTENTION: pixels run from {low} to {high} of 255 only{before}: next to nothing can be seen"]
    return [f"only {len(levels)} levels of grey or colour are used, of 256{before}"] if len(levels) < LEVELS else []


def refuse_dim(name: str, x: np.ndarray) -> None:
    """Raise DataError for bytes (n, c, h, w) that use less than a tenth of the range, before a model learns them.

    Floats have no such range.
    """
    if x.dtype != np.uint8:
        return
    levels = levels_of(x)
    if 0 < levels[-1] - levels[0] < RANGE - 1:
        raise DataError(
            f"the pixels of {name!r} run from {levels[0]} to {levels[-1]} of 255, where next to nothing can be seen: "
            f"{REMEDY}"
        )
