"""Conditions of samples, checked against what a run has learned: classes, vectors, sequences, pictures, or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.conditions import Condition, Conditions, by_name, encode, from_meta, numbers
from ..equation.conditions import Cond, apply, expanded, is_null, leaves
from ..equation.guidance import Guidance, by_part
from ..models.base import device_of
from ..networks.denoiser import Denoiser

# one class for all, or one a sample, by index or by name; -1 and None: no class
ClassLabels = int | str | Sequence[int] | Sequence[str] | Tensor | None
Rows = Sequence[float] | Sequence[Sequence[float]] | np.ndarray
AnyCondition = ClassLabels | Rows | Mapping[str, Any]  # or any other condition in data units, or a dict of them


def conditions_of(players: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> Conditions | None:
    """What a run's networks are told of each sample; None for nothing, also where the data have classes."""
    denoiser = players.get("denoiser")
    if isinstance(denoiser, Denoiser):
        return (denoiser.conditions or from_meta(meta)) if denoiser.conditional else None
    return from_meta(meta)


def sample_conditions(
    cond: AnyCondition, conditions: Conditions | None, n: int | None, device: torch.device, path: Path
) -> Cond:
    """A condition in the units of the networks, on their device.

    Args:
        cond: one for all samples, or a row for each, in the units of the data; None: none.
        conditions: what the run is told.
        n: how many samples there are; None: not known yet.
        device: where it goes.
        path: directory of the run, for messages.

    Returns:
        Labels 0-d or (n,), or another condition with a row for each sample or a single one; None for none.

    Raises:
        ValueError: a condition that the run does not know.
    """
    if cond is None:
        return None
    if isinstance(conditions, Condition) and conditions.classes and not isinstance(cond, Mapping):
        return class_indices(cond, conditions.names, n, device, path)
    if conditions is None:
        raise ValueError(f"cond was given, but {path} was trained without classes or another condition: leave it out")
    encoded = apply(lambda leaf: leaf.to(device), encode(conditions, cond, str(path)))
    return encoded if n is None else expanded(encoded, n)


def class_indices(
    cond: int | str | Sequence[str] | Rows | Tensor,
    classes: Sequence[str] | None,
    n: int | None,
    device: torch.device,
    path: Path,
) -> Tensor:
    """Class indices on the device, int64: 0-d, or (n,).

    Args:
        cond: one class, or one a sample, by index or by name.
        classes: names of the classes of the run; None: it was trained without.
        n: how many samples there are; None: not known yet.
        device: where the indices go.
        path: directory of the run, for messages.

    Raises:
        ValueError: labels of a run without classes, or of another shape, type, range or number.
    """
    if not classes:
        raise ValueError(f"cond was given, but {path} was trained without classes: leave it out")
    labels = numbers(by_name(cond, classes, "cond"), "cond", ValueError).to(device)
    if labels.dim() > 1:
        raise ValueError(f"cond has shape {tuple(labels.shape)}: give one class, or one per sample")
    if labels.is_floating_point() or (
        labels.numel() and not -1 <= int(labels.min()) <= int(labels.max()) < len(classes)
    ):
        valid = f"0 to {len(classes) - 1} ({', '.join(classes[:12])})"
        value = f"{labels.dtype}" if labels.is_floating_point() else f"{int(labels.min())} to {int(labels.max())}"
        raise ValueError(f"cond holds {value}: classes are integers from {valid}, or -1 for none")
    if n is not None and labels.dim() and len(labels) != n:
        raise ValueError(
            f"cond holds {len(labels)} classes for {n} samples: give one per sample, or a single one for all"
        )
    return labels.long()


def checked_conditions(
    cond: AnyCondition,
    conditions: Conditions | None,
    n: int,
    players: Mapping[str, nn.Module],
    path: Path,
    classless: bool = True,
    guidance: Guidance = 1.0,
) -> Cond:
    """The conditions of n samples as a run's networks are told them.

    Args:
        cond: one for all samples, or a row for each, in the units of the data; None: none.
        conditions: what the run is told.
        n: how many samples there are.
        players: the run's networks.
        path: directory of the run, for messages.
        classless: whether conditions were hidden in training (label dropout).
        guidance: of the condition; 1: none.

    Raises:
        ValueError: a condition that the run does not know, or none where it learned none.
    """
    encoded = sample_conditions(cond, conditions, n, device_of(players), path)
    encoded = None if encoded is None else expanded(encoded, n)
    denoiser = players.get("denoiser")
    null = not isinstance(denoiser, Denoiser) or denoiser.null
    if conditions is not None and not (classless and null):
        why = "model.label_dropout = 0" if null else "its network declares no `null`"
        refuse_unconditioned(encoded, guidance, path, why)
    return encoded


def refuse_unconditioned(cond: Cond, guidance: Guidance, path: Path, why: str) -> None:
    """Raise ValueError for samples without condition, which guidance compares with, for a run that learned none.

    Args:
        cond: the condition, as `sample_conditions` gives it.
        guidance: of the condition; 1: none.
        path: directory of the run.
        why: why it learned none.
    """
    missing = cond is None or any(
        bool(is_null(leaf.reshape(-1) if leaf.ndim == 0 else leaf).any()) for _, leaf in leaves(cond)
    )
    steers = any(weight != 1 for weight in by_part(guidance).values())
    if missing or steers:
        what = f"guidance = {guidance} compares with" if steers else "cond = None, or -1, means"
        raise ValueError(
            f"{what} samples of no class or condition, and {path} learned none ({why}): give one for each sample and "
            "guidance = 1, or train with label dropout"
        )
