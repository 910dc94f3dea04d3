"""Runs: a trained model as its user holds it, for samples, equations, plans and likelihoods.

    run = df.load("runs/demo")
    run.sample(100, cond=labels, steps=20, churn=0.5).last    # images: float in [0, 1], (n, c, h, w)
    run.sde(churn=1.0)                                        # the equation itself, in model units

Model units are what the network sees: bytes in [-1, 1], floats standardised (`encode`, `decode`). A run needs only
its directory, not its data. Sample i depends on the noise's stream i and its own label, not on the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Transform
from ..data.coder import LatentSpace
from ..data.conditions import Condition, Conditions
from ..data.table_transform import TableTransform
from ..equation.conditions import Cond, rows
from ..equation.guidance import Guidance
from ..equation.noise import Noise, as_noise
from ..equation.sde import DiffFlow
from ..models.base import TrainConfig, device_of
from ..models.joint_likelihood import LikelihoodConfig
from ..models.settings.common import Dials
from ..networks.denoiser import Denoiser
from ..sampling.calibrate import calibrate
from ..sampling.plan import Plan
from ..sampling.sample import Grid, Step, Trajectory
from ..sampling.solvers import Solver
from ..sampling.teacher import Teacher, teach
from ..training.run_folder import Folder
from .conditions import AnyCondition, checked_conditions, conditions_of, sample_conditions
from .evaluate import evaluate
from .likelihood import dequantiser, is_discrete, log_likelihood, log_prob
from .plans import deviation, find_quality, fine_starts, own_solver, plannable_sde
from .tables import TableDraws


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained run, as `load` and `train` give it.

    Args:
        path: the run directory.
        config: its settings.
        data: what run.json says of the data.
        players: its networks by name, on one device.
        step: training step of the weights.
        versions: what made them.
        average: which average of the weights (or raw) this is: plans and qualities belong to one.
        space: the latents that its model lives in; None: it lives where its data do.
    """

    path: Path
    config: TrainConfig
    data: dict[str, Any]
    players: dict[str, nn.Module]
    step: int
    versions: dict[str, Any]
    average: str = "its own"
    space: LatentSpace | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, step {self.step}, {self.data['name']} {self.shape})"

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser. Raises ValueError where this family of models has none."""
        player = self.players.get("denoiser")
        if not isinstance(player, Denoiser):
            raise ValueError(f"{self.path} has no denoiser; its players are {', '.join(self.players)}")
        return player

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, in data units."""
        return self.transform.data_shape

    @cached_property
    def conditions(self) -> Conditions | None:
        """What its networks are told of each sample; None: nothing."""
        return conditions_of(self.players, self.data)

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes that a sample is asked for by; None: it was trained without."""
        return list(self.conditions.names) if isinstance(self.conditions, Condition) and self.conditions.names else None

    @property
    def device(self) -> torch.device:
        """Where the networks are, and samples are computed."""
        return device_of(self.players)

    @cached_property
    def transform(self) -> Transform:
        """The way between data units and model units; where the model lives in latents, of what is encoded."""
        return Transform.from_meta(self.data)

    def encode(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Data x (n, *shape) in model units; u (n, *shape) in [0, 1): where in their cells discrete values are put.

        Of a model that lives in latents: these.
        """
        z = self.transform.encode(x, u)
        return z if self.space is None else self.space.encode(z)

    def decode(self, z: Tensor) -> Tensor:
        """Model units (latents) z (n, *shape) as images of bytes in [0, 1], clamped, or floats in the data's units."""
        return self.transform.decode(z if self.space is None else self.space.decode(z))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return Folder(self.path).lines()

    @property
    def dials(self) -> Dials:
        """How samples are drawn when nobody says otherwise."""
        return self.config.dials

    def sde(
        self,
        gan: float | None = None,
        churn: float | None = None,
        guidance: Guidance = 1.0,
        cond: AnyCondition = None,
        steps: int | None = None,
    ) -> DiffFlow:
        """The equation at (gan, churn) of the spectrum, in model units, with its start, on the run's device.

        Args:
            gan: weight of the log-ratio; None: the run's own, which is 0 without a discriminator.
            churn: stochasticity; None: 0, or what score and discriminator were trained for as one (LikelihoodConfig).
            guidance: 1 is the law of the condition itself, more sharpens it; or a dict of weights by part of it.
            cond: class by index or name, or one a particle, or another condition in data units; None: none.
            steps: of the solver to come, which a Diffusion-GAN's discriminator is told; None: the run's own.

        Raises:
            ValueError: a dial that this family of models does not have, or a generator, which has no equation.
        """
        default = self.dials
        if churn is None:
            churn = default.churn if isinstance(self.config, LikelihoodConfig) else 0.0
        gan = default.gan if gan is None else gan
        dials = Dials(default.steps if steps is None else steps, gan, churn, guidance)
        sde = self.config.sde(self.players, self.data, dials)
        encoded = sample_conditions(cond, self.conditions, None, self.device, self.path)
        return sde if encoded is None else sde.given(encoded)

    def _rows_of(self, cond: AnyCondition, n: int, guidance: Guidance = 1.0) -> Cond:
        """The conditions of n samples as the networks are told them, checked. Raises ValueError."""
        classless = self.config.classless
        return checked_conditions(cond, self.conditions, n, self.players, self.path, classless, guidance)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        cond: AnyCondition = None,
        steps: int | None = None,
        churn: float | None = None,
        gan: float | None = None,
        guidance: Guidance | None = None,
        noise: Noise | int | None = None,
        solver: Solver | None = None,
        grid: Grid | None = None,
        batch: int = 256,
        keep: int | None = None,
        on_step: Callable[[Step], None] | None = None,
        plans: bool = True,
    ) -> Trajectory:
        """Draw n samples.

        Args:
            n: how many.
            cond: None, one class for all by index or name, or n of them; or another condition, in data units
                (`conditions`).
            steps: of the solver; default: the run's own `dials`, as for the next three.
            churn: stochasticity.
            gan: weight of the log-ratio.
            guidance: of the condition, or a weight for each part of it; 1: none.
            noise: streams, one a sample; an integer seed; None: a fresh seed from torch's generator.
            solver: as in `df.sample`; default: the plan that was calibrated for these dials, else the model's own.
            grid: times of the steps, as in `df.sample`; default: likewise.
            batch: how many move together: memory, not the outcome.
            keep: keep every so many states; None: the last one only.
            on_step: called after every step.
            plans: whether a calibrated plan may be used.

        Returns:
            The trajectory, its states decoded and on the CPU: images of bytes (n, c, h, w) in [0, 1]; floats
            (n, *shape) in the data's units; of a table `.frame` is its data frame (`TableDraws`).

        Raises:
            ValueError: arguments that cannot be meant.
        """
        if n < 1 or batch < 1:
            raise ValueError(f"n = {n} and batch = {batch} must be at least 1")
        overrides = {"steps": steps, "gan": gan, "churn": churn, "guidance": guidance}
        dials = dataclasses.replace(self.dials, **{k: v for k, v in overrides.items() if v is not None})
        labels = self._rows_of(cond, n, dials.guidance)
        if plans and solver is None and grid is None and (plan := self.plan(dials)) is not None:
            solver, grid = plan, plan.grid
        noise, draw = as_noise(noise), self.config.draw
        parts: list[Trajectory] = []
        for first in range(0, n, batch):
            size, streams = min(batch, n - first), noise.shift(first)
            part = rows(labels, slice(first, first + size))
            parts.append(draw(self.players, self.data, size, dials, part, streams, solver, grid, keep, on_step))
        last = torch.cat([self.decode(p.last).cpu() for p in parts])
        kept = [
            (states[0][0], torch.cat([self.decode(x).cpu() for _, x in states]))
            for states in zip(*(p.kept for p in parts), strict=True)
        ]
        if isinstance(self.transform, TableTransform):
            return TableDraws(last, parts[0].nfe, parts[0].times, kept, self.transform)
        return Trajectory(last, parts[0].nfe, parts[0].times, kept)

    def plan(self, dials: Dials | None = None) -> Plan | None:
        """The plan that `calibrate` kept for these dials (default: the run's own) and weights, if there is one."""
        return Folder(self.path).plans(self.weights).get(dials or self.dials)

    @property
    def weights(self) -> str:
        """What plans and qualities are matched by: the step, and which average."""
        return f"step {self.step}, {self.average}"

    def plannable(self, dials: Dials) -> bool:
        """Whether plans can be made for these dials (see `calibrate`)."""
        return not own_solver(self.config, dials) and self.config.sde(self.players, self.data, dials).on_schedule

    def quality(self, name: str) -> tuple[Dials, bool]:
        """Dials, and whether by their plan, that `diffflow frontier` found for a quality.

        Args:
            name: "fast", "balanced" or "best".

        Raises:
            ValueError: the frontier has not been swept for these weights, or has no such quality.
        """
        return find_quality(name, Folder(self.path), self.weights, "generator" in self.players)

    def teach(self, dials: Dials | None = None, n: int | None = None, noise: Noise | int = Noise(1)) -> Teacher:
        """Fine solutions to calibrate plans with, of all classes in turn (`sampling.teacher.teach`).

        Args:
            dials: what is solved; default: the run's own. One teacher serves any number of steps.
            n: how many starts; default: 128 to 256, more of smaller things.
            noise: streams of the starts; or an integer seed.

        Raises:
            ValueError: dials that no plan can be made for (`plannable`).
        """
        sde = self._calibrated(dials or self.dials)
        x = fine_starts(sde, n, as_noise(noise))
        return teach(sde, x, cond=self._turn(len(x)))

    def calibrate(
        self,
        dials: Dials | None = None,
        teacher: Teacher | None = None,
        fresh: Teacher | None = None,
        noise: Noise | int = Noise(1),
        rounds: int = 40,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Plan:
        """Fit a sampling plan for these dials and keep it in the run, whose samples use it from now on.

        Args:
            dials: what the plan is for; default: the run's own.
            teacher: fine solutions to fit to; default: `self.teach(dials)`.
            fresh: fine solutions of other starts; where it is given, a plan that does no better there than the default
                solver is not kept (without churn: with it no path is the right one).
            noise: streams of the starts; or an integer seed.
            rounds: attempts to improve the best grid.
            on_step: called with (attempts done, of how many).

        Raises:
            ValueError: dials that no plan can be made for (`plannable`).
        """
        dials, noise = dials or self.dials, as_noise(noise)
        sde = self._calibrated(dials)
        Folder(self.path).plans(self.weights)  # what is damaged should be known before the work
        teacher = teacher or self.teach(dials, noise=noise)
        cond = self._turn(teacher.y.shape[1])
        plan = calibrate(sde, dials.steps, noise=noise, teacher=teacher, cond=cond, rounds=rounds, on_step=on_step)
        if fresh is None or plan.noisy or self.deviation(fresh, dials, plan) < self.deviation(fresh, dials):
            Folder(self.path).keep_plan(self.weights, dials, plan)
        return plan

    deviation = deviation  # runs/plans.py
    evaluate = evaluate  # runs/evaluate.py

    def _calibrated(self, dials: Dials) -> DiffFlow:
        """The equation that a plan for these dials is made for. Raises ValueError where none can be."""
        self._rows_of(self.example_conditions(1), 1, dials.guidance)
        return plannable_sde(self.config, self.players, self.data, dials, self.path)

    def _turn(self, n: int) -> Cond:
        """What samples are asked for where nobody says it: every class in turn, or the examples of training in turn."""
        return sample_conditions(self.example_conditions(n), self.conditions, n, self.device, self.path)

    def example_conditions(self, n: int, first: int = 0) -> AnyCondition:
        """Conditions for samples first ... first + n - 1, in data units, taken in turn.

        Every class, or the rows that the run keeps of its training data; None where it is told nothing.
        """
        if self.classes:
            return torch.arange(first, first + n) % len(self.classes)
        return None if self.conditions is None else Folder(self.path).example_conditions(n, first)

    # runs/likelihood.py
    log_prob = log_prob
    log_likelihood = log_likelihood
    dequantiser = dequantiser

    @property
    def discrete(self) -> bool:
        """Whether some coordinates of the data have probabilities and no density."""
        return is_discrete(self.transform)
