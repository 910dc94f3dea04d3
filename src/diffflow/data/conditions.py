"""Conditions of data: what is known of each example beside itself, in the units that networks are told.

    labels      whole numbers (n,)                      as they are, -1 for none
    vector      floats (n,), (n, k)                     standardised column by column, statistics of the rows given
    sequence    floats (n, l, k), such as embeddings    divided by their root mean square; a NaN step is padding
    tokens      whole numbers (n, l)                    as they are, -1 for padding
    image       (n, c, h, w), volume (n, c, d, h, w)    bytes to [-1, 1]; floats standardised channel by channel
    signal      floats (n, c, l), where asked for       standardised channel by channel

A `Condition` describes one of them, and a dict of conditions by name describes several. A row that says nothing is -1
in whole numbers and NaN in others (equation/conditions.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..equation.conditions import Cond, expanded, is_null
from ..equation.noise import GOLDEN
from ..registry import suggest
from .errors import DataError

KINDS = ("labels", "vector", "sequence", "tokens", "image", "signal", "volume")
AXES = {"labels": 0, "vector": 1, "sequence": 2, "tokens": 1, "image": 3, "signal": 2, "volume": 4}  # of one row
MAPS = ("image", "signal", "volume")  # what has places, and so may be laid beside an example of the same size


@dataclass(frozen=True)
class Condition:
    """What a network is told of each sample.

    Args:
        kind: "labels", "vector", "sequence", "tokens", "image", "signal" or "volume".
        shape: of one row: () of labels, (k,) of vectors, (l, k), (l,), (c, h, w), (c, l), (c, d, h, w).
        names: labels only: the names of the classes; a class is their place.
        size: tokens only: how many different ones there are.
        mean: subtracted from the columns of vectors or the channels of maps of floats; () for none.
        std: what these are divided by; one number for sequences; () for none.

    Raises:
        DataError: an unknown kind, or a shape that does not fit it.
    """

    kind: str
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"a condition is of kind {', '.join(KINDS)}, not {self.kind!r}")
        if len(self.shape) != AXES[self.kind]:
            raise DataError(f"a condition of kind {self.kind!r} has no rows of shape {self.shape}")

    @classmethod
    def labels(cls, names: int | Sequence[str]) -> Condition:
        """Classes, by their names or their number."""
        return cls("labels", (), tuple(map(str, range(names) if isinstance(names, int) else names)))

    @classmethod
    def of(cls, values: Tensor, name: str = "", kind: str | None = None, names: Sequence[str] = ()) -> Condition:
        """The condition that these rows are examples of.

        Args:
            values: rows (n, ...), one for each example.
            name: what messages call it.
            kind: of the condition; None: by type and axes, as the table above says.
            names: of the classes, where they are labels; default: their numbers.

        Raises:
            DataError: values that are no condition, or do not fit the kind.
        """
        what = f"the condition{f' {name!r}' if name else ''}"
        if values.ndim == 0 or not values.numel():
            raise DataError(f"{what} has shape {tuple(values.shape)}: give a row for each example")
        whole = not values.is_floating_point()
        bytes_ = values.dtype == torch.uint8
        if kind is None:
            kinds = {1: "labels" if whole else "vector", 2: "tokens" if whole else "vector", 3: "sequence"}
            kind = (kinds | {4: "image", 5: "volume"}).get(values.ndim)
        if (
            kind not in KINDS
            or values.is_complex()
            or (values.ndim - 1 != AXES[kind] and (kind, values.ndim) != ("vector", 1))
        ):
            asked = f" of kind {kind!r}" if kind else ""
            raise DataError(f"{what} is {values.dtype} of shape {tuple(values.shape)}: no condition{asked}")
        if kind in ("labels", "tokens"):
            if not whole or int(values.min()) < -1:
                raise DataError(f"{what} must be whole numbers from 0, or -1 for none, and holds {values.min():g}")
            size = int(values.max()) + 1
            if kind == "tokens":
                return cls(kind, tuple(values.shape[1:]), size=size)
            if size < 2:
                raise DataError(
                    f"{what} holds {size} class{'' if size else 'es'}: one class says nothing; leave it out"
                )
            if names and len(names) < size:
                raise DataError(f"{what} has labels up to {size - 1}, and {len(names)} names")
            return cls.labels(names or size)
        if whole and not bytes_:
            values = values.double()
        if values.is_floating_point():
            _refuse_values(values, what)
        if kind == "sequence":
            rms = float(values.double().square().nanmean().sqrt())
            return cls(kind, tuple(values.shape[1:]), std=(rms or 1.0,))
        values = values[:, None] if values.ndim == 1 else values
        if bytes_ and kind in MAPS:
            return cls(kind, tuple(values.shape[1:]))
        channels = values.double().transpose(0, 1).flatten(1)
        mean = channels.nanmean(1)
        std = (channels - mean[:, None]).square().nanmean(1).sqrt()
        if not bool((mean.isnan() | std.isfinite()).all()):
            raise DataError(f"{what} holds numbers too large to be squared: divide it by a constant")
        if constant := [str(k) for k in range(len(std)) if not std[k] > 1e-12 * mean[k].abs()]:
            part = "column" if kind == "vector" else "channel"
            raise DataError(f"{what} never changes in {part} {', '.join(constant[:8])}: it says nothing; leave it out")
        return cls(kind, tuple(values.shape[1:]), mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    @property
    def classes(self) -> int:
        """Number of classes; 0 where there are none."""
        return len(self.names)

    def encode(self, values: Any, name: str = "") -> Tensor:
        """Rows in the units that networks are told.

        Args:
            values: rows (n, *shape) in the units of the data, or a single one (*shape) for all samples.
            name: what messages call the condition.

        Returns:
            int64 or float32 (n, *shape), or (1, *shape); of a single label 0-d.

        Raises:
            ValueError: another shape or type, or a class that there is not.
        """
        what = f"cond{f'[{name!r}]' if name else ''}"
        c = numbers(by_name(values, self.names, what) if self.names else values, what, ValueError)
        if self.kind == "vector" and c.ndim < 2 and c.shape != self.shape == (1,):
            c = c[..., None]
        single, several = tuple(c.shape) == self.shape, tuple(c.shape[1:]) == self.shape and c.ndim > 0
        if not (single or several):
            rows = ", ".join(["n", *map(str, self.shape)])
            raise ValueError(f"{what} has shape {tuple(c.shape)}: give ({rows}), or {self.shape or 'a number'} for all")
        if self.kind in ("labels", "tokens"):
            size = self.classes or self.size
            if c.is_floating_point() or (c.numel() and not -1 <= int(c.min()) <= int(c.max()) < size):
                given = f"of {c.dtype}" if c.is_floating_point() else f"= {c.flatten()[:8].tolist()}"
                classes = f" ({', '.join(self.names[:12])})" if self.names else ""
                what = f"{what} {given} must be integer {self.kind}"
                raise ValueError(f"{what} 0..{size - 1}{classes}, or -1 for none")
            return c.long()
        c = c[None] if single else c
        if not self.mean and not self.std:
            if c.dtype != torch.uint8:
                raise ValueError(f"{what} is {c.dtype}: the model was told pictures of bytes, give uint8")
            return c.float() / 127.5 - 1.0
        _refuse_values(c.double(), what, ValueError)
        shape = (-1, *[1] * (len(self.shape) - 1)) if self.mean else ()
        std = torch.tensor(self.std, dtype=torch.float64, device=c.device).reshape(shape)
        mean = torch.tensor(self.mean or (0.0,), dtype=torch.float64, device=c.device).reshape(shape)
        return ((c.double() - mean) / std).float()

    def null(self, n: int, device: torch.device | None = None) -> Tensor:
        """Rows that say nothing, as many as n."""
        if self.kind in ("labels", "tokens"):
            return torch.full((n, *self.shape), -1, device=device)
        return torch.full((n, *self.shape), torch.nan, device=device)

    def describe(self) -> str:
        """The condition in words, with what it is divided by."""
        if self.kind == "labels":
            return f"{self.classes} classes"
        size = "x".join(map(str, self.shape))
        scale = ", ".join(f"{v:.4g}" for v in self.std[:8]) + (", ..." if len(self.std) > 8 else "")
        units = f", divided by {scale}{' after the mean is taken away' if self.mean else ''}" if scale else ""
        return f"{self.kind} of {size}{units}"

    def to_meta(self) -> dict[str, Any]:
        """The condition as plain values; what is empty is left out."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        return {k: v for k, v in values.items() if v or k in ("kind", "shape")}


