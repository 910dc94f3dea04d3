"""Diffusion models: a denoiser, the weighting of its loss, and how samples are drawn with it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from ..data.augment import LABELS
from ..data.column_parts import Part
from ..data.conditions import Conditions, from_meta
from ..data.table_transform import TableTransform
from ..equation.fields import ScoreField
from ..equation.guidance import Guidance, by_part, guide
from ..equation.laws import Law
from ..equation.schedule import SCHEDULES, Schedule
from ..equation.sde import DiffFlow
from ..equation.spectrum import at
from ..networks.denoiser import FORMS, Denoiser, quarter_log
from ..networks.mixture_skip import WIDEST, MixtureDenoiser, MixtureSkip, room
from ..objectives.score_matching import (
    EDMWeighting,
    EpsWeighting,
    FlowWeighting,
    LikelihoodWeighting,
    ScoreMatching,
    VWeighting,
)
from .base import RATIO, SDE, TrainConfig, Words, device_of, player
from .settings.common import DataConfig, Dials, FitConfig, PlayerConfig, make_schedule
from .settings.networks import MLPConfig, NetConfig, UNetConfig
from .settings.serialise import UNSAID, require, suggest

WeightingConfig = EDMWeighting | EpsWeighting | VWeighting | FlowWeighting | LikelihoodWeighting


@dataclass(frozen=True)
class ModelConfig:
    """The denoiser: its network, and what the network predicts.

    Raises:
        ConfigError: an unknown form, a share of dropped labels outside [0, 1), or no component.
    """

    net: NetConfig = UNetConfig()
    """The network."""
    form: str = "edm"
    """What the network predicts, a row of denoiser.FORMS: edm, eps, v, x0, flow, score."""
    label_dropout: float = 0.1
    """Share of samples trained without their class, or other condition, for guidance."""
    masks: float = field(default=0.0, metadata=UNSAID)
    """Share of vectors trained with random columns known, so that rows given some columns cost one ordinary solve."""
    skip: Literal["none", "mixture"] = field(default="none", metadata=UNSAID)
    """mixture: of vectors, a Gaussian mixture fitted before the training, in place of the form's a y; the network
    learns the rest. For densities of tables. none: the form alone."""
    components: int = field(default=128, metadata=UNSAID)
    """Of the mixture at most; how many it has is chosen on rows kept aside."""

    def __post_init__(self) -> None:
        require(self.form in FORMS, f"model.form = {self.form!r} is unknown{suggest(self.form, list(FORMS))}")
        require(0 <= self.label_dropout < 1, f"model.label_dropout = {self.label_dropout} must be in [0, 1)")
        require(0 <= self.masks <= 1, f"model.masks = {self.masks} must be in [0, 1]: a share of the samples")
        require(self.components >= 1, f"model.components = {self.components} must be at least 1")
        require(
            not (self.masks and self.skip != "none"),
            f"model.masks = {self.masks} and model.skip = {self.skip!r}: a mixture is not told what is known; give one",
        )

    def build(self, meta: Mapping[str, Any], augmented: bool = False) -> Denoiser:
        """The denoiser for data that `meta` describes, told of their augmentation where they are `augmented`.

        Raises ConfigError where the network does not fit them.
        """
        shape, classes = tuple(meta["shape"]), len(meta["classes"] or ())
        conditions = from_meta(meta)
        settings: Any = self.net
        if augmented and hasattr(settings, "augment_labels"):
            settings = replace(settings, augment_labels=LABELS)
        if self.masks:
            require(
                len(shape) == 1 and hasattr(settings, "masks"),
                f"model.masks = {self.masks} is for vectors, by a network that can be told which columns are known "
                f"(MLPConfig): {type(settings).__name__} for shape {shape} cannot; leave it at 0",
            )
            settings = replace(settings, masks=True)
        mixed = mixed_parts(meta)
        require(
            self.skip == "none" or not mixed,
            f"model.skip = {self.skip!r} is for numbers, and columns of this table have words, few values or gaps",
        )
        if mixed:
            return self._mixed(settings, meta, conditions)
        skip = None if self.skip == "none" else self._mixture(meta)
        require(
            not getattr(settings, "beside", 0),
            "model.net.beside is set by model.skip, as what it shows to the network beside x: leave it at 0",
        )
        if skip is not None:
            settings = replace(settings, beside=skip.dim)
        if "cond" in meta:
            takes = len(inspect.signature(settings.build).parameters) >= 3
            require(
                takes, f"{type(settings).__name__}.build(shape, classes) knows classes only: let it take conditions"
            )
            net = settings.build(shape, 0, conditions)
        else:
            net = settings.build(shape, classes)
        require(
            not augmented or getattr(net, "augment_labels", 0) == LABELS,
            f"data.augment changes pictures, and {type(settings).__name__} cannot be told how: samples would be turned "
            "and moved too. Take a network with augment_labels, or leave data.augment at 0",
        )
        if not getattr(net, "takes_cond", True):
            conditions = None
        make: Any = Denoiser if skip is None else partial(MixtureDenoiser, skip=skip)
        return make(
            net,
            sigma_data=meta["std"],
            principal_std=meta["principal_std"],
            form=FORMS[self.form],
            time=getattr(net, "time_of", quarter_log),
            conditions=conditions,
            null=getattr(net, "has_null", True),
        )

    def _mixed(self, net: NetConfig, meta: Mapping[str, Any], conditions: Conditions | None) -> Denoiser:
        """The denoiser of a table's rows. Raises ConfigError for a network that does not take them."""
        from ..networks.mixed_rows import MixedDenoiser

        require(
            isinstance(net, MLPConfig),
            f"{type(net).__name__} takes vectors of numbers, and rows of a table have words, few values and gaps: "
            "leave model.net at MLPConfig, or give the numbers alone as an array (.npy)",
        )
        require(self.form == "edm", f"model.form = {self.form!r}: rows of a table are denoised in their own way, edm")
        parts, classes = mixed_parts(meta), len(meta["classes"] or ())
        told = (0, conditions) if "cond" in meta else (classes, None)
        assert isinstance(net, MLPConfig)  # checked above, for the type checker
        return MixedDenoiser(
            lambda inputs, outputs: net.build_mixed(inputs, outputs, len(parts), *told),
            parts,
            meta["std"],
            meta["principal_std"],
            octaves=net.octaves,
            conditions=conditions,
        )

    def _mixture(self, meta: Mapping[str, Any]) -> MixtureSkip:
        """The mixture in place of a y, before it is fitted. Raises ConfigError for data or a network unfit for it."""
        shape, rows = tuple(meta["shape"]), meta["count"]
        require(
            len(shape) == 1 and shape[0] <= WIDEST,
            f"model.skip = 'mixture' keeps covariances of vectors of at most {WIDEST} numbers, and the data have shape "
            f"{shape}: leave it at none",
        )
        require(
            hasattr(self.net, "beside"),
            f"model.skip = 'mixture' is shown to the network beside x, which {type(self.net).__name__} does not take: "
            "use an MLPConfig, or leave it at none",
        )
        return MixtureSkip(shape[0], room(self.components, shape[0], rows), meta["std"])


