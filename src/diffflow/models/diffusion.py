"""Score-based diffusion: a denoiser, its loss, and how it is sampled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from ..equation.fields import ScoreField, guide
from ..equation.laws import Law
from ..equation.schedule import EDM
from ..equation.sde import DiffFlow
from ..equation.spectrum import at
from ..networks.denoiser import FORMS, Denoiser
from ..objectives.score_matching import (
    EDMWeighting,
    EpsWeighting,
    FlowWeighting,
    LikelihoodWeighting,
    ScoreMatching,
    VWeighting,
)
from .base import TrainConfig, device_of
from .settings.common import DataConfig, Dials, FitConfig, PlayerConfig
from .settings.networks import MLPConfig, UNetConfig
from .settings.serialise import require, suggest

Weighting = EDMWeighting | EpsWeighting | VWeighting | FlowWeighting | LikelihoodWeighting


@dataclass(frozen=True)
class ModelConfig:
    """The denoiser."""

    net: UNetConfig | MLPConfig = UNetConfig()
    """The network."""
    form: str = "edm"
    """What the network predicts, a row of denoiser.FORMS: edm, eps, v, x0, flow, score."""
    label_dropout: float = 0.1
    """Share of samples trained without their class, for guidance."""

    def __post_init__(self) -> None:
        require(self.form in FORMS, f"model.form = {self.form!r} is unknown{suggest(self.form, list(FORMS))}")
        require(0 <= self.label_dropout < 1, f"model.label_dropout = {self.label_dropout} must be in [0, 1)")

    def build(self, meta: Mapping[str, Any]) -> Denoiser:
        """The denoiser for data described by `meta` (Data.meta())."""
        net = self.net.build(tuple(meta["shape"]), len(meta["classes"] or ()))
        return Denoiser(net, meta["std"], meta["principal_std"], form=FORMS[self.form])


@dataclass(frozen=True)
class SamplingConfig:
    """How samples are drawn when nobody says otherwise, on the EDM schedule from sigma_max to sigma_min."""

    steps: int = 20
    """Steps of the solver."""
    churn: float = 0.0
    """0 is the deterministic probability flow, 1 the reverse SDE."""
    guidance: float = 1.0
    """1 is the class-conditional law itself; more sharpens it (classifier-free guidance)."""
    sigma_min: float = 0.002
    """Lowest noise level."""
    sigma_max: float = 80.0
    """Highest noise level."""
    ema: float | None = None
    """Width of the weight average to use; none: the player's first."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps = {self.steps} must be at least 1")
        require(self.churn >= 0, f"churn = {self.churn} must not be negative: 0 is the deterministic flow")
        require(math.isfinite(self.guidance), f"guidance = {self.guidance} must be a finite number: 1 is none")
        require(
            0 < self.sigma_min < self.sigma_max,
            f"sigma_min = {self.sigma_min} must be positive and below sigma_max = {self.sigma_max}",
        )

    @property
    def schedule(self) -> EDM:
        return EDM(self.sigma_min, self.sigma_max)

    def start(self, meta: Mapping[str, Any], device: torch.device) -> Law:
        """The Gaussian that samples start from."""
        return self.schedule.prior(tuple(meta["shape"]), meta["mean"], meta["std"]).to(device)


@dataclass(frozen=True)
class ScoreConfig(TrainConfig):
    """A denoiser, trained by denoising score matching and sampled on the EDM schedule."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: Weighting = field(default_factory=EDMWeighting)
    denoiser: PlayerConfig = PlayerConfig()
    fit: FitConfig = FitConfig()
    sampling: SamplingConfig = SamplingConfig()

    selects: ClassVar[bool] = True

    @property
    def classless(self) -> bool:
        return self.model.label_dropout > 0

    def players(self) -> dict[str, PlayerConfig]:
        return {"denoiser": self.denoiser}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        return {"denoiser": self.model.build(meta)}

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> ScoreMatching:
        return ScoreMatching(as_denoiser(modules["denoiser"]), self.loss, self.model.label_dropout)

    @property
    def dials(self) -> Dials:
        return Dials(self.sampling.steps, 0.0, self.sampling.churn, self.sampling.guidance)

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        if dials.gan != 0:
            raise ValueError(f"gan = {dials.gan} weighs the log-ratio, and this run has no discriminator: use gan=0")
        score = guided(self.sampling.schedule, modules["denoiser"], dials.guidance)
        return at(self.sampling.schedule, score, churn=dials.churn, start=self.sampling.start(meta, device_of(modules)))


def as_denoiser(module: nn.Module) -> Denoiser:
    assert isinstance(module, Denoiser)
    return module


def guided(schedule: EDM, module: nn.Module, guidance: float) -> ScoreField:
    """The score of a denoiser with classifier-free guidance. Raises ValueError where there are no classes to steer
    by."""
    denoiser = as_denoiser(module)
    if not math.isfinite(guidance):
        raise ValueError(f"guidance = {guidance} must be a finite number: 1 is none")
    if guidance != 1.0 and not denoiser.classes:
        raise ValueError(f"guidance = {guidance} needs classes, and this run was trained without: leave it at 1")
    return guide(schedule.score(denoiser), guidance)
