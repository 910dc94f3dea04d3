"""Few pictures: trained, sampled, evaluated, with counts and contents looked at before the work; and moved data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffflow as df
from diffflow.cli import main
from diffflow.cli.likelihood import Likelihood
from diffflow.console import to_stderr
from diffflow.data import DataError
from diffflow.data.small import remarks
from diffflow.runs import report
from diffflow.runs.evaluate import training_data

RNG = np.random.default_rng(0)
TINY = "--fit.batch 4 --model.net.widths 8 8 --model.net.head 8 --fit.no-tensorboard --sampling.steps 2".split()


def pictures(folder: Path, arrays: list[np.ndarray]) -> str:
    folder.mkdir(parents=True)
    for k, a in enumerate(arrays):
        Image.fromarray(a).save(folder / f"{k:03d}.png")
    return str(folder)


def noise(n: int, colour: bool = False) -> list[np.ndarray]:
    return list(RNG.integers(0, 256, (n, 8, 8, 3) if colour else (n, 8, 8), dtype=np.uint8))


def even(level: int, n: int = 1) -> list[np.ndarray]:
    return [np.full((8, 8), level, np.uint8)] * n


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work was begun")

    monkeypatch.setattr(df.Run, "sample", work)
    monkeypatch.setattr(df.Run, "log_likelihood", work)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*words: str) -> str:
        capsys.readouterr()
        assert main([*map(str, words)]) == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (noise(1), "a single image"),
        ([np.full((8, 8, 3), (250, 20, 20), np.uint8)] * 3, "all 2 images are equal"),  # red all over
    ],
)
def test_pictures_that_are_one_are_learned_and_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arrays: list, words: str
) -> None:
    """Failed before: a whole budget, then grids of NaN, and neither a sample nor a resumed step."""
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "few", arrays)
    assert main(["train", "few", "--preset", "mnist", "--steps", "2", *TINY, "--out", "run"]) == 0
    shown = capsys.readouterr().err
    assert words in shown
    assert "no sample grids" not in shown
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    assert main("train --resume auto --out run --steps 3".split()) == 0
    assert main("sample run -n 3 --out x.npz".split()) == 0
    assert np.load("x.npz")["arr_0"].shape[0] == 3


def test_of_equal_examples_the_width_is_that_of_their_pixels() -> None:
    """The exact denoiser of one picture is that picture at every noise level, so any positive width will do."""
    one = df.data.of(np.stack(noise(1))[:, None], split="all", kind="image")
    three = df.data.of(np.concatenate([np.stack(noise(1))[:, None]] * 3), split="all", kind="image")
    assert remarks(one) == ["a single image: a model can learn it by heart, and samples can only repeat it"]
    assert remarks(three) == ["all 3 images are equal: samples can only repeat that one"]
    for data in (one, three):
        assert data.principal_std == data.std > 0
    two = df.data.of(np.stack(noise(2))[:, None], split="all", kind="image")
    z = two.encode(two.x).flatten(1).double()
    assert two.principal_std == pytest.approx(float((z[0] - z[1]).norm() / 2), rel=1e-4)  # closed form of two points


@pytest.mark.parametrize(("level", "n"), [(0, 1), (0, 8), (255, 3), (128, 20)])
def test_constant_pictures_are_refused_before_the_work(
    tmp_path: Path, refused: Callable[..., str], level: int, n: int
) -> None:
    """Failed before: "sigma_data = 0.0 must be positive"."""
    source = pictures(tmp_path / "even", even(level, n))
    for more in (("--dry-run",), ("--out", tmp_path / "run")):
        message = refused("train", source, "--preset", "mnist", "--steps", "2", *TINY, *more)
        assert f"'even' is the grey level {level} of 255 throughout: there is nothing to learn in it" in message
    assert not (tmp_path / "run").exists()


def test_one_dot_is_enough_to_learn_from() -> None:
    x = np.zeros((4, 1, 8, 8), np.uint8)
    x[2, 0, 3, 3] = 1
    assert df.data.of(x, kind="image", split="all").meta()["std"] > 0
    with pytest.raises(DataError, match="throughout"):
        df.data.of(np.zeros((4, 1, 8, 8), np.uint8), kind="image").meta()


def test_unbalanced_classes_are_said() -> None:
    x, y = np.stack(noise(100))[:, None], np.repeat([0, 1], [91, 9])
    even = np.repeat([0, 1], [90, 10])
    data = df.data.of(x, y, kind="image", split="all")
    assert remarks(data) == [
        "unbalanced classes: 9 of 1, 91 of 0. Samples are of every class in turn; `--class data` draws them as often "
        "as here"
    ]
    assert remarks(df.data.of(x[1:], even[1:], kind="image", split="all")) == []
    assert remarks(df.data.of(x, kind="image", split="all")) == []


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 20 pictures of two unbalanced classes, and a run on them."""
    home = tmp_path_factory.mktemp("twenty")
    pictures(home / "pics" / "a", noise(17))
    pictures(home / "pics" / "b", noise(3))
    words = ["train", str(home / "pics"), "--preset", "mnist", "--steps", "2", *TINY, "--out", str(home / "run")]
    assert main(words) == 0
    return home


