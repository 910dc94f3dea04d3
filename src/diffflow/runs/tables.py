"""Samples of a table: codes as any samples, and a data frame of what they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..data.table_transform import TableTransform
from ..data.writers.tables import to_csv, to_frame
from ..sampling.sample import Trajectory


@dataclass(frozen=True, repr=False)
class TableDraws(Trajectory):
    """Rows of a table that were drawn.

    `last` holds codes, float64 (n, d): numbers as they are, words as their places, NaN for a gap.

    Args:
        transform: whose columns they have.
        first: number of the first row, from which identifiers are made anew.
    """

    transform: TableTransform | None = None
    first: int = 0

    @cached_property
    def frame(self) -> Any:
        """The rows as a pandas.DataFrame, with the columns of the file in its order and of its types.

        Words are categories, whole numbers Int64 with gaps, dates datetimes. Raises ImportError without pandas.
        """
        assert self.transform is not None
        return to_frame(self.transform.schema, self.last.numpy(), self.transform.clip, self.first)

    @property
    def csv(self) -> str:
        """The rows as the text of a CSV file, written as the file of the training is."""
        assert self.transform is not None
        return to_csv(self.transform.schema, self.last.numpy(), self.transform.clip, self.first)
