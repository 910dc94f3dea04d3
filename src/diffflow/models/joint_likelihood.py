"""Joint likelihood: a denoiser and a discriminator trained together on one likelihood bound, without a game.

References:
    docs/theory/derivations.md, eq. 12; Theorem 3 of the DiffFlow paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, ClassVar

import torch
from torch import nn

from ..equation.laws import Law
from ..equation.schedule import SCHEDULES, Schedule
from ..equation.sde import DiffFlow
from ..equation.spectrum import at
from ..networks.denoiser import Denoiser
from ..networks.discriminator import Discriminator
from ..objectives.likelihood_bound import JointBound
from ..objectives.score_matching import LikelihoodWeighting
from .base import TrainConfig, Words, device_of, player
from .diffusion import ModelConfig
from .settings.common import DataConfig, Dials, FitConfig, PlayerConfig, make_schedule
from .settings.games import along, class_count
from .settings.networks import DiscriminatorNet, MLPDiscriminatorConfig
from .settings.serialise import require


@dataclass(frozen=True)
class JointSampling:
    """The equation that is trained, and how samples are drawn by default.

    Raises:
        ConfigError: an unknown schedule, or a number out of its range.
    """

    schedule: str = "edm"
    """Noise schedule of the path, its clock and its scale: edm, ve, vp, subvp, cosine, flow."""
    sigma_min: float = 0.002
    """Lowest noise level."""
    sigma_max: float = 80.0
    """Highest noise level."""
    gan: float = 1.0
    """Weight of the discriminator."""
    churn: float = 1.0
    """Stochasticity; the bound is tightest at 1."""
    steps: int = 20
    """Steps of the solver."""
    ema: float | None = None
    """Width of the weight average to use; none: the player's first."""

    def __post_init__(self) -> None:
        require(self.schedule in SCHEDULES, f"sampling.schedule = {SCHEDULES.unknown(self.schedule)}")
        require(self.steps >= 1, f"sampling.steps = {self.steps} must be at least 1")
        require(
            min(self.gan, self.churn) > 0,
            f"sampling.gan = {self.gan} and churn = {self.churn} must be positive: without noise there is no bound, "
            "and without weight no discriminator",
        )
        require(
            0 < self.sigma_min < self.sigma_max,
            f"sampling.sigma_min = {self.sigma_min} must be positive and below sigma_max = {self.sigma_max}",
        )

    @property
    def path(self) -> Schedule:
        """The noise schedule of these settings."""
        return make_schedule(self.schedule, self.sigma_min, self.sigma_max)

    def start(self, meta: Mapping[str, Any], device: torch.device) -> Law:
        """The Gaussian that samples start from, for data that `meta` describes, on a device."""
        return self.path.prior(tuple(meta["shape"]), meta["mean"], meta["std"]).to(device)


@dataclass(frozen=True)
class LikelihoodConfig(TrainConfig):
    """A denoiser and a discriminator that descend one likelihood bound (objectives/likelihood_bound.py).

    There is double backpropagation and no game. The two make one composite denoiser, so their dials are those of the
    training.
    """

    data: DataConfig = DataConfig()
    """What to learn from."""
    model: ModelConfig = ModelConfig()
    """The denoiser."""
    discriminator_net: DiscriminatorNet = field(default_factory=MLPDiscriminatorConfig)
    """The network of the discriminator."""
    middle: float = 0.5
    """Noise level around which levels are drawn: it changes the variance of the loss, and not its mean."""
    denoiser: PlayerConfig = PlayerConfig()
    """How the denoiser moves: learning rate, averages, clipping."""
    discriminator: PlayerConfig = PlayerConfig()
    """How the discriminator moves: learning rate, averages, clipping."""
    fit: FitConfig = FitConfig()
    """The training loop."""
    sampling: JointSampling = JointSampling()
    """How samples are drawn when nobody says otherwise."""

    composite: ClassVar[bool] = True
    fixed: ClassVar[tuple[str, ...]] = tuple(
        f"sampling.{name}" for name in ("schedule", "sigma_min", "sigma_max", "gan", "churn")
    )

    words: ClassVar[Words] = Words(
        "A denoiser and a discriminator, one composite",
        "New examples are drawn by moving noise along the equation below; both were trained on one likelihood bound.",
        " --steps 20",
        ", steps=20",
    )

    def equation_rows(self) -> list[tuple[str, str]]:
        """The rows of the target, the schedule, and the weights that were trained."""
        s = self.sampling
        return [
            (
                "<i>r</i>",
                "the data, noised and scaled by <i>s</i>; ∇log <i>r</i> = (<i>D</i>(<i>x</i>/<i>s</i>) − "
                "<i>x</i>/<i>s</i>)/(<i>sσ</i>²) with the denoiser <i>D</i>",
            ),
            ("<i>σ</i>", f"from {s.sigma_max:g} down to {s.sigma_min:g} on the schedule “{escape(s.schedule)}”"),
            ("<i>g</i>², <i>λ</i>²", f"(1 + churn) <i>G</i>² and the schedule's own <i>G</i>²; churn = {s.churn:g}"),
            ("<i>β</i>", f"<i>g</i>²/2 + gan <i>G</i>²/2, the weight of ∇<i>d</i>; gan = {s.gan:g}"),
        ]

    @property
    def classless(self) -> bool:
        """Whether labels were dropped in training."""
        return self.model.label_dropout > 0

    def players(self) -> dict[str, PlayerConfig]:
        """How denoiser and discriminator are trained."""
        return {"denoiser": self.denoiser, "discriminator": self.discriminator}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The denoiser, and a discriminator that is told the noise level."""
        s, std = self.sampling.path, float(meta["std"])
        net = self.discriminator_net.build(tuple(meta["shape"]), class_count(meta), timed=True)
        return {"denoiser": self.model.build(meta), "discriminator": along(net, s, std)}

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> JointBound:
        """The likelihood bound of the composite denoiser."""
        s = self.sampling
        weighting = LikelihoodWeighting(s.path.sigma(s.path.horizon).item(), s.path.sigma(0.0).item(), self.middle)
        denoiser = player(modules, "denoiser", Denoiser)
        discriminator = player(modules, "discriminator", Discriminator)
        return JointBound(denoiser, discriminator, s.path, weighting, s.gan, s.churn, self.model.label_dropout)

    @property
    def dials(self) -> Dials:
        """The dials of `sampling`, which are those of the training."""
        s = self.sampling
        return Dials(s.steps, s.gan, s.churn)

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        """The equation that was trained. Raises ValueError for other dials than its own, but for the steps."""
        s = self.sampling
        if (dials.gan, dials.churn, dials.guidance) != (s.gan, s.churn, 1.0):
            raise ValueError(
                f"gan = {dials.gan:g}, churn = {dials.churn:g}, guidance = {dials.guidance}: score and discriminator "
                f"were trained as one for gan = {s.gan:g} and churn = {s.churn:g} (its likelihood is a bound: --bound "
                f"--churn {s.churn:g}), without guidance"
            )
        score = s.path.score(player(modules, "denoiser", Denoiser))
        ratio = player(modules, "discriminator", Discriminator).ratio()
        return at(s.path, score, ratio, gan=s.gan, churn=s.churn, start=s.start(meta, device_of(modules)))
