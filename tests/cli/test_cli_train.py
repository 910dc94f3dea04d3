"""`diffflow train`: precedence, dry runs, resuming, and every kind of input that must be refused with a useful word."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import diffflow as df
from diffflow.cli import main
from diffflow.cli.train import look_ahead
from diffflow.data.readers import images
from diffflow.runs.train import default_folder


def test_a_run_directory_has_everything(runs: Path) -> None:
    for name in ("toy", "digits"):
        names = {p.name for p in (runs / name).iterdir()}
        assert {"config.yaml", "run.json", "metrics.jsonl", "samples", "checkpoints", "report.html"} <= names
    assert yaml.safe_load((runs / "toy" / "config.yaml").read_text())["model"]["net"]["width"] == 16
    assert df.load(runs / "digits").step == 4


def test_preset_then_file_then_flags(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "own.yaml").write_text("denoiser: {lr: 0.125, warmup: 7}\n")
    assert main("train moons --preset toy --config own.yaml --denoiser.lr 0.5 --seed 3 --print-config".split()) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["source"] == "moons"  # the positional, over the preset's 8gaussians
    assert config["denoiser"]["lr"] == 0.5  # the flag, over the file
    assert config["denoiser"]["warmup"] == 7  # the file, over the preset
    assert config["fit"]["batch"] == df.presets.preset("toy").config.fit.batch
    assert config["fit"]["seed"] == 3


def test_printed_settings_are_a_config_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("train digits --denoiser.lr 0.25 --minutes 3 --print-config".split()) == 0
    printed = capsys.readouterr().out
    (here / "printed.yaml").write_text(printed)
    assert main("train --preset toy --config printed.yaml --print-config".split()) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    "line",
    [
        "digits --steps 3",
        "--steps 3 digits --out x",
        "--flip digits",
        "--out=x digits",
        "--denoiser.betas 0.5 0.9 digits",
        "--model.net.widths 8 8 --no-flip digits",
        "--fit.no-tensorboard digits",
    ],
)
def test_source_may_stand_anywhere(line: str) -> None:
    assert look_ahead(line.split())[1] == "digits"


def test_flags_before_the_source_choose_the_same_preset(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        "digits --steps 3 --print-config",
        "--steps 3 digits --print-config",
        "--print-config digits --steps 3",
    ):
        assert main(["train", *line.split()]) == 0
    assert look_ahead("--out x --resume auto".split())[1] is None
    first, second, third = capsys.readouterr().out.split("type: ScoreConfig")[1:]
    assert first == second == third


def test_the_last_words_can_be_pasted(toy: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*toy, "--out", "my run"]) == 0
    assert "diffflow sample 'my run' -n 100" in capsys.readouterr().err


def test_runs_are_called_after_source_and_model(here: Path) -> None:
    """The examples of the help, one after the other: a generator of a run does not ask for the run's own directory."""
    small = ["--steps", "2", "--fit.batch", "8", "--fit.no-tensorboard"]
    assert main(["train", "moons", *small]) == 0
    assert main(["train", "moons", "--preset", "score-gan", "--init-from", "runs/moons", *small]) == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["moons", "moons-score-gan"]
    for preset, source, name in (
        ("gan", "path/to/images.zip", "images-gan"),
        ("toy", "8gaussians", "8gaussians"),
        ("mnist", "path/to/mnist", "mnist"),
        ("demo", "digits", "demo"),
    ):
        assert default_folder(source, preset) == Path("runs") / name
        assert default_folder(source, preset, seed=3) == Path("runs") / f"{name}-seed3"  # seeds never meet


def test_minutes_replace_a_preset_s_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("train moons --fit.steps 10 --minutes 3 --print-config".split()) == 0
    fit = yaml.safe_load(capsys.readouterr().out)["fit"]
    assert (fit["steps"], fit["minutes"]) == (None, 3.0)


def test_dry_run_tells_and_writes_nothing(digits: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*digits, "--dry-run", "--minutes", "2"]) == 0
    told = capsys.readouterr().out
    assert "digits: 1,797 pictures of 8x8, grey, 10 classes, 1,297 train + 500 test, sha256" in told
    assert "parameters" in told
    assert "2 minutes: about" in told
    assert not list(here.iterdir())


def test_extending_a_finished_run_needs_only_its_place(runs: Path, here: Path) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    assert main("train --out toy --resume auto --steps 40".split()) == 0
    run = df.load("toy")
    assert run.step == 40
    assert [line["step"] for line in run.metrics()] == [10, 20, 30, 40]


