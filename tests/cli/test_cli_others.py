"""Help, evaluate, cite, demo, and what happens to errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import diffflow as df
from diffflow.cli import COMMANDS, main


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    top = capsys.readouterr().out
    for command in COMMANDS:
        assert f"diffflow {command}" in top or command == "cite"
        assert main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "Examples:" in shown
        assert f"diffflow {command}" in shown
    assert main([]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"diffflow {df.__version__}\n"


def test_unknown_command(refused: Callable[..., str]) -> None:
    assert "Did you mean 'sample'?" in refused("sampel", "runs/x")


def test_evaluate_writes_numbers_with_their_protocol(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "digits", here / "digits")
    assert main("evaluate digits -n 60 --steps 3 --churn 1".split()) == 0
    shown = capsys.readouterr().out
    result = json.loads((here / "digits" / "evaluation.json").read_text())
    names = {m["name"] for m in result["metrics"]}
    assert {"w2", "sliced_w2", "mmd2", "precision", "recall", "c2st", "nearest_ratio", "accuracy"} <= names
    assert all(name in shown for name in names)
    # these samples are noise: no real neighbourhood holds one, so the density is 0 without any doubt
    assert all(m["stderr"] > 0 for m in result["metrics"] if m["name"] != "density")
    assert result["card"]["sampler"] == {
        "solver": "default", "steps": 3, "churn": 1.0, "guidance": 1.0, "evaluations": 3,
    }  # fmt: skip
    assert "±" in (here / "digits" / "report.html").read_text()


def test_evaluate_against_other_data_is_refused(runs: Path, refused: Callable[..., str]) -> None:
    assert "fingerprint" in refused("evaluate", runs / "toy", "--data", "circles")
    assert "no LeNet-5 weights" in refused("evaluate", runs / "digits", "--classifier", "nowhere.pth")
    assert "--churn -1" in refused("evaluate", runs / "digits", "--churn", "-1")


def test_cite(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite"]) == 0
    alone = capsys.readouterr().out
    assert "2307.02159" in alone
    assert main(["cite", str(runs / "toy")]) == 0
    assert capsys.readouterr().out == df.load(runs / "toy").sde().cite() + "\n"


def test_demo_runs_once_and_then_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("demo --minutes 0.03 -n 30 --steps 3".split()) == 0
    assert "held-out real digits" in capsys.readouterr().out
    home = here / "runs" / "demo"
    pictures = {p.name for p in home.glob("*.png")}
    rows = ("churn-0", "churn-0.5", "churn-1", "churn-2", "annealed-Langevin")
    assert pictures == {f"{name}.png" for name in ("dial", "samples", *rows)}
    page = (home / "report.html").read_text()
    assert "One start, five settings" in page
    stamp = (home / "report.html").stat().st_mtime_ns
    assert main(["demo"]) == 0
    assert "the demo is finished" in capsys.readouterr().out
    assert (home / "report.html").stat().st_mtime_ns == stamp


def test_faults_of_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise TypeError("not something a user can mend")

    monkeypatch.setattr(df, "DiffFlow", broken)
    with pytest.raises(TypeError):
        main(["cite"])


def test_errors_show_where_they_came_from_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFFLOW_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown preset"):
        main("train moons --preset nothing".split())


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(df, "DiffFlow", interrupted)
    assert main(["cite"]) == 130
