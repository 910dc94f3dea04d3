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
from diffflow.models.distill import DistillConfig
from diffflow.models.settings.common import Dials

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
        fine = config.few_steps(run.data, config.teacher(run.data))
        fine.net.denoiser.load_state_dict(df.load("toy").denoiser.state_dict())
        with torch.no_grad():
            z = df.Noise(8).normal(500, (2,))
            missed.append((fine(z) - run.players["generator"](z)).square().mean().item())
    assert missed[1] < 0.7 * missed[0]


def test_it_goes_on_and_is_compared(runs: Path, here: Path, small: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    ask = f"distill toy --by both --teacher-first-steps 1 --config {small} --out few --updates"
    assert main(f"{ask} 2".split()) == 0
    # what is calibrated in between changes nothing; nor does the origin's absence
    assert main("calibrate toy --steps 2 --starts 64 --rounds 0".split()) == 0
    shutil.move("toy", "elsewhere")
    assert main("distill toy --resume auto --out few --updates 3".split()) == 0
    assert df.load("few").step == 3
    assert main("train --resume auto --out few --steps 4".split()) == 0  # as its report says
    assert df.load("few").step == 4
    shutil.move("elsewhere", "toy")
    shutil.copytree("few", "killed")  # before it named itself
    for part in Path("killed").iterdir():
        if part.name != "checkpoints":
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert main(f"{ask.replace('--out few', '--out killed')} 5 --resume auto".split()) == 0
    assert df.load("killed").step == 5
    assert main("distill toy --resume auto --out few --by score".split()) == 2
    assert main("distill toy --resume few/checkpoints/9 --out fresh".split()) == 2
    assert main("distill toy --resume auto".split()) == 2
    assert not Path("fresh").exists()
    capsys.readouterr()
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
    plan = toy.plan(Dials(2, 0.0, 0.0, 1.0))
    assert plan is not None
    assert main(f"distill toy --steps 2 --by ratio --updates 1 --config {small} --out two".split()) == 0
    config = df.load("two").config
    assert isinstance(config, DistillConfig)
    assert config.sampler(toy.data).levels == plan.levels
    generator = config.few_steps(toy.data, config.sampler(toy.data))
    generator.net.denoiser.load_state_dict(toy.denoiser.state_dict())
    z, meta = df.Noise(0).normal(20, (2,)), toy.data
    with torch.no_grad():  # the same particles, before it has learned anything
        mine = generator(z)
        x0 = meta["mean"] + math.hypot(80.0, toy.denoiser.sigma_data) * z
        torch.testing.assert_close(df.sample(toy.sde(churn=0.0), x0, plan=plan).last, mine, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_distilled_is_named(runs: Path, refused: Callable[..., str], here: Path, small: str) -> None:
    toy = str(runs / "toy")
    assert "at least 1" in refused("distill", toy, "--steps", "0")
    assert "leave --teacher-first-steps out" in refused(
        "distill", toy, "--by", "endpoints", "--teacher-first-steps", "3"
    )
    assert "takes all 5 updates" in refused("distill", toy, "--teacher-first-steps", "5", "--updates", "5")
    assert "nowhere is not a readable run directory" in refused("distill", "nowhere")


def test_plans_for_other_dials_are_no_start(runs: Path, here: Path, small: str) -> None:
    """Of a run that is sampled with noise, the plan without is taken, and else none."""
    shutil.copytree(runs / "toy", here / "toy")
    text = (here / "toy" / "config.yaml").read_text()
    (here / "toy" / "config.yaml").write_text(text.replace("churn: 0.0", "churn: 1.0"))
    assert df.load("toy").dials.churn == 1.0
    assert main("calibrate toy --steps 3 --starts 64 --rounds 0".split()) == 0
    assert main(f"distill toy --steps 3 --by ratio --updates 1 --config {small} --out noisy".split()) == 0
    assert main("calibrate toy --steps 3 --churn 0 --starts 64 --rounds 0".split()) == 0
    assert main(f"distill toy --steps 3 --by ratio --updates 1 --config {small} --out quiet".split()) == 0
    plans = []
    for name in ("noisy", "quiet"):
        config = df.load(name).config
        assert isinstance(config, DistillConfig)
        plans.append(config.plan.levels)
    quiet = df.load("toy").plan(Dials(3, 0.0, 0.0, 1.0))
    assert quiet is not None
    assert plans == [(), quiet.levels]


def test_a_file_lies_between_the_preset_and_the_flags(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "own.yaml").write_text("evaluations: 2\nratio: 7.0\nfit: {steps: 11, minutes: null}\n")
    shown = []
    for flags in ("", "--steps 3 --updates 9"):
        assert main(f"distill {runs / 'toy'} --by ratio --config own.yaml --print-config {flags}".split()) == 0
        shown.append(capsys.readouterr().out)
    assert all("ratio: 7.0" in text for text in shown)
    assert "evaluations: 2" in shown[0]
    assert "steps: 11" in shown[0]
    assert "evaluations: 3" in shown[1]
    assert "steps: 9" in shown[1]


@pytest.mark.parametrize(("run", "by"), [("toy", "both"), ("digits", "ratio")])
def test_what_is_measured_best_is_the_default(
    run: str, by: str, runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for flags in ("", f"--by {by}"):
        assert main(f"distill {runs / run} --print-config {flags}".split()) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


@pytest.mark.parametrize("by", ["score", "ratio", "both", "endpoints"])
def test_it_is_cited_by_what_moves_it(
    by: str, runs: Path, here: Path, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"distill {runs / 'toy'} --by {by} --updates 1 --config {small} --out few".split()) == 0
    capsys.readouterr()
    assert main(["cite", "few"]) == 0
    said = capsys.readouterr().out.lower()
    words = {"score": "distribution matching", "ratio": "long live", "endpoints": "knowledge distillation in"}
    assert [k for k, w in words.items() if w in said] == (["score", "ratio"] if by == "both" else [by])


def test_a_table_can_be_distilled(here: Path, small: str) -> None:
    rows = "\n".join(f"{i % 7},{(i * i) % 11 + 0.5 * i}" for i in range(200))
    (here / "t.csv").write_text("a,b\n" + rows)
    ask = "--steps 3 --model.net.width 16 --fit.batch 16 --data.discrete keep --out tab"
    assert main(f"train t.csv {ask}".split()) == 0
    assert main(f"distill tab --by endpoints --updates 2 --config {small}".split()) == 0
    config, tab = df.load("tab-1-endpoints").config, df.load("tab")
    assert isinstance(config, DistillConfig)
    assert config.teacher(tab.data).levels[0] == tab.config.sampling.sigma_max == config.sigma_max
    assert main("train t.csv --preset gan --steps 2 --data.discrete keep --fit.batch 16 --out gan".split()) == 0
