"""A named starting point for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...registry import Registry
from ..base import TrainConfig


@dataclass(frozen=True)
class Preset:
    """A named starting point: one line about it, and the settings."""

    name: str
    about: str
    config: TrainConfig


BY_DATA: Registry[Callable[[], Preset]] = Registry("preset")  # by data
BY_MODEL: Registry[Callable[[str], Preset]] = Registry("preset")  # by model, for the scale of that name
