"""Data in memory: arrays, tables, and the data sets of other libraries, read into one array.

    tensors, arrays, memory maps                 as in .npy files (arrays.py); (x, y) is a pair
    data frames                                  as .csv files (tables.py), column by column
    data sets with items, iterables, loaders     example by example, once; items are x, (x, y), or dicts
    Hugging Face data sets                       likewise; a table where no column holds examples

No such library is imported: what they have is asked for by its name.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from ...console import progress, to_stderr
from ..by_columns import Wishes, by_columns
from ..columns import Column
from ..errors import DataError
from ..frames import frame_column
from ..raw import Raw
from .arrays import X_KEYS, Y_KEYS, channels_last, to_raw
from .decode import to_pixels
from .images import stack_images
from .tables import column_names, join_columns

EXAMPLES = ("image", "img", "pixel_values", "signal", "volume", *X_KEYS)  # of an item, by name
LABELS = (*Y_KEYS, "target")
MOST_ROWS, MOST_BYTES = 1_000_000, 1 << 30  # read of an iterable whose end is not known
BLOCK = 4096  # examples that are joined at a time


def read_memory(
    x: Any,
    y: Any = None,
    *,
    name: str,
    kind: str | None = None,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    text: str = "refuse",
    wishes: Wishes | None = None,
) -> Raw:
    """Read data that are in memory, or that give themselves item by item.

    Args:
        x: the examples; see the head of this module.
        y: labels, an array (n,) or the name of a column of a data frame; None: those that x brings.
        name: what messages call the data.
        kind: "image", "signal", "volume" or "vector"; None: as the axes say, where they do.
        classes: the names of the labels 0, 1, ...
        limit: read at most so many examples.
        text: what becomes of columns of words (`Columns.text`).
        wishes: tables that are read by columns: what is said of these; None: each is a number with a density.

    Raises:
        DataError: no known form, or not that of the kind; an endless iterable; every bad row is named.
    """
    if y is None and isinstance(x, tuple) and len(x) == 2:
        x, y = x
    if isinstance(x, Mapping):
        if all(hasattr(part, "column_names") for part in x.values()):
            raise DataError(
                f"{name!r} holds the splits {', '.join(map(repr, x))}: give one of them (heldout= takes another)"
            )
        x, y = _split_item(x, name) if y is None else (_split_item(x, name)[0], y)
    names = list(classes) if classes is not None else None
    if _is_frame(x):
        return _read_frame(x, y, name, names, limit, text, wishes)
    if not isinstance(x, tuple) and _is_hugging_face(x):
        label = _key(LABELS, x.column_names)
        names = names or (None if label is None else getattr(x.features[label], "names", None))
        if _key(EXAMPLES, x.column_names) is None:
            columns = {c: x[c] for c in x.column_names if y is not None or c != label}
            return _read_columns(columns, x[label] if y is None and label else y, name, names, limit, text, wishes)
    if isinstance(x, TensorDataset) and len(tensors := list(x.tensors)) <= 2:
        y = tensors[-1] if len(tensors) == 2 and y is None else y
        x = tensors[0]
    notes: tuple[str, ...] = ()
    if not _is_array(x):
        columns = getattr(x, "column_names", None) or ()
        unread = [c for c in columns if c not in _parts(columns)]
        x, labels, notes = _read_items(x, name, limit)
        notes += (f"columns that are not read: {', '.join(unread)}",) if unread else ()
        if y is None:
            y = labels
    x = _array(x)[:limit]
    y = None if y is None else _labels(y)[:limit]
    kind, said = _kind(x, kind, name)
    raw = to_raw(name, x, y, names, None, kind)
    return Raw(raw.x, raw.y, raw.classes, notes=(*notes, *said, *raw.notes), kind=raw.kind)


def _kind(x: np.ndarray, kind: str | None, name: str) -> tuple[str | None, list[str]]:
    """The kind where it is no guess, and what is to be said of it. Raises DataError where it would be one."""
    if kind is None and x.ndim == 3:
        raise DataError(
            f"{name!r} has shape {x.shape}: signals (n, channels, length), or grey images (n, height, width)? Say "
            "which, for it is never guessed: kind='signal' or kind='image'"
        )
    if kind is None and x.ndim == 4 and x.dtype.kind == "f":
        if channels_last(x):
            raise DataError(
                f"{name!r} has shape {x.shape}: images (n, height, width, channels)? Give (n, channels, height, "
                "width), x.transpose(0, 3, 1, 2); or say kind='image' if they are so already"
            )
        low, high = x.min(), x.max()
        bytes_ = ", and values in [0, 1] times 255 (.round().byte()) are" if low >= 0 and high <= 1 else ""
        return "image", [f"images of floats, which stay floats: uint8 (n, c, h, w) are images of bytes{bytes_}"]
    return kind, []


# -- arrays ------------------------------------------------------------------------------------------------------------


def _is_array(x: Any) -> bool:
    """Whether it is one array of all examples."""
    return isinstance(x, torch.Tensor | np.ndarray) or (hasattr(x, "__array__") and not isinstance(x, Image.Image))


def _array(x: Any) -> np.ndarray:
    """An array of the same memory, where it can be."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()
    if isinstance(x, np.ma.MaskedArray):
        raise DataError("masked arrays have values that are none: fill them, or leave their rows out")
    try:
        return x if isinstance(x, np.ndarray) else np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(x).__name__
        raise DataError(f"a {kind} is no array of numbers ({error}): items are x, (x, y) or dicts") from None


