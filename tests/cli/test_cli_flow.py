"""`diffflow flow`: particles to a target without training, in every form of file, and refusals that leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffflow as df
from diffflow.cli import main
from diffflow.models import catalogue, flows


def flow(*args: object) -> int:
    return main(["flow", *(str(a) for a in args)])


def test_a_toy_goes_to_a_table_a_picture_and_an_animation(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ("8gaussians", "-n", 120, "--steps", 60)
    assert flow(*ask, "--out", "a/x.csv", "--animate", "a/x.gif") == 0
    shown = capsys.readouterr()
    assert "f = 0, beta = 1, g2 = 0, lam2 = 0" in shown.err
    assert "sliced_w2" in shown.out
    assert "real data" in shown.out
    x = np.loadtxt("a/x.csv", delimiter=",", skiprows=1)
    means = df.TOYS["8gaussians"]().means.numpy()
    nearest = np.linalg.norm(x[:, None] - means, axis=2).min(1)
    assert (nearest < 0.3).mean() > 0.95  # 3 standard deviations
    with Image.open("a/x.gif") as film:
        assert 20 <= film.n_frames <= 60
        assert film.info["loop"] == 0
    assert sorted(p.name for p in Path("a").iterdir()) == ["x.csv", "x.gif"]
    assert flow(*ask, "--out", "again.csv") == 0  # the same seed, with or without an animation
    np.testing.assert_array_equal(np.loadtxt("again.csv", delimiter=",", skiprows=1), x)
    assert flow(*ask, "--seed", 1, "--out", "other.csv") == 0
    assert not np.allclose(np.loadtxt("other.csv", delimiter=",", skiprows=1), x)


def test_images_are_moved_to_points(here: Path) -> None:
    ask = ("digits", "--model", "score-difference", "-n", 20, "--points", 100, "--steps", 40)
    assert flow(*ask, "--out", "x.npz", "--animate", "x.gif") == 0
    x = np.load("x.npz")["arr_0"]
    assert (x.shape, x.dtype) == ((20, 8, 8, 1), np.uint8)
    data = df.data.load("digits").x.numpy().transpose(0, 2, 3, 1)
    gap = np.abs(x[:, None].astype(int) - data[None]).mean((2, 3, 4)).min(1)
    assert np.median(gap) < 10  # of 255: kernels end at the points themselves


def test_a_run_lends_its_score(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ("--model", "ncsn", "-n", 4, "--steps", 3)
    assert flow("digits", *ask, "--score", runs / "digits", "--out", "x.png") == 0
    assert "g2 = 2" in capsys.readouterr().err
    assert flow("moons", *ask, "--score", runs / "toy", "--out", "x.csv") == 0
    assert "3 network evaluations" in capsys.readouterr().out


def test_help_lists_every_flow(capsys: pytest.CaptureFixture[str]) -> None:
    assert flow("--help") == 0
    shown = capsys.readouterr().out
    for name in flows.FLOWS:
        assert f"    {name:<20}{catalogue.FLOWS[name]}" in shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("digits", "--model", "svgd"), ("needs the score of digits", "--score RUN", "sliced-wasserstein")),
        (("moons", "--model", "svdg"), ("Did you mean 'svgd'", "drifting")),
        (("moons", "-n", 1), ("-n 1", "at least 2")),
        (("moons", "--steps", 0), ("--steps 0",)),
        (("moons", "--steps", 1, "--animate", "x.gif"), ("one step",)),
        (("moons", "--out", "x.zip"), ("vectors", ".csv")),
        (("moons", "--animate", "x.mp4"), ("x.mp4", ".gif")),
        (("moonz",), ("moons",)),
    ],
)
def test_requests_that_cannot_be_met(
    refused: Callable[..., str], args: tuple[object, ...], words: tuple[str, ...]
) -> None:
    message = refused("flow", *args)
    for word in words:
        assert word in message


def test_a_score_of_other_data_is_refused(runs: Path, refused: Callable[..., str]) -> None:
    message = refused("flow", "digits", "--model", "langevin", "--score", runs / "toy")
    assert "trained on moons" in message


def test_wide_tables_have_no_animation(refused: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> None:
    table = tmp_path_factory.mktemp("data") / "wide.npy"
    np.save(table, np.random.default_rng(0).normal(size=(50, 3)))
    assert "3 columns" in refused("flow", table, "--animate", "x.gif")
