"""How does what a reader read become data? Labels are numbered, a split is taken, and the columns of a table are kept,
spread over cells, or left out: by explicit choice, never silently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .dataset import Data, Raw
from .discrete import discrete
from .errors import DataError
from .transform import LARGEST, Transform, name_of


@dataclass(frozen=True)
class Columns:
    """What becomes of the columns of a table whose density cannot be asked for as they are. Nothing is done silently:
    by default each kind is refused, with its columns and the choices named."""

    text: str = "refuse"
    """Columns of words: refuse; drop; levels, to model each word as a level."""
    constant: str = "refuse"
    """Columns that never change: refuse; drop."""
    discrete: str = "refuse"
    """Columns of few values (each met ten times on average): refuse; drop; levels, to spread each value over the cell
    that it stands for, and to read samples back from it; keep, as if they were continuous."""

    def __post_init__(self) -> None:
        choices = {"text": ("refuse", "drop", "levels"), "constant": ("refuse", "drop")}
        for name, known in (choices | {"discrete": ("refuse", "drop", "levels", "keep")}).items():
            if getattr(self, name) not in known:
                raise DataError(f"{name} (--data.{name}) is one of {', '.join(known)}, not {getattr(self, name)!r}")


def holdout(n: int, y: np.ndarray | None, count: int) -> np.ndarray:
    """A fixed random test mask (n,) with `count` true entries, stratified by label when there are labels.

    Each class gets its share of `count` rounded down, the largest remainders one more. RandomState(0) is frozen by
    numpy's compatibility policy, so the split is the same everywhere and always.
    """
    random, mask = np.random.RandomState(0), np.zeros(n, bool)
    groups = [np.arange(n)] if y is None else [np.flatnonzero(y == label) for label in np.unique(y)]
    share = np.array([count * len(g) / n for g in groups])
    quota = np.floor(share).astype(int)
    quota[np.argsort(quota - share, kind="stable")[: count - quota.sum()]] += 1
    for group, q in zip(groups, quota, strict=True):
        mask[random.permutation(group)[:q]] = True
    return mask


def finish(
    raw: Raw,
    name: str,
    split: str,
    flip: bool,
    test_count: int | None = None,
    columns: Columns = Columns(),
    like: Transform | None = None,
) -> Data:
    """A reader's output to Data: labels numbered, split taken, columns chosen, the training rows' statistics attached.
    `like`: the transform of other data instead, whose columns are looked for in a table, and no statistics.

    Without a split of its own a tenth of the examples (or test_count) is the test split.
    """
    notes, y, classes, n = list(raw.notes), None, raw.classes, len(raw.x)
    if not n:
        raise DataError(f"{name!r} holds no examples")
    if raw.y is not None:
        if len(raw.y) != n:
            raise DataError(f"{n} examples but {len(raw.y)} labels in {name!r}")
        if classes is None:
            names, y = np.unique(raw.y, return_inverse=True)
            classes = [str(v) for v in names]
            if classes != [str(k) for k in range(len(classes))]:
                notes.append(f"labels numbered 0..{len(classes) - 1} in the order {', '.join(classes[:20])}")
        else:
            y = raw.y.astype(np.int64)
            if y.min() < 0 or y.max() >= len(classes):
                raise DataError(
                    f"labels of {name!r} run from {y.min()} to {y.max()}, but there are {len(classes)} classes"
                )
    test = raw.test
    if test is None:
        count = test_count if test_count is not None else max(1, round(n / 10)) if n > 1 else 0
        test = holdout(n, y, count)
        if test_count is None:
            notes.append(
                f"no split of its own: {n - count} train, {count} test (a fixed random tenth; split='all', "
                "--data.split all, takes all)"
            )
    rows = {"train": ~test, "test": test, "all": np.ones(n, bool)}[split]
    x, kind = raw.x, "image" if raw.x.ndim == 4 else "vector"
    if like is not None:
        x, transform = (_columns_of(raw, name, like) if kind == like.kind == "vector" else x), like
        if tuple(x.shape[1:]) != like.shape or kind != like.kind:
            raise DataError(
                f"{name!r} holds {kind}s of shape {tuple(x.shape[1:])}, and {like.kind}s of shape {like.shape} are "
                "asked for"
            )
    elif kind == "vector":
        x, transform = _table(raw, name, ~test if (~test).any() else test, columns, notes)
    else:
        transform = Transform(kind, tuple(raw.x.shape[1:]))
    return Data(
        torch.from_numpy(np.ascontiguousarray(x[rows])),
        None if y is None else torch.from_numpy(np.ascontiguousarray(y[rows], dtype=np.int64)),
        classes,
        name,
        split,
        transform,
        None,
        flip,
        tuple(notes),
    )


def _columns_of(raw: Raw, name: str, like: Transform) -> np.ndarray:
    """The columns of `like`, by name, or in their order where one side has no names; float32 (n, d), words numbered as
    there. Raises DataError naming columns that are missing, and words that were never seen."""
    called = _called(raw)
    missing = [c for c in like.columns if c not in called]
    nameless = any(all(c.isdecimal() for c in names) for names in (called, like.columns))
    if missing and not (nameless and len(called) == like.shape[0]):
        raise DataError(f"{name!r} lacks columns that the model has", [f"column {name_of(c)}" for c in missing])
    order = list(range(like.shape[0])) if missing else [called.index(c) for c in like.columns]
    x = raw.x[:, order].astype(np.float32)
    for k, words in enumerate(like.names or ((),) * len(order)):
        mine = raw.names.get(order[k], ())
        if bool(words) != bool(mine):
            raise DataError(f"{name!r}: column {order[k] + 1} must hold {'words' if words else 'numbers'}")
        if strange := sorted({*mine} - {*words}):
            raise DataError(f"{name!r} has words in column {order[k] + 1} that the model never saw", strange, show=20)
        if words:
            x[:, k] = np.asarray([words.index(w) for w in mine], np.float32)[raw.x[:, order[k]].astype(int)]
    bad = [f"row {i + 1}, column {order[k] + 1}: {x[i, k]:g}" for i, k in np.argwhere(~np.isfinite(x))]
    if bad:
        raise DataError(f"{name!r} has {len(bad)} values that are not finite in float32", bad, show=20)
    return x


def _called(raw: Raw) -> tuple[str, ...]:
    """The names of the columns, their numbers where they have none."""
    return raw.columns or tuple(str(k + 1) for k in range(raw.x.shape[1]))


def _table(raw: Raw, name: str, train: np.ndarray, choose: Columns, notes: list[str]) -> tuple[np.ndarray, Transform]:
    """The columns that are kept, float32 (n, d), and their transform, with means and stds over the training rows. What
    was done is added to `notes`. Raises DataError naming columns that are refused, and values that cannot be used."""
    x = raw.x.astype(np.float64)
    called = _called(raw)
    names = [raw.names.get(k, ()) for k in range(x.shape[1])]
    fits = np.abs(x) <= LARGEST  # false for NaN too
    if not fits.all():
        bad = [f"row {i + 1}, column {name_of(called[k])}: {x[i, k]:g}" for i, k in np.argwhere(~fits)]
        raise DataError(
            f"{name!r} has {len(bad)} values that are not finite in float32; remove, impute or rescale them",
            bad,
            show=20,
        )
    mean, std = x[train].mean(0), x[train].std(0)
    flat = [k for k in range(x.shape[1]) if std[k] <= 1e-12 * np.abs(mean[k])]
    if flat and choose.constant == "refuse":
        raise DataError(
            f"{name!r} has columns that never change over its training rows; remove them, or leave them out with "
            "--data.constant drop",
            [
                f"column {name_of(called[k])}: always {names[k][0] if names[k] else format(mean[k], '.6g')}"
                for k in flat
            ],
        )
    steps: dict[int, tuple[float, ...]] = {}
    for k in range(x.shape[1]):
        levels = tuple(map(float, range(len(names[k])))) if names[k] else discrete(x[:, k])
        if levels and k not in flat:
            steps[k] = levels
    found = [k for k in steps if not names[k]]
    if found and choose.discrete == "refuse":
        raise DataError(
            f"{name!r} has columns of few values, which have probabilities and no density. Choose: --data.discrete "
            "levels (each value is spread over the cell that it stands for, and samples are read back from it), drop, "
            "or keep (as if continuous)",
            [f"column {name_of(called[k])}: {len(steps[k])} values, {_values(steps[k])}" for k in found],
        )
    drop = {*flat, *(found if choose.discrete == "drop" else ())}
    keep = [k for k in range(x.shape[1]) if k not in drop]
    if not keep:
        raise DataError(f"{name!r} has no columns left to model")
    cells = [steps.get(k, ()) if names[k] or choose.discrete == "levels" else () for k in range(x.shape[1])]
    for what, which in (("constant", flat), ("of few values", [k for k in found if k in drop])):
        if which:
            notes.append(f"left out: {', '.join(called[k] for k in which)} ({what})")
    if spread := [k for k in keep if cells[k]]:
        notes.append(f"spread over cells: {', '.join(f'{called[k]} ({len(cells[k])} values)' for k in spread)}")
    if choose.discrete == "keep" and found:
        notes.append(
            f"taken as continuous: {', '.join(called[k] for k in found)} (few values: their density is unbounded)"
        )
    x, mean, std = x[:, keep], mean[keep], std[keep]
    coarse = np.flatnonzero(np.spacing(np.abs(mean).astype(np.float32)) > 1e-3 * std)
    if len(coarse):
        bad = [f"column {name_of(called[keep[k]])}: mean {mean[k]:.6g}, std {std[k]:.6g}" for k in coarse]
        raise DataError(f"{name!r} has columns too far from zero for float32; subtract an offset first", bad)
    kept = [cells[k] for k in keep], [names[k] for k in keep]
    return x.astype(np.float32), Transform(
        "vector",
        (len(keep),),
        tuple(mean.tolist()),
        tuple(std.tolist()),
        tuple(kept[0]) if any(kept[0]) else (),
        tuple(kept[1]) if any(kept[1]) else (),
        tuple(called[k] for k in keep),
    )


def _values(levels: tuple[float, ...]) -> str:
    shown = ", ".join(f"{v:g}" for v in levels[:6])
    return shown if len(levels) <= 6 else f"{shown}, ..."
