"""Coders: data in another space for the model, such as the latents of an autoencoder.

    z = (E(x) - shift) scale          x in model units of the data (`Transform.encode`), z what the network sees
    x = R(z / scale + shift)

The rows of the data are encoded once. Networks see latents; samples are decoded, and compared with the data. A density
of latents is none of the data: likelihoods are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..console import progress, to_stderr
from ..equation.noise import Noise
from ..registry import name_of
from .autoencoder import open_autoencoder
from .errors import DataError

NUMBERS = 2_000_000  # of x that a coder is given at once: two pictures of 3 x 512 x 512
MOST = 256  # examples that it is given at once
PROBED = 16  # numbers by which a coder is known again


class Coder(Protocol):
    """Encoder and decoder between the data and the latents that a model lives in.

    Both are deterministic: of an autoencoder with a random encoder the mean. A torch module is called without
    gradients, in evaluation mode, where its parameters are; anything else on the CPU.
    """

    def encode(self, x: Tensor) -> Tensor:
        """Latents (n, *latent) of examples x (n, *shape), in model units: images of bytes in [-1, 1]."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Examples (n, *shape), in model units, of latents z (n, *latent)."""
        ...


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """The space of the latents of a coder, shifted and scaled for a network.

    Args:
        coder: the coder.
        shape: of a latent.
        data_shape: of an example.
        scale: what latents are multiplied by.
        shift: what is subtracted from them before.
        source: where the coder comes from: its `class`, and of a folder `path` and `sha256` of its weights.
    """

    coder: Coder
    shape: tuple[int, ...]
    data_shape: tuple[int, ...]
    scale: float = 1.0
    shift: float = 0.0
    source: Mapping[str, str] | None = None

    @property
    def path(self) -> str | None:
        """The folder of the coder; None for one from Python."""
        return (self.source or {}).get("path")

    def encode(self, x: Tensor) -> Tensor:
        """Latents float32 (n, *shape) as a network sees them, of examples x (n, *data_shape) in model units."""
        z = [_called(self.coder, "encode", part, self.shape).to(x.device) for part in self._parts(x)]
        return torch.cat(z).sub_(self.shift).mul_(self.scale)

    def decode(self, z: Tensor) -> Tensor:
        """Examples float32 (n, *data_shape), in model units, of latents z (n, *shape) as a network sees them."""
        z = z.float() / self.scale + self.shift
        return torch.cat([_called(self.coder, "decode", part, self.data_shape).to(z.device) for part in self._parts(z)])

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """The rows of x in parts that a coder is given at once."""
        return x.split(at_once(self.data_shape))

    @cached_property
    def probe(self) -> list[float]:
        """Some numbers of what the coder decodes of fixed latents, by which it is known again."""
        z = Noise(0).fork("probe").normal(1, self.shape)
        x = self.decode(z).flatten().cpu()
        return x[torch.linspace(0, len(x) - 1, PROBED).round().long()].tolist()

    def to_meta(self) -> dict[str, Any]:
        """What run.json says of it; `from_meta` needs the coder, too, where it has no path."""
        return {"scale": self.scale, "shift": self.shift, **(self.source or {}), "probe": self.probe}

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any], coder: Any = None) -> LatentSpace | None:
        """The space of a run.

        Args:
            meta: the whole of `Data.meta()`.
            coder: the coder, or the folder where its autoencoder is now; None: where it was.

        Returns:
            The space; None for a run whose model lives where its data do.

        Raises:
            DataError: a coder that is missing, or another one than the model was trained with.
        """
        told = meta.get("latent")
        if told is None:
            if coder is not None:
                raise DataError("this run's model lives where its data do, and takes no coder: leave it out")
            return None
        if coder is None and "path" not in told:
            raise DataError(
                f"this run's model lives in the latents of a coder from Python ({told['class']}), which its files do "
                "not hold: hand it back in Python, df.load(path, coder=...)"
            )
        coder, source = identified(told["path"] if coder is None else coder)
        space = cls(coder, tuple(meta["shape"]), tuple(meta["data_shape"]), told["scale"], told["shift"], source)
        if not same_space(told, space.to_meta()):
            raise DataError(
                f"{source.get('path', source['class'])} is not the coder that this run was trained with "
                f"({told['class']}; weights or settings differ): give that one, --latent PATH, df.load(path, coder=...)"
            )
        return space


