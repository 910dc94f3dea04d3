"""UNets for images: diffusers' `UNet2DModel` behind a thin adapter, so that every tool of the field reads the weights.

The adapter does three things and adds no parameter of its own:

  time    `UNet2DModel` embeds time t as [cos(w t), sin(w t)], w_i = 10000^(-i/(half - freq_shift)): made for t in
          0..1000 and nearly blind to 0.25 ln sigma in [-1.6, 1.1]. A freq_shift beyond `half` turns the exponent's
          sign: w runs from 1 up to about 64, which resolves it, and the net remains a plain `UNet2DModel` that takes
          0.25 ln sigma itself (what diffusers' EDM samplers pass).
  size    with L resolution levels an image must be divisible by 2^(L-1); other sizes are padded by reflection,
          and by repeating the border where there is too little to reflect.
  class   one extra row of the class table means "no class" (cond None or -1), for label dropout and guidance. Another
          condition comes as the embedding itself, which `UNet2DModel` adds to that of time, and as channels beside x.

`UNetDiscriminator` is the half of it that goes down, with a logit at the end: begun as a denoiser, it knows from the
start what such pictures are made of (Yin et al. 2024b), but of their classes little, which a denoiser is told.

For a density the net can also be shown sin and cos of 2^k pi x: a convolution is smooth, and a likelihood is decided at
noise as small as a grey level, where the cell of a byte has edges (Kingma et al. 2021, "Variational diffusion models").

Shapes: x (n, c, h, w), time (n,), cond (n,) int64 or None -> (n, c, h, w), of the discriminator (n,).

References:
    Kingma et al. 2021, arXiv:2107.00630.
    Yin et al. 2024b, arXiv:2405.14867.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.conditions import Conditions
from ...equation.conditions import Cond
from ..condition_inputs import ConditionInput
from ..discriminator import DiscriminatorOutput
from .discriminator import SILU, Head, TwinClassifiers, scaled
from .mlp import class_rows, sines
from .parts import refuse_both


def unet2d() -> type[nn.Module]:
    """The class `UNet2DModel` of diffusers, imported when first needed.

    Nothing here needs torchvision, but diffusers imports it when it is installed: one built for another torch (any
    package may bring it) would stop us, so it is hidden from diffusers when it does not load.
    """
    from diffusers.utils import import_utils

    if import_utils.is_torchvision_available():
        try:
            importlib.import_module("torchvision")
        except (ImportError, OSError, RuntimeError):
            import_utils._torchvision_available = False
    from diffusers.models.unets.unet_2d import UNet2DModel

    return UNet2DModel


class UNet(nn.Module):
    """UNet over images, conditioned on the time and, where there are some, on classes or conditions.

    Args:
        shape: shape of an image (c, h, w), of any height and width.
        classes: how many classes, 0 for none.
        widths: channels per resolution level, each an even multiple of `groups`; each level halves the image.
        layers: residual blocks per level.
        attention: whether there is self-attention at the lowest level and in the middle block.
        head: channels per attention head.
        groups: groups of the group normalisation.
        octaves: the k of the sines and cosines of 2^k pi x that the net is shown beside x.
        conditions: what the network is told instead of a class: one condition, or several by name.

    Raises:
        ValueError: for widths that do not fit, classes and conditions together, and for images of another shape.
    """

    null = "missing"  # -1 and NaN are no condition, also where it is trained as somebody's own (own.py)

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 0,
        widths: tuple[int, ...] = (32, 64, 64),
        layers: int = 1,
        attention: bool = True,
        head: int = 32,
        groups: int = 8,
        octaves: tuple[int, ...] = (),
        conditions: Conditions | None = None,
    ):
        super().__init__()
        if not widths or any(w < groups or w % groups or w % 2 for w in widths):
            raise ValueError(f"widths = {tuple(widths)} must be even multiples of groups = {groups}")
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape = {tuple(shape)} must be (channels, height, width)")
        if attention and widths[-1] % head:
            raise ValueError(f"the last width, {widths[-1]}, must be a multiple of head = {head}")
        refuse_both(classes, conditions)
        embed = 4 * widths[0]  # the length of UNet2DModel's embedding
        condition = None if conditions is None else ConditionInput(conditions, embed, tuple(shape))
        self.shape = tuple(shape)
        self.classes = classes
        self.octaves = tuple(octaves)
        self.multiple = 2 ** (len(widths) - 1)
        last = len(widths) - 1
        self.unet: Any = unet2d()(
            sample_size=(shape[1], shape[2]) if shape[1] != shape[2] else shape[1],
            in_channels=shape[0] * (1 + 2 * len(octaves)) + (0 if condition is None else condition.channels),
            out_channels=shape[0],
            freq_shift=frequency_shift(widths[0]),
            down_block_types=tuple(
                "AttnDownBlock2D" if attention and i == last else "DownBlock2D" for i in range(last + 1)
            ),
            up_block_types=tuple("AttnUpBlock2D" if attention and i == 0 else "UpBlock2D" for i in range(last + 1)),
            block_out_channels=tuple(widths),
            layers_per_block=layers,
            attention_head_dim=head,
            norm_num_groups=groups,
            norm_eps=1e-5,
            dropout=0.0,
            add_attention=attention,
            num_class_embeds=classes + 1 if classes else None,
            class_embed_type=None if condition is None else "identity",
        )
        self.condition = condition
        nn.init.zeros_(self.unet.conv_out.weight)  # starts at D = c_skip y, the best guess that ignores the picture
        nn.init.zeros_(self.unet.conv_out.bias)

    def forward(self, x: Tensor, time: Tensor, cond: Cond = None) -> Tensor:
        """Prediction like x (n, c, h, w), from time (n,) and the condition of each image, -1 or None for no class."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, this net takes (n, {', '.join(map(str, self.shape))})")
        h = sines(padded(x, self.multiple), self.octaves)
        labels = class_rows(cond, len(x), self.classes, x.device) if self.classes else None
        if self.condition is not None:
            labels = self.condition(cond, len(x), x.device)
            if self.condition.channels:
                h = torch.cat([h, padded(self.condition.maps(cond, x), self.multiple)], 1)
        return cropped(self.unet(h, time, class_labels=labels).sample, self.shape[1:])


