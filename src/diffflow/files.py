"""Writing files: whole or not at all, and refused before the work where they cannot be written.

    check(path)             can this file be written? raises WriteError, which names the path as it was given
    check_folder(path)      can files be written into this folder, which may not be there yet?
    write(path, content)    bytes; write_text and write_json make them
    unused(path)            this name, or the next free one: samples.png, samples-2.png, ...

A regular file is written to a hidden neighbour, synced, and moved into place: a reader sees the old content or the new,
never a part. A link stays a link (what it points to is replaced), and a device, a pipe or standard output is written
to as any program would.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class WriteError(OSError):
    """A file that cannot be written: the message names the path as it was given, the cause and the remedy."""

    def __init__(self, message: str, errno: int | None = None):
        super().__init__(message)
        self.errno = errno


def write(path: str | Path, content: bytes) -> Path:
    """Write a file, and the folders above it, whole or not at all.

    Returns:
        The path.

    Raises:
        WriteError: the disk refuses; what was there before is untouched then.
    """
    path = Path(path)
    try:
        if is_stream(path):
            write_through(path, content)
            return path
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / hidden_name()
        try:
            write_synced(temporary, content)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as e:
        raise WriteError(f"could not write {path}: {reason(path, e)}", e.errno) from e
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write text as UTF-8; names of files that are not valid Unicode come out as the bytes they are."""
    return write(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: str | Path, value: Any) -> Path:
    """Write a value as JSON."""
    return write(path, json.dumps(value, indent=1).encode())


def write_synced(path: Path, content: bytes) -> None:
    """Write one file in place, and return when it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_through(path: Path, content: bytes) -> None:
    """Write to a device, a pipe or a socket; standard output keeps its order with what was printed."""
    try:
        same = os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # standard output is no file, as in a notebook
        same = False
    if same:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    with open(path, "wb", buffering=0) as stream:
        rest = memoryview(content)
        while rest:
            rest = rest[stream.write(rest) or 0 :]


def is_stream(path: Path) -> bool:
    """Whether a path is written to as it is: a device, a pipe, or whatever an entry of /dev or /proc leads to."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    if stat.S_ISDIR(mode):
        return False
    return not stat.S_ISREG(mode) or Path(os.path.abspath(path)).parts[1:2] in (("dev",), ("proc",))


def check(path: str | Path, flag: str = "") -> None:
    """Refuse, before any work, a file that could not be written.

    Args:
        path: the file.
        flag: the option that named it, for the message.

    Raises:
        WriteError: a directory, a place that is missing or may not be written to, or a protected file.
    """
    path, shown = Path(path), f"{flag} {path}".strip()
    if os.path.isdir(path):
        raise WriteError(f"{shown} is a directory: name a file in it.", errno.EISDIR)
    try:
        if exists(path) and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not is_stream(path):
            probe(Path(os.path.realpath(path)).parent)
    except OSError as e:
        raise WriteError(f"{shown} cannot be written: {reason(path, e)}.", e.errno) from e


def check_folder(path: str | Path, flag: str = "") -> None:
    """Refuse, before any work, a folder into which no file could be written. Raises WriteError."""
    try:
        probe(Path(os.path.realpath(path)))
    except OSError as e:
        raise WriteError(f"{f'{flag} {path}'.strip()} cannot be written to: {reason(Path(path), e)}.", e.errno) from e


def exists(path: Path) -> bool:
    """Whether something is at `path`. Raises OSError for a name that no file can have."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def probe(folder: Path) -> None:
    """Make and remove an empty file where `folder` is, or would be made. Raises OSError, as writing there would."""
    nearest = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    if not os.path.isdir(nearest):
        raise NotADirectoryError(errno.ENOTDIR, f"{nearest} is not a directory")
    temporary = nearest / hidden_name()
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    temporary.unlink()


def unused(path: str | Path) -> Path:
    """The path itself where nothing is there yet, else the next free one: samples-2.png, samples-3.png, ..."""
    path = Path(path)
    free, k = path, 1
    while os.path.lexists(free):
        k += 1
        free = path.with_name(f"{path.stem}-{k}{path.suffix}")
    return free


def reason(path: Path, e: OSError) -> str:
    """Why the system refused to write `path`, and what to do about it."""
    cause = e.strerror or str(e)
    if e.errno in FULL:
        where = next((p for p in path.parents if p.exists()), Path("."))
        free = shutil.disk_usage(where).free / 1e6
        return f"{cause}: the disk of {where} is full ({free:.0f} MB free); make room, or choose another place"
    return f"{cause}; choose a place that you may write to" if e.errno in DENIED else cause


def hidden_name() -> str:
    """A name for a file that is being written, which nobody else has."""
    return f".{os.getpid()}-{secrets.token_hex(4)}.tmp"


def is_hidden(name: str) -> bool:
    """Whether a file has such a name."""
    return name.startswith(".") and name.endswith(".tmp")
