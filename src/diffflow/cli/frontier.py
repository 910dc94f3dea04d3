"""`diffflow frontier`: quality against cost for a run, and the settings worth using.

Every setting draws the same number of samples from the same noise; the distance to the training data is the Frechet
distance in a judge's features for images, and the sliced Wasserstein distance for vectors. Beside the run:
frontier.json with every point, frontier.png, and the qualities that `diffflow sample --quality` knows.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

import diffflow as df
from diffflow import figures, files
from diffflow.cli import UsageError, parse
from diffflow.cli.conditions import GuidanceWords, guidance_of
from diffflow.cli.shared import check_n, splits
from diffflow.console import Console, plus_minus, progress, say, table, to_stderr, to_stdout, waiting

if TYPE_CHECKING:
    from diffflow.data import Data
    from diffflow.models.settings.common import Dials
    from diffflow.runs.frontier import Distance, Point


@dataclass(frozen=True)
class Frontier:
    """Sweep steps and dials of a run, and name the best setting for every budget.

    The samples' distance to data is measured against evaluations and time. The settings that are worth using are kept
    by name: `diffflow sample RUN --quality fast | balanced | best`.

    Examples:
        diffflow frontier runs/demo
        diffflow frontier runs/mnist --steps 2 4 8 16 --churn 0 0.5 -n 5000 --features lenet=path/to/lenet.pth
        diffflow frontier runs/digits-diffusion-gan --gan 0 0.5 1 --plans no
        diffflow frontier runs/mnist --beside runs/mnist-1-ratio runs/mnist-2-ratio    (see `diffflow distill`)
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    steps: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N")] = (1, 2, 3, 4, 6, 8, 12, 16)
    """Numbers of steps."""
    churn: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X")] = ()
    """Values of the dial; default: 0 and 1, or the run's own where it has no such dial."""
    gan: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X")] = ()
    """Values of the other dial, of runs with a discriminator; default: the run's own."""
    guidance: GuidanceWords = ()
    """Classifier-free guidance; default: the run's own."""
    plans: Literal["no", "flow", "all"] = "flow"
    """Calibrate sampling plans, too: none, without churn, or with churn as well (slow); those there are used."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 2000
    """Samples per setting, classes as often as in the data; values of different n are not comparable."""
    features: Annotated[str | None, tyro.conf.arg(metavar="NAME[=FILE]")] = None
    """Whose features the Frechet distance of images sees, as for `evaluate`; default: own, where there are classes."""
    beside: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN")] = ()
    """Generators of the same data to compare, a point each; qualities remain settings of RUN."""
    seed: int = 0
    """Random seed."""
    batch: int = 256
    """Samples moved together."""
    data: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Where the data is now, if it has moved since training."""
    latent: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the autoencoder of the run's latents is now, if it has moved since training."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        import torch

        from diffflow.metrics.base import pick
        from diffflow.runs import report
        from diffflow.runs.evaluate import conditions_for
        from diffflow.runs.frontier import plot_frontier, qualities, sweep
        from diffflow.training.run_folder import Folder

        check_n(self.n)
        if min(self.steps, default=0) < 1 or not all(v >= 0 for v in (*self.churn, *self.gan)) or self.batch < 1:
            raise UsageError("--steps (one of them at least) and --batch must be at least 1, --churn and --gan 0.")
        run, console = df.load(self.run, device=self.device, coder=self.latent), to_stderr()
        files.check_folder(run.path)
        if "generator" in run.players:
            raise UsageError(f"{self.run} is a generator: nothing to sweep. Use `diffflow evaluate`.")
        dials = self.dials(run)
        train, held = splits(run, self.data)
        others = self.others(run)
        name, distance = self.distance(train)
        settings = self.settings(run, dials, console)
        draw = partial(
            sweep,
            distance=distance,
            n=self.n,
            labels=conditions_for(run, train, self.n),
            noise=df.Noise(self.seed),
            batch=self.batch,
        )
        with progress("sampling", console, "batches") as bar:
            points = draw(run, settings, on_step=bar)
        best = qualities(points)
        with progress("the runs beside", console, "batches") as bar:
            for named, other in others.items():
                points += draw(other, [(other.dials, False)], name=named, on_step=bar)
        floor = None if held is None or len(held) < self.n else distance(pick(held.x, self.n, self.seed)).value
        print_front(points, best, name, floor)
        record = {
            "run": str(run.path), "step": run.step, "distance": name, "n": self.n, "seed": self.seed, "floor": floor,
            "reference": train.fingerprint, "device": str(run.device), "threads": torch.get_num_threads(),
            "beside": {name: {"run": str(other.path), "weights": other.weights} for name, other in others.items()},
            "presets": {k: p.to_dict() for k, p in best.items()}, "points": [p.to_dict() for p in points],
        }  # fmt: skip
        say(console, f"every point {files.write_json(run.path / 'frontier.json', record)}")
        Folder(run.path).keep_qualities(run.weights, {k: (p.dials, p.plan) for k, p in best.items()})
        print(f"diffflow sample {shlex.quote(self.run)} --quality fast | balanced | best")
        files.write(run.path / "frontier.png", figures.png(plot_frontier(points, name, floor)))
        say(console, f"report      {report.write(run.path)}")
        return 0

    def others(self, run: df.Run) -> dict[str, df.Run]:
        """The generators to compare with the run, by the names of their folders; by their paths where two are alike."""
        names = [Path(path).resolve().name for path in self.beside]
        generators = {}
        for path, name in zip(self.beside, names, strict=True):
            other = df.load(path, device=self.device, coder=self.latent)
            if "generator" not in other.players:
                raise UsageError(f"--beside {path} is no generator: sweep it by itself (diffflow frontier {path}).")
            if other.data["fingerprint"] != run.data["fingerprint"]:
                raise UsageError(f"--beside {path} was trained on {other.data['name']}, not on the data of {self.run}.")
            generators[name if names.count(name) == 1 else path] = other
        return generators

    def distance(self, train: Data) -> tuple[str, Distance]:
        """The name of the distance to the training data, and the function of samples that measures it."""
        from diffflow.metrics import embedding, extractor, frechet, sliced_w2

        if not train.transform.of_bytes:
            if self.features:
                raise UsageError(f"--features {self.features}: {train.kind}s are compared as they are; leave it out.")
            y = train.encode(train.x).flatten(1)
            return "sliced W2", lambda x: sliced_w2(train.encode(x).flatten(1), y, limit=self.n, seed=self.seed)
        if self.features == "none" or not (self.features or train.classes):
            raise UsageError("images are compared by somebody's features: say whose (--features own needs classes).")
        eyes = extractor(self.features or "own", train, self.seed)
        see = embedding(eyes)
        y = see(train.x)
        name = f"Frechet distance@{self.n} ({eyes.name})"
        return name, lambda x: frechet(
            see((x * 255).round().byte()) if x.is_floating_point() else see(x), y, limit=self.n
        )

    def dials(self, run: df.Run) -> list[list[Dials]]:
        """Every combination of the dials: one list for every churn and gan, over the steps.

        A dial that the run does not have is refused before any work.
        """
        from diffflow.models.settings.common import Dials

        default = run.dials
        guidance = default.guidance if (asked := guidance_of(self.guidance)) is None else asked

        def along(churn: float, gan: float) -> list[Dials]:
            line = [Dials(steps, gan, churn, guidance) for steps in self.steps]
            for dials in line:
                run.sde(dials.gan, dials.churn, dials.guidance, steps=dials.steps)
            return line

        churns = self.churn or tuple(sorted({0.0, 1.0} if has_churn(run) else {default.churn}))
        return [along(churn, gan) for churn in churns for gan in self.gan or (default.gan,)]

    def settings(self, run: df.Run, lines: Sequence[Sequence[Dials]], console: Console) -> list[tuple[Dials, bool]]:
        """All dials by the solver, and by a plan where there is one; plans that are missing are calibrated."""
        settings = []
        for line in lines:
            settings += [(dials, False) for dials in line]
            quiet = line[0].churn == 0
            if not run.plannable(line[0]) or self.plans == "no" or not (quiet or self.plans == "all"):
                continue
            missing = [dials for dials in line if run.plan(dials) is None]
            teacher = fresh = None
            if missing:
                with waiting(console, "solving finely"):
                    teacher = run.teach(line[0])
                    fresh = run.teach(line[0], noise=df.Noise(2)) if quiet else None
            for dials in missing:
                with progress(f"calibrating {dials.steps} steps", console, "grids") as bar:
                    run.calibrate(dials, teacher, fresh, rounds=8, on_step=bar)
            settings += [(dials, True) for dials in line if run.plan(dials) is not None]
        return settings


def has_churn(run: df.Run) -> bool:
    """Whether the dial may be turned."""
    try:
        run.sde(churn=1.0)
        run.sde(churn=0.0)
    except ValueError:
        return False
    return True


def print_front(points: Sequence[Point], best: dict[str, Point], name: str, floor: float | None) -> None:
    """Print the front, with the names of the qualities."""
    from diffflow.runs.frontier import front, within

    real = "" if floor is None else f"; real data {floor:.4g}"
    rows = table("evaluations", name, "seconds per 1000", "setting", "", title=f"the front{real}")
    for p in front(points):
        names = " ".join(k for k, q in best.items() if q == p)
        rows.add_row(str(p.evaluations), plus_minus(p.distance, p.stderr), f"{p.seconds:.3g}", str(p), names)
    to_stdout().print(rows)
    for budget in (1, 2, 4, 8, 16, 32, 64):
        point = within(points, budget)
        if point is not None and point.evaluations > budget // 2:  # a larger budget buys something
            print(f"best at {budget} evaluation{'s' * (budget > 1)}: {point} ({point.distance:.4g})")


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Frontier, args).main()
