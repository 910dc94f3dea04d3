"""Words: the data in one line, as somebody would say it who has never seen a tensor; and names in their order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import Data

COLOURS = {1: "grey", 3: "colour"}


def in_words(data: Data) -> str:
    """The data in words: "flowers: 3,786 pictures of 64x64, colour, no classes, 3,407 train + 379 test".

    Args:
        data: the data; of a part of a source that was read as a whole, both parts are counted.
    """
    shape = data.shape
    total = len(data) if data.taken is None else max(len(data.taken), len(data))
    aside = total - len(data) or (len(data.heldout) if data.heldout is not None and data.split == "train" else 0)
    total = len(data) + aside
    if data.kind == "image":
        of = "pictures" if data.transform.of_bytes else "pictures of floats"
        what = f"{total:,} {of} of {shape[2]}x{shape[1]}, {COLOURS.get(shape[0], f'{shape[0]} channels')}"
    elif data.kind == "vector":
        what = f"{total:,} rows of {shape[0]} column{'s' if shape[0] > 1 else ''}"
    elif data.kind == "signal":
        what = f"{total:,} signals of {shape[1]} values in {shape[0]} channel{'s' if shape[0] > 1 else ''}"
    else:
        what = f"{total:,} volumes of {'x'.join(map(str, shape[:0:-1]))}, {shape[0]} channel{'s' * (shape[0] > 1)}"
    count = len(data.classes or ())
    classes = f"{count} class{'es' if count > 1 else ''}" if count else "no classes"
    parts = {"train": (len(data), aside), "test": (aside, len(data))}.get(data.split)
    split = f"split {data.split}" if parts is None or not aside else f"{parts[0]:,} train + {parts[1]:,} test"
    return f"{data.name}: {what}, {classes}, {split}"


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """The key by which names are in natural order: their numbers count as numbers."""
    parts = [p for p in re.split(r"([0-9]+)", name) if p]
    return [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in parts], name
