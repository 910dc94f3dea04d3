"""Settings of networks: of denoisers, discriminators and generators, each of which builds its network."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from ...data.conditions import Conditions
from ...networks.backbones.discriminator import ConvDiscriminator, MLPDiscriminator
from ...networks.backbones.generator import ConvGenerator, MLPGenerator
from .serialise import UNSAID, Choice, ConfigError, require

if TYPE_CHECKING:
    from ...networks.backbones.fast_unet import FastUNet
    from ...networks.backbones.unet import UNet, WayDown


class NetConfig(Choice):
    """Settings of a denoiser's network: subclasses are frozen dataclasses with a `build`.

    Attributes:
        descends: whether it has a way down that a discriminator may begin as (`discriminator`).
    """

    called = "network of a denoiser"
    descends: ClassVar[bool] = False

    def build(self, shape: tuple[int, ...], classes: int, conditions: Conditions | None = None) -> nn.Module:
        """The network for samples of this shape.

        Args:
            shape: of one sample, such as (3, 32, 32) or (2,).
            classes: how many classes it is told, 0 for none.
            conditions: what else it is told in their place (`Data.with_cond`); None: nothing. A network that knows
                classes alone may leave this argument out.

        Returns:
            A module (x (n, *shape), time (n,), cond int64 (n,) or None) -> (n, *shape); -1 in cond is no class. Other
            conditions come as `data.conditions.encode` gives them.

        Raises:
            ConfigError: a shape that this network is not made for.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")

    def discriminator(self, shape: tuple[int, ...], classes: int) -> WayDown:
        """The network of a discriminator that begins as this one, once trained.

        Args:
            shape: of one sample.
            classes: how many classes it is told, 0 for none.

        Raises:
            ConfigError: this network has no way down.
        """
        raise ConfigError(
            "UNetDiscriminatorConfig begins as a denoiser with a UNetConfig or a FastUNetConfig, and this one has an "
            f"{type(self).__name__}: use an MLPDiscriminatorConfig"
        )


class DiscriminatorNet(Choice):
    """Settings of a discriminator's network: subclasses are frozen dataclasses with a `build`."""

    called = "network of a discriminator"

    def build(self, shape: tuple[int, ...], classes: int, timed: bool, dials: int = 0) -> nn.Module:
        """The network for samples of this shape.

        Args:
            shape: of one sample.
            classes: how many classes it is told, 0 for none.
            timed: whether it is told the time.
            dials: how many numbers it is told about the process that particles follow.

        Returns:
            A module as `networks.discriminator.Discriminator` takes it: logits (n,).

        Raises:
            ConfigError: a shape that this network is not made for.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")


class GeneratorNet(Choice):
    """Settings of a generator's network: subclasses are frozen dataclasses with a `build`."""

    called = "network of a generator"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for samples of this shape.

        Args:
            shape: of one sample.
            classes: how many classes it is told, 0 for none.

        Returns:
            A module (z (n, latent), cond int64 (n,) or None) -> (n, *shape) that knows its `latent_shape`.

        Raises:
            ConfigError: a shape that this network is not made for.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")


@dataclass(frozen=True)
class MLPDiscriminatorConfig(DiscriminatorNet):
    """The discriminator of vectors: a perceptron of residual blocks (networks/backbones/discriminator.py)."""

    width: int = 128
    """Units of a layer."""
    depth: int = 3
    """Residual blocks."""
    waves: int = 0
    """Fourier features of x, for data with features much narrower than the data are wide; 0: none."""
    fastest: float = 24.0
    """Their largest frequency, in radians per unit of x, which for toys and tables is about a standard deviation."""
    spectral: bool = False
    """Spectral normalisation of every weight matrix."""

    def build(self, shape: tuple[int, ...], classes: int, timed: bool, dials: int = 0) -> nn.Module:
        """The network; see `DiscriminatorNet.build`. Raises ConfigError for images."""
        _require_fit(self, "vectors", len(shape) == 1, shape)
        return MLPDiscriminator(
            shape[0],
            classes,
            self.width,
            self.depth,
            timed=timed,
            dials=dials,
            spectral=self.spectral,
            waves=self.waves,
            fastest=self.fastest,
        )


@dataclass(frozen=True)
class ConvDiscriminatorConfig(DiscriminatorNet):
    """The discriminator of images: convolutions (networks/backbones/discriminator.py)."""

    widths: tuple[int, ...] = (32, 64)
    """Channels of the blocks, each of which halves the image."""
    spectral: bool = False
    """Spectral normalisation of every weight matrix."""
    stem: int | None = field(default=None, metadata=UNSAID)
    """Side in pixels of the places that it works on, as of a FastUNetConfig; none: single pixels."""

    def build(self, shape: tuple[int, ...], classes: int, timed: bool, dials: int = 0) -> nn.Module:
        """The network; see `DiscriminatorNet.build`. Raises ConfigError for vectors."""
        _require_fit(self, "images", len(shape) == 3, shape)
        image = (shape[0], shape[1], shape[2])
        return ConvDiscriminator(
            image, classes, self.widths, timed=timed, dials=dials, spectral=self.spectral, stem=self.stem or 1
        )


