"""`diffflow distill`: a run's sampler of a few steps, trained into a generator.

At few evaluations the sampler's own discretisation is what is wrong with its samples: their law p is not the data's r.
The sampler is a generator of particles, so a velocity that brings p to r can be trained into its weights
(objectives/movers): the score difference, the log-ratio, or both. Toward the ends of fine solutions (`endpoints`)
is the plain distillation of a solver: a first phase, or a control.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

import diffflow as df
from diffflow.cli import UsageError, parse
from diffflow.console import say, to_stderr
from diffflow.models.settings import aliases

if TYPE_CHECKING:
    from diffflow.models.distill import DistillConfig


@dataclass(frozen=True)
class Distill:
    """Train a sampler of N steps of a run's denoiser into a generator of N evaluations a sample.

    It starts as the run's calibrated plan of N steps without churn, where there is one (`diffflow calibrate RUN --churn
    0 --steps N`) and N is at least 2: less is left to learn. The result is a run of its own: sample and evaluate it
    like any other, and see it beside its origin with `diffflow frontier RUN --beside DISTILLED`.

    Examples:
        diffflow distill runs/mnist --steps 1
        diffflow distill runs/mnist --steps 2 --minutes 60 --out runs/mnist-two
        diffflow distill runs/mnist --by endpoints                       (plain distillation of the solver)
        diffflow distill runs/mnist --resume auto --out runs/mnist-two --minutes 30
        diffflow distill runs/mnist --print-config                       (all settings, for --config)
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory of a diffusion model."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Evaluations a sample; default: 1."""
    by: Literal["score", "ratio", "both", "endpoints"] | None = None
    """What moves the samples: the difference of two scores, the log-ratio of a discriminator (default for images), both
    (default for vectors), or the ends of fine solutions from the same noise."""
    teacher_first_steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Training steps toward the ends of fine solutions before that; default: none."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="M")] = None
    """Train for this long, resumed parts included; default: as long as it takes for --updates."""
    cpu_minutes: Annotated[float | None, tyro.conf.arg(metavar="M")] = None
    """Likewise, of the processor's time, of all threads."""
    updates: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Training steps, updates of the generator, where no --minutes are given; default: 400."""
    out: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Run directory to write; default: RUN-N-BY."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="auto|CHECKPOINT")] = None
    """Go on with --out from its newest whole checkpoint (auto), or from this one, with its own settings."""
    data: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Where the data is now, if it has moved since training."""
    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """YAML file over what --by gives; flags override it."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Random seed; default: 0."""
    latent: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the autoencoder of the run's latents is now, if it has moved since training."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the resolved settings as YAML (good for --config) and stop."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        from diffflow.models.settings.serialise import to_yaml
        from diffflow.runs import report
        from diffflow.runs.train import with_seed
        from diffflow.training.distributed import find_process
        from diffflow.training.train import train

        least = {
            "--steps": (self.steps, 1),
            "--updates": (self.updates, 1),
            "--teacher-first-steps": (self.teacher_first_steps, 0),
        }
        if any(value is not None and value < low for value, low in least.values()):
            raise UsageError("--steps and --updates must be at least 1, --teacher-first-steps not negative.")
        if self.resume is not None and self.out is None:
            raise UsageError(f"--resume {self.resume}: say with --out which run goes on.")
        going_on = self.resume is not None and holds_a_run(Path(self.out or ""))
        if self.resume not in (None, "auto") and not going_on:
            raise UsageError(f"--resume {self.resume}: there is no run in {self.out} that could go on from it.")
        config = self.resumed(Path(self.out or "")) if going_on else self.fresh()
        if self.print_config:
            print(to_yaml(config), end="")
            return 0
        home = Path(self.run).resolve()
        beside = home.with_name(with_seed(f"{home.name}-{config.evaluations}-{config.by}", config.fit.seed))
        out = Path(self.out or os.path.relpath(beside))
        console = to_stderr()
        run_dir = train(
            config,
            out,
            resume=self.resume if going_on else None,
            init_from=None if going_on else self.run,
            device=self.device,
            console=console,
        )
        if find_process(self.device).rank == 0:
            name = shlex.quote(str(run_dir))
            say(console, f"sample   diffflow sample {name} -n 100\nmeasure  diffflow evaluate {name}")
            say(console, f"compare  diffflow frontier {shlex.quote(self.run)} --beside {name}")
            say(console, f"report   {report.write(run_dir)}")
        return 0

    def fresh(self) -> DistillConfig:
        """Settings that fit the run and --by, begun as its plan if one was calibrated; a file and flags over them."""
        from diffflow.models.distill import DistillConfig, UNetDiscriminatorConfig
        from diffflow.models.presets import scale_for
        from diffflow.models.presets.by_model import distilled
        from diffflow.models.presets.scales import scale_of
        from diffflow.models.settings.common import Dials
        from diffflow.models.settings.networks import ConvDiscriminatorConfig
        from diffflow.models.settings.serialise import load_yaml
        from diffflow.models.settings.serialise import replace as put

        run = df.load(self.run, device="cpu", coder=self.latent)
        if "denoiser" not in run.players:
            raise UsageError(f"{self.run} has no denoiser whose sampler could learn: name a run of diffusion.")
        if run.conditions is not None and run.classes is None:
            raise UsageError(
                f"{self.run} is conditioned on more than classes, and a distilled sampler knows only these."
            )
        if run.conditions is None and run.data["classes"]:
            raise UsageError(f"{self.run} is told no class, and its data have some: distil a run that is told them.")
        dials = (("guidance", run.dials.guidance, 1), ("gan", run.dials.gan, 0))
        if ignored := [f"{name} = {value:g}" for name, value, neutral in dials if value != neutral]:
            print(f"note: the denoiser alone is distilled, without this run's {', '.join(ignored)}", file=sys.stderr)
        source, steps = self.data or run.config.data.source, self.steps or 1
        if not source:
            raise UsageError(f"{run.path} was trained on data from Python: say where they are with --data SOURCE.")
        if self.data is None:
            run.config.data.refuse_moved(run.path, "--data SOURCE")
        scale = scale_of(scale_for(source), "a distilled sampler")
        by = self.by or ("both" if scale.vectors else "ratio")
        plan = run.plan(Dials(steps, gan=0.0, churn=0.0, guidance=1.0))
        config = distilled(scale, by, steps, plan).after(run.config)
        begins_as_unet = isinstance(config.discriminator_net, UNetDiscriminatorConfig)
        if begins_as_unet and not config.model.net.descends:
            config = replace(config, discriminator_net=ConvDiscriminatorConfig())
        if self.config is not None:
            config = load_yaml(self.config, base=config)
        if not isinstance(config, DistillConfig):
            raise UsageError(f"{self.config} holds settings of a {type(config).__name__}, which is no distillation.")
        changes: dict[str, Any] = {"data.source": source} | self.moved() | self.budget()
        changes |= {k: v for k, v in {"evaluations": self.steps, "fit.seed": self.seed}.items() if v is not None}
        if self.teacher_first_steps is not None and config.teacher_first_steps is None:
            raise UsageError(
                "--by endpoints is the first phase from beginning to end: leave --teacher-first-steps out."
            )
        if self.teacher_first_steps is not None:
            changes["teacher_first_steps"] = self.teacher_first_steps
        config = put(config, changes)
        if (
            config.teacher_first_steps
            and config.fit.steps is not None
            and config.teacher_first_steps >= config.fit.steps
        ):
            raise UsageError(
                f"--teacher-first-steps {config.teacher_first_steps} takes all {config.fit.steps} updates: give "
                "more, or --by endpoints."
            )
        return config

    def resumed(self, out: Path) -> DistillConfig:
        """The settings of a run that goes on; flags may change its budget."""
        from diffflow.models.distill import DistillConfig
        from diffflow.models.settings.serialise import replace as put
        from diffflow.training.run_folder import Folder

        if not (out / "config.yaml").exists():  # killed before it named itself
            return self.fresh()
        flags = {
            "--steps": self.steps,
            "--by": self.by,
            "--teacher-first-steps": self.teacher_first_steps,
            "--config": self.config,
            "--seed": self.seed,
        }
        if given := [flag for flag, value in flags.items() if value is not None]:
            raise UsageError(
                f"{out} goes on with its own settings: leave {', '.join(given)} out, or choose another --out."
            )
        config = Folder(out).config()
        if not isinstance(config, DistillConfig):
            raise UsageError(
                f"{out} is a {type(config).__name__}, not a distilled sampler: `diffflow train` goes on with it."
            )
        source = {} if self.data is None else {"data.source": self.data}
        return put(config, source | self.moved() | self.budget())

    def moved(self) -> dict[str, Any]:
        """Where the autoencoder is now, as a setting."""
        return {} if self.latent is None else {"data.latent": str(Path(self.latent).resolve())}

    def budget(self) -> dict[str, Any]:
        """How long to train, as settings: minutes or updates, whichever is given."""
        from diffflow.runs.train import budget

        return budget(self.minutes, self.updates, self.cpu_minutes)


def holds_a_run(out: Path) -> bool:
    """Whether there is something to go on with."""
    return (out / "config.yaml").exists() or any(out.glob("checkpoints/*"))


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    args = aliases.flags(args)
    return parse(Distill, args).main()
