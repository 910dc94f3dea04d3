"""Writers: the files that samples go to, a row of WRITERS for each suffix."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffflow import figures

if TYPE_CHECKING:
    from diffflow.data import Transform

    LabelArray = np.ndarray | None  # int64 (n,)
    ClassNames = Sequence[str] | None
    ColumnNames = Transform | None  # what the columns of vectors are called, and what their codes stand for


def as_png(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """A PNG: a grid of images, of middle slices of volumes, or of 16 signals as lines; a scatter plot of vectors."""
    from diffflow.data import tiles

    return figures.png(tiles.picture(x))


def as_zip(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """A zip of PNG files, one a sample, in a folder for each class."""
    folders = folder_names(classes) if classes else []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for i, image in enumerate(x):
            folder = f"{folders[int(labels[i])]}/" if labels is not None and folders else ""
            name = zipfile.ZipInfo(f"{folder}{i:06d}.png")
            archive.writestr(name, figures.png(figures.grid(image[None], gap=0, scale=1)))
    return buffer.getvalue()


SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "unlabeled", "unlabelled", "__macosx")


def folder_names(classes: Sequence[str]) -> list[str]:
    """Each class as the name of a folder that every reader takes for that class alone: "T-shirt/top" is T-shirt-top.

    What leads out of a folder, hides it, or is the name of a split is replaced, and no two classes share a name.
    """
    folders: dict[str, None] = {}
    for name in classes:
        name = name.encode("utf-8", "replace").decode()
        plain = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "-", name).strip(" .") or "-"
        if plain.lower() in SPLITS:  # unlike parts beside it: X-train and X-test would be read as a split
            plain = f"class-{'x' * (1 + len(folders))}-{plain}"
        free, k = plain, 1
        while free in folders or (free != name and free in classes):
            k += 1
            free = f"{plain}-{k}"
        folders[free] = None
    return list(folders)


def as_npy(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """An .npy: the samples alone, as `arr_0` of an .npz."""
    buffer = io.BytesIO()
    np.save(buffer, in_own_type(x, columns))
    return buffer.getvalue()


def in_own_type(x: np.ndarray, columns: ColumnNames) -> np.ndarray:
    """Images of bytes as uint8 (n, h, w, c), everything else as it is, float32 (n, *shape)."""
    if x.ndim != 4 or (columns is not None and not columns.of_bytes):
        return x
    return np.rint(x * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def as_npz(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """An .npz: images of bytes as uint8 `arr_0` (n, h, w, c), others as float32 (n, *shape), with their labels."""
    arrays: dict[str, Any] = {"arr_0": in_own_type(x, columns)}
    if labels is not None and classes:
        arrays |= {"labels": labels, "classes": np.array(classes)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def as_csv(x: np.ndarray, labels: LabelArray, classes: ClassNames, columns: ColumnNames) -> bytes:
    """A CSV of vectors, with the columns of the data, and words where these had words."""
    from diffflow.data.table_transform import TableTransform
    from diffflow.data.writers.tables import to_csv

    if isinstance(columns, TableTransform):  # as its file writes it
        return to_csv(columns.schema, x, columns.clip).encode()
    names = (columns and columns.columns) or ()
    if all(name.isdecimal() for name in names):  # a header of numbers would be read as a row of them
        names = tuple(f"x{k}" for k in range(x.shape[1]))
    words = (columns and columns.names) or ((),) * x.shape[1]
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(names)
    for row in x:
        rows.writerow(words[k][round(float(v))] if words[k] else f"{v:.7g}" for k, v in enumerate(row))
    return buffer.getvalue().encode()


WRITERS: dict[str, tuple[tuple[str, ...], Callable[..., bytes]]] = {
    ".png": (("image", "signal", "volume", "vector"), as_png),
    ".zip": (("image",), as_zip),
    ".npz": (("image", "signal", "volume", "vector"), as_npz),
    ".csv": (("vector",), as_csv),
    ".npy": (("image", "signal", "volume", "vector"), as_npy),
}