def test_init_from_starts_a_new_run(runs: Path, here: Path) -> None:
    args = "--model.net.width 16 --steps 10 --fit.batch 64 --out circles --init-from".split()
    assert main(["train", "circles", *args, str(runs / "toy")]) == 0
    assert df.load("circles").step == 10


def test_ctrl_c_saves_a_checkpoint_and_exits_130(
    toy: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert main([*toy, "--steps", "1000000", "--out", "stopped"]) == 130
    assert "--resume auto" in capsys.readouterr().err
    step = df.load("stopped").step
    assert step > 0
    assert main(f"train --out stopped --resume auto --steps {step + 5}".split()) == 0
    assert df.load("stopped").step == step + 5


def test_a_directory_with_content_is_never_overwritten(toy: list[str], here: Path, refused: Callable[..., str]) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years of work")
    message = refused(*toy, "--out", "mine")
    assert "mine exists already" in message
    assert "--resume auto" in message


def test_unknown_names_are_met_with_a_suggestion(here: Path, refused: Callable[..., str]) -> None:
    assert "did you mean 'digits'" in refused("train", "digits", "--preset", "digitss")
    assert "did you mean 'moons'" in refused("train", "mons")
    (here / "own.yaml").write_text("denoiser: {lrr: 0.1}\n")
    message = refused("train", "moons", "--preset", "toy", "--config", "own.yaml")
    assert "denoiser.lrr" in message
    assert "did you mean 'lr'" in message
    assert "--denoiser.lr" in refused("train", "moons", "--denoiser.lrr", "0.1")
    assert "name what to learn" in refused("train")
    assert "say what to learn" in refused("train", "--preset", "mnist")


def test_values_that_cannot_be_meant(here: Path, refused: Callable[..., str]) -> None:
    assert "fit.steps = 0" in refused("train", "moons", "--steps", "0")
    assert "fit.minutes = -1" in refused("train", "moons", "--minutes", "-1")
    assert "model.form = 'epsilon'" in refused("train", "moons", "--model.form", "epsilon")


def test_resuming_with_other_settings_is_refused(runs: Path, refused: Callable[..., str]) -> None:
    message = refused("train", "--out", runs / "toy", "--resume", "auto", "--denoiser.lr", "0.5")
    assert "denoiser.lr" in message
    assert "--init-from" in message


def picture(path: Path, size: tuple[int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)).save(path)
    return path


def test_bad_images_are_all_named(here: Path, refused: Callable[..., str]) -> None:
    (here / "empty").mkdir()
    assert "empty" in refused("train", "empty")

    whole = picture(here / "cut" / "a" / "1.png", (16, 16)).read_bytes()
    for name in ("2.png", "3.png"):
        (here / "cut" / "a" / name).write_bytes(whole[: len(whole) // 2])
    message = refused("train", "cut")
    assert "2.png" in message
    assert "3.png" in message


def test_train_says_of_pictures_what_it_decided_and_decodes_each_file_once(
    digits: list[str], here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a preset every file was decoded twice, and different sizes were refused."""
    for k in range(20):
        picture(here / "mixed" / f"{k}.png", (16, 16 + 4 * (k % 2)))
    decoded = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda *args: decoded.append(1) or decode(*args))
    small = [word for word in digits if word not in ("train", "digits")]
    assert main(["train", "mixed", *small, "--out", "run"]) == 0
    assert len(decoded) == 20
    told = " ".join(capsys.readouterr().err.split())
    assert "mixed: 20 pictures of 16x16, grey, no classes, 18 train + 2 test, sha256" in told
    assert "2 different sizes (width x height): 16x16 (10 images), 20x16 (10 images)" in told
    assert "10 of 20 images: resized and centre-cropped to 16x16" in told
    assert "fit" not in yaml.safe_load((here / "run" / "config.yaml").read_text())["data"]
    assert main(["train", "mixed", *small, "--data.fit", "pad", "--data.background", "black", "--print-config"]) == 0
    said = yaml.safe_load(capsys.readouterr().out)["data"]
    assert (said["fit"], said["background"]) == ("pad", "black")
    assert main(["train", "mixed", *small, "--data.background", "blurple", "--out", "no"]) == 2
    assert "'blurple' is no colour" in capsys.readouterr().err


def test_nan_in_a_table_is_named_by_row_and_column(here: Path, refused: Callable[..., str]) -> None:
    rows = ["height,weight", *(f"{k},{k * k}" for k in range(20))]
    rows[7] = "6,nan"
    (here / "table.csv").write_text("\n".join(rows))
    message = refused("train", "table.csv", "--data.text", "refuse")
    assert "weight" in message
    assert "8" in message  # the row as counted in the file
