"""Runs of signals, volumes and images of floats: measured, drawn and written; a run of data from Python is measured
there and on the command line alike."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

import diffflow as df
from diffflow import cli
from diffflow.data import tiles
from diffflow.explorer.server import Runs, SampleRequest, draw_frames
from diffflow.metrics.pretrained import ResNet20
from diffflow.models.settings.serialise import from_yaml, to_yaml
from diffflow.runs import evaluate, report
from diffflow.runs.evaluate import conditions_for, measure, training_data
from diffflow.training import recorder

RNG = np.random.default_rng(0)
SIGNALS = RNG.normal(3, 2, (160, 2, 16)).cumsum(2).astype(np.float32)
SMALL = {
    "fit.batch": 8,
    "fit.tensorboard": False,
    "model.net": df.UNetNDConfig(widths=(16,), head=16),
    "sampling.steps": 2,
}


@pytest.fixture(scope="module")
def data() -> df.Data:
    return df.data.of(SIGNALS, np.arange(160) % 2, kind="signal", name="walks")


@pytest.fixture(scope="module")
def run(data: df.Data, tmp_path_factory: pytest.TempPathFactory) -> df.Run:
    return df.train(data, tmp_path_factory.mktemp("run") / "walks", steps=3, settings=SMALL)


def test_python_and_the_command_line_measure_alike(run, data, tmp_path, capsys):
    here = run.evaluate(data, 20)
    assert {"w2", "sliced_w2", "c2st", "accuracy"} <= {m.name for m in here}
    assert here.card["heldout"]["sha256"] == data.heldout.fingerprint
    assert json.loads((run.path / "evaluation.json").read_text()) == here.to_dict()
    np.savez(tmp_path / "x.npz", x=SIGNALS, y=np.arange(160) % 2)
    assert cli.main(["evaluate", str(run.path), "-n", "20", "--data", str(tmp_path / "x.npz")]) == 0
    there = json.loads((run.path / "evaluation.json").read_text())
    assert there["metrics"] == here.to_dict()["metrics"]
    assert "signals of shape 2×16" in report.write(run.path).read_text()
    with pytest.raises(ValueError, match=r"not the data that .* was trained on"):
        run.evaluate(df.data.of(SIGNALS + 1, kind="signal"))
    with pytest.raises(df.data.DataError, match="trained on data from Python"):
        run.evaluate()
    with pytest.raises(df.data.DataError, match="judges see images of bytes"):
        run.evaluate(data, 20, features="own")


def test_samples_are_judged_by_what_they_were_asked_for(tmp_path, capsys):
    """Other labels than the classes: they decide what is asked for, and no judge of classes looks at them."""
    x, y = torch.randn(120, 2, generator=torch.Generator().manual_seed(0)), torch.arange(120) % 4
    plain = df.data.of(x, y, split="all", name="x")
    size = (torch.arange(120) % 10 > 0).long()  # class 1 nine times in ten
    data = plain.with_cond(size)
    run = df.train(data, tmp_path / "run", steps=2, settings={"fit.batch": 8, "fit.holdout": 0.0})
    assert "no sample grids" not in capsys.readouterr().err
    assert run.classes == ["0", "1"]
    assert "accuracy" not in {m.name for m in run.evaluate(data, 20)}
    for known in (data, plain):
        asked = conditions_for(run, known, 100)
        assert set(asked.tolist()) == {0, 1}
        assert 80 <= int(asked.sum()) <= 97
    with pytest.raises(ValueError, match="other conditions than"):
        run.evaluate(plain.with_cond(1 - size), 20)
    out = tmp_path / "x.npz"
    command = ["sample", str(run.path), "-n", "50", "--steps", "1", "--class", "data", "--out", str(out)]
    assert cli.main(command) == 0
    assert 40 <= np.load(out)["labels"].sum() <= 49
    # the classes themselves as the condition: what lies where its class lies is judged right
    apart = df.data.of(torch.stack([10.0 * y, -10.0 * y], 1) + x, y, split="all").with_cond(y)
    same = df.train(apart, tmp_path / "same", steps=1, settings={"fit.batch": 8, "fit.holdout": 0.0})
    asked = conditions_for(same, apart, 40)
    placed = torch.stack([10.0 * asked, -10.0 * asked], 1) + 0.1 * x[:40]
    scores = {m.name: m.value for m in measure(same, placed, apart, None, None, None, 0, {})}
    assert scores["accuracy"] == 1.0


def test_test_rows_of_one_s_own_are_known_by_their_content(tmp_path):
    """The training rows lie in a file of their own: all of it is what the run saw, and nothing of it is held out."""
    data = df.data.of(SIGNALS[:100], kind="signal", heldout=SIGNALS[100:])
    run = df.train(data, tmp_path / "run", steps=1, settings=SMALL)
    np.save(tmp_path / "x.npy", SIGNALS[:100])
    train, held = training_data(run, tmp_path / "x.npy")
    assert train.fingerprint == data.fingerprint
    assert held is None
    assert training_data(run, data) == (data, data.heldout)
    assert run.evaluate(data, 12).card["heldout"]["n"] == 60
    assert run.evaluate(data, 12, heldout=df.data.of(SIGNALS[:30], kind="signal")).card["heldout"]["n"] == 27


def test_distances_are_those_of_points_in_model_units(data):
    x = torch.from_numpy(SIGNALS[:60]) + 1.0
    others = data.x.flip(0) - 0.5
    got = df.metrics.evaluate(x, data, others)
    points = [data.encode(v).flatten(1) for v in (x, data.x, others)]
    expected = df.metrics.sliced_w2(*points)
    assert (got["sliced_w2"].value, got["sliced_w2"].floor) == (expected.value, expected.floor)
    with pytest.raises(ValueError, match="different shapes"):
        df.metrics.evaluate(x[:, :1], data)


def test_samples_are_written_as_they_are(run, tmp_path, capsys):
    def sample(name: str, *more: str) -> int:
        return cli.main(["sample", str(run.path), "-n", "5", "--out", str(tmp_path / name), *more])

    assert [sample(f"x{suffix}") for suffix in (".npy", ".npz", ".png", ".zip", ".csv")] == [0, 0, 0, 2, 2]
    assert "makes signals, which go to .png, .npz, .npy." in " ".join(capsys.readouterr().err.split())
    x = np.load(tmp_path / "x.npy")
    assert (x.dtype, x.shape) == (np.float32, (5, 2, 16))
    file = np.load(tmp_path / "x.npz")
    assert np.array_equal(file["arr_0"], x)
    assert file["labels"].tolist() == [0, 1, 0, 1, 0]
    read = df.data.load(tmp_path / "x.npz", "all", kind="signal", like=run.transform)
    assert torch.equal(read.x, torch.from_numpy(x))
    assert sample("y.png", "--animate", str(tmp_path / "y.gif"), "--steps", "3") == 0
    assert getattr(Image.open(tmp_path / "y.gif"), "n_frames", 0) == 4


def test_tiles_show_values_where_they_are():
    """Bytes pass unchanged; others keep their order, whatever their range; a volume is its middle slice."""
    x = RNG.uniform(size=(3, 3, 5, 4)).astype(np.float32)
    assert np.array_equal(tiles.tiles(x), x)
    wide = RNG.normal(size=(4, 1, 6, 6)).astype(np.float32) * 1000
    shown = tiles.tiles(wide)
    inside = (shown > 0) & (shown < 1)
    slope = np.polyfit(wide[inside], shown[inside], 1)
    np.testing.assert_allclose(np.polyval(slope, wide[inside]), shown[inside], atol=1e-5)
    assert slope[0] > 0
    volume = np.stack([wide] * 3 + [np.zeros_like(wide)], 2)[:, :, [3, 3, 0, 3]]
    assert np.array_equal(tiles.tiles(volume), shown)
    assert tiles.tiles(RNG.normal(size=(4, 5, 6, 6))).shape == (4, 3, 6, 6)
    assert tiles.tiles(RNG.normal(size=(4, 2, 6, 6))).shape == (4, 1, 6, 6)


def test_a_plot_is_as_high_as_its_signal():
    """A rising line goes from the lower left to the upper right, above the line of zero where it is positive."""
    (plot,) = tiles.tiles(np.linspace(-1, 1, 40, dtype=np.float32)[None, None])
    ink = plot.sum(0) < plot.sum(0).max() - 0.8
    rows = [np.flatnonzero(ink[:, k]).mean() for k in (8, 72, 136)]
    np.testing.assert_allclose(rows, np.interp([8, 72, 136], [4, 140], [91, 4]), atol=1.5)


@pytest.mark.parametrize("shape", [(3, 2, 9), (3, 1, 4, 4, 4), (3, 5, 4, 4), (3, 1, 4, 4), (3, 2), (3, 1)])
def test_grids_of_every_kind(shape):
    x = torch.randn(shape)
    x[0] = torch.nan  # a young model
    assert recorder.beside(x, x).size[0] > 0


def test_a_grid_that_cannot_be_drawn_is_a_warning_once(data, tmp_path, monkeypatch, capsys):
    def broken(*args: object) -> None:
        raise ValueError("no such picture")

    monkeypatch.setattr(recorder, "beside", broken)
    settings = SMALL | {"fit.sample_minutes": 1e-9}
    assert df.train(data, tmp_path / "run", steps=3, settings=settings).step == 3
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("no sample grids, the training goes on: ValueError: no such picture") == 1


def test_plain_settings_do_not_mention_the_kind(tmp_path):
    plain = df.ScoreConfig()
    assert "kind" not in to_yaml(plain)
    named = df.replace(plain, {"data.kind": "signal"})
    assert "kind: signal" in to_yaml(named)
    assert (from_yaml(to_yaml(plain)), from_yaml(to_yaml(named))) == (plain, named)
    np.save(tmp_path / "x.npy", SIGNALS)
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert cli.main(["train", str(tmp_path / "x.npy"), "--data.kind=signal", "--print-config"]) == 0
    assert "kind: signal" in out.getvalue()


def test_the_explorer_shows_signals_as_pictures(run):
    line = Runs(run.path.parent).line(run.path.name)
    assert line["image"]
    answer = draw_frames(run, SampleRequest.of({"n": 3, "frames": 2}, line), lambda done, total: None)
    picture = Image.open(io.BytesIO(base64.b64decode(answer["png"])))
    _, high, wide = answer["shape"]
    assert picture.size == (3 * wide, len(answer["times"]) * high)


def test_likelihood_of_a_file_knows_which_rows_were_held_out(run, data, tmp_path):
    """The run's data came from Python; a file of the same rows says by its content that they are its own."""
    np.savez(tmp_path / "x.npz", x=SIGNALS, y=np.arange(160) % 2)
    args = ["likelihood", str(run.path), "--data", str(tmp_path / "x.npz"), "-n", "8", "--steps", "2"]
    assert cli.main(args) == 0
    (source,) = json.loads((run.path / "likelihood.json").read_text())["sources"]
    assert (source["split"], source["of"], source["sha256"]) == ("test", 16, data.heldout.fingerprint)
    assert "bits_per_dim" not in source  # densities of floats, in their own units


def test_pictures_that_a_judge_cannot_see_are_refused_before_any_is_drawn(monkeypatch):
    eyes = df.metrics.Classifier(ResNet20(), None, 10, "resnet20")
    monkeypatch.setattr(evaluate, "extractor", lambda *_: eyes)
    data = df.data.load("digits")
    with pytest.raises(ValueError, match="ResNet-20 judges colour images"):
        evaluate.judge_of("resnet20", data, 0)
    assert evaluate.judge_of("none", data, 0) is None
