"""Loading: from a name or a path to data in memory. `load` looks at what is there, never at a flag.

    a toy's name ("8gaussians", "moons", ...)   10000 seeded points of an exact law
    "digits"                                     scikit-learn's 1797 digits, 8x8: 1297 train, 500 test, stratified
    a folder                                     idx files, the CIFAR-10 form, or images (subfolder = class)
    .zip, .npy, .npz, .csv, .csv.gz              images, arrays (images, signals, volumes, vectors), tables

Which reader takes a path is said by one table, `readers.READERS`, to which plug-ins add rows.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .choices import BY_CONTENT, Columns
from .dataset import Data
from .errors import DataError
from .prepare import finish
from .raw import Raw
from .readers import READERS, Request, reader_of
from .readers.decode import EXTRA, SUFFIXES
from .readers.form import Form
from .table_transform import TableTransform
from .transform import AXES, Transform

SPLITS = ("train", "test", "all")
TOY_POINTS = 10_000
DIGITS_TEST = 500


def load(
    source: str | Path,
    split: str = "train",
    flip: bool = False,
    size: int | tuple[int, int] | None = None,
    columns: Columns = BY_CONTENT,
    like: Transform | None = None,
    kind: str | None = None,
    fit: str = "crop",
    background: str = "white",
) -> Data:
    """Load a data set into memory.

    Args:
        source: see the head of this file; a name wins over a path, so write "./digits" for a folder of that name.
        split: "train", "test" or "all". A source without a split of its own holds out a fixed random tenth for "test".
        flip: let training mirror images left and right (natural images, not digits).
        size: image files only: side, or (height, width) in pixels, that they are brought to; None: as they are, and
            where sizes differ a common one, which a note says.
        columns: tables only: what columns are, where their cells do not say it as you want it (`Columns`).
        like: files only: take the columns, levels and units of other data (`Data.transform`), for instance to score
            rows.
        kind: arrays: what an example is, where the axes leave it open: "image" (floats stay floats), "signal",
            "volume" or "vector".
        fit: image files only: how one of another shape meets the size: "crop" (covered and centre-cropped), "pad", or
            "resize" (squashed).
        background: images only: the colour that transparent ones are laid over, and that pads.

    Returns:
        The data: images uint8 (n, c, h, w), vectors float32 (n, d), other floats as their kind, with labels where the
        source has some.

    Raises:
        DataError: what cannot be used: every bad file, row or column is named, with what to do.
    """
    if split not in SPLITS:
        raise DataError(f"split (--data.split) is one of {', '.join(SPLITS)}, not {split!r}{_suggest(split, SPLITS)}")
    if kind is not None and kind not in AXES:
        raise DataError(f"kind (--data.kind) is one of {', '.join(AXES)}, not {kind!r}{_suggest(kind, tuple(AXES))}")
    side = (size, size) if isinstance(size, int) else size
    if side is not None and (len(side) != 2 or min(side) < 1):
        raise DataError(f"size (--data.size) is a positive side or (height, width), not {size!r}")
    path, name = Path(source).expanduser(), str(source)
    from ..equation.toys import TOYS  # here, so that reading files does not pay for the laws

    if name in TOYS or name == "digits":
        if side is not None:
            raise DataError(f"size={size!r} (--data.size) is for image files, {name!r} has its own size; leave it out")
        return _of_kind(kind, _digits(split, flip) if name == "digits" else _toy(name, split, flip))
    if not name or not path.exists():
        raise _missing(path, name, [*TOYS, "digits"])
    if like is not None and not isinstance(like, TableTransform):  # words are looked up there, in its own columns only
        columns = replace(columns, text="levels")
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"the folder {name!r} is empty; put images in it, one subfolder for each class")
    reader = reader_of(path)
    if reader is None and path.suffix.lower() in SUFFIXES | EXTRA.keys():
        raise DataError(f"{name!r} is one picture: put it into a folder, of pictures to learn from, and give that")
    if reader is None:
        raise DataError(f"{name!r} is of no known kind; known are {_list_kinds()}")
    if side is not None and not reader.resizes:
        raise DataError(
            f"size={size!r} (--data.size) is for image files; {name!r} holds arrays, resize them before saving"
        )
    _, *learned = like.shape if like is not None and like.kind == "image" else (0,)
    form = Form(side, fit, background, (learned[0], learned[1]) if learned else None)
    raw = reader.read(path, Request(split, form, columns, kind, like))
    return _of_kind(kind, finish(raw, path.resolve().name, split, flip, columns=columns, like=like))


def _of_kind(kind: str | None, data: Data) -> Data:
    """The data, where they are of the kind that is asked for. Raises DataError."""
    if kind not in (None, data.kind):
        raise DataError(
            f"{data.name!r} holds {data.kind}s, and {kind}s are asked for (--data.kind {kind}): leave that out"
        )
    return data


def _list_kinds() -> str:
    """What the readers read, for a message."""
    *kinds, last = dict.fromkeys(kind for reader in READERS.values() for kind in reader.kinds)
    return f"{', '.join(kinds)} and {last}"


def _digits(split: str, flip: bool) -> Data:
    """Scikit-learn's digits, 8x8, by class."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    # 17 grey levels, exactly recoverable
    x = np.rint(np.asarray(pixels).reshape(-1, 1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    return finish(
        Raw(x, np.asarray(target), [str(k) for k in range(10)]), "digits", split, flip, test_count=DIGITS_TEST
    )


def _toy(name: str, split: str, flip: bool) -> Data:
    """Points of a toy law, another draw for each split."""
    from ..equation.noise import Noise
    from ..equation.toys import TOYS

    law = TOYS[name]()
    parts = ("train", "test") if split == "all" else (split,)
    x = torch.cat([law.sample(TOY_POINTS, noise=Noise(0).fork("data", p)) for p in parts]).float()
    d = x.shape[1]
    return Data(x, None, None, name, split, Transform("vector", (d,), (0.0,) * d, (1.0,) * d), law, flip)


def _suggest(word: str, choices: list[str] | tuple[str, ...]) -> str:
    """'; did you mean ...?' for a misspelt word; nothing where no choice is near."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _missing(path: Path, name: str, names: list[str]) -> DataError:
    """The error for a source that is neither a name nor a path, with the nearest of these."""
    folder = next((p for p in path.parents if p.is_dir()), Path("."))
    beside = [p.name for p in folder.iterdir()] if folder == path.parent else []
    if hint := _suggest(name, names) or _suggest(path.name, beside):
        return DataError(f"no data called {name!r}, neither a name nor a path{hint}")
    return DataError(f"no data called {name!r}. Names are {', '.join(names)}; else give the path of a folder or file")
