"""Training with augmentation: the k-th example is a function of (seed, k), resumed to the bit, and told to the net."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffflow as df
from diffflow.data.augment import LABELS
from diffflow.models.diffusion import ModelConfig
from diffflow.models.settings.networks import FastUNetConfig, NetConfig
from diffflow.models.settings.serialise import ConfigError, load_yaml, to_dict
from diffflow.training.batches import Batches
from diffflow.training.run_folder import Folder

CPU = torch.device("cpu")


class Told(nn.Module):
    """A small network that is told how pictures were changed, by a layer that begins at zero."""

    def __init__(self, channels: int, labels: int):
        super().__init__()
        self.augment_labels = labels
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.tell = nn.Linear(max(1, labels), channels, bias=False)
        nn.init.zeros_(self.tell.weight)

    def forward(self, x: Tensor, time: Tensor, cond: Any = None, augment: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        return h if augment is None else h + self.tell(augment)[:, :, None, None]


@dataclass(frozen=True)
class ToldConfig(NetConfig):
    """Its settings."""

    augment_labels: int = 0

    def build(self, shape: tuple[int, ...], classes: int, conditions: Any = None) -> nn.Module:
        return Told(shape[0], self.augment_labels)


@dataclass(frozen=True)
class DeafConfig(NetConfig):
    """A network that cannot be told."""

    def build(self, shape: tuple[int, ...], classes: int, conditions: Any = None) -> nn.Module:
        return Told(shape[0], 0)


@pytest.fixture(scope="module")
def pictures() -> df.Data:
    x = torch.randint(0, 256, (30, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return df.data.of(x.numpy(), name="pictures")


def settings(**more: Any) -> dict[str, Any]:
    return {"fit.batch": 8, "fit.tensorboard": False, "data.augment": 0.5, **more}


def test_an_example_is_a_function_of_its_number(pictures: df.Data) -> None:
    stream = Batches(pictures, 3, CPU, augment=0.6)
    whole, part = stream(0, 40), Batches(pictures, 3, CPU, augment=0.6)(25, 10)
    assert torch.equal(whole.x[25:35], part.x)
    assert whole.augment is not None
    assert torch.equal(whole.augment[25:35], part.augment)
    plain = Batches(pictures, 3, CPU)(0, 40)
    assert plain.augment is None
    untouched = ~whole.augment.any(1)
    assert 0 < int(untouched.sum()) < 40
    assert torch.equal(whole.x[untouched], plain.x[untouched])
    only = Batches(pictures, 3, CPU, augment=0.6, kinds=("xflip",))(0, 40).augment
    assert only is not None
    assert only[:, 0].any()
    assert not only[:, 1:].any()


def test_a_net_is_told_in_training_and_samples_are_as_if_unchanged(pictures: df.Data, tmp_path: Path) -> None:
    net = ToldConfig()
    config = df.replace(df.presets.preset("mnist").config, {"model.net": net})
    run = df.train(pictures, tmp_path / "whole", steps=6, settings=settings(**{"model.net": net}), model="mnist")
    told = run.players["denoiser"].net
    assert told.augment_labels == LABELS
    assert told.tell.weight.abs().sum() > 0  # it has learned from the labels
    a = df.train(pictures, tmp_path / "cut", steps=3, settings=settings(**{"model.net": net}), model="mnist")
    b = df.train(pictures, a.path, steps=6, resume=True)
    weights = [r.players["denoiser"].state_dict() for r in (run, b)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert run.sample(2, steps=2, noise=0).last.shape == (2, 3, 8, 8)
    assert load_yaml(run.path / "config.yaml").data.augment == 0.5
    assert "augment" not in to_dict(config)["data"]  # settings that do not augment are what they were


def test_the_fast_net_is_told_where_pictures_are_augmented_and_only_there(pictures: df.Data) -> None:
    net = FastUNetConfig(widths=(8, 16), layers=1)
    config = df.ScoreConfig(model=ModelConfig(net))
    plain, told = (df.replace(config, {"data.augment": p}).build(pictures.meta())["denoiser"].net for p in (0.0, 0.12))
    assert (plain.augment_labels, told.augment_labels) == (0, LABELS)
    assert plain.augment is None
    x, time, label = torch.randn(4, 3, 8, 8), torch.zeros(4), torch.randn(4, LABELS)
    for p in told.parameters():
        torch.nn.init.normal_(p, std=0.1)
    zero = torch.zeros(4, LABELS)
    assert torch.equal(told(x, time), told(x, time, augment=zero))  # samples are those of untouched pictures
    assert not torch.equal(told(x, time), told(x, time, augment=label))


def test_an_adapted_game_is_resumed_to_the_bit(pictures: df.Data, tmp_path: Path) -> None:
    small = {"game.augment": 0.1, "fit.batch": 64, "fit.tensorboard": False, "fit.log_every": 1}
    small |= {"model.discriminator.widths": (8, 8), "model.generator.widths": (8, 8)}
    small |= {"generator.anneal": None, "discriminator.anneal": None}  # else longer ones differ
    runs = []
    for cuts in ((5,), (3, 5)):
        folder = tmp_path / f"{len(cuts)}"
        for k, steps in enumerate(cuts):
            how: dict[str, Any] = {"resume": True} if k else {"settings": small, "model": "relativistic"}
            run = df.train(pictures, folder, steps=steps, **how)
        runs.append(run)
    one, two = (torch.cat([v.flatten() for v in r.players["generator"].state_dict().values()]) for r in runs)
    assert torch.equal(one, two)
    logs = [[line["log"]["discriminator/augmented"] for line in Folder(r.path).lines()] for r in runs]
    assert logs[0] == logs[1]
    assert all(0 <= p <= 0.8 for p in logs[0])


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("mnist", {"data.augment": 0.1}, "UNetConfig cannot be told how"),
        ("mnist", {"data.augment": 1.5}, r"data.augment = 1.5 is the probability"),
        ("mnist", {"data.augment": 0.1, "data.augment_by": ("flip",)}, "'flip' is no kind of change"),
        ("mnist", {"data.augment": 0.1, "model.net": DeafConfig()}, "DeafConfig cannot be told how"),
        ("gan", {"data.augment": 0.1}, "GANs have game.augment"),
        ("diffusion-gan", {"data.augment": 0.1}, "GANConfig is not told how"),
        ("diffusion-gan", {"game.augment": 0.6}, "only GANs'"),
        ("discriminator-flow", {"game.augment": 0.6}, "only GANs'"),
        ("gan", {"game.augment": 1.6}, r"game.augment = 1.6 must be in \[0, 1\)"),
    ],
)
def test_what_cannot_be_augmented_is_refused_before_the_work(
    pictures: df.Data, tmp_path: Path, model: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        df.train(pictures, tmp_path / "run", model=model, steps=1, settings={"fit.batch": 4, **changes})
    assert not (tmp_path / "run").exists()


def test_points_are_not_turned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sees vectors"):
        df.train("moons", tmp_path / "run", model="gan", steps=1, settings={"game.augment": 0.6})
