"""Calibrate: plans go into the run, sampling finds them, and what is stale or damaged is not used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import diffflow as df
from diffflow.cli import main
from diffflow.cli.sample import Sample
from diffflow.models.settings.common import Dials


@pytest.fixture(scope="module")
def planned(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of moons with plans of 4 steps and, with churn, of 5."""
    home = tmp_path_factory.mktemp("planned") / "toy"
    shutil.copytree(runs / "toy", home)
    assert main(f"calibrate {home} --steps 4 --starts 64 --rounds 2".split()) == 0
    assert main(f"calibrate {home} --steps 5 --churn 0.5 --starts 64 --rounds 0".split()) == 0
    return home


@pytest.fixture
def calibrated(planned: Path, here: Path) -> Path:
    """That run, to do with as one likes."""
    return shutil.copytree(planned, here / "toy")


def test_plans_are_kept_and_used(calibrated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = df.load(calibrated)
    kept = json.loads((calibrated / "plans.json").read_text())["plans"]
    assert [(k["dials"]["steps"], k["dials"]["churn"]) for k in kept] == [(4, 0.0), (5, 0.5)]
    plan = df.Plan.from_dict(kept[0]["plan"])
    assert plan.steps == 4
    mine = run.sample(20, steps=4, noise=0)
    by_hand = run.sample(20, steps=4, solver=plan, grid=plan.grid, noise=0)
    assert torch.equal(mine.last, by_hand.last)
    assert mine.nfe == 4
    other = run.sample(20, steps=4, solver=df.Exponential(), noise=0)
    assert not torch.equal(mine.last, other.last)
    assert run.sample(20, steps=5, churn=0.5).nfe == 5
    # each sample for itself, as ever
    parts = [run.sample(10, steps=5, churn=0.5, noise=df.Noise(0, first)).last for first in (0, 10)]
    assert (run.sample(20, steps=5, churn=0.5, noise=0).last - torch.cat(parts)).abs().max() < 1e-5
    assert main(f"evaluate {calibrated} -n 60 --steps 4".split()) == 0
    card = json.loads((calibrated / "evaluation.json").read_text())["card"]
    assert card["sampler"]["solver"] == "plan"
    assert Sample("x").solver == "default"


def test_the_plan_is_nearer_to_the_fine_solution(calibrated: Path) -> None:
    run = df.load(calibrated)
    dials = Dials(4, 0.0, 0.0, 1.0)
    teacher = run.teach(dials, 256, df.Noise(99))
    assert run.deviation(teacher, dials, run.plan(dials)) < run.deviation(teacher, dials)


def test_calibrating_again_replaces(calibrated: Path) -> None:
    before = json.loads((calibrated / "plans.json").read_text())["plans"]
    assert main(f"calibrate {calibrated} --steps 4 --starts 32 --rounds 0 --seed 5".split()) == 0
    after = json.loads((calibrated / "plans.json").read_text())["plans"]
    assert len(after) == len(before) == 2
    assert after != before


def test_plans_of_other_weights_are_left_aside(calibrated: Path) -> None:
    kept = json.loads((calibrated / "plans.json").read_text())
    kept["weights"] = "step 1, its own"
    (calibrated / "plans.json").write_text(json.dumps(kept))
    run = df.load(calibrated)
    assert run.plan(Dials(4, 0.0, 0.0, 1.0)) is None
    assert run.sample(5, steps=4).nfe == 4


def test_raw_weights_are_other_weights(calibrated: Path) -> None:
    dials = Dials(4, 0.0, 0.0, 1.0)
    assert df.load(calibrated).plan(dials) is not None
    assert df.load(calibrated, raw=True).plan(dials) is None
    assert df.load(calibrated, sigma_rel=0.2).plan(dials) is None


def test_two_steps_with_churn_stay_samples_with_churn(calibrated: Path) -> None:
    """Nothing is raised at the first level nor the last; the plan is one of the noisy equation all the same."""
    assert main(f"calibrate {calibrated} --steps 2 --churn 1 --starts 32 --rounds 1".split()) == 0
    assert main(f"sample {calibrated} -n 5 --steps 2 --churn 1".split()) == 0


def test_a_plan_that_is_no_better_is_not_kept(calibrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (calibrated / "plans.json").read_bytes()
    monkeypatch.setattr(df.Run, "deviation", lambda self, teacher, dials, plan=None: 2.0 if plan else 1.0)
    assert main(f"calibrate {calibrated} --steps 3 --starts 16 --rounds 0".split()) == 0
    assert (calibrated / "plans.json").read_bytes() == before


def test_labels_take_part(runs: Path, here: Path) -> None:
    shutil.copytree(runs / "digits", here / "digits")
    assert main("calibrate digits --steps 3 --starts 16 --rounds 0 --guidance 1.5".split()) == 0
    run = df.load(here / "digits")
    assert run.sample(4, cond=[1, 2, 3, 4], steps=3, guidance=1.5).nfe == 6


def test_requests_that_cannot_be_met(runs: Path, refused: Callable[..., str], here: Path) -> None:
    assert "at least 1" in refused("calibrate", str(runs / "toy"), "--steps", "0")
    assert "--starts 8" in refused("calibrate", str(runs / "toy"), "--starts", "3")
    assert "not exist" in refused("calibrate", str(runs / "nowhere"))
    assert "no discriminator" in refused("calibrate", str(runs / "toy"), "--gan", "1", "--rounds", "0")


@pytest.mark.parametrize("content", ["[{", "[1, 2]", "null", '{"weights": 3}', '{"plans": []}'])
def test_a_damaged_file_is_named(calibrated: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (calibrated / "plans.json").write_text(content)
    capsys.readouterr()
    damaged = content != '{"weights": 3}'  # plans of other weights
    assert main(f"sample {calibrated} -n 5 --steps 4".split()) == (2 if damaged else 0)
    assert ("plans.json" in capsys.readouterr().err) == damaged
