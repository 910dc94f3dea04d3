"""Files are whole or not there, links stay links, pipes are written to, and what cannot be written is refused first."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from diffflow import files
from diffflow.files import WriteError


def raising(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_names_the_users_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = files.write(tmp_path / "new" / "x.bin", b"first")
    monkeypatch.setattr(os, step, raising(errno.ENOSPC))
    with pytest.raises(WriteError, match="full") as error:
        files.write(target, b"second")
    assert error.value.errno == errno.ENOSPC
    assert str(target) in str(error.value)
    assert ".tmp" not in str(error.value)  # the file it was written to first is nobody's business
    assert target.read_bytes() == b"first"
    assert list(target.parent.iterdir()) == [target]


def test_text_and_json_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")  # a file name of another encoding
    assert os.fsdecode(files.write_text(tmp_path / "a", f"é{name}").read_bytes()) == f"é{name}"
    assert json.loads(files.write_json(tmp_path / "b", {"x": [1.5, name]}).read_text()) == {"x": [1.5, name]}


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path: Path) -> None:
    assert files.write(tmp_path / ("x" * 255), b"1").read_bytes() == b"1"
    with pytest.raises(WriteError, match=r"x{256} cannot be written"):
        files.check(tmp_path / ("x" * 256))


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/real")
    for content in (b"new", b"again"):  # a link to nothing, too
        files.check(tmp_path / "link")
        files.write(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "real").read_bytes() == content
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["link", "real", "there"]


def test_a_pipe_and_a_device_are_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    content, heard = os.urandom(1 << 18), []  # more than a pipe holds
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    files.check(tmp_path / "pipe")  # which must not wait for a reader
    reader.start()
    files.write(tmp_path / "pipe", content)
    reader.join(10)
    assert heard == [content]
    assert (tmp_path / "pipe").is_fifo()
    files.write(os.devnull, b"gone")
    assert Path(os.devnull).is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_device_is_named() -> None:
    with pytest.raises(WriteError, match="could not write /dev/full: No space left"):
        files.write("/dev/full", b"x")


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="a device of Unix")
@pytest.mark.parametrize("form", ["pipe", "file"])
def test_standard_output_keeps_its_order(tmp_path: Path, form: str) -> None:
    code = "from diffflow import files; print('before'); files.write('/dev/stdout', b'bytes\\n'); print('after')"
    with open(tmp_path / "out", "w+") as out:
        kind = subprocess.PIPE if form == "pipe" else out
        done = subprocess.run([sys.executable, "-c", code], stdout=kind, check=True, text=True)
        said = done.stdout if form == "pipe" else (tmp_path / "out").read_text()
    assert said.split() == ["before", "bytes", "after"]


def test_what_cannot_be_written_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    for name, words in {
        ".": "is a directory: name a file in it",
        "file/x.csv": "file is not a directory",
        "file/a/b/x.csv": "file is not a directory",
    }.items():
        with pytest.raises(WriteError) as error:
            files.check(tmp_path / name, "--out")
        assert f"--out {tmp_path / name}" in str(error.value)
        assert words in str(error.value)
    with pytest.raises(WriteError, match=r"--out .*run cannot be written to: .*is not a directory"):
        files.check_folder(tmp_path / "file" / "run", "--out")
    files.check(tmp_path / "new" / "x.csv")
    files.check(tmp_path / "file")
    files.check_folder(tmp_path / "new" / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]  # looking leaves nothing behind
    # a superuser may write anywhere, so the system's answer is put into its mouth
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(WriteError, match="Permission denied; choose a place"):
        files.check(tmp_path / "file")
    monkeypatch.undo()
    monkeypatch.setattr(os, "open", raising(errno.EROFS))
    for check in (files.check, files.check_folder):
        with pytest.raises(WriteError, match="Read-only file system; choose a place") as error:
            check(tmp_path / "x")
        assert ".tmp" not in str(error.value)


def test_unused_names_count_up(tmp_path: Path) -> None:
    for name in ("samples.png", "samples-2.png", "samples-3.png"):
        assert files.unused(tmp_path / "samples.png") == tmp_path / name
        (tmp_path / name).write_bytes(b"")
