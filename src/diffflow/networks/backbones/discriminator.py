"""Backbones of discriminators: nets that give one logit per particle, with an input gradient that is a good field.

They are smooth (SiLU, so that grad d is continuous and can be penalised), residual with branches that start at zero
(Zhang et al. 2019: depth without normalisation), and without batch statistics: a particle's logit does not depend on
its neighbours. What is known besides x enters as one embedding

    e = T [cos(w time), sin(w time)] + C[cond] + S dials

into every block (as in mlp.py), and the class also by projection onto the features phi, d = <v, phi> + <V[cond], phi>
(Miyato & Koyama 2018). `spectral` divides every weight matrix by its largest singular value (Miyato et al. 2018).

Shapes: x (n, d) or (n, c, h, w), time (n,), cond int64 (n,) or None, dials (n, k) or None -> (n,).

References:
    Miyato & Koyama 2018, arXiv:1802.05637. Miyato et al. 2018, arXiv:1802.05957. Zhang et al. 2019, arXiv:1901.09321.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from .mlp import class_rows

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
SILU = 1.68  # E silu(u)^2 = 1.68^-2 for u ~ N(0, 1)


def scaled(layer: Layer, gain: float = 1.0) -> Layer:
    """The layer with fresh weights N(0, gain^2 / fan_in) and biases 0: it keeps the size of its input.

    A generator that starts small in z learns to ignore z.

    Args:
        layer: the layer, changed in place.
        gain: factor of the size; SILU makes up for what silu leaves of a standard normal.

    Returns:
        The same layer.
    """
    nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Context(nn.Module):
    """Embedding of what a net is told besides x: time, class and dials, as one vector.

    Args:
        width: length of the vector, even.
        classes: how many classes, 0 for none.
        timed: whether it takes the time.
        dials: how many dials it takes.

    Raises:
        ValueError: for a width that is not even and positive, and for negative numbers.
    """

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
        """The embedding (n, width) of time (n,), cond int64 (n,) and dials (n, k), in the type of x."""
        e = x.new_zeros(len(x), self.width)
        if self.time is not None:
            angle = time[:, None] * self.frequencies
            e = e + self.time(torch.cat([angle.cos(), angle.sin()], 1))
        if self.label is not None:
            e = e + self.label(class_rows(cond, len(x), self.classes, x.device))
        if self.dials is not None:
            e = e + self.dials(dials)
        return e


class Head(nn.Module):
    """Last layer: features phi -> the logit <v, phi> + b, plus <V[cond], phi> where there are classes.

    Args:
        width: length of phi.
        classes: how many classes, 0 for none.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.classes = classes
        self.out = scaled(nn.Linear(width, 1))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=width**-0.5)

    def forward(self, phi: Tensor, cond: Tensor | None) -> Tensor:
        """The logit (n,) of features phi (n, width) and cond int64 (n,), -1 or None for no class."""
        logit = self.out(phi).squeeze(1)
        if self.label is not None:
            logit = logit + (self.label(class_rows(cond, len(phi), self.classes, phi.device)) * phi).sum(1)
        return logit


class TwinClassifiers(nn.Module):
    """Two classifiers: of which class x would be among the real samples, and among the generated ones.

    Where classes are as frequent in both, by Bayes

        log r(x|c)/p(x|c) = log r(x)/p(x) + log r(c|x) - log p(c|x),

    and a classifier learns its part from every sample, a logit only where the two laws differ. Both start undecided.

    Args:
        width: length of the features phi.
        classes: how many classes.

    References:
        Gong et al. 2019, "Twin auxiliary classifiers GAN", arXiv:1907.02690.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.real = nn.Linear(width, classes)
        self.made = nn.Linear(width, classes)
        for layer in (self.real, self.made):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities log r(c|x) and log p(c|x), (n, classes) each, of features phi (n, width)."""
        return self.real(phi).log_softmax(1), self.made(phi).log_softmax(1)


