"""Sheets of tiles: the form in which CIFAR-10 comes.

{split}_images.zip holds pictures of 10 columns of square tiles, in name order and row by row; {split}_labels.npz has
`label` (n,); the last sheet may have empty places.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..raw import Raw
from .archives import Limits, open_zip
from .decode import FORMATS

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COLUMNS = 10


def is_sheets(path: Path) -> bool:
    """Whether a path is a folder that holds sheets of tiles and their labels."""
    return any((path / f"{s}_images.zip").is_file() or (path / f"{s}_labels.npz").is_file() for s in ("train", "test"))


def read_sheets(path: Path, split: str) -> Raw:
    """Read a folder of sheets of tiles.

    Args:
        path: the folder.
        split: which part is read: "train", "test" or "all".

    Returns:
        Raw with x uint8 (n, 3, side, side), labels, and class names: CIFAR-10's for up to ten classes, else numbers.

    Raises:
        DataError: a file is missing or damaged; every bad sheet is named.
    """
    wanted = ("train", "test") if split == "all" else (split,)
    parts = [_read_split(path, s) for s in wanted]
    x, y = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
    test = np.repeat([s == "test" for s in wanted], [len(p[1]) for p in parts])
    names = CIFAR10 if y.max(initial=0) < 10 else [str(k) for k in range(y.max() + 1)]
    return Raw(x, y, names, test)


def _read_split(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Tiles uint8 (n, 3, side, side) and labels int64 (n,) of one split. Raises DataError."""
    images, labels = path / f"{split}_images.zip", path / f"{split}_labels.npz"
    missing = [f.name for f in (images, labels) if not f.is_file()]
    if missing:
        raise DataError(f"{str(path)!r} lacks {' and '.join(missing)}")
    with open_zip(labels, Limits(ratio=np.inf)):
        try:
            y = np.load(labels, allow_pickle=False)["label"].astype(np.int64)
        except (KeyError, ValueError, OSError) as error:
            raise DataError(f"{str(labels)!r} has no readable array 'label' ({error})") from None
    tiles: list[np.ndarray] = []
    problems: list[str] = []
    with open_zip(images) as entries:
        for name, read, _ in sorted(entries, key=lambda e: e.name):
            try:
                sheet = np.asarray(Image.open(io.BytesIO(read()), formats=FORMATS).convert("RGB"))
                side = sheet.shape[1] // COLUMNS
                if (
                    not side
                    or sheet.shape[1] % COLUMNS
                    or sheet.shape[0] % side
                    or (tiles and side != tiles[0].shape[-1])
                ):
                    raise ValueError(
                        f"{sheet.shape[1]}x{sheet.shape[0]} pixels are not {COLUMNS} columns of equal square tiles"
                    )
            except Exception as error:  # decoders of damaged files raise almost anything; each becomes a named problem
                problems.append(f"{name}: {error}")
                continue
            grid = sheet.reshape(-1, side, COLUMNS, side, 3).transpose(0, 2, 4, 1, 3)
            tiles.append(grid.reshape(-1, 3, side, side))
    if problems:
        raise DataError(f"{len(problems)} sheets in {str(images)!r} cannot be read:", problems)
    places = sum(len(t) for t in tiles)
    spare = places - len(y)
    if not tiles or spare < 0 or spare >= len(tiles[-1]):
        raise DataError(f"{str(images)!r} has places for {places} images, but there are {len(y)} labels")
    return np.concatenate(tiles)[: len(y)], y
