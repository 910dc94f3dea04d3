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
    kept = json.loads((here / "toy" / "plans.json").read_text())["plans"]
    assert main("frontier toy --steps 1 2 --churn 0 0.5 -n 200".split()) == 0
    shown = capsys.readouterr().out
    assert "best at 1 evaluation:" in shown
    record = json.loads((here / "toy" / "frontier.json").read_text())
    assert record["distance"] == "sliced W2"
    assert 5 <= len(record["points"]) <= 6  # two steps, two churns, and a plan for 2 (and 1, if it is any better)
    assert {p["evaluations"] for p in record["points"]} == {1, 2}
    assert all(p["seconds"] > 0 and p["stderr"] > 0 for p in record["points"])
    assert kept[0] in json.loads((here / "toy" / "plans.json").read_text())["plans"]
    assert (here / "toy" / "frontier.png").read_bytes()[:4] == b"\x89PNG"
    page = (here / "toy" / "report.html").read_text()
    assert "Quality against speed" in page
    assert page.count("<h1") == page.count("</h1>") == 1
    assert page.count("The equation and") <= 1
    run = df.load(here / "toy")
    dials, planned = run.quality("best")
    assert main("sample toy -n 10 --quality best --out a.csv".split()) == 0
    how = f"--steps {dials.steps} --churn {dials.churn:g} --gan 0 --guidance 1"
    how += "" if planned else " --solver exponential"
    assert main(f"sample toy -n 10 {how} --out b.csv".split()) == 0
    assert (here / "a.csv").read_text() == (here / "b.csv").read_text()
    assert main("sample toy -n 10 --quality better --out c.csv".split()) == 2
    (here / "toy" / "quality.json").write_text('{"weights": "x"')
    assert main("sample toy -n 10 --quality fast --out c.csv".split()) == 2
    (here / "toy" / "frontier.json").write_text("{}")  # costs the report a section, and no more
    assert main("evaluate toy -n 20 --steps 2".split()) == 0


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
    assert "--churn and" in refused("frontier", str(runs / "toy"), "--churn", "nan")
    assert "leave it out" in refused("frontier", str(runs / "toy"), "--features", "lenet")
    assert "diffflow frontier" in refused("sample", str(runs / "toy"), "--quality", "fast")
