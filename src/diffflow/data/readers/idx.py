"""idx files: the form of MNIST and its relatives.

A big-endian header `00 00 type ndim`, ndim sizes of 4 bytes, then the bytes (type 8 = uint8); possibly gzipped.

    *train*images*, *train*labels*, *t10k* or *test*  ->  x (n, 1, h, w), y (n,)

A folder with such a name is looked into (some programs unpack each file into a folder of its own); a file beside it
wins. Files of several sets in one folder, such as those of EMNIST, are refused.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..raw import Raw
from .archives import read_bytes

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
IDX = re.compile(r"(train|t10k|test).*(images|labels).*idx[13]", re.IGNORECASE)


def is_idx(path: Path) -> bool:
    """Whether a path is a folder that holds idx files."""
    return path.is_dir() and bool(_files(path))


def deeper(path: Path, names: list[str]) -> Path:
    """The folder below another that holds its idx files.

    Args:
        path: the folder.
        names: of the idx files, relative to it.

    Raises:
        DataError: several folders hold some; they are named.
    """
    homes = sorted({path / name for name in (n.rpartition("/")[0] for n in names)})
    homes = sorted({home.parent if IDX.search(home.name) else home for home in homes})
    if len(homes) > 1:
        raise DataError(f"{str(path)!r} has idx files in several folders; give one of them:", [str(h) for h in homes])
    return homes[0]


def read_idx(path: Path, split: str) -> Raw:
    """Read a folder of idx files.

    Args:
        path: the folder.
        split: which part is read: "train", "test" or "all".

    Returns:
        Raw with x uint8 (n, 1, h, w), labels, and class names: garments for ten classes in a folder named "fashion",
        else the numbers that are used as labels.

    Raises:
        DataError: a file is missing or damaged, or there are several sets.
    """
    found = _files(path)
    if len(sets := sorted({name for name, _, _ in found})) > 1:
        raise DataError(
            f"{str(path)!r} holds several sets: {', '.join(name or 'one without a name' for name in sets)}; move the "
            "files of one into a folder of its own, and give that"
        )
    files = {(part, what): file for (_, part, what), file in found.items()}
    wanted = ("train", "test") if split == "all" else (split,)
    missing = [f"{s} {what}" for s in wanted for what in ("images", "labels") if (s, what) not in files]
    if missing:
        raise DataError(
            f"{str(path)!r} lacks the idx files for: {', '.join(missing)}; it has", [f.name for f in files.values()]
        )
    x = np.concatenate([_read_idx_file(files[(s, "images")], 3) for s in wanted])
    labels = {s: _read_idx_file(files[(s, "labels")], 1) for s in ("train", "test") if (s, "labels") in files}
    used = np.unique(np.concatenate(list(labels.values())))  # over both splits, so that classes agree
    notes: list[str] = []
    if len(used) and used[-1] >= len(used):  # a label that nothing has is no class: EMNIST's letters start at 1
        notes = [f"labels {', '.join(map(str, used[:40]))}: numbered 0..{len(used) - 1} in this order"]
    home = path.resolve()
    home = home.parent if home.name.lower() == "raw" else home  # FashionMNIST/raw, as torchvision leaves it
    fashion = "fashion" in home.name.lower() and len(used) == 10
    names = FASHION if fashion else [str(k) for k in used]
    y = np.searchsorted(used, np.concatenate([labels[s] for s in wanted]))
    test = np.repeat([s == "test" for s in wanted], [len(labels[s]) for s in wanted])
    return Raw(x[:, None], y, names, test, tuple(notes))


def _files(path: Path) -> dict[tuple[str, str, str], Path]:
    """The idx files in a folder by their set, "train" or "test", and "images" or "labels".

    Of several for one place, an unpacked file wins over its .gz, and both over a file in a folder of that name.
    """
    found: dict[tuple[str, str, str], tuple[int, Path]] = {}
    for file in sorted(path.iterdir(), reverse=True):
        match, inner = IDX.search(file.name), file
        if match is None:
            continue
        if folder := file.is_dir():
            within = [f for f in sorted(file.iterdir(), reverse=True) if f.is_file() and not f.name.startswith(".")]
            within = [f for f in within if IDX.search(f.name)] or within
            if not within:
                continue
            inner = min(within, key=lambda f: f.suffix.lower() == ".gz")
        rank = 2 * folder + (inner.suffix.lower() == ".gz")
        name = file.name[: match.start()].strip("-_. ").lower()
        place = name, "train" if match[1].lower() == "train" else "test", match[2].lower()
        if place not in found or rank < found[place][0]:
            found[place] = rank, inner
    return {place: file for place, (_, file) in found.items()}


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
