"""Channels of signals, volumes and images of floats: every one is checked, measured and scaled by itself.

A channel has one mean and one standard deviation, over all of its places in all training rows; what cannot be scaled
is refused, with all of its names. Arrays are read in parts, so that a memory map of float32 is never copied.

Shapes: x (n, c, ...).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .errors import DataError
from .transform import Transform

AT_ONCE = 1 << 23  # numbers that are looked at together


def prepare_channels(
    kind: str, x: np.ndarray, name: str, learned: np.ndarray, notes: list[str], like: Transform | None = None
) -> tuple[np.ndarray, Transform]:
    """The examples as floats, and their transform.

    Args:
        kind: "signal", "volume" or "image".
        x: examples (n, c, ...), of any numbers.
        name: of the data, for messages.
        learned: mask (n,) of the training rows, which the channels are measured on.
        notes: what was done is added to these.
        like: the transform to use instead of one that is measured.

    Returns:
        x: float32 (n, c, ...); the same array where it is so already.
        transform: between data units and model units.

    Raises:
        DataError: values that are not finite in float32, and channels that cannot be scaled, each named.
    """
    _refuse_values(x, name)
    if x.dtype.kind in "bui":
        notes.append(f"{x.dtype} taken as floats: a density over all numbers is learned, not their probabilities")
    if like is not None:
        return x.astype(np.float32, copy=False), like
    mean, std = measure(x, learned)
    constant = [k for k in range(len(std)) if not std[k] > 1e-12 * np.abs(mean[k])]
    if constant:
        raise DataError(
            f"{name!r} has channels that never change over its training rows; leave them out of the array",
            [f"channel {k + 1}: always {mean[k]:.6g}" for k in constant],
        )
    coarse = [k for k in range(len(std)) if np.spacing(np.abs(mean[k]).astype(np.float32)) > 1e-3 * std[k]]
    if coarse:
        raise DataError(
            f"{name!r} has channels too far from zero for float32; subtract an offset first",
            [f"channel {k + 1}: mean {mean[k]:.6g}, std {std[k]:.6g}" for k in coarse],
        )
    shown = ", ".join(f"{v:.3g}" for v in std[:8]) + (f" and {len(std) - 8} more" if len(std) > 8 else "")
    notes.append(
        f"each channel is divided by its standard deviation over the training rows: {shown} (after its mean is taken "
        "away)"
    )
    transform = Transform(kind, tuple(x.shape[1:]), tuple(mean.tolist()), tuple(std.tolist()))
    return x.astype(np.float32, copy=False), transform


def measure(x: np.ndarray, learned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (c,) of every channel, float64, over the rows that a mask (n,) chooses."""
    count = int(learned.sum()) * int(np.prod(x.shape[2:]))
    mean, square = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for part in _parts(x, learned):
        mean += part.sum(1) / count
    for part in _parts(x, learned):
        square += np.square(part - mean[:, None]).sum(1) / count
    return mean, np.sqrt(square)


def _parts(x: np.ndarray, learned: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows after others as float64 (c, k), all places of a channel in a row."""
    size = max(1, AT_ONCE // int(np.prod(x.shape[1:])))
    for first in range(0, len(x), size):
        rows = x[first : first + size][learned[first : first + size]]
        if len(rows):
            yield rows.astype(np.float64).swapaxes(0, 1).reshape(x.shape[1], -1)


def _refuse_values(x: np.ndarray, name: str) -> None:
    """Raise DataError that names every example with a value that is no finite float32 number."""
    if x.dtype.kind != "f":
        return
    size, bad = max(1, AT_ONCE // int(np.prod(x.shape[1:]))), []
    with np.errstate(over="ignore"):
        for first in range(0, len(x), size):
            part = x[first : first + size].astype(np.float32, copy=False)
            bad += [first + int(i) for i in np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(1))]
    if bad:
        raise DataError(
            f"{len(bad)} of {len(x)} examples in {name!r} have values that are not finite in float32; remove or "
            "rescale them",
            [f"example {i}" for i in bad],
            show=20,
        )
