"""Early stopping after the fact: rows kept aside choose among the averages of a training."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

import diffflow as df
from diffflow.data import Columns
from diffflow.models.diffusion import ModelConfig, SamplingConfig, ScoreConfig
from diffflow.models.gan import GANConfig
from diffflow.models.settings.common import DataConfig, FitConfig, PlayerConfig
from diffflow.models.settings.networks import MLPConfig
from diffflow.models.settings.serialise import ConfigError
from diffflow.objectives.score_matching import LikelihoodWeighting
from diffflow.training.batches import Batches
from diffflow.training.early_stopping import Choice, holdout_split, load_choice, losses
from diffflow.training.run_folder import Folder
from diffflow.training.state import TrainingState
from diffflow.training.train import train
from diffflow.training.weights import start_weights

FEW = ScoreConfig(
    DataConfig("few"),
    ModelConfig(MLPConfig(width=128, depth=2, octaves=(0, 1, 2))),
    LikelihoodWeighting(0.02, 10.0),
    PlayerConfig(lr=5e-3, warmup=5),
    FitConfig(batch=32, steps=1000, holdout=0.4, log_every=50, tensorboard=False),
    SamplingConfig(sigma_min=0.02, sigma_max=10.0),
)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=300)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty points of the plane: a net learns them by heart in no time."""
    path = tmp_path_factory.mktemp("few") / "few.csv"
    np.savetxt(path, df.TOYS["8gaussians"]().sample(60, noise=0).numpy(), delimiter=",")
    return df.data.load(path, "all", columns=Columns(discrete="keep"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    return train(FEW, tmp_path_factory.mktemp("runs") / "few", data=data, console=quiet())


def test_the_parts_make_the_whole():
    digits = df.data.load("digits")
    learned, aside = holdout_split(digits, 0.2)
    assert aside is not None
    assert len(learned) + len(aside) == len(digits)
    counts = [torch.bincount(d.y, minlength=10) for d in (aside, digits)]
    assert (counts[0] - 0.2 * counts[1]).abs().max() <= 1  # a share of every class
    assert len({tuple(r) for r in learned.x.flatten(1).tolist()} & {tuple(r) for r in aside.x.flatten(1).tolist()}) < 5
    assert holdout_split(digits, 0.0) == (digits, None)


def test_memorising_is_seen_and_an_earlier_average_becomes_the_model(run):
    choice = Choice(**json.loads((run / "chosen.json").read_text()))
    assert choice.of == 1000
    assert choice.step < 1000
    assert choice.loss < choice.last - 0.05
    opened = df.load(run)
    assert opened.step == choice.step
    found = load_choice(Folder(run), 1000)
    assert found is not None
    for k, v in opened.players["denoiser"].named_parameters():
        torch.testing.assert_close(v, found[1][f"denoiser/{k}"], rtol=0, atol=0)
    for other in (df.load(run, raw=True), df.load(run, sigma_rel=0.05)):
        assert other.step == 1000


def test_candidates_are_compared_on_the_same_noise_and_leave_no_trace(data):
    torch.manual_seed(0)
    training = TrainingState(FEW.objective(FEW.build(data.meta()), data.meta()), FEW.players())
    (player,) = training.players.values()
    own = {k: p.detach().clone() for k, p in player.module.named_parameters()}
    other = {k: v + 0.1 for k, v in own.items()}
    a, b, c = losses(training, [own, other, own], Batches(data, 0, torch.device("cpu")), FEW.fit)
    assert a == c != b
    assert all(torch.equal(p, own[k]) for k, p in player.module.named_parameters())
    assert player.module.training


def test_a_run_that_goes_on_chooses_again(run, data, tmp_path):
    path = tmp_path / "few"
    shutil.copytree(run, path)
    longer = replace(FEW, fit=replace(FEW.fit, steps=1040))
    train(longer, path, resume="auto", data=data, console=quiet())
    assert json.loads((path / "chosen.json").read_text())["of"] == 1040
    (path / "chosen.json").write_text((run / "chosen.json").read_text())  # as if it had been killed before choosing
    assert df.load(path).step == 1040
    (path / "chosen.json").write_text("{")
    assert df.load(path).step == 1040


def test_every_average_stays_while_rows_may_choose_it(run):
    steps = sorted(int(p.stem) for p in (run / "ema").glob("*.safetensors"))
    assert steps[0] <= 12  # in other runs those before the last sixteenth are dropped


def test_a_run_starts_from_the_model_that_was_chosen(run):
    own = df.load(run).players["denoiser"].state_dict()
    for k, v in start_weights(run)["denoiser"].items():
        torch.testing.assert_close(v, own[k], rtol=0, atol=0)


def test_too_few_rows_are_refused_by_name(data):
    with pytest.raises(ConfigError, match=r"fit\.holdout = 0\.4 keeps 4 of 10 rows"):
        holdout_split(replace(data, x=data.x[:10]), 0.4)


def test_games_have_no_best_average(tmp_path, data):
    config = replace(GANConfig(), fit=replace(FEW.fit, steps=2))
    with pytest.raises(ConfigError, match=r"fit\.holdout"):
        train(config, tmp_path / "gan", data=data, console=quiet())
    assert not (tmp_path / "gan").exists()


PATIENT = replace(FEW, fit=replace(FEW.fit, steps=1500, patience=1.5))


@pytest.fixture(scope="module")
def patient(tmp_path_factory, data):
    return train(PATIENT, tmp_path_factory.mktemp("runs") / "patient", data=data, console=quiet())


def test_a_training_that_gets_no_better_ends_by_itself(patient):
    choice, about = Choice(**json.loads((patient / "chosen.json").read_text())), Folder(patient).about()
    end = choice.of
    assert about["finished"]
    assert "nothing better on 24 rows kept aside since step" in about["stopped"]
    since = int(about["stopped"].split()[-1])
    assert 250 <= since <= end / 1.5
    assert end < 1.5 * since * 2**0.25 + 1  # the first look that is so late
    assert choice.step >= 250


def test_a_training_that_goes_on_ends_where_it_would_have_ended(patient, tmp_path, data):
    begun = replace(PATIENT, fit=replace(PATIENT.fit, steps=300))
    train(begun, tmp_path / "again", data=data, console=quiet())
    train(PATIENT, tmp_path / "again", data=data, console=quiet(), resume="auto")
    first, second = (df.load(path, raw=True) for path in (patient, tmp_path / "again"))
    assert first.step == second.step
    for a, b in zip(first.players["denoiser"].parameters(), second.players["denoiser"].parameters(), strict=True):
        assert torch.equal(a, b)


def test_patience_wants_rows_kept_aside():
    with pytest.raises(ConfigError, match=r"give fit\.holdout"):
        FitConfig(patience=2.0)
    with pytest.raises(ConfigError, match="more than 1"):
        FitConfig(patience=1.0, holdout=0.1)