def mixed_parts(meta: Mapping[str, Any]) -> tuple[Part, ...]:
    """The coordinates of a table's columns, where they are more than numbers that are always there; else ()."""
    transform = meta.get("transform", {})
    parts = TableTransform.from_meta(transform).parts if "parts" in transform else ()
    return parts if any(part.kind != "number" or part.flagged for part in parts) else ()


@dataclass(frozen=True)
class SamplingConfig:
    """How samples are drawn by default, on a noise schedule from sigma_max down to sigma_min.

    Raises:
        ConfigError: an unknown schedule, or a number out of its range.
    """

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
    schedule: str = "edm"
    """Noise schedule, clock and scale of the path: edm, ve, vp, subvp, cosine, flow. One training serves them all."""
    ema: float | None = None
    """Width of the weight average to use; none: the player's first."""

    def __post_init__(self) -> None:
        require(self.schedule in SCHEDULES, f"sampling.schedule = {SCHEDULES.unknown(self.schedule)}")
        require(self.steps >= 1, f"steps = {self.steps} must be at least 1")
        require(self.churn >= 0, f"churn = {self.churn} must not be negative: 0 is the deterministic flow")
        require(math.isfinite(self.guidance), f"guidance = {self.guidance} must be a finite number: 1 is none")
        require(
            0 < self.sigma_min < self.sigma_max,
            f"sigma_min = {self.sigma_min} must be positive and below sigma_max = {self.sigma_max}",
        )

    @property
    def path(self) -> Schedule:
        """The noise schedule of these settings."""
        return make_schedule(self.schedule, self.sigma_min, self.sigma_max)

    def equation_rows(self) -> list[tuple[str, str]]:
        """The rows of the equation that the schedule decides, as HTML."""
        edm = self.schedule == "edm"
        y = "<i>x</i>" if edm else "<i>x</i>/<i>s</i>"
        clock = (
            "linear in time (the EDM schedule); <i>f</i> = 0" if edm else f"on the schedule “{escape(self.schedule)}”"
        )
        growth = "2<i>σ</i>|d<i>σ</i>/d<i>t</i>|" if edm else "2<i>s</i>²<i>σ</i>|d<i>σ</i>/d<i>t</i>|"
        below = "<i>σ</i>²" if edm else "(<i>sσ</i>²)"
        return [
            (
                "<i>r</i>",
                f"the data, noised{'' if edm else ' and scaled by <i>s</i>'}; ∇log <i>r</i> = (<i>D</i> − {y})/{below} "
                "with the trained denoiser <i>D</i>",
            ),
            ("<i>σ</i>", f"from {self.sigma_max:g} down to {self.sigma_min:g}, {clock}"),
            ("<i>λ</i>²", f"<i>G</i>² = {growth}: the entropy that noising the data took away"),
            (
                "<i>g</i>²",
                f"(1 + churn) <i>G</i>²: the dial. 0 is the probability flow, 1 the reverse SDE; here {self.churn:g}",
            ),
        ]

    def start(self, meta: Mapping[str, Any], device: torch.device) -> Law:
        """The Gaussian that samples start from, for data that `meta` describes, on a device."""
        return self.path.prior(tuple(meta["shape"]), meta["mean"], meta["std"]).to(device)


