"""Observations: which coordinates of a particle are known, and their values.

Columns of a table may be several coordinates of a particle (a word is a one-hot block, a number with gaps a block and
a number): such a group is known as a whole or not at all. Units are the model's, as everywhere in sampling/.

Shapes: one observation for all particles (*shape), or one for each (n, *shape).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Observation:
    """Known coordinates of particles and their values.

    Args:
        values: model units, (*shape) for all particles or (n, *shape) for each; what stands at unknown coordinates is
            not read and may be NaN.
        known: which coordinates are known, bool, of the shape of `values`, or one that broadcasts to it.
        shape: event shape of a particle; None: that of vectors, the last axis of `values`.

    Raises:
        ValueError: shapes that do not fit, or known values that are not finite.
    """

    values: Tensor
    known: Tensor
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        values, known = torch.as_tensor(self.values), torch.as_tensor(self.known)
        values = values if values.is_floating_point() else values.to(torch.get_default_dtype())
        if known.dtype != torch.bool:
            raise ValueError(f"known says of each coordinate whether it is known: bool is wanted, got {known.dtype}")
        try:
            values, known = torch.broadcast_tensors(values, known.to(values.device))
        except RuntimeError:
            raise ValueError(
                f"values of shape {tuple(values.shape)} and known of shape {tuple(known.shape)} do not fit together"
            ) from None
        shape = tuple(values.shape[-1:]) if self.shape is None else tuple(self.shape)
        if values.ndim - len(shape) not in (0, 1) or tuple(values.shape[values.ndim - len(shape) :]) != shape:
            raise ValueError(
                f"an observation of particles of shape {shape} is one for all, {shape}, or (n, {str(shape)[1:]} for n "
                f"of them: got {tuple(values.shape)}"
            )
        if bool((bad := known & ~values.isfinite()).any()):
            raise ValueError(
                f"{int(bad.sum())} of the known values are infinite or no number: leave them out of `known`"
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "known", known)
        object.__setattr__(self, "values", torch.where(known, values, 0.0))

    @classmethod
    def of_groups(cls, values: Tensor, known: Tensor, groups: Tensor) -> Observation:
        """The observation of whole groups of coordinates of vectors, such as the columns of a table.

        Args:
            values: model units, (d,) or (n, d).
            known: which groups are known, bool (groups,) or (n, groups).
            groups: number of the group that each coordinate belongs to, int64 (d,).

        Returns:
            The observation.

        Raises:
            ValueError: groups of another number of coordinates, or that `known` does not speak of.
        """
        values, known, groups = torch.as_tensor(values), torch.as_tensor(known), torch.as_tensor(groups)
        if groups.shape != values.shape[-1:] or not 0 <= int(groups.min()) <= int(groups.max()) < known.shape[-1]:
            raise ValueError(
                f"groups = {groups.tolist()}: one of {known.shape[-1]} for each of {values.shape[-1]} coordinates is "
                "wanted"
            )
        return cls(values, known[..., groups])

    @property
    def count(self) -> int | None:
        """Number of particles that it speaks of; None: one observation for all."""
        assert self.shape is not None
        return len(self.values) if self.values.ndim > len(self.shape) else None

    def expanded(self, n: int) -> Observation:
        """The observation with a row for each of n particles. Raises ValueError for another number of rows."""
        if self.count not in (None, n):
            raise ValueError(f"{self.count} observations for {n} particles: give one for each, or a single one for all")
        size = (n, *(self.shape or ()))
        return Observation(self.values.expand(size), self.known.expand(size), self.shape)

    def repeated(self, draws: int) -> Observation:
        """Each row `draws` times, one after the other: draws 0 ... draws - 1 of row 0 first."""
        if self.count is None:
            return self.expanded(draws)
        return Observation(
            self.values.repeat_interleave(draws, 0), self.known.repeat_interleave(draws, 0), self.shape
        )

    def rows(self, index: slice | Tensor) -> Observation:
        """The observation of some particles; one for all stays."""
        return self if self.count is None else Observation(self.values[index], self.known[index], self.shape)

    def to(self, like: Tensor) -> Observation:
        """The observation on the device and in the floating type of a tensor."""
        values = self.values.to(like)
        return self if values is self.values else Observation(values, self.known.to(like.device), self.shape)

    def fill(self, x: Tensor) -> Tensor:
        """The particles x (n, *shape) with the known values in their place, exact."""
        return torch.where(self.known.to(x.device), self.values.to(x), x)
