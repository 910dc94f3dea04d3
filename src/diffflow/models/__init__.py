"""Models: one file a family, from plain settings to networks, objective, equation and samples."""

from .catalogue import MODELS
from .row import Model

__all__ = ["MODELS", "Model"]
