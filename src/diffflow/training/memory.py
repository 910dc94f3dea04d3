"""Memory of a process: how much it may have, what holds it between steps, and what to change where it is too small."""

from __future__ import annotations

import ctypes
import math
import os
import re
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..models.settings.common import FitConfig
from .distributed import Process

_TRIM_THRESHOLD = -1  # these two are of glibc's malloc.h
_MMAP_THRESHOLD = -3
_AT_ONCE = 1 << 22  # numbers of examples that are computed at a time, of which networks make fifty times as many


class OutOfMemory(RuntimeError):
    """The device's memory is too small for the settings; the message says what to change."""


def hold_memory() -> None:
    """Let this process keep freed memory for its next step instead of giving it back to the system.

    The system takes it page by page and hands it out again page by page, zeroed: some percent of the time of a float32
    step. Sets glibc's two thresholds (mallopt(3)) over those of the environment; elsewhere nothing happens.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if tune is not None:
        tune(_TRIM_THRESHOLD, -1)  # never
        tune(_MMAP_THRESHOLD, 32 << 20)  # the most that every glibc takes; to hold larger blocks, too, costs memory


def at_once(shape: Sequence[int], most: int) -> int:
    """How many examples of a shape are computed at a time without gradients: so many, and fewer of large pictures."""
    return max(1, min(most, _AT_ONCE // math.prod(shape)))


def out_of_memory(e: BaseException) -> bool:
    """Whether an error says that memory ran out; on the CPU it has no type of its own."""
    return (
        isinstance(e, torch.OutOfMemoryError | MemoryError)
        or "DefaultCPUAllocator" in str(e)
        or "out of memory" in str(e).lower()
    )


def advice(micro: int, config: FitConfig, process: Process, whole_batch: bool) -> str:
    """What to change when memory runs out.

    Args:
        micro: samples that are computed at a time.
        config: settings of the training.
        process: this process and its device.
        whole_batch: the batch may not be cut into micro-batches.
    """
    more = next(
        (k for k in range(config.accumulate + 1, config.batch + 1) if config.batch % (k * process.world) == 0), None
    )
    split = (
        [f"--fit.accumulate {more} (same result, {config.batch // (more * process.world)} samples at a time)"]
        if more and not whole_batch
        else []
    )
    bf16 = ["--fit.precision bf16"] if config.precision == "fp32" else []
    ways = [*split, f"--fit.batch {max(1, config.batch // 2)}", *bf16, "a narrower net"]
    return (
        f"{process.device} ran out of memory with {micro} samples at a time. Any of these needs less: {'; '.join(ways)}"
    )


# -- how much there is -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Limit:
    """The memory that a process may have in all, what it has already included.

    Args:
        bytes: how much.
        what: what sets the limit, as messages say it after the number.
    """

    bytes: float
    what: str


def limit(device: torch.device, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Limit | None:
    """The memory that this process may have: the smallest of what the system, the container and the shell leave it.

    Args:
        device: where it computes; memory of an accelerator is its own.
        proc: where Linux says what is going on.
        cgroup: where it says what a container may have.

    Returns:
        The limit; None where nothing says one.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        return Limit(free, f"are free on {device}")
    here, found = resident(proc), []
    if (available := _entry(proc / "meminfo", "MemAvailable")) is not None:
        found.append(Limit(here + available, "are available in memory"))
    found += [Limit(here + left, "are left by the limit of the container") for left in _left_by_container(proc, cgroup)]
    for key, of, words in (("RLIMIT_AS", "VmSize", "ulimit -v"), ("RLIMIT_DATA", "VmData", "ulimit -d")):
        most = resource.getrlimit(getattr(resource, key))[0]
        mapped = _entry(proc / "self/status", of)
        if most != resource.RLIM_INFINITY and mapped is not None:
            found.append(Limit(here + max(0, most - mapped), f"are left by the limit of the shell ({words})"))
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # no Linux
        found.append(Limit(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "are in this machine"))
    return min(found, key=lambda one: one.bytes, default=None)


def resident(proc: Path = Path("/proc")) -> int:
    """Bytes of this process that are in memory; 0 where nothing says it."""
    return _entry(proc / "self/status", "VmRSS") or 0


def _entry(file: Path, key: str) -> int | None:
    """Bytes of a line "key: N kB"; None where there is none."""
    found = re.search(rf"^{key}:\s+(\d+) kB", _text(file), re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _left_by_container(proc: Path, cgroup: Path) -> Iterator[int]:
    """Bytes that each group of processes around this one leaves it (cgroups of version 2 and 1)."""
    for line in _text(proc / "self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        root, most, used, cache = (
            (cgroup, "memory.max", "memory.current", "inactive_file")
            if not kinds
            else (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        own = root / path.lstrip("/")
        for group in [own, *(p for p in own.parents if p.is_relative_to(root))]:
            bound = _text(group / most).strip()
            if not bound.isdigit() or int(bound) >= 1 << 60:  # "max", or what version 1 has for none
                continue
            reclaimed = re.search(rf"^{cache} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
            in_use = int(_text(group / used).strip() or 0) - (0 if reclaimed is None else int(reclaimed[1]))
            yield max(0, int(bound) - max(0, in_use))


def gibibytes(count: float) -> str:
    """A number of bytes, for people."""
    return f"{count / 2**30:.2g} GiB" if count < 9.95 * 2**30 else f"{count / 2**30:.0f} GiB"
