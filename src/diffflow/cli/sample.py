"""`diffflow sample`: samples of a run, written to files.

Sample i depends on --seed, its own number first + i and its label, not on --batch: `-n 1000 --first 1000` is the
second half of `-n 2000`, on another machine if need be. The file is written at the end, to a temporary neighbour that
is then moved into place, so that an interrupted command leaves nothing behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

import diffflow as df
from diffflow import figures, files
from diffflow.cli import UsageError, parse
from diffflow.cli.conditions import GuidanceWords, class_counts, conditions_of, labels_of, words_of
from diffflow.cli.shared import SolverName, check, destination, drawable, follow, known_suffixes
from diffflow.cli.writers import WRITERS
from diffflow.console import progress, say, to_stderr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """Draw samples from a run.

    The suffix of --out decides the form: .png (a grid, of signals the first 16 as lines; a scatter plot of vectors),
    .zip (one PNG each, subfolder = class), .npz (images as uint8 `arr_0` (n, h, w, c), all floats as float32 (n,
    *shape)), .npy (the same without classes), .csv (vectors).

    Examples:
        diffflow sample runs/demo -n 100 --out samples.png
        diffflow sample runs/demo -n 64 --class 3 7 --guidance 1.5 --churn 0.5 --out threes-and-sevens.png
        diffflow sample runs/mnist -n 50000 --batch 500 --out samples.npz
        diffflow sample runs/mnist -n 1000 --first 1000 --out second-thousand.zip
        diffflow sample runs/mnist -n 64 --steps 50 --animate digits.gif
        diffflow sample runs/penguins -n 500 --given species=Adelie 'mass>4000' --out heavy.csv
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """How many."""
    label: Annotated[tuple[str, ...], tyro.conf.arg(name="class")] = ()
    """Classes by name or number, taken in turn; `none` for no class, `data` for every class as often as in the training
    data (whose law the samples have then). Default: every class in turn."""
    cond: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE.npy|NAME=FILE.npy")] = ()
    """What samples are told, of runs with another condition than classes: a file with a row for each sample, taken in
    turn; of several conditions NAME=FILE for each, what is left out being none; `none` for none at all. Default: the
    examples of training that the run keeps. Of runs with classes the same as --class."""
    given: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN=VALUE")] = ()
    """Of runs of tables: values of columns that all rows shall have, species=Adelie mass=4000, and comparisons of
    numbers, 'age>60' 'a+b<=10', which are fulfilled by rejection."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Steps of the solver; default: the run's own."""
    churn: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The dial: 0 is the deterministic probability flow, 1 the reverse SDE. With a denoiser alone any value >= 0 has
    the same law; beside a discriminator it adds to the pull, as --gan does."""
    guidance: GuidanceWords = ()
    """Classifier-free guidance; 1 is none. Of several conditions one number, or NAME=X for each."""
    quality: Literal["fast", "balanced", "best"] | None = None
    """The setting that `diffflow frontier` found; other flags go before it."""
    solver: SolverName = "default"
    """How the path is solved. The default is good at 5 to 50 steps; `heun` and `edm` cost two evaluations a step."""
    seed: int = 0
    """Random seed."""
    first: int = 0
    """Number of the first sample, for sampling in parts."""
    batch: int = 256
    """Samples moved together; changes the memory used, not the samples."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """File to write: .png, .zip, .npz, .npy or .csv, replaced if it is there; default: samples.png, or samples.csv
    where there is no plane to draw, or the next free name (samples-2.png)."""
    raw: tyro.conf.FlagCreatePairsOff[bool] = False
    """Use the last raw weights instead of their average (EMA)."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""
    animate: Annotated[str | None, tyro.conf.arg(metavar="FILE.gif")] = None
    """Write the samples on their way, too: all that can be drawn, but vectors only of two columns."""
    gan: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The other dial, of runs with a discriminator: weight of the log-ratio; 0 uses the score alone."""
    latent: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the autoencoder of the run's latents is now, if it has moved since training."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        from diffflow.training.run_folder import Folder

        known_suffixes(self.out, self.animate)
        check(self)
        run = df.load(self.run, raw=self.raw, device=self.device, coder=self.latent)
        if (sampler := Folder(run.path).sampler(run.weights)) is not None:
            end, churn = sampler["sigma_min"], sampler["churn"]
            say(to_stderr(), f"ending at noise {end:g}, churn {churn:g} unless said: chosen when the training was over")
        if self.quality is not None:
            dials, planned = run.quality(self.quality)
            self = replace(self, **{k: v for k, v in asdict(dials).items() if getattr(self, k) is None})
            self = replace(self, guidance=self.guidance or words_of(dials.guidance))
            if not planned and run.plan(dials) is not None and self.solver == "default":
                self = replace(self, solver="exponential")  # what was measured
        kind = run.data["kind"]
        out = destination(self.out, self.run, run.transform)
        if self.animate:
            drawable(self.animate, self.run, kind, run.shape)
            if "generator" in run.players:
                raise UsageError(f"--animate {self.animate!r}: a generator has no path to show; leave --animate out.")
        labels = None
        if run.conditions is None or run.classes:
            if self.cond and self.label:
                raise UsageError("--cond and --class say the same here: give one of them.")
            if self.cond and run.conditions is None and self.cond != ("none",):
                words = " ".join(self.cond)
                raise UsageError(f"--cond {words}: this run was trained without conditions; leave --cond out.")
            asked = self.label or self.cond
            labels = cond = labels_of(asked, run.classes, self.n, self.first, class_counts(run))
        elif self.label:
            raise UsageError(f"--class {' '.join(self.label)}: {self.run} has conditions, no classes: give --cond.")
        else:
            cond = conditions_of(self.cond, run, self.n, self.first)
        steps = self.steps or run.dials.steps
        keep = math.ceil(steps / (figures.FRAMES - 1)) if self.animate else None
        path = self.rows_given(run) if self.given else follow(run, self, cond, to_stderr(), keep)
        if self.animate and len(path.kept) < 3:
            raise UsageError(f"--animate {self.animate!r}: a single step is no path to show. Give at least --steps 2.")
        if self.out is None:
            out = files.unused(out)  # nobody's samples.png is replaced unasked
        files.write(out, WRITERS[out.suffix][1](path.last.numpy(), labels, run.classes, run.transform))
        print(f"{out}: {self.n} samples, {path.nfe} evaluations each, seed {self.seed}, first {self.first}")
        if self.animate:
            film = figures.animate(same_width(path.kept) if kind == "vector" else as_tiles(path.kept))
            files.write(self.animate, film)
        return 0

    def rows_given(self, run: df.Run) -> df.Trajectory:
        """Rows of a table given some of its columns; says how they were drawn."""
        from diffflow.runs.given import draw_given

        set_too = {"--steps": self.steps, "--churn": self.churn, "--gan": self.gan, "--animate": self.animate}
        if said := [flag for flag, value in set_too.items() if value is not None]:
            raise UsageError(f"{said[0]}: rows given columns are drawn by a sampler of their own; leave it out.")
        with progress("sampling", to_stderr()) as bar:
            draws, how = draw_given(run, self.given, self.n, noise=df.Noise(self.seed, self.first), on_batch=bar)
        say(to_stderr(), str(how))
        return draws


def as_tiles(states: Sequence[tuple[float, Tensor]]) -> list[tuple[float, Any]]:
    """Samples (n, *shape) as pictures, in the range of the last state."""
    from diffflow.data import tiles

    return [(t, tiles.tiles(x, states[-1][1])) for t, x in states]


def same_width(states: Sequence[tuple[float, Tensor]]) -> list[tuple[float, Tensor]]:
    """Points (n, d), every state shrunk to the width of the last: noise starts up to a thousand times as wide."""
    last = states[-1][1]
    centre, width = last.mean(0), last.std()
    return [(t, centre + (x - x.mean(0)) * (width / x.std()).clamp_max(1.0)) for t, x in states]


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Sample, args).main()
