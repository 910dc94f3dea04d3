"""Two gloo processes hold equal weights, and those one process would have had with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import diffflow as df
from diffflow.training.run_folder import Folder

SCRIPT = str(Path(__file__).with_name("two.py"))
LAUNCH = {
    "one": [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "1",
        "--mixed_precision",
        "no",
        SCRIPT,
    ],
    "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = {}
    for name, command in LAUNCH.items():
        out[name] = tmp_path_factory.mktemp("launch") / name
        done = subprocess.run(
            [*command, str(out[name])],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
    return out


def results(folder: Path, rank: int):
    return safetensors.torch.load_file(folder / f"{rank}.safetensors"), json.loads(
        (folder / f"{rank}.json").read_text()
    )


def test_two_processes_are_one(runs):
    one, alone = results(runs["one"], 0)
    first, log = results(runs["two"], 0)
    second, other = results(runs["two"], 1)
    assert (alone["world"], log["world"], other["world"]) == (1, 2, 2)
    assert log["reductions"] == 12  # one a turn, whatever the number of micro-batches
    assert alone["reductions"] == 0
    assert log["losses"] == other["losses"]
    assert log["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    for k in one:
        assert torch.equal(first[k], second[k]), k
        # gradients differ by the rounding of sums in another order, about 1e-7 of their size; Adam turns that into
        # 1e-7 of a step of 1e-3,
        # except where a gradient is itself rounding, where a step may differ by part of its size
        torch.testing.assert_close(first[k], one[k], rtol=1e-4, atol=2e-5)


def test_the_broken_sample_is_named_whichever_process_showed_it(runs):
    (_, alone), (_, first), (_, second) = results(runs["one"], 0), results(runs["two"], 0), results(runs["two"], 1)
    assert alone["broken"] == first["broken"] == second["broken"]
    assert len(alone["broken"]["rows"]) == 32
    assert alone["broken"]["rows_with_nonfinite_loss"] == alone["broken"]["rows"][-1:]


def test_a_run_directory_has_one_writer(runs):
    one, two = (df.load(runs[k] / "run", device="cpu") for k in ("one", "two"))
    assert [line["step"] for line in two.metrics()] == [4, 8, 12]
    assert two.versions["processes"] == 2
    for a, b in zip(one.denoiser.parameters(), two.denoiser.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_particles_of_two_processes_are_those_of_one(runs):
    """Each process moves its own particles, in micro-batches, and all hold the whole pool."""
    one, two = (Folder(runs[k] / "flow").newest().tensors for k in ("one", "two"))
    for key in ("pool/k", "pool/cond", "pool/dials"):
        assert torch.equal(one["objective"][key], two["objective"][key])
    assert (one["objective"]["pool/k"] >= 0).all()
    for group in ("objective", "players"):
        for k, v in one[group].items():
            torch.testing.assert_close(two[group][k], v, rtol=1e-3, atol=1e-4)


def test_moments_are_those_of_the_samples_of_all_processes(runs):
    one = safetensors.torch.load_file(runs["one"] / "moments0.safetensors")
    two = [safetensors.torch.load_file(runs["two"] / f"moments{rank}.safetensors") for rank in (0, 1)]
    for k in one.keys() - {"velocity"}:
        assert torch.equal(two[0][k], two[1][k]), k
        torch.testing.assert_close(two[0][k], one[k])
    torch.testing.assert_close(torch.cat([kept["velocity"] for kept in two]), one["velocity"])
    assert one["velocity"].abs().max() > 0
