"""Conditions and guidance as flags say them: classes by name or number, rows of files, weights by part.

Nothing here imports torch before it is needed: `--help` of every command reads this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from diffflow.cli import UsageError

if TYPE_CHECKING:
    import diffflow as df

GuidanceWords = Annotated[tuple[str, ...], tyro.conf.arg(metavar="X|NAME=X")]


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
            every class as often as in training; empty: every class in turn that is in the training data.
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

        from diffflow.data.conditions import in_proportion

        return in_proportion(torch.tensor(counts), n, first).numpy()
    seen = [k for k in range(len(classes)) if not counts or counts[k]] or list(range(len(classes)))
    turn = np.array([class_index(w, classes) for w in wanted] or seen, dtype=np.int64)
    if strange := sorted({classes[int(k)] for k in turn} - {classes[k] for k in seen}):
        raise UsageError(f"--class {' '.join(strange)}: no training example is of this class; leave it out.")
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


def guidance_of(words: Sequence[str]) -> float | dict[str, float] | None:
    """Guidance as flags say it: a number, or NAME=X for parts of a condition; None where they say nothing.

    Raises:
        UsageError: what is neither.
    """
    weights: dict[str, float] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = -1.0
    if words and (len(weights) < len(words) or ("" in weights and len(weights) > 1) or not min(weights.values()) >= 0):
        raise UsageError(f"--guidance {' '.join(words)}: give a number of at least 0, or NAME=X for each condition.")
    if not words:
        return None
    return weights.get("", weights)


def conditions_of(words: Sequence[str], run: df.Run, n: int, first: int = 0) -> Any:
    """The conditions of samples, rows of files taken in turn, in the units of the data; None: none.

    Args:
        words: FILE.npy, or NAME=FILE.npy for parts of a condition; ("none",): none; empty: those that the run keeps.
        run: whose samples.
        n: how many.
        first: number of the first one.

    Raises:
        DataError: files that cannot be read, or are no arrays.
    """
    if tuple(words) == ("none",):
        return None
    if not words:
        return run.example_conditions(n, first)
    import torch

    from diffflow.data.condition_files import read_conditions
    from diffflow.data.conditions import named
    from diffflow.equation.conditions import apply

    cond = read_conditions(words)
    for name, condition in named(run.conditions):  # a file holds rows, never the one row that Python may give
        leaf = (cond.get(name) if name else None) if isinstance(cond, dict) else None if name else cond
        if isinstance(leaf, torch.Tensor) and tuple(leaf.shape[1:]) != condition.shape != (1,):
            rows = ", ".join(["n", *map(str, condition.shape)])
            raise UsageError(
                f"--cond {' '.join(words)}: {name or 'the file'} has shape {tuple(leaf.shape)}: give ({rows})."
            )
    return apply(lambda leaf: leaf[(first + torch.arange(n)) % len(leaf)], cond)


def class_counts(run: df.Run) -> list[int] | None:
    """How often each class that a run is told is in its training data, or in those of its rows that it keeps."""
    if "cond" not in run.data:
        return run.data.get("counts")
    from diffflow.training.run_folder import Folder

    kept = Folder(run.path).example_conditions(256)
    return kept[kept >= 0].bincount(minlength=len(run.classes or ())).tolist()


def words_of(guidance: Any) -> tuple[str, ...]:
    """Guidance as flags say it: the inverse of `guidance_of`."""
    from diffflow.equation.guidance import by_part

    return tuple(f"{name}={weight:g}" if name else f"{weight:g}" for name, weight in by_part(guidance).items())