@dataclass(frozen=True)
class MLPGeneratorConfig(GeneratorNet):
    """The generator of vectors: a perceptron of residual blocks (networks/backbones/generator.py)."""

    latent: int = 16
    """Numbers of the latent z."""
    width: int = 128
    """Units of a layer."""
    depth: int = 3
    """Residual blocks."""
    waves: int = 0
    """Fourier features of z; 0: none."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network; see `GeneratorNet.build`. Raises ConfigError for images."""
        _require_fit(self, "vectors", len(shape) == 1, shape)
        return MLPGenerator(self.latent, shape[0], classes, self.width, self.depth, self.waves)


@dataclass(frozen=True)
class ConvGeneratorConfig(GeneratorNet):
    """The generator of images: convolutions (networks/backbones/generator.py)."""

    latent: int = 64
    """Numbers of the latent z."""
    widths: tuple[int, ...] = (64, 32)
    """Channels of the blocks, each of which doubles the image."""
    stem: int | None = field(default=None, metadata=UNSAID)
    """Side in pixels of the places that it works on, as of a FastUNetConfig; none: single pixels."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network; see `GeneratorNet.build`. Raises ConfigError for vectors."""
        _require_fit(self, "images", len(shape) == 3, shape)
        return ConvGenerator(self.latent, (shape[0], shape[1], shape[2]), classes, self.widths, self.stem or 1)


@dataclass(frozen=True)
class MLPConfig(NetConfig):
    """The denoiser's network for vectors: a perceptron of residual blocks (networks/backbones/mlp.py)."""

    width: int = 256
    """Units of a layer."""
    depth: int = 4
    """Residual blocks."""
    embed: int = 64
    """Fourier features of the noise level."""
    octaves: tuple[int, ...] = ()
    """Sines of 2^k pi x beside the vector x, for these k: for columns of few values, such as 0 1 2 3."""
    masks: bool = field(default=False, metadata=UNSAID)
    """Whether it can be told which coordinates are known; model.masks sets it."""
    beside: int = field(default=0, metadata=UNSAID)
    """How many numbers it is shown behind x; model.skip sets it."""

    def build(self, shape: tuple[int, ...], classes: int, conditions: Conditions | None = None) -> nn.Module:
        """The network; see `NetConfig.build`. Raises ConfigError for all but vectors."""
        from ...networks.backbones.mlp import MLP

        _require_fit(self, "vectors", len(shape) == 1, shape)
        return MLP(
            shape[0],
            classes,
            self.width,
            self.depth,
            self.embed,
            self.octaves,
            conditions,
            known=shape[0] * self.masks,
            beside=self.beside,
        )

    def build_mixed(
        self, inputs: int, outputs: int, columns: int, classes: int, conditions: Conditions | None = None
    ) -> nn.Module:
        """The network of a denoiser of mixed rows (networks/mixed_rows.py), which makes the sines itself."""
        from ...networks.backbones.mlp import MLP

        known = columns * self.masks
        return MLP(inputs, classes, self.width, self.depth, self.embed, (), conditions, outputs, known)


@dataclass(frozen=True)
class UNetConfig(NetConfig):
    """The denoiser's network for images: a U-Net (networks/backbones/unet.py)."""

    widths: tuple[int, ...] = (32, 64, 64)
    """Channels at each resolution; each level halves the image."""
    layers: int = 1
    """Residual blocks at each resolution."""
    attention: bool = True
    """Self-attention at the lowest resolution."""
    head: int = 32
    """Channels of an attention head."""
    groups: int = 8
    """Groups of the group normalisation."""
    octaves: tuple[int, ...] = ()
    """Sines of 2^k pi x beside the image x, for these k: for a density of bytes, such as 5 6 7."""

    descends: ClassVar[bool] = True

    def build(self, shape: tuple[int, ...], classes: int, conditions: Conditions | None = None) -> UNet:
        """The network; see `NetConfig.build`. Raises ConfigError for all but images."""
        from ...networks.backbones.unet import UNet

        _require_fit(self, "images", len(shape) == 3, shape)
        return UNet(
            (shape[0], shape[1], shape[2]),
            classes,
            self.widths,
            self.layers,
            self.attention,
            self.head,
            self.groups,
            self.octaves,
            conditions,
        )

    def discriminator(self, shape: tuple[int, ...], classes: int) -> WayDown:
        """The way down of the network; see `NetConfig.discriminator`. It is shown no sines of x."""
        from ...networks.backbones.unet import UNetDiscriminator

        return UNetDiscriminator(replace(self, octaves=()).build(shape, classes))


