"""Parts that several commands share: checks of flags, drawing of samples, and a run's data.

Nothing here imports torch before it is needed: `--help` of every command reads this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

import diffflow as df
from diffflow import files
from diffflow.cli import UsageError
from diffflow.cli.conditions import guidance_of
from diffflow.cli.writers import WRITERS
from diffflow.console import Console, plus_minus, progress, table, to_stdout

if TYPE_CHECKING:
    from diffflow.data import Data, Transform

SolverName = Literal["default", "exponential", "heun", "euler", "edm"]
SOLVERS: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "exponential": lambda: df.Exponential(),
    "heun": lambda: df.Heun(),
    "euler": lambda: df.Euler(),
    "edm": lambda: df.NoiseRaising(),
}
LEAST = 12  # samples of an evaluation; precision and recall by 5 neighbours are not defined below


class SampleFlags(Protocol):
    """Flags of `diffflow sample`, which other commands that draw samples have, too."""

    @property
    def n(self) -> int:
        """Number of samples."""
        ...

    @property
    def steps(self) -> int | None:
        """Steps of the solver; None: the run's own."""
        ...

    @property
    def churn(self) -> float | None:
        """Stochasticity; None: the run's own."""
        ...

    @property
    def gan(self) -> float | None:
        """Weight of the log-ratio; None: the run's own."""
        ...

    @property
    def guidance(self) -> Sequence[str]:
        """Classifier-free guidance in words (`conditions.guidance_of`); (): the run's own."""
        ...

    @property
    def solver(self) -> SolverName:
        """How the path is solved."""
        ...

    @property
    def seed(self) -> int:
        """Random seed."""
        ...

    @property
    def first(self) -> int:
        """Number of the first sample."""
        ...

    @property
    def batch(self) -> int:
        """Samples that move together."""
        ...


def known_suffixes(out: str | None, animate: str | None) -> None:
    """Refuse files of no known form, and those that cannot be written."""
    if out is not None and Path(out).suffix not in WRITERS:
        raise UsageError(f"--out {out!r} has no known suffix: use {', '.join(WRITERS)}.")
    if animate is not None and Path(animate).suffix != ".gif":
        raise UsageError(f"--animate {animate!r}: an animation is a .gif.")
    for flag, path in (("--out", out), ("--animate", animate)):
        if path is not None:
            files.check(path, flag)


def destination(out: str | None, source: str, transform: Transform) -> Path:
    """The file for samples, checked before any work.

    Args:
        out: what --out says; None: a default, to be written by a name that is free then (`files.unused`).
        source: what makes the samples, for messages.
        transform: the units of the samples.

    Raises:
        UsageError: a suffix that does not fit.
        WriteError: a file that cannot be written.
    """
    kind, shape = transform.kind, transform.shape
    path = Path(out or ("samples.csv" if kind == "vector" and shape != (2,) else "samples.png"))
    fits = dict.fromkeys(suffix for suffix, (kinds, _) in WRITERS.items() if kind in kinds)
    if kind == "image" and not (transform.of_bytes and shape[0] in (1, 3)):
        del fits[".zip"]  # of PNG files, which hold bytes of one or three channels
    if path.suffix not in fits:
        what = (
            f"{kind}s"
            if ".zip" in fits or kind != "image"
            else f"images of {shape[0]} channels of " + ("bytes" if transform.of_bytes else "floats")
        )
        raise UsageError(f"--out {out!r}: {source} makes {what}, which go to {', '.join(fits)}.")
    if path.suffix == ".png" and tuple(shape) == (1,):
        raise UsageError(f"--out {out!r}: {source} makes vectors of one column, no plane to draw: use .csv.")
    if out is None:
        files.check(files.unused(path))
    return path


def drawable(animate: str, source: str, kind: str, shape: Sequence[int]) -> None:
    """Refuse an animation of what no picture can show."""
    if kind == "vector" and tuple(shape) != (2,):
        raise UsageError(
            f"--animate {animate!r}: {source} makes vectors of {shape[0]} columns; of vectors only those of two can be "
            "drawn."
        )


def check(ask: SampleFlags) -> None:
    """Refuse before the run is loaded what cannot be meant."""
    least = {"-n": (ask.n, 1), "--steps": (ask.steps, 1), "--batch": (ask.batch, 1), "--first": (ask.first, 0)}
    least |= {"--churn": (ask.churn, 0), "--gan": (ask.gan, 0)}
    guidance_of(ask.guidance)
    for flag, (value, bound) in least.items():
        if value is not None and not value >= bound:
            hint = " (0 is the deterministic probability flow)" if flag == "--churn" else ""
            raise UsageError(f"{flag} {value:g} makes no sense: give at least {bound}{hint}.")


def draw_samples(run: Any, ask: SampleFlags, cond: Any, console: Console) -> tuple[np.ndarray, int]:
    """Samples decoded, float (n, *shape), and the evaluations that each one cost."""
    path = follow(run, ask, cond, console)
    return path.last.numpy(), path.nfe


def follow(run: Any, ask: SampleFlags, cond: Any, console: Console, keep: int | None = None) -> df.Trajectory:
    """The samples' way, decoded and on the CPU, batch by batch with a progress bar.

    Args:
        run: whose samples.
        ask: how they are drawn.
        cond: their conditions, classes (n,) or others, in the units of the data; None: none.
        console: where the progress bar is.
        keep: keep every so many states; None: the last one only.
    """
    import torch

    from diffflow.equation.conditions import apply, rows

    cond = apply(torch.as_tensor, cond)
    parts: list[df.Trajectory] = []
    begins = range(0, ask.n, ask.batch)
    with progress("sampling", console) as bar:
        for b in begins:

            def step(done: Any, b: int = b) -> None:
                bar(b // ask.batch * done.total + done.index, len(begins) * done.total)

            size = min(ask.batch, ask.n - b)
            done = run.sample(
                size,
                rows(cond, slice(b, b + size)),
                steps=ask.steps,
                churn=ask.churn,
                gan=ask.gan,
                guidance=guidance_of(ask.guidance),
                noise=df.Noise(ask.seed, ask.first + b),
                solver=SOLVERS[ask.solver](),
                batch=ask.batch,
                keep=keep,
                on_step=step,
            )
            parts.append(done)
    kept = [(states[0][0], torch.cat([x for _, x in states])) for states in zip(*(p.kept for p in parts), strict=True)]
    return df.Trajectory(torch.cat([p.last.cpu() for p in parts]), parts[0].nfe, parts[0].times, kept)


def splits(run: df.Run, source: str | None) -> tuple[Data, Data | None]:
    """The data that a run was trained on, and what of it was held out (None: nothing).

    Args:
        run: the run.
        source: where the data are now; None: where they were.

    Raises:
        UsageError: other data.
    """
    from diffflow.data import DataError
    from diffflow.runs.evaluate import training_data

    try:
        return training_data(run, source)
    except DataError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_n(n: int) -> None:
    """Refuse before any work what the metrics would refuse at its end."""
    if n < LEAST:
        raise UsageError(f"-n {n} samples are too few to measure: give at least {LEAST}.")


def print_metrics(metrics: Sequence[dict[str, Any]]) -> None:
    """Print metrics as a table."""
    rows = table("metric", "value", "floor (real data)", "better", "n")
    for m in metrics:
        value = plus_minus(m["value"], m["stderr"])
        rows.add_row(m["name"], value, plus_minus(m["floor"]), m["better"], str(m["n"]))
    to_stdout().print(rows)
    for m in metrics:
        if m.get("note"):
            print(f"note: {m['name']}: {m['note']}")
