"""A checkpoint is whole or it does not exist: flipped bytes, full disks and crashes in the middle of a save."""

import errno
import io
import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import diffflow as df
from diffflow.models.diffusion import ModelConfig, ScoreConfig
from diffflow.models.settings.common import DataConfig, FitConfig
from diffflow.models.settings.networks import MLPConfig
from diffflow.networks.backbones.mlp import MLP
from diffflow.training import checkpoint
from diffflow.training.checkpoint import CheckpointError
from diffflow.training.train import train

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


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=8), st.integers(1, 4))
def test_what_was_just_written_stays_whatever_else_is_there(tmp_path_factory, steps, keep):
    folder = tmp_path_factory.mktemp("run")
    for step in steps:
        newer = {p for p in checkpoint.listed(folder) if int(p.name) > step}
        path = store(folder, step, keep)
        left = checkpoint.listed(folder)
        assert path in left
        assert checkpoint.flaw(path) is None
        assert newer <= set(left)
        if len(steps) == 1:
            assert len(left) == 1


def test_a_whole_checkpoint_of_the_same_step_is_left_alone_and_a_corrupt_one_replaced(tmp_path):
    path = store(tmp_path, 5)
    before = {p: p.stat().st_mtime_ns for p in [path, *path.iterdir()]}
    assert store(tmp_path, 5) == path
    assert {p: p.stat().st_mtime_ns for p in [path, *path.iterdir()]} == before
    flip(path / "players.safetensors", 9)
    assert store(tmp_path, 5) == path
    assert checkpoint.flaw(path) is None


def test_what_is_newer_than_the_step_gone_on_from_is_set_aside(tmp_path):
    for _ in range(2):  # the second time something of that name has been set aside before
        for step in (1, 2, 3, 10**8):
            store(tmp_path, step)
        lines = checkpoint.set_aside(tmp_path, 2)
        assert [p.name for p in checkpoint.listed(tmp_path)] == ["00000001", "00000002"]
        assert len(lines) == 2
        assert "00000003" in lines[0]
        assert "100000000" in lines[1]
        assert checkpoint.flaw(tmp_path / "00000003.aside") is None
    assert not checkpoint.set_aside(tmp_path, 2)
    assert not checkpoint.set_aside(tmp_path / "nothing", 0)


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


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A folder with two checkpoints, and the manifest of the newer one."""
    folder = tmp_path_factory.mktemp("pair")
    old, new = store(folder, 1), store(folder, 2)
    return old, new, (new / "manifest.json").read_bytes()


def verdict(pair, manifest: bytes) -> None:
    """With any manifest a checkpoint is either as whole as it was, or skipped with a reason."""
    old, new, whole = pair
    (new / "manifest.json").write_bytes(manifest)
    found, skipped = checkpoint.latest(new.parent)
    if found == new:
        assert json.loads(manifest) == json.loads(whole)
        assert not skipped
    else:
        assert found == old
        assert len(skipped) == 1
        assert str(new) in skipped[0]
        with pytest.raises(CheckpointError, match="cannot be used"):
            checkpoint.load(new)


def test_any_flipped_bit_of_the_manifest_is_noticed(pair):
    for at in range(len(pair[2])):
        broken = bytearray(pair[2])
        broken[at] ^= 1 << (at % 8)
        verdict(pair, bytes(broken))


@settings(deadline=None, max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["state.json", "players.safetensors", "objective.safetensors", "bytes", "sha256", "\0"]
                ),
                inner,
                max_size=6,
            )
        ),
    )
)
def test_any_other_manifest_is_refused(pair, content):
    verdict(pair, json.dumps(content).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{}", b"3", b"[" * 10**5, b"\xff"])
def test_a_manifest_that_lists_nothing_vouches_for_nothing(pair, text):
    verdict(pair, text)


def test_a_file_that_the_manifest_leaves_out_is_noticed(pair):
    _, new, whole = pair
    for name in ("state.json", "players.safetensors"):
        verdict(pair, json.dumps({k: v for k, v in json.loads(whole).items() if k != name}).encode())
        assert name in str(checkpoint.flaw(new))


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
    (tmp_path / ".00000001.tmp").mkdir(exist_ok=True)
    new = store(tmp_path, 3)
    assert checkpoint.latest(tmp_path)[0] == new
    assert not list(tmp_path.glob(".*"))  # what the dead left is gone, whatever step they were at


def test_nothing_in_a_checkpoint_is_code(tmp_path):
    path = store(tmp_path, 1)
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}
    json.loads((path / "manifest.json").read_text())


def test_tied_weights_are_saved_under_both_names(tmp_path):
    """Before: safetensors refused tensors that share memory, at the first checkpoint."""
    table = torch.nn.Embedding(5, 3)
    net = torch.nn.Sequential(table, torch.nn.Linear(3, 5, bias=False))
    net[1].weight = table.weight
    part = torch.arange(6.0)
    tensors = {**net.state_dict(), "slice": part[:3], "rest": part[3:], "all": part, "empty": torch.zeros(0)}
    saved = checkpoint.load(checkpoint.save(tmp_path, 1, {"players": tensors}, {})).tensors["players"]
    assert saved.keys() == tensors.keys()
    assert all(torch.equal(saved[name], v) for name, v in tensors.items())
    assert torch.equal(saved["0.weight"], saved["1.weight"])


def test_a_net_with_tied_weights_is_trained_resumed_and_loaded_averaged(tmp_path, monkeypatch):
    """Before: the first checkpoint failed; and the second name would have brought the weights that are not averaged."""
    plain = MLP.__init__

    def tied(self, *args, **settings):
        plain(self, *args, **settings)
        self.blocks[1] = self.blocks[0]

    monkeypatch.setattr(MLP, "__init__", tied)
    net, quiet = MLPConfig(width=16, depth=2), Console(file=io.StringIO())
    for steps in (6, 12):
        fit = FitConfig(batch=16, steps=steps, tensorboard=False)
        config = ScoreConfig(DataConfig("moons"), ModelConfig(net), fit=fit)
        path = train(config, tmp_path / "run", device="cpu", console=quiet, resume=None if steps == 6 else "auto")
    saved = checkpoint.load(checkpoint.listed(path / "checkpoints")[-1]).tensors
    state = df.load(path, device="cpu").denoiser.state_dict()
    name = next(k for k in state if k.startswith("net.blocks.0.") and k.endswith("weight") and state[k].ndim == 2)
    averaged = saved["ema"][f"denoiser/{config.denoiser.ema[0]}/{name}"]
    assert torch.equal(state[name], averaged)
    assert torch.equal(state[name.replace("blocks.0", "blocks.1")], averaged)
    assert not torch.equal(averaged, saved["players"][f"denoiser/{name}"])
