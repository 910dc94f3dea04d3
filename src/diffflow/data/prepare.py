"""Preparation: what a reader read becomes data.

Labels are numbered, a split is taken, and the columns of a table are kept, spread over cells, or left out: by explicit
choice, never silently. Signals, volumes and images of floats are measured channel by channel (channels.py).
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .by_columns import by_columns
from .channels import prepare_channels
from .choices import BY_CONTENT, Columns
from .columns import Column, column_label
from .dataset import Data
from .errors import DataError
from .frames import text_column
from .raw import Raw
from .schema import described
from .table_transform import TableTransform, measure
from .transform import AXES, Transform
from .words import natural

CHUNK = 1024  # rows that are moved together
LEAST_ROWS = 3  # of a table


def holdout(n: int, y: np.ndarray | None, count: int) -> np.ndarray:
    """A fixed random choice of test rows, stratified by label where there are labels.

    Each class gets its share of `count` rounded down, the largest remainders one more; but the last row of a class is
    never taken, and others give more instead, as long as they have some. RandomState(0) is frozen by numpy's
    compatibility policy, so the split is the same everywhere and always.

    Args:
        n: rows.
        y: labels (n,), or None.
        count: how many of the rows are test rows.

    Returns:
        Mask (n,), true for the `count` test rows, or fewer where classes would be emptied.
    """
    random, mask = np.random.RandomState(0), np.zeros(n, bool)
    groups = [np.arange(n)] if y is None else [np.flatnonzero(y == label) for label in np.unique(y)]
    share = np.array([count * len(g) / n for g in groups])
    quota = np.floor(share).astype(int)
    quota[np.argsort(quota - share, kind="stable")[: count - quota.sum()]] += 1
    room = np.array([len(g) - 1 for g in groups])
    if y is not None and (quota > room).any():
        quota = np.minimum(quota, room)
        while quota.sum() < min(count, room.sum()):
            free = np.flatnonzero(quota < room)
            order = free[np.argsort((quota - share)[free], kind="stable")]
            quota[order[: count - quota.sum()]] += 1
    for group, q in zip(groups, quota, strict=True):
        mask[random.permutation(group)[:q]] = True
    return mask


def finish(
    raw: Raw,
    name: str,
    split: str,
    flip: bool,
    test_count: int | None = None,
    columns: Columns = BY_CONTENT,
    like: Transform | None = None,
) -> Data:
    """Make data of what a reader read: number the labels, take the split, choose the columns, measure the statistics.

    Args:
        raw: what the reader read.
        name: of the data.
        split: "train", "test" or "all".
        flip: whether training may mirror the images.
        test_count: test rows where the source has no split of its own; None: a tenth.
        columns: tables: what becomes of columns of text, constant ones and those of few values.
        like: the transform of other data to use instead of one of these data's own statistics; in a table its columns
            are looked for.

    Raises:
        DataError: there are no examples, labels or columns do not fit, or values cannot be used.
    """
    n, notes = len(raw.x), list(raw.notes)
    if not n:
        raise DataError(f"{name!r} holds no examples")
    y, classes = _number_labels(raw, name, notes)
    test = raw.test
    if test is None:
        count = test_count if test_count is not None else max(1, round(n / 10)) if n > 1 else 0
        test = holdout(n, y, count)
        count = int(test.sum())
        if test_count is None and split != "all" and count:
            notes.append(
                f"no split of its own: {n - count} train, {count} test (a fixed random tenth; split='all', "
                "--data.split all, takes all)"
            )
        elif split != "all" and n > 1 and not count:
            notes.append("no split of its own, and none is made: each class has one example only")
    rows = {"train": ~test, "test": test, "all": np.ones(n, bool)}[split]
    x, kind = raw.x, _kind_of(raw, name)
    of_bytes = kind == "image" and x.dtype == np.uint8
    learned = ~test if (~test).any() else test
    if y is not None and classes and (~test).any():
        seen = np.bincount(y[rows if split == "all" else learned], minlength=len(classes))
        if unseen := [c for c, k in zip(classes, seen, strict=True) if not k]:
            names = ", ".join(unseen[:20]) + (", ..." if len(unseen) > 20 else "")
            notes.append(f"no training example is of class {names}: samples of it would be of nothing, and are skipped")
    if like is not None:
        if isinstance(like, TableTransform):
            x = x.astype(np.float64) if kind == like.kind else x
        elif kind == like.kind == "vector":
            x = _columns_of(raw, name, like)
        transform = like
        same = tuple(x.shape[1:]) == like.data_shape and kind == like.kind
        if not same or (kind == "image" and of_bytes != like.of_bytes):
            here = f"{_numbers(of_bytes, kind)} of shape {tuple(x.shape[1:])}"
            raise DataError(
                f"{name!r} holds {here}, and {_numbers(like.of_bytes, like.kind)} of shape {like.data_shape} are asked "
                "for"
            )
        if kind != "vector" and not of_bytes:
            x = prepare_channels(kind, x, name, learned, notes, like)[0]
    elif kind == "vector" and (table := _table(raw, name, columns)) is not None:
        x, transform = table.x, measure(table.schema, table.x[learned])
        notes += [*table.notes, *described(table.schema)]
    elif kind == "vector":
        x, transform = _prepare_table(raw, name, learned, columns.older, notes)
    elif of_bytes:
        transform = Transform(kind, tuple(raw.x.shape[1:]))
    else:
        x, transform = prepare_channels(kind, x, name, learned, notes)
    if kind != "vector" and isinstance(x, np.memmap) and x.dtype == raw.x.dtype and not _together(rows):
        notes.append(
            f"copied from the file into memory, {x[:1].nbytes * int(rows.sum()) / 2**20:,.0f} MiB: test rows that lie "
            "together (test=slice(...)), or split='all', would leave them there"
        )
    return Data(
        as_tensor(_take(x, rows, raw.own)),
        None if y is None else torch.from_numpy(np.ascontiguousarray(y[rows], dtype=np.int64)),
        classes,
        name,
        split,
        transform,
        None,
        flip,
        tuple(notes),
        taken=torch.from_numpy(rows),
    )


def _kind_of(raw: Raw, name: str) -> str:
    """What the examples are. Raises DataError for axes that no kind has, or not the one that was named."""
    kind = raw.kind or next((kind for kind, axes in AXES.items() if axes == raw.x.ndim and kind != "signal"), None)
    if kind is None or AXES.get(kind) != raw.x.ndim:
        raise DataError(f"{name!r} has shape {raw.x.shape}: no {kind or 'kind of data that is known'} has such axes")
    return kind


def _numbers(of_bytes: bool, kind: str) -> str:
    """The kind as messages tell it: images are of bytes or of floats."""
    return f"{kind}s of {'bytes' if of_bytes else 'floats'}" if kind == "image" else f"{kind}s"


def _take(x: np.ndarray, rows: np.ndarray, own: bool = False) -> np.ndarray:
    """The rows (n,) of x that a mask chooses, copied; of a memory map a part of it, where they lie together.

    Most rows of an x that is our own are moved to its front instead, so that it is never in memory twice.
    """
    if own and 2 * rows.sum() > len(rows):
        for first, part in enumerate(np.array_split(np.flatnonzero(rows), range(CHUNK, int(rows.sum()), CHUNK))):
            x[first * CHUNK : first * CHUNK + len(part)] = x[part]
        return x[: int(rows.sum())]
    if isinstance(x, np.memmap) and _together(rows):
        first = int(rows.argmax())
        return x[first : first + int(rows.sum())]
    return x[rows]


def _together(rows: np.ndarray) -> bool:
    """Whether the rows of a mask (n,) are one stretch."""
    return int(np.diff(np.flatnonzero(rows)).max(initial=1)) == 1 and bool(rows.any())


def as_tensor(x: np.ndarray) -> Tensor:
    """A tensor of the same memory: a memory map that is opened for reading stays one, as nobody writes into data."""
    x = np.ascontiguousarray(x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(x)


def _number_labels(raw: Raw, name: str, notes: list[str]) -> tuple[np.ndarray | None, list[str] | None]:
    """The labels as numbers (n,) and the names of the classes; None without labels. A new order is added to `notes`.

    Raises:
        DataError: labels that do not fit the examples or the names.
    """
    if raw.y is None:
        return None, raw.classes
    if len(raw.y) != len(raw.x):
        raise DataError(f"{len(raw.x)} examples but {len(raw.y)} labels in {name!r}")
    if raw.classes is None:
        labels, y = number_labels(raw.y)
        classes = [str(label) for label in labels]
        if classes != [str(k) for k in range(len(classes))]:
            notes.append(f"labels numbered 0..{len(classes) - 1} in the order {', '.join(classes[:20])}")
        return y, classes
    y = raw.y.astype(np.int64)
    if y.min() < 0 or y.max() >= len(raw.classes):
        raise DataError(f"labels of {name!r} run from {y.min()} to {y.max()}, but there are {len(raw.classes)} classes")
    return y, raw.classes


def number_labels(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct labels, numbers rising and names in natural order (2 before 10), and each row's place (n,)."""
    labels, place = np.unique(y, return_inverse=True)
    if labels.dtype.kind != "U":
        return labels, place
    order = np.array(sorted(range(len(labels)), key=lambda k: natural(str(labels[k]))), np.int64)
    return labels[order], np.argsort(order)[place]


