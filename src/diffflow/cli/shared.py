"""Parts that several commands share: checks of flags, drawing of samples, forms of their files, and a run's data.

Nothing here imports torch before it is needed: `--help` of every command reads this file.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

import diffflow as df
from diffflow import figures, files, tiles
from diffflow.cli import UsageError
from diffflow.console import Console, plus_minus, progress, table, to_stdout

if TYPE_CHECKING:
    from diffflow.data import Data, Transform

    LabelArray = np.ndarray | None  # int64 (n,)
    ClassNames = Sequence[str] | None
    ColumnNames = Transform | None  # what the columns of vectors are called, and what their codes stand for

SolverName = Literal["default", "exponential", "heun", "euler", "edm"]
SOLVERS: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "exponential": lambda: df.Exponential(),
    "heun": lambda: df.Heun(),
    "euler": lambda: df.Euler(),
    "edm": lambda: df.NoiseRaising(),
}
LEAST = 12  # samples of an evaluation; precision and recall by 5 neighbours are not defined below
HELD_OUT = {"train": "test", "test": "train"}


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
    def guidance(self) -> float | None:
        """Classifier-free guidance; None: the run's own."""
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
        what = f"{kind}s" if ".zip" in fits or kind != "image" else f"images of {shape[0]} channels of " + (
            "bytes" if transform.of_bytes else "floats"
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
            f"--animate {animate!r}: {source} makes vectors of {shape[0]} columns; of vectors only those of two columns "
            "can be drawn."
        )


def check(ask: SampleFlags) -> None:
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
    """The class of each sample, int64 (n,), or None where samples have none.

    Args:
        wanted: names or numbers of classes, taken in turn, sample i entry first + i; ("none",): no class; ("data",):
            every class as often as in training; empty: every class in turn.
        classes: names of the classes that there are.
        n: how many samples.
        first: number of the first one.
        counts: how often each class is in the training data.

    Raises:
        UsageError: a class that is not there.
    """
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
        import torch

        from diffflow.data.dataset import in_proportion

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
    names = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"--class {wanted}: no such class.{hint} This run knows {names}; or give a number from 0 to {len(classes) - 1}."
    )


def draw_samples(run: Any, ask: SampleFlags, labels: np.ndarray | None, console: Console) -> tuple[np.ndarray, int]:
    """Samples decoded, float (n, *shape), and the evaluations that each one cost."""
    path = follow(run, ask, labels, console)
    return path.last.numpy(), path.nfe


def follow(
    run: Any, ask: SampleFlags, labels: np.ndarray | None, console: Console, keep: int | None = None
) -> df.Trajectory:
    """The samples' way, decoded and on the CPU, batch by batch with a progress bar.

    Args:
        run: whose samples.
        ask: how they are drawn.
        labels: their classes (n,), or None.
        console: where the progress bar is.
        keep: keep every so many states; None: the last one only.
    """
    import torch

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


def splits(run: df.Run, source: str | None) -> tuple[Data, Data | None]:
    """The data that a run was trained on, and what of it was held out (None: nothing).

    Args:
        run: the run.
        source: where the data are now; None: where they were.

    Raises:
        UsageError: other data.
    """
    ask, split = replace(run.config.data, source=source or run.config.data.source), run.data["split"]
    train = ask.load(split)
    if train.fingerprint != run.data["fingerprint"]:
        raise UsageError(
            f"{ask.source} is not the data that {run.path} was trained on (its content has another fingerprint). "
            "Say where that data is with --data."
        )
    return train, ask.load(HELD_OUT[split]) if split in HELD_OUT else None


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


def as_png(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """A PNG: a grid of images, of middle slices of volumes, or of 16 signals as lines; a scatter plot of vectors."""
    return figures.png(tiles.picture(x))


def as_zip(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """A zip of PNG files, one a sample, in a folder for each class."""
    folders = folder_names(classes) if classes else []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for i, image in enumerate(x):
            folder = f"{folders[int(labels[i])]}/" if labels is not None and folders else ""
            name = zipfile.ZipInfo(f"{folder}{i:06d}.png")
            archive.writestr(name, figures.png(figures.grid(image[None], gap=0, scale=1)))
    return buffer.getvalue()


SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "unlabeled", "unlabelled", "__macosx")


def folder_names(classes: Sequence[str]) -> list[str]:
    """Each class as the name of a folder that every reader takes for that class alone: "T-shirt/top" is T-shirt-top.

    What leads out of a folder, hides it, or is the name of a split is replaced, and no two classes share a name.
    """
    folders: dict[str, None] = {}
    for name in classes:
        name = name.encode("utf-8", "replace").decode()
        plain = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "-", name).strip(" .") or "-"
        plain = f"class-{plain}" if plain.lower() in SPLITS else plain
        free, k = plain, 1
        while free in folders or (free != name and free in classes):
            k += 1
            free = f"{plain}-{k}"
        folders[free] = None
    return list(folders)


def as_npy(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """An .npy: the samples alone, as `arr_0` of an .npz."""
    buffer = io.BytesIO()
    np.save(buffer, in_own_type(x, columns))
    return buffer.getvalue()


def in_own_type(x: np.ndarray, columns: ColumnNames) -> np.ndarray:
    """Images of bytes as uint8 (n, h, w, c), everything else as it is, float32 (n, *shape)."""
    if x.ndim != 4 or (columns is not None and not columns.of_bytes):
        return x
    return np.rint(x * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def as_npz(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """An .npz: images of bytes as uint8 `arr_0` (n, h, w, c), others as float32 (n, *shape), with their labels."""
    arrays: dict[str, Any] = {"arr_0": in_own_type(x, columns)}
    if labels is not None and classes:
        arrays |= {"labels": labels, "classes": np.array(classes)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def as_csv(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """A CSV of vectors, with the columns of the data, and words where these had words."""
    names = (columns and columns.columns) or ()
    if all(name.isdecimal() for name in names):  # a header of numbers would be read as a row of them
        names = tuple(f"x{k}" for k in range(x.shape[1]))
    words = (columns and columns.names) or ((),) * x.shape[1]
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(names)
    for row in x:
        rows.writerow(words[k][round(float(v))] if words[k] else f"{v:.7g}" for k, v in enumerate(row))
    return buffer.getvalue().encode()


WRITERS: dict[str, tuple[tuple[str, ...], Callable[..., bytes]]] = {
    ".png": (("image", "signal", "volume", "vector"), as_png),
    ".zip": (("image",), as_zip),
    ".npz": (("image", "signal", "volume", "vector"), as_npz),
    ".csv": (("vector",), as_csv),
    ".npy": (("image", "signal", "volume", "vector"), as_npy),
}
