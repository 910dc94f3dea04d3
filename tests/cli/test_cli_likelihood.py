"""likelihood and diagnose, on points, images and a table of mixed columns: numbers that agree with their files, and
requests that cannot be met."""

from __future__ import annotations

import csv
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

TABLE = (
    "--preset table --data.text levels --data.discrete levels --fit.batch 64 --model.net.width 16 --fit.log-every 10"
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people.csv and a run `people` on it."""
    home, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    rows = zip(rng.normal(170, 8, 400), rng.integers(0, 4, 400), rng.choice(["cat", "dog"], 400), strict=True)
    lines = [f"{height:.8g},{children},{pet}" for height, children, pet in rows]
    (home / "people.csv").write_text("\n".join(["height,children,pet", *lines]) + "\n")
    made = f"train {home}/people.csv {TABLE} --steps 60 --fit.holdout 0.2 --out {home}/people"
    assert main(made.split()) == 0
    return home


def scores(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("more", ["", "--bound --times 4"])
def test_points(runs: Path, here: Path, capsys: pytest.CaptureFixture[str], more: str) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    assert main(f"likelihood toy -n 20 --against circles {more}".split()) == 0
    assert "moons" in capsys.readouterr().out
    record, rows = json.loads((here / "toy" / "likelihood.json").read_text()), scores(here / "toy" / "likelihood.csv")
    assert [s["source"] for s in record["sources"]] == ["moons", "circles"]
    mine = np.array([float(r["nats"]) for r in rows if r["source"] == "moons"])
    assert len(mine) == 20
    assert record["sources"][0]["nats"] == pytest.approx(mine.mean(), rel=1e-5)
    theirs = np.array([float(r["nats"]) for r in rows if r["source"] == "circles"])
    assert record["auc"] == pytest.approx((mine[:, None] > theirs).mean(), abs=1e-9)
    assert (here / "toy" / "likelihood.png").exists()
    assert ("reverse SDE" in record["model"]) == bool(more)


def test_images_have_bits_and_extremes(runs: Path, here: Path) -> None:
    shutil.copytree(runs / "digits", here / "digits")
    assert main("likelihood digits -n 6 --steps 2 --out values.csv --variational 2".split()) == 0
    (source,) = json.loads((here / "digits" / "likelihood.json").read_text())["sources"]
    assert source["bits_per_dim"] == pytest.approx(-source["nats"] / (64 * np.log(2)))
    assert Image.open(here / "digits" / "likelihood-extremes.png").width > 50
    assert len(scores(here / "values.csv")) == 6


def test_a_row_has_the_same_value_in_any_batch(runs: Path) -> None:
    run = df.load(runs / "digits")
    x = df.data.load("digits", "test").x[:5]
    whole = run.log_likelihood(x, churn=1.0, times=4)
    for k in range(5):
        one = run.log_likelihood(x[k : k + 1], churn=1.0, times=4, noise=df.Noise(0).shift(k))
        torch.testing.assert_close(one.value, whole.value[k : k + 1], rtol=1e-5, atol=1e-3)


def test_rows_of_a_table_are_scored_by_the_names_of_their_columns(table: Path, here: Path) -> None:
    shutil.copytree(table / "people", here / "people")
    Path("new.csv").write_text("pet,height,age,children\ndog,171.5,40,2\ncat,168,22,0\n")
    assert main("likelihood people --data new.csv".split()) == 0
    swapped = {r["row"]: r["nats"] for r in scores(here / "people" / "likelihood.csv")}
    Path("same.csv").write_text("height,children,pet\n171.5,2,dog\n168,0,cat\n")
    assert main("likelihood people --data same.csv".split()) == 0
    assert swapped == {r["row"]: r["nats"] for r in scores(here / "people" / "likelihood.csv")}


def test_one_row_far_out_and_its_error(table: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(table / "people", here / "people")
    Path("one.csv").write_text("height,children,pet\n171.5,2,dog\n")
    assert main("likelihood people --data one.csv".split()) == 0
    (source,) = json.loads((here / "people" / "likelihood.json").read_text())["sources"]
    assert source["nats_stderr"] is None
    Path("far.csv").write_text("height,children,pet\n1e30,2,dog\n170,1,cat\n")
    assert main("likelihood people --data far.csv".split()) == 2
    assert "leave such rows out" in " ".join(capsys.readouterr().err.split())


def test_classes_are_matched_by_name(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with one of the classes asks for that class, whatever its number is there."""
    for folder, names in (("all", ("cat", "dog", "eel")), ("some", ("dog", "eel")), ("other", ("dog", "wolf"))):
        for name in names:
            (here / folder / name).mkdir(parents=True)
            for k in range(20):
                pixels = np.random.default_rng(k).integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(here / folder / name / f"{k}.png")
    small = "--model.net.widths 8 8 --model.net.head 8 --model.net.layers 1 --fit.batch 8 --steps 3"
    assert main(f"train all --preset mnist {small} --data.split all --out run".split()) == 0
    asked, own = [], df.Run.log_likelihood

    def spy(self, x, cond=None, **how):
        asked.append(cond)
        return own(self, x, cond, **how)

    monkeypatch.setattr(df.Run, "log_likelihood", spy)
    for more in ("--bound --times 2", "--steps 1"):
        assert main(f"likelihood run --data some --split all -n 6 --classes {more} --out some.csv".split()) == 0
        rows = torch.tensor([int(r["row"]) for r in scores(here / "some.csv")])
        assert torch.equal(asked.pop(), df.data.load("some", "all").y[rows] + 1)
    assert main("likelihood run --data other --split all --classes".split()) == 2
    assert "wolf" in capsys.readouterr().err


def test_on_a_scaled_schedule_the_bound_is_one_of_the_data(here: Path) -> None:
    """The bound of the joint model, of a net that says D = 0 at first, against the same model on EDM: scale is a change
    of units and no more."""
    values = []
    for schedule in ("edm", "flow"):
        Path("joint.yaml").write_text(
            "{type: LikelihoodConfig, model: {net: {type: MLPConfig, width: 8, depth: 1}}, "
            f"sampling: {{schedule: {schedule}, sigma_min: 0.05, sigma_max: 50.0}}, "
            "fit: {steps: 1, minutes: null, batch: 8, tensorboard: false}, denoiser: {lr: 1.0e-9}, "
            "discriminator: {lr: 1.0e-9}}"
        )
        assert main(f"train moons --config joint.yaml --out {schedule}".split()) == 0
        run = df.load(schedule)
        found = run.log_likelihood(df.data.load("moons", "test").x[:200], churn=1.0, times=64)
        values.append(found.value.mean().item())
    assert values[0] == pytest.approx(values[1], abs=1e-3)


def test_a_table_goes_all_the_way(table: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples in the units and words of the file, pictures of its columns, memorisation measured."""
    shutil.copytree(table / "people", here / "people")
    assert json.loads((here / "people" / "chosen.json").read_text())["of"] == 60
    assert main("sample people -n 30 --steps 4 --out new.csv".split()) == 0
    rows = scores(here / "new.csv")
    assert {r["pet"] for r in rows} <= {"cat", "dog"}
    assert {float(r["children"]) for r in rows} <= {0.0, 1.0, 2.0, 3.0}
    assert main("evaluate people -n 40 --steps 4".split()) == 0
    names = {m["name"] for m in json.loads((here / "people" / "evaluation.json").read_text())["metrics"]}
    assert {"marginal_w2", "nearest_ratio", "c2st"} <= names
    page = (here / "people" / "report.html").read_text()
    for picture in ("marginals", "pairs"):
        assert (here / "people" / f"{picture}.png").exists()
        assert f'alt="{picture}"' in page


@pytest.mark.parametrize("run", ["toy", "digits"])
def test_diagnose_holds_a_denoiser_against_a_linear_one(runs: Path, here: Path, run: str) -> None:
    shutil.copytree(runs / run, here / run)
    assert main(f"diagnose {run} -n 40 --levels 3".split()) == 0
    found = json.loads((here / run / "diagnose.json").read_text())["denoiser"]
    # what a linear denoiser leaves is between 0 and the variance, and rises with the noise
    assert 0 < found["linear"][0] < found["linear"][1] < found["linear"][2] < 1.2
    assert len(found["train"]) == len(found["test"]) == 3
    assert (here / run / "diagnose.png").exists()


@pytest.mark.parametrize("preset", ["gan", "discriminator-flow", "diffusion-gan", "ipm"])
def test_diagnose_reads_the_odds_of_a_discriminator(here: Path, preset: str) -> None:
    assert main(f"train moons --preset {preset} --steps 2 --fit.batch 16 --out run".split()) == 0
    assert main("diagnose run -n 20 --levels 2".split()) == 0
    found = json.loads((here / "run" / "diagnose.json").read_text())["discriminator"]
    assert found
    for entry in found:
        assert ("accuracy" in entry) == (preset != "ipm")
        assert ("gap" in entry) == (preset != "ipm")
        if "gap" in entry:
            assert sum(entry["count"]) == 40
            assert 0 <= entry["gap"] <= 1


def test_what_was_held_out_is_known_or_nothing_is_claimed(
    table: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own file by any spelling of its path is scored on its held-out rows, unless it has changed."""
    shutil.copytree(table / "people", here / "people")
    assert main(["likelihood", "people", "-n", "5", "--data", f"{table}/./people.csv"]) == 0
    (source,) = json.loads((here / "people" / "likelihood.json").read_text())["sources"]
    assert (source["split"], source["of"]) == ("test", 40)
    text = (table / "people.csv").read_text()
    try:
        (table / "people.csv").write_text(text + "170,2,dog\n")
        assert main("likelihood people -n 5".split()) == 2
        assert "has changed" in capsys.readouterr().err
    finally:
        (table / "people.csv").write_text(text)


def test_samples_of_a_table_without_names_are_read_as_its_own(here: Path) -> None:
    np.savetxt("plain.csv", np.random.default_rng(0).normal(size=(60, 2)), delimiter=",")
    assert main("train plain.csv --steps 3 --fit.batch 8 --out run".split()) == 0
    assert main("sample run -n 6 --steps 2 --out new.csv".split()) == 0
    assert main("likelihood run --data new.csv".split()) == 0
    assert len(scores(here / "run" / "likelihood.csv")) == 6
    Path("words.csv").write_text("171.5,high\n168,low\n180,high\n")
    assert main("likelihood run --data words.csv".split()) == 2


def test_too_few_rows_leave_nothing_behind(here: Path) -> None:
    np.savetxt("few.csv", np.random.default_rng(0).normal(size=(11, 2)), delimiter=",")
    assert main("train few.csv --steps 3 --out run".split()) == 2
    assert not Path("run").exists()


def test_what_cannot_be_scored(runs: Path, table: Path, refused: Callable[..., str]) -> None:
    toy, people = runs / "toy", table / "people"
    assert "shape" in refused("likelihood", toy, "--data", "digits")
    assert "nowhere" in refused("likelihood", toy, "--data", "nowhere.csv")
    assert "--n 0 " in refused("likelihood", toy, "-n", "0")
    assert "--steps 0 " in refused("likelihood", toy, "--steps", "0")
    assert "--times 3 " in refused("likelihood", toy, "--bound", "--times", "3")
    assert "--variational -3 " in refused("likelihood", toy, "--variational", "-3")
    assert "leave out --steps" in refused("likelihood", toy, "--bound", "--steps", "3")
    assert "nowhere" in refused("likelihood", toy, "--against", "nowhere.csv")
    assert "--classes" in refused("likelihood", toy, "--classes")
    assert "there are none" in refused("likelihood", toy, "--variational", "3")
    files = {
        "lacks": "height,children\n170,2\n",
        "gaps": "height,children,pet\n170,,dog\n171,1,cat\n",
        "words": "height,children,pet\n170,2,fish\n171,1,cat\n",
        "levels": "height,children,pet\n170,2.5,dog\n171,1,cat\n",
    }
    made = {}
    for name, text in files.items():
        made[name] = table / f"{name}.csv"
        made[name].write_text(text)
    assert "column 'pet'" in refused("likelihood", people, "--data", made["lacks"], "--split", "all")
    assert "row 2, column 'children'" in refused("likelihood", people, "--data", made["gaps"], "--split", "all")
    assert "fish" in refused("likelihood", people, "--data", made["words"], "--split", "all")
    assert "levels" in refused("likelihood", people, "--data", made["levels"], "--split", "all")


def test_tables_want_choices(table: Path, refused: Callable[..., str]) -> None:
    source = table / "people.csv"
    assert "--data.text levels" in refused("train", source, "--steps", "2", "--data.text", "refuse")
    assert "--data.discrete" in refused("train", source, "--steps", "2", "--data.text", "drop")
    assert "--data.text" in refused("train", source, "--steps", "2", "--data.text", "guess")


def test_a_generator_has_no_density(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("train moons --preset gan --steps 2 --fit.batch 16 --out run".split()) == 0
    assert main("likelihood run".split()) == 2
    assert "generator has no equation" in " ".join(capsys.readouterr().err.split())


def test_rows_kept_aside_are_for_losses_that_can_be_compared(refused: Callable[..., str]) -> None:
    assert "fit.holdout" in refused("train", "moons", "--preset", "gan", "--steps", "2", "--fit.holdout", "0.1")
    assert "fit.holdout" in refused("train", "moons", "--steps", "2", "--fit.holdout", "0.9")