def _columns_of(raw: Raw, name: str, like: Transform) -> np.ndarray:
    """The columns that another transform has, by name, or in their order where one side has no names.

    Args:
        raw: what a reader read.
        name: of the data, for messages.
        like: the transform whose columns are looked for; words are numbered as there.

    Returns:
        float32 (n, d).

    Raises:
        DataError: columns that are missing, words that were never seen, values that are not finite in float32.
    """
    names, wanted = _column_names(raw), like.columns or tuple(str(k + 1) for k in range(like.shape[0]))
    missing = [c for c in wanted if c not in names]
    nameless = any(all(c.isdecimal() for c in side) for side in (names, wanted))
    if missing and not (nameless and len(names) == like.shape[0]):
        raise DataError(f"{name!r} lacks columns that the model has", [f"column {column_label(c)}" for c in missing])
    order = list(range(like.shape[0])) if missing else [names.index(c) for c in wanted]
    x = raw.x[:, order].astype(np.float32)
    for k, words in enumerate(like.names or ((),) * len(order)):
        words_here = raw.names.get(order[k], ())
        if bool(words) != bool(words_here):
            raise DataError(f"{name!r}: column {order[k] + 1} must hold {'words' if words else 'numbers'}")
        if unseen := sorted({*words_here} - {*words}):
            raise DataError(f"{name!r} has words in column {order[k] + 1} that the model never saw", unseen, show=20)
        if words:
            x[:, k] = np.asarray([words.index(w) for w in words_here], np.float32)[raw.x[:, order[k]].astype(int)]
    bad = [f"row {i + 1}, column {order[k] + 1}: {x[i, k]:g}" for i, k in np.argwhere(~np.isfinite(x))]
    if bad:
        raise DataError(f"{name!r} has {len(bad)} values that are not finite in float32", bad, show=20)
    return x