def test_twenty_pictures_are_evaluated(twenty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Failed before: "at least 12 points in each set, got [40, 18, 2]", after all sampling."""
    run = str(twenty / "run")
    assert main(["evaluate", run, "-n", "12", "--features", "none"]) == 0
    shown = capsys.readouterr()
    assert "20 real points, only 2 held out: too few for two sets of 12" in shown.err
    found = {m["name"]: m for m in json.loads((twenty / "run" / "evaluation.json").read_text())["metrics"]}
    assert {"nearest", "nearest_ratio", "memorised", "accuracy"} == set(found)
    assert "memorised" in (twenty / "run" / "report.html").read_text()


def test_counts_are_looked_at_first(tmp_path: Path, refused: Callable[..., str], forbidden: None) -> None:
    source = pictures(tmp_path / "one", noise(1))
    run = str(tmp_path / "run")
    assert main(["train", source, "--preset", "mnist", "--steps", "1", *TINY, "--out", run]) == 0
    assert "12 samples and 2 training points, got 40 and 1" in refused("evaluate", run, "-n", "40")
    assert "at least 12" in refused("evaluate", run, "-n", "11")


def test_copies_are_called_so_in_words(twenty: Path, tmp_path: Path) -> None:
    """A run whose samples are its training pictures."""
    run = df.load(twenty / "run")
    train, held = training_data(run)
    found = df.metrics.evaluate(train.x[torch.arange(40) % len(train)], train, held)
    assert found["memorised"].value == 1
    assert "100% of the samples are copies of training examples" in found["memorised"].note
    home = shutil.copytree(twenty / "run", tmp_path / "run")
    (home / "evaluation.json").write_text(json.dumps(found.to_dict()))
    assert "<p><b>100% of the samples are copies of training examples" in report.write(home).read_text()


def test_moved_data_are_known_by_their_content(
    twenty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(twenty / "pics", "pics2")
    shutil.copytree(twenty / "run", "run")
    path, config = Path("run/config.yaml"), (tmp_path / "run" / "config.yaml").read_text()
    path.write_text(config.replace(str(twenty / "pics"), "gone"))
    run = df.load("run")
    for source in ("pics2", "./pics2", f"../{tmp_path.name}/pics2"):
        chosen = Likelihood("run", n=1).choose(run, source, to_stderr())
        assert (chosen.data.split, len(chosen.data)) == ("test", 2)  # its own held-out rows
        assert len(training_data(run, source)[0]) == 18
    assert main(["likelihood", "run", "-n", "1", "--steps", "1", "--split", "all", "--data", source]) == 0
    entry = json.loads(Path("run/likelihood.json").read_text())["sources"][0]
    assert (entry["split"], entry["of"]) == ("all", 20)
    assert "trained on these examples" in capsys.readouterr().err
    assert main(["train", source, "--resume", "auto", "--out", "run", "--steps", "3"]) == 0


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("evaluate run -n 12", "--data"),
        ("likelihood run -n 1", "--data"),
        ("diagnose run", "--data"),
        ("likelihood run -n 1 --variational 1 --data other.npy", "--data"),
        ("train --resume auto --out run --steps 9", "diffflow train SOURCE --resume auto --out run"),
    ],
)
def test_what_has_moved_is_asked_for_by_flag(
    twenty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], line: str, remedy: str
) -> None:
    """Failed before: "no data called ...; did you mean 'spirals'?"."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(twenty / "run", "run")
    np.save("other.npy", np.stack(noise(9))[:, None])
    path, config = Path("run/config.yaml"), (tmp_path / "run" / "config.yaml").read_text()
    path.write_text(config.replace(str(twenty / "pics"), "./spiral"))
    message = refused(*line.split())
    assert "the data of run were at './spiral' and are not there: say where they are, " + remedy in message
