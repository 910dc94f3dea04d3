"""What every run has in common: the data, the loop, how a player moves, and what a family of models must say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..equation.noise import Noise
from ..equation.sde import DiffFlow
from ..networks.generator import Generator
from ..objectives.base import Objective
from ..sampling.sample import Grid, Step, Trajectory, sample
from ..sampling.solvers import Solver
from .settings.common import DataConfig, Dials, FitConfig, PlayerConfig
from .settings.serialise import Choice, require

RATIO = "∇log(<i>r</i>/<i>p</i>)"  # as a report writes it
STILL = ("<i>f</i>, <i>g</i>²", "0: no drift of its own, no score")
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
    """A whole run of one family of models. Subclasses are frozen dataclasses of plain values, which build what they
    describe: networks, the objective that trains them, the equation that samples them.

    `meta` describes the data (Data.meta()): shape, classes, mean, std, spread in model units.
    """

    called: ClassVar[str] = "family of models"

    data: DataConfig
    fit: FitConfig
    sampling: Any  # has `ema`, the width of the weight average to use, or None for the player's first
    needs_start: ClassVar[str] = ""  # what must be trained before, where it must: a new run then needs --init-from
    whole_batch: ClassVar[str] = ""  # why a batch may not be cut into micro-batches or processes, where it may not

    words: ClassVar[Words] = Words()  # what a report says of it
    composite: ClassVar[bool] = False  # whether its denoiser means nothing without its discriminator
    selects: ClassVar[bool] = False  # whether its loss tells which average is best, so that fit.holdout makes sense
    fixed: ClassVar[tuple[str, ...]] = ()  # settings of `sampling` that the training depends on

    def players(self) -> dict[str, PlayerConfig]:
        """How each player moves."""
        raise NotImplementedError(f"{type(self).__name__} must define players")

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The players' networks, by name."""
        raise NotImplementedError(f"{type(self).__name__} must define build")

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> Objective:
        """What the players minimise; on their device."""
        raise NotImplementedError(f"{type(self).__name__} must define objective")

    def begin(self, objective: Objective, weights: Mapping[str, Mapping[str, Tensor]], source: str) -> None:
        """Start from the averaged weights of another run: the players that it has too. Raises ConfigError where they
        do not fit."""
        known = objective.players.keys() & weights.keys()
        require(
            bool(known),
            f"--init-from {source} has {', '.join(sorted(weights))}, and this model {', '.join(objective.players)}: "
            "nothing to start from",
        )
        for name in known:
            fill(objective.players[name], weights[name], source)

    @property
    def row(self) -> str | None:
        """Its row in the catalogue (models.MODELS); None where that depends on how it is sampled."""
        return None

    @property
    def papers(self) -> tuple[str, ...]:
        """What a run rests on besides the equation, as keys of references.BIBTEX, where no row of the catalogue says
        it."""
        return ()

    @property
    def classless(self) -> bool:
        """Whether, of data with classes, samples of no class were learned too (they take label dropout)."""
        return True

    @property
    def dials(self) -> Dials:
        """How samples are drawn when nobody says otherwise."""
        raise NotImplementedError(f"{type(self).__name__} must define dials")

    def equation_rows(self) -> list[tuple[str, str]]:
        """This setting of the equation for a report: symbols and what they are here, as HTML."""
        return []

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        """The equation that samples obey, in model units, with its start, on the players' device. Raises ValueError for
        dials that this family does not have."""
        raise NotImplementedError(f"{type(self).__name__} must define sde")

    def solver(self, dials: Dials) -> Solver | None:
        """The solver that the model was trained for; None: `df.sample`'s default."""
        return None

    def check(self, dials: Dials, solver: Solver | None, grid: Grid | None) -> None:
        """Before a draw: warn of what the model was not trained for."""

    def draw(
        self,
        modules: Mapping[str, nn.Module],
        meta: Mapping[str, Any],
        n: int,
        dials: Dials,
        cond: Tensor | None = None,
        noise: Noise = Noise(0),
        solver: Solver | None = None,
        grid: Grid | None = None,
        keep: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Trajectory:
        """n samples in model units, of classes `cond` (n,)."""
        self.check(dials, solver, grid)
        sde = self.sde(modules, meta, dials)
        method = solver or self.solver(dials)
        return sample(sde, n, dials.steps, solver=method, grid=grid, noise=noise, cond=cond, keep=keep, on_step=on_step)


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load the weights of a run into a network. Raises ConfigError where they do not fit."""
    old = dict(module.state_dict())
    misfits = sorted(weights.keys() ^ old.keys()) or [k for k, v in weights.items() if v.shape != old[k].shape]
    require(
        not misfits,
        f"the weights of {source} do not fit this network: {', '.join(misfits[:5])}. Use the same model settings and "
        "classes, and the version of diffflow that trained them",
    )
    first = {id(p): name for name, p in module.named_parameters()}  # averages know tied weights by this name alone
    tied = {name: first[id(p)] for name, p in module.named_parameters(remove_duplicate=False)}
    module.load_state_dict({name: weights[tied.get(name, name)] for name in weights})


def device_of(modules: Mapping[str, nn.Module]) -> torch.device:
    """Where the players live."""
    return next(p.device for module in modules.values() for p in module.parameters())


@dataclass(frozen=True)
class GeneratorSampling:
    """How samples are drawn when nobody says otherwise: in one evaluation."""

    ema: float | None = None
    """Width of the weight average to use; none: the player's first."""


@dataclass(frozen=True)
class MoveConfig:
    """How a generator follows the field that moves its samples."""

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
    """What families with a generator share: a sample costs a fixed number of evaluations, mostly one, and there is no
    equation to solve."""

    move: MoveConfig

    @property
    def evaluations(self) -> int:
        """Of networks, for a sample."""
        return 1

    words: ClassVar[Words] = Words("A generator", ONE_EVALUATION)

    def moved_rows(self) -> list[tuple[str, str]]:
        """The rows of the equation that say what moves the generator's samples, as HTML."""
        return []

    def equation_rows(self) -> list[tuple[str, str]]:
        steps = self.move.steps
        follow = f"the generator follows by {steps} regression step{'s' if steps > 1 else ''} for each move"
        return [
            ("<i>r</i>", self.target),
            *self.moved_rows(),
            STILL,
            ("<i>λ</i>²", "0: no noise"),
            ("generator", follow),
        ]

    @property
    def target(self) -> str:
        """What samples are moved toward, as HTML."""
        return "the data itself"

    @property
    def dials(self) -> Dials:
        return Dials(steps=self.evaluations)

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        raise ValueError("a generator has no equation: it has learned where its particles end (sample)")

    def draw(
        self,
        modules: Mapping[str, nn.Module],
        meta: Mapping[str, Any],
        n: int,
        dials: Dials,
        cond: Tensor | None = None,
        noise: Noise = Noise(0),
        solver: Solver | None = None,
        grid: Grid | None = None,
        keep: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Trajectory:
        """As for every family; where there are classes and none are asked for, they are drawn at random."""
        asked = {k: v for k, v in dataclasses.asdict(dials).items() if v != getattr(self.dials, k)}
        asked |= {k: v for k, v in {"solver": solver, "grid": grid, "keep": keep}.items() if v is not None}
        if asked:
            raise ValueError(
                f"{', '.join(f'{k} = {v}' for k, v in asked.items())}: a generator draws in "
                f"{'one evaluation' if self.evaluations == 1 else f'{self.evaluations} evaluations'}, and has no "
                "steps, dials, solver, grid or states between; leave it out"
            )
        generator = modules["generator"]
        assert isinstance(generator, Generator)
        if generator.classes:
            some = noise.fork("class").randint(n, generator.classes, device=device_of(modules))
            cond = some if cond is None else torch.where(cond < 0, some, cond)
        x = generator.draw(n, noise.fork("start"), cond)
        if on_step is not None:
            on_step(Step(1, 1, 1.0, x))
        return Trajectory(x, self.evaluations, torch.tensor([0.0, 1.0], dtype=torch.float64), [])


def as_generator(module: nn.Module) -> Generator:
    assert isinstance(module, Generator)
    return module