@dataclass(frozen=True)
class FastUNetConfig(NetConfig):
    """The denoiser's network for pictures that learns most in few minutes (networks/backbones/fast_unet.py)."""

    widths: tuple[int, ...] = (48, 96, 128)
    """Channels at each resolution; each level halves the grid."""
    layers: int = 2
    """Blocks at each resolution, on the way down and up; one less at the highest, where they cost most."""
    stem: int = 2
    """Side in pixels of a place of the grid."""
    refine: int = 32
    """Channels of the refinement at full resolution, the picture's own among them; 0: none."""
    attention: bool = False
    """Self-attention at the lowest resolution."""
    head: int = 32
    """Channels of an attention head."""
    groups: int = 8
    """Groups of the group normalisation."""
    augment_labels: int = field(default=0, metadata=UNSAID)
    """How many numbers tell it how a picture was augmented; data.augment sets it."""

    descends: ClassVar[bool] = True

    def build(self, shape: tuple[int, ...], classes: int, conditions: Conditions | None = None) -> FastUNet:
        """The network; see `NetConfig.build`. Raises ConfigError for all but images."""
        from ...networks.backbones.fast_unet import FastUNet

        _require_fit(self, "images", len(shape) == 3, shape)
        return FastUNet(
            (shape[0], shape[1], shape[2]),
            classes,
            self.widths,
            self.layers,
            self.stem,
            self.refine,
            self.attention,
            self.head,
            self.groups,
            conditions,
            self.augment_labels,
        )

    def discriminator(self, shape: tuple[int, ...], classes: int) -> WayDown:
        """The way down of the network; see `NetConfig.discriminator`."""
        from ...networks.backbones.fast_unet import FastUNetDiscriminator

        return FastUNetDiscriminator(self.build(shape, classes))


@dataclass(frozen=True)
class UNetNDConfig(NetConfig):
    """The denoiser's network for signals, images and volumes: a U-Net of any axes (networks/backbones/unet_nd.py)."""

    widths: tuple[int, ...] = (32, 64, 64)
    """Channels at each resolution; each level halves every side."""
    layers: int = 1
    """Residual blocks at each resolution."""
    attention: bool = True
    """Self-attention at the lowest resolution."""
    head: int = 32
    """Channels of an attention head."""
    groups: int = 8
    """Groups of the group normalisation."""

    def build(self, shape: tuple[int, ...], classes: int, conditions: Conditions | None = None) -> nn.Module:
        """The network; see `NetConfig.build`. Raises ConfigError for vectors."""
        from ...networks.backbones.unet_nd import UNetND

        _require_fit(self, "signals, images and volumes", 2 <= len(shape) <= 4, shape)
        return UNetND(shape, classes, conditions, self.widths, self.layers, self.attention, self.head, self.groups)


@dataclass(frozen=True)
class DiTConfig(NetConfig):
    """The denoiser's network for images as a transformer of patches (networks/backbones/dit.py)."""

    patch: int = 2
    """Side of a patch in pixels."""
    width: int = 128
    """Length of a token, a multiple of 4 and of the heads."""
    depth: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Heads of the attention."""
    learned_positions: bool = False
    """Learn the positions of patches, from the fixed sines and cosines on."""

    def build(self, shape: tuple[int, ...], classes: int, conditions: Conditions | None = None) -> nn.Module:
        """The network; see `NetConfig.build`. Raises ConfigError for all but images."""
        from ...networks.backbones.dit import DiT

        _require_fit(self, "images", len(shape) == 3, shape)
        image = (shape[0], shape[1], shape[2])
        return DiT(image, classes, conditions, self.patch, self.width, self.depth, self.heads, self.learned_positions)


_FITTING = {  # what fits samples of so many axes, for messages
    DiscriminatorNet: {1: "an MLPDiscriminatorConfig", 3: "a ConvDiscriminatorConfig"},
    GeneratorNet: {1: "an MLPGeneratorConfig", 3: "a ConvGeneratorConfig"},
    NetConfig: {1: "an MLPConfig", 2: "a UNetNDConfig", 3: "a UNetConfig", 4: "a UNetNDConfig"},
}


def _require_fit(config: Choice, made_for: str, fits: bool, shape: tuple[int, ...]) -> None:
    """Raise ConfigError, with settings that fit, where data of a shape are not what a network is made for."""
    part = next(part for part in _FITTING if isinstance(config, part))
    setting = "model.net.type" if part is NetConfig else "its `type`"
    remedy = (
        f"use {_FITTING[part][len(shape)]} ({setting} in a --config file, or another --preset)"
        if len(shape) in _FITTING[part]
        else f"there is no {part.called} for such data"
    )
    require(fits, f"{type(config).__name__} is for {made_for}, and the data has shape {shape}: {remedy}")
