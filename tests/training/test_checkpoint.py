"""A checkpoint is whole or it does not exist: flipped bytes, full disks and crashes in the middle of a save."""

import errno
import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffflow.training import checkpoint
from diffflow.training.checkpoint import CheckpointError

TENSORS = {"players": {"net/w": torch.arange(6.0).reshape(2, 3), "net/n": torch.tensor(3)}, "objective": {}}


def store(folder, step: int, keep: int = 10):
    return checkpoint.save(folder, step, TENSORS, {"step": step, "seconds": 0.1}, keep)


def flip(path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 0x40
    path.write_bytes(content)


def test_what_is_saved_is_loaded_to_the_bit(tmp_path):
    saved = checkpoint.load(store(tmp_path, 7))
    assert saved.state == {"step": 7, "seconds": 0.1}
    assert saved.tensors.keys() == TENSORS.keys()
    for name, group in TENSORS.items():
        assert saved.tensors[name].keys() == group.keys()
        for k, v in group.items():
            assert torch.equal(saved.tensors[name][k], v)
            assert saved.tensors[name][k].dtype == v.dtype


def test_old_ones_are_pruned_and_the_same_step_can_be_saved_again(tmp_path):
    for step in (1, 2, 3, 30, 30):
        store(tmp_path, step, keep=2)
    assert [p.name for p in checkpoint.listed(tmp_path)] == ["00000003", "00000030"]
    assert not list(tmp_path.glob(".*"))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["players.safetensors", "objective.safetensors", "state.json", "manifest.json"]),
    st.integers(0, 10**6),
)
def test_a_flipped_byte_anywhere_is_noticed_and_the_older_one_taken(tmp_path_factory, name, at):
    folder = tmp_path_factory.mktemp("run")
    old, new = store(folder, 1), store(folder, 2)
    flip(new / name, at)
    found, skipped = checkpoint.latest(folder)
    assert found == old
    assert len(skipped) == 1
    assert str(new) in skipped[0]
    with pytest.raises(CheckpointError, match=r"cannot be used.*00000001"):
        checkpoint.load(new)
    flip(old / name, at)
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        checkpoint.latest(folder)


def test_missing_and_shortened_files_are_noticed(tmp_path):
    path = store(tmp_path, 1)
    content = (path / "players.safetensors").read_bytes()
    (path / "players.safetensors").write_bytes(content[:-1])
    assert "bytes instead of" in str(checkpoint.flaw(path))
    (path / "players.safetensors").unlink()
    assert "cannot be read" in str(checkpoint.flaw(path))
    (path / "manifest.json").unlink()
    assert "no manifest.json" in str(checkpoint.flaw(path))
    with pytest.raises(CheckpointError, match="is not a checkpoint folder"):
        checkpoint.load(tmp_path / "nothing")


def test_without_any_checkpoint_there_is_none_to_take(tmp_path):
    assert checkpoint.latest(tmp_path / "nothing") == (None, [])


@pytest.mark.parametrize("file", [0, 1, 2, 3])
def test_a_full_disk_leaves_the_last_checkpoint_and_no_rubbish(tmp_path, monkeypatch, file):
    old, count, sync = store(tmp_path, 1), 0, os.fsync

    def full(handle):
        nonlocal count
        count += 1
        if count > file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"disk .* is full") as error:
        store(tmp_path, 2)
    assert str(old) in str(error.value)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001"]
    assert checkpoint.latest(tmp_path) == (old, [])
    store(tmp_path, 2)


def test_a_crash_at_any_write_leaves_a_usable_folder(tmp_path, monkeypatch):
    """SIGKILL cannot clean up: an exception that nobody catches stands in for it."""

    class Killed(BaseException):
        pass

    old, write = store(tmp_path, 1), checkpoint.write
    for last in range(5):
        count = 0

        def dying(path, content, last=last):
            nonlocal count
            count += 1
            write(path, content[: len(content) // 2] if count > last else content)
            if count > last:
                raise Killed

        monkeypatch.setattr(checkpoint, "write", dying)
        try:
            store(tmp_path, 2)
        except Killed:
            assert checkpoint.latest(tmp_path) == (old, [])
        else:
            assert last == 4  # three files and the manifest
    monkeypatch.setattr(checkpoint, "write", write)
    new = store(tmp_path, 3)
    assert checkpoint.latest(tmp_path)[0] == new


def test_single_files_are_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    checkpoint.replace_file(path, b"old")
    monkeypatch.setattr(
        os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
    )
    with pytest.raises(CheckpointError, match="full"):
        checkpoint.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_in_a_checkpoint_is_code(tmp_path):
    path = store(tmp_path, 1)
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}
    json.loads((path / "manifest.json").read_text())
