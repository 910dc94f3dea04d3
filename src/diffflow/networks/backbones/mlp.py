"""Residual MLP for vectors: the least net that learns a denoiser on tables and toys.

    h = W x + E(time) + C[cond],    h <- h + B silu(A silu(norm(h)) + M e),    F = O norm(h)

with Fourier features E(time) = [cos(w time), sin(w time)], w log-spaced in [1, 64] (time = 0.25 ln sigma spans about
[-1.6, 1.1]), and an embedding row per class plus one for "no class", or the embedding of another condition. Beside x
the net can be shown sin and cos of 2^k pi x: it is smooth, and learns what is narrow in wide data (columns of few
values) last.

Shapes: x (n, d), time (n,), cond (n,) int64, a tree of conditions, or None.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.conditions import Conditions
from ...equation.conditions import Cond
from ..condition_inputs import ConditionInput
from .parts import fourier_features, refuse_both, time_frequencies


class ResidualBlock(nn.Module):
    """Residual block h + B silu(A silu(norm(h)) + M e), shifted by an embedding e of time and class.

    Args:
        width: length of h.
        embed: length of e.
    """

    def __init__(self, width: int, embed: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.embed = nn.Linear(embed, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)  # starts as the identity, so depth costs nothing at first
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The next h (n, width), from h (n, width) and e (n, embed)."""
        return h + self.outer(F.silu(self.inner(F.silu(self.norm(h))) + self.embed(e)))


class MLP(nn.Module):
    """Residual MLP over vectors, conditioned on the time and, where there are some, on classes or conditions.

    Args:
        dim: length d of a vector.
        classes: how many classes, 0 for none.
        width: length of the hidden vector.
        depth: residual blocks.
        embed: length of the embedding of time and class, even.
        octaves: the k of the sines and cosines of 2^k pi x that the net is shown beside x.
        conditions: what the network is told instead of a class: one condition, or several by name.
        out: length of what it returns; None: dim.
        beside: numbers that it is shown behind the d of x, as they are: a denoiser's skip.
        known: length of what it can be told by name, `known` bool (n, known): which coordinates are; 0: nothing.

    Raises:
        ValueError: for sizes below one or an odd embed, classes and conditions together, and for vectors of another
            length.
    """

    frequencies: Tensor

    null = "missing"  # -1 and NaN are no condition, also where it is trained as somebody's own (own.py)

    def __init__(
        self,
        dim: int,
        classes: int = 0,
        width: int = 256,
        depth: int = 4,
        embed: int = 64,
        octaves: tuple[int, ...] = (),
        conditions: Conditions | None = None,
        out: int | None = None,
        known: int = 0,
        beside: int = 0,
    ):
        super().__init__()
        if min(dim, width, depth, embed // 2) < 1 or min(classes, beside) < 0 or embed % 2:
            raise ValueError(
                f"MLP(dim={dim}, classes={classes}, width={width}, depth={depth}, embed={embed}): "
                "sizes must be positive, embed even"
            )
        refuse_both(classes, conditions)
        self.dim = dim
        self.beside = beside
        self.classes = classes
        self.octaves = tuple(octaves)
        self.register_buffer("frequencies", time_frequencies(embed))
        self.label = nn.Embedding(classes + 1, embed) if classes else None  # the last row is "no class"
        self.condition = None if conditions is None else ConditionInput(conditions, embed, (dim,))
        self.time = nn.Sequential(nn.Linear(embed, embed), nn.SiLU())
        self.enter = nn.Linear(dim * (1 + 2 * len(octaves)) + beside, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, embed) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, dim if out is None else out)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.takes_known = known > 0
        self.known = nn.Linear(known, width, bias=False) if known else None

    def forward(self, x: Tensor, time: Tensor, cond: Cond = None, known: Tensor | None = None) -> Tensor:
        """Prediction (n, out) from x (n, d), time (n,) and the condition of each row, -1 or None for no class."""
        if x.dim() != 2 or x.shape[1] != self.dim + self.beside:
            raise ValueError(f"x has shape {tuple(x.shape)}, this net takes (n, {self.dim + self.beside})")
        e = self.time(fourier_features(time, self.frequencies))
        if self.label is not None:
            e = e + self.label(class_rows(cond, len(x), self.classes, x.device))
        if self.condition is not None:
            e = e + self.condition(cond, len(x), x.device).to(e.dtype)
        waves = sines(x[:, : self.dim], self.octaves)
        h = self.enter(torch.cat([waves, x[:, self.dim :]], 1) if self.beside else waves)
        if self.known is not None and known is not None:
            h = h + self.known(known.to(h.dtype))
        for block in self.blocks:
            h = block(h, e)
        return self.leave(F.silu(self.norm(h)))


def class_rows(cond: Tensor | None, n: int, classes: int, device: torch.device) -> Tensor:
    """Rows of a class table that belong to labels; None and -1 both mean the last row, "no class".

    Args:
        cond: labels int64 (n,), or None.
        n: how many samples.
        classes: how many classes; the table has one row more.
        device: of the rows.

    Returns:
        Row numbers int64 (n,).
    """
    if cond is None:
        return torch.full((n,), classes, device=device)
    return torch.where(cond < 0, classes, cond)


def sines(x: Tensor, octaves: tuple[int, ...]) -> Tensor:
    """Fourier features: sin and cos of 2^k pi x, joined to x along its channels.

    Args:
        x: vectors (n, c) or images (n, c, h, w).
        octaves: the k.

    Returns:
        The features (n, c (1 + 2 len(octaves)), ...).
    """
    angles = [math.pi * 2.0**k * x for k in octaves]
    return torch.cat([x, *(a.sin() for a in angles), *(a.cos() for a in angles)], 1) if octaves else x