def bound(net: nn.Module) -> None:
    """Divide every weight matrix of `net` by its largest singular value, by one power iteration per training call."""
    for module in list(net.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            spectral_norm(module)


class Branch(nn.Module):
    """Residual block for vectors: h + B silu(A silu(h) + M e).

    Args:
        width: length of h.
        embed: length of the embedding e.
        zero: whether B starts at zero, so that the block starts as the identity.
    """

    def __init__(self, width: int, embed: int, zero: bool):
        super().__init__()
        self.inner = scaled(nn.Linear(width, width), SILU)
        self.embed = scaled(nn.Linear(embed, width))
        self.outer = scaled(nn.Linear(width, width), 0.0 if zero else SILU)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The next h (n, width), from h (n, width) and e (n, embed)."""
        return h + self.outer(F.silu(self.inner(F.silu(h)) + self.embed(e)))


class Waves(nn.Module):
    """Fourier features x -> [x, cos Wx, sin Wx], W with random directions and log-spaced lengths.

    Without them an MLP learns what is narrow in x last.

    Args:
        dim: length of x.
        count: how many rows W has.
        fastest: largest length of a row, in radians per unit of x; the smallest is 1.

    Raises:
        ValueError: for a negative count, or a fastest that is not finite and above 1.

    References:
        Tancik et al. 2020, arXiv:2006.10739.
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
        """The features (n, dim + 2 count) of x (n, dim)."""
        if not len(self.directions):
            return x
        angle = x @ self.directions.T
        return torch.cat([x, angle.cos(), angle.sin()], 1)


class MLPDiscriminator(nn.Module):
    """Residual MLP over vectors, to one logit.

    Args:
        dim: length d of a vector.
        classes: how many classes, 0 for none.
        width: length of the hidden vector.
        depth: residual blocks.
        embed: length of the embedding of time, class and dials, even.
        timed: whether it takes the time.
        dials: how many dials it takes.
        spectral: whether every weight matrix is divided by its largest singular value.
        waves: Fourier features of x that it sees beside x itself, for data with features much narrower than its spread.
        fastest: their highest frequency, in radians per unit of x.

    Raises:
        ValueError: for sizes below one, and for vectors of another length.
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
        self.dim = dim
        self.classes = classes
        self.timed = timed
        self.dials = dials
        self.context = Context(embed, classes, timed, dials)
        self.waves = Waves(dim, waves, fastest)
        self.enter = scaled(nn.Linear(self.waves.width, width))
        self.blocks = nn.ModuleList(Branch(width, embed, zero=not spectral) for _ in range(depth))
        self.head = Head(width, classes)
        if spectral:
            bound(self)

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None, dials: Tensor | None = None) -> Tensor:
        """Logits (n,) of x (n, d) at time (n,), cond int64 (n,) or None and dials (n, k) or None."""
        if x.dim() != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}, this discriminator takes (n, {self.dim})")
        e, h = self.context(x, time, cond, dials), self.enter(self.waves(x))
        for block in self.blocks:
            h = block(h, e)
        return self.head(F.silu(h), cond)


class Down(nn.Module):
    """Residual block that halves the image: 1x1(pool h) + conv silu(conv/2 silu(h) + M e).

    The halving filter is 4 x 4: every inner pixel meets as many of its taps as the next, so that the input gradient,
    which moves particles, has no checkerboard.

    Args:
        before: channels of its input.
        after: channels of its output.
        embed: length of the embedding e.
        zero: whether the last convolution starts at zero.

    References:
        Odena et al. 2016, "Deconvolution and checkerboard artifacts", doi:10.23915/distill.00003.
    """

    def __init__(self, before: int, after: int, embed: int, zero: bool):
        super().__init__()
        self.skip = scaled(nn.Conv2d(before, after, 1))
        self.inner = scaled(nn.Conv2d(before, after, 4, stride=2), SILU)
        self.embed = scaled(nn.Linear(embed, after))
        self.outer = scaled(nn.Conv2d(after, after, 3, padding=1), 0.0 if zero else SILU)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The halved image (n, after, ceil(h/2), ceil(w/2)), from h (n, before, h, w) and e (n, embed)."""
        odd_height, odd_width = h.shape[2] % 2, h.shape[3] % 2
        padded = F.pad(F.silu(h), (1, 1 + odd_width, 1, 1 + odd_height))
        branch = F.silu(self.inner(padded) + self.embed(e)[:, :, None, None])
        return self.skip(F.avg_pool2d(h, 2, ceil_mode=True)) + self.outer(branch)


class ConvDiscriminator(nn.Module):
    """Residual convolutional net over images, to one logit.

    Args:
        shape: shape of an image (c, h, w), of any height and width.
        classes: how many classes, 0 for none.
        widths: channels of the blocks, each of which halves the image; what is left goes through one dense layer.
        timed: whether it takes the time.
        dials: how many dials it takes.
        spectral: whether every weight matrix is divided by its largest singular value.
        embed: length of the embedding of time, class and dials, even.
        stem: side in pixels of the places that it works on: their pixels become channels. It begins by seeing their
            means, so that the input gradient, which moves samples, has no checkerboard from the start.

    Raises:
        ValueError: for sizes below one, and for images of another shape.
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
        stem: int = 1,
    ):
        super().__init__()
        if len(shape) != 3 or min(*shape, stem) < 1 or not widths or min(widths) < 1:
            raise ValueError(
                f"ConvDiscriminator(shape={tuple(shape)}, widths={tuple(widths)}, stem={stem}): sizes must be positive"
            )
        self.shape, self.stem = tuple(shape), stem
        self.classes = classes
        self.timed = timed
        self.dials = dials
        self.context = Context(embed, classes, timed, dials)
        self.enter = scaled(nn.Conv2d(shape[0] * stem**2, widths[0], 3, padding=1))
        if stem > 1:
            with torch.no_grad():
                alike = self.enter.weight[:, :: stem**2] / stem
                self.enter.weight.copy_(alike.repeat_interleave(stem**2, 1))
        self.blocks = nn.ModuleList(
            Down(a, b, embed, zero=not spectral) for a, b in zip((widths[0], *widths), widths, strict=False)
        )
        pixels = math.prod(-(-side // (stem * 2 ** len(widths))) for side in shape[1:])
        self.dense = scaled(nn.Linear(widths[-1] * pixels, 2 * widths[-1]), SILU)
        self.head = Head(2 * widths[-1], classes)
        if spectral:
            bound(self)

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None, dials: Tensor | None = None) -> Tensor:
        """Logits (n,) of x (n, c, h, w) at time (n,), cond int64 (n,) or None and dials (n, k) or None."""
        if tuple(x.shape[1:]) != self.shape:
            takes = ", ".join(map(str, self.shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, this discriminator takes (n, {takes})")
        e = self.context(x, time, cond, dials)
        if self.stem > 1:
            height, width = (-side % self.stem for side in x.shape[2:])
            x = F.pixel_unshuffle(F.pad(x, (0, width, 0, height)), self.stem)
        h = self.enter(x)
        for block in self.blocks:
            h = block(h, e)
        return self.head(F.silu(self.dense(F.silu(h).flatten(1))), cond)


class Stages(nn.Module):
    """Independent nets, one per equal interval of time in [0, 1) (derivations.md 3.2, one discriminator per step).

    Net k of K sees the particles with k <= K time < k+1, and a time of 1 or more belongs to the last.

    Args:
        nets: the K nets of discriminators.

    Raises:
        ValueError: without nets, or with nets that take different classes or dials.
    """

    timed = True

    def __init__(self, nets: Sequence[Any]):
        super().__init__()
        if not nets or len({(net.classes, net.dials) for net in nets}) > 1:
            raise ValueError("Stages needs at least one net, all with the same classes and dials")
        self.nets = nn.ModuleList(nets)
        self.classes, self.dials = nets[0].classes, nets[0].dials

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None, dials: Tensor | None = None) -> Tensor:
        """Logits (n,) of x (n, *shape), each of the net at its time (n,)."""
        # a time k/K in float32 may be a hair below itself: it begins stage k all the same
        stage = (time * len(self.nets) + 1e-4).long().clamp(0, len(self.nets) - 1)
        logit = x.new_zeros(len(x))
        for k in stage.unique().tolist():
            at = stage == k
            part = self.nets[k](
                x[at], time[at], None if cond is None else cond[at], None if dials is None else dials[at]
            )
            logit = logit.index_put((at,), part.to(logit.dtype))
        return logit
