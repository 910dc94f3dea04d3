"""Files of conditions: FILE.npy, or NAME=FILE.npy for each of several, as flags and settings name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..equation.conditions import Cond
from .conditions import numbers
from .errors import DataError


def read_conditions(words: Sequence[str]) -> Cond:
    """Conditions from .npy files, in the units of the data; objects are never unpickled.

    Args:
        words: one FILE.npy, or NAME=FILE.npy for each of several.

    Returns:
        A tensor with rows, or a dict of such by name.

    Raises:
        DataError: files that cannot be read, or are no arrays with rows; several without names.
    """
    arrays: dict[str, Tensor] = {}
    for word in words:
        name, path = named_file(word)
        if name in arrays:
            raise DataError(f"--cond {' '.join(words)}: {name or path!r} is given twice: give one file for each")
        try:
            loaded = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"--cond {word}: {path!r} is no readable array ({error}): give a .npy file") from None
        if not isinstance(loaded, np.ndarray) or loaded.ndim == 0 or not len(loaded):
            raise DataError(f"--cond {word}: give a .npy file with a row of numbers for each example")
        arrays[name] = numbers(loaded, f"--cond {word}")
    if "" in arrays and len(arrays) > 1:
        raise DataError(f"--cond {' '.join(words)}: of several conditions each has a name of its own: NAME=FILE.npy")
    return arrays.get("", arrays)


def named_file(word: str) -> tuple[str, str]:
    """The name, "" for none, and the file of FILE or NAME=FILE. Either may hold an "=": a file that is there wins."""
    parts = word.split("=")
    splits = [("=".join(parts[:k]), "=".join(parts[k:])) for k in range(len(parts))]
    return next((split for split in splits if Path(split[1]).exists()), splits[min(1, len(parts) - 1)])
