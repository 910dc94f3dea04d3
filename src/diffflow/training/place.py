"""Where does this process compute, what may interrupt it, and what when its memory is too small?

The launcher (`torchrun`, `accelerate launch`, or nobody) decides the processes and devices; accelerate reads its
environment.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from .config import FitConfig


class OutOfMemory(RuntimeError):
    """The device's memory is too small for the settings; the message says what to change."""


@dataclass(frozen=True)
class Place:
    """Where this process computes, and which of `world` it is."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over processes, in place, with one all-reduce."""
        if self.world == 1:
            return
        from accelerate.utils import reduce

        flat: Any = torch.cat([t.reshape(-1).float() for t in tensors])
        mean: Any = reduce(flat, "mean")
        for t, part in zip(tensors, mean.split([t.numel() for t in tensors]), strict=True):
            t.copy_(part.view_as(t))

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            torch.distributed.barrier()


def find_place(device: str | None = None) -> Place:
    """The device asked for (default: the best there is) and this process's rank, as `torchrun` or `accelerate launch`
    set them.
    """
    from accelerate import PartialState

    asked = None if device is None else torch.device(device)
    state = PartialState(cpu=asked.type == "cpu" if asked else not torch.accelerator.is_available())
    own: Any = state.device if asked is None or state.num_processes > 1 else asked
    return Place(torch.device(own), state.process_index, state.num_processes)


@contextmanager
def signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are collected instead of obeyed, so that a step is never cut in half; a second one is obeyed
    at once.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def collect(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, old[number])

    old: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        old[number] = signal.signal(number, collect)
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def out_of_memory(e: BaseException) -> bool:
    return (
        isinstance(e, torch.OutOfMemoryError | MemoryError)
        or "DefaultCPUAllocator" in str(e)
        or "out of memory" in str(e).lower()
    )


def advice(micro: int, config: FitConfig, place: Place) -> str:
    """What to change when memory runs out."""
    more = next(
        (k for k in range(config.accumulate + 1, config.batch + 1) if config.batch % (k * place.world) == 0), None
    )
    split = (
        [f"fit.accumulate = {more} (same result, {config.batch // (more * place.world)} samples at a time)"]
        if more
        else []
    )
    bf16 = ["fit.precision = bf16"] if config.precision == "fp32" else []
    ways = [*split, f"fit.batch = {max(1, config.batch // 2)}", *bf16, "narrower model.net.widths"]
    return (
        f"{place.device} ran out of memory with {micro} samples at a time. Any of these needs less: {'; '.join(ways)}"
    )
