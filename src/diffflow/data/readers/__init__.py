"""Readers: one file for each kind of data on disk, and their table.

`load` asks the rows of `READERS` in turn, those from outside the package first, so that a plug-in may also read a
folder or a file that one of ours would take; the first row that matches reads. A reader of your own is one entry:

    READERS["my_readers:tar"] = Reader((".tar",), by_suffix(".tar"), lambda path, request: Raw(...))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...registry import Registry
from ..choices import Columns
from ..raw import Raw
from ..transform import Transform
from .arrays import read_arrays
from .cifar import is_sheets, read_sheets
from .form import Form
from .idx import is_idx, read_idx
from .images import Survey, read_folder, read_zip, survey
from .tables import read_columns, read_table


@dataclass(frozen=True)
class Request:
    """What the user asked of the data; each reader takes from it what concerns it.

    Args:
        split: "train", "test" or "all": a reader may read this part only, and must say which rows are test rows.
        form: what image files are brought to: their size, and what becomes of other shapes and of transparency.
        columns: what a table's columns are, where their cells do not say it.
        kind: of arrays: what an example is, where the axes leave it open ("image", "signal", "volume", "vector").
        like: the transform of other data, whose columns a table must have.
    """

    split: str = "train"
    form: Form = field(default_factory=Form)
    columns: Columns = field(default_factory=Columns)
    kind: str | None = None
    like: Transform | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that image files are brought to; None: nobody says one."""
        return self.form.size


@dataclass(frozen=True)
class Reader:
    """A kind of data on disk: how it is told from others, and how it is read.

    Args:
        kinds: what messages call it, such as "folders" or ".csv".
        matches: whether a path, which exists, is of this kind.
        read: reads it; raises DataError that names every bad file, row or column.
        resizes: whether it holds image files, which can be resized (`Request.form`); others refuse a size.
        survey: what can be known without decoding anything, of a path and a form; None: it must be read.
    """

    kinds: tuple[str, ...]
    matches: Callable[[Path], bool]
    read: Callable[[Path, Request], Raw]
    resizes: bool = False
    survey: Callable[[Path, Form], Survey] | None = None


def by_suffix(*suffixes: str) -> Callable[[Path], bool]:
    """The test whether the name of a file ends in one of some suffixes, such as ".csv.gz", in any case."""
    return lambda path: not path.is_dir() and path.name.lower().endswith(suffixes)


READERS: Registry[Reader] = Registry(
    "data reader",
    {
        "idx": Reader(("folders",), is_idx, lambda path, request: read_idx(path, request.split)),
        "sheets": Reader(("folders",), is_sheets, lambda path, request: read_sheets(path, request.split)),
        "folder": Reader(
            ("folders",),
            Path.is_dir,
            lambda path, request: read_folder(path, request.form, request.split),
            True,
            survey,
        ),
        "zip": Reader((".zip",), by_suffix(".zip"), lambda path, request: read_zip(path, request.form), True, survey),
        "arrays": Reader(
            (".npy", ".npz"),
            by_suffix(".npy", ".npz"),
            lambda path, request: read_arrays(path, request.kind, request.form),
        ),
        "table": Reader(
            (".csv", ".csv.gz", ".tsv", ".txt", ".parquet"),
            by_suffix(*(f".{kind}{packed}" for kind in ("csv", "tsv", "txt") for packed in ("", ".gz")), ".parquet"),
            lambda path, request: (
                read_columns(path, request.columns.wishes(request.like))
                if request.columns.automatic
                else read_table(path, request.columns.older.text)
            ),
        ),
    },
)


def reader_of(path: Path) -> Reader | None:
    """The reader of a path, which exists; None where no row of the table takes it."""
    outside_first = sorted(READERS, key=lambda name: ":" not in name)  # a stable sort: otherwise in the table's order
    return next((READERS[name] for name in outside_first if READERS[name].matches(path)), None)
