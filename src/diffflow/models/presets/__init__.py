"""Named runs: settings that are known to work, with the budget they were made for.

A preset is a value; its function's first line says what it is for. `config` is the starting point that files and
flags then change. There are two kinds: by data (diffusion models, "mnist"), and by model ("gan", "discriminator-flow"),
whose networks and budgets are those of the `Scale` that fits the data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ... import data as datasets
from ...data.readers.cifar import is_sheets
from ...data.readers.idx import is_idx
from ...equation.toys import TOYS
from ...registry import missing
from ..settings.serialise import ConfigError
from ..settings.serialise import replace as settings
from . import by_data, by_model  # noqa: F401  they enter their rows
from .base import BY_DATA, BY_MODEL, Preset
from .scales import SCALES

__all__ = ["BY_DATA", "BY_MODEL", "SCALES", "Preset", "fitting", "preset"]


def preset(name: str, source: str | datasets.Data | None = None) -> Preset:
    """The preset of that name; a model's in the scale that fits `source` (as `DataConfig.source`; default: a toy).
    Raises ConfigError with a suggestion, and DataError for a source that is not there.
    """
    if name in BY_DATA:
        return BY_DATA[name]()
    if name not in BY_MODEL:
        raise ConfigError(f"unknown preset {name!r}{missing(name, [*BY_DATA, *BY_MODEL])}")
    scale = "toy" if source is None else fitting(source)
    made = BY_MODEL[name](scale)
    return replace(made, config=settings(made.config, {"data.source": source})) if isinstance(source, str) else made


def fitting(source: str | datasets.Data) -> str:
    """The diffusion preset, and the scale, for data or their source: by its name, else by what is in it. Raises
    DataError as `data.load` does."""
    if isinstance(source, datasets.Data):
        data = source
        if data.law is not None or data.name == "digits":
            return "digits" if data.law is None else "toy"
    else:
        if source in TOYS or source == "digits":
            return "toy" if source in TOYS else "digits"
        path = Path(source).expanduser()
        files = path.suffix.lower() == ".zip" or (path.is_dir() and not (is_idx(path) or is_sheets(path)))
        # image files in any size they have: only their colours matter here
        data = datasets.load(source, size=1 if files else None, columns=datasets.Columns("levels", "drop", "keep"))
    if data.kind == "vector":
        return "table"
    return "mnist" if data.shape[0] == 1 else "cifar10"
