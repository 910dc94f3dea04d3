"""Data: one function, `load(source)`, and one value, `Data`, whatever the source was."""

from .dataset import Data
from .errors import DataError
from .load import load
from .prepare import Columns
from .transform import Transform

__all__ = ["Columns", "Data", "DataError", "Transform", "load"]
