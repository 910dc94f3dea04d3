"""A named starting point for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..base import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """A named starting point: one line about it, and the settings."""

    name: str
    about: str
    config: TrainConfig


RECIPES: dict[str, Callable[[], Recipe]] = {}  # by data
BY_MODEL: dict[str, Callable[[str], Recipe]] = {}  # by model, for the scale of that name
