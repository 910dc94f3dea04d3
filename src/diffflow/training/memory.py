"""Memory of a training: what holds it between steps, and what to change where it is too small."""

from __future__ import annotations

import ctypes
import sys

import torch

from ..models.settings.common import FitConfig
from .distributed import Process

_TRIM_THRESHOLD = -1  # these two are of glibc's malloc.h
_MMAP_THRESHOLD = -3


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
