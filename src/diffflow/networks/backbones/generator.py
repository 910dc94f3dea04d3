"""Backbones of generators: nets that make a sample from noise in one evaluation, x = G(z, class).

They are residual, with branches that start at zero (as in backbones/discriminator.py), without batch statistics (a
sample depends on its own z only) and with a linear end: data in [-1, 1] need no squashing when the field that moves the
samples points back to them. The class enters as an embedding joined to z.

Shapes: z (n, latent), cond int64 (n,) or None -> (n, d) or (n, c, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .discriminator import SILU, Branch, Waves, scaled

THIN = 16  # features of a pixel, where a generator works on places of several


class Code(nn.Module):
    """First layer: z and the class as one vector silu(A [z, C[cond]]).

    Args:
        latent: length of z.
        classes: how many classes, 0 for none.
        width: length of the vector.
        waves: Fourier features of z beside z itself.
        fastest: their highest frequency, in radians per unit of z.
    """

    def __init__(self, latent: int, classes: int, width: int, waves: int = 0, fastest: float = 4.0):
        super().__init__()
        self.latent = latent
        self.waves = Waves(latent, waves, fastest)
        self.label = nn.Embedding(classes, latent) if classes else None
        self.enter = scaled(nn.Linear(self.waves.width + (latent if classes else 0), width))

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        """The vector (n, width) of z (n, latent) and cond int64 (n,). Raises ValueError for another length of z."""
        if z.dim() != 2 or z.shape[1] != self.latent:
            raise ValueError(f"z has shape {tuple(z.shape)}, this generator takes (n, {self.latent})")
        h = self.waves(z)
        if self.label is not None:
            if cond is None:
                raise ValueError("this generator needs a class per sample: give cond")
            h = torch.cat([h, self.label(cond)], 1)
        return F.silu(self.enter(h))


class MLPGenerator(nn.Module):
    """Residual MLP from z to vectors.

    Args:
        latent: length of z.
        dim: length d of a vector.
        classes: how many classes, 0 for none.
        width: length of the hidden vector.
        depth: residual blocks.
        waves: Fourier features of z beside z itself, as in `MLPDiscriminator`, which let it tear z apart into many
            modes.
        fastest: their highest frequency, in radians per unit of z.

    Raises:
        ValueError: for sizes below one, for z of another length, and where a class is missing.
    """

    def __init__(
        self,
        latent: int,
        dim: int,
        classes: int = 0,
        width: int = 128,
        depth: int = 3,
        waves: int = 0,
        fastest: float = 4.0,
    ):
        super().__init__()
        if min(latent, dim, width, depth) < 1 or classes < 0:
            raise ValueError(
                f"MLPGenerator(latent={latent}, dim={dim}, classes={classes}, width={width}, depth={depth}): "
                "sizes must be positive"
            )
        self.latent_shape, self.classes = (latent,), classes
        self.code = Code(latent, classes, width, waves, fastest)
        self.blocks = nn.ModuleList(Branch(width, width, zero=True) for _ in range(depth))
        self.leave = scaled(nn.Linear(width, dim))

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Vectors (n, d) from z (n, latent) and cond int64 (n,), None for a net without classes."""
        h = code = self.code(z, cond)
        for block in self.blocks:
            h = block(h, code)
        return self.leave(F.silu(h))


class Up(nn.Module):
    """Residual block that doubles the image: 1x1(up h) + conv silu(up (conv silu(h) + M code)).

    The wide convolution runs before the doubling, where it costs a quarter.

    Args:
        before: channels of its input.
        after: channels of its output.
        code: length of the code.
    """

    def __init__(self, before: int, after: int, code: int):
        super().__init__()
        self.skip = scaled(nn.Conv2d(before, after, 1))
        self.inner = scaled(nn.Conv2d(before, after, 3, padding=1), SILU)
        self.embed = scaled(nn.Linear(code, after))
        self.outer = scaled(nn.Conv2d(after, after, 3, padding=1), 0.0)

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        """The doubled image (n, after, 2h, 2w), from h (n, before, h, w) and the code (n, code)."""
        branch = self.inner(F.silu(h)) + self.embed(code)[:, :, None, None]
        return _double(self.skip(h)) + self.outer(F.silu(_double(branch)))


def _double(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2.0, mode="nearest")


class ConvGenerator(nn.Module):
    """Residual convolutional net from z to images.

    Args:
        latent: length of z.
        shape: shape of an image (c, h, w), of any height and width; what is no multiple of 2^len(widths) is cut from
            the next one.
        classes: how many classes, 0 for none.
        widths: channels of the blocks, each of which doubles the image.
        stem: side in pixels of the places that it works on, whose channels become thin features of pixels at the end,
            and by a last convolution the image. The pixels of a place begin alike (Aitken et al. 2017,
            arXiv:1707.02937): else there is a checkerboard to be unlearned.

    Raises:
        ValueError: for sizes below one, for z of another length, and where a class is missing.
    """

    def __init__(
        self,
        latent: int,
        shape: tuple[int, int, int],
        classes: int = 0,
        widths: Sequence[int] = (64, 32),
        stem: int = 1,
    ):
        super().__init__()
        if latent < 1 or len(shape) != 3 or min(*shape, stem) < 1 or not widths or min(widths) < 1 or classes < 0:
            raise ValueError(
                f"ConvGenerator(latent={latent}, shape={tuple(shape)}, classes={classes}, widths={tuple(widths)}, "
                f"stem={stem}): sizes must be positive"
            )
        self.latent_shape = (latent,)
        self.classes = classes
        self.shape, self.stem = tuple(shape), stem
        code = 2 * widths[0]
        self.first = (widths[0], *(-(-side // (stem * 2 ** len(widths))) for side in shape[1:]))
        self.code = Code(latent, classes, code)
        self.dense = scaled(nn.Linear(code, self.first[0] * self.first[1] * self.first[2]), SILU)
        self.blocks = nn.ModuleList(Up(a, b, code) for a, b in zip((widths[0], *widths), widths, strict=False))
        self.spread = scaled(nn.Conv2d(widths[-1], THIN * stem**2, 3, padding=1), SILU) if stem > 1 else None
        if self.spread is not None:
            with torch.no_grad():
                self.spread.weight.copy_(self.spread.weight[:: stem**2].repeat_interleave(stem**2, 0))
        self.leave = scaled(nn.Conv2d(THIN if stem > 1 else widths[-1], shape[0], 3, padding=1))

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Images (n, c, h, w) from z (n, latent) and cond int64 (n,), None for a net without classes."""
        code = self.code(z, cond)
        h = self.dense(code).reshape(-1, *self.first)
        for block in self.blocks:
            h = block(h, code)
        if self.spread is not None:
            h = F.pixel_shuffle(self.spread(F.silu(h)), self.stem)
        return self.leave(F.silu(h))[..., : self.shape[1], : self.shape[2]]
