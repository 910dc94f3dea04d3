"""One writer for a run directory: a lock that says who holds it, and that ends with its process, however that ends.

The lock is the operating system's, on the file `.training.lock`: after a kill -9 or a crash the file may stay, but
nobody holds it, and the next training takes it. Whoever only reads a run (sample, evaluate, runs) never asks for it.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = ".training.lock"
WAIT_SECONDS = 1.0  # who looks whether a lock is held, holds it for a moment himself
FAR = 1 << 30  # Windows forbids to read what is locked, so a byte beyond the text is
TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class Locked(RuntimeError):
    """A run directory that another process is writing; the message names that process."""


@dataclass(frozen=True)
class Holder:
    """The process that writes a run directory.

    Args:
        pid: its number.
        host: the machine it runs on.
        since: local time at which it took the lock.
        command: its command line.
    """

    pid: int
    host: str
    since: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        program, *args = self.command or ("",)
        program = "diffflow" if program.endswith("__main__.py") else Path(program).name
        return f"process {self.pid} on {self.host} since {self.since} ({shlex.join([program, *args])})"


class Lock:
    """The right to write a run directory, from `take()` to the end of the `with` block.

        with Lock(folder) as lock:
            ...          # checks; the folder may not be there yet
            lock.take()  # raises Locked, and does nothing where it is held already

    Args:
        folder: the run directory.
        name: name of the lock's file; another one than the default stands for some files of the directory only.
    """

    def __init__(self, folder: Path, name: str = NAME):
        self.folder, self.name, self.handle = folder, name, None

    def __enter__(self) -> Lock:
        return self

    def take(self) -> None:
        """Take the lock, waiting for a moment.

        Raises:
            Locked: another process has it.
            OSError: the folder cannot be written.
        """
        if self.handle is not None:
            return
        path, deadline = self.folder / self.name, time.monotonic() + WAIT_SECONDS
        while self.handle is None:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if _grab(handle):
                    if _same(handle, path):  # else whoever had it has removed it meanwhile
                        self.handle, handle = handle, None
                    continue
            finally:
                if handle is not None:
                    os.close(handle)
            if time.monotonic() > deadline:
                writer = _read(path) or "another process"
                activity = "trained" if self.name == NAME else "written"
                raise Locked(
                    f"{self.folder} is being {activity} by {writer}: wait until it has ended, or choose another "
                    "directory (--out). Sampling from it is free"
                )
            time.sleep(0.05)
        mine = Holder(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"), tuple(sys.argv))
        os.ftruncate(self.handle, 0)
        os.write(self.handle, json.dumps(asdict(mine)).encode())

    def __exit__(self, *_: object) -> None:
        if self.handle is None:
            return
        path, handle, self.handle = self.folder / self.name, self.handle, None
        mine = _same(handle, path)
        if sys.platform == "win32":  # which removes no file that is open
            os.close(handle)
        if mine:
            with suppress(OSError):  # on Windows the next one may have it open
                path.unlink()
        if sys.platform != "win32":  # removed before anybody can take it
            os.close(handle)


def holder(folder: Path) -> Holder | None:
    """The process that is writing this run directory now; None: nobody."""
    path = folder / NAME
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        if _grab(handle, shared=True):
            return None
        return _read(path) or Holder(0, "an unknown host", "an unknown time", ())
    finally:
        os.close(handle)


def _grab(handle: int, shared: bool = False) -> bool:
    """Lock an open file without waiting, until it is closed. False: somebody else has it."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in TAKEN:
            return False
        if not shared:
            warnings.warn(f"this file system knows no locks ({e}): start only one training in a run directory")
    return True


def _same(handle: int, path: Path) -> bool:
    """Whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def _read(path: Path) -> Holder | None:
    """What the holder wrote of itself, if it has."""
    try:
        entry = json.loads(path.read_bytes())
        return Holder(entry["pid"], entry["host"], entry["since"], tuple(entry["command"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
