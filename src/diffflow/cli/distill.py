"""`diffflow distill`: a run's sampler of a few steps, trained into a generator.

At few evaluations the sampler's own discretisation is what is wrong with its samples: their law p is not the data's r.
The sampler is a generator of particles, so a velocity that brings p to r can be trained into its weights
(objectives/particles.py): the score difference, the log-ratio, or both. Toward the ends of fine solutions (`endpoints`)
is the plain distillation of a solver: a first phase, or a control.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

import diffflow as df
from diffflow import report
from diffflow.cli import UsageError, parse
from diffflow.recipes import SCALES, fitting
from diffflow.recipes.players import distilled
from diffflow.training.config import ModelConfig, TrainConfig, load_yaml, to_yaml
from diffflow.training.config import replace as put
from diffflow.training.fit import train
from diffflow.training.folder import Folder
from diffflow.training.place import find_place


@dataclass(frozen=True)
class Distill:
    """Train a run's own sampler of N steps into a generator of N evaluations a sample.

    It starts as the run's calibrated plan of N steps, where there is one (`diffflow calibrate RUN --steps N`) and N is
    at least 2: less is left to learn. The result is a run of its own: sample and evaluate it like any other, and see it
    beside its origin with `diffflow frontier RUN --beside DISTILLED`.

    Examples:
        diffflow distill runs/mnist --steps 1
        diffflow distill runs/mnist --steps 2 --by score --minutes 20 --out runs/mnist-two
        diffflow distill runs/mnist --by endpoints                       (plain distillation of the solver)
        diffflow distill runs/mnist --resume auto --out runs/mnist-two --minutes 30
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory of a diffusion model."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Evaluations a sample."""
    by: Literal["score", "ratio", "both", "endpoints"] = "both"
    """What moves the samples: the difference of two scores, the log-ratio of a discriminator, both, or the ends of fine
    solutions from the same noise."""
    lead: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Training steps toward the ends of fine solutions before that."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="M")] = None
    """Train for this long; default: as long as it takes for --updates."""
    updates: Annotated[int, tyro.conf.arg(metavar="N")] = 400
    """Training steps, where no --minutes are given."""
    out: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Run directory to write; default: RUN-N-BY."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="auto|CHECKPOINT")] = None
    """Go on with --out from its newest whole checkpoint (auto), or from this one."""
    data: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Where the data is now, if it has moved since training."""
    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """YAML file over these settings (--print-config shows them all)."""
    seed: int = 0
    """Random seed."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the resolved settings as YAML (good for --config) and stop."""

    def main(self) -> int:
        if self.steps < 1 or self.updates < 1 or self.lead < 0:
            raise UsageError("--steps and --updates must be at least 1, --lead not negative.")
        if self.lead and self.by == "endpoints":
            raise UsageError("--by endpoints is the first phase from beginning to end: leave --lead out.")
        config = self.settings()
        if self.print_config:
            print(to_yaml(config), end="")
            return 0
        home = Path(self.run)
        out = Path(self.out or home.with_name(f"{home.resolve().name}-{self.steps}-{self.by}"))
        console = Console(stderr=True)
        start = None if self.resume and (out / "config.yaml").exists() else self.run
        made = train(
            config,
            out,
            resume=None if start else self.resume,
            init_from=start,
            device=self.device,
            console=console,
        )
        if find_place(self.device).rank == 0:
            page, name = report.write(made), shlex.quote(str(made))
            console.print(
                f"report   {page}\nsample   diffflow sample {name} -n 100\nmeasure  diffflow evaluate {name}\n"
                f"compare  diffflow frontier {shlex.quote(self.run)} --beside {name}",
                highlight=False,
                soft_wrap=True,
            )
        return 0

    def settings(self) -> TrainConfig:
        """A file over the flags, over what fits the run; begun as its plan, where one was calibrated."""
        theirs = Folder(Path(self.run)).config()
        if not isinstance(getattr(theirs, "model", None), ModelConfig):
            raise UsageError(f"{self.run} is a {type(theirs).__name__}: it has no denoiser whose sampler could learn.")
        source = self.data or theirs.data.source
        run = df.load(self.run, device="cpu")
        plan = run.plan(replace(run.dials, steps=self.steps)) if "denoiser" in run.players else None
        config = distilled(SCALES[fitting(source)], self.by, self.steps, plan).after(theirs)
        given: dict[str, Any] = {
            "data.source": source,
            "fit.seed": self.seed,
            "fit.minutes": self.minutes,
            "fit.steps": None if self.minutes is not None else self.updates,
        }
        if self.by != "endpoints":
            given["lead"] = self.lead
        config = put(config, given)
        return config if self.config is None else load_yaml(self.config, base=config)


def main(args: Sequence[str]) -> int:
    return parse(Distill, args).main()
