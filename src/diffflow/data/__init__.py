"""Data: one function, `load(source)`, and one value, `Data`, whatever the source was."""

from .base import Columns, Data, DataError, Transform
from .sources import load

__all__ = ["Columns", "Data", "DataError", "Transform", "load"]