def _labels(y: Any) -> np.ndarray:
    """Labels as an array of numbers or of names."""
    y = _array(y) if _is_array(y) else np.asarray([_array(v) if isinstance(v, torch.Tensor) else v for v in y])
    return y.astype(str) if y.dtype == object else y


# -- tables ------------------------------------------------------------------------------------------------------------


def _is_frame(x: Any) -> bool:
    """Whether it is a data frame: named columns of one length."""
    return hasattr(x, "columns") and hasattr(x, "to_numpy") and not callable(x.columns)


def _read_frame(
    x: Any, y: Any, name: str, classes: list[str] | None, limit: int | None, text: str, wishes: Wishes | None = None
) -> Raw:
    """A data frame as a table; y may be the name of the column of labels."""
    names = list(x.columns)
    if isinstance(y, str) and y not in names:
        raise DataError(f"{name!r} has no column {y!r} for the labels; it has {', '.join(map(str, names))}")
    if names == list(range(len(names))):  # it has no header
        spelt = tuple(str(k + 1) for k in range(len(names)))
    else:
        spelt = column_names(name, [str(c) for c in names])
    columns = {label: x[c] for label, c in zip(spelt, names, strict=True) if not (isinstance(y, str) and c == y)}
    return _read_columns(columns, x[y] if isinstance(y, str) else y, name, classes, limit, text, wishes)


def _read_columns(
    columns: Mapping[str, Any],
    y: Any,
    name: str,
    classes: list[str] | None,
    limit: int | None,
    text: str,
    wishes: Wishes | None = None,
) -> Raw:
    """Columns by name as a table, with labels or None."""
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(f"{name!r} holds no rows")
    y = None if y is None else to_raw(name, np.zeros(1), _labels(y)[:limit]).y
    if wishes is not None:
        whole = {c: v[:limit] for c, v in columns.items()}
        raw = by_columns(name, [frame_column(c, v) for c, v in whole.items()], wishes)
        return replace(raw, y=y, classes=classes)
    values = {c: np.asarray(v)[:limit] for c, v in columns.items()}
    kept = list(values.values())
    table = [_column(c, v) for c, v in values.items()]
    raw = join_columns(name, table, lambda i, k: (i + 1, str(kept[k][i])), text)
    return Raw(raw.x, y, classes, notes=raw.notes, columns=raw.columns, names=raw.names)


def _column(name: str, values: np.ndarray) -> Column:
    """A column of a data frame as a file would have it: numbers, or words."""
    if values.dtype.kind in "iu" or values.dtype == np.float64:
        return Column(name, values.astype(np.float64))
    if values.dtype.kind == "f":  # 0.1 of float32 is written as 0.1
        return Column(name, values.astype(str).astype(np.float64))
    return Column.parse(name, ["" if str(v) in ("None", "nan", "NaT", "<NA>") else str(v).strip() for v in values])


# -- items -------------------------------------------------------------------------------------------------------------


def _is_hugging_face(x: Any) -> bool:
    """Whether it is a data set of the library `datasets`."""
    return hasattr(x, "features") and hasattr(x, "column_names") and bool(x.column_names)


def _key(known: Sequence[str], names: Iterable[str]) -> str | None:
    """The first of the known names that is there, in any case."""
    found = {str(n).lower(): n for n in names}
    return next((found[k] for k in known if k in found), None)


def _parts(names: Sequence[str]) -> tuple[str | None, str | None]:
    """Which of the names hold the example and the label."""
    return _key(EXAMPLES, names), _key(LABELS, names)


