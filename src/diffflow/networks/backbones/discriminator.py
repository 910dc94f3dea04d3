r"""Discriminators: nets that give one logit per particle. What is the least such net whose input gradient is a good
field?

Smooth (SiLU, so that grad d is continuous and can be penalised), residual with branches that start at zero (Zhang et
al. 2019: depth without normalisation), and without batch statistics: a particle's logit does not depend on its
neighbours. What is known besides x enters as one embedding

    e = T [cos(w time), sin(w time)] + C[cond] + S dials

into every block (nets/mlp.py), and the class also by projection onto the features phi, d = <v, phi> + <V[cond], phi>
(Miyato & Koyama 2018). `spectral` divides every weight matrix by its largest singular value (Miyato et al. 2018).

Shapes: x (n, d) or (n, c, h, w), time (n,), cond int64 (n,) or None, dials (n, k) or None -> (n,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from .mlp import rows

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
SILU = 1.68  # E silu(u)^2 = 1.68^-2 for u ~ N(0, 1)


def scaled(layer: Layer, gain: float = 1.0) -> Layer:
    """The layer with weights N(0, gain^2 / fan_in) and no bias: it keeps the size of its input, with gain SILU of what
    silu leaves of it. A generator that starts small in z learns to ignore z.
    """
    nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Context(nn.Module):
    """What a net is told besides x, as one embedding (n, width)."""

    frequencies: Tensor

    def __init__(self, width: int, classes: int, timed: bool, dials: int):
        super().__init__()
        if width < 2 or width % 2 or classes < 0 or dials < 0:
            raise ValueError(
                f"embed = {width} must be even and positive, classes = {classes} and dials = {dials} not negative"
            )
        self.width, self.classes = width, classes
        self.register_buffer("frequencies", torch.logspace(0, 6, width // 2, base=2.0), persistent=False)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU()) if timed else None
        self.label = nn.Embedding(classes + 1, width) if classes else None  # the last row is "no class"
        self.dials = nn.Sequential(nn.Linear(dials, width), nn.SiLU()) if dials else None

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None, dials: Tensor | None) -> Tensor:
        e = x.new_zeros(len(x), self.width)
        if self.time is not None:
            angle = time[:, None] * self.frequencies
            e = e + self.time(torch.cat([angle.cos(), angle.sin()], 1))
        if self.label is not None:
            e = e + self.label(rows(cond, len(x), self.classes, x.device))
        if self.dials is not None:
            e = e + self.dials(dials)
        return e


class Head(nn.Module):
    """Features phi (n, width) -> logit (n,): <v, phi> + b, plus <V[cond], phi> where there are classes."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.classes = classes
        self.out = scaled(nn.Linear(width, 1))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=width**-0.5)

    def forward(self, phi: Tensor, cond: Tensor | None) -> Tensor:
        logit = self.out(phi).squeeze(1)
        if self.label is not None:
            logit = logit + (self.label(rows(cond, len(phi), self.classes, phi.device)) * phi).sum(1)
        return logit


