"""Checkpoints: what a training needs to go on after a crash at any instant. Each is whole and verified, or not there.

    <run>/checkpoints/00001200/{players,ema,optimizer,objective}.safetensors, state.json, manifest.json

Written into a hidden temporary folder, each file synced, the manifest (sha256 and size of every file) last, then
renamed into place: a rename is atomic, so a reader sees all or nothing. Only then are old ones pruned. Tensors are
safetensors and the rest JSON: nothing in a checkpoint can execute.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..files import reason
from ..files import write_synced as write

Tensors = dict[str, Tensor]


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none could be read."""


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: named groups of tensors (all on the CPU) and the JSON state."""

    path: Path
    tensors: dict[str, Tensors]
    state: dict[str, Any]


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as a safetensors file; names that share memory (tied weights) get a copy each."""
    content: Tensors = {}
    copied: set[int] = set()
    for name, v in tensors.items():
        v = v.detach().cpu().contiguous()
        at = v.untyped_storage().data_ptr()
        content[name] = v.clone() if at in copied else v
        copied.add(at)
    return safetensors.torch.save(content)


def save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write a checkpoint and prune older ones.

    The state is a function of the step, so a whole checkpoint of that step that is there already stays as it is.

    Args:
        folder: where the checkpoints of a run are.
        step: training step; the checkpoint is called after it.
        tensors: named groups of named tensors, a file each.
        state: what else is to be remembered, as JSON.
        keep: how many checkpoints up to this step stay, the newest ones.

    Returns:
        The path of the checkpoint.

    Raises:
        CheckpointError: the disk refuses; what was there before is untouched and nothing half-written stays.
    """
    final = folder / f"{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    if final.is_dir() and flaw(final) is None:
        return final
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".*.tmp"):  # a run has one writer, so these are of dead ones
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir()
        files = {f"{name}.safetensors": to_bytes(group) for name, group in tensors.items()}
        files["state.json"] = json.dumps(state, indent=1).encode()
        for name, content in files.items():
            write(temporary / name, content)
        manifest = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        }
        write(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
        if final.exists():  # it does not verify, see above
            shutil.rmtree(final)
        os.replace(temporary, final)
        _sync(folder)
    except OSError as e:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_failure(final, e, listed(folder))) from e
    for old in [p for p in listed(folder) if int(p.name) <= step][:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def set_aside(folder: Path, step: int) -> list[str]:
    """Rename what is newer than `step` under `folder`; a line for each says so.

    A training that goes on from `step` writes these steps again, and must neither count the old ones among those it
    keeps nor take them up later.
    """
    lines = []
    for path in listed(folder):
        if int(path.name) > step:
            aside = path.with_name(f"{path.name}.aside")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            lines.append(f"set aside {path} as {aside.name}: the run goes on from step {step}. Delete it at will")
    return lines


def _failure(path: Path, e: OSError, kept: list[Path]) -> str:
    last = f" The last whole checkpoint, {kept[-1]}, is intact: continue from it with --resume auto." if kept else ""
    return f"could not write {path}: {reason(path, e)}.{last}"


def _sync(folder: Path) -> None:
    """Make a rename durable. Systems that cannot open folders (Windows) do without."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def listed(folder: Path) -> list[Path]:
    """Checkpoints under `folder`, oldest first, unverified."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((p for p in paths if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))


def flaw(path: Path) -> str | None:
    """What is wrong with the checkpoint at `path`, or None when every file is the one its manifest describes."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
    except FileNotFoundError:
        return "it has no manifest.json: the save was not completed"
    except (OSError, ValueError, RecursionError) as e:
        return f"its manifest.json cannot be read ({e})"
    if not isinstance(manifest, dict):
        return "its manifest.json is corrupt: it is not a table of files"
    if unlisted := {"state.json", *(p.name for p in path.glob("*.safetensors"))} - manifest.keys():
        return f"its manifest.json is corrupt: it does not list {', '.join(sorted(unlisted))}"
    for name, entry in manifest.items():
        if not isinstance(entry, dict) or entry.keys() != {"sha256", "bytes"}:
            return f"its manifest.json is corrupt: it does not give the size and sha256 of {name}"
        try:
            content = (path / name).read_bytes()
        except (OSError, ValueError) as e:  # ValueError: no file can have such a name
            return f"{name} cannot be read ({e})"
        if len(content) != entry["bytes"]:
            return f"{name} has {len(content)} bytes instead of {entry['bytes']}"
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            return f"{name} is corrupt: its sha256 is not the one in manifest.json"
    return None


def load(path: Path) -> Checkpoint:
    """Verify and read one checkpoint.

    Raises:
        CheckpointError: it is missing or not whole.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a checkpoint folder")
    if problem := flaw(path):
        others = ", ".join(p.name for p in listed(path.parent) if p != path) or "none"
        raise CheckpointError(f"{path} cannot be used: {problem}. Others there: {others}; or use --resume auto")
    try:
        tensors = {file.stem: safetensors.torch.load(file.read_bytes()) for file in sorted(path.glob("*.safetensors"))}
        return Checkpoint(path, tensors, json.loads((path / "state.json").read_bytes()))
    except (OSError, ValueError, SafetensorError) as e:
        raise CheckpointError(f"{path} cannot be read: {e}") from e


def latest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint under `folder` that verifies.

    Returns:
        Its path (None: there is no checkpoint), and a line for each newer one that was skipped.

    Raises:
        CheckpointError: there are checkpoints and none of them verifies: starting afresh by accident would be worse.
    """
    skipped = []
    for path in reversed(listed(folder)):
        problem = flaw(path)
        if problem is None:
            return path, skipped
        skipped.append(f"skipped {path}: {problem}")
    if skipped:
        raise CheckpointError(
            "no usable checkpoint:\n  " + "\n  ".join(skipped) + "\nStart again in another directory, or delete these"
        )
    return None, []
