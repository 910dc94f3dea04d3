"""Every family of models on the command line: train, sample, evaluate, cite; and the dials that it has or has not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffflow as df
from diffflow.cli import main

SMALL = ["--steps", "4", "--fit.batch", "16", "--fit.log-every", "2"]
NETS = {
    "gan": ["--model.generator.width", "8", "--model.discriminator.width", "8"],
    "discriminator-flow": ["--model.net.width", "8", "--path.steps", "4", "--path.eta", "0.5"],
    "diffusion-gan": ["--model.net.width", "8", "--critic.width", "8", "--ranges.steps", "2", "8",
                      "--sampling.steps", "4", "--sampling.sigma-max", "2"],
    "sw-generator": ["--model.width", "8"],
    "score-gan": [],  # the network of the run that it starts from
}  # fmt: skip
GENERATORS = ("gan", "sw-generator", "score-gan")


@pytest.fixture(scope="module")
def models(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each family on moons."""
    home = tmp_path_factory.mktemp("models")
    for name, nets in NETS.items():
        start = ["--init-from", str(runs / "toy")] if name == "score-gan" else []
        assert main(["train", "moons", "--preset", name, *SMALL, *nets, *start, "--out", str(home / name)]) == 0
    return home


@pytest.mark.parametrize("name", NETS)
def test_each_is_sampled_measured_and_cited(
    models: Path, here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = str(models / name)
    for ask in (["-n", "9"], ["-n", "9", "--batch", "4"]):
        assert main(["sample", run, *ask, "--out", f"{len(ask)}.csv"]) == 0
    whole, parts = (np.loadtxt(f"{k}.csv", delimiter=",", skiprows=1) for k in (2, 4))
    assert whole.shape == (9, 2)
    np.testing.assert_allclose(whole, parts, rtol=1e-3, atol=1e-4)
    assert ("1 evaluations" in capsys.readouterr().out) == (name in GENERATORS)
    assert main(["evaluate", run, "-n", "12"]) == 0
    card = json.loads((models / name / "evaluation.json").read_text())["card"]["sampler"]
    if name in GENERATORS:
        assert card == {"evaluations": 1}
    else:
        assert card.keys() == {"solver", "steps", "gan", "churn", "guidance", "evaluations"}
        assert card["gan"] == 1.0
        assert card["evaluations"] == card["steps"] * (3 if name == "diffusion-gan" else 2)
    assert main(["cite", run]) == 0
    assert "zhang2023diffflow" in capsys.readouterr().out
    numbers = json.loads((models / name / "evaluation.json").read_text())["metrics"]
    assert not {"modes", "within"} & {m["name"] for m in numbers}  # a moon has no modes
    page = (models / name / "report.html").read_text()
    assert "sliced_w2" in page


def test_the_gan_dial(models: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(models / "diffusion-gan")
    for gan in ("0", "1", "2"):
        assert main(["sample", run, "-n", "5", "--steps", "3", "--gan", gan, "--out", f"{gan}.npz"]) == 0
    zero, one, two = (np.load(f"{gan}.npz")["arr_0"] for gan in "012")
    assert not np.allclose(zero, one)
    assert not np.allclose(one, two)
    assert "3 evaluations" in capsys.readouterr().out
    assert main(["evaluate", run, "-n", "12", "--steps", "2", "--gan", "0.5", "--churn", "1"]) == 0
    card = json.loads((models / "diffusion-gan" / "evaluation.json").read_text())["card"]["sampler"]
    assert (card["gan"], card["churn"], card["steps"]) == (0.5, 1.0, 2)


def test_outside_the_trained_range_a_line_warns(models: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["sample", str(models / "diffusion-gan"), "-n", "6", "--batch", "2", "--out", "x.npz"]
    assert main([*ask, "--gan", "5"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("diffflow: warning: gan=5 is outside [0, 2]")
    assert ".py" not in line
    assert main([*ask, "--gan", "2"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["gan", "score-gan"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--steps", 5), "steps = 5"),
        (("--churn", 1), "churn = 1"),
        (("--gan", 1), "gan = 1"),
        (("--guidance", 2), "guidance = 2"),
        (("--solver", "heun"), "solver = Heun"),
    ],
)
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_generator_has_no_dials(
    models: Path, refused: Callable[..., str], command: str, name: str, flags: tuple[object, ...], words: str
) -> None:
    message = refused(command, models / name, "-n", 12, *flags)
    assert words in message
    assert "a generator draws in one evaluation" in message


def test_a_generator_has_no_path(models: Path, refused: Callable[..., str]) -> None:
    message = refused("sample", models / "gan", "--animate", "x.gif")
    assert "a generator has no path" in message
    assert "leave --animate out" in message
    assert "--steps" not in message  # which a generator refuses in turn
    flow = models / "discriminator-flow"
    assert "Give at least --steps 2" in refused("sample", flow, "--animate", "x.gif", "--steps", 1)


def test_dials_of_others_are_refused(models: Path, refused: Callable[..., str], runs: Path) -> None:
    assert "churn = 1: this model has no such dial" in refused("sample", models / "discriminator-flow", "--churn", 1)
    assert "gan = 0: this model has no such dial" in refused("evaluate", models / "discriminator-flow", "--gan", 0)
    assert "this run has no discriminator" in refused("evaluate", runs / "toy", "--gan", 1)
    assert "--gan -1" in refused("evaluate", models / "diffusion-gan", "--gan", -1)


def test_particles_of_a_discriminator_on_their_way(models: Path, here: Path) -> None:
    assert main(["sample", str(models / "discriminator-flow"), "-n", "20", "--animate", "x.gif"]) == 0
    with Image.open("x.gif") as film:
        assert film.n_frames == 5  # the start and four steps


# -- training ---------------------------------------------------------------------------------------------------------
def test_one_class_cannot_be_told_apart(here: Path, refused: Callable[..., str]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    np.savez("cats.npz", x=x, y=np.zeros(20, np.int64), classes=np.array(["cat"]))
    for name in ("gan", "discriminator-flow", "diffusion-gan", "drifting"):
        message = refused("train", "cats.npz", "--preset", name, "--steps", 2, "--out", "run")
        assert "a single class (cat)" in message
        assert "give the data without classes" in message


def test_one_subfolder_is_no_class(here: Path) -> None:
    (here / "pictures" / "cats").mkdir(parents=True)
    for k in range(20):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(here / "pictures" / "cats" / f"{k}.png")
    assert main(["train", "pictures", "--preset", "gan", *SMALL, "--out", "run"]) == 0
    run = df.load("run")
    assert run.classes is None
    assert run.sample(3).last.shape == (3, 1, 8, 8)


def test_score_gan_needs_a_run_of_a_denoiser(models: Path, runs: Path, refused: Callable[..., str], here: Path) -> None:
    ask = ("train", "moons", "--preset", "score-gan", "--steps", 2, "--out", "run")
    assert "Score GAN needs a trained denoiser of the same data" in refused(*ask)
    assert "not a GANConfig" in refused(*ask, "--init-from", models / "gan")
    assert "nowhere" in refused(*ask, "--init-from", "nowhere")
    assert "do not fit" in refused(*ask, "--init-from", runs / "toy", "--model.net.depth", 5)
    assert "data has shape (1, 8, 8)" in refused(*ask[:1], "digits", *ask[2:], "--init-from", runs / "toy")
    assert main(["train", "--preset", "score-gan", "--init-from", str(runs / "toy"), *SMALL, "--out", "run"]) == 0
    assert df.load("run").data["name"] == "moons"  # the data of the run that it starts from


def test_a_network_for_other_data_is_named(here: Path, refused: Callable[..., str]) -> None:
    (here / "c.yaml").write_text("model: {generator: {type: MLPGeneratorConfig}}\n")
    assert "MLPGeneratorConfig is for vectors" in refused(
        "train", "digits", "--preset", "gan", "--config", "c.yaml", "--steps", 2
    )


def test_presets_by_model_are_helped_and_listed(
    here: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean 'discriminator-flow'" in refused("train", "moons", "--preset", "discriminatorflow")
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    for name, make in df.presets.BY_MODEL.items():
        assert re.search(rf"^    {re.escape(name)} +{re.escape(make.__doc__ or '')}", shown, flags=re.M)


@pytest.mark.parametrize("name", ["discriminator-flow", "score-gan", "drifting"])
def test_dry_run_of_any_family_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["train", "moons", "--preset", name, "--dry-run", "--fit.batch", "16", "--minutes", "1"]) == 0
    told = capsys.readouterr().out
    assert all(f"{player} " in told for player in df.presets.preset(name).config.players())
    assert "1 minutes: about" in told
    assert not list(here.iterdir())
