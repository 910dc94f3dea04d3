"""Families of models: the settings that every run has, and what a family says to be trained, sampled and reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..equation.conditions import Cond
from ..equation.noise import Noise
from ..equation.sde import DiffFlow
from ..networks.generator import Generator
from ..objectives.base import Objective
from ..sampling.sample import Grid, Step, Trajectory, sample
from ..sampling.solvers import Solver
from .settings.common import DataConfig, Dials, FitConfig, PlayerConfig
from .settings.serialise import Choice, require

Kind = TypeVar("Kind")
RATIO = "∇log(<i>r</i>/<i>p</i>)"  # as a report writes it
NO_DRIFT = ("<i>f</i>, <i>g</i>²", "0: no drift of its own, no score")
SDE = "\nsde = run.sde({})   # the equation, with what was trained in it"


@dataclass(frozen=True)
class Words:
    """What a report says of a family of models.

    Args:
        players: the networks, as in "A denoiser".
        drawing: how new examples come about, a sentence.
        flags: the dials of `diffflow sample`.
        keywords: the same of `Run.sample`.
        equation: a line of Python about `Run.sde`.
    """

    players: str = "A model"
    drawing: str = "New examples are drawn by `diffflow sample`."
    flags: str = ""
    keywords: str = ""
    equation: str = ""


class TrainConfig(Choice):
    """The settings of a whole run of one family of models.

    Subclasses are frozen dataclasses of plain values, which build what they describe: networks, the objective that
    trains them, the equation that samples them. In their methods `modules` are the players' networks by name, and
    `meta` describes the data (`Data.meta()`): shape, classes, and, in model units, mean, std and principal_std.

    Attributes:
        needs_start: what must be trained before, where it must: a new run then needs --init-from; "" where nothing.
        whole_batch: why a batch may not be cut into micro-batches or processes; "" where it may.
        words: what a report says of the family.
        composite: whether its denoiser means nothing without its discriminator.
        any_condition: whether it may be conditioned on more than classes (`Data.with_cond`).
        adapts: whether its discriminator may be shown changed pictures (game.augment).
        augments: whether it may learn from pictures that are changed at random, and is told how (data.augment).
        selects: whether its loss tells which average is best, so that fit.holdout makes sense.
        fixed: dotted names of the settings of `sampling` that the training depends on.
    """

    called: ClassVar[str] = "family of models"

    data: DataConfig
    fit: FitConfig
    sampling: Any  # has `ema`, the width of the weight average to use, or None for the player's first

    needs_start: ClassVar[str] = ""
    whole_batch: ClassVar[str] = ""
    words: ClassVar[Words] = Words()
    composite: ClassVar[bool] = False
    any_condition: ClassVar[bool] = False
    adapts: ClassVar[bool] = False
    augments: ClassVar[bool] = False
    selects: ClassVar[bool] = False
    fixed: ClassVar[tuple[str, ...]] = ()

    def players(self) -> dict[str, PlayerConfig]:
        """How each player is trained, by its name."""
        raise NotImplementedError(f"{type(self).__name__} must define players")

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """Build the players' networks.

        Args:
            meta: describes the data.

        Returns:
            The networks by the names of their players.

        Raises:
            ConfigError: networks that the data's shape or classes do not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> Objective:
        """Build what the players minimise.

        Args:
            modules: the players' networks, on the device of the training.
            meta: describes the data.
        """
        raise NotImplementedError(f"{type(self).__name__} must define objective")

    def begin(self, objective: Objective, weights: Mapping[str, Mapping[str, Tensor]], source: str) -> None:
        """Start from the weights of another run: fill the players that both have.

        Args:
            objective: a new one of this family.
            weights: the averaged weights of the other run, by player and tensor name.
            source: what messages call that run.

        Raises:
            ConfigError: the two have no player in common, or weights do not fit.
        """
        shared = objective.players.keys() & weights.keys()
        require(
            bool(shared),
            f"--init-from {source} has {', '.join(sorted(weights))}, and this model {', '.join(objective.players)}: "
            "nothing to start from",
        )
        for name in shared:
            fill(objective.players[name], weights[name], source)

    @property
    def least_steps(self) -> int:
        """Fewest steps that make pictures more than patches of colour: a rule of thumb, to judge budgets by."""
        return 3000

    def unfit(self, steps: float) -> str:
        """Why pictures that are learned in so many steps will be poor, in words; "" where they need not be."""
        least = self.least_steps
        return "" if steps >= least else f"{steps:,.0f} steps are few: this model needs about {least:,}"

    @property
    def row(self) -> str | None:
        """Its row in the catalogue (models.MODELS); None where that depends on how it is sampled."""
        return None

    @property
    def papers(self) -> tuple[str, ...]:
        """The papers of a run without a row of the catalogue, besides the equation's: keys of `papers.BIBTEX`."""
        return ()

    @property
    def classless(self) -> bool:
        """Whether samples of no class can be drawn where the data have classes (they take label dropout)."""
        return True

    @property
    def dials(self) -> Dials:
        """The dials that samples are drawn with by default."""
        raise NotImplementedError(f"{type(self).__name__} must define dials")

    def equation_rows(self) -> list[tuple[str, str]]:
        """This setting of the equation for a report: symbols and what they are here, as HTML."""
        return []

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        """The equation that samples obey, in model units, with its start.

        Args:
            modules: the players' networks.
            meta: describes the data.
            dials: steps, gan, churn and guidance.

        Returns:
            The equation, on the players' device.

        Raises:
            ValueError: dials that this family does not have.
        """
        raise NotImplementedError(f"{type(self).__name__} must define sde")

    def solver(self, dials: Dials) -> Solver | None:
        """The solver that the model was trained for; None: `df.sample`'s default."""
        return None

    def check(self, dials: Dials, solver: Solver | None, grid: Grid | None) -> None:
        """Warn, before a draw, of what the model was not trained for."""

    def draw(
        self,
        modules: Mapping[str, nn.Module],
        meta: Mapping[str, Any],
        n: int,
        dials: Dials,
        cond: Cond = None,
        noise: Noise = Noise(0),
        solver: Solver | None = None,
        grid: Grid | None = None,
        keep: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Trajectory:
        """Draw samples.

        Args:
            modules: the players' networks.
            meta: describes the data.
            n: number of samples.
            dials: steps, gan, churn and guidance.
            cond: their classes, int64 (n,), -1 for no class, or another condition as networks are told it; None: none.
            noise: the source of randomness.
            solver: None: the model's own (`solver`).
            grid: times of the steps; None: the solver's own.
            keep: keep every so-many-th state; None: the last only.
            on_step: called after every step.

        Returns:
            The samples in model units, (n, *shape), with times and the number of evaluations.

        Raises:
            ValueError: dials that this family does not have.
        """
        self.check(dials, solver, grid)
        sde = self.sde(modules, meta, dials)
        method = solver or self.solver(dials)
        return sample(sde, n, dials.steps, solver=method, grid=grid, noise=noise, cond=cond, keep=keep, on_step=on_step)


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load the weights of a run into a network.

    Args:
        module: the network.
        weights: tensors by name.
        source: what messages call the run.

    Raises:
        ConfigError: they do not fit.
    """
    present = dict(module.state_dict())
    misfits = sorted(weights.keys() ^ present.keys()) or [k for k, v in weights.items() if v.shape != present[k].shape]
    require(
        not misfits,
        f"the weights of {source} do not fit this network: {', '.join(misfits[:5])}. Use the same model settings and "
        "classes, and the version of diffflow that trained them",
    )
    first = {id(p): name for name, p in module.named_parameters()}  # averages know tied weights by this name alone
    tied = {name: first[id(p)] for name, p in module.named_parameters(remove_duplicate=False)}
    module.load_state_dict({name: weights[tied.get(name, name)] for name in weights})


def device_of(modules: Mapping[str, nn.Module]) -> torch.device:
    """The device of the players."""
    return next(p.device for module in modules.values() for p in module.parameters())


def of_kind(value: object, kind: type[Kind]) -> Kind:
    """The value itself, where it is of a kind. Raises TypeError where it is not."""
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} stands where a {kind.__name__} is expected")
    return value


def player(modules: Mapping[str, nn.Module], name: str, kind: type[Kind]) -> Kind:
    """The network of a player, of the kind that its family builds. Raises TypeError for another kind."""
    return of_kind(modules[name], kind)


@dataclass(frozen=True)
class GeneratorSampling:
    """How samples are drawn by default: in one evaluation."""

    ema: float | None = None
    """Width of the weight average to use; none: the player's first."""


@dataclass(frozen=True)
class MoveConfig:
    """How a generator follows the field that moves its samples, step by step.

    Raises:
        ConfigError: eta that is not positive, or fewer than one step or update.
    """

    eta: float = 1.0
    """How far samples are moved, in units of the velocity. With one regression step it scales the gradient only."""
    steps: int = 1
    """Regression steps toward each target; 1 is exactly the classical step."""
    updates: int = 1
    """Turns of the field's own network (discriminator, second denoiser) per step."""
    reuse: bool = False
    """Let these turns learn from the very samples that are about to move, instead of drawing fresh ones for each."""

    def __post_init__(self) -> None:
        require(self.eta > 0, f"move.eta = {self.eta} must be positive")
        require(
            min(self.steps, self.updates) >= 1,
            f"move.steps = {self.steps} and move.updates = {self.updates} must be at least 1",
        )


ONE_EVALUATION = (
    "New examples are drawn in one evaluation: the generator has learned where the particles of the equation below go."
)


class GeneratorConfig(TrainConfig, kind=False):
    """The settings that families with a generator share.

    A sample costs a fixed number of evaluations, mostly one, and there is no equation to solve.
    """

    move: MoveConfig

    @property
    def evaluations(self) -> int:
        """Network evaluations for a sample."""
        return 1

    words: ClassVar[Words] = Words("A generator", ONE_EVALUATION)

    def moved_rows(self) -> list[tuple[str, str]]:
        """The rows of the equation that say what moves the generator's samples, as HTML."""
        return []

    def equation_rows(self) -> list[tuple[str, str]]:
        """The rows of the equation for a report: target, what moves samples, and how the generator follows."""
        steps = self.move.steps
        follow = f"the generator follows by {steps} regression step{'s' if steps > 1 else ''} for each move"
        return [
            ("<i>r</i>", self.target),
            *self.moved_rows(),
            NO_DRIFT,
            ("<i>λ</i>²", "0: no noise"),
            ("generator", follow),
        ]

    @property
    def target(self) -> str:
        """What samples are moved toward, as HTML."""
        return "the data itself"

    @property
    def dials(self) -> Dials:
        """As many steps as evaluations; a generator has no other dial."""
        return Dials(steps=self.evaluations)

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        """Raise ValueError: a generator has no equation."""
        raise ValueError("a generator has no equation: it has learned where its particles end (sample)")

    def draw(
        self,
        modules: Mapping[str, nn.Module],
        meta: Mapping[str, Any],
        n: int,
        dials: Dials,
        cond: Cond = None,
        noise: Noise = Noise(0),
        solver: Solver | None = None,
        grid: Grid | None = None,
        keep: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Trajectory:
        """Draw samples as every family does; where classes are not given, they are drawn at random."""
        unusable = {k: v for k, v in dataclasses.asdict(dials).items() if v != getattr(self.dials, k)}
        unusable |= {k: v for k, v in {"solver": solver, "grid": grid, "keep": keep}.items() if v is not None}
        if unusable:
            raise ValueError(
                f"{', '.join(f'{k} = {v}' for k, v in unusable.items())}: a generator draws in "
                f"{'one evaluation' if self.evaluations == 1 else f'{self.evaluations} evaluations'}, and has no "
                "steps, dials, solver, grid or states between; leave it out"
            )
        generator = player(modules, "generator", Generator)
        if generator.classes:
            random_classes = noise.fork("class").randint(n, generator.classes, device=device_of(modules))
            cond = random_classes if cond is None else torch.where(cond < 0, random_classes, cond)
        x = generator.draw(n, noise.fork("start"), cond)
        if on_step is not None:
            on_step(Step(1, 1, 1.0, x))
        return Trajectory(x, self.evaluations, torch.tensor([0.0, 1.0], dtype=torch.float64), [])
