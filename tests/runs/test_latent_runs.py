"""Runs whose model lives in latents: everything a user reads is decoded, a density is refused, and no run opens with
another coder than its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import diffflow as df
from diffflow.cli import main
from diffflow.data import DataError, load
from diffflow.models.settings.serialise import ConfigError
from diffflow.runs import report
from diffflow.training.run_folder import Folder, RunError

DIGITS = load("digits")
SMALL = {"fit.batch": 8, "fit.tensorboard": False, "sampling.steps": 2, "model.net.widths": (4, 4)}
SMALL |= {"model.net.groups": 2, "model.net.head": 4, "model.net.layers": 1}
FLAGS = "--fit.batch 8 --fit.no-tensorboard --sampling.steps 2 --model.net.widths 4 4 --model.net.groups 2".split()
FLAGS += "--model.net.head 4 --model.net.layers 1".split()


class Autoencoder(nn.Module):
    """64 pixels to 2 x 4 x 4 latents and back, to be trained."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 32))
        self.up = nn.Sequential(nn.Flatten(), nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 64))

    def encode(self, x: Tensor) -> Tensor:
        return self.down(x).unflatten(1, (2, 4, 4))

    def decode(self, z: Tensor) -> Tensor:
        return self.up(z).unflatten(1, (1, 8, 8))


@pytest.fixture(scope="module")
def coder() -> Autoencoder:
    """A tiny autoencoder, trained on the digits for a moment."""
    torch.manual_seed(0)
    net, x = Autoencoder(), DIGITS.encode(DIGITS.x)
    adam = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(60):
        adam.zero_grad()
        (net.decode(net.encode(x)) - x).square().mean().backward()
        adam.step()
    return net


