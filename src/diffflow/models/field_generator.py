"""Field generators: a generator moved by a field of its samples and the data alone, without a second network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..equation.kernels import (
    MMD,
    CloudField,
    Drifting,
    EnergyKernel,
    FieldSum,
    GaussianKernel,
    LaplaceKernel,
    SlicedWasserstein,
)
from ..networks.generator import Generator
from ..objectives.follow_velocity import FollowVelocity
from ..objectives.movers.cloud import CloudMover
from .base import RATIO, GeneratorConfig, GeneratorSampling, MoveConfig, device_of, player
from .settings.common import DataConfig, FitConfig, PlayerConfig
from .settings.games import class_count
from .settings.networks import GeneratorNet, MLPGeneratorConfig
from .settings.serialise import Choice, require


class FieldMoverConfig(Choice):
    """Settings of a field of samples and data that moves a generator: subclasses are dataclasses with `build`.

    Attributes:
        row: its row in the catalogue.
    """

    called = "field that moves a generator"
    row: ClassVar[str]

    def build(self, data: Tensor) -> CloudField:
        """The field.

        Args:
            data: points (m, *shape) of the target; each batch takes their place.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")


@dataclass(frozen=True)
class DriftingConfig(FieldMoverConfig):
    """Drifting: toward the data's kernel-weighted mean, away from the samples' own (kernels.Drifting).

    Raises:
        ConfigError: no temperature, or one that is not positive.
    """

    temperatures: tuple[float, ...] = (0.1, 0.4)
    """Lengths tau of the kernels exp(-|x-y|/tau), whose fields add up: wide ones to come, narrow ones to settle."""
    gaussian: bool = False
    """Gaussian kernels of these widths instead: each field is then the difference of two kernel scores."""
    others: bool = True
    """A sample is drawn away from the other ones only, as in the paper; else its own kernel holds it, too."""

    row: ClassVar[str] = "drifting-generator"

    def __post_init__(self) -> None:
        require(
            len(self.temperatures) > 0 and min(self.temperatures) > 0,
            f"mover.temperatures = {self.temperatures} must be positive lengths, at least one",
        )

    def build(self, data: Tensor) -> CloudField:
        """The sum of the drifting fields of all temperatures."""
        kernel = GaussianKernel if self.gaussian else LaplaceKernel
        return FieldSum([Drifting(data, kernel(tau), self.others) for tau in self.temperatures])


@dataclass(frozen=True)
class MMDConfig(FieldMoverConfig):
    """Descent of the maximum mean discrepancy (kernels.MMD)."""

    bandwidth: float | None = None
    """Bandwidth of a Gaussian kernel; none: the energy distance, which needs no scale."""

    row: ClassVar[str] = "mmd-generator"

    def build(self, data: Tensor) -> CloudField:
        """The field of the MMD."""
        return MMD(data, EnergyKernel() if self.bandwidth is None else GaussianKernel(self.bandwidth))


@dataclass(frozen=True)
class SlicedWassersteinConfig(FieldMoverConfig):
    """Descent of the sliced Wasserstein distance (kernels.SlicedWasserstein)."""

    directions: int = 64
    """Random directions per step."""

    row: ClassVar[str] = "sw-generator"

    def build(self, data: Tensor) -> CloudField:
        """The field of the sliced Wasserstein distance."""
        return SlicedWasserstein(data, self.directions)


@dataclass(frozen=True)
class FieldConfig(GeneratorConfig):
    """A generator moved by a field of its samples and the data alone: no second network.

    Raises:
        ConfigError: updates of a network that there is not.
    """

    data: DataConfig = DataConfig()
    """What to learn from."""
    model: GeneratorNet = field(default_factory=MLPGeneratorConfig)
    """The generator."""
    mover: FieldMoverConfig = field(default_factory=DriftingConfig)
    """The field that moves the samples."""
    move: MoveConfig = MoveConfig()
    """How the generator follows what moves its samples."""
    generator: PlayerConfig = PlayerConfig()
    """How the generator moves: learning rate, averages, clipping."""
    fit: FitConfig = FitConfig()
    """The training loop."""
    sampling: GeneratorSampling = GeneratorSampling()
    """How samples are drawn when nobody says otherwise."""

    def __post_init__(self) -> None:
        require(
            self.move.updates == 1,
            f"move.updates = {self.move.updates}: a field of the cloud and the data has no network that learns",
        )

    whole_batch: ClassVar[str] = "a field is made of the whole batch, and the cloud of a field lives in one process"

    def moved_rows(self) -> list[tuple[str, str]]:
        """The row of the field."""
        kind = escape(type(self.mover).__name__.removesuffix("Config"))
        return [(f"<i>β</i> {RATIO}", f"a field of samples and data alone: {kind}")]

    def unfit(self, steps: float) -> str:
        """Whatever the budget: distances between whole pictures are of layout and colour."""
        blurred = "a field made of distances between whole pictures gives layout and colour, and blurs the rest"
        few = super().unfit(steps)
        return f"{few}; and {blurred}" if few else f"{blurred}, however long it is trained"

    @property
    def row(self) -> str:
        """The row of the catalogue of its field."""
        return self.mover.row

    def players(self) -> dict[str, PlayerConfig]:
        """How the generator is trained."""
        return {"generator": self.generator}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The generator."""
        shape = tuple(meta["shape"])
        return {"generator": Generator(self.model.build(shape, class_count(meta)), shape)}

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> FollowVelocity:
        """The generator follows the field of each batch."""
        device = device_of(modules)
        mover = CloudMover(self.mover.build(torch.zeros(2, *meta["shape"], device=device)))  # the batch takes its place
        return FollowVelocity(
            player(modules, "generator", Generator), mover, self.move.eta, self.move.steps, self.move.reuse
        )
