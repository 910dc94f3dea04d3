"""Examples: the little that training and evaluation ask of data, whatever holds them.

`Data` holds all of its rows; what is larger than memory may give them one batch at a time.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..equation.conditions import Cond


class Examples(Protocol):
    """Examples by their numbers, and what tells them from others."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of their content: the same rows have the same, wherever they lie."""
        ...

    @property
    def split(self) -> str:
        """Which part of their source they are: "train", "test" or "all"."""
        ...

    def rows(self, indices: Tensor) -> tuple[Tensor, Cond]:
        """Some of them, in data units.

        Args:
            indices: which, int64 (b,).

        Returns:
            x: the examples (b, *shape).
            cond: what a model is told of each, with b rows; None for nothing.
        """
        ...
