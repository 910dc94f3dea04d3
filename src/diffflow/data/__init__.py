"""Data: one function, `load(source)`, and one value, `Data`, whatever the source was."""

from .dataset import Data, Raw
from .errors import DataError
from .load import load
from .prepare import Columns
from .readers import READERS, Reader, Request, by_suffix
from .transform import Transform

__all__ = ["READERS", "Columns", "Data", "DataError", "Raw", "Reader", "Request", "Transform", "by_suffix", "load"]