def _split_item(item: Any, name: str, pairs: type | tuple[type, ...] = tuple) -> tuple[Any, Any]:
    """The example and the label, or None, of an item x, (x, y) or {"image": x, "label": y}."""
    if isinstance(item, Mapping):
        key, label = _parts(list(item))
        if key is None:
            raise DataError(
                f"items of {name!r} have the parts {', '.join(map(repr, item))}: call the example one of "
                f"{', '.join(dict.fromkeys(EXAMPLES))}"
            )
        return item[key], None if label is None else item[label]
    if isinstance(item, pairs):
        if len(item) != 2:
            raise DataError(f"items of {name!r} have {len(item)} parts: give x, (x, y), or a dict with 'x' and 'y'")
        return item[0], item[1]
    return item, None


def _examples(source: Any, name: str) -> tuple[Iterator[tuple[Any, Any]], int | None, list[str]]:
    """Its examples with their labels, how many there are (None: unknown), and what is to be said."""
    notes: list[str] = []
    if isinstance(source, DataLoader):
        plain = isinstance(source.sampler, SequentialSampler | RandomSampler) and not (
            isinstance(source.sampler, RandomSampler) and source.sampler.replacement
        )
        if plain and source.collate_fn is default_collate and not isinstance(source.dataset, IterableDataset):
            notes.append("the loader's data set is read in its own order: batches are ours")
            source = source.dataset
        else:
            return _unbatched(source, name), None, notes
    if isinstance(source, IterableDataset) or not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        if not hasattr(source, "__iter__"):
            raise DataError(
                f"{name!r} is of type {type(source).__name__}: give an array, a data frame, a data set with items, or "
                "an iterable of examples (a file: df.data.load)"
            )
        return (_split_item(item, name) for item in source), None, notes
    return (_split_item(source[i], name) for i in range(len(source))), len(source), notes


def _unbatched(loader: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """The examples of a loader's batches."""
    for batch in loader:
        x, y = _split_item(batch, name, (tuple, list))
        if loader.batch_size is None and loader.batch_sampler is None:
            yield x, y
        else:
            yield from zip(x, [None] * len(x) if y is None else y, strict=True)


def _read_items(source: Any, name: str, limit: int | None) -> tuple[np.ndarray, list[Any] | None, tuple[str, ...]]:
    """The examples, read once: x (n, ...), labels or None, and notes. Raises DataError."""
    if isinstance(source, str | bytes) or hasattr(source, "__fspath__"):
        raise DataError(f"{str(source)!r} is the name of a file or a toy: df.data.load reads these")
    examples, count, notes = _examples(source, name)
    total = limit if count is None else min(count, limit or count)
    blocks: list[np.ndarray] = []
    block: list[np.ndarray] = []
    labels: list[Any] = []
    sizes: Counter[tuple[int, ...]] = Counter()
    converted: Counter[str] = Counter()
    first: np.ndarray | None = None
    pictures = False
    read = size = 0
    with progress(f"reading {name}", to_stderr(), "examples") as bar:
        for value, label in itertools.islice(examples, limit):
            if isinstance(value, Image.Image):
                x, conversions = to_pixels(value)
                sizes[x.shape[:2]] += 1
                converted.update(conversions)
                pictures = True
            else:
                x = _array(value)
            first = x if first is None else first
            if pictures and not isinstance(value, Image.Image):
                raise DataError(f"{name!r} mixes pictures with arrays: example {read} is a {type(value).__name__}")
            if not pictures and x.shape != first.shape:
                raise DataError(
                    f"{name!r}: example {read} has shape {x.shape}, and the first one {first.shape}: bring them to one "
                    "shape"
                )
            if (label is None) != (not labels) and read:
                raise DataError(f"{name!r}: some examples have labels, and example {read} is otherwise")
            labels += [] if label is None else [label]
            block.append(x)
            read, size = read + 1, size + x.nbytes
            if count is None and limit is None and (read > MOST_ROWS or size > MOST_BYTES):
                raise DataError(
                    f"{name!r} does not say how many examples it has, and goes on after {read:,} of them "
                    f"({size / 2**20:,.0f} MiB): it may be endless. Say how many to read, such as limit={read // 2}"
                )
            if len(block) == BLOCK and not pictures:
                blocks, block = [*blocks, np.stack(block)], []
            if read % 64 == 0:
                bar(read, total or 0)
    if not read:
        raise DataError(f"{name!r} gave no examples")
    given = labels or None
    if pictures:
        x, said = stack_images(name, block, sizes, converted)
        return x, given, (*notes, *said)
    return np.concatenate([*blocks, *([np.stack(block)] if block else [])]), given, tuple(notes)
