"""Pictures in a folder or a zip become one uint8 array.

First the names are looked at (layout.py), then the head of each file, which says its size: all pictures are brought to
one (form.py). Then each is decoded once, into its place, and every bad file is named in one error. What was decided,
converted (palette, 16 bits, transparency, rotation flags) or left out is counted and reported in the notes.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from ..errors import DataError
from ..raw import Raw
from .archives import LIMITS, Entry, Limits, open_zip
from .decode import EXTRA, SUFFIXES, decode, opened, pages, readable
from .form import AS_THEY_ARE, LARGEST, Form, common_size, place
from .idx import IDX, deeper, read_idx
from .labels import Lists, read_lists
from .layout import Layout, layout
from .pixels import check_levels, to_bytes

SHARE = 0.8  # of the free memory, that pictures may take


@dataclass(frozen=True)
class Survey:
    """What the names and heads of picture files say, before any is decoded.

    Args:
        count: pictures, of all splits.
        channels: 1 or 3.
        size: (height, width) that they will have.
        classes: number of classes; 0 without.
    """

    count: int
    channels: int
    size: tuple[int, int]
    classes: int


def read_folder(path: Path, form: Form = AS_THEY_ARE, split: str = "train") -> Raw:
    """Read the pictures under a folder; links to folders are followed.

    Args:
        path: the folder; see the head of layout.py for what its folders say.
        form: the form that they are brought to.
        split: which part is read where there are no pictures, but idx files further down.

    Returns:
        Raw with x uint8 (n, 1 or 3, h, w), and labels, class names and test rows where the folders say them.

    Raises:
        DataError: there are no pictures, they do not fit together, or some cannot be read; every bad file is named.
    """
    entries, notes = _files(path)
    if (home := _idx_below(path, entries)) is None:
        return _Pictures(str(path), entries, form, notes).read()
    if form.size is not None:
        raise DataError(f"{str(home)!r} holds idx files, which have their own size; leave size (--data.size) out")
    raw = read_idx(home, split)
    return replace(raw, notes=(f"the idx files in {home} are read", *raw.notes))


def read_zip(path: Path, form: Form = AS_THEY_ARE, limits: Limits = LIMITS) -> Raw:
    """Read the pictures in a zip archive, in memory.

    Args:
        path: the archive; see the head of layout.py for what its folders say.
        form: the form that they are brought to.
        limits: what the archive may hold.

    Returns:
        As `read_folder`.

    Raises:
        DataError: as `read_folder`, and for an archive that is refused.
    """
    with open_zip(path, limits) as entries:
        return _Pictures(str(path), sorted(entries, key=lambda e: e.name), form).read()


def survey(path: Path, form: Form = AS_THEY_ARE) -> Survey:
    """What a folder or zip of pictures holds, by names and heads of files alone. Raises DataError as reading does."""
    if not path.is_dir():
        with open_zip(path) as entries:
            return _Pictures(str(path), sorted(entries, key=lambda e: e.name), form).survey()
    entries, _ = _files(path)
    if (home := _idx_below(path, entries)) is None:
        return _Pictures(str(path), entries, form).survey()
    raw = read_idx(home, "train")
    return Survey(len(raw.x), 1, cast(tuple[int, int], raw.x.shape[2:]), len(raw.classes or ()))


def _files(root: Path) -> tuple[list[Entry], list[str]]:
    """The files under a folder, in order: its own, then those of its folders; and the links that were not followed.

    A link is followed unless it leads to a folder above itself, for then there would be no end.
    """
    entries: list[Entry] = []
    loops: list[str] = []

    def walk(name: str, way: tuple[Path, ...]) -> None:
        folder = root / name if name else root
        try:
            found = sorted(os.scandir(folder), key=lambda f: f.name)
        except OSError as error:
            raise DataError(f"the folder {str(folder)!r} cannot be read: {error.strerror}") from None
        below = []
        for file in found:
            inside = f"{name}/{file.name}" if name else file.name
            if file.is_dir():
                below.append((inside, file))
            elif file.is_file() or file.is_symlink():  # a link that leads nowhere is named when it is read
                path = folder / file.name
                entries.append(Entry(inside, path.read_bytes, partial(open, path, "rb")))
        for inside, file in below:
            if file.name.startswith("."):
                continue
            if not file.is_symlink():
                walk(inside, way)
            elif any(p.is_relative_to(Path(file.path).resolve()) for p in (*way, folder.resolve())):
                loops.append(inside)
            else:
                walk(inside, (*way, folder.resolve()))

    walk("", ())
    return entries, [f"links that lead back to a folder above were not followed: {', '.join(loops)}"] if loops else []


def _idx_below(path: Path, entries: Sequence[Entry]) -> Path | None:
    """The folder further down that holds idx files, where there are no pictures. Raises DataError for several."""
    names = [e.name for e in entries if IDX.search(e.name.rpartition("/")[2])]
    if not names or any(_suffix(e.name) in SUFFIXES | EXTRA.keys() for e in entries if not _hidden(e.name)):
        return None
    return deeper(path, names)


def _why(error: Exception) -> str:
    """What is wrong with a picture, where decoding it raised this."""
    return "there is too little memory to decode it" if isinstance(error, MemoryError) else str(error)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


class _Pictures:
    """The pictures among the files of a folder or an archive, which are looked at and then decoded, once each.

    Args:
        source: what messages call the data.
        entries: the files.
        form: the form that pictures are brought to.
        notes: what was decided about the files.

    Raises:
        DataError: there are no pictures, or their layout cannot be meant.
    """

    def __init__(self, source: str, entries: Sequence[Entry], form: Form, notes: Sequence[str] = ()):
        visible = [e for e in entries if not _hidden(e.name)]
        suffixes, self.formats = readable({_suffix(e.name) for e in visible})
        chosen = [e for e in visible if _suffix(e.name) in suffixes]
        if not chosen:
            contents = f"; it holds {', '.join(repr(e.name) for e in visible[:5])}" if visible else ""
            if visible and (needs := _needed(visible)):
                contents += f" ({needs})"
            elif not visible:
                raise DataError(f"{source!r} is empty; put images in it, one subfolder for each class")
            raise DataError(f"no images in {source!r}{contents}. Images end in {' '.join(sorted(SUFFIXES))}")
        self.source, self.form = source, form
        names = [e.name for e in chosen]
        lists = read_lists(source, visible, names)
        self.layout: Layout = layout(source, names, lists.labels, lists.unlabelled)
        self.notes = [*notes, *lists.notes, *self.layout.notes, *_left_out(visible, suffixes, lists)]
        self.files = [e for e, kept in zip(chosen, self.layout.kept, strict=True) if kept]
        self.problems: dict[int, str] = {}
        self._look()

    def _look(self) -> None:
        """Look at the heads of the files: the pictures in each, their sizes, and the one that all will have."""
        shapes: Counter[tuple[int, int]] = Counter()
        self.pages: list[tuple[int, int, tuple[int, int]]] = []  # file, page, (height, width)
        channels, stacks = {1: 0, 3: 0}, 0
        for i, entry in enumerate(self.files):
            try:
                try:
                    with entry.open() as file, opened(file, self.formats) as image:
                        found = pages(image, self.form)
                except Exception:  # what is wrong with it is said by the whole file
                    with_all = decode(entry.read(), 0, self.form, None, self.formats)[0]
                    found = [(0, with_all.shape[:2], with_all.shape[2])]
            except Exception as error:  # decoders of damaged files raise almost anything; each becomes a named problem
                self.problems[i] = _why(error)
                continue
            stacks += len(found) > 1
            for page, shape, count in found:
                shapes[shape] += 1
                channels[count] += 1
                self.pages.append((i, page, shape))
        pictures = "pages" if stacks else "images"
        if stacks:
            self.notes.append(f"{stacks} TIFF files of several pages: each of the {len(self.pages)} pages is a picture")
        form = self.form
        self.size = form.size or next(iter(shapes), (1, 1))
        if form.size is None and len(shapes) > 1:
            self.size = form.otherwise or common_size(shapes)
            sizes = ", ".join(f"{w}x{h} ({n} {pictures})" for (h, w), n in shapes.most_common(5))
            self.notes.append(
                f"{len(shapes)} different sizes (width x height): {sizes}{', ...' if len(shapes) > 5 else ''}; brought "
                f"to {self.size[1]}x{self.size[0]} (--data.size for another, --data.fit crop, pad or resize)"
            )
        padded = form.fit == "pad" and any(shape != self.size for shape in shapes)
        self.channels = 3 if channels[3] or (padded and not form.grey) else 1

    def survey(self) -> Survey:
        """What is known before anything is decoded."""
        return Survey(len(self.pages), self.channels, self.size, len(self.layout.classes or ()))

    def read(self) -> Raw:
        """Decode the pictures, each once, into one array. Raises DataError that names every bad file."""
        x = self._allocate()
        deep: dict[int, np.ndarray] = {}
        converted: Counter[str] = Counter()
        grey, at, content = 0, -1, b""
        for row, (i, page, shape) in enumerate(self.pages):
            try:
                if i != at:
                    at, content = i, self.files[i].read()
                size = None if shape == self.size else self.size
                pixels, conversions = decode(content, page, self.form, size, self.formats)
                if size is None and pixels.shape[:2] != self.size:  # its head says another size than its pixels have
                    pixels, conversions = decode(content, page, self.form, self.size, self.formats)
                if pixels.shape[2] > self.channels:
                    raise ValueError("its head says grey, and its pixels are in colour")
            except Exception as error:  # as above
                self.problems[i] = _why(error)
                continue
            converted.update(conversions)
            grey += pixels.shape[2] == 1
            if pixels.dtype != np.uint8:
                deep[row] = pixels
            elif not self.problems:
                place(x[row], pixels, self.form)
        if self.problems:
            raise DataError(
                f"{len(self.problems)} of {len(self.files)} images in {self.source!r} cannot be read; repair or remove "
                "them:",
                [f"{self.files[i].name}: {self.problems[i]}" for i in sorted(self.problems)],
            )
        words = _place_deep(self.source, x, deep, self.form, converted)
        colours = len(self.pages) - grey
        if grey and self.channels == 3:
            converted[f"grey, repeated in three channels because {colours} others are in colour"] = grey
        notes = [f"{count} of {len(x)} images: {what}" for what, count in sorted(converted.items())]
        notes += check_levels(x, words)
        rows = np.flatnonzero(self.layout.kept)[[i for i, _, _ in self.pages]]
        y, test = (None if v is None else v[rows] for v in (self.layout.y, self.layout.test))
        return Raw(x, y, self.layout.classes, test, (*notes, *self.notes), own=True)

    def _allocate(self) -> np.ndarray:
        """Room for all pictures (n, c, h, w). Raises DataError where there is none, before anything is decoded."""
        shape = (len(self.pages), self.channels, *self.size)
        need, free = math.prod(shape), free_memory()
        try:
            if need < SHARE * free:
                return np.empty(shape, np.uint8)
        except MemoryError:  # a limit of the process, such as ulimit -v
            free = min(free, need)
        side = min(LARGEST, *self.size)
        raise DataError(
            f"{shape[0]:,} pictures of {shape[3]}x{shape[2]} in {self.source!r} take {need / 2**30:,.2g} GiB of memory "
            f"({free / 2**30:,.2g} GiB are free); bring them to a smaller size: --data.size {side} (size={side} in "
            "Python)"
        )


def free_memory() -> int:
    """Bytes of memory that are free, by the system's own estimate; where it gives none, all that there is."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 1 << 62


