"""Arrays in .npy and .npz files: vectors by their two axes, images by three or four, volumes by five.

    (n,), (n, d)                                       vectors
    (n, h, w), (n, c, h, w), (n, h, w, c), c = 1, 3, 4 images; four channels are laid over white
    (n, c, d, h, w)                                    volumes of floats
    pixels  uint8; other integers in 0..255; uint16; bool; floats in [0, 1], in [-1, 1], or whole numbers in 0..255

Floats of three axes may be signals (n, c, l) or grey images (n, h, w): the kind must be named, and is never guessed.
Where it is named, floats stay floats, images have any number of channels, and the axis of a single one may be missing:

    signal  (n, c, l), (n, l)        image  (n, c, h, w), (n, h, w)        volume  (n, c, d, h, w), (n, d, h, w)

An .npz names its arrays: x, images, data, samples or arr_0, with labels y, labels, label or arr_1; or x_train, y_train,
x_test, y_test; and `classes` names the labels 0, 1, ... Pickled objects are never read.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np

from ..errors import DataError
from ..raw import Raw
from ..transform import AXES
from .archives import Limits, open_zip
from .form import AS_THEY_ARE, Form
from .pixels import check_levels, to_bytes

FORMS = {
    "vector": "vectors (n, d)",
    "signal": "signals (n, c, l) or (n, l)",
    "image": "images (n, c, h, w) or (n, h, w)",
    "volume": "volumes (n, c, d, h, w) or (n, d, h, w)",
}
X_KEYS, Y_KEYS = ("x", "images", "data", "samples", "arr_0"), ("y", "labels", "label", "arr_1")


def read_arrays(path: Path, kind: str | None = None, form: Form = AS_THEY_ARE) -> Raw:
    """Read an .npy or .npz file.

    Args:
        path: the file; see the head of this module for its forms.
        kind: what an example is, where the axes do not say it: "image", "signal", "volume" or "vector".
        form: what images with transparency are laid over.

    Returns:
        As `to_raw`, with labels, class names and test rows where the file has them.

    Raises:
        DataError: it cannot be read, or its arrays have no known form; every bad example is named.
    """
    try:
        if path.suffix.lower() == ".npy" and not is_zipfile(path):  # an .npz by another name is read as one
            return to_raw(str(path), np.load(path, allow_pickle=False), kind=kind, form=form)
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
        test = np.repeat([False, True], [len(x[0]), len(x[1])])
        return to_raw(str(path), np.concatenate(x), y, classes, test, kind, form)
    key = next((names[k] for k in X_KEYS if k in names), next(iter(arrays)) if len(arrays) == 1 else None)
    if key is None:
        raise DataError(f"{str(path)!r} has the arrays {sorted(arrays)}; name the data one of {', '.join(X_KEYS)}")
    label = next((names[k] for k in Y_KEYS if k in names), None)
    return to_raw(str(path), arrays[key], None if label is None else arrays[label], classes, kind=kind, form=form)


def to_raw(
    source: str,
    x: np.ndarray,
    y: np.ndarray | None = None,
    classes: list[str] | None = None,
    test: np.ndarray | None = None,
    kind: str | None = None,
    form: Form = AS_THEY_ARE,
) -> Raw:
    """Arrays as they are in a file, or in memory, as examples and labels in our form.

    Args:
        source: what messages call them.
        x: examples; see the head of this module.
        y: labels, whole numbers or names (n,) or (n, 1); None without.
        classes: the names of the labels 0, 1, ...; None: the labels name themselves.
        test: mask (n,) of the test rows; None: they have no split of their own.
        kind: what an example is; None: as the axes say.
        form: what images with transparency are laid over.

    Returns:
        Raw with x uint8 (n, c, h, w), float64 (n, d), or floats of another kind as they are.

    Raises:
        DataError: no known form, or not that of the kind; every bad example is named.
    """
    if x.dtype.kind not in "buif":
        raise DataError(f"{source!r} holds {x.dtype}, not numbers")
    if x.ndim not in (1, 2, 3, 4, 5) or not x.size:
        raise DataError(
            f"{source!r} has shape {x.shape}; vectors are (n, d), images (n, h, w), (n, c, h, w) or (n, h, w, c), "
            "volumes (n, c, d, h, w)"
        )
    if kind is None and x.ndim == 3 and x.dtype.kind == "f":
        raise DataError(
            f"{source!r} holds floats of shape {x.shape}: signals (n, channels, length), or grey images (n, height, "
            "width)? Say which, for it is never guessed: --data.kind signal or --data.kind image (kind='signal' in "
            "Python)"
        )
    if kind is not None and x.ndim not in (AXES[kind], AXES[kind] - 1):
        raise DataError(f"{source!r} has shape {x.shape}, which {FORMS[kind]} do not have")
    if y is not None:
        y = _to_labels(source, y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y)
    if kind in ("signal", "volume") or (kind is None and x.ndim == 5):
        return Raw(x if x.ndim == AXES[kind or "volume"] else x[:, None], y, classes, test, kind=kind or "volume")
    if kind == "image" and _stays_float(x):
        x = x if x.ndim == 4 else x[:, None]
        last = f"read as (n, channels, height, width): {x.shape[1]} channels of {x.shape[2]}x{x.shape[3]}"
        return Raw(x, y, classes, test, (last,) if channels_last(x) else (), kind="image")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        rows = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1))
        bad = [f"example {i}" for i in rows]
        raise DataError(
            f"{len(rows)} of {len(x)} examples in {source!r} have NaN or infinite values; remove them", bad, show=20
        )
    if x.ndim <= 2:
        return Raw(x.reshape(len(x), -1).astype(np.float64), y, classes, test)
    notes: list[str] = []
    x = _channels(source, x, kind is not None)
    words = ""
    if x.dtype == np.bool_:
        x = x.astype(np.uint8) * np.uint8(255)
    elif x.dtype != np.uint8:
        (x,), words = to_bytes(source, [x])
        notes += [words] if words else []
    if x.shape[1] == 4 and kind is None:
        alpha = x[:, 3:].astype(np.float32) / 255.0
        over = np.array(form.colour, np.float32)[:, None, None]
        x = np.rint(x[:, :3] * alpha + over * (1.0 - alpha)).astype(np.uint8)
        notes.append(f"four channels read as RGB and transparency, laid over {form.background}")
    notes += check_levels(x, words)
    return Raw(x, y, classes, test, tuple(notes))


def _to_labels(source: str, y: np.ndarray) -> np.ndarray:
    """Labels as int64 or names (n,). Raises DataError for others."""
    if y.ndim != 1 or y.dtype.kind not in "buifU" or (y.dtype.kind == "f" and not (y == np.rint(y)).all()):
        raise DataError(
            f"labels of {source!r} are {y.dtype} {y.shape}; they should be one whole number or name per example "
            "(vectors and other conditions: df.data.of(x).with_cond(c))"
        )
    return y.astype(np.int64) if y.dtype.kind in "buif" else y


def _stays_float(x: np.ndarray) -> bool:
    """Whether images that are asked for by their kind stay floats: those of floats, and of integers beyond 8 bits."""
    return x.dtype.kind == "f" or (
        x.dtype not in (np.uint8, np.uint16, np.bool_) and not (x.min() >= 0 and x.max() <= 255)
    )


def channels_last(x: np.ndarray) -> bool:
    """Whether images (n, h, w, c) can be told from (n, c, h, w)."""
    return x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4)


def _channels(source: str, x: np.ndarray, asked: bool) -> np.ndarray:
    """Images to (n, c, h, w), where the kind is asked for of any number of channels.

    Raises DataError where it is not clear which axis is the channels.
    """
    if x.ndim == 3:
        return x[:, None]
    first, last = x.shape[1] in (1, 3, 4), x.shape[3] in (1, 3, 4)
    if first == last and not asked:
        what = "could be channels first or last" if first else "has no axis of 1, 3 or 4 channels"
        raise DataError(
            f"the shape {x.shape} of {source!r} {what}; save images as (n, channels, height, width), and say "
            "--data.kind image (kind='image' in Python)"
        )
    return x.transpose(0, 3, 1, 2) if channels_last(x) else x
