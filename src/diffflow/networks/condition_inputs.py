"""Condition inputs: embeddings of what a network is told, and maps that are laid beside the noised example.

    labels        a row of a table                      vector          two layers
    sequence      attention pooling over its steps      tokens          the same, over rows of a table
    image, ...    of the example's own size: extra channels beside it; of another: convolutions and a mean

Every condition has a learned null, the embedding of "no condition" (of maps: zeros, and a
channel that is 1 elsewhere). The embeddings of several conditions are added.

Shapes: x (n, *shape); cond as `data.conditions.encode` gives it; the embedding (n, embed).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.conditions import MAPS, Condition, Conditions, checked, named, null
from ..equation.conditions import Cond, is_null

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}  # by number of spatial axes


class ConditionInput(nn.Module):
    """Condition input: one embedding of all conditions, and the maps among them that have the example's own size.

    Args:
        conditions: what is told.
        embed: length of the embedding.
        shape: of an example, (channels, *sizes).
    """

    def __init__(self, conditions: Conditions, embed: int, shape: tuple[int, ...]):
        super().__init__()
        self.conditions, self.embed = conditions, embed
        sizes = tuple(shape[1:])
        self.beside = [name for name, c in named(conditions) if c.kind in MAPS and sizes and c.shape[1:] == sizes]
        self.parts = nn.ModuleDict(
            {_key(name): _embedding(c, embed) for name, c in named(conditions) if name not in self.beside}
        )
        self.channels = sum(c.shape[0] + 1 for name, c in named(conditions) if name in self.beside)

    def forward(self, cond: Cond, n: int, device: torch.device) -> Tensor:
        """The sum of the embeddings (n, embed); None is no condition for any sample.

        Raises:
            ValueError: a condition that is not what is told.
        """
        total = torch.zeros(n, self.embed, device=device)
        for name, leaf in self._rows(cond, n, device):
            if name not in self.beside:
                total = total + self.parts[_key(name)](leaf)
        return total

    def maps(self, cond: Cond, x: Tensor) -> Tensor:
        """The maps of x's own size with the channels that tell where there are some, (n, channels, *sizes)."""
        channels = []
        for name, leaf in self._rows(cond, len(x), x.device):
            if name in self.beside:
                present = (~is_null(leaf)).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)).expand(-1, 1, *x.shape[2:])
                channels += [leaf.nan_to_num(0.0).to(x.dtype), present]
        return torch.cat(channels, 1)

    def _rows(self, cond: Cond, n: int, device: torch.device) -> list[tuple[str, Tensor]]:
        """The tensors by name, n rows each, on the device."""
        cond = null(self.conditions, n, device) if cond is None else checked(self.conditions, cond, n)
        return [(name, (cond[name] if name else cond).to(device)) for name, _ in named(self.conditions)]


def _key(name: str) -> str:
    """A name as a ModuleDict takes it, another one for every name."""
    return "condition_" + name.replace("%", "%25").replace(".", "%2e")


def _embedding(condition: Condition, embed: int) -> nn.Module:
    """The network of one condition: rows (n, *shape) to embeddings (n, embed)."""
    if condition.kind == "labels":
        return LabelEmbedding(condition.classes, embed)
    if condition.kind == "vector":
        return VectorEmbedding(condition.shape[0], embed)
    if condition.kind in ("sequence", "tokens"):
        return SequenceEmbedding(condition, embed)
    return MapEmbedding(condition.shape, embed)


class LabelEmbedding(nn.Module):
    """Embedding of classes: a row of a table each, the last one for "no class"."""

    def __init__(self, classes: int, embed: int):
        super().__init__()
        self.table = nn.Embedding(classes + 1, embed)

    def forward(self, labels: Tensor) -> Tensor:
        """Embeddings (n, embed) of labels int64 (n,), -1 for none."""
        return self.table(torch.where(labels < 0, self.table.num_embeddings - 1, labels))


class NullEmbedding(nn.Module):
    """Embedding with a learned row in place of what is null: base of the embeddings of floats."""

    def __init__(self, embed: int):
        super().__init__()
        self.nothing = nn.Parameter(0.02 * torch.randn(embed))

    def chosen(self, e: Tensor, missing: Tensor) -> Tensor:
        """The embeddings e (n, embed), the learned row where `missing` (n,)."""
        return torch.where(missing[:, None], self.nothing.to(e.dtype), e)


class VectorEmbedding(NullEmbedding):
    """Embedding of vectors (n, k) by two layers."""

    def __init__(self, k: int, embed: int):
        super().__init__(embed)
        self.layers = nn.Sequential(nn.Linear(k, embed), nn.SiLU(), nn.Linear(embed, embed))

    def forward(self, c: Tensor) -> Tensor:
        """Embeddings (n, embed)."""
        return self.chosen(self.layers(c.nan_to_num(0.0).to(self.nothing.dtype)), is_null(c))


class SequenceEmbedding(NullEmbedding):
    """Embedding of sequences: learned queries attend to the steps that are there, each changed by its place."""

    def __init__(self, condition: Condition, embed: int, queries: int = 4):
        super().__init__(embed)
        tokens, length = condition.kind == "tokens", condition.shape[0]
        self.enter = nn.Embedding(condition.size + 1, embed) if tokens else nn.Linear(condition.shape[-1], embed)
        self.place = nn.Parameter(0.02 * torch.randn(length, embed))
        self.scale = nn.Parameter(torch.ones(length, embed) + 0.5 * torch.randn(length, embed))
        self.key = nn.Linear(embed, queries)  # the queries are its rows: they know no sample
        self.value = nn.Linear(embed, embed)
        self.leave = nn.Linear(queries * embed, embed)

    def forward(self, c: Tensor) -> Tensor:
        """Embeddings (n, embed)."""
        if c.is_floating_point():
            missing = c.isnan().any(-1)
            steps = self.enter(c.nan_to_num(0.0).to(self.place.dtype))
        else:
            missing = c < 0
            steps = self.enter(c.clamp_min(0))
        nothing = missing.all(1)
        h = F.silu(steps * self.scale + self.place)
        score = self.key(h).masked_fill((missing & ~nothing[:, None])[:, :, None], -torch.inf)
        pooled = torch.einsum("nlq,nle->nqe", score.softmax(1), self.value(h))
        return self.chosen(self.leave(F.silu(pooled.flatten(1))), nothing)


class MapEmbedding(NullEmbedding):
    """Embedding of maps (n, c, *sizes) of any size: convolutions that halve it, then the mean over places."""

    def __init__(self, shape: tuple[int, ...], embed: int):
        super().__init__(embed)
        conv = CONVOLUTIONS[len(shape) - 1]
        widths = (shape[0], 32, 64)
        self.layers = nn.Sequential(
            *(
                layer
                for a, b in itertools.pairwise(widths)
                for layer in (conv(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU())
            ),
        )
        self.leave = nn.Linear(widths[-1], embed)

    def forward(self, c: Tensor) -> Tensor:
        """Embeddings (n, embed)."""
        h = self.layers(c.nan_to_num(0.0).to(self.nothing.dtype)).flatten(2).mean(2)
        return self.chosen(self.leave(h), is_null(c))
