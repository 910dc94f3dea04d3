"""A run directory has one writer: the second is refused by the name of the first, and a dead one is in nobody's way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import diffflow as df
from diffflow.models.settings.common import Dials
from diffflow.training import lock
from diffflow.training.lock import Lock, Locked, holder
from diffflow.training.run_folder import Folder

HOLD = """
import sys, pathlib
from diffflow.training.lock import Lock
with Lock(pathlib.Path(sys.argv[1])) as lock:
    lock.take()
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other() -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Another process that holds the lock of a folder until its input ends."""
    started = []

    def hold(folder: Path) -> subprocess.Popen:
        words = [sys.executable, "-c", HOLD, str(folder), "--resume", "auto"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_is_refused_by_name_of_the_first(
    tmp_path: Path, other: Callable[[Path], subprocess.Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.1)
    first = other(tmp_path)
    who = holder(tmp_path)
    assert who is not None
    assert who.pid == first.pid
    for words in (str(first.pid), who.host, who.since, "--resume auto"):
        assert words in str(who)
    with pytest.raises(Locked, match=f"process {first.pid} on .*--resume auto.*choose another"), Lock(tmp_path) as mine:
        mine.take()
    assert holder(tmp_path) == who  # who was refused has not removed it
    first.communicate("")
    assert holder(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_killed_process_leaves_no_lock(tmp_path: Path, other: Callable[[Path], subprocess.Popen]) -> None:
    first = other(tmp_path)
    first.kill()
    first.communicate()
    assert (tmp_path / lock.NAME).exists()
    assert holder(tmp_path) is None
    with Lock(tmp_path) as mine:
        mine.take()
        mine.take()  # once is enough
        assert holder(tmp_path) == lock.Holder(
            os.getpid(), lock.socket.gethostname(), holder(tmp_path).since, tuple(sys.argv)
        )
    assert not list(tmp_path.iterdir())


def test_of_many_at_once_there_is_always_one(tmp_path: Path) -> None:
    """Threads that take and give back in turns: a lock that was removed while somebody waited for it locks nothing."""
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(10):
            with Lock(tmp_path) as mine:
                mine.take()
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert most == 1
    assert not list(tmp_path.iterdir())


def test_two_calibrations_of_one_run_lose_no_plan(tmp_path: Path) -> None:
    run = Folder(tmp_path)

    def calibrate(first: int) -> None:
        for steps in range(first, first + 8):
            run.keep_plan("weights", Dials(steps), df.Plan.multistep([80.0, 1.0]))

    threads = [threading.Thread(target=calibrate, args=(first,)) for first in (1, 101, 201)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(run.plans("weights")) == 24
    assert [p.name for p in tmp_path.iterdir()] == ["plans.json"]


def test_looking_takes_no_lock_from_anybody(tmp_path: Path) -> None:
    """Whoever lists runs looks at their locks; a training that begins at that moment waits for it."""
    (tmp_path / lock.NAME).touch()
    handle = os.open(tmp_path / lock.NAME, os.O_RDONLY)
    assert lock._grab(handle, shared=True)
    assert holder(tmp_path) is None  # two may look
    threading.Timer(0.2, os.close, (handle,)).start()
    with Lock(tmp_path) as mine:
        mine.take()
