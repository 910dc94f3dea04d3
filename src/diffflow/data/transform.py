"""Transforms: the invertible map from the units of the data to those that a model sees ("model units", z).

    images   x uint8 (n, c, h, w)       z = x / 127.5 - 1          in [-1, 1]
    vectors  x float32 (n, d)           z = (x - mean) / std       column by column, statistics of the training rows
    signals  x float32 (n, c, l)        the same channel by channel; so are volumes (n, c, d, h, w), and images whose
                                        pixels are floats (n, c, h, w)

Discrete values (bytes, and columns of few levels) are spread over the cells that they stand for where a density is
asked of them (discrete.py), and read back from the cell that a sample falls into. The map is a value of its own, so
that a run can decode its samples when the data are no longer there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from .columns import column_label
from .discrete import Cells
from .errors import DataError

AXES = {"vector": 2, "signal": 3, "image": 4, "volume": 5}  # axes of an array of examples, by kind


@dataclass(frozen=True)
class Transform:
    """The invertible map between the units of the data and the units of the model.

    Args:
        kind: "image", "signal", "volume" or "vector".
        shape: of an example, (c, h, w), (c, l), (c, d, h, w) or (d,).
        mean: of each column, or of each channel, in data units; () for images of bytes, whose units are known.
        std: the standard deviations, likewise.
        levels: tables only: the rising values that each discrete column takes, () for a continuous one.
        names: tables only: the words that the levels 0, 1, ... of each column stand for, () for numbers.
        columns: tables only: the names of the columns.

    Raises:
        DataError: an unknown kind, or numbers that do not fit the shape.
    """

    kind: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    levels: tuple[tuple[float, ...], ...] = ()
    names: tuple[tuple[str, ...], ...] = ()
    columns: tuple[str, ...] = ()

    others: ClassVar[dict[str, type[Transform]]] = {}  # other maps, by what only their `to_meta` has

    def __post_init__(self):
        if self.kind not in AXES:
            raise DataError(f"kind is one of {', '.join(AXES)}, not {self.kind!r}")
        if 1 + len(self.shape) != AXES[self.kind]:
            raise DataError(f"{self.kind}s have {AXES[self.kind] - 1} axes, and the shape is {self.shape}")
        if not self.of_bytes and not (len(self.mean) == len(self.std) == self.shape[0]):
            parts = "columns" if self.kind == "vector" else "channels"
            raise DataError(
                f"{self.shape[0]} {parts} need as many means and stds, got {len(self.mean)}, {len(self.std)}"
            )
        for what in ("levels", "names", "columns"):
            given = getattr(self, what)
            if given and (self.kind != "vector" or len(given) != self.shape[0]):
                raise DataError(f"{what} are for the columns of a table, {self.shape[0]} here, got {len(given)}")

    @property
    def of_bytes(self) -> bool:
        """Whether examples are images whose pixels are bytes: all other numbers are floats."""
        return self.kind == "image" and not self.mean

    @property
    def data_shape(self) -> tuple[int, ...]:
        """The shape of an example in data units: that of model units, but for tables with words."""
        return self.shape

    @property
    def spreads(self) -> bool:
        """Whether training always spreads values over the cells that they stand for."""
        return bool(self.levels)

    @property
    def points(self) -> int:
        """How many coordinates in model units can only be one of a few values, with probabilities and no density."""
        return 0

    @cached_property
    def _cells(self) -> dict[int, Cells]:
        """The cells of the discrete columns."""
        return {k: Cells(levels) for k, levels in enumerate(self.levels) if levels}

    def encode(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Data units to model units.

        Args:
            x: examples (n, *shape) in data units; images of bytes as uint8 in [0, 255] or floating point in [0, 1].
            u: uniform numbers in [0, 1) of the same shape: where in their cells discrete values are put (bytes of
                images, columns with levels); None: bytes in the middle, columns on their levels.

        Returns:
            float32 (n, *shape).

        Raises:
            ValueError: floating-point pixels outside [0, 1], or where cells are needed; values that are no level of
                their column.
        """
        if not self.of_bytes:
            x = x.double()
            if self._cells:
                x = torch.stack(
                    [self._column(x[:, k], k, None if u is None else u[:, k]) for k in range(x.shape[1])], 1
                )
            return ((x - self._units(self.mean, x)) / self._units(self.std, x)).float()
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
        wrong = ~cells.is_level(x)
        if bool(wrong.any()):
            name = column_label(self.columns[k]) if self.columns else str(k + 1)
            levels = ", ".join(f"{v:g}" for v in cells.levels[:8]) + (", ..." if len(cells.levels) > 8 else "")
            raise ValueError(
                f"column {name} takes the levels {levels}, and here {x[wrong][0].item():g}: these are not the data "
                "that the transform was made for"
            )
        return cells.dequantise(x, u)

    def decode(self, z: Tensor) -> Tensor:
        """Model units to what a user reads.

        Args:
            z: samples (n, *shape).

        Returns:
            float32 (n, *shape): images of bytes clamped to [0, 1]; all others in the data's units, discrete columns on
            their levels.
        """
        if not self.of_bytes:
            x = z.double() * self._units(self.std, z) + self._units(self.mean, z)
            for k, cells in self._cells.items():
                x[:, k] = cells.snap(x[:, k])
            return x.float()
        return ((z.float() + 1.0) / 2.0).clamp(0.0, 1.0)

    def log_units(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """What turns the log-density of encode(x, u), in model units, into that of x in data units, when added to it.

        Discrete coordinates then have a log-probability, the others a log-density (docs/theory/derivations.md, section
        5.3).

        Args:
            x: examples (n, *shape) in data units.
            u: as in `encode`; cells are of one width, wherever in them a value is put.

        Returns:
            Nats (n,) float64.
        """
        if self.of_bytes:
            return torch.full((len(x),), math.prod(self.shape) * math.log(1 / 127.5), dtype=torch.float64)
        entries = math.prod(self.shape[1:])  # of a column, or of a channel
        total = -(entries * self._units(self.std, x).log().sum()).expand(len(x))
        for k, cells in self._cells.items():
            total = total + cells.widths(x[:, k]).log()
        return total

    def to_meta(self) -> dict[str, Any]:
        """The map as plain values, JSON-able; empty parts of tables are left out."""
        basics = {"kind": self.kind, "shape": list(self.shape), "mean": list(self.mean), "std": list(self.std)}
        lists = {"levels": [list(v) for v in self.levels], "names": [list(v) for v in self.names]}
        return basics | {k: v for k, v in (lists | {"columns": list(self.columns)}).items() if v}

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Transform:
        """The inverse of to_meta; also accepts the whole of `Data.meta()`."""
        m = meta.get("transform", meta)
        for key, kind in cls.others.items():
            if key in m:
                return kind.from_meta(m)
        levels, names = (tuple(tuple(v) for v in m.get(k, ())) for k in ("levels", "names"))
        columns = tuple(m.get("columns", ()))
        return cls(m["kind"], tuple(m["shape"]), tuple(m["mean"]), tuple(m["std"]), levels, names, columns)

    def _units(self, numbers: tuple[float, ...], like: Tensor) -> Tensor:
        """A number of each column or channel, as it multiplies examples (n, *shape)."""
        units = torch.tensor(numbers, dtype=torch.float64, device=like.device)
        return units.reshape(-1, *[1] * (len(self.shape) - 1))
