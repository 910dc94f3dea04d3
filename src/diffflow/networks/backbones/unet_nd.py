"""Residual U-Net for signals (n, c, l), images (n, c, h, w) and volumes (n, c, d, h, w): one net, any of 1 to 3 axes.

    block    h <- skip(h) + conv(silu((1 + scale) norm(conv(silu(norm(h)))) + shift)),    [scale, shift] = M silu(e)
    down     blocks, then a convolution of stride 2
    up       blocks that also see what the way down left, then a doubling of the sides

with e = E(time) + C(cond). The convolution that ends a block starts at 0, so that blocks begin as their skips, and so
does the last one. Sides that 2^(levels-1) does not divide are padded at their ends, and cut back; borders are borders
(zero padding): nothing is taken for periodic.

diffusers has no net for this: its `UNet1DModel` takes no condition, and its `UNet3DConditionModel` is for video (never
mixes or halves time as it does space), must be given a text, and is nearly blind to 0.25 ln sigma (unet.py says why).

Shapes: x (n, c, *sides), time (n,), cond (n,) int64, a tree of conditions, or None -> like x.

References:
    Ronneberger et al. 2015, arXiv:1505.04597. Dhariwal & Nichol 2021, arXiv:2105.05233 (scale and shift by e).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.conditions import Conditions
from ...equation.conditions import Cond
from ..condition_inputs import CONVOLUTIONS
from .parts import SelfAttention, TimeAndCondition, zeroed
from .unet import cropped, padded


class UNetND(nn.Module):
    """Residual U-Net over signals, images or volumes, conditioned on the time and on classes or conditions, if any.

    Args:
        shape: shape of a sample (c, l), (c, h, w) or (c, d, h, w), of any sides.
        classes: how many classes, 0 for none.
        conditions: what the network is told instead of a class: one condition, or several by name.
        widths: channels per resolution level, each a multiple of `groups`, of at least two channels a group; each level
            halves every side.
        layers: residual blocks per level.
        attention: whether there is self-attention at the lowest level.
        head: channels per attention head.
        groups: groups of the group normalisation.

    Raises:
        ValueError: for widths that do not fit, classes and conditions together, and for samples of another shape.
    """

    null = "missing"  # -1 and NaN are no condition, also where it is trained as somebody's own (own.py)

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        conditions: Conditions | None = None,
        widths: tuple[int, ...] = (32, 64, 64),
        layers: int = 1,
        attention: bool = True,
        head: int = 32,
        groups: int = 8,
    ):
        super().__init__()
        axes = len(shape) - 1
        if axes not in CONVOLUTIONS or min(shape) < 1:
            raise ValueError(f"shape = {tuple(shape)} must be (channels, side, ...), of one to three sides")
        if not widths or min(groups, layers, head) < 1 or any(w < 2 * groups or w % groups for w in widths):
            raise ValueError(
                f"widths = {tuple(widths)} must be multiples of groups = {groups}, of at least two channels a group, "
                f"and layers = {layers} and head = {head} at least 1"
            )
        if attention and widths[-1] % head:
            raise ValueError(f"the last width, {widths[-1]}, must be a multiple of head = {head}")
        self.shape = tuple(shape)
        self.classes = classes
        self.multiple = 2 ** (len(widths) - 1)
        embed = 4 * widths[0]
        self.embed = TimeAndCondition(embed, self.shape, classes, conditions)

        def block(channels: int, width: int) -> Block:
            return Block(axes, channels, width, embed, groups)

        def convolution(channels: int, width: int, stride: int = 1) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
            return CONVOLUTIONS[axes](channels, width, 3, stride, 1)

        self.enter = convolution(shape[0] + self.embed.channels, widths[0])
        channels = [widths[0]]  # of what the way down leaves for the way up
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            for _ in range(layers):
                self.down.append(block(channels[-1], width))
                channels.append(width)
            if level < len(widths) - 1:
                self.down.append(convolution(width, width, stride=2))
                channels.append(width)
        last = widths[-1]
        self.middle = nn.ModuleList([block(last, last), block(last, last)])
        self.attention = GridAttention(last, head, groups) if attention else None
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(layers + 1):
                self.up.append(block(last + channels.pop(), width))
                last = width
            if level:
                self.up.append(nn.Upsample(scale_factor=2))
        self.norm = nn.GroupNorm(groups, last)
        self.leave = zeroed(convolution(last, shape[0]))

    def forward(self, x: Tensor, time: Tensor, cond: Cond = None) -> Tensor:
        """Prediction like x (n, c, *sides), from time (n,) and the condition of each sample, None for none."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, this net takes (n, {', '.join(map(str, self.shape))})")
        e = F.silu(self.embed(time, cond))
        h = self.enter(padded(self.embed.beside(x, cond), self.multiple))
        skips = [h]
        for step in self.down:
            h = step(h, e) if isinstance(step, Block) else step(h)
            skips.append(h)
        h = self.middle[0](h, e)
        h = self.middle[1](h if self.attention is None else self.attention(h), e)
        for step in self.up:
            h = step(torch.cat([h, skips.pop()], 1), e) if isinstance(step, Block) else step(h)
        return cropped(self.leave(F.silu(self.norm(h))), self.shape[1:])


class Block(nn.Module):
    """Residual block of two convolutions, scaled and shifted between them by an embedding of time and condition.

    Args:
        axes: spatial axes, 1 to 3.
        channels: of what comes in.
        width: channels of what goes out.
        embed: length of the embedding.
        groups: groups of the group normalisation.
    """

    def __init__(self, axes: int, channels: int, width: int, embed: int, groups: int):
        super().__init__()
        convolution = CONVOLUTIONS[axes]
        self.skip = convolution(channels, width, 1) if channels != width else nn.Identity()
        self.norm = nn.GroupNorm(groups, channels)
        self.inner = convolution(channels, width, 3, padding=1)
        self.modulate = nn.Linear(embed, 2 * width)
        self.inner_norm = nn.GroupNorm(groups, width)
        self.outer = zeroed(convolution(width, width, 3, padding=1))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The next h (n, width, *sides), from h (n, channels, *sides) and the activated embedding e (n, embed)."""
        scale, shift = self.modulate(e)[(..., *[None] * (h.dim() - 2))].chunk(2, 1)
        inner = self.inner_norm(self.inner(F.silu(self.norm(h)))) * (1 + scale) + shift
        return self.skip(h) + self.outer(F.silu(inner))


class GridAttention(nn.Module):
    """Self-attention among all places of a grid, added to what is there; it begins as the identity.

    Args:
        width: channels.
        head: channels per head.
        groups: groups of the group normalisation.
    """

    def __init__(self, width: int, head: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.attention = SelfAttention(width, width // head)
        zeroed(self.attention.leave)

    def forward(self, h: Tensor) -> Tensor:
        """The next h (n, width, *sides), from h of the same shape."""
        return h + self.attention(self.norm(h).flatten(2).mT).mT.unflatten(2, h.shape[2:])
