"""What is a data set, once it is in memory?

A tensor of events and an invertible map to the units a network likes ("model units", z):

    images   x uint8 (n, c, h, w)       z = x / 127.5 - 1          in [-1, 1]
    vectors  x float32 (n, d)           z = (x - mean) / std       column by column, statistics of the training rows

Images stay uint8 in memory (a quarter of float32) and are encoded batch by batch. The map is a value of its own,
`Transform`, so that a run can decode its samples when the data are no longer there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

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
    """

    kind: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self):
        if self.kind not in ("image", "vector"):
            raise DataError(f"kind is 'image' or 'vector', not {self.kind!r}")
        if self.kind == "vector" and not (len(self.mean) == len(self.std) == self.shape[0]):
            raise DataError(
                f"{self.shape[0]} columns need as many means and stds, got {len(self.mean)}, {len(self.std)}"
            )

    def encode(self, x: Tensor) -> Tensor:
        """Data units to model units, float32, same shape (n, *shape).

        Images may be uint8 in [0, 255] or floating point in [0, 1]; floats outside raise ValueError.
        """
        if self.kind == "vector":
            return ((x.double() - self._row(self.mean, x)) / self._row(self.std, x)).float()
        if x.dtype == torch.uint8:
            return x.float() / 127.5 - 1.0
        if not x.is_floating_point():
            raise ValueError(f"images are uint8 in [0, 255] or floating point in [0, 1], not {x.dtype}")
        if x.numel() and not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(
                f"float images live in [0, 1], these in [{x.min():.4g}, {x.max():.4g}]; use uint8 for 0..255"
            )
        return x.float() * 2.0 - 1.0

    def decode(self, z: Tensor) -> Tensor:
        """Model units to what a user reads: images float in [0, 1], clamped (n, c, h, w); vectors in original units."""
        if self.kind == "vector":
            return (z.double() * self._row(self.std, z) + self._row(self.mean, z)).float()
        return ((z.float() + 1.0) / 2.0).clamp(0.0, 1.0)

    def to_meta(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": list(self.shape), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Transform:
        """The inverse of to_meta; also accepts the whole of `Data.meta()`."""
        m = meta.get("transform", meta)
        return cls(m["kind"], tuple(m["shape"]), tuple(m["mean"]), tuple(m["std"]))

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

    def encode(self, x: Tensor) -> Tensor:
        """See Transform.encode."""
        return self.transform.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """See Transform.decode."""
        return self.transform.decode(z)

    def batch(self, indices: Tensor, flips: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Examples `indices` (b,), encoded, float32 (b, *shape), and their labels; mirrored where flips is true."""
        x = self.encode(self.x[indices])
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


def finish(raw: Raw, name: str, split: str, flip: bool, test_count: int | None = None) -> Data:
    """A reader's output to Data: labels numbered, split taken, statistics of the training rows attached.

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
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    if kind == "vector":
        mean, std = _statistics(raw, name, ~test if (~test).any() else test)
        x = x.astype(np.float32)
    return Data(
        torch.from_numpy(np.ascontiguousarray(x[rows])),
        None if y is None else torch.from_numpy(np.ascontiguousarray(y[rows], dtype=np.int64)),
        classes,
        name,
        split,
        Transform(kind, tuple(raw.x.shape[1:]), mean, std),
        None,
        flip,
        tuple(notes),
    )


def _statistics(raw: Raw, name: str, train: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each column over the training rows, float64. Columns that cannot be standardised are refused."""
    x = raw.x.astype(np.float64)
    columns = raw.columns or tuple(str(k + 1) for k in range(x.shape[1]))
    fits = np.abs(x) <= LARGEST  # false for NaN too
    if not fits.all():
        bad = [f"row {i + 1}, column {columns[k]}: {x[i, k]:g}" for i, k in np.argwhere(~fits)]
        raise DataError(
            f"{name!r} has {len(bad)} values that are not finite in float32; remove, impute or rescale them",
            bad,
            show=20,
        )
    mean, std = x[train].mean(0), x[train].std(0)
    flat = [f"column {columns[k]}: always {mean[k]:.6g}" for k in np.flatnonzero(std <= 1e-12 * np.abs(mean))]
    if flat:
        raise DataError(f"{name!r} has columns that never change over its training rows; remove them", flat)
    coarse = np.flatnonzero(np.spacing(np.abs(mean).astype(np.float32)) > 1e-3 * std)
    if len(coarse):
        bad = [f"column {columns[k]}: mean {mean[k]:.6g}, std {std[k]:.6g}" for k in coarse]
        raise DataError(f"{name!r} has columns too far from zero for float32; subtract an offset first", bad)
    return tuple(mean.tolist()), tuple(std.tolist())
