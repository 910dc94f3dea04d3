"""Parts of several backbones: Fourier features of the time, the embedding of time and condition, self-attention.

Shapes: time (n,), cond int64 (n,), a tree of such arrays, or None -> embedding e (n, embed).
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.conditions import Condition, Conditions
from ...equation.conditions import Cond
from ..condition_inputs import ConditionInput

Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)


def time_frequencies(features: int) -> Tensor:
    """Frequencies of the Fourier features of time, log-spaced in [1, 64]: 0.25 ln sigma spans about [-1.6, 1.1].

    Args:
        features: how many features, even: a cosine and a sine of each frequency.

    Returns:
        The frequencies (features/2,), in radians per unit of time.
    """
    return torch.logspace(0, 6, features // 2, base=2.0)


def fourier_features(time: Tensor, frequencies: Tensor) -> Tensor:
    """Fourier features [cos(w time), sin(w time)].

    Args:
        time: (n,).
        frequencies: the w (k,).

    Returns:
        The features (n, 2k).
    """
    angle = time[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], 1)


class TimeAndCondition(nn.Module):
    """Embedding e of time and condition: a perceptron of the time's Fourier features, plus the condition's embedding.

    Args:
        embed: length of e.
        shape: of one sample, (c, ...).
        classes: how many classes, 0 for none.
        conditions: what the network is told instead of a class: one condition, or several by name.
        features: Fourier features of the time, even.

    Raises:
        ValueError: for classes and conditions together.
    """

    frequencies: Tensor

    def __init__(
        self,
        embed: int,
        shape: tuple[int, ...],
        classes: int = 0,
        conditions: Conditions | None = None,
        features: int = 64,
    ):
        super().__init__()
        refuse_both(classes, conditions)
        self.register_buffer("frequencies", time_frequencies(features))
        self.time = nn.Sequential(nn.Linear(features, embed), nn.SiLU(), nn.Linear(embed, embed))
        if classes:
            conditions = Condition.labels(classes)
        self.condition = None if conditions is None else ConditionInput(conditions, embed, shape)

    @property
    def channels(self) -> int:
        """How many channels `beside` adds to x."""
        return 0 if self.condition is None else self.condition.channels

    def forward(self, time: Tensor, cond: Cond = None) -> Tensor:
        """The embedding e (n, embed), from time (n,) and the condition of each sample, None for none."""
        e = self.time(fourier_features(time, self.frequencies))
        return e if self.condition is None else e + self.condition(cond, len(time), time.device).to(e.dtype)

    def beside(self, x: Tensor, cond: Cond = None) -> Tensor:
        """Samples x (n, c, ...) with the maps of the condition as further channels, (n, c + channels, ...)."""
        if self.condition is None or not self.condition.channels:
            return x
        return torch.cat([x, self.condition.maps(cond, x)], 1)


def refuse_both(classes: int, conditions: object) -> None:
    """Raise ValueError where a network is given both classes and conditions."""
    if classes and conditions is not None:
        raise ValueError(
            f"classes = {classes} and conditions = {conditions!r}: a network is told one or the other; labels beside "
            'another condition are one more of them, {"label": Condition.labels(...), ...}'
        )


def zeroed(layer: Layer) -> Layer:
    """The layer with weights and biases 0, so that what it makes begins at 0."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class SelfAttention(nn.Module):
    """Self-attention among tokens, with several heads (Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        width: length of a token.
        heads: how many heads, which divide the width.

    Attributes:
        plain: whether it is made of matrix products, which can be differentiated twice; fused kernels cannot.
    """

    plain = False

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.enter = nn.Linear(width, 3 * width)
        self.leave = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """What each token reads from the others, (n, tokens, width) from h (n, tokens, width)."""
        query, key, value = self.enter(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.plain:
            read = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1) @ value
        else:
            read = F.scaled_dot_product_attention(query, key, value)
        return self.leave(read.transpose(1, 2).flatten(2))