def same_space(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> bool:
    """Whether two spaces are one: the same coder, scale and shift, up to round-off. None: that of the data."""
    if a is None or b is None:
        return a is b
    if a.get("sha256", "") != b.get("sha256", "") and "sha256" in a and "sha256" in b:
        return False
    width = 1 / abs(a["scale"])
    units = math.isclose(a["scale"], b["scale"], rel_tol=1e-3) and abs(a["shift"] - b["shift"]) <= 1e-3 * width
    one, other = torch.tensor(a["probe"]), torch.tensor(b["probe"])
    return units and bool((one - other).abs().max() <= 0.02 * one.std() + 1e-6)


def identified(coder: Any) -> tuple[Coder, dict[str, str]]:
    """A coder, or that of a folder, and where it comes from. Raises DataError for what has no encode and decode."""
    if isinstance(coder, str | Path):
        return open_autoencoder(coder)
    if isinstance(coder, type) or not all(callable(getattr(coder, name, None)) for name in ("encode", "decode")):
        kind = f"the class {coder.__name__}" if isinstance(coder, type) else f"a {type(coder).__name__}"
        raise DataError(
            f"the coder is {kind}: give an object with encode(x) and decode(z), or the folder of an autoencoder"
        )
    return coder, {"class": name_of(type(coder))}


def encode_rows(
    data: Any, coder: Any, scale: float | None, shift: float | None
) -> tuple[LatentSpace, Tensor, list[str]]:
    """Encode all rows of some data, and measure their latents.

    Args:
        data: the `Data`.
        coder: the coder, or the folder of an autoencoder.
        scale: what latents are multiplied by; None: one over their standard deviation.
        shift: what is subtracted before; None: their mean.

    Returns:
        space: the space of the latents.
        latents: float32 (n, 1, *latent), or (n, 2, *latent) with those of the mirror images, where data.flip.
        notes: what was measured, in sentences.

    Raises:
        DataError: a coder that cannot be used.
    """
    if data.space is not None:
        raise DataError(f"{data.name!r} has a coder already")
    if data.augment is not None:
        raise DataError("augment changes examples in every batch, and a coder encodes them once: leave it out")
    if isinstance(coder, str | Path) and not data.transform.of_bytes:
        raise DataError(
            f"autoencoders of diffusers code images of bytes, and {data.name!r} holds {data.kind}s of floats: give a "
            "coder of your own, in Python (data.with_coder)"
        )
    coder, source = identified(coder)
    n, mirrored = len(data), bool(data.flip)
    x = data.transform.encode(data.x[:8])
    z = _called(coder, "encode", x)
    space = LatentSpace(coder, tuple(z.shape[1:]), tuple(x.shape[1:]), source=source)
    if not torch.allclose(z, _called(coder, "encode", x), rtol=1e-4, atol=1e-4 * float(z.abs().max())):
        raise DataError(f"the {source['class']} encodes the same rows otherwise each time: let encode give the mean")
    latents, step = torch.empty(n, 1 + mirrored, *space.shape), at_once(space.data_shape)
    error = total = 0.0
    with progress("encoding", to_stderr(), "examples") as bar:
        for first in range(0, n, step):
            x = data.transform.encode(data.x[first : first + step])
            latents[first : first + step, 0] = space.encode(x)
            if first < 512:
                again = space.decode(latents[first : first + step, 0])
                error += (again - x).double().square().sum().item()
                total += (x - x.mean()).double().square().sum().item()
            if mirrored:
                latents[first : first + step, 1] = space.encode(x.flip(-1))
            bar(min(first + step, n), n)
    mean, std = _moments(latents[:, 0])
    if not 1 <= len(space.shape) <= 4:
        raise DataError(f"latents of shape {space.shape}: networks take (d,), (c, l), (c, h, w) or (c, d, h, w)")
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise DataError(f"the latents of the {source['class']} have mean {mean:g} and std {std:g}: nothing to learn")
    shift, scale = mean if shift is None else float(shift), 1 / std if scale is None else float(scale)
    if not (math.isfinite(shift) and math.isfinite(scale) and scale):
        raise DataError(f"scale = {scale} and shift = {shift} must be finite, and the scale not 0")
    latents.sub_(shift).mul_(scale)
    lost = math.sqrt(error / total) if total else 0.0
    notes = [
        f"the model lives in latents of shape {space.shape} of {source.get('path', source['class'])}: "
        f"shift {shift:.6g}, scale {scale:.6g}; decoded again they differ from the data by {lost:.2g} of their std"
    ]
    if "path" not in source:
        notes.append("their coder is an object of this process: a later one hands it back, df.load(path, coder=...)")
    return replace(space, scale=scale, shift=shift), latents, notes


def at_once(shape: tuple[int, ...]) -> int:
    """How many examples of a shape a coder is given at once."""
    return max(1, min(MOST, NUMBERS // math.prod(shape)))


@torch.no_grad()
def _called(coder: Any, method: str, x: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """What a method of the coder gives for rows x, float32. Raises DataError where that is no tensor of this shape."""
    place = torch.device("cpu")
    if isinstance(coder, nn.Module):
        coder.eval()
        place = next((t.device for t in _tensors(coder)), place)
    try:
        out = getattr(coder, method)(x.to(place))
    except RuntimeError as error:
        what = f"{method} of the {type(coder).__name__} failed on {tuple(x.shape)}"
        raise DataError(f"{what}, examples in model units: {error}") from error
    if not isinstance(out, Tensor):  # as diffusers' autoencoders return it
        out = out.latent_dist.mode() if hasattr(out, "latent_dist") else getattr(out, "latents", out)
        out = getattr(out, "sample", out)
    if not (isinstance(out, Tensor) and out.is_floating_point() and out.ndim > 1 and len(out) == len(x)):
        given = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise DataError(f"{method} of the {type(coder).__name__} gave {given} of {tuple(x.shape)}, not floats (n, ...)")
    if shape is not None and tuple(out.shape[1:]) != shape:
        raise DataError(
            f"{method} of the {type(coder).__name__} gave shape {tuple(out.shape[1:])}, where {shape} is wanted: a "
            "coder must give back the shape of the data"
        )
    return out.float()


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers of a module."""
    yield from module.parameters()
    yield from module.buffers()


def _moments(z: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all entries, summed in parts in float64."""
    parts = z.split(max(1, NUMBERS // math.prod(z.shape[1:])))
    mean = sum(p.double().sum().item() for p in parts) / z.numel()
    return mean, math.sqrt(sum((p.double() - mean).square().sum().item() for p in parts) / z.numel())
