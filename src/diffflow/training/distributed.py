"""Processes, devices and signals: which of several processes this is, where it computes, what interrupts it.

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
    """The device of that name.

    Apple's mps is left out: it has no float64, in which the noise and the clocks are computed. Nothing is allocated:
    under a launcher each process would open the first accelerator just to look.

    Args:
        name: such as "cpu", "cuda" or "cuda:1"; default: the accelerator there is, else the CPU.

    Raises:
        ConfigError: a device that is not there; the message has those that are.
    """
    counts = {"cpu": 1}
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if best is not None and best.type != "mps":
        counts[best.type] = torch.accelerator.device_count()
    if name is None:
        return torch.device(list(counts)[-1])
    try:
        device = torch.device(name)
    except RuntimeError:  # no device has such a name
        device = None
    if device is not None and (device.index or 0) < counts.get(device.type, 0):
        return device
    names = [kind if count == 1 else f"{kind}:{i}" for kind, count in counts.items() for i in range(count)]
    why = "it lacks float64, which the noise and the clocks need" if str(name).startswith("mps") else "it is not there"
    raise ConfigError(f"--device {name} cannot be used: {why}. This machine and this torch have {', '.join(names)}")


def find_process(device: str | None = None) -> Process:
    """The device and this process's rank, as `torchrun` or `accelerate launch` set them.

    Args:
        device: name of a device; default: the best there is (`find_device`).

    Raises:
        ConfigError: a device that is not there.
    """
    from accelerate import PartialState

    wanted = find_device(device)
    state = PartialState(cpu=wanted.type == "cpu")
    assigned: Any = state.device if device is None or state.num_processes > 1 else wanted
    return Process(torch.device(assigned), state.process_index, state.num_processes)


@contextmanager
def collected_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of obeying them, so that a step is never cut in half.

    A second one is obeyed at once. Gives the list that received numbers are appended to.
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
