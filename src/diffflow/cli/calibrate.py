"""`diffflow calibrate`: make a run's sampler as exact as its evaluations allow.

For every number of steps a sampling plan is fitted to the model's own trajectories (calibrate.py) and kept in the run,
where `sample`, `evaluate` and `likelihood` find it. The table compares it with the default solver on fresh starts: the
distance to a very fine solution from the same start, per root dimension, in model units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import tyro

import diffflow as df
from diffflow import files
from diffflow.cli import UsageError, parse
from diffflow.cli.conditions import GuidanceWords, guidance_of
from diffflow.console import progress, table, to_stderr, to_stdout, waiting

if TYPE_CHECKING:
    from diffflow.models.settings.common import Dials
    from diffflow.sampling.teacher import Teacher


@dataclass(frozen=True)
class Calibrate:
    """Fit sampling plans to a trained run, for its dials; samples of the run use them from then on.

    Minutes on a CPU for small images: about 80 evaluations a step for each of the starts. With churn
    each of the 80 attempts also solves finely from where it raises the noise, by a hundred evaluations
    at most: for 28 x 28 images on one core the better part of an hour for each number of steps; --rounds
    0 halves it. Plans belong to their weights: after more training they are left aside, and the next
    calibration replaces them.

    Examples:
        diffflow calibrate runs/demo
        diffflow calibrate runs/mnist --steps 5 8 10 20
        diffflow calibrate runs/mnist --steps 20 --churn 0.5
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    steps: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N")] = ()
    """Numbers of evaluations, a plan for each; default: the run's own."""
    churn: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The dial; default: the run's own."""
    gan: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The other dial, of runs with a discriminator; default: the run's own."""
    guidance: GuidanceWords = ()
    """Classifier-free guidance; default: the run's own."""
    starts: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Starts to fit to; default: 128 to 256, more of smaller things."""
    rounds: int = 40
    """Attempts to improve the best grid; fewer are faster."""
    seed: int = 1
    """Random seed of the starts."""
    latent: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the autoencoder of the run's latents is now, if it has moved since training."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        if self.rounds < 0 or (self.starts is not None and self.starts < 8) or min(self.steps, default=1) < 1:
            raise UsageError("--steps must be at least 1, --starts 8 and --rounds 0.")
        run, console = df.load(self.run, device=self.device, coder=self.latent), to_stderr()
        files.check_folder(run.path)
        if "generator" in run.players:
            raise UsageError(f"{self.run} is a generator: its steps, one or few, are fixed, and there is none to plan.")
        overrides = {"churn": self.churn, "gan": self.gan, "guidance": guidance_of(self.guidance)}
        base = replace(run.dials, **{k: v for k, v in overrides.items() if v is not None})
        noise = df.Noise(self.seed)
        quiet = base.churn == 0
        with waiting(console, "solving finely"):
            teacher = run.teach(base, self.starts, noise)
            fresh = run.teach(base, self.starts, noise.fork("fresh")) if quiet else None
        rows = table("steps", "error of the plan", "of the default solver", "ratio", "grid", "rows", "")
        try:
            for steps in self.steps or (base.steps,):
                dials = replace(base, steps=steps)
                with progress(f"{steps} steps", console, "grids") as bar:
                    plan = run.calibrate(dials, teacher, fresh, noise, self.rounds, bar)
                kept = "" if run.plan(dials) == plan else "not kept: no better"
                about = plan.about["grid"], plan.about["rows"], kept
                rows.add_row(str(steps), *errors(run, dials, plan, fresh), *about)
        finally:  # what is known before an interruption is printed
            if rows.rows:
                to_stdout().print(rows)
        print(f"{run.path / 'plans.json'}: used from now on by samples with these dials and no --solver")
        return 0


def errors(run: df.Run, dials: Dials, plan: df.Plan, fresh: Teacher | None) -> tuple[str, str, str]:
    """Errors of the plan and of the default solver on fresh starts, and their ratio.

    With churn no path is the right one: how unlike the plan's samples are to the model's in law, as its denoiser sees
    them.
    """
    if fresh is None:
        return f"{plan.about['error']:.2g} in law", "-", "-"
    planned, default = (run.deviation(fresh, dials, by) for by in (plan, None))
    return f"{planned:.2g}", f"{default:.2g}", f"{planned / default:.2f}"


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Calibrate, args).main()
