"""`diffflow sample`: from a run to files.

Sample i depends on --seed, its own number first + i and its label, not on --batch: `-n 1000 --first 1000` is the
second half of `-n 2000`, on another machine if need be. The file is written at the end, to a temporary neighbour that
is then moved into place, so that an interrupted command leaves nothing behind.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import diffflow as df
from diffflow import figures, files
from diffflow.cli import UsageError, parse
from diffflow.data.base import in_proportion

SolverName = Literal["default", "exponential", "heun", "euler", "edm"]
SOLVERS: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "exponential": df.Exponential,
    "heun": df.Heun,
    "euler": df.Euler,
    "edm": df.NoiseRaising,
}


@dataclass(frozen=True)
class Sample:
    """Draw samples from a run.

    The suffix of --out decides the form: .png (a grid; a scatter plot of vectors), .zip (one PNG each, subfolder =
    class), .npz (images as uint8 `arr_0` (n, h, w, c), vectors as float32 (n, d)), .csv (vectors).

    Examples:
        diffflow sample runs/demo -n 100 --out samples.png
        diffflow sample runs/demo -n 64 --class 3 7 --guidance 1.5 --churn 0.5 --out threes-and-sevens.png
        diffflow sample runs/mnist -n 50000 --batch 500 --out samples.npz
        diffflow sample runs/mnist -n 1000 --first 1000 --out second-thousand.zip
        diffflow sample runs/mnist -n 64 --steps 50 --animate digits.gif
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """How many."""
    label: Annotated[tuple[str, ...], tyro.conf.arg(name="class", aliases=["--cond"])] = ()
    """Classes by name or number, taken in turn; `none` for no class, `data` for every class as often as in the training
    data (whose law the samples have then). Default: every class in turn."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Steps of the solver; default: the run's own."""
    churn: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The dial: 0 is the deterministic probability flow, 1 the reverse SDE. With a denoiser alone any value >= 0 has
    the same law; beside a discriminator it adds to the pull, as --gan does."""
    guidance: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """Classifier-free guidance; 1 is none."""
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
    """File to write: .png, .zip, .npz or .csv; default: samples.png, or samples.csv where there is no plane to draw."""
    raw: tyro.conf.FlagCreatePairsOff[bool] = False
    """Use the last raw weights instead of their average (EMA)."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""
    animate: Annotated[str | None, tyro.conf.arg(metavar="FILE.gif")] = None
    """Write the samples on their way, too: images, or vectors of two columns."""
    gan: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The other dial, of runs with a discriminator: weight of the log-ratio; 0 uses the score alone."""

    def main(self) -> int:
        known_suffixes(self.out, self.animate)
        check(self)
        run = df.load(self.run, raw=self.raw, device=self.device)
        if self.quality is not None:
            dials, planned = run.quality(self.quality)
            self = replace(self, **{k: v for k, v in asdict(dials).items() if getattr(self, k) is None})
            if not planned and run.plan(dials) is not None and self.solver == "default":
                self = replace(self, solver="exponential")  # what was measured
        kind = run.data["kind"]
        out = destination(self.out, self.run, kind, run.shape)
        if self.animate:
            drawable(self.animate, self.run, kind, run.shape)
            if "generator" in run.players:
                raise UsageError(f"--animate {self.animate!r}: a generator has no path to show; leave --animate out.")
        labels = labels_of(self.label, run.classes, self.n, self.first, run.data.get("counts"))
        steps = self.steps or run.dials.steps
        keep = math.ceil(steps / (figures.FRAMES - 1)) if self.animate else None
        path = follow(run, self, labels, Console(stderr=True), keep)
        if self.animate:
            if len(path.kept) < 3:
                raise UsageError(
                    f"--animate {self.animate!r}: a single step is no path to show. Give at least --steps 2."
                )
            film = figures.animate(path.kept if kind == "image" else same_width(path.kept))
        files.write(out, WRITERS[out.suffix][1](path.last.numpy(), labels, run.classes, run.transform))
        if self.animate:
            files.write(self.animate, film)
        print(f"{out}: {self.n} samples, {path.nfe} evaluations each, seed {self.seed}, first {self.first}")
        return 0


def known_suffixes(out: str | None, animate: str | None) -> None:
    """Refuse files of no known form."""
    if out is not None and Path(out).suffix not in WRITERS:
        raise UsageError(f"--out {out!r} has no known suffix: use {', '.join(WRITERS)}.")
    if animate is not None and Path(animate).suffix != ".gif":
        raise UsageError(f"--animate {animate!r}: an animation is a .gif.")


def destination(out: str | None, source: str, kind: str, shape: Sequence[int]) -> Path:
    """The file for samples of this kind and shape, checked; a default where `out` is None."""
    path = Path(out or ("samples.png" if kind == "image" or tuple(shape) == (2,) else "samples.csv"))
    if kind not in WRITERS[path.suffix][0]:
        fitting = [suffix for suffix, (kinds, _) in WRITERS.items() if kind in kinds]
        raise UsageError(f"--out {out!r}: {source} makes {kind}s, which go to {', '.join(fitting)}.")
    if path.suffix == ".png" and tuple(shape) == (1,):
        raise UsageError(f"--out {out!r}: {source} makes vectors of one column, no plane to draw: use .csv.")
    return path


def drawable(animate: str, source: str, kind: str, shape: Sequence[int]) -> None:
    """Refuse an animation of what no picture can show."""
    if kind == "vector" and tuple(shape) != (2,):
        raise UsageError(
            f"--animate {animate!r}: {source} makes vectors of {shape[0]} columns; only images and vectors of two "
            "columns can be drawn."
        )


def same_width(states: Sequence[tuple[float, torch.Tensor]]) -> list[tuple[float, torch.Tensor]]:
    """Points (n, d), every state shrunk to the width of the last: noise starts up to a thousand times as wide."""
    last = states[-1][1]
    centre, width = last.mean(0), last.std()
    return [(t, centre + (x - x.mean(0)) * (width / x.std()).clamp_max(1.0)) for t, x in states]


def check(ask: Sample) -> None:
    """Refuse before the run is loaded what cannot be meant."""
    least = {"-n": (ask.n, 1), "--steps": (ask.steps, 1), "--batch": (ask.batch, 1), "--first": (ask.first, 0)}
    least |= {"--churn": (ask.churn, 0), "--guidance": (ask.guidance, 0), "--gan": (ask.gan, 0)}
    for flag, (value, bound) in least.items():
        if value is not None and not value >= bound:
            hint = " (0 is the deterministic probability flow)" if flag == "--churn" else ""
            raise UsageError(f"{flag} {value:g} makes no sense: give at least {bound}{hint}.")


def labels_of(
    wanted: Sequence[str],
    classes: Sequence[str] | None,
    n: int,
    first: int = 0,
    counts: Sequence[int] | None = None,
) -> np.ndarray | None:
    """The class of each sample, int64 (n,), or None: sample i takes entry first + i of the wanted ones in turn; `data`:
    as often as there were `counts` of them in training."""
    if tuple(wanted) == ("none",) or (not wanted and not classes):
        return None
    if not classes:
        raise UsageError(f"--class {' '.join(wanted)}: this run was trained without classes; leave --class out.")
    if tuple(wanted) == ("data",) and "data" not in classes:
        if counts is None:
            raise UsageError(
                "--class data: this run is older than the note of how often each class is in its data. In Python: "
                "run.sample(n, cond=df.data.load(SOURCE).labels(n))."
            )
        return in_proportion(torch.tensor(counts), n, first).numpy()
    turn = np.array([class_index(w, classes) for w in wanted] or range(len(classes)), dtype=np.int64)
    return turn[(first + np.arange(n)) % len(turn)]


def class_index(wanted: str, classes: Sequence[str]) -> int:
    """A class by its name, else by its number."""
    if wanted in classes:
        return list(classes).index(wanted)
    if wanted.isdecimal() and int(wanted) < len(classes):
        return int(wanted)
    near = get_close_matches(wanted, classes, n=1)
    known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"--class {wanted}: no such class.{hint} This run knows {known}; or give a number from 0 to {len(classes) - 1}."
    )


def draw(run: Any, ask: Sample, labels: np.ndarray | None, console: Console) -> tuple[np.ndarray, int]:
    """Samples decoded, float (n, *shape), and the evaluations that each one cost."""
    path = follow(run, ask, labels, console)
    return path.last.numpy(), path.nfe


def follow(
    run: Any, ask: Sample, labels: np.ndarray | None, console: Console, keep: int | None = None
) -> df.Trajectory:
    """The samples' way, decoded and on the CPU, batch by batch with a progress bar; keep: every how many states."""
    parts: list[df.Trajectory] = []
    begins = range(0, ask.n, ask.batch)
    with progress("sampling", console) as bar:
        for b in begins:

            def step(done: Any, b: int = b) -> None:
                bar(b // ask.batch * done.total + done.index, len(begins) * done.total)

            size = min(ask.batch, ask.n - b)
            done = run.sample(
                size,
                None if labels is None else torch.from_numpy(labels[b : b + size]),
                steps=ask.steps,
                churn=ask.churn,
                gan=ask.gan,
                guidance=ask.guidance,
                noise=df.Noise(ask.seed, ask.first + b),
                solver=SOLVERS[ask.solver](),
                batch=ask.batch,
                keep=keep,
                on_step=step,
            )
            parts.append(done)
    kept = [(states[0][0], torch.cat([x for _, x in states])) for states in zip(*(p.kept for p in parts), strict=True)]
    return df.Trajectory(torch.cat([p.last.cpu() for p in parts]), parts[0].nfe, parts[0].times, kept)


@contextmanager
def progress(what: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left, on a terminal; gives the function to call with (steps done, of how many)."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    columns += (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as display:
        task = display.add_task(what, total=None)
        yield lambda done, total: display.update(task, completed=done, total=total)


Labels = np.ndarray | None
Classes = Sequence[str] | None
Table = df.data.Transform | None  # what the columns of vectors are called, and what their codes stand for


def as_png(x: np.ndarray, labels: Labels, classes: Classes, table: Table) -> bytes:
    return figures.png(figures.grid(x) if x.ndim == 4 else figures.scatter(x))


def as_zip(x: np.ndarray, labels: Labels, classes: Classes, table: Table) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for i, image in enumerate(x):
            # "T-shirt/top" is one class, not a folder within a folder
            folder = f"{classes[int(labels[i])].replace('/', '-')}/" if labels is not None and classes else ""
            name = zipfile.ZipInfo(f"{folder}{i:06d}.png")
            archive.writestr(name, figures.png(figures.grid(image[None], gap=0, scale=1)))
    return buffer.getvalue()


def as_npz(x: np.ndarray, labels: Labels, classes: Classes, table: Table) -> bytes:
    arrays: dict[str, Any] = {"arr_0": np.rint(x * 255).astype(np.uint8).transpose(0, 2, 3, 1) if x.ndim == 4 else x}
    if labels is not None and classes:
        arrays |= {"labels": labels, "classes": np.array(classes)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def as_csv(x: np.ndarray, labels: Labels, classes: Classes, table: Table) -> bytes:
    names = (table and table.columns) or ()
    if all(name.isdecimal() for name in names):  # a header of numbers would be read as a row of them
        names = tuple(f"x{k}" for k in range(x.shape[1]))
    words = (table and table.names) or ((),) * x.shape[1]
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(names)
    for row in x:
        rows.writerow(words[k][round(float(v))] if words[k] else f"{v:.7g}" for k, v in enumerate(row))
    return buffer.getvalue().encode()


WRITERS: dict[str, tuple[tuple[str, ...], Callable[[np.ndarray, Labels, Classes, Table], bytes]]] = {
    ".png": (("image", "vector"), as_png),
    ".zip": (("image",), as_zip),
    ".npz": (("image", "vector"), as_npz),
    ".csv": (("vector",), as_csv),
}


def main(args: Sequence[str]) -> int:
    return parse(Sample, args).main()