@pytest.fixture(scope="module")
def own(coder: Autoencoder, tmp_path_factory: pytest.TempPathFactory) -> df.Run:
    """A run in the latents of that coder."""
    return df.train(DIGITS.with_coder(coder), tmp_path_factory.mktemp("own") / "run", steps=3, settings=SMALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two autoencoders of diffusers, `coder` and `other`, and a run in the latents of the first."""
    import diffusers

    home = tmp_path_factory.mktemp("latent")
    for seed, name in enumerate(("coder", "other")):
        torch.manual_seed(seed)
        diffusers.AutoencoderTiny(
            1, 1, (4, 4), (4, 4), latent_channels=2, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)
        ).save_pretrained(home / name)
    np.save(home / "digits.npy", DIGITS.x[:150, 0].numpy())
    words = ["train", str(home / "digits.npy"), "--latent", str(home / "coder"), "--steps", "3"]
    words += ["--out", str(home / "run"), *FLAGS]
    assert main(words) == 0
    return home


def test_samples_grids_and_units_are_those_of_the_data(own: df.Run, coder: Autoencoder):
    assert own.shape == (1, 8, 8)
    assert own.data["shape"] == [2, 4, 4]
    path = own.sample(5, noise=3, keep=1)
    assert path.last.shape == (5, 1, 8, 8)
    assert all(x.shape == (5, 1, 8, 8) for _, x in path.kept)
    # the same by hand: the equation in latents, then the decoder
    labels = torch.arange(5)
    z = own.config.draw(own.players, own.data, 5, own.dials, labels, df.Noise(3)).last
    with torch.no_grad():
        x = coder.decode(z / own.space.scale + own.space.shift)
    assert torch.allclose(own.sample(5, labels, noise=3).last, ((x + 1) / 2).clamp(0, 1), atol=1e-5)
    assert torch.allclose(own.encode(DIGITS.x[:4]), DIGITS.with_coder(coder).latents[:4, 0], atol=1e-5)
    assert list((own.path / "samples").glob("*.png"))
    text = Path(report.write(own.path)).read_text()
    assert "of shape (1, 8, 8)" in text
    assert "coder=coder" in text


def test_the_coder_learned_and_loses_what_the_note_says(coder: Autoencoder):
    (note,) = [n for n in DIGITS.with_coder(coder).notes if "decoded again" in n]
    assert float(note.split("differ from the data by ")[1].split()[0]) < 1  # the mean picture alone loses 1


def test_evaluation_compares_decoded_samples_with_the_data(
    own: df.Run, coder: Autoencoder, monkeypatch: pytest.MonkeyPatch
):
    compared, nothing = [], df.metrics.Evaluation((), {})
    monkeypatch.setattr("diffflow.runs.evaluate.compare", lambda *sets, **_: compared.append(sets) or nothing)
    test = load("digits", split="test")
    for data in (DIGITS, DIGITS.with_coder(coder)):
        own.evaluate(data, n=40, heldout=test, features="none")
    (own.path / "evaluation.json").unlink()
    x = own.sample(40, DIGITS.sample_conditions(40), noise=0).last
    for samples, train, heldout, labels, _ in compared:
        assert torch.equal(samples, x)
        assert torch.equal(train.x, DIGITS.x)
        assert heldout is test
        assert torch.equal(labels, DIGITS.labels(40))


def test_floats_are_compared_in_their_own_standard_units(tmp_path: Path):
    x = torch.randn(40, 2, 16, generator=torch.Generator().manual_seed(0)) * 5 + 40
    data = df.data.of(x, kind="signal")

    class Wide:
        def encode(self, x: Tensor) -> Tensor:
            return 100 * x

        def decode(self, z: Tensor) -> Tensor:
            return z / 100

    samples = torch.randn(12, 2, 16, generator=torch.Generator().manual_seed(1)) * 5 + 40
    plain, coded = (df.metrics.evaluate(samples, d).to_dict()["metrics"] for d in (data, data.with_coder(Wide())))
    assert plain == coded


def test_a_coder_from_python_is_handed_back_or_the_run_does_not_open(own: df.Run, coder: Autoencoder):
    again = df.load(own.path, coder=coder)
    assert torch.equal(again.sample(3, noise=0).last, own.sample(3, noise=0).last)
    with pytest.raises(DataError, match=r"coder from Python \(.*Autoencoder\).*hand it back in Python, df.load\(path"):
        df.load(own.path)
    torch.manual_seed(1)
    with pytest.raises(DataError, match=r"is not the coder that this run was trained with"):
        df.load(own.path, coder=Autoencoder())


@pytest.mark.parametrize("command", "sample evaluate calibrate diagnose likelihood frontier distill".split())
def test_every_command_says_who_has_the_coder(own: df.Run, capfd: pytest.CaptureFixture[str], command: str):
    assert main([command, str(own.path)]) == 2
    err = capfd.readouterr().err.strip().splitlines()
    assert len(err) == 1
    assert "hand it back in Python, df.load(path, coder=...)" in err[0]


def test_a_density_of_latents_is_refused_with_the_reason(own: df.Run):
    for ask in (own.log_prob, own.log_likelihood, own.dequantiser):
        with pytest.raises(ValueError, match="a density of latents is none of the data that they decode to"):
            ask(DIGITS.x[:2])


def test_bytes_are_not_spread_for_a_density_that_there_is_not(coder: Autoencoder, tmp_path: Path):
    settings = SMALL | {"data.dequantise": True}
    with pytest.raises(ConfigError, match=r"data.dequantise = True spreads bytes .* leave it out"):
        df.train(DIGITS.with_coder(coder), tmp_path / "run", steps=2, settings=settings)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_in_its_own_space_only(own: df.Run, coder: Autoencoder, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(own.path, run)
    for data in (DIGITS, DIGITS.with_coder(coder, scale=2.0), DIGITS.with_coder(Autoencoder())):
        with pytest.raises(RunError, match=r"lives in latents of .*Autoencoder, and not in the space that is given"):
            df.train(data, run, steps=4, resume=True)
    again = df.train(DIGITS.with_coder(coder), run, steps=4, resume=True)
    whole = df.train(DIGITS.with_coder(coder), tmp_path / "whole", steps=4, settings=SMALL)
    assert torch.equal(again.sample(3, noise=0).last, whole.sample(3, noise=0).last)


@pytest.mark.parametrize("model", ["gan", "drifting"])
def test_other_families_live_in_latents_too(coder: Autoencoder, tmp_path: Path, model: str):
    settings = {"fit.batch": 8, "fit.tensorboard": False}
    run = df.train(DIGITS.with_coder(coder), tmp_path / "run", model=model, steps=1, settings=settings)
    assert run.sample(2).last.shape == (2, 1, 8, 8)


def test_a_folder_is_kept_in_the_run_and_opened_by_itself(home: Path):
    about = Folder(home / "run").about()["data"]["latent"]
    assert about["path"] == str(home / "coder")
    assert Folder(home / "run").config().data.latent == str(home / "coder")
    run = df.load(home / "run")
    assert run.space.path == str(home / "coder")
    assert run.sample(2).last.shape == (2, 1, 8, 8)
    data = load(home / "digits.npy").with_coder(home / "coder")
    twin = df.train(data, home / "twin", steps=3, settings=SMALL)  # the same from Python
    assert torch.equal(twin.sample(3, noise=0).last, run.sample(3, noise=0).last)
    assert df.load(home / "twin").config.data.latent == str(home / "coder")


def test_a_folder_that_moved_is_named_and_another_one_refused(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    shutil.copytree(home / "run", run)
    about = json.loads((run / "run.json").read_text())
    about["data"]["latent"]["path"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(about))
    out = ["--out", str(tmp_path / "x.npz"), "-n", "2"]
    assert main(["sample", str(run), *out]) == 2
    assert "--latent PATH" in capfd.readouterr().err
    assert main(["sample", str(run), *out, "--latent", str(home / "coder")]) == 0
    capfd.readouterr()
    assert main(["sample", str(run), *out, "--latent", str(home / "other")]) == 2
    assert "is not the coder that this run was trained with" in capfd.readouterr().err
    moved = shutil.copytree(home / "coder", tmp_path / "moved")
    assert torch.equal(df.load(run, coder=moved).sample(2, noise=0).last, df.load(home / "run").sample(2, noise=0).last)
    with pytest.raises(DataError, match="is not the coder"):
        df.load(run, coder=home / "other")
    on = ["train", "--resume", "auto", "--out", str(run), "--steps", "4", "--latent"]
    assert main([*on, str(home / "other")]) == 2
    assert "not in the space that is given" in capfd.readouterr().err
    assert main([*on, str(moved)]) == 0
    assert df.load(run).space.path == str(moved)  # from now on


def test_particles_do_not_follow_the_score_of_latents(home: Path, capfd: pytest.CaptureFixture[str]):
    words = ["flow", str(home / "digits.npy"), "--model", "ncsn", "--score", str(home / "run"), "-n", "4"]
    assert main([*words, "--out", str(home / "x.png")]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "lives in latents, and particles move among the data: name a run without them" in line
