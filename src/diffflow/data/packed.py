"""Sets that come packed: idx files (MNIST and its relatives) and sheets of tiles (the CIFAR-10 form).

idx: big-endian header `00 00 type ndim`, ndim sizes of 4 bytes, then the bytes (type 8 = uint8); possibly gzipped.
    *train*images*, *train*labels*, *t10k* or *test*  ->  x (n, 1, h, w), y (n,)
Sheets: {split}_images.zip holds pictures of 10 columns of square tiles, in name order and row by row;
    {split}_labels.npz has `label` (n,); the last sheet may have empty places.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from .archives import Limits, open_zip, read_bytes
from .base import Raw
from .images import FORMATS
from .transform import DataError

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
IDX = re.compile(r"(train|t10k|test).*(images|labels).*idx[13]", re.IGNORECASE)
COLUMNS = 10


def is_idx(path: Path) -> bool:
    """Whether a folder holds idx files."""
    return any(IDX.search(f.name) for f in path.iterdir())


def is_sheets(path: Path) -> bool:
    """Whether a folder holds sheets of tiles and their labels."""
    return any((path / f"{s}_images.zip").is_file() or (path / f"{s}_labels.npz").is_file() for s in ("train", "test"))


def read_idx(path: Path, split: str) -> Raw:
    """The wanted split (train, test or all) of a folder of idx files. Raises DataError."""
    files: dict[tuple[str, str], Path] = {}
    for file in sorted(path.iterdir(), reverse=True):  # reverse: an unpacked file wins over its .gz
        if found := IDX.search(file.name):
            files[("train" if found[1].lower() == "train" else "test", found[2].lower())] = file
    wanted = ("train", "test") if split == "all" else (split,)
    missing = [f"{s} {what}" for s in wanted for what in ("images", "labels") if (s, what) not in files]
    if missing:
        raise DataError(
            f"{str(path)!r} lacks the idx files for: {', '.join(missing)}; it has", [f.name for f in files.values()]
        )
    x = np.concatenate([_idx(files[(s, "images")], 3) for s in wanted])
    labels = {s: _idx(files[(s, "labels")], 1) for s in ("train", "test") if (s, "labels") in files}
    count = 1 + max(int(v.max(initial=0)) for v in labels.values())  # over both splits, so that classes agree
    names = FASHION if "fashion" in path.resolve().name.lower() and count == 10 else [str(k) for k in range(count)]
    y = np.concatenate([labels[s] for s in wanted])
    test = np.repeat([s == "test" for s in wanted], [len(labels[s]) for s in wanted])
    return Raw(x[:, None], y, names, test)


def _idx(path: Path, ndim: int) -> np.ndarray:
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != 8 or content[3] != ndim:
        raise DataError(
            f"{str(path)!r} is no idx file of {ndim}-dimensional uint8 (it starts with {content[:4].hex()!r})"
        )
    shape = tuple(int(k) for k in np.frombuffer(content, ">u4", ndim, 4)) if len(content) >= 4 + 4 * ndim else (0,)
    have, want = len(content) - 4 - 4 * ndim, int(np.prod(shape, dtype=object))
    if have != want:
        raise DataError(
            f"{str(path)!r} promises {want} bytes ({'x'.join(map(str, shape))}) but holds {have}; copy it again"
        )
    return np.frombuffer(content, np.uint8, want, 4 + 4 * ndim).reshape(shape)


def read_sheets(path: Path, split: str) -> Raw:
    """The wanted split (train, test or all) of a folder in the CIFAR-10 form. Raises DataError."""
    wanted = ("train", "test") if split == "all" else (split,)
    parts = [_sheets(path, s) for s in wanted]
    x, y = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
    test = np.repeat([s == "test" for s in wanted], [len(p[1]) for p in parts])
    names = CIFAR10 if y.max(initial=0) < 10 else [str(k) for k in range(y.max() + 1)]
    return Raw(x, y, names, test)


def _sheets(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
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
        for name, read in sorted(entries, key=lambda e: e[0]):
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