def _table(raw: Raw, name: str, columns: Columns) -> Raw | None:
    """Rows as a table whose columns are modelled as what they hold; None for numbers that all have densities.

    Raises DataError for a table with no column to model, or too few rows.
    """
    if raw.schema:
        if not any(column.modelled for column in raw.schema):
            kinds = [f"column {column.label}: {column.kind}" for column in raw.schema]
            raise DataError(f"{name!r} has no columns left to model", kinds, show=20)
        if len(raw.x) < LEAST_ROWS:
            raise DataError(
                f"{name!r} holds {len(raw.x)} rows, which are no distribution: give at least {LEAST_ROWS}, "
                "and hundreds for a model that is worth something"
            )
        return replace(raw, notes=())
    if not columns.automatic or not len(raw.x):
        return None
    x = raw.x.astype(np.float64)
    all_numbers = all(Column(label, x[:, k]).is_continuous for k, label in enumerate(_column_names(raw)))
    if all_numbers and not np.isnan(x).any():
        return None
    cells = [text_column(label, x[:, k].tolist()) for k, label in enumerate(_column_names(raw))]
    return _table(by_columns(name, cells, columns.wishes()), name, columns)


def _column_names(raw: Raw) -> tuple[str, ...]:
    """The names of the columns, their numbers where they have none."""
    return raw.columns or tuple(str(k + 1) for k in range(raw.x.shape[1]))


