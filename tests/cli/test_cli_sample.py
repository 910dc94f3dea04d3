"""`diffflow sample`: four forms of file, one stream per sample, and refusals that leave nothing behind."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffflow as df
from diffflow.cli import main
from diffflow.cli.conditions import conditions_of
from diffflow.data import DataError
from diffflow.data.condition_files import named_file


def sample(runs: Path, name: str, *args: object) -> int:
    return main(["sample", str(runs / name), *(str(a) for a in args)])


def test_images_go_to_png_zip_and_npz_and_come_back(runs: Path, here: Path) -> None:
    for suffix in ("png", "zip", "npz"):
        assert sample(runs, "digits", "-n", 12, "--steps", 3, "--out", f"out/x.{suffix}") == 0
    assert Image.open("out/x.png").mode == "L"
    arrays = np.load("out/x.npz")
    assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((12, 8, 8, 1), np.uint8)
    assert arrays["labels"].tolist() == [*range(10), 0, 1]  # every class in turn
    zipped, packed = (df.data.load(f"out/x.{s}", split="all") for s in ("zip", "npz"))
    assert zipped.classes == packed.classes == [str(k) for k in range(10)]
    assert sorted(map(bytes, zipped.x.flatten(1).numpy())) == sorted(map(bytes, packed.x.flatten(1).numpy()))
    assert sorted(p.name for p in Path("out").iterdir()) == ["x.npz", "x.png", "x.zip"]


def test_classes_as_in_the_data(runs: Path, here: Path) -> None:
    assert sample(runs, "digits", "-n", 40, "--steps", 1, "--class", "data", "--out", "x.npz") == 0
    wanted = df.data.load("digits").labels(40)
    assert wanted is not None
    assert np.load("x.npz")["labels"].tolist() == wanted.tolist()


def test_vectors_go_to_csv_npz_and_png(runs: Path, here: Path) -> None:
    for suffix in ("csv", "npz", "png"):
        assert sample(runs, "toy", "-n", 20, "--steps", 4, "--out", f"x.{suffix}") == 0
    table = np.loadtxt("x.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table, np.load("x.npz")["arr_0"], rtol=1e-5)
    assert Image.open("x.png").size == (750, 750)


def test_one_column_goes_to_a_table(toy: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("line.npy", np.random.default_rng(0).normal(size=(200, 1)))
    assert main(["train", "line.npy", *toy[2:], "--out", "line"]) == 0
    assert main("sample line -n 6 --steps 2".split()) == 0  # as the last words of training say
    assert np.loadtxt("samples.csv", skiprows=1).shape == (6,)
    capsys.readouterr()
    assert main("sample line -n 6 --steps 2 --out x.png".split()) == 2
    assert "one column" in capsys.readouterr().err
    assert not Path("x.png").exists()


def test_a_sample_depends_on_its_number_and_not_on_its_batch(runs: Path, here: Path) -> None:
    ask = ("--steps", 4, "--churn", 1, "--class", 3, 7, 1)
    assert sample(runs, "digits", "-n", 10, *ask, "--out", "whole.npz") == 0
    assert sample(runs, "digits", "-n", 10, "--batch", 3, *ask, "--out", "pieces.npz") == 0
    assert sample(runs, "digits", "-n", 4, "--first", 6, *ask, "--out", "rest.npz") == 0
    whole, pieces, rest = (np.load(f"{name}.npz") for name in ("whole", "pieces", "rest"))
    assert whole["labels"].tolist() == [3, 7, 1, 3, 7, 1, 3, 7, 1, 3]
    assert rest["labels"].tolist() == whole["labels"][6:].tolist()
    # float32 sums in another order move a sample by 1e-5, which can turn one grey level
    for a, b in ((whole["arr_0"], pieces["arr_0"]), (whole["arr_0"][6:], rest["arr_0"])):
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_the_dial_and_the_seed_change_samples(runs: Path, here: Path) -> None:
    for name, args in {
        "a": (),
        "b": ("--churn", 1),
        "c": ("--seed", 1),
        "d": ("--solver", "heun"),
        "e": ("--raw",),
    }.items():
        assert sample(runs, "toy", "-n", 5, "--steps", 6, *args, "--out", f"{name}.npz") == 0
    first, *others = (np.load(f"{name}.npz")["arr_0"] for name in "abcde")
    assert all(not np.allclose(first, other) for other in others)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--steps", 0), ("--steps 0", "at least 1")),
        (("--churn", -1), ("--churn -1", "probability flow")),
        (("--churn", "nan"), ("--churn nan",)),
        (("-n", 0), ("-n 0",)),
        (("--batch", 0), ("--batch 0",)),
        (("--guidance", -2), ("--guidance -2",)),
        (("--gan", -1), ("--gan -1",)),
        (("--gan", 1), ("gan",)),  # a run without a discriminator
        (("--class", "cat"), ("--class cat", "0, 1, 2", "from 0 to 9")),
        (("--class", "10"), ("--class 10",)),
        (("--cond", "1", "--class", "2"), ("--cond and --class",)),
        (("--out", "x.jpg"), ("x.jpg", ".png, .zip, .npz, .csv")),
        (("--out", "x.csv"), ("x.csv", "images")),
    ],
)
def test_requests_that_cannot_be_met(
    runs: Path, refused: Callable[..., str], args: tuple[object, ...], words: tuple[str, ...]
) -> None:
    message = refused("sample", runs / "digits", *args)
    for word in words:
        assert word in message


def test_files_of_conditions_are_named_and_each_given_once(runs: Path, here: Path, refused: Callable[..., str]) -> None:
    Path("lr=0.1").mkdir()
    np.save("lr=0.1/t.npy", np.ones((2, 1)))
    np.save("b=c.npy", np.ones((2, 1)))
    for word, parts in {
        "text=lr=0.1/t.npy": ("text", "lr=0.1/t.npy"),
        "a=b=c.npy": ("a", "b=c.npy"),
        "b=c.npy": ("", "b=c.npy"),
        "text=gone.npy": ("text", "gone.npy"),
        "gone.npy": ("", "gone.npy"),
    }.items():
        assert named_file(word) == parts
    run = df.load(runs / "toy")
    for words in (("b=c.npy", "lr=0.1/t.npy"), ("a=b=c.npy", "a=lr=0.1/t.npy")):
        with pytest.raises(DataError, match="given twice"):
            conditions_of(words, run, 2)
    assert "trained without conditions; leave --cond out" in refused("sample", runs / "toy", "--cond", "b=c.npy")


def test_vectors_have_no_classes_and_no_pictures(runs: Path, refused: Callable[..., str]) -> None:
    assert "trained without classes" in refused("sample", runs / "toy", "--class", "3")
    assert "vectors" in refused("sample", runs / "toy", "--out", "x.zip")


def test_a_run_that_is_not_there(runs: Path, refused: Callable[..., str]) -> None:
    assert "diggits" in refused("sample", runs / "diggits")


def test_a_flipped_byte_is_noticed(runs: Path, here: Path, refused: Callable[..., str]) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    for path in sorted((here / "toy" / "checkpoints").glob("*/ema.safetensors")):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert "ema.safetensors" in refused("sample", "toy")


def test_a_full_disk_leaves_nothing_half_written(
    runs: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(os, "replace", full)
    assert "No space left on device" in refused("sample", runs / "toy", "-n", 4, "--steps", 2)


def test_samples_on_their_way(runs: Path, here: Path) -> None:
    for name, ask in {"digits": ("-n", 6, "--batch", 4), "toy": ("-n", 20)}.items():
        assert sample(runs, name, *ask, "--steps", 70, "--out", f"{name}.npz", "--animate", f"{name}.gif") == 0
        assert sample(runs, name, *ask, "--steps", 70, "--out", f"{name}-plain.npz") == 0
        ways = [np.load(f"{name}{plain}.npz")["arr_0"] for plain in ("", "-plain")]
        np.testing.assert_array_equal(*ways)  # watching changes nothing
        with Image.open(f"{name}.gif") as film:
            assert 30 <= film.n_frames <= 60
        assert Path(f"{name}.gif").stat().st_size < 3e6


def test_a_path_needs_steps_and_a_picture(
    runs: Path, refused: Callable[..., str], toy: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert "no path to show" in refused("sample", runs / "toy", "--steps", 1, "--animate", "x.gif")
    assert ".gif" in refused("sample", runs / "toy", "--animate", "x.png")
    home = tmp_path_factory.mktemp("wide")
    np.save(home / "wide.npy", np.random.default_rng(0).normal(size=(200, 3)))
    assert main(["train", str(home / "wide.npy"), *toy[2:], "--out", str(home / "run")]) == 0
    assert "3 columns" in refused("sample", home / "run", "--animate", "x.gif")
