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

from ..models.settings.serialise import ConfigError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Process:
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

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all processes, in their order, on every one of them."""
        if self.world == 1:
            return items
        from accelerate.utils import gather_object

        return gather_object(items)

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            torch.distributed.barrier()


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The device of that name (default: the accelerator there is, else the CPU).

    Apple's mps is left out: it has no float64, in which the noise and the clocks are computed. Nothing is allocated:
    under a launcher each process would open the first accelerator just to look. Raises ConfigError with the devices
    there are.
    """
    there, best = {"cpu": 1}, torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if best is not None and best.type != "mps":
        there[best.type] = torch.accelerator.device_count()
    if name is None:
        return torch.device(list(there)[-1])
    try:
        asked = torch.device(name)
    except RuntimeError:  # no device has such a name
        asked = None
    if asked is not None and (asked.index or 0) < there.get(asked.type, 0):
        return asked
    names = [kind if count == 1 else f"{kind}:{i}" for kind, count in there.items() for i in range(count)]
    why = "it lacks float64, which the noise and the clocks need" if str(name).startswith("mps") else "it is not there"
    raise ConfigError(f"--device {name} cannot be used: {why}. This machine and this torch have {', '.join(names)}")


def find_process(device: str | None = None) -> Process:
    """The device asked for (default: the best there is, see `find_device`) and this process's rank, as `torchrun` or
    `accelerate launch` set them. Raises ConfigError for a device that is not there.
    """
    from accelerate import PartialState

    found = find_device(device)
    state = PartialState(cpu=found.type == "cpu")
    own: Any = state.device if device is None or state.num_processes > 1 else found
    return Process(torch.device(own), state.process_index, state.num_processes)


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
