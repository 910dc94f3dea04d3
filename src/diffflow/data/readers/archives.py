"""Archives: zip and gzip files, read as if a stranger with bad intentions had made them.

The table of contents is looked at first, the whole archive is refused with every reason named, and only then entries
are read, in memory: nothing is ever unpacked to disk. What is refused: names that leave the folder, links, encrypted
entries, duplicates, and anything over the limits on count, size and compression ratio ("zip bombs", also those with
overlapping entries, which the ratio of the total to the size of the file shows).
"""

from __future__ import annotations

import gzip
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from ..errors import DataError


class Entry(NamedTuple):
    """A file of a folder or an archive: its name within, what reads the whole, and what opens it."""

    name: str
    read: Callable[[], bytes]
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Args:
        count: entries.
        entry: bytes of an entry, uncompressed.
        total: bytes of all entries, uncompressed.
        ratio: uncompressed to compressed bytes, of an entry and of the whole.
    """

    count: int = 2_000_000
    entry: int = 1 << 30
    total: int = 1 << 35
    ratio: float = 200.0


LIMITS = Limits()


@contextmanager
def open_zip(path: Path, limits: Limits = LIMITS) -> Iterator[list[Entry]]:
    """Open a zip archive, checked before anything is read.

    Args:
        path: the archive.
        limits: what it may hold.

    Yields:
        [(name, read)] for its files: `read()` returns the bytes.

    Raises:
        DataError: it is no zip archive, or it is refused; every reason is named.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{str(path)!r} is no readable zip archive ({error}); make or copy it again") from None
    with archive:
        named = [(_name(i), i) for i in archive.infolist()]
        infos = {name: i for name, i in named if not name.endswith("/")}
        problems = [f"{name!r}: {why}" for name, i in infos.items() if (why := _objection(name, i, limits))]
        stored = Counter(_own(name) for name, _ in named if not name.endswith("/"))
        problems += [f"{name!r}: stored {n} times" for name, n in sorted(stored.items()) if n > 1]
        total = sum(i.file_size for name, i in named if not name.endswith("/"))
        if stored.total() > limits.count:
            problems.append(f"{stored.total()} entries; at most {limits.count} are read")
        if total > limits.total:
            problems.append(f"{total} bytes when unpacked; at most {limits.total} are read")
        if total > limits.ratio * max(path.stat().st_size, 1):
            problems.append(f"{total} bytes from a file of {path.stat().st_size}: more than {limits.ratio:g} to 1")
        if problems:
            raise DataError(f"the archive {str(path)!r} is refused; unpack it yourself if you trust it:", problems)
        yield [Entry(_own(name), _entry_reader(archive, i), lambda i=i: archive.open(i)) for name, i in infos.items()]


def _name(info: zipfile.ZipInfo) -> str:
    """The name of an entry with "/" between folders: some programs of Windows write a backslash."""
    return info.orig_filename.replace("\\", "/")


def _own(name: str) -> str:
    """A name without folders that mean this one."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _entry_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    """The function that reads one entry. Raises ValueError where it is damaged."""

    def read() -> bytes:
        try:
            return archive.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise ValueError(f"damaged in the archive ({error})") from None

    return read


def _objection(name: str, info: zipfile.ZipInfo, limits: Limits) -> str | None:
    """Why an entry of a name is refused; None where it may be read."""
    if name.startswith("/") or "\0" in name or ":" in name.split("/")[0] or ".." in name.split("/"):
        return "the name leaves the folder"
    # Unix permissions sit in the high half of external_attr
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "a link" if kind == stat.S_IFLNK else "not a plain file"
    if info.flag_bits & 1:
        return "encrypted"
    if info.file_size > limits.entry:
        return f"{info.file_size} bytes; at most {limits.entry}"
    if info.file_size > limits.ratio * max(info.compress_size, 1):
        return f"compressed more than {limits.ratio:g} to 1"
    return None


def read_bytes(path: Path, limit: int = 1 << 33) -> bytes:
    """The bytes of a file, unpacked when it is gzip (told by its first two bytes, not its name).

    Args:
        path: the file.
        limit: most bytes, unpacked.

    Raises:
        DataError: it cannot be read, or is larger.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}); copy or download it again") from None
    if len(content) > limit:
        raise DataError(f"{str(path)!r} is larger than {limit} bytes when unpacked; split it")
    return content
