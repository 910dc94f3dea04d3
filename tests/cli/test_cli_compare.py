"""Compare and weights: tables of what may be ranked, and the files behind the judges."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from diffflow.cli import main
from diffflow.cli.compare import best
from diffflow.metrics import pretrained


@pytest.fixture
def evaluated(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Two evaluations of one run taken alike, and one of fewer samples."""
    shutil.copytree(runs / "digits", here / "digits")
    for name, how in {"a": "-n 60 --steps 3", "b": "-n 60 --steps 2", "c": "-n 40 --steps 3"}.items():
        assert main(f"evaluate digits {how}".split()) == 0
        assert "note: frechet: " in capsys.readouterr().out
        shutil.copy(here / "digits" / "evaluation.json", here / f"{name}.json")
    return here


def test_alike_evaluations_are_ranked(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main("compare a.json b.json digits".split()) == 2
    assert "number of samples" in capsys.readouterr().err
    assert main("compare a.json b.json".split()) == 0
    shown = capsys.readouterr().out
    assert "note: a.json: frechet: 60 points are fewer than" in shown
    names = {m["name"] for m in json.loads((evaluated / "a.json").read_text())["metrics"]}
    assert {"frechet", "kid", "recall"} <= names
    assert all(name in shown for name in names)
    assert (evaluated / "digits" / "copies.png").read_bytes()[:4] == b"\x89PNG"


def test_the_best_is_what_two_standard_errors_do_not_tell_from_it() -> None:
    def m(value: float, stderr: float, better: str = "lower") -> dict[str, object]:
        return {"value": value, "stderr": stderr, "better": better}

    assert best([m(1.0, 0.1), m(1.2, 0.1), m(1.4, 0.1), None]) == [True, True, False, False]
    assert best([m(1.0, 0.0, "higher"), m(1.2, 0.0, "higher")]) == [False, True]


def test_what_cannot_be_compared(refused: Callable[..., str], here: Path) -> None:
    (here / "broken.json").write_text("{}")
    (here / "fine.json").write_text("[]")
    assert "at least two" in refused("compare", "broken.json")
    assert "not there" in refused("compare", "nowhere.json", "fine.json")
    assert "no evaluation" in refused("compare", "broken.json", "fine.json")


def test_weights_on_the_command_line(
    here: Path,
    refused: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DIFFFLOW_WEIGHTS", str(tmp_path_factory.mktemp("weights")))
    monkeypatch.setattr(pretrained, "find_spec", lambda _: None)  # no weights that come with a package
    assert main(["weights", "list"]) == 0
    assert "diffflow[inception]" in capsys.readouterr().out.replace("\n", "").replace(" ", "")
    assert "which weights" in refused("weights", "fetch")
    assert "no weights are called" in refused("weights", "verify", "vgg")
    assert "one name" in refused("weights", "verify", "--file", "x")
    assert main(["weights", "verify"]) == 2  # none is here
    (here / "other").write_bytes(b"1")
    assert "not the lenet file" in refused("weights", "fetch", "lenet", "--url", (here / "other").as_uri())
