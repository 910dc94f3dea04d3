"""What is a data set, once it is in memory?

A tensor of events and an invertible map to the units a network likes ("model units", z):

    images   x uint8 (n, c, h, w)       z = x / 127.5 - 1          in [-1, 1]
    vectors  x float32 (n, d)           z = (x - mean) / std       column by column, statistics of the training rows

Discrete values (bytes, and columns of few levels) are spread over the cells that they stand for where a density is
asked of them (cells.py), and read back from the cell that a sample falls into.

Images stay uint8 in memory (a quarter of float32) and are encoded batch by batch. The map is a value of its own,
`Transform`, so that a run can decode its samples when the data are no longer there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .cells import Cells, discrete

if TYPE_CHECKING:
    from ..laws import Law


LARGEST = float(np.finfo(np.float32).max)


class DataError(ValueError):
    """Data that cannot be used. `problems` names every bad file, row or column, not just the first one."""

    def __init__(self, message: str, problems: list[str] | tuple[str, ...] = (), show: int | None = None):
        self.problems = tuple(problems)
        shown = self.problems[:show]
        more = [f"... and {len(self.problems) - len(shown)} more"] if len(shown) < len(self.problems) else []
        super().__init__("\n  ".join([message, *shown, *more]))


@dataclass(frozen=True)
class Transform:
    """The invertible map between the units of the data and the units of the model.

    kind: "image" or "vector". shape: the event shape, (c, h, w) or (d,). mean, std: d numbers each, vectors only.
    For tables, column by column: columns, their names; levels, the rising values that a discrete one takes, () where it
    is continuous; names, the words that its levels 0, 1, ... stand for, () for numbers.
    """

    kind: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    levels: tuple[tuple[float, ...], ...] = ()
    names: tuple[tuple[str, ...], ...] = ()
    columns: tuple[str, ...] = ()

    def __post_init__(self):
        if self.kind not in ("image", "vector"):
            raise DataError(f"kind is 'image' or 'vector', not {self.kind!r}")
        if self.kind == "vector" and not (len(self.mean) == len(self.std) == self.shape[0]):
            raise DataError(
                f"{self.shape[0]} columns need as many means and stds, got {len(self.mean)}, {len(self.std)}"
            )
        for what in ("levels", "names", "columns"):
            given = getattr(self, what)
            if given and (self.kind != "vector" or len(given) != self.shape[0]):
                raise DataError(f"{what} are for the columns of a table, {self.shape[0]} here, got {len(given)}")

    @cached_property
    def _cells(self) -> dict[int, Cells]:
        """The cells of the discrete columns."""
        return {k: Cells(levels) for k, levels in enumerate(self.levels) if levels}

    def encode(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Data units to model units, float32, same shape (n, *shape).

        u      uniform numbers in [0, 1) of that shape: where in their cells discrete values are put (bytes of images,
               columns with levels); None: bytes in the middle, columns on their levels

        Images may be uint8 in [0, 255] or floating point in [0, 1]. Raises ValueError for floats outside, for floats
        where cells are asked for, and for values that are no level of their column.
        """
        if self.kind == "vector":
            x = x.double()
            if self._cells:
                x = torch.stack(
                    [self._column(x[:, k], k, None if u is None else u[:, k]) for k in range(x.shape[1])], 1
                )
            return ((x - self._row(self.mean, x)) / self._row(self.std, x)).float()
        if u is not None:
            if x.dtype != torch.uint8:
                raise ValueError(f"only bytes stand for cells, and these images are {x.dtype}: give uint8")
            return (x.float() + (u - 0.5)) / 127.5 - 1.0
        if x.dtype == torch.uint8:
            return x.float() / 127.5 - 1.0
        if not x.is_floating_point():
            raise ValueError(f"images are uint8 in [0, 255] or floating point in [0, 1], not {x.dtype}")
        if x.numel() and not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(
                f"float images live in [0, 1], these in [{x.min():.4g}, {x.max():.4g}]; use uint8 for 0..255"
            )
        return x.float() * 2.0 - 1.0

    def _column(self, x: Tensor, k: int, u: Tensor | None) -> Tensor:
        """Column k (n,), float64, spread over its cells if it has any."""
        cells = self._cells.get(k)
        if cells is None:
            return x
        wrong = ~cells.known(x)
        if bool(wrong.any()):
            raise ValueError(
                f"column {k + 1} takes the levels {', '.join(f'{v:g}' for v in cells.levels[:8])}..., and here "
                f"{x[wrong][0].item():g}: these are not the data that the transform was made for"
            )
        return cells.spread(x, u)

    def decode(self, z: Tensor) -> Tensor:
        """Model units to what a user reads: images float in [0, 1], clamped (n, c, h, w); vectors in original units,
        discrete columns on their levels."""
        if self.kind == "vector":
            x = z.double() * self._row(self.std, z) + self._row(self.mean, z)
            for k, cells in self._cells.items():
                x[:, k] = cells.snap(x[:, k])
            return x.float()
        return ((z.float() + 1.0) / 2.0).clamp(0.0, 1.0)

    def log_units(self, x: Tensor) -> Tensor:
        """What to add to the log-density of encode(x, u), in model units, for the log-probability of discrete
        coordinates and the log-density of the others in data units: nats (n,) float64 (theory.md 5.3)."""
        if self.kind == "image":
            return torch.full((len(x),), math.prod(self.shape) * math.log(1 / 127.5), dtype=torch.float64)
        total = -self._row(self.std, x).log().sum().expand(len(x))
        for k, cells in self._cells.items():
            total = total + cells.widths(x[:, k]).log()
        return total

    def to_meta(self) -> dict[str, Any]:
        known = {"kind": self.kind, "shape": list(self.shape), "mean": list(self.mean), "std": list(self.std)}
        lists = {"levels": [list(v) for v in self.levels], "names": [list(v) for v in self.names]}
        return known | {k: v for k, v in (lists | {"columns": list(self.columns)}).items() if v}

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Transform:
        """The inverse of to_meta; also accepts the whole of `Data.meta()`."""
        m = meta.get("transform", meta)
        levels, names = (tuple(tuple(v) for v in m.get(k, ())) for k in ("levels", "names"))
        columns = tuple(m.get("columns", ()))
        return cls(m["kind"], tuple(m["shape"]), tuple(m["mean"]), tuple(m["std"]), levels, names, columns)

    @staticmethod
    def _row(numbers: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=like.device)


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """A data set in memory.

    x: uint8 (n, c, h, w) for images, float32 (n, d) for vectors. y: int64 (n,) in 0..len(classes)-1, or None.
    law: the exact Law the points were drawn from (toys), else None. flip: a training batch may mirror left and right.
    notes: what the loader had to decide or convert, one sentence each.
    """

    x: Tensor
    y: Tensor | None
    classes: list[str] | None
    name: str
    split: str
    transform: Transform
    law: Law | None = None
    flip: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if tuple(self.x.shape[1:]) != self.shape:
            raise DataError(f"x has events of shape {tuple(self.x.shape[1:])}, the transform says {self.shape}")
        if not len(self.x):
            raise DataError(
                f"{self.name!r} has no {self.split} examples; split='all' (--data.split all) takes every example"
            )
        if self.y is not None and len(self.y) != len(self.x):
            raise DataError(f"{len(self.x)} examples but {len(self.y)} labels in {self.name!r}")
        if self.flip and self.kind != "image":
            raise DataError(f"flip mirrors images; {self.name!r} holds vectors. Leave flip (--flip) off")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        labels = f", {len(self.classes)} classes" if self.classes else ""
        return f"Data({self.name!r}, {self.split}, {len(self)} x {self.kind} {self.shape}{labels})"

    @property
    def kind(self) -> str:
        return self.transform.kind

    @property
    def shape(self) -> tuple[int, ...]:
        return self.transform.shape

    def encode(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """See Transform.encode."""
        return self.transform.encode(x, u)

    def decode(self, z: Tensor) -> Tensor:
        """See Transform.decode."""
        return self.transform.decode(z)

    def batch(
        self, indices: Tensor, flips: Tensor | None = None, u: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Examples `indices` (b,), encoded, float32 (b, *shape), and their labels; mirrored where flips is true,
        discrete values spread over their cells by u (b, *shape) uniform numbers, where given."""
        x = self.transform.encode(self.x[indices], u)
        if flips is not None:
            if self.kind != "image":
                raise DataError(f"flips mirror images; {self.name!r} holds vectors")
            x = torch.where(flips.view(-1, 1, 1, 1), x.flip(-1), x)
        return x, None if self.y is None else self.y[indices]

    @cached_property
    def _moments(self) -> tuple[float, float]:
        if self.kind == "image":  # exact, from the histogram: no float copy of the whole set
            counts = torch.bincount(self.x.flatten(), minlength=256).double()
            values = torch.arange(256, dtype=torch.float64) / 127.5 - 1.0
            mean = (counts @ values) / counts.sum()
            return float(mean), float(((counts @ (values - mean).square()) / counts.sum()).sqrt())
        z = self.encode(self.x).double()
        return float(z.mean()), float(z.std(correction=0))

    @property
    def mean(self) -> float:
        """Mean over all entries, model units."""
        return self._moments[0]

    @property
    def std(self) -> float:
        """Standard deviation over all entries, model units."""
        return self._moments[1]

    @cached_property
    def spread(self) -> float:
        """Largest principal standard deviation in model units.

        Subspace iteration with 8 vectors on at most 2e7 numbers (evenly spaced examples); the relative error of the
        eigenvalue after k sweeps is of order (lambda_9 / lambda_1)^(2k), k = 20.
        """
        keep = max(2, min(len(self), 20_000_000 // int(np.prod(self.shape))))
        z = self.encode(self.x[torch.linspace(0, len(self) - 1, keep).round().long()]).flatten(1)
        z = z - z.mean(0)
        generator = torch.Generator().manual_seed(0)
        basis = torch.randn(z.shape[1], min(8, z.shape[1]), generator=generator)
        for _ in range(20):
            basis = torch.linalg.qr(z.T @ (z @ basis))[0]
        return float(torch.linalg.matrix_norm(z @ basis, 2) / len(z) ** 0.5)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the content: shape, type and bytes of x and y, whatever files it came from."""
        digest = hashlib.sha256()
        for part in (self.x, self.y):
            if part is not None:
                digest.update(f"{tuple(part.shape)} {part.dtype};".encode())
                digest.update(np.ascontiguousarray(part.numpy()).data)
        return digest.hexdigest()

    def meta(self) -> dict[str, Any]:
        """Everything about the data but the data, JSON-able; `Transform.from_meta` makes encode and decode of it."""
        return {
            "name": self.name,
            "split": self.split,
            "kind": self.kind,
            "shape": list(self.shape),
            "classes": self.classes,
            "count": len(self),
            "flip": self.flip,
            "transform": self.transform.to_meta(),
            "mean": self.mean,
            "std": self.std,
            "spread": self.spread,
            "fingerprint": self.fingerprint,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Raw:
    """What a reader hands over: all it read, and which rows are test rows (None: the source has no split of its own).

    x: uint8 (n, c, h, w) or floating point (n, d). y: integers or strings (n,), or None.
    classes: the names in label order; None: the sorted distinct labels name themselves.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    classes: list[str] | None = None
    test: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    names: Mapping[int, tuple[str, ...]] = field(default_factory=dict)  # the words that the codes of a column stand for


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
    """The columns of `like`, by name where both have names, float32 (n, d), words numbered as there. Raises DataError
    naming columns that are missing, and words that were never seen."""
    order = list(range(raw.x.shape[1]))
    if raw.columns and like.columns:
        if missing := [c for c in like.columns if c not in raw.columns]:
            raise DataError(f"{name!r} lacks columns that the model has", [f"column {name_of(c)}" for c in missing])
        order = [raw.columns.index(c) for c in like.columns]
    x = raw.x[:, order].astype(np.float32)
    for k, words in enumerate(like.names[: len(order)]):
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


def _table(raw: Raw, name: str, train: np.ndarray, choose: Columns, notes: list[str]) -> tuple[np.ndarray, Transform]:
    """The columns that are kept, float32 (n, d), and their transform, with means and stds over the training rows. What
    was done is added to `notes`. Raises DataError naming columns that are refused, and values that cannot be used."""
    x = raw.x.astype(np.float64)
    called = raw.columns or tuple(str(k + 1) for k in range(x.shape[1]))
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
            [f"column {name_of(called[k])}: always {mean[k]:.6g}" for k in flat],
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
        tuple(called[k] for k in keep) if raw.columns else (),
    )


def name_of(column: str) -> str:
    """A column as messages call it: its number, or its name in quotes."""
    return column if column.isdecimal() else repr(column)


def _values(levels: tuple[float, ...]) -> str:
    shown = ", ".join(f"{v:g}" for v in levels[:6])
    return shown if len(levels) <= 6 else f"{shown}, ..."
