"""Frontier: a sweep leaves its points, its picture and presets that sampling knows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import diffflow as df
from diffflow.cli import main


def test_a_sweep_of_vectors(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    # a plan that is there is used, not made again
    assert main("calibrate toy --steps 2 --starts 32 --rounds 0".split()) == 0
    kept = json.loads((here / "toy" / "plans.json").read_text())
    assert main("frontier toy --steps 1 2 --churn 0 0.5 -n 200".split()) == 0
    shown = capsys.readouterr().out
    assert "best at 1 evaluation:" in shown
    record = json.loads((here / "toy" / "frontier.json").read_text())
    assert record["distance"] == "sliced W2"
    assert len(record["points"]) == 6  # two steps, two churns, and two plans without churn
    assert {p["evaluations"] for p in record["points"]} == {1, 2}
    assert all(p["seconds"] > 0 and p["stderr"] > 0 for p in record["points"])
    assert kept[0] in json.loads((here / "toy" / "plans.json").read_text())
    assert (here / "toy" / "frontier.png").read_bytes()[:4] == b"\x89PNG"
    assert "Quality against speed" in (here / "toy" / "report.html").read_text()
    run = df.load(here / "toy")
    dials = run.quality("best")
    assert main("sample toy -n 10 --quality best --out a.csv".split()) == 0
    how = f"--steps {dials.steps} --churn {dials.churn:g} --gan 0 --guidance 1"
    assert main(f"sample toy -n 10 {how} --out b.csv".split()) == 0
    assert (here / "a.csv").read_text() == (here / "b.csv").read_text()
    assert main("sample toy -n 10 --quality better --out c.csv".split()) == 2


def test_a_sweep_of_images(runs: Path, here: Path) -> None:
    shutil.copytree(runs / "digits", here / "digits")
    assert main("frontier digits --steps 1 2 --churn 0 -n 60 --plans no".split()) == 0
    record = json.loads((here / "digits" / "frontier.json").read_text())
    assert record["distance"] == "Frechet distance@60 (own)"
    assert record["floor"] > 0
    assert record["presets"].keys() == {"fast", "balanced", "best"}


def test_what_cannot_be_swept(runs: Path, refused: Callable[..., str], here: Path) -> None:
    assert "at least 12" in refused("frontier", str(runs / "toy"), "-n", "5")
    assert "at least 1" in refused("frontier", str(runs / "toy"), "--steps", "0")
    assert "diffflow frontier" in refused("sample", str(runs / "toy"), "--quality", "fast")
