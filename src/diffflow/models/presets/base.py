"""A named starting point for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..base import TrainConfig


@dataclass(frozen=True)
class Preset:
    """A named starting point: one line about it, and the settings."""

    name: str
    about: str
    config: TrainConfig


BY_DATA: dict[str, Callable[[], Preset]] = {}  # by data
BY_MODEL: dict[str, Callable[[str], Preset]] = {}  # by model, for the scale of that name