Conditions = Condition | Mapping[str, Condition]


def named(conditions: Conditions | None) -> Iterator[tuple[str, Condition]]:
    """The conditions with their names; "" for a single one."""
    if isinstance(conditions, Condition):
        yield "", conditions
    elif conditions is not None:
        yield from conditions.items()


def describe(
    values: Cond,
    kinds: Mapping[str, str] | str | None = None,
    names: Sequence[str] = (),
    classes: Tensor | None = None,
) -> Conditions:
    """What rows of conditions are examples of.

    Args:
        values: a tensor (n, ...), or a dict of them by name.
        kinds: a kind, or kinds by name, where type and axes leave it open.
        names: names of the classes of labels.
        classes: the labels (n,) that these names belong to: others, where they differ, have none.

    Raises:
        DataError: values that are no condition.
    """

    def names_of(leaf: Tensor) -> Sequence[str]:
        other = classes is None or leaf.shape != classes.shape or bool(((leaf != classes) & (leaf != -1)).any())
        return () if other else names

    if isinstance(values, Mapping):
        if not values:
            raise DataError("a dict of conditions is empty: leave the condition out")
        by_name = kinds if isinstance(kinds, Mapping) else {}
        if unknown := sorted(set(by_name) - set(values)):
            raise DataError(f"kinds names {', '.join(unknown)}, and the conditions are {', '.join(values)}")
        return {name: Condition.of(leaf, name, by_name.get(name), names_of(leaf)) for name, leaf in values.items()}
    return Condition.of(values, "", kinds if isinstance(kinds, str) else None, names_of(values))


