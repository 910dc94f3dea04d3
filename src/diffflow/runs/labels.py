"""Class labels of samples, checked against what a run has learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

ClassLabels = int | Sequence[int] | Tensor | None  # one class for all, or one a sample, by index; -1 and None: no class


def class_indices(
    cond: int | Sequence[int] | Tensor, classes: Sequence[str] | None, n: int | None, device: torch.device, path: Path
) -> Tensor:
    """Class indices on the device, int64: 0-d, or (n,).

    Args:
        cond: one class, or one a sample.
        classes: names of the classes of the run; None: it was trained without.
        n: how many samples there are; None: not known yet.
        device: where the indices go.
        path: directory of the run, for messages.

    Raises:
        ValueError: labels of a run without classes, or of another shape, type, range or number.
    """
    if not classes:
        raise ValueError(f"cond was given, but {path} was trained without classes: leave it out")
    labels = torch.as_tensor(cond, device=device)
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


def refuse_classless(labels: Tensor | None, guidance: float, path: Path) -> None:
    """Raise ValueError for samples of no class, which guidance compares with, for a run that learned none of these.

    Args:
        labels: class indices, -1 for none; None: no class for any sample.
        guidance: of the classes; 1: none.
        path: directory of the run, which has classes only.
    """
    if labels is None or bool((labels < 0).any()) or guidance != 1:
        what = f"guidance = {guidance:g} compares with" if guidance != 1 else "cond = None, or -1, means"
        raise ValueError(
            f"{what} samples of no class, and {path} learned none (model.label_dropout = 0): give a class for "
            "each sample and guidance = 1, or train with label dropout"
        )