@dataclass(frozen=True)
class ScoreConfig(TrainConfig):
    """A denoiser, trained by denoising score matching and sampled on any noise schedule."""

    data: DataConfig = DataConfig()
    """What to learn from."""
    model: ModelConfig = ModelConfig()
    """The denoiser."""
    loss: WeightingConfig = field(default_factory=EDMWeighting)
    """How noise levels are drawn and weighed."""
    denoiser: PlayerConfig = PlayerConfig()
    """How the denoiser moves: learning rate, averages, clipping."""
    fit: FitConfig = FitConfig()
    """The training loop."""
    sampling: SamplingConfig = SamplingConfig()
    """How samples are drawn when nobody says otherwise."""

    selects: ClassVar[bool] = True
    any_condition: ClassVar[bool] = True
    augments: ClassVar[bool] = True

    words: ClassVar[Words] = Words(
        "A denoiser",
        "New examples are drawn by moving noise along the equation below; one dial sets how much of the path is "
        "random.",
        " --steps 20 --churn 0",
        ", steps=20, churn=0.5",
        SDE.format("churn=1.0"),
    )

    def equation_rows(self) -> list[tuple[str, str]]:
        """The rows of the schedule, and of a speed that gives the log-ratio no weight."""
        weight = f"<i>g</i>²/2, so that {RATIO} has no weight and no discriminator is needed"
        return [*self.sampling.equation_rows(), ("<i>β</i>", weight)]

    @property
    def classless(self) -> bool:
        """Whether labels were dropped in training."""
        return self.model.label_dropout > 0

    def players(self) -> dict[str, PlayerConfig]:
        """How the denoiser is trained."""
        return {"denoiser": self.denoiser}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The denoiser."""
        return {"denoiser": self.model.build(meta, self.data.augment > 0)}

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> ScoreMatching:
        """Denoising score matching with the weighting of `loss`."""
        denoiser = player(modules, "denoiser", Denoiser)
        hidden = self.model.label_dropout if denoiser.null else 0.0
        return ScoreMatching(denoiser, self.loss, hidden, self.model.masks)

    @property
    def dials(self) -> Dials:
        """The dials of `sampling`, without log-ratio."""
        return Dials(self.sampling.steps, 0.0, self.sampling.churn, self.sampling.guidance)

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        """The equation on the schedule with the data score alone. Raises ValueError for gan other than 0."""
        if dials.gan != 0:
            raise ValueError(f"gan = {dials.gan} weighs the log-ratio, and this run has no discriminator: use gan=0")
        score = guided(self.sampling.path, player(modules, "denoiser", Denoiser), dials.guidance)
        return at(self.sampling.path, score, churn=dials.churn, start=self.sampling.start(meta, device_of(modules)))


def ended(config: TrainConfig, sigma_min: float, churn: float) -> TrainConfig:
    """The settings of a denoiser whose sampler ends elsewhere, with another churn; another family's as they are."""
    if not isinstance(config, ScoreConfig):
        return config
    return replace(config, sampling=replace(config.sampling, sigma_min=sigma_min, churn=churn))


def guided(schedule: Schedule, denoiser: Denoiser, guidance: Guidance) -> ScoreField:
    """The score of a denoiser with classifier-free guidance.

    Args:
        schedule: the noise schedule.
        denoiser: the network, conditional where guidance is not 1.
        guidance: 1 is the conditional law itself, more sharpens it; or such a weight for each part of the condition.

    Raises:
        ValueError: guidance that is not finite, or other than 1 where there is nothing to steer by.
    """
    weights = by_part(guidance)
    parts = denoiser.conditions if isinstance(denoiser.conditions, Mapping) else {}
    whole = {""} if len(weights) == 1 else set()
    if unknown := sorted(map(str, weights.keys() - parts.keys() - whole)):
        known = f"are {', '.join(parts)}" if parts else "have no names: give one number"
        raise ValueError(f"guidance names {', '.join(unknown)}, and the conditions of this run {known}")
    if not all(map(math.isfinite, weights.values())):
        raise ValueError(f"guidance = {guidance} must be a finite number: 1 is none")
    if all(weight == 1.0 for weight in weights.values()):
        return schedule.score(denoiser)
    if not denoiser.conditional:
        raise ValueError(f"guidance = {guidance} needs a condition, and this run was trained without: leave it at 1")
    if not denoiser.null:
        raise ValueError(
            f"guidance = {guidance} compares with no condition, and this network declares none (its attribute `null`): "
            "leave it at 1"
        )
    return guide(schedule.score(denoiser), weights.get("", weights))
