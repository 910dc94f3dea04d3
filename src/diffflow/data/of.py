"""`df.data.of`: data that are in memory, in any usual form, as `Data`.

    df.data.of(x)                                    the same rows as from a .npy file, to the bit
    df.data.of(x, y, kind="signal")                  floats (n, c, l) with classes
    df.data.of(frame, y="species")                   a data frame, as from a .csv file
    df.data.of(torchvision_set, limit=10_000)        any data set with items, loader or iterable
    df.data.of(x, test=range(9000, 10_000))          your own test rows, which evaluations use
    df.data.of(x, heldout=x_test)                    the same from two arrays
    df.data.of(x, augment=lambda x: x.roll(1, -1))   changed on the fly, in training batches only

Every form of the same rows gives the same training, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from .by_columns import Wishes
from .choices import BY_CONTENT, Columns
from .dataset import Data
from .errors import DataError
from .load import SPLITS
from .prepare import finish, number_labels
from .raw import Raw
from .readers.memory import read_memory
from .table_transform import TableTransform
from .transform import AXES, Transform


def of(
    x: Any,
    y: Any = None,
    *,
    kind: str | None = None,
    name: str = "data",
    classes: Sequence[str] | None = None,
    split: str = "train",
    test: Any = None,
    heldout: Any = None,
    flip: bool = False,
    augment: Callable[[Tensor], Tensor] | None = None,
    limit: int | None = None,
    columns: Columns = BY_CONTENT,
    like: Transform | None = None,
    cond: Any = None,
) -> Data:
    """Data of what is in memory.

    As from a file, a fixed random tenth is held out of training, unless you say which rows are (`test`, `heldout`), or
    that none are (split="all").

    Args:
        x: the examples: a tensor, an array, a memory map (which is not copied where its rows lie together, as with
            split="all"), a data frame (its index is not read), a data set of torch or Hugging Face, a DataLoader, or
            any iterable, read once; items are x, (x, y) or dicts. Examples in data frames are rows of a table.
        y: labels, whole numbers or names (n,), or the name of a data frame's column; None: those that x brings.
        kind: "image" (n, c, h, w), "signal" (n, c, l), "volume" (n, c, d, h, w) or "vector" (n, d); None: as the axes
            say. Three axes say nothing: name the kind.
        name: what messages and the run call the data.
        classes: the names of the labels 0, 1, ...
        split: "train", "test" or "all": which part of them.
        test: your own test rows: a mask (n,), row numbers, or a slice.
        heldout: or the test rows themselves, x or (x, y) in any of these forms.
        flip: let training mirror images left and right.
        augment: a function of a training batch in data units, (b, *shape) to the same shape and type, which draws from
            torch's generator: it is seeded for every batch, so that a resumed run is an uninterrupted one.
        limit: read at most so many examples: an endless iterable needs it.
        columns: tables: what columns are, where their values do not say it as you want it.
        like: take the units of other data (`Data.transform`, `Run.transform`), for instance to score rows.
        cond: what each example is conditioned on, a row for each, or a dict of such (`Data.with_cond`).

    Returns:
        The data, with the held-out part in `heldout` where they are the training rows.

    Raises:
        DataError: what cannot be used, with every bad row or column and what to do.
    """
    for what, value, known in (("split", split, SPLITS), ("kind", kind, (None, *AXES))):
        if value not in known:
            raise DataError(f"{what} is one of {', '.join(k for k in known if k)}, not {value!r}")
    if limit is not None and limit < 1:
        raise DataError(f"limit = {limit} must be at least 1")
    if isinstance(x, Data):
        raise DataError(f"{x.name!r} is a Data already")
    plain = like is not None and not isinstance(like, TableTransform)
    text = "levels" if like is not None else columns.older.text  # words are looked up there
    wishes = columns.wishes(like) if columns.automatic and not plain else None
    raw = read_memory(x, y, name=name, kind=kind, classes=classes, limit=limit, text=text, wishes=wishes)
    if heldout is None:
        raw = raw if test is None else replace(raw, test=_mask(test, len(raw.x)))
        data = _finish(raw, name, split, flip, kind, columns, like)
        aside = _finish(raw, name, "test", False, kind, columns, data.transform) if _has_test(raw, split) else None
        data = replace(data, heldout=aside, augment=augment)
        return data if cond is None else data.with_cond(cond)
    if test is not None or split != "train":
        raise DataError("heldout= says which rows training does not see: leave out test= and split=")
    other = heldout if isinstance(heldout, tuple) and len(heldout) == 2 else (heldout, None)
    if wishes is not None and raw.schema:
        wishes = Wishes(like=raw.schema)
    aside = f"heldout of {name}"
    held = read_memory(*other, name=aside, kind=kind, classes=classes, limit=limit, text=text, wishes=wishes)
    if raw.columns is None and held.columns is None and held.x.shape[1:] != raw.x.shape[1:]:
        shapes = [tuple(r.x.shape[1:]) for r in (held, raw)]
        raise DataError(f"heldout holds examples of shape {shapes[0]}, and the training rows are of shape {shapes[1]}")
    raw, held = _number_together(raw, held)
    data = _finish(replace(raw, test=np.zeros(len(raw.x), bool)), name, "train", flip, kind, columns, like)
    held = replace(held, test=np.ones(len(held.x), bool))
    aside = _finish(held, name, "test", False, kind, columns, data.transform)
    data = replace(data, heldout=aside, augment=augment)
    return data if cond is None else data.with_cond(cond)


def _finish(
    raw: Raw, name: str, split: str, flip: bool, kind: str | None, columns: Columns, like: Transform | None
) -> Data:
    """`finish`, for data of the kind that was asked for."""
    if kind == "vector" or raw.columns is None or kind is None:
        return finish(raw, name, split, flip, columns=columns, like=like)
    raise DataError(f"{name!r} is a table, and {kind}s are asked for: leave kind={kind!r} out")


def _has_test(raw: Raw, split: str) -> bool:
    """Whether training rows leave others over."""
    return split == "train" and (len(raw.x) > 1 if raw.test is None else bool(raw.test.any()))


def _mask(test: Any, n: int) -> np.ndarray:
    """Mask (n,) of the test rows. Raises DataError for rows that are not there."""
    mask = np.zeros(n, bool)
    rows = test if isinstance(test, slice) else np.asarray(test, dtype=None if np.size(test) else np.int64)
    if isinstance(rows, np.ndarray) and (
        rows.ndim != 1 or (rows.dtype != bool and len(np.unique(rows)) < len(rows))
    ):  # a mask of 0 and 1, or a number of rows, is not guessed at
        what = f"of shape {rows.shape}" if rows.ndim != 1 else "that name rows twice"
        raise DataError(
            f"test = numbers {what}: give a mask (n,) of True and False, the numbers of the rows, or a slice"
        )
    if isinstance(rows, np.ndarray) and rows.dtype == bool and rows.shape != (n,):
        raise DataError(f"test = a mask of shape {rows.shape}, and there are {n} rows")
    try:
        mask[rows] = True
    except IndexError as error:
        raise DataError(
            f"test names rows that are not there ({error}): give a mask (n,), row numbers, or a slice"
        ) from None
    return mask


def _number_together(raw: Raw, held: Raw) -> tuple[Raw, Raw]:
    """Training rows and held-out rows with the same classes. Raises DataError for classes that are not learned."""
    if raw.y is None or held.y is None or raw.classes is not None:
        return raw, held
    labels, y = number_labels(raw.y)
    strange = np.setdiff1d(held.y, labels)
    if len(strange):
        raise DataError("heldout has labels that the training rows do not have", [str(v) for v in strange], show=20)
    names = [str(v) for v in labels]
    order = np.argsort(labels)
    held_y = order[np.searchsorted(labels, held.y, sorter=order)]
    return replace(raw, y=y, classes=names), replace(held, y=held_y, classes=names)
