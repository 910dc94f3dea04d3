"""Diffusion transformer for images: patches are tokens, and time and condition scale, shift and gate every block.

    h = W patches(x) + position,  e = E(time) + C(cond),  [shift, scale, gate, shift', scale', gate'] = M silu(e)
    h <- h + gate attention(scale norm(h) + shift),  h <- h + gate' mlp(scale' norm(h) + shift'),  F = patches of O h

M starts at 0 ("adaLN-zero"; scale stands for 1 plus its part of M): every block begins as the identity, so that depth
costs nothing at first. O starts at 0. Positions are sines and cosines of row and column, fixed, or the start of learned
ones. A picture that patches do not divide is padded at its right and lower edges, and cut back.

Shapes: x (n, c, h, w), time (n,), cond (n,) int64, a tree of conditions, or None -> (n, c, h, w).

References:
    Peebles & Xie 2023, "Scalable diffusion models with transformers", arXiv:2212.09748.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.conditions import Conditions
from ...equation.conditions import Cond
from .parts import SelfAttention, TimeAndCondition, zeroed
from .unet import cropped, padded


class DiT(nn.Module):
    """Diffusion transformer over images, conditioned on the time and, where there are some, on classes or conditions.

    Args:
        shape: shape of an image (c, h, w), of any height and width.
        classes: how many classes, 0 for none.
        conditions: what the network is told instead of a class: one condition, or several by name.
        patch: side of a patch in pixels.
        width: length of a token, a multiple of 4 and of `heads`.
        depth: transformer blocks.
        heads: heads of the attention.
        learned_positions: whether positions are learned, from the fixed ones on.

    Raises:
        ValueError: for sizes that do not fit, classes and conditions together, and for images of another shape.
    """

    positions: Tensor

    null = "missing"  # -1 and NaN are no condition, also where it is trained as somebody's own (own.py)

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 0,
        conditions: Conditions | None = None,
        patch: int = 2,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        learned_positions: bool = False,
    ):
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape = {tuple(shape)} must be (channels, height, width)")
        if min(patch, width, depth, heads) < 1 or width % 4 or width % heads:
            raise ValueError(
                f"DiT(patch={patch}, width={width}, depth={depth}, heads={heads}): sizes must be positive, and the "
                "width a multiple of 4 and of heads"
            )
        self.shape = tuple(shape)
        self.classes = classes
        self.patch = patch
        self.grid = (-(-shape[1] // patch), -(-shape[2] // patch))
        self.embed = TimeAndCondition(width, self.shape, classes, conditions)
        self.enter = nn.Linear((shape[0] + self.embed.channels) * patch**2, width)
        positions = sincos_positions(*self.grid, width)
        if learned_positions:
            self.positions = nn.Parameter(positions)
        else:
            self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.modulate = zeroed(nn.Linear(width, 2 * width))
        self.leave = zeroed(nn.Linear(width, shape[0] * patch**2))

    def forward(self, x: Tensor, time: Tensor, cond: Cond = None) -> Tensor:
        """Prediction like x (n, c, h, w), from time (n,) and the condition of each image, None for none."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, this net takes (n, {', '.join(map(str, self.shape))})")
        patches = F.pixel_unshuffle(padded(self.embed.beside(x, cond), self.patch), self.patch)
        h = self.enter(patches.flatten(2).mT) + self.positions
        e = F.silu(self.embed(time, cond))
        for block in self.blocks:
            h = block(h, e)
        shift, scale = self.modulate(e)[:, None].chunk(2, 2)
        patches = self.leave(modulated(h, shift, scale)).mT.unflatten(2, self.grid)
        return cropped(F.pixel_shuffle(patches, self.patch), self.shape[1:])


class DiTBlock(nn.Module):
    """Transformer block whose two branches an embedding scales, shifts and gates; it begins as the identity.

    Args:
        width: length of a token, and of the embedding.
        heads: heads of the attention.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        self.modulate = zeroed(nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The next tokens (n, tokens, width), from tokens h and the activated embedding e (n, width)."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulate(e)[:, None].chunk(6, 2)
        h = h + gate * self.attention(modulated(h, shift, scale))
        return h + mlp_gate * self.mlp(modulated(h, mlp_shift, mlp_scale))


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Tokens h (n, tokens, width), normalised, then scaled by 1 + scale and shifted, (n, 1, width) each."""
    return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Position of each patch: sines and cosines of its row and of its column, of width/4 frequencies from 1 to 1/10000.

    Args:
        rows: patches from top to bottom.
        columns: patches from left to right.
        width: length of a position, a multiple of 4.

    Returns:
        The positions (rows * columns, width), row by row.
    """
    frequencies = 10000.0 ** -torch.linspace(0, 1, width // 4)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [k.flatten()[:, None] * frequencies for k in (row, column)]
    return torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], 1)