class WayDown(nn.Module):
    """Discriminator for images that begins as a denoiser: the way down of its net, and one logit from where it ends.

    With classes it returns a `DiscriminatorOutput`: the way down is told "no class", and twin classifiers look for the
    class where it ends (`TwinClassifiers`). Subclasses take the way down over, call `add_end`, and define `features`
    and `begin`.

    Args:
        shape: shape of an image (c, h, w).
        classes: how many classes, 0 for none.
        multiple: pixels on a side of a place where the way down ends.
    """

    timed, dials = True, 0

    def __init__(self, shape: tuple[int, ...], classes: int, multiple: int):
        super().__init__()
        self.shape, self.classes, self.multiple = tuple(shape), classes, multiple

    def add_end(self, width: int, groups: int) -> None:
        """Add what makes a logit of features of so many channels; last, so that the way down's weights come first."""
        pixels = math.prod(-(-side // self.multiple) for side in self.shape[1:])
        self.norm = nn.GroupNorm(groups, width)
        self.dense = scaled(nn.Linear(width * pixels, 2 * width), SILU)
        self.head = Head(2 * width, self.classes)
        self.twins = TwinClassifiers(2 * width, self.classes) if self.classes else None

    def features(self, x: Tensor, time: Tensor) -> Tensor:
        """Where the way down ends, (n, width, h / multiple, w / multiple), of images x at time (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define features")

    def begin(self, weights: Mapping[str, Tensor], classless: bool = True) -> None:
        """Start from the weights of a trained net of the same settings: those of its way down.

        Args:
            weights: its state_dict.
            classless: whether it learned "no class" (label dropout), which the discriminator is told; else the mean
                class stands for it.

        Raises:
            KeyError: for weights of another network.
            RuntimeError: for weights of other shapes.
        """
        raise NotImplementedError(f"{type(self).__name__} must define begin")

    def forward(
        self, x: Tensor, time: Tensor, cond: Tensor | None = None, dials: Tensor | None = None
    ) -> Tensor | DiscriminatorOutput:
        """Logits (n,), or a `DiscriminatorOutput` where there are classes, of images x (n, c, h, w) at time (n,)."""
        if tuple(x.shape[1:]) != self.shape:
            takes = ", ".join(map(str, self.shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, this discriminator takes (n, {takes})")
        h = self.norm(self.features(x, time))
        phi = F.silu(self.dense(F.silu(h).flatten(1)))
        logit = self.head(phi, cond)
        if self.twins is None:
            return logit
        real, fake = self.twins(phi)
        row = class_rows(cond, len(x), self.classes, x.device)[:, None]
        class_ratio = F.pad(real - fake, (0, 1))  # 0 for "no class"
        return DiscriminatorOutput(logit + class_ratio.gather(1, row).squeeze(1), real, fake)


def with_mean_class(table: Tensor) -> Tensor:
    """A table of classes (classes + 1, width) whose last row, "no class", is the mean of the others."""
    return torch.cat([table[:-1], table[:-1].mean(0, keepdim=True)])


class UNetDiscriminator(WayDown):
    """Discriminator for images: the way down of a `UNet`.

    Args:
        source: the UNet, without octaves or conditions other than classes; it is taken apart, so give it away.

    Raises:
        ValueError: for a UNet with octaves or such conditions, and for images of another shape.
    """

    def __init__(self, source: UNet):
        super().__init__(source.shape, source.classes, source.multiple)
        if source.octaves:
            raise ValueError(f"octaves = {source.octaves}: a discriminator sees x alone, so give it a UNet without")
        if source.condition is not None:
            raise ValueError(
                "the UNet is told conditions, and this discriminator knows classes alone: give it one without"
            )
        self.unet = source.unet
        width, groups = self.unet.config.block_out_channels[-1], self.unet.config.norm_num_groups
        self.unet.up_blocks = nn.ModuleList()
        self.unet.conv_norm_out = None
        self.unet.conv_out = None
        plain_attention(self.unet)
        self.add_end(width, groups)

    def features(self, x: Tensor, time: Tensor) -> Tensor:
        """What the middle block gives, (n, width, h / multiple, w / multiple)."""
        net = self.unet
        e = net.time_embedding(net.time_proj(time).to(x.dtype))
        if self.classes:
            e = e + net.class_embedding(class_rows(None, len(x), self.classes, x.device)).to(x.dtype)
        h = net.conv_in(padded(x, self.multiple))
        for block in net.down_blocks:
            h, _ = block(hidden_states=h, temb=e)
        return net.mid_block(h, e)

    def begin(self, weights: Mapping[str, Tensor], classless: bool = True) -> None:
        """Start from a trained `UNet`: of its first filters from those of x itself, not those of the sines of x."""
        start = {k: weights[f"unet.{k}"] for k in self.unet.state_dict()}
        start["conv_in.weight"] = start["conv_in.weight"][:, : self.shape[0]]  # without the sines of x
        if self.classes and not classless:
            start["class_embedding.weight"] = with_mean_class(start["class_embedding.weight"])
        self.unet.load_state_dict(start)


def padded(x: Tensor, multiple: int) -> Tensor:
    """Samples grown at the ends of their sides, by reflection or else by repetition of the border.

    Args:
        x: signals, images or volumes (n, c, *sides).
        multiple: what every side becomes a multiple of.

    Returns:
        The samples (n, c, *sides').
    """
    growth = [-side % multiple for side in x.shape[2:]]
    if not any(growth):
        return x
    reflects = all(more < side for more, side in zip(growth, x.shape[2:], strict=True))
    ends = [end for more in reversed(growth) for end in (0, more)]  # the last axis first
    return F.pad(x, ends, mode="reflect" if reflects else "replicate")


def cropped(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Samples x (n, c, *sides') cut back to their first sides, what `padded` added being left out."""
    return x[(..., *(slice(side) for side in sides))]


def plain_attention(net: nn.Module) -> None:
    """Switch a net's attention to matrix products: slope penalties are differentiated twice, fused kernels are not."""
    from diffusers.models.attention_processor import Attention, AttnProcessor

    for module in net.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())


def frequency_shift(width: int, fastest: float = 64.0) -> int:
    """The `freq_shift` for which the time frequencies of an embedding run from 1 to about `fastest`.

    w_i = 10000^(-i/(half - shift)) with half = width/2; w_(half-1) = fastest gives shift = half + (half-1) ln 10000 /
    ln fastest.

    Args:
        width: channels of the embedding.
        fastest: the largest frequency, in radians per unit of time.

    Returns:
        The shift, for `UNet2DModel(freq_shift=...)`.
    """
    half = width // 2
    return round(half + (half - 1) * math.log(10000) / math.log(fastest)) if half > 1 else 0