def encode(conditions: Conditions | None, values: Any, what: str = "this model") -> Cond:
    """Rows of conditions in the units that networks are told.

    Args:
        conditions: what the network is told; None: nothing.
        values: rows, or a single one for all, or a dict of such by name; what a dict leaves out is null; None: all is.
        what: what messages call the model.

    Raises:
        ValueError: a condition where none is told, and one of another name, shape, type or number.
    """
    if values is None:
        return None
    if conditions is None:
        raise ValueError(f"cond was given, but {what} was trained without a condition: leave cond out")
    if isinstance(conditions, Condition):
        if isinstance(values, Mapping):
            raise ValueError(
                f"cond is a dict, and {what} is told one condition ({conditions.describe()}): give it alone"
            )
        return conditions.encode(values)
    if not isinstance(values, Mapping) or not set(values) <= set(conditions):
        found = f"has {', '.join(map(repr, values))}" if isinstance(values, Mapping) else "is no dict"
        raise ValueError(f"cond {found}: {what} is told a dict of {', '.join(map(repr, conditions))}")
    return {k: c.null(1) if values.get(k) is None else c.encode(values[k], k) for k, c in conditions.items()}


def null(conditions: Conditions, n: int, device: torch.device | None = None) -> Cond:
    """Rows of conditions that say nothing, as many as n."""
    if isinstance(conditions, Condition):
        return conditions.null(n, device)
    return {name: c.null(n, device) for name, c in conditions.items()}


def checked(conditions: Conditions, cond: Cond, n: int) -> Cond:
    """An encoded condition with a row for each of n samples. Raises ValueError where it is another condition."""
    for name, c in named(conditions):
        leaf = cond.get(name) if isinstance(cond, Mapping) else cond
        if (
            not isinstance(leaf, Tensor)
            or (leaf.ndim and tuple(leaf.shape[1:]) != c.shape)
            or (name and not isinstance(cond, Mapping))
        ):
            raise ValueError(f"this network is told {name or 'a condition'}: {c.describe()}, as `encode` gives it")
    return expanded(cond, n)


def to_meta(conditions: Conditions) -> dict[str, Any]:
    """Conditions as plain values, JSON-able."""
    if isinstance(conditions, Condition):
        return conditions.to_meta()
    return {"parts": {name: c.to_meta() for name, c in conditions.items()}}


def from_meta(meta: Mapping[str, Any]) -> Conditions | None:
    """What a network is told of data that `Data.meta()` describes; None for nothing."""
    if "cond" not in meta:
        return Condition.labels(meta["classes"]) if meta.get("classes") else None

    def one(values: Mapping[str, Any]) -> Condition:
        lists = {k: tuple(values.get(k, ())) for k in ("shape", "names", "mean", "std")}
        return Condition(values["kind"], size=values.get("size", 0), **lists)

    parts = meta["cond"].get("parts")
    return one(meta["cond"]) if parts is None else {name: one(values) for name, values in parts.items()}


