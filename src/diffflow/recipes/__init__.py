"""Named runs: settings that are known to work, with the budget they were made for.

A recipe is a value; its function's first line says what it is for. `config` is the starting point that files and
flags then change. There are two kinds: by data (diffusion models, "mnist"), and by model ("gan", "discriminator-flow"),
whose networks and budgets are those of the `Scale` that fits the data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from .. import data as datasets
from ..laws import TOYS
from ..training.config import ConfigError, suggest
from ..training.config import replace as settings
from . import diffusion, players
from .base import MODELS, RECIPES, Recipe

__all__ = ["MODELS", "RECIPES", "Recipe", "diffusion", "fitting", "players", "recipe"]


def recipe(name: str, source: str | None = None) -> Recipe:
    """The recipe of that name; a model's in the scale that fits `source` (as `DataConfig.source`; default: a toy).
    Raises ConfigError with a suggestion, and DataError for a source that is not there.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name not in MODELS:
        raise ConfigError(f"unknown preset {name!r}{suggest(name, [*RECIPES, *MODELS])}")
    scale = "toy" if source is None else fitting(source)
    made = MODELS[name](scale)
    return made if source is None else replace(made, config=settings(made.config, {"data.source": source}))


def fitting(source: str) -> str:
    """The diffusion recipe, and the scale, for a source: by its name, else by the kind of file and the machine."""
    if source in TOYS:
        return "toy"
    if source == "digits":
        return "digits"
    path = Path(source).expanduser()
    if not path.exists():
        datasets.load(source)  # says what is wrong with the name
    table = path.name.lower().endswith((".csv", ".csv.gz"))
    if table or (path.suffix in (".npy", ".npz") and datasets.load(path).kind == "vector"):
        return "table"
    return "cifar10" if torch.accelerator.is_available() else "mnist"
