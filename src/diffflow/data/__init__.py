"""Data: one function, `load(source)`, and one value, `Data`, whatever the source was."""

from .base import Data, DataError, Transform
from .sources import load

__all__ = ["Data", "DataError", "Transform", "load"]