def _refuse_values(values: Tensor, what: str, error: type[ValueError] = DataError) -> None:
    """Refuse infinite numbers, and NaN in a part of a row (of a sequence: of a step); a whole one says nothing."""
    steps = values.shape[1] if values.ndim == 3 else 1
    units = values.reshape(len(values) * steps, -1)
    wrong = units.isinf().any(1) | (units.isnan().any(1) & ~is_null(units))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0]) // steps
        raise error(
            f"{what} has values that are no finite numbers, first in row {row}: a row is whole, or NaN throughout"
        )


def as_tensors(values: Any, n: int, name: str = "") -> Cond:
    """Conditions as tensors with n rows. Raises DataError for another number of rows, or what is no array."""
    if isinstance(values, Mapping):
        if name:
            raise DataError(f"the condition {name!r} is a dict: give one dict of arrays by name")
        names = [str(key) for key in values]
        if "" in names or len(set(names)) < len(names):
            raise DataError(f"conditions are called {', '.join(map(repr, values))}: give each a name of its own")
        return {key: as_tensors(value, n, key) for key, value in zip(names, values.values(), strict=True)}
    what = f"the condition{f' {name!r}' if name else ''}"
    leaf = numbers(values, what)
    if leaf.ndim == 0 or len(leaf) != n:
        raise DataError(f"{what} has shape {tuple(leaf.shape)} for {n} examples: give a row for each")
    leaf = leaf.detach().cpu()
    return leaf if isinstance(values, np.memmap) else leaf.clone()  # the caller's may change afterwards


def in_proportion(counts: Tensor, n: int, first: int = 0) -> Tensor:
    """Classes in given proportions: sample i has the class at the quantile (i + 1)/phi mod 1, phi the golden ratio.

    A class's number is never off by more than a few (it grows like log n), and what sample i is does not depend on how
    many there are.

    Args:
        counts: how often each class is, (k,).
        n: number of samples.
        first: number i of the first sample.

    Returns:
        int64 (n,) in 0..k-1.
    """
    quantile = (GOLDEN * torch.arange(first + 1, first + n + 1, dtype=torch.float64)) % 1.0
    shares = counts.double().cumsum(0) / counts.sum()
    return torch.bucketize(quantile, shares[:-1], right=True)


def by_name(values: Any, names: Sequence[str], what: str) -> Any:
    """Classes that are given by name, one or several, as their numbers; anything else as it is.

    Raises:
        ValueError: a name that there is not.
    """
    words = [values] if isinstance(values, str) else values
    if not isinstance(words, list | tuple | np.ndarray) or not len(words) or not all(isinstance(w, str) for w in words):
        return values
    place = {name: k for k, name in enumerate(names)}
    if strange := [w for w in words if w not in place]:
        raise ValueError(f"{what} = {strange[0]!r}: no such class{suggest(strange[0], names)}")
    found = [place[w] for w in words]
    return found[0] if isinstance(values, str) else found


def numbers(values: Any, what: str, error: type[ValueError] = DataError) -> Tensor:
    """Any array of numbers, or number, as a tensor of a type that torch computes with and numpy knows.

    Args:
        values: tensor, array, list, number, or what numpy makes an array of.
        what: what messages call it.
        error: what is raised for anything else.
    """
    if isinstance(values, Tensor):
        if values.is_complex():
            raise error(f"{what} is {values.dtype}: give real numbers, such as real and imaginary parts as columns")
        wide = values.dtype in (torch.uint16, torch.uint32, torch.uint64)
        return values.long() if wide else values.float() if values.dtype == torch.bfloat16 else values
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as e:
        raise error(f"{what} is no array of numbers ({e})") from None
    if array.dtype.kind not in "buif":
        raise error(f"{what} is no array of numbers, but of {array.dtype}: give numbers (of names their places)")
    if array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.int64)
    elif array.itemsize > 8 or not array.dtype.isnative:
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    return torch.as_tensor(array.copy() if any(step < 0 for step in array.strides) else array)
