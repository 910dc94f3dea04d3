"""Arrays in .npy and .npz files: vectors by their two axes, images by three or four.

    (n,), (n, d)                                       vectors
    (n, h, w), (n, c, h, w), (n, h, w, c), c = 1, 3, 4 images; four channels are laid over white
    pixels  uint8; other integers in 0..255; uint16; bool; floats in [0, 1], in [-1, 1], or whole numbers in 0..255

An .npz names its arrays: x, images, data, samples or arr_0, with labels y, labels, label or arr_1; or x_train, y_train,
x_test, y_test; and `classes` names the labels 0, 1, ... Pickled objects are never read.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np

from ..dataset import Raw
from ..errors import DataError
from .archives import Limits, open_zip

X_KEYS, Y_KEYS = ("x", "images", "data", "samples", "arr_0"), ("y", "labels", "label", "arr_1")


def read_arrays(path: Path) -> Raw:
    """Read an .npy or .npz file.

    Args:
        path: the file; see the head of this module for its forms.

    Returns:
        Raw with x uint8 (n, c, h, w) or float64 (n, d), and labels, class names and test rows where the file has them.

    Raises:
        DataError: it cannot be read, or its arrays have no known form; every bad example is named.
    """
    try:
        if path.suffix.lower() == ".npy" and not is_zipfile(path):  # an .npz by another name is read as one
            return _to_raw(path, np.load(path, allow_pickle=False), None, None, None)
        with open_zip(path, Limits(ratio=np.inf)), np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in file.files}
    except DataError:
        raise
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise DataError(f"{str(path)!r} cannot be read as arrays of numbers ({error})") from None
    names = {k.lower(): k for k in arrays}
    classes = [str(c) for c in arrays[names["classes"]]] if "classes" in names else None
    if {"x_train", "x_test"} <= names.keys():
        x = [arrays[names[k]] for k in ("x_train", "x_test")]
        if x[0].shape[1:] != x[1].shape[1:] or x[0].dtype != x[1].dtype:
            raise DataError(
                f"x_train and x_test of {str(path)!r} differ: {x[0].dtype} {x[0].shape}, {x[1].dtype} {x[1].shape}"
            )
        labelled = {"y_train", "y_test"} <= names.keys()
        y = np.concatenate([arrays[names[k]] for k in ("y_train", "y_test")]) if labelled else None
        return _to_raw(path, np.concatenate(x), y, classes, np.repeat([False, True], [len(x[0]), len(x[1])]))
    key = next((names[k] for k in X_KEYS if k in names), next(iter(arrays)) if len(arrays) == 1 else None)
    if key is None:
        raise DataError(f"{str(path)!r} has the arrays {sorted(arrays)}; name the data one of {', '.join(X_KEYS)}")
    label = next((names[k] for k in Y_KEYS if k in names), None)
    return _to_raw(path, arrays[key], None if label is None else arrays[label], classes, None)


def _to_raw(path: Path, x: np.ndarray, y: np.ndarray | None, classes: list[str] | None, test: np.ndarray | None) -> Raw:
    """Arrays as they are in a file to examples and labels in our form. Raises DataError."""
    source = str(path)
    if x.dtype.kind not in "buif":
        raise DataError(f"{source!r} holds {x.dtype}, not numbers")
    if x.ndim not in (1, 2, 3, 4) or not x.size:
        raise DataError(
            f"{source!r} has shape {x.shape}; vectors are (n, d), images (n, h, w), (n, c, h, w) or (n, h, w, c)"
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        rows = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1))
        bad = [f"example {i}" for i in rows]
        raise DataError(
            f"{len(rows)} of {len(x)} examples in {source!r} have NaN or infinite values; remove them", bad, show=20
        )
    if y is not None:
        y = _to_labels(source, y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y)
    if x.ndim <= 2:
        return Raw(x.reshape(len(x), -1).astype(np.float64), y, classes, test)
    notes: list[str] = []
    x = _pixels(source, _channels(source, x), notes)
    if x.shape[1] == 4:
        alpha = x[:, 3:].astype(np.float32) / 255.0
        x = np.rint(x[:, :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
        notes.append("four channels read as RGB and transparency, laid over white")
    return Raw(x, y, classes, test, tuple(notes))


def _to_labels(source: str, y: np.ndarray) -> np.ndarray:
    """Labels as int64 or names (n,). Raises DataError for others."""
    if y.ndim != 1 or y.dtype.kind not in "buifU" or (y.dtype.kind == "f" and not (y == np.rint(y)).all()):
        raise DataError(
            f"labels of {source!r} are {y.dtype} {y.shape}; they should be one whole number or name per example"
        )
    return y.astype(np.int64) if y.dtype.kind in "buif" else y


def _channels(source: str, x: np.ndarray) -> np.ndarray:
    """Images to (n, c, h, w). Raises DataError where it is not clear which axis is the channels."""
    if x.ndim == 3:
        return x[:, None]
    first, last = x.shape[1] in (1, 3, 4), x.shape[3] in (1, 3, 4)
    if first == last:
        what = "could be channels first or last" if first else "has no axis of 1, 3 or 4 channels"
        raise DataError(f"the shape {x.shape} of {source!r} {what}; save images as (n, channels, height, width)")
    return x if first else x.transpose(0, 3, 1, 2)


def _pixels(source: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    """Pixels to uint8 by the range of their values. Raises DataError for a range that fits no convention."""
    low, high = x.min(), x.max()
    if x.dtype == np.uint8:
        return x
    if x.dtype == np.bool_:
        return x.astype(np.uint8) * np.uint8(255)
    if x.dtype.kind in "ui":
        if low >= 0 and high <= 255:
            return x.astype(np.uint8)
        if x.dtype == np.uint16:
            notes.append("16-bit pixels scaled to 8")
            return ((x.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    elif low >= 0 and high <= 1:
        notes.append("floats in [0, 1] stored as 8 bits")
        return np.rint(x * 255.0).astype(np.uint8)
    elif low >= -1 and high <= 1:
        notes.append("floats in [-1, 1] stored as 8 bits")
        return np.rint((x + 1.0) * 127.5).astype(np.uint8)
    elif low >= 0 and high <= 255 and (x == np.rint(x)).all():
        return x.astype(np.uint8)
    raise DataError(
        f"pixels of {source!r} ({x.dtype}) run from {low:.6g} to {high:.6g}; save them as uint8, or floats in [0, 1]"
    )
