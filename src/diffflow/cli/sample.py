"""`diffflow sample`: from a run to files.

Sample i depends on --seed, its own number first + i and its label, not on --batch: `-n 1000 --first 1000` is the
second half of `-n 2000`, on another machine if need be. The file is written at the end, to a temporary neighbour that
is then moved into place, so that an interrupted command leaves nothing behind.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import diffflow as df
from diffflow import figures
from diffflow.cli import UsageError, parse

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
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """How many."""
    label: Annotated[tuple[str, ...], tyro.conf.arg(name="class", aliases=["--cond"])] = ()
    """Classes by name or number, taken in turn; `none` for no class. Default: every class in turn."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Steps of the solver; default: the run's own (`sampling.steps`)."""
    churn: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The dial: 0 is the deterministic probability flow, 1 the reverse SDE; any value >= 0 has the same law."""
    guidance: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """Classifier-free guidance; 1 is none."""
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

    def main(self) -> int:
        if self.out is not None and Path(self.out).suffix not in WRITERS:
            raise UsageError(f"--out {self.out!r} has no known suffix: use {', '.join(WRITERS)}.")
        check(self)
        run = df.load(self.run, raw=self.raw, device=self.device)
        kind = run.data["kind"]
        out = Path(self.out or ("samples.png" if kind == "image" or run.shape == (2,) else "samples.csv"))
        if kind not in WRITERS[out.suffix][0]:
            fitting = [suffix for suffix, (kinds, _) in WRITERS.items() if kind in kinds]
            raise UsageError(f"--out {self.out!r}: {self.run} makes {kind}s, which go to {', '.join(fitting)}.")
        if out.suffix == ".png" and run.shape == (1,):
            raise UsageError(f"--out {self.out!r}: {self.run} makes vectors of one column, no plane to draw: use .csv.")
        labels = labels_of(self.label, run.classes, self.n, self.first)
        x, nfe = draw(run, self, labels, Console(stderr=True))
        figures.save(out, WRITERS[out.suffix][1](x, labels, run.classes))
        print(f"{out}: {self.n} samples, {nfe} evaluations each, seed {self.seed}, first {self.first}")
        return 0


def check(ask: Sample) -> None:
    """Refuse before the run is loaded what cannot be meant."""
    least = {"-n": (ask.n, 1), "--steps": (ask.steps, 1), "--batch": (ask.batch, 1), "--first": (ask.first, 0)}
    least |= {"--churn": (ask.churn, 0), "--guidance": (ask.guidance, 0)}
    for flag, (value, bound) in least.items():
        if value is not None and not value >= bound:
            hint = " (0 is the deterministic probability flow)" if flag == "--churn" else ""
            raise UsageError(f"{flag} {value:g} makes no sense: give at least {bound}{hint}.")


def labels_of(wanted: Sequence[str], classes: Sequence[str] | None, n: int, first: int = 0) -> np.ndarray | None:
    """The class of each sample, int64 (n,), or None: sample i takes entry first + i of the wanted ones in turn."""
    if tuple(wanted) == ("none",) or (not wanted and not classes):
        return None
    if not classes:
        raise UsageError(f"--class {' '.join(wanted)}: this run was trained without classes; leave --class out.")
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
    """Samples decoded, float (n, *shape), batch by batch with a progress bar, and the evaluations that each one
    cost."""
    parts, nfe = [], 0
    begins = range(0, ask.n, ask.batch)
    columns = (TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    columns += (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("sampling", total=None)
        for b in begins:

            def step(done: Any, b: int = b) -> None:
                total, before = len(begins) * done.total, b // ask.batch * done.total
                progress.update(bar, total=total, completed=before + done.index)

            size = min(ask.batch, ask.n - b)
            done = run.sample(
                size,
                None if labels is None else torch.from_numpy(labels[b : b + size]),
                steps=ask.steps,
                churn=ask.churn,
                guidance=ask.guidance,
                noise=df.Noise(ask.seed, ask.first + b),
                solver=SOLVERS[ask.solver](),
                batch=ask.batch,
                on_step=step,
            )
            parts.append(done.last.cpu().numpy())
            nfe = done.nfe
    return np.concatenate(parts), nfe


Labels = np.ndarray | None
Classes = Sequence[str] | None


def as_png(x: np.ndarray, labels: Labels, classes: Classes) -> bytes:
    return figures.png(figures.grid(x) if x.ndim == 4 else figures.scatter(x))


def as_zip(x: np.ndarray, labels: Labels, classes: Classes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for i, image in enumerate(x):
            # "T-shirt/top" is one class, not a folder within a folder
            folder = f"{classes[int(labels[i])].replace('/', '-')}/" if labels is not None and classes else ""
            name = zipfile.ZipInfo(f"{folder}{i:06d}.png")
            archive.writestr(name, figures.png(figures.grid(image[None], gap=0, scale=1)))
    return buffer.getvalue()


def as_npz(x: np.ndarray, labels: Labels, classes: Classes) -> bytes:
    arrays: dict[str, Any] = {"arr_0": np.rint(x * 255).astype(np.uint8).transpose(0, 2, 3, 1) if x.ndim == 4 else x}
    if labels is not None and classes:
        arrays |= {"labels": labels, "classes": np.array(classes)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def as_csv(x: np.ndarray, labels: Labels, classes: Classes) -> bytes:
    buffer = io.StringIO()
    np.savetxt(buffer, x, "%.7g", ",", header=",".join(f"x{k}" for k in range(x.shape[1])), comments="")
    return buffer.getvalue().encode()


WRITERS: dict[str, tuple[tuple[str, ...], Callable[[np.ndarray, Labels, Classes], bytes]]] = {
    ".png": (("image", "vector"), as_png),
    ".zip": (("image",), as_zip),
    ".npz": (("image", "vector"), as_npz),
    ".csv": (("vector",), as_csv),
}


def main(args: Sequence[str]) -> int:
    return parse(Sample, args).main()
