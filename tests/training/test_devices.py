"""Which device a name means: the best there is, one that is there, or an error that lists what there is."""

import mmap
import platform
import subprocess
import sys

import pytest
import torch

from diffflow.models.settings.serialise import ConfigError
from diffflow.training.distributed import Process, find_device, find_process


@pytest.fixture
def machine(monkeypatch):
    """Pretend that this machine has `count` accelerators of a kind."""

    def pretend(kind: str, count: int) -> None:
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *a, **k: torch.device(kind))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)

    return pretend


def test_the_accelerator_is_taken_when_there_is_one(machine):
    machine("cuda", 2)
    assert find_device() == torch.device("cuda")
    for name in ("cuda", "cuda:0", "cuda:1", "cpu", torch.device("cuda", 1)):
        assert find_device(name) == torch.device(name)
    with pytest.raises(ConfigError, match=r"--device cuda:2 cannot be used.*cpu, cuda:0, cuda:1$"):
        find_device("cuda:2")


def test_a_torch_made_for_an_accelerator_that_is_not_there_computes_on_the_cpu(machine):
    machine("cuda", 0)
    assert find_device() == torch.device("cpu")
    for name in ("cuda", "cuda:0", "gpu", "xpu"):
        with pytest.raises(ConfigError, match=rf"--device {name} cannot be used: it is not there.* have cpu$"):
            find_device(name)


def test_mps_is_neither_taken_nor_accepted(machine):
    machine("mps", 1)
    assert find_device() == torch.device("cpu")
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"--device mps cannot be used: it lacks float64.* have cpu$"):
        find_device("mps")


def test_alone_a_place_is_the_device_asked_for():
    assert find_process("cpu") == Process(torch.device("cpu"))
    assert Process(torch.device("cpu")).gather([1, 2]) == [1, 2]
    with pytest.raises(ConfigError, match="--device gpu"):
        find_process("gpu")


STEPS = """
import resource, torch
from diffflow.training.memory import hold_memory

torch.set_num_threads(1)
hold_memory()
net = torch.nn.Sequential(*(torch.nn.SiLU() for _ in range(12)))
x = torch.randn(8192, 256, requires_grad=True)


def steps(n):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n):
        net(x).square().mean().backward()
        x.grad = None
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


steps(10)
print(steps(20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets what glibc has")
def test_a_step_gets_the_memory_of_the_step_before_it_and_hardly_a_fresh_page():
    found = subprocess.run([sys.executable, "-c", STEPS], stdout=subprocess.PIPE, text=True, check=True)
    one_step = 12 * (8192 * 256 * 4) // mmap.PAGESIZE  # what the layers leave for the way back
    assert int(found.stdout) < one_step / 2  # of twenty steps; left to itself glibc takes 40,000 pages and more
