"""Fast UNets for pictures: what learns most in few minutes, on a processor above all.

    x (c, h, w) -> p x p pixels become c p^2 channels -> UNet of one-convolution blocks -> pixels again -> refinement

The whole net works on a grid of h/p x w/p places, where a convolution costs p^2 times less than on pixels. What that
loses is the finest noise, whose removal needs pixels: so some channels of the last layer go back to every pixel and
through thin convolutions there, which add to the net's own prediction.

    block       x + W silu(conv3x3(norm(x) (1 + scale) + shift)), W a 1x1: one convolution where others have two
    embedding   time and condition (parts.py) -> scale and shift of every block

Shapes: x (n, c, h, w), time (n,), cond as `data.conditions.encode` gives it, augment (n, k) or None -> (n, c, h, w).

References:
    Shi et al. 2016, arXiv:1609.05158 (pixel shuffle). Hoogeboom et al. 2023, arXiv:2301.11093 (UNets on fewer places).
    Liu et al. 2022, arXiv:2201.03545 (one spatial convolution a block).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.conditions import Conditions
from ...equation.conditions import Cond
from .parts import SelfAttention, TimeAndCondition, zeroed
from .unet import WayDown, cropped, padded, with_mean_class


class Block(nn.Module):
    """Residual block of one convolution, told time and condition by a scale and a shift.

    Args:
        width: channels.
        embed: length of the embedding.
        groups: groups of the group normalisation.
    """

    def __init__(self, width: int, embed: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, affine=False)
        self.told = nn.Linear(embed, 2 * width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.leave = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Like x (n, width, h, w), from the embedding e (n, embed)."""
        scale, shift = self.told(e)[:, :, None, None].chunk(2, 1)
        h = torch.addcmul(shift, self.norm(x), 1 + scale)
        return x + self.leave(F.silu(self.conv(h)))


