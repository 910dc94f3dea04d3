"""Distill: a run's sampler becomes a generator of so many evaluations, which other commands take like any run."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import diffflow as df
from diffflow.cli import main
from diffflow.training.config import DistillConfig

SMALL = """\
generator: {warmup: 0}
fit: {batch: 16, log_every: 2, tensorboard: false}
move: {updates: 1}
"""


@pytest.fixture
def small(here: Path) -> str:
    (here / "small.yaml").write_text(SMALL)
    return "small.yaml"


@pytest.mark.parametrize("by", ["score", "ratio", "both", "endpoints"])
def test_a_sampler_becomes_a_generator(
    by: str, runs: Path, here: Path, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    assert main(f"distill toy --steps 2 --by {by} --updates 3 --config {small}".split()) == 0
    assert "diffflow frontier toy --beside toy-2-" in capsys.readouterr().err.replace("\n", " ")
    run = df.load(f"toy-2-{by}")
    config = run.config
    assert isinstance(config, DistillConfig)
    assert run.step == 3
    assert run.players.keys() == {"generator"} | {
        "score": {"fake"}, "ratio": {"discriminator"}, "both": {"fake", "discriminator"}, "endpoints": set()
    }[by]  # fmt: skip
    assert run.sample(5).nfe == 2
    assert main(f"sample toy-2-{by} -n 10 --out some.csv".split()) == 0
    page = (here / f"toy-2-{by}" / "report.html").read_text()
    assert "fixed number of steps" in page
    words = {"score": "difference of two denoisers", "ratio": "discriminator of samples", "endpoints": "fine solutions"}
    assert [k for k, w in words.items() if w in page] == (["score", "ratio"] if by == "both" else [by])


def test_endpoints_learn_the_fine_solution(runs: Path, here: Path, small: str) -> None:
    """Plain distillation: the generator's samples move toward the fine solutions of the same noise."""
    shutil.copytree(runs / "toy", here / "toy")
    missed = []
    for updates in (1, 150):
        out = f"ends-{updates}"
        assert main(f"distill toy --by endpoints --updates {updates} --config {small} --out {out}".split()) == 0
        run = df.load(out, raw=True)
        config = run.config
        assert isinstance(config, DistillConfig)
        fine = config.few(run.data, config.exact(run.data))
        fine.net.denoiser.load_state_dict(df.load("toy").denoiser.state_dict())
        with torch.no_grad():
            z = df.Noise(8).normal(500, (2,))
            missed.append((fine(z) - run.players["generator"](z)).square().mean().item())
    assert missed[1] < 0.7 * missed[0]


def test_it_goes_on_and_is_compared(runs: Path, here: Path, small: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    ask = f"distill toy --by both --lead 1 --config {small} --out few --updates"
    assert main(f"{ask} 2".split()) == 0
    assert main(f"{ask} 4 --resume auto".split()) == 0
    assert df.load("few").step == 4
    assert main("frontier toy --steps 1 --churn 0 --plans no -n 100 --beside few".split()) == 0
    record = json.loads((here / "toy" / "frontier.json").read_text())
    assert [p["name"] for p in record["points"]] == ["", "few"]
    assert all(p["name"] == "" for p in record["presets"].values())
    assert "few" in capsys.readouterr().out
    assert main(f"distill toy --print-config --config {small}".split()) == 0
    assert "type: DistillConfig" in capsys.readouterr().out


def test_it_starts_as_the_calibrated_plan(runs: Path, here: Path, small: str) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    assert main("calibrate toy --steps 2 --starts 64 --rounds 0".split()) == 0
    toy = df.load("toy")
    plan = toy.plan(df.run.Dials(2, 0.0, 0.0, 1.0))
    assert plan is not None
    assert main(f"distill toy --steps 2 --by ratio --updates 1 --config {small} --out two".split()) == 0
    config = df.load("two").config
    assert isinstance(config, DistillConfig)
    assert config.sampler(toy.data).levels == plan.levels
    generator = config.few(toy.data, config.sampler(toy.data))
    generator.net.denoiser.load_state_dict(toy.denoiser.state_dict())
    z, meta = df.Noise(0).normal(20, (2,)), toy.data
    with torch.no_grad():  # the same particles, before it has learned anything
        mine = generator(z)
        x0 = meta["mean"] + math.hypot(80.0, toy.denoiser.sigma_data) * z
        torch.testing.assert_close(df.sample(toy.sde(churn=0.0), x0, plan=plan).last, mine, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_distilled_is_named(runs: Path, refused: Callable[..., str], here: Path, small: str) -> None:
    toy = str(runs / "toy")
    assert "at least 1" in refused("distill", toy, "--steps", "0")
    assert "leave --lead out" in refused("distill", toy, "--by", "endpoints", "--lead", "3")
    assert "no such run" in refused("distill", "nowhere").lower() or "nowhere" in refused("distill", "nowhere")
    assert "fine = 20 must be more" in refused("distill", toy, "--steps", "20")
