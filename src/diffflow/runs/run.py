"""A trained thing as a user holds it: how do I get samples, equations and likelihoods out of a run directory?

    run = df.load("runs/demo")
    run.sample(100, cond=labels, steps=20, churn=0.5).last    # images: float in [0, 1], (n, c, h, w)
    run.sde(churn=1.0)                                        # the equation itself, in model units

Model units are what the network sees: images in [-1, 1], vectors standardised; `encode` and `decode` lead there and
back. A run needs only its directory, not its data. Sample i depends on the noise's stream i and its own label, not on
the batch it is computed in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Transform
from ..equation.noise import Noise, as_noise
from ..equation.sde import DiffFlow
from ..likelihood.dequantiser import Dequantiser, fit
from ..likelihood.elbo import Stratified, blended, elbo
from ..likelihood.ode import Exact, Hutchinson, LogProb, Trace, decoded, log_prob
from ..models.base import TrainConfig, device_of, fill
from ..models.joint_likelihood import LikelihoodConfig
from ..models.settings.common import Dials
from ..networks.denoiser import Denoiser
from ..registry import import_plugin
from ..sampling.calibrate import calibrate
from ..sampling.plan import Plan
from ..sampling.sample import Grid, Step, Trajectory, sample
from ..sampling.solvers import Solver
from ..sampling.teacher import Teacher, default_starts, teach
from ..training.distributed import find_device
from ..training.run_folder import Folder
from ..training.weights import load_averaged

Labels = int | Sequence[int] | Tensor | None
STARTS = 256  # that plans are fitted to, at most: networks are dear
EXACT = 16  # dimensions up to which likelihoods sum the divergence exactly


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained run. `data` is what run.json says of the data, `step` the training step of the weights, `versions`
    what made them, `average` which average of them (or raw) this is: plans and presets belong to one.
    """

    path: Path
    config: TrainConfig
    data: dict[str, Any]
    players: dict[str, nn.Module]
    step: int
    versions: dict[str, Any]
    average: str = "its own"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, step {self.step}, {self.data['name']} {self.shape})"

    @property
    def denoiser(self) -> Denoiser:
        """The player of that name. Raises ValueError where this family of models has none."""
        found = self.players.get("denoiser")
        if not isinstance(found, Denoiser):
            raise ValueError(f"{self.path} has no denoiser; its players are {', '.join(self.players)}")
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.data["shape"])

    @property
    def classes(self) -> list[str] | None:
        return self.data["classes"]

    @property
    def device(self) -> torch.device:
        return device_of(self.players)

    @cached_property
    def transform(self) -> Transform:
        return Transform.from_meta(self.data)

    def encode(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Data units to model units; u in [0, 1) where in their cells discrete values are put."""
        return self.transform.encode(x, u)

    def decode(self, z: Tensor) -> Tensor:
        """Model units to images in [0, 1], clamped, or vectors in the data's units."""
        return self.transform.decode(z)

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
        guidance: float = 1.0,
        cond: Labels = None,
        steps: int | None = None,
    ) -> DiffFlow:
        """The equation at (gan, churn) of the spectrum, in model units, with its start, on the run's device.

        gan       weight of the log-ratio; None: the run's own, which is 0 without a discriminator
        churn     stochasticity; None: 0, or what score and discriminator were trained for as one (LikelihoodConfig)
        guidance  1 is the law of the class itself, more sharpens it
        cond      class index, or one per particle; None: no class
        steps     of the solver to come, which a Diffusion-GAN's discriminator is told; None: the run's own

        Raises ValueError for a dial that this family of models does not have, and for a generator, which has no
        equation.
        """
        own = self.dials
        still = own.churn if isinstance(self.config, LikelihoodConfig) else 0.0
        noise = still if churn is None else churn
        dials = Dials(own.steps if steps is None else steps, own.gan if gan is None else gan, noise, guidance)
        sde = self.config.sde(self.players, self.data, dials)
        return sde if cond is None else sde.given(self._labels(cond, None))

    def _labels(self, cond: int | Sequence[int] | Tensor, n: int | None) -> Tensor:
        """Class indices on the run's device, checked: 0-d, or (n,)."""
        if not self.classes:
            raise ValueError(f"cond was given, but {self.path} was trained without classes: leave it out")
        labels = torch.as_tensor(cond, device=self.device)
        if labels.dim() > 1:
            raise ValueError(f"cond has shape {tuple(labels.shape)}: give one class, or one per sample")
        if labels.is_floating_point() or (
            labels.numel() and not -1 <= int(labels.min()) <= int(labels.max()) < len(self.classes)
        ):
            known = f"0 to {len(self.classes) - 1} ({', '.join(self.classes[:12])})"
            some = f"{labels.dtype}" if labels.is_floating_point() else f"{int(labels.min())} to {int(labels.max())}"
            raise ValueError(f"cond holds {some}: classes are integers from {known}, or -1 for none")
        if n is not None and labels.dim() and len(labels) != n:
            raise ValueError(
                f"cond holds {len(labels)} classes for {n} samples: give one per sample, or a single one for all"
            )
        return labels.long()

    def _learned(self, labels: Tensor | None, guidance: float) -> None:
        """Raises ValueError for samples of no class, which guidance compares with, where none were learned."""
        none = labels is None or bool((labels < 0).any())
        if self.classes and not self.config.classless and (none or guidance != 1):
            what = f"guidance = {guidance:g} compares with" if guidance != 1 else "cond = None, or -1, means"
            raise ValueError(
                f"{what} samples of no class, and {self.path} learned none (model.label_dropout = 0): give a class for "
                "each sample and guidance = 1, or train with label dropout"
            )

    @torch.no_grad()
    def sample(
        self,
        n: int,
        cond: Labels = None,
        steps: int | None = None,
        churn: float | None = None,
        gan: float | None = None,
        guidance: float | None = None,
        noise: Noise | int | None = None,
        solver: Solver | None = None,
        grid: Grid | None = None,
        batch: int = 256,
        keep: int | None = None,
        on_step: Callable[[Step], None] | None = None,
        plans: bool = True,
    ) -> Trajectory:
        """Draw n samples; the trajectory's states are decoded (images (n, c, h, w) in [0, 1]; vectors in the data's
        units), on the CPU.

        cond   None (no class), one class index for all, or n of them
        noise  streams, one per sample; an integer seed; None: a fresh seed from torch's generator
        batch  how many move together: memory, not the outcome
        steps, churn, gan, guidance default to the run's own `dials`; the rest is as in `df.sample`. Where a plan was
        calibrated for them, it is the solver and the grid, unless one of those is given, or plans is False.

        Raises ValueError for arguments that cannot be meant.
        """
        if n < 1 or batch < 1:
            raise ValueError(f"n = {n} and batch = {batch} must be at least 1")
        asked = {"steps": steps, "gan": gan, "churn": churn, "guidance": guidance}
        dials = dataclasses.replace(self.dials, **{k: v for k, v in asked.items() if v is not None})
        labels = None if cond is None else self._labels(cond, n).expand(n)
        self._learned(labels, dials.guidance)
        if plans and solver is None and grid is None and (plan := self.plan(dials)) is not None:
            solver, grid = plan, plan.grid
        noise = as_noise(noise)
        parts: list[Trajectory] = []
        for first in range(0, n, batch):
            size, here = min(batch, n - first), noise.shift(first)
            own = None if labels is None else labels[first : first + size]
            parts.append(self.config.draw(self.players, self.data, size, dials, own, here, solver, grid, keep, on_step))
        last = torch.cat([self.decode(p.last).cpu() for p in parts])
        kept = [
            (states[0][0], torch.cat([self.decode(x).cpu() for _, x in states]))
            for states in zip(*(p.kept for p in parts), strict=True)
        ]
        return Trajectory(last, parts[0].nfe, parts[0].times, kept)

    def plan(self, dials: Dials | None = None) -> Plan | None:
        """The plan that `calibrate` kept for these dials and these weights, if there is one; None: the run's own
        dials."""
        return Folder(self.path).plans(self.weights).get(dials or self.dials)

    @property
    def weights(self) -> str:
        """What plans and presets are matched by: the step, and which average."""
        return f"step {self.step}, {self.average}"

    def plannable(self, dials: Dials) -> bool:
        """Whether plans can be made for these dials (see `calibrate`)."""
        if dials.gan != 0 and self.config.solver(dials) is not None:
            return False
        return self.config.sde(self.players, self.data, dials).on_schedule

    def quality(self, name: str) -> tuple[Dials, bool]:
        """The setting called fast, balanced or best by `diffflow frontier`: dials, and whether by their plan. Raises
        ValueError where it has not been swept for these weights."""
        kept = Folder(self.path).presets(self.weights)
        if name in kept:
            return kept[name]
        if kept:
            raise ValueError(f"{self.path} has no quality {name!r}; it has {', '.join(kept)}")
        if "generator" in self.players:
            raise ValueError(f"{self.path} is a generator: it draws in one way, no quality to choose")
        raise ValueError(f"{self.path} has no presets for these weights: run `diffflow frontier {self.path}`")

    def teach(self, dials: Dials | None = None, n: int | None = None, noise: Noise | int = Noise(1)) -> Teacher:
        """Fine solutions to calibrate plans with, of all classes in turn; one serves any number of steps. See
        `teacher.teach`."""
        sde = self._calibrated(dials or self.dials)
        start = sde.start
        assert start is not None
        x = start.sample(min(default_starts(start.shape), STARTS) if n is None else n, as_noise(noise).fork("start"))
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

        fresh  fine solutions of other starts; where it is given, a plan that does no better there than the default
               solver is not kept (without churn: with it no path is the right one)

        Raises ValueError where there is no equation on a noise schedule, or a discriminator that knows the particles
        of its own steps only."""
        dials, home, noise = dials or self.dials, Folder(self.path), as_noise(noise)
        sde = self._calibrated(dials)
        home.plans(self.weights)  # what is damaged should be known before the work
        known = teacher or self.teach(dials, noise=noise)
        cond = self._turn(known.y.shape[1])
        plan = calibrate(sde, dials.steps, noise=noise, teacher=known, cond=cond, rounds=rounds, on_step=on_step)
        if fresh is None or plan.noisy or self.deviation(fresh, dials, plan) < self.deviation(fresh, dials):
            home.keep_plan(self.weights, dials, plan)
        return plan

    @torch.no_grad()
    def deviation(self, teacher: Teacher, dials: Dials | None = None, plan: Plan | None = None) -> float:
        """Median distance of samples from the teacher's starts to its answers, per root dimension, in model units; of
        the default solver where no plan is given. Without churn."""
        dials = dials or self.dials
        sde, n = self._calibrated(dials), teacher.y.shape[1]
        assert sde.schedule is not None
        x = teacher.y[0] * sde.schedule.scale(0.0).item()
        x = sample(sde, x, dials.steps, plan=plan, noise=Noise(0), cond=self._turn(n)).last
        return (x - teacher.at(0.0)).flatten(1).square().mean(1).sqrt().median().item()

    def _calibrated(self, dials: Dials) -> DiffFlow:
        self._learned(self._turn(1), dials.guidance)
        sde = self.config.sde(self.players, self.data, dials)
        if not sde.on_schedule:
            raise ValueError(f"{self.path} follows no noise schedule: there is nothing for a plan to go along")
        if not self.plannable(dials):
            raise ValueError(
                f"gan = {dials.gan:g}: this discriminator knows the particles of its own solver only, and a plan would "
                "move them otherwise. Calibrate gan = 0"
            )
        return sde

    def _turn(self, n: int) -> Tensor | None:
        """Every class in turn, (n,)."""
        return torch.arange(n, device=self.device) % len(self.classes) if self.classes else None

    def log_prob(self, x: Tensor, cond: Labels = None, trace: Trace | None = None) -> LogProb:
        """Log density of data x (n, *shape), given in data units, at noise sigma_min, in nats of model units (n,).
        See `df.log_prob`.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: give (n, {', '.join(map(str, self.shape))}) in the data's units"
            )
        self._learned(None if cond is None else self._labels(cond, None), 1.0)
        sde = self.sde(churn=0.0, cond=cond)  # any churn has this likelihood, where it has one
        return log_prob(sde, self.encode(x).to(self.device), trace=Exact() if trace is None else trace)

    def log_likelihood(
        self,
        x: Tensor,
        cond: Labels = None,
        *,
        noise: Noise | int = Noise(0),
        probes: int = 1,
        steps: int | None = None,
        churn: float | None = None,
        times: int = 32,
        batch: int = 64,
        dequantiser: Dequantiser | None = None,
    ) -> LogProb:
        """Lower bounds of the log-probability of data x (n, *shape), as they are loaded (bytes of images, columns of a
        table), in nats (n,), on the CPU: log-probability of discrete coordinates, log-density of the others in data
        units.

        Each row is spread over its cells and noised by sigma_min once (derivations.md 5.1 and 5.3): on average over
        `noise` the values are no more than the truth. They belong to the ODE model (`log_prob`, with `steps`), or,
        where churn is given, to the reverse SDE with it (`elbo`, from `times` noise levels). The divergence is exact
        for 16 dimensions at most, and from so many random probes a row for more.

        dequantiser  where in its cell a value is put (`self.dequantiser()`); None: uniformly

        Raises ValueError for values that are not of this data, and for models without a density.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}: give (n, {', '.join(map(str, self.shape))}), as loaded")
        labels = None if cond is None else self._labels(cond, len(x)).expand(len(x))
        self._learned(labels, 1.0)
        sde, noise = self.sde(churn=0.0 if churn is None else churn), as_noise(noise)
        parts: list[LogProb] = []
        for first in range(0, len(x), batch):
            rows, own = x[first : first + batch].cpu(), noise.shift(first)
            u, log_q = own.fork("cells").uniform(len(rows), self.shape), torch.zeros(len(rows))
            if dequantiser is not None:
                with torch.no_grad():
                    u, log_q = (v.cpu() for v in dequantiser(self.encode(rows).to(self.device), u.to(self.device)))
            z = self.transform.encode(rows, u if self.discrete else None).to(self.device)
            mine = None if labels is None else labels[first : first + batch]
            at, extra = decoded(sde, z, own) if sde.on_schedule else (z, 0.0)
            if churn is None:
                how = Exact() if math.prod(self.shape) <= EXACT else Hutchinson(probes, own)
                got = log_prob(sde, at, trace=how, cond=mine, steps=steps)
            else:
                got = elbo(sde, z, rule=Stratified(times, own), reference=blended(sde), cond=mine)
            value, stderr, nfe = got.value + extra, got.stderr, got.nfe
            total = value.double().cpu() + self.transform.log_units(rows) - log_q
            parts.append(LogProb(total, stderr.double().cpu(), nfe))
        return LogProb(torch.cat([p.value for p in parts]), torch.cat([p.stderr for p in parts]), parts[0].nfe)

    def dequantiser(
        self,
        x: Tensor,
        steps: int = 500,
        noise: Noise | int = Noise(0),
        churn: float | None = None,
        on_step: Callable[[int, float], None] | None = None,
    ) -> Dequantiser:
        """A dequantiser trained on data x (n, *shape), as loaded, for this model (variational dequantisation); `churn`
        as for `log_likelihood`.

        Raises ValueError for data without discrete values, and for models without a score."""
        if not self.discrete:
            raise ValueError("variational dequantisation is for bytes and for columns with levels, and there are none")
        sde, levels = self.sde(churn=0.0 if churn is None else churn), self.transform.levels
        s = sde.schedule
        if s is None or not sde.on_schedule:
            raise ValueError("variational dequantisation follows the score of the particles, and this model has none")
        sigma, scale = s.sigma(sde.horizon).item(), s.scale(sde.horizon).item()

        def score(y: Tensor) -> Tensor:
            return (sde.denoised(scale * y, sde.horizon) - y) / sigma**2

        mask = torch.tensor([bool(v) for v in levels]) if levels else None
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            torch.manual_seed(0)
            q = Dequantiser(self.shape, mask).to(self.device)
        return fit(q, score, self.transform.encode, x, steps, noise=noise, on_step=on_step)

    @property
    def discrete(self) -> bool:
        """Whether some coordinates of the data have probabilities and no density."""
        return self.transform.kind == "image" or bool(self.transform.levels)


def load(
    path: str | Path,
    *,
    raw: bool = False,
    sigma_rel: float | None = None,
    device: str | torch.device | None = None,
    modules: Sequence[str | Path] = (),
) -> Run:
    """Open a run directory at its newest whole checkpoint, or at the average that rows kept aside chose (fit.holdout).

    raw        the raw weights instead of averaged ones
    sigma_rel  relative width of the weight average (default: the run's own); any in (0, 0.28), rebuilt from snapshots
               where it was not tracked
    device     default: the best there is (training/distributed.py)
    modules    files or modules that define what is not ours in the run (my_models.py): a run never imports anything
               by itself

    Raises RunError, ConfigError (a device that is not there, too) or CheckpointError with what is wrong.
    """
    if raw and sigma_rel is not None:
        raise ValueError(f"raw weights are not averaged: give raw or sigma_rel = {sigma_rel}, not both")
    for name in modules:
        import_plugin(name)
    folder, place = Folder(Path(path)), find_device(device)
    about = folder.about()
    config = folder.config()
    found, step = load_averaged(folder, raw, sigma_rel)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):  # build draws first weights; see algebra.py
        players = config.build(about["data"])
    for name, module in players.items():
        fill(module, found.get(name, {}), f"{name} in {folder.path}")
        module.to(place).eval().requires_grad_(False)
    versions = {k: v for k, v in about.items() if k not in ("data", "finished")}
    average = "raw" if raw else "its own" if sigma_rel is None else f"sigma_rel {sigma_rel:g}"
    return Run(folder.path, config, about["data"], players, step, versions, average)