class Attention(nn.Module):
    """Self-attention among the places of a picture, added to it.

    Args:
        width: channels.
        heads: heads of the attention, which divide the width.
        groups: groups of the group normalisation.
    """

    def __init__(self, width: int, heads: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.attention = SelfAttention(width, heads)
        zeroed(self.attention.leave)

    def forward(self, x: Tensor) -> Tensor:
        """Like x (n, width, h, w)."""
        read = self.attention(self.norm(x).flatten(2).transpose(1, 2))
        return x + read.transpose(1, 2).unflatten(2, x.shape[2:])


class Refinement(nn.Module):
    """Thin convolutions at full resolution, which add to the prediction what places of p x p pixels cannot see.

    Args:
        channels: channels of the picture.
        width: channels at full resolution, more than the picture's; 16 and 32 are the quick numbers.
        embed: length of the embedding.
    """

    def __init__(self, channels: int, width: int, embed: int):
        super().__init__()
        self.enter = nn.Conv2d(width, width, 3, padding=1)
        self.told = zeroed(nn.Linear(embed, width))
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.leave = zeroed(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, h: Tensor, x: Tensor, e: Tensor) -> Tensor:
        """What is added (n, channels, h, w), from the net's h (n, width - channels, h, w), the input x and e."""
        h = F.silu(self.enter(torch.cat([h, x.to(h.dtype)], 1)) * (1 + self.told(e)[:, :, None, None]))
        return self.leave(F.silu(self.middle(h)))


class FastUNet(nn.Module):
    """UNet on places of several pixels, of one-convolution blocks, with a thin refinement of pixels.

    Args:
        shape: shape of a picture (c, h, w), of any height and width.
        classes: how many classes, 0 for none.
        widths: channels per resolution level, multiples of `groups`; each level halves the grid of places.
        layers: blocks per level, on the way down and up; one less at the highest, where they cost most.
        stem: side of a place in pixels.
        refine: channels of the refinement, the picture's own among them; 0: none.
        attention: whether there is self-attention at the lowest level.
        head: channels of an attention head.
        groups: groups of the group normalisation.
        conditions: what the network is told instead of a class: one condition, or several by name.
        augment: how many numbers say how a training picture was augmented; 0: none.

    Raises:
        ValueError: for widths, layers, a stem or a shape that cannot be meant, classes and conditions together, and
            for pictures of another shape.
    """

    null = "missing"

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 0,
        widths: tuple[int, ...] = (48, 96, 128),
        layers: int = 2,
        stem: int = 2,
        refine: int = 32,
        attention: bool = False,
        head: int = 32,
        groups: int = 8,
        conditions: Conditions | None = None,
        augment: int = 0,
    ):
        super().__init__()
        if not widths or any(w < groups or w % groups for w in widths):
            raise ValueError(f"widths = {tuple(widths)} must be multiples of groups = {groups}")
        if len(shape) != 3 or min(*shape, stem, layers) < 1 or refine < 0:
            raise ValueError(f"shape = {tuple(shape)}, stem = {stem}, layers = {layers} must be positive")
        if 0 < refine <= shape[0]:
            raise ValueError(f"refine = {refine} must be more than the {shape[0]} channels of the picture, or 0")
        if attention and widths[-1] % head:
            raise ValueError(f"the last width, {widths[-1]}, must be a multiple of head = {head}")
        self.shape, self.classes, self.stem = tuple(shape), classes, stem
        self.augment_labels = augment
        self.multiple = stem * 2 ** (len(widths) - 1)
        self.widths, self.groups = tuple(widths), groups
        channels, embed = shape[0], 4 * widths[0]
        self.embedding = TimeAndCondition(embed, tuple(shape), classes, conditions)
        self.augment = nn.Linear(augment, embed, bias=False) if augment else None
        if self.augment is not None:
            nn.init.zeros_(self.augment.weight)
        seen = channels + self.embedding.channels
        self.enter = nn.Conv2d(seen * stem**2, widths[0], 3, padding=1)

        counts = [max(1, layers - 1)] + [layers] * (len(widths) - 1)

        def blocks(width: int, count: int) -> Any:
            return nn.ModuleList(Block(width, embed, groups) for _ in range(count))

        pairs = list(itertools.pairwise(widths))
        self.down: Any = nn.ModuleList(blocks(w, n) for w, n in zip(widths, counts, strict=True))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.attention = Attention(widths[-1], widths[-1] // head, groups) if attention else None
        self.middle = Block(widths[-1], embed, groups)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.up: Any = nn.ModuleList(blocks(w, n) for w, n in zip(widths[:-1], counts[:-1], strict=True))
        self.norm = nn.GroupNorm(groups, widths[0])
        self.leave = zeroed(nn.Conv2d(widths[0], max(refine, channels) * stem**2, 3, padding=1))
        if refine:  # what is handed to the pixels begins as a map of features, the prediction at 0
            nn.init.normal_(self.leave.weight[channels * stem**2 :], std=(9 * widths[0]) ** -0.5)
        self.refinement = Refinement(channels, refine, embed) if refine else None

    def forward(self, x: Tensor, time: Tensor, cond: Cond = None, augment: Tensor | None = None) -> Tensor:
        """Prediction like x (n, c, h, w), from time (n,), the condition of each picture, and how it was augmented."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, this net takes (n, {', '.join(map(str, self.shape))})")
        e = self.embedding(time, cond)
        if self.augment is not None and augment is not None:
            e = e + self.augment(augment.to(e.dtype))
        e = F.silu(e)
        picture = padded(x, self.multiple)
        h = self.enter(F.pixel_unshuffle(padded(self.embedding.beside(x, cond), self.multiple), self.stem))
        kept: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            for block in blocks.children():
                h = block(h, e)
            if level < len(self.shrink):
                kept.append(h)
                h = self.shrink[level](h)
        h = self.middle(h if self.attention is None else self.attention(h), e)
        for level in reversed(range(len(self.up))):
            h = kept[level] + F.interpolate(self.grow[level](h), scale_factor=2.0, mode="nearest")
            for block in self.up[level].children():
                h = block(h, e)
        out = F.pixel_shuffle(self.leave(F.silu(self.norm(h))), self.stem)
        if self.refinement is not None:
            features = out[:, self.shape[0] :]
            out = out[:, : self.shape[0]] + self.refinement(features, picture, e)
        return cropped(out, self.shape[1:])


class FastUNetDiscriminator(WayDown):
    """Discriminator for pictures: the way down of a `FastUNet`, with its middle block.

    Args:
        source: the net, told nothing but classes; it is taken apart, so give it away.

    Raises:
        ValueError: for a net that is told other conditions, and for pictures of another shape.
    """

    def __init__(self, source: FastUNet):
        super().__init__(source.shape, source.classes, source.multiple)
        if source.embedding.condition is not None and not source.classes:
            raise ValueError(
                "the net is told conditions, and this discriminator knows classes alone: give it one without"
            )
        self.stem = source.stem
        self.embedding, self.enter = source.embedding, source.enter
        self.down, self.shrink = source.down, source.shrink
        self.attention, self.middle = source.attention, source.middle
        if self.attention is not None:
            self.attention.attention.plain = True  # slope penalties are differentiated twice
        self.add_end(source.widths[-1], source.groups)

    def features(self, x: Tensor, time: Tensor) -> Tensor:
        """What the middle block gives, (n, width, h / multiple, w / multiple)."""
        e = F.silu(self.embedding(time))
        h = self.enter(F.pixel_unshuffle(padded(x, self.multiple), self.stem))
        for level, blocks in enumerate(self.down):
            for block in blocks.children():
                h = block(h, e)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        return self.middle(h if self.attention is None else self.attention(h), e)

    def begin(self, weights: Mapping[str, Tensor], classless: bool = True) -> None:
        """Start from a trained `FastUNet`."""
        own = ("norm.", "dense.", "head.", "twins.")  # what a denoiser has not
        start = {k: weights[k] for k in self.state_dict() if not k.startswith(own)}
        if self.classes and not classless:
            (table,) = (k for k in start if k.startswith("embedding.condition.") and k.endswith("table.weight"))
            start[table] = with_mean_class(start[table])
        missing = self.load_state_dict(start, strict=False).missing_keys
        assert all(k.startswith(own) for k in missing)
