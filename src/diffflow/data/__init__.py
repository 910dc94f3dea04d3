"""Data: `load(source)` for files and names, `of(x)` for what is in memory, and one value, `Data`, whatever it was."""

from .choices import Columns
from .coder import Coder
from .dataset import Data
from .errors import DataError
from .examples import Examples
from .load import load
from .of import of
from .raw import Raw
from .readers import READERS, Reader, Request, by_suffix
from .transform import Transform

__all__ = [
    "READERS",
    "Coder",
    "Columns",
    "Data",
    "DataError",
    "Examples",
    "Raw",
    "Reader",
    "Request",
    "Transform",
    "by_suffix",
    "load",
    "of",
]
