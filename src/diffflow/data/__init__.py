"""Data: one function, `load(source)`, and one value, `Data`, whatever the source was."""

from .base import Data
from .finish import Columns
from .sources import load
from .transform import DataError, Transform

__all__ = ["Columns", "Data", "DataError", "Transform", "load"]
