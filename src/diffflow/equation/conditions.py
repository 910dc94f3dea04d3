"""Conditions: what a network is told about each sample beside the sample itself, as trees of tensors.

A condition is a tensor with a row for each sample, or a dict of conditions by name: labels int64 (n,), vectors (n, k),
sequences (n, l, k), pictures (n, c, h, w). One row stands for all samples. A row that says nothing ("null") holds -1
where numbers are whole and NaN where they are not: networks learn such rows as "no condition", which
classifier-free guidance compares with. None is no condition for any sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Cond = Any  # Tensor | Mapping[str, Cond] | None


def leaves(cond: Cond, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a condition with their dotted names; "" where the condition is a tensor itself."""
    if isinstance(cond, Mapping):
        for key, value in cond.items():
            yield from leaves(value, f"{name}.{key}" if name else str(key))
    elif cond is not None:
        yield name, cond


def apply(function: Callable[[Tensor], Tensor], cond: Cond) -> Cond:
    """The condition with a function applied to each of its tensors."""
    if isinstance(cond, Mapping):
        return {key: apply(function, value) for key, value in cond.items()}
    return None if cond is None else function(cond)


def count(cond: Cond) -> int | None:
    """Number of rows of a condition; None without any.

    Raises:
        ValueError: tensors without rows, or of different numbers of them (one row stands for all).
    """
    sizes = {name: len(leaf) if leaf.ndim else 1 for name, leaf in leaves(cond)}
    several = {size for size in sizes.values() if size != 1}
    if len(several) > 1:
        raise ValueError(
            f"a condition has a row for each sample, got {', '.join(f'{k}: {n}' for k, n in sizes.items())}"
        )
    return max(several, default=1) if sizes else None


def rows(cond: Cond, index: Tensor | slice) -> Cond:
    """Some rows of a condition, by their numbers or a slice; a single row stands for all and stays."""
    return apply(lambda leaf: leaf if leaf.ndim == 0 or len(leaf) == 1 else leaf[index], cond)


def expanded(cond: Cond, n: int) -> Cond:
    """A condition with a row for each of n samples. Raises ValueError for another number of rows than 1 and n."""
    present = count(cond)
    if present not in (None, 1, n):
        raise ValueError(f"{present} conditions for {n} particles: give one per particle, or a single one for all")
    return apply(lambda leaf: leaf.expand(n, *leaf.shape[1:]) if leaf.ndim else leaf.expand(n), cond)


def is_single(cond: Cond) -> bool:
    """Whether a condition is one for all samples: None, a number, or single rows."""
    return all(not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf) == 1 for _, leaf in leaves(cond))


def repeated(cond: Cond, k: int) -> Cond:
    """All rows of a condition k times, one time after the other."""
    return apply(lambda leaf: leaf.repeat(k, *[1] * (leaf.ndim - 1)) if leaf.ndim and len(leaf) > 1 else leaf, cond)


def is_null(leaf: Tensor) -> Tensor:
    """Which rows of a tensor say nothing, bool (n,): -1 in whole numbers, NaN in others, throughout the row."""
    flat = leaf.reshape(len(leaf), -1)
    return (flat.isnan() if leaf.is_floating_point() else flat == -1).all(1)


def hide(cond: Cond, hidden: Tensor | Mapping[str, Tensor]) -> Cond:
    """The condition with some rows made null.

    Args:
        cond: the condition, n rows.
        hidden: which rows, bool (n,) or 0-d for all; or by name for the parts of a dict, the others staying.
    """
    if isinstance(hidden, Mapping):
        return {key: hide(value, hidden[key]) if key in hidden else value for key, value in cond.items()}

    def nulled(leaf: Tensor) -> Tensor:
        mask = hidden.to(leaf.device)
        mask = mask.reshape(-1, *[1] * (leaf.ndim - 1)) if mask.ndim else mask
        return torch.where(mask, torch.nan if leaf.is_floating_point() else -1, leaf)

    return apply(nulled, cond)
