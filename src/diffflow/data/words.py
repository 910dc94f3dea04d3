"""Words: the data in one line, as somebody would say it who has never seen a tensor; and names in their order."""

from __future__ import annotations

import re
from collections.abc import Sized

from .transform import Transform

COLOURS = {1: "grey", 3: "colour"}


def in_words(
    transform: Transform, x: Sized, classes: Sized | None, split: str, taken: Sized | None, heldout: Sized | None
) -> str:
    """Data in words: "3,786 pictures of 64x64, colour, no classes, 3,407 train + 379 test".

    Args:
        transform: which knows what an example is.
        x: the examples.
        classes: the names of the classes; None without.
        split: which part of a source they are: "train", "test" or "all".
        taken: the rows of the source, where it was read as a whole: then both parts are counted.
        heldout: the other part, where it is at hand.
    """
    shape, here = transform.data_shape, len(x)
    aside = len(taken) - here if taken is not None else 0
    aside = aside or (len(heldout) if heldout is not None and split == "train" else 0)
    total = here + aside
    if transform.kind == "image":
        of = "pictures" if transform.of_bytes else "pictures of floats"
        what = f"{total:,} {of} of {shape[2]}x{shape[1]}, {COLOURS.get(shape[0], f'{shape[0]} channels')}"
    elif transform.kind == "vector":
        what = f"{total:,} rows of {shape[0]} column{'s' if shape[0] > 1 else ''}"
    elif transform.kind == "signal":
        what = f"{total:,} signals of {shape[1]} values in {shape[0]} channel{'s' if shape[0] > 1 else ''}"
    else:
        what = f"{total:,} volumes of {'x'.join(map(str, shape[:0:-1]))}, {shape[0]} channel{'s' * (shape[0] > 1)}"
    count = 0 if classes is None else len(classes)
    told = f"{count} class{'es' if count > 1 else ''}" if count else "no classes"
    parts = {"train": (here, aside), "test": (aside, here)}.get(split)
    part = f"split {split}" if parts is None or not aside else f"{parts[0]:,} train + {parts[1]:,} test"
    return f"{what}, {told}, {part}"


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """The key by which names are in natural order: their numbers count as numbers."""
    parts = [p for p in re.split(r"([0-9]+)", name) if p]
    return [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in parts], name
