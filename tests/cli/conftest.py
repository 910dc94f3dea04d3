"""Two tiny runs made by the command line itself, once for all tests of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from diffflow.cli import main
from diffflow.metrics import c2st

TOY = ["train", "moons", "--steps", "30", "--model.net.width", "16", "--fit.batch", "64", "--fit.log-every", "10"]
DIGITS = [
    "train",
    "digits",
    "--steps",
    "4",
    "--model.net.widths",
    "8",
    "8",
    "--model.net.head",
    "8",
    "--fit.batch",
    "16",
]
DIGITS += ["--model.net.layers", "1", "--fit.log-every", "2"]


@pytest.fixture
def toy() -> list[str]:
    """A training that takes a moment."""
    return TOY


@pytest.fixture
def digits() -> list[str]:
    """The same on images with classes."""
    return DIGITS


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run `toy` on moons and a run `digits`."""
    home = tmp_path_factory.mktemp("runs")
    assert main([*TOY, "--out", str(home / "toy")]) == 0
    assert main([*DIGITS, "--out", str(home / "digits")]) == 0
    return home


@pytest.fixture(autouse=True)
def short_two_sample_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps for the classifier that evaluations of images train last: its number is that of tests/metrics."""
    monkeypatch.setitem(c2st.__kwdefaults__ or {}, "steps", 10)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A command that must be refused: exit status 2, no traceback, nothing written here. Gives its message on one
    line."""

    def run(*args: object) -> str:
        before = sorted(here.rglob("*"))
        assert main([str(a) for a in args]) == 2
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        assert sorted(here.rglob("*")) == before
        return " ".join(shown.err.split())

    return run
