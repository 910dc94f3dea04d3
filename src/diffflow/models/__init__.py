"""Models: one file a family, from plain settings to networks, objective, equation and samples."""

from .catalogue import MODELS, Model

__all__ = ["MODELS", "Model"]
