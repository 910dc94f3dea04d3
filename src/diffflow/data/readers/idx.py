"""idx files: the form of MNIST and its relatives.

A big-endian header `00 00 type ndim`, ndim sizes of 4 bytes, then the bytes (type 8 = uint8); possibly gzipped.

    *train*images*, *train*labels*, *t10k* or *test*  ->  x (n, 1, h, w), y (n,)
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..dataset import Raw
from ..errors import DataError
from .archives import read_bytes

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
IDX = re.compile(r"(train|t10k|test).*(images|labels).*idx[13]", re.IGNORECASE)


def is_idx(path: Path) -> bool:
    """Whether a path is a folder that holds idx files."""
    return path.is_dir() and any(IDX.search(f.name) for f in path.iterdir())


def read_idx(path: Path, split: str) -> Raw:
    """Read a folder of idx files.

    Args:
        path: the folder.
        split: which part is read: "train", "test" or "all".

    Returns:
        Raw with x uint8 (n, 1, h, w), labels, and class names: garments for ten classes in a folder named "fashion",
        else the numbers.

    Raises:
        DataError: a file is missing or damaged.
    """
    files: dict[tuple[str, str], Path] = {}
    for file in sorted(path.iterdir(), reverse=True):  # reverse: an unpacked file wins over its .gz
        if match := IDX.search(file.name):
            files[("train" if match[1].lower() == "train" else "test", match[2].lower())] = file
    wanted = ("train", "test") if split == "all" else (split,)
    missing = [f"{s} {what}" for s in wanted for what in ("images", "labels") if (s, what) not in files]
    if missing:
        raise DataError(
            f"{str(path)!r} lacks the idx files for: {', '.join(missing)}; it has", [f.name for f in files.values()]
        )
    x = np.concatenate([_read_idx_file(files[(s, "images")], 3) for s in wanted])
    labels = {s: _read_idx_file(files[(s, "labels")], 1) for s in ("train", "test") if (s, "labels") in files}
    count = 1 + max(int(v.max(initial=0)) for v in labels.values())  # over both splits, so that classes agree
    names = FASHION if "fashion" in path.resolve().name.lower() and count == 10 else [str(k) for k in range(count)]
    y = np.concatenate([labels[s] for s in wanted])
    test = np.repeat([s == "test" for s in wanted], [len(labels[s]) for s in wanted])
    return Raw(x[:, None], y, names, test)


def _read_idx_file(path: Path, ndim: int) -> np.ndarray:
    """The array of uint8 that one idx file holds. Raises DataError for another number of dimensions, or of bytes."""
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != 8 or content[3] != ndim:
        raise DataError(
            f"{str(path)!r} is no idx file of {ndim}-dimensional uint8 (it starts with {content[:4].hex()!r})"
        )
    shape = tuple(int(k) for k in np.frombuffer(content, ">u4", ndim, 4)) if len(content) >= 4 + 4 * ndim else (0,)
    size, stated_size = len(content) - 4 - 4 * ndim, int(np.prod(shape, dtype=object))
    if size != stated_size:
        raise DataError(
            f"{str(path)!r} promises {stated_size} bytes ({'x'.join(map(str, shape))}) but holds {size}; copy it again"
        )
    return np.frombuffer(content, np.uint8, stated_size, 4 + 4 * ndim).reshape(shape)