def _prepare_table(
    raw: Raw, name: str, train: np.ndarray, choose: Columns, notes: list[str]
) -> tuple[np.ndarray, Transform]:
    """The columns that are kept and their transform.

    Args:
        raw: what a reader read: x (n, d).
        name: of the data, for messages.
        train: mask (n,) of the training rows, whose means and standard deviations scale the columns.
        choose: what becomes of columns whose density cannot be asked for as they are.
        notes: what was done is added to these.

    Returns:
        x: float32 (n, kept columns).
        transform: between data units and model units.

    Raises:
        DataError: values that cannot be used, and columns that are refused, each named.
    """
    x = raw.x.astype(np.float64)
    columns = [Column(column, x[:, k], raw.names.get(k, ())) for k, column in enumerate(_column_names(raw))]
    _refuse_values(name, x, columns)
    mean, std = x[train].mean(0), x[train].std(0)
    kinds = [column.kind(mean[k], std[k]) for k, column in enumerate(columns)]
    constant = [k for k, kind in enumerate(kinds) if kind == "constant"]
    discrete = [k for k, kind in enumerate(kinds) if kind == "discrete"]
    if constant and choose.constant == "refuse":
        raise DataError(
            f"{name!r} has columns that never change over its training rows; remove them, or leave them out with "
            "--data.constant drop",
            [f"column {columns[k].label}: always {_constant_value(columns[k], mean[k])}" for k in constant],
        )
    if discrete and choose.discrete == "refuse":
        raise DataError(
            f"{name!r} has columns of few values, which have probabilities and no density. Choose: --data.discrete "
            "levels (each value is spread over the cell that it stands for, and samples are read back from it), drop, "
            "or keep (as if continuous)",
            [
                f"column {columns[k].label}: {len(columns[k].levels)} values, {_list_levels(columns[k].levels)}"
                for k in discrete
            ],
        )
    dropped = {"constant": constant, "of few values": discrete if choose.discrete == "drop" else []}
    keep = [k for k in range(len(columns)) if not any(k in which for which in dropped.values())]
    if not keep:
        raise DataError(f"{name!r} has no columns left to model")
    with_cells = {"words", "discrete"} if choose.discrete == "levels" else {"words"}
    levels = tuple(columns[k].levels if kinds[k] in with_cells else () for k in keep)
    words = tuple(columns[k].words for k in keep)
    for what, which in dropped.items():
        if which:
            notes.append(f"left out: {', '.join(columns[k].name for k in which)} ({what})")
    spread = [f"{columns[k].name} ({len(values)} values)" for k, values in zip(keep, levels, strict=True) if values]
    if spread:
        notes.append(f"spread over cells: {', '.join(spread)}")
    if discrete and choose.discrete == "keep":
        names = ", ".join(columns[k].name for k in discrete)
        notes.append(f"taken as continuous: {names} (few values: their density is unbounded)")
    coarse = [k for k in keep if np.spacing(np.abs(mean[k]).astype(np.float32)) > 1e-3 * std[k]]
    if coarse:
        raise DataError(
            f"{name!r} has columns too far from zero for float32; subtract an offset first",
            [f"column {columns[k].label}: mean {mean[k]:.6g}, std {std[k]:.6g}" for k in coarse],
        )
    return x[:, keep].astype(np.float32), Transform(
        "vector",
        (len(keep),),
        mean=tuple(mean[keep].tolist()),
        std=tuple(std[keep].tolist()),
        levels=levels if any(levels) else (),
        names=words if any(words) else (),
        columns=tuple(columns[k].name for k in keep),
    )


def _refuse_values(name: str, x: np.ndarray, columns: list[Column]) -> None:
    """Raise DataError that names every value of x (n, d) that is no finite float32 number, row by row."""
    places = sorted((i, k) for k, column in enumerate(columns) for i in column.unusable)
    if places:
        raise DataError(
            f"{name!r} has {len(places)} values that are not finite in float32; remove, impute or rescale them",
            [f"row {i + 1}, column {columns[k].label}: {x[i, k]:g}" for i, k in places],
            show=20,
        )


def _constant_value(column: Column, value: float) -> str:
    """The one value of a constant column, as a file has it."""
    return column.words[round(value)] if column.words else format(value, ".6g")


def _list_levels(levels: tuple[float, ...]) -> str:
    """The first six levels."""
    shown = ", ".join(f"{v:g}" for v in levels[:6])
    return shown if len(levels) <= 6 else f"{shown}, ..."
