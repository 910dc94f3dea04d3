"""Data sets in memory: examples, their classes, and the map to the units that a network likes (transform.py).

Images of bytes stay uint8 in memory (a quarter of float32) and are encoded batch by batch. A memory map stays one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..equation.conditions import Cond, apply, leaves, rows
from ..equation.noise import GOLDEN
from .coder import LatentSpace, encode_rows
from .conditions import MAPS, Conditions, as_tensors, describe, encode, in_proportion, named, to_meta
from .errors import DataError
from .small import refuse_constant, remarks
from .transform import Transform
from .words import in_words

if TYPE_CHECKING:
    from ..equation.laws import Law

AT_ONCE = 20_000_000  # numbers that are looked at together


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """A data set in memory.

    Args:
        x: examples, uint8 (n, c, h, w) for images of bytes; float32 for all others: vectors (n, d), signals (n, c, l),
            images (n, c, h, w), volumes (n, c, d, h, w).
        y: classes int64 (n,) in 0..len(classes)-1; None without classes.
        classes: the names of the classes; None without classes.
        name: what messages call the data.
        split: "train", "test" or "all": which part of the source they are.
        transform: the map between data units and model units.
        law: the exact Law that the points were drawn from (toys); None for others.
        flip: whether a training batch may mirror images left and right.
        notes: what the loader had to decide or convert, one sentence each.
        cond: what a model is told of each example in place of its class, n rows or a dict of such; None: its class.
        conditions: what these are, and their units; None where cond is None.
        augment: a function of a training batch in data units (b, *shape), to the same shape and type; None for none.
        heldout: what of the same source training does not see, for evaluations; None where it is not at hand.
        taken: which rows of their source these are, a mask (rows of the source,); None where nobody knows.
        space: the latents that a model lives in (`with_coder`); None: it lives where the data do.
        latents: the examples there, float32 (n, 1, *latent), or with their mirror images (n, 2, *latent).

    Raises:
        DataError: there are no examples, or their shape, labels, conditions, flip or augment do not fit.
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
    cond: Cond = None
    conditions: Conditions | None = None
    augment: Callable[[Tensor], Tensor] | None = None
    heldout: Data | None = None
    taken: Tensor | None = None
    space: LatentSpace | None = None
    latents: Tensor | None = None

    def __post_init__(self):
        if tuple(self.x.shape[1:]) != self.shape:
            raise DataError(f"x has events of shape {tuple(self.x.shape[1:])}, the transform says {self.shape}")
        if not len(self.x):
            raise DataError(f"{self.name!r} has no {self.split} examples; split='all' (--data.split all) takes all")
        if self.y is not None and len(self.y) != len(self.x):
            raise DataError(f"{len(self.x)} examples but {len(self.y)} labels in {self.name!r}")
        if self.flip and self.kind != "image":
            raise DataError(f"flip mirrors images; {self.name!r} holds {self.kind}s. Leave flip (--flip) off")
        if (self.cond is None) != (self.conditions is None):
            raise DataError("cond and conditions go together: data.with_cond(c) sets both")
        if self.flip and any(c.kind in MAPS for _, c in named(self.conditions)):
            raise DataError("flip mirrors the examples and not the pictures that they are conditioned on: leave it off")
        if self.latents is not None and self.flip and self.latents.shape[1] == 1:
            raise DataError("flip mirrors examples, and these are encoded already: set it before with_coder")
        if self.latents is not None and self.augment is not None:
            raise DataError("augment changes examples in every batch, and a coder encodes them once: leave it out")
        if self.augment is not None:
            self.augmented(self.x[:2], 0)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        labels = f", {len(self.classes)} classes" if self.classes else ""
        return f"Data({self.name!r}, {self.split}, {len(self)} x {self.kind} {self.shape}{labels})"

    def describe(self) -> list[str]:
        """Lines that say what the data are, and what was decided about them."""
        words = in_words(self.transform, self.x, self.classes, self.split, self.taken, self.heldout)
        return [f"{self.name}: {words}, sha256 {self.fingerprint[:16]}...", *self.notes, *remarks(self)]

    @property
    def kind(self) -> str:
        """What an example is: "image", "signal", "volume" or "vector"."""
        return self.transform.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an example, (c, h, w), (c, l), (c, d, h, w) or (d,)."""
        return self.transform.data_shape

    def encode(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Data units to model units (with a coder to latents); see `Transform.encode`."""
        z = self.transform.encode(x, u)
        return z if self.space is None else self.space.encode(z)

    def decode(self, z: Tensor) -> Tensor:
        """Model units to what a user reads; see `Transform.decode`."""
        return self.transform.decode(z if self.space is None else self.space.decode(z))

    def augmented(self, x: Tensor, seed: int) -> Tensor:
        """Some examples as training sees them: through `augment`, where there is one.

        Args:
            x: examples (b, *shape), in data units.
            seed: of torch's generator, which is left as it was.

        Raises:
            DataError: `augment` gives something else than examples of this shape and type.
        """
        if self.augment is None:
            return x
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed = self.augment(x.clone())
        if not isinstance(changed, Tensor) or changed.shape != x.shape or changed.dtype != x.dtype:
            given, wanted = (getattr(v, "dtype", type(v).__name__) for v in (changed, x))
            shapes = tuple(getattr(changed, "shape", ())), tuple(x.shape)
            raise DataError(f"augment gave {given} of shape {shapes[0]}: give back the same, {wanted} {shapes[1]}")
        return changed

    def subset(self, index: Tensor) -> Data:
        """Some of the examples, by their numbers or a mask, with their labels, conditions and latents."""
        parts = {k: apply(lambda leaf: leaf[index], getattr(self, k)) for k in ("x", "y", "cond", "latents")}
        return replace(self, **parts, taken=None)

    def with_cond(self, cond: Any, kinds: Mapping[str, str] | str | None = None) -> Data:
        """These data with a condition of each example in place of its class.

        Args:
            cond: an array with a row for each example, or a dict of such by name: labels (n,), vectors (n, k),
                sequences (n, l, k), pictures (n, c, h, w). A row of NaN (-1 in whole numbers) is none. It may also
                have a row for each row of the source, of which these data are a part.
            kinds: a kind of `data.conditions`, or kinds by name, where the axes leave it open ({"before": "signal"}).

        Returns:
            The data. Floats are scaled for the network by what these rows say; a note says how.

        Raises:
            DataError: another number of rows, or values that are no condition.
        """
        try:
            values, aside = as_tensors(cond, len(self)), self.heldout
        except DataError:
            if self.taken is None or not int(self.taken.sum()) == len(self) < len(self.taken):
                raise
            everything = as_tensors(cond, len(self.taken))
            values, aside = rows(everything, self.taken), self.heldout
            if aside is not None and aside.taken is not None and len(aside.taken) == len(self.taken):
                aside = aside.with_cond(rows(everything, aside.taken), kinds)
        found = describe(values, kinds, self.classes or (), self.y)
        new = "; ".join(f"{name or 'each example'}: {c.describe()}" for name, c in named(found))
        if aside is not None and aside.conditions is not None:
            aside = replace(aside, conditions=found)  # in the units of the training rows
        return replace(self, cond=values, conditions=found, notes=(*self.notes, "conditioned on " + new), heldout=aside)

    def with_coder(self, coder: Any, scale: float | None = None, shift: float | None = None) -> Data:
        """These data for a model that lives in latents, z = (E(x) - shift) scale: all rows are encoded now, once.

        Args:
            coder: an object with encode and decode (`data.Coder`), such as an autoencoder of diffusers, or the local
                folder of one (AutoencoderKL, AutoencoderTiny): from there runs load it again by themselves.
            scale: what latents are multiplied by; None: one over their standard deviation.
            shift: what is subtracted from them before; None: their mean.

        Returns:
            The data. Samples are decoded, and compared with the examples as ever; a density there is none.

        Raises:
            DataError: a coder that cannot be used, or data with `augment`.
        """
        space, latents, notes = encode_rows(self, coder, scale, shift)
        return replace(self, space=space, latents=latents, notes=(*self.notes, *notes))

    def batch(
        self, indices: Tensor, flips: Tensor | None = None, u: Tensor | None = None, augment: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Some of the examples, encoded.

        Args:
            indices: which examples, int64 (b,).
            flips: images only: which of them are mirrored left and right, bool (b,); None: none.
            u: uniform numbers in [0, 1), (b, *shape), that spread discrete values over their cells; None: no spreading.
                Latents have no cells.
            augment: seed of the changes that `augment` makes, for training; None: none are made.

        Returns:
            x: float32 (b, *shape), in model units.
            y: what a model is told of them (`data.conditions.encode`): their labels int64 (b,), or the rows of `cond`;
                None without either.

        Raises:
            DataError: vectors are to be mirrored.
        """
        if self.latents is not None:
            x, flips = self.latents[indices, 0 if flips is None else flips.long()], None
        else:
            x = self.x[indices]
            x = self.transform.encode(x if augment is None else self.augmented(x, augment), u)
        if flips is not None:
            if self.kind != "image":
                raise DataError(f"flips mirror images; {self.name!r} holds {self.kind}s")
            x = torch.where(flips.view(-1, 1, 1, 1), x.flip(-1), x)
        told = self._told(indices)
        return x, told if self.conditions is None else encode(self.conditions, told)

    def rows(self, indices: Tensor) -> tuple[Tensor, Cond]:
        """Some of the examples (b, *shape), and what a model is told of them, in data units (`data.Examples`)."""
        return self.x[indices], self._told(indices)

    def _told(self, indices: Tensor) -> Cond:
        """What a model is told of some examples, in data units."""
        return apply(lambda leaf: leaf[indices], self.y if self.conditions is None else self.cond)

    def sample_conditions(self, n: int, first: int = 0) -> Cond:
        """What to tell a model so that samples of a perfect one have the law of the data, in the data's units.

        Args:
            n: number of samples.
            first: number of the first sample.

        Returns:
            Labels as often as the data have them, or rows of `cond`; None without either.
        """
        if self.conditions is None:
            return self.labels(n, first)
        quantile = (GOLDEN * torch.arange(first + 1, first + n + 1, dtype=torch.float64)) % 1.0
        return rows(self.cond, (quantile * len(self)).long())

    def labels(self, n: int, first: int = 0) -> Tensor | None:
        """Classes for samples, as often as the data have them (`in_proportion`).

        Only with these do samples of a perfect model have the law of the data.

        Args:
            n: number of samples.
            first: number of the first sample.

        Returns:
            int64 (n,); None without classes.
        """
        return None if (counts := self._counts) is None else in_proportion(counts, n, first)

    @cached_property
    def _counts(self) -> Tensor | None:
        """Examples of each class, (classes,)."""
        return None if self.y is None or not self.classes else torch.bincount(self.y, minlength=len(self.classes))

    @cached_property
    def _moments(self) -> tuple[float, float]:
        """Mean and standard deviation over all entries, model units."""
        if self.transform.of_bytes and self.latents is None:  # exact, by the histogram: no float copy of the whole
            counts = torch.bincount(self.x.flatten(), minlength=256).double()
            values = torch.arange(256, dtype=torch.float64) / 127.5 - 1.0
            mean = (counts @ values) / counts.sum()
            return float(mean), float(((counts @ (values - mean).square()) / counts.sum()).sqrt())
        if self.kind == "vector" and self.latents is None:
            z = self.encode(self.x).double()
            return float(z.mean()), float(z.std(correction=0))
        shape = self._model_shape
        parts = torch.arange(len(self)).split(max(1, AT_ONCE // math.prod(shape)))
        numbers = len(self) * math.prod(shape)
        mean = sum(float(self._encoded(rows).double().sum()) for rows in parts) / numbers
        variance = sum(float((self._encoded(rows).double() - mean).square().sum()) for rows in parts) / numbers
        return mean, variance**0.5

    def _encoded(self, rows: Tensor) -> Tensor:
        """Examples by their numbers (b,), as a network sees them."""
        return self.transform.encode(self.x[rows]) if self.latents is None else self.latents[rows, 0]

    @property
    def _model_shape(self) -> tuple[int, ...]:
        """The shape of an example as a network sees it."""
        return self.transform.shape if self.space is None else self.space.shape

    @property
    def mean(self) -> float:
        """Mean over all entries, model units."""
        return self._moments[0]

    @property
    def std(self) -> float:
        """Standard deviation over all entries, model units."""
        return self._moments[1]

    @cached_property
    def principal_std(self) -> float:
        """Largest principal standard deviation in model units; of equal examples, which have none, `std`.

        Subspace iteration with 8 vectors on at most 2e7 numbers (evenly spaced examples); the relative error of the
        eigenvalue after k sweeps is of order (lambda_9 / lambda_1)^(2k), k = 20.
        """
        keep = max(2, min(len(self), AT_ONCE // math.prod(self._model_shape)))
        z = self._encoded(torch.linspace(0, len(self) - 1, keep).round().long()).flatten(1)
        z = z - z.mean(0)
        basis = torch.randn(z.shape[1], min(8, z.shape[1]), generator=torch.Generator().manual_seed(0), dtype=z.dtype)
        for _ in range(20):
            basis = torch.linalg.qr(z.T @ (z @ basis))[0]
        width = float(torch.linalg.matrix_norm(z @ basis, 2) / len(z) ** 0.5)
        return width if width > 1e-5 * self.std else self.std  # of equal examples, or a single one

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 (hex) of the examples: shape, type and bytes of x and y, whatever files they came from."""
        return digest_of([("", self.x), *([] if self.y is None else [("", self.y)])])

    def meta(self) -> dict[str, Any]:
        """All about the data but the data, JSON-able (`Transform.from_meta`). Raises DataError for a constant."""
        refuse_constant(self)
        return (
            {
                "name": self.name,
                "split": self.split,
                "kind": self.kind,
                "shape": list(self._model_shape),
                "classes": self.classes,
                "count": len(self),
                "counts": None if (counts := self._counts) is None else counts.tolist(),
                "flip": self.flip,
                "transform": self.transform.to_meta(),
                "mean": self.mean,
                "std": self.std,
                "principal_std": self.principal_std,
                "fingerprint": self.fingerprint,
                "notes": list(self.notes),
            }
            | self._latent_meta()
            | self._condition_meta()
        )

    def _latent_meta(self) -> dict[str, Any]:
        """What `meta` says of the coder, whose latents then have the shape, mean and stds of `meta`."""
        return {} if self.space is None else {"data_shape": list(self.shape), "latent": self.space.to_meta()}

    def _condition_meta(self) -> dict[str, Any]:
        """What `meta` says of conditions, which are more than classes."""
        told = self.conditions
        return {} if told is None else {"cond": to_meta(told) | {"sha256": digest_of(leaves(self.cond))}}


def digest_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Sha256 (hex) of names, shapes, types and bytes of tensors."""
    digest = hashlib.sha256()
    for name, part in tensors:
        digest.update(f"{name}{tuple(part.shape)} {part.dtype};".encode())
        digest.update(np.ascontiguousarray(part.numpy()).data)
    return digest.hexdigest()