def _place_deep(source: str, x: np.ndarray, deep: dict[int, np.ndarray], form: Form, converted: Counter[str]) -> str:
    """Put pictures of 16 bits or of floats into x as bytes; what was done is counted, and returned in words."""
    said = []
    for dtype in (np.uint16, np.float32):
        rows = [row for row, pixels in deep.items() if pixels.dtype == dtype]
        if rows:
            parts, words = to_bytes(source, [deep[row] for row in rows])
            for row, part in zip(rows, parts, strict=True):
                place(x[row], part, form)
            converted[words or "floats that are whole numbers up to 255"] = len(rows)
            said.append(words)
    return ", ".join(filter(None, said))


def stack_images(
    source: str, arrays: list[np.ndarray], sizes: Counter[tuple[int, ...]], converted: Counter[str]
) -> tuple[np.ndarray, list[str]]:
    """Decoded images as one array.

    Args:
        source: what messages call the data.
        arrays: pixels (h, w, 1 or 3) each, as `decode.to_pixels` gives them.
        sizes: how many images have each (height, width).
        converted: how many images were converted, by the words for it.

    Returns:
        x: uint8 (n, 1 or 3, h, w); grey ones among others get three channels.
        notes: what was converted, one sentence each.

    Raises:
        DataError: images of different sizes, or whose pixels have no known range.
    """
    if len(sizes) > 1:
        counts = ", ".join(f"{w}x{h} ({n} images)" for (h, w), n in sizes.most_common(10))
        common = min(min(s) for s in sizes)
        raise DataError(
            f"images in {source!r} have {len(sizes)} different sizes (width x height): {counts}. Resize them, such as "
            f"ImageOps.fit(picture, ({common}, {common})); df.data.load crops those in files"
        )
    colours = Counter(a.shape[2] for a in arrays)
    x = np.empty((len(arrays), max(colours), *arrays[0].shape[:2]), np.uint8)
    form = AS_THEY_ARE
    for i, a in enumerate(arrays):
        if a.dtype == np.uint8:
            place(x[i], a, form)
    words = _place_deep(source, x, {i: a for i, a in enumerate(arrays) if a.dtype != np.uint8}, form, converted)
    if len(colours) > 1:
        converted[f"grey, repeated in three channels because {colours[3]} others are in colour"] = colours[1]
    notes = [f"{count} of {len(arrays)} images: {what}" for what, count in sorted(converted.items())]
    return x, notes + check_levels(x, words)


def _left_out(visible: Sequence[Entry], suffixes: set[str], lists: Lists) -> list[str]:
    """The note on files that are not read: how many of each kind, some names, and what would read them."""
    ignored = [e for e in visible if _suffix(e.name) not in suffixes and e.name not in lists.read]
    if not ignored:
        return []
    kinds = Counter(_suffix(e.name) or "without a suffix" for e in ignored)
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(8))
    names = ", ".join(e.name for e in ignored[:5]) + (", ..." if len(ignored) > 5 else "")
    needs = _needed(ignored)
    return [f"{len(ignored)} files were left out ({counts}): {names}{needs and f'; {needs}'}"]


def _needed(entries: Sequence[Entry]) -> str:
    """Which packages would read pictures among these files; "" for none."""
    kinds = sorted({_suffix(e.name) for e in entries} & EXTRA.keys())
    return "; ".join(f"{EXTRA[kind][1]} reads {kind}: pip install {EXTRA[kind][1]}" for kind in kinds)
