"""Guidance: scores of a denoiser that goes beyond what a condition adds, by one weight or one for each part of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .conditions import Cond, hide
from .fields import ScoreField

# One weight for the whole condition, or one for each part of a dict of conditions, by name.
Guidance = float | Mapping[str, float] | tuple[tuple[str, float], ...]


def by_part(weight: Guidance) -> dict[str, float]:
    """The weights by part of the condition; that of the whole under "". Raises ValueError for what is no weight."""
    try:
        if isinstance(weight, Mapping | tuple | list):
            return {k: float(w) for k, w in dict(weight).items()}
        return {"": float(weight)}
    except (TypeError, ValueError) as error:
        raise ValueError(f"guidance = {weight!r} must be a number, or a dict of numbers by condition") from error


def guide(field: ScoreField, weight: Guidance) -> ScoreField:
    """Classifier-free guidance: the score of the denoiser that goes beyond what a condition adds.

    With one weight w that is D_null + w (D_c - D_null). With a weight for each of several conditions it is

        D_c + sum_i (w_i - 1) (D_c - D_c without i),

    which is the conditional law itself where all weights are 1, does not depend on their order, and for a single
    condition is the line above.

    Args:
        field: a score whose source takes a condition.
        weight: how far to go from the unconditional score (0) past the conditional one (1); or by the name of a part
            of the condition.

    Returns:
        The guided score, one evaluation of the source a call more for each weight that is not 1; the field itself
        where there is none.

    Raises:
        ValueError: a weight that is not finite.

    References:
        Ho & Salimans 2022, "Classifier-free diffusion guidance", arXiv:2207.12598.
        Brooks et al. 2023, "InstructPix2Pix", arXiv:2211.09800 (two conditions, one inside the other).
    """
    weights = by_part(weight)
    if not all(map(math.isfinite, weights.values())):
        raise ValueError(f"guidance weight {weight} is not a number to steer with")
    if all(w == 1.0 for w in weights.values()):
        return field
    return ScoreField(field.schedule, _Guided(field.source, weights))


class _Guided:
    """The guided denoiser, made of one denoiser under several conditions (see `guide`)."""

    conditional = True

    def __init__(self, source: Any, weights: Mapping[str, float], cond: Cond = None) -> None:
        self.source, self.weights, self.principal_std = source, weights, getattr(source, "principal_std", None)
        self.full = source.given(cond)
        self.without = [  # pairs: weight, the denoiser that is not told that part
            (w, source.given(hide(cond, {name: torch.tensor(True)}) if name and cond is not None else None))
            for name, w in weights.items()
            if w != 1
        ]
        self.cost = (1 + len(self.without)) * getattr(source, "cost", 1)

    def given(self, cond: Cond) -> _Guided:
        return _Guided(self.source, self.weights, cond)

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        full = self.full(y, sigma)
        if "" in self.weights:
            ((weight, free),) = self.without
            base = free(y, sigma)
            return base + weight * (full - base)
        return full + sum(((w - 1) * (full - partial(y, sigma)) for w, partial in self.without), torch.zeros_like(y))
