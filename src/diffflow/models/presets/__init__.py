"""Presets: named runs, whose settings are known to work, with the budget that they were made for.

A preset is a value; its function's first line says what it is for. `config` is the starting point that files and
flags then change. There are two kinds: by data (diffusion models, "mnist"), and by model ("gan", "discriminator-flow"),
whose networks and budgets are those of the `Scale` that fits the data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ... import data as datasets
from ...data.readers import reader_of
from ...data.readers.form import Form
from ...equation.toys import TOYS
from ...registry import missing
from ..settings.serialise import ConfigError, families
from ..settings.serialise import replace as settings
from . import by_data, by_model  # noqa: F401  they enter their rows
from .base import BY_DATA, BY_MODEL, Preset
from .scales import DATA_SCALES

__all__ = ["BY_DATA", "BY_MODEL", "DATA_SCALES", "Preset", "diffusion_preset", "fitting", "preset", "scale_for"]


def preset(name: str, source: str | datasets.Data | None = None, kind: str | None = None) -> Preset:
    """The preset of a name.

    Args:
        name: a row of BY_DATA or BY_MODEL.
        source: the data, or where they are (as `DataConfig.source`), whose scale a model's preset takes; None: a toy.
        kind: what an example is, as `DataConfig.kind`.

    Raises:
        ConfigError: an unknown name; the nearest is suggested.
        DataError: a source that is not there.
    """
    if name in BY_DATA:
        return BY_DATA[name]()
    if name not in BY_MODEL:
        raise ConfigError(f"unknown preset {name!r}{missing(name, [*BY_DATA, *BY_MODEL])}")
    scale = "toy" if source is None else scale_for(source, kind)
    model = BY_MODEL[name](scale)
    return replace(model, config=settings(model.config, {"data.source": source})) if isinstance(source, str) else model


def fitting(source: str | datasets.Data, kind: str | None = None) -> str:
    """The name of the diffusion preset, which is that of the scale, for data: by their name, else by what is in them.

    Args:
        source: the data, or where they are.
        kind: what an example is, as `DataConfig.kind`.

    Raises:
        DataError: as `data.load` does.
    """
    if isinstance(source, datasets.Data):
        data = source
        if data.space is not None and len(data.space.shape) != len(data.shape):  # networks see latents of other axes
            return {1: "table", 2: "signal", 3: "mnist", 4: "volume"}[len(data.space.shape)]
        if data.law is not None or data.name == "digits":
            return "digits" if data.law is None else "toy"
    else:
        if source in TOYS or source == "digits":
            return "toy" if source in TOYS else "digits"
        path = Path(source).expanduser()
        reader = reader_of(path) if path.exists() else None
        holds = not path.is_dir() or any(path.iterdir())
        if reader is not None and reader.survey is not None and holds:  # image files: their heads say the colours
            return "mnist" if reader.survey(path, Form()).channels == 1 else "cifar10"
        data = datasets.load(source, kind=kind)
    if data.kind == "image":
        return "mnist" if data.shape[0] == 1 else "cifar10"
    return "table" if data.kind == "vector" else data.kind


def scale_for(source: str | datasets.Data, kind: str | None = None) -> str:
    """The name of the scale of a preset by model for data: that of `fitting`, but colour pictures have a ladder.

    Args:
        source: the data, or where they are.
        kind: what an example is, as `DataConfig.kind`.

    Raises:
        DataError: as `data.load` does.
    """
    name = fitting(source, kind)
    return "pictures" if name == "cifar10" else name


def diffusion_preset(source: str | datasets.Data, kind: str | None = None, conditioned: bool = False) -> str:
    """The name of the diffusion preset for data where nobody names one.

    It is that of their scale, but for vectors with a condition, and for pictures, which are sized to the budget.

    Args:
        source: the data, or where they are.
        kind: what an example is, as `DataConfig.kind`.
        conditioned: whether a source that is a name or a path is given a condition (`DataConfig.cond`).

    Raises:
        DataError: as `data.load` does.
    """
    name = fitting(source, kind)
    conditioned = source.conditions is not None if isinstance(source, datasets.Data) else conditioned
    if name in ("mnist", "cifar10"):
        return "pictures"
    return "conditioned" if conditioned and name == "table" else name


families()  # each may bring a preset of its own