class TwinClassifiers(nn.Module):
    """Features phi (n, width) -> log r(c|x) and log p(c|x), (n, classes) each: of which class x would be among the real
    samples, and among the generated ones (Gong et al. 2019). Where classes are as frequent in both, by Bayes

        log r(x|c)/p(x|c) = log r(x)/p(x) + log r(c|x) - log p(c|x),

    and a classifier learns its part from every sample, a logit only where the two laws differ. Both start undecided.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.real, self.made = nn.Linear(width, classes), nn.Linear(width, classes)
        for layer in (self.real, self.made):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        return self.real(phi).log_softmax(1), self.made(phi).log_softmax(1)


def bound(net: nn.Module) -> None:
    """Divide every weight matrix of `net` by its largest singular value, by one power iteration per training call."""
    for module in list(net.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            spectral_norm(module)


class Branch(nn.Module):
    """h + B silu(A silu(h) + M e), for vectors."""

    def __init__(self, width: int, embed: int, zero: bool):
        super().__init__()
        self.inner, self.embed = scaled(nn.Linear(width, width), SILU), scaled(nn.Linear(embed, width))
        self.outer = scaled(nn.Linear(width, width), 0.0 if zero else SILU)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return h + self.outer(F.silu(self.inner(F.silu(h)) + self.embed(e)))


class Waves(nn.Module):
    """x -> [x, cos Wx, sin Wx] (n, dim + 2 count): random directions of W, lengths log-spaced from 1 to `fastest` per
    unit of x (Tancik et al. 2020). Without waves an MLP learns what is narrow in x last.
    """

    directions: Tensor

    def __init__(self, dim: int, count: int, fastest: float):
        super().__init__()
        if count < 0 or not 1 < fastest < math.inf:
            raise ValueError(f"waves = {count} must be >= 0, and fastest = {fastest} finite and above 1")
        w = F.normalize(torch.randn(count, dim), dim=1)
        self.register_buffer("directions", w * torch.logspace(0, math.log2(fastest), count, base=2.0)[:, None])
        self.width = dim + 2 * count

    def forward(self, x: Tensor) -> Tensor:
        if not len(self.directions):
            return x
        angle = x @ self.directions.T
        return torch.cat([x, angle.cos(), angle.sin()], 1)


class MLPDiscriminator(nn.Module):
    """A residual MLP over vectors of length `dim`, to one logit. `dials`: how many dial values it is told; `waves`: how
    many Fourier features of x it sees beside x itself, of up to `fastest` radians per unit (for data with features
    much narrower than its spread).

    Raises ValueError for sizes below one, or a wrong vector length.
    """

    def __init__(
        self,
        dim: int,
        classes: int = 0,
        width: int = 128,
        depth: int = 3,
        embed: int = 64,
        timed: bool = True,
        dials: int = 0,
        spectral: bool = False,
        waves: int = 0,
        fastest: float = 24.0,
    ):
        super().__init__()
        if min(dim, width, depth) < 1:
            raise ValueError(f"MLPDiscriminator(dim={dim}, width={width}, depth={depth}): sizes must be positive")
        self.dim, self.classes, self.timed, self.dials = dim, classes, timed, dials
        self.context = Context(embed, classes, timed, dials)
        self.waves = Waves(dim, waves, fastest)
        self.enter = scaled(nn.Linear(self.waves.width, width))
        self.blocks = nn.ModuleList(Branch(width, embed, zero=not spectral) for _ in range(depth))
        self.head = Head(width, classes)
        if spectral:
            bound(self)

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None, dials: Tensor | None = None) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}, this discriminator takes (n, {self.dim})")
        e, h = self.context(x, time, cond, dials), self.enter(self.waves(x))
        for block in self.blocks:
            h = block(h, e)
        return self.head(F.silu(h), cond)


class Down(nn.Module):
    """A residual block that halves the image: 1x1(pool h) + conv silu(conv/2 silu(h) + M e).

    The halving filter is 4 x 4: every inner pixel meets as many of its taps as the next, so that the input gradient,
    which moves particles, has no checkerboard (Odena et al. 2016).
    """

    def __init__(self, before: int, after: int, embed: int, zero: bool):
        super().__init__()
        self.skip = scaled(nn.Conv2d(before, after, 1))
        self.inner = scaled(nn.Conv2d(before, after, 4, stride=2), SILU)
        self.embed = scaled(nn.Linear(embed, after))
        self.outer = scaled(nn.Conv2d(after, after, 3, padding=1), 0.0 if zero else SILU)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        odd_height, odd_width = h.shape[2] % 2, h.shape[3] % 2
        padded = F.pad(F.silu(h), (1, 1 + odd_width, 1, 1 + odd_height))
        branch = F.silu(self.inner(padded) + self.embed(e)[:, :, None, None])
        return self.skip(F.avg_pool2d(h, 2, ceil_mode=True)) + self.outer(branch)


class ConvDiscriminator(nn.Module):
    """A residual convolutional net over images of `shape` (c, h, w), of any size, to one logit. Every entry of `widths`
    is a block that halves the image; what is left goes through one dense layer.

    Raises ValueError for sizes below one, or images of another shape.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 0,
        widths: Sequence[int] = (32, 64),
        timed: bool = True,
        dials: int = 0,
        spectral: bool = False,
        embed: int = 64,
    ):
        super().__init__()
        if len(shape) != 3 or min(shape) < 1 or not widths or min(widths) < 1:
            raise ValueError(f"ConvDiscriminator(shape={tuple(shape)}, widths={tuple(widths)}): sizes must be positive")
        self.shape, self.classes, self.timed, self.dials = tuple(shape), classes, timed, dials
        self.context = Context(embed, classes, timed, dials)
        self.enter = scaled(nn.Conv2d(shape[0], widths[0], 3, padding=1))
        self.blocks = nn.ModuleList(
            Down(a, b, embed, zero=not spectral) for a, b in zip((widths[0], *widths), widths, strict=False)
        )
        left = math.prod(-(-side // 2 ** len(widths)) for side in shape[1:])
        self.dense = scaled(nn.Linear(widths[-1] * left, 2 * widths[-1]), SILU)
        self.head = Head(2 * widths[-1], classes)
        if spectral:
            bound(self)

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None, dials: Tensor | None = None) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            takes = ", ".join(map(str, self.shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, this discriminator takes (n, {takes})")
        e, h = self.context(x, time, cond, dials), self.enter(x)
        for block in self.blocks:
            h = block(h, e)
        return self.head(F.silu(self.dense(F.silu(h).flatten(1))), cond)


class Stages(nn.Module):
    """K independent nets, one per equal interval of time in [0, 1): net k sees the particles with k <= K time < k+1,
    and a time of 1 or more belongs to the last (derivations.md 3.2, one discriminator per step).

    Raises ValueError without nets, or with nets that take different classes or dials.
    """

    timed = True

    def __init__(self, nets: Sequence[Any]):
        super().__init__()
        if not nets or len({(net.classes, net.dials) for net in nets}) > 1:
            raise ValueError("Stages needs at least one net, all with the same classes and dials")
        self.nets = nn.ModuleList(nets)
        self.classes, self.dials = nets[0].classes, nets[0].dials

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None, dials: Tensor | None = None) -> Tensor:
        # a time k/K in float32 may be a hair below itself: it begins stage k all the same
        stage = (time * len(self.nets) + 1e-4).long().clamp(0, len(self.nets) - 1)
        logit = x.new_zeros(len(x))
        for k in stage.unique().tolist():
            at = stage == k
            own = self.nets[k](
                x[at], time[at], None if cond is None else cond[at], None if dials is None else dials[at]
            )
            logit = logit.index_put((at,), own.to(logit.dtype))
        return logit
