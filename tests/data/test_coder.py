"""Coders: latents are the data in other coordinates, exactly where the coder is linear, and what would be a silently
wrong latent is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import diffflow as df
from diffflow.data import Data, DataError, load, of
from diffflow.data.autoencoder import WEIGHTS
from diffflow.data.coder import LatentSpace, same_space
from diffflow.models.presets import fitting
from diffflow.training.batches import Batches
from diffflow.training.early_stopping import holdout_split

DIGITS = load("digits")


class Linear(nn.Module):
    """The first k principal axes of rows x (n, *shape): an orthogonal coder, whose decoder is its transpose."""

    def __init__(self, x: Tensor, k: int, shape: tuple[int, ...]):
        super().__init__()
        self.data_shape, self.shape = tuple(x.shape[1:]), shape
        axes = torch.linalg.svd(x.flatten(1) - x.flatten(1).mean(0), full_matrices=False)
        self.register_buffer("mean", x.flatten(1).mean(0))
        self.register_buffer("axes", axes.Vh[:k])
        self.widths = axes.S / len(x) ** 0.5  # the principal standard deviations

    def encode(self, x: Tensor) -> Tensor:
        return ((x.flatten(1) - self.mean) @ self.axes.T).unflatten(1, self.shape)

    def decode(self, z: Tensor) -> Tensor:
        return (z.flatten(1) @ self.axes + self.mean).unflatten(1, self.data_shape)


class Identity:
    """No change at all; no torch module either."""

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z


LINEAR = Linear(DIGITS.encode(DIGITS.x), 16, (1, 4, 4))
LATENT = DIGITS.with_coder(LINEAR)


def test_an_orthogonal_coder_gives_the_projection_of_the_data_in_standard_units():
    z = LATENT.latents[:, 0]
    assert LATENT.shape == (1, 8, 8)
    assert z.shape == (1297, 1, 4, 4)
    # float32: the sum of 20752 entries is exact to about 1e-7 of their size in float64, each entry to 1e-7
    assert abs(z.double().mean().item()) < 1e-6
    assert abs(z.double().std(correction=0).item() - 1) < 1e-6
    x = DIGITS.encode(DIGITS.x)
    centred = x.flatten(1).double() - LINEAR.mean
    projected = centred @ LINEAR.axes.T.double() @ LINEAR.axes.double() + LINEAR.mean
    assert torch.allclose(LATENT.space.decode(LATENT.encode(DIGITS.x)).flatten(1).double(), projected, atol=1e-5)
    shown = DIGITS.transform.decode(projected.float().unflatten(1, (1, 8, 8)))
    assert torch.allclose(LATENT.decode(z), shown, atol=1e-5)
    assert LATENT.fingerprint == DIGITS.fingerprint  # they are the same data


def test_meta_tells_both_shapes_and_the_moments_of_the_latents():
    meta = LATENT.meta()
    assert meta["shape"] == [1, 4, 4]
    assert meta["data_shape"] == [1, 8, 8]
    assert meta["kind"] == "image"
    assert meta["transform"] == DIGITS.meta()["transform"]
    assert meta["mean"] == pytest.approx(0, abs=1e-6)
    assert meta["std"] == pytest.approx(1, abs=1e-6)
    largest = LINEAR.widths[0].item() * LATENT.space.scale  # of principal axes the first is the widest
    assert meta["principal_std"] == pytest.approx(largest, rel=1e-4)
    assert not {"data_shape", "latent"} & DIGITS.meta().keys()  # plain runs say nothing new


def test_scale_and_shift_are_undone_and_may_be_given():
    whole = Linear(DIGITS.encode(DIGITS.x), 64, (64,))
    data = DIGITS.with_coder(whole, scale=-3.0, shift=0.7)
    x = DIGITS.encode(DIGITS.x[:50])
    z = data.space.encode(x)
    assert torch.allclose(z, (whole.encode(x) - 0.7) * -3.0, atol=1e-5)
    assert torch.allclose(data.space.decode(z), x, atol=1e-5)
    assert torch.allclose(data.latents[:50, 0], z, atol=1e-5)


def test_batches_are_latents_of_the_rows_and_of_their_mirror_images():
    data = replace(DIGITS, flip=True).with_coder(LINEAR)
    rows, flips = torch.tensor([3, 700, 5]), torch.tensor([False, True, True])
    z, y = data.batch(rows, flips)
    x, labels = replace(DIGITS, flip=True).batch(rows, flips)
    assert torch.allclose(z, data.space.encode(x), atol=1e-5)
    assert torch.equal(y, labels)
    with pytest.raises(DataError, match=r"flip .* before with_coder"):
        replace(LATENT, flip=True)


@pytest.mark.parametrize("flip", [False, True])
def test_the_identity_as_coder_trains_the_same_bits(tmp_path: Path, flip: bool):
    x = torch.randn(60, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    plain = of(x, kind="image", flip=flip)
    coded = plain.with_coder(Identity(), scale=1.0, shift=0.0)
    settings = {"fit.batch": 8, "fit.tensorboard": False, "model.net.widths": (4,), "model.net.head": 4}
    settings |= {"model.net.groups": 2, "model.net.layers": 1, "fit.precision": "fp32", "sampling.steps": 2}
    runs = [df.train(d, tmp_path / str(k), steps=2, settings=settings) for k, d in enumerate((plain, coded))]
    one, other = (run.players["denoiser"].state_dict() for run in runs)
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert torch.equal(*(run.sample(3, noise=1).last for run in runs))
    metas = [{k: v for k, v in run.data.items() if k not in ("notes", "latent", "data_shape")} for run in runs]
    assert metas[0] == metas[1]
    assert (tmp_path / "0/config.yaml").read_bytes() == (tmp_path / "1/config.yaml").read_bytes()


def test_rows_kept_aside_keep_their_latents_and_conditions():
    told = torch.arange(len(DIGITS)).float()[:, None].repeat(1, 2)
    learned, aside = holdout_split(LATENT.with_cond(told), 0.1)
    for part in (learned, aside):
        assert torch.equal(DIGITS.x[part.cond[:, 0].long()], part.x)  # the conditions were those of other rows
        assert torch.equal(LATENT.latents[part.cond[:, 0].long()], part.latents)
    batch = Batches(learned, 0, torch.device("cpu"))(0, 4)
    assert torch.equal(batch.x, learned.latents[batch.rows, 0])


def test_presets_fit_what_the_network_sees():
    assert fitting(LATENT) == "digits"
    assert fitting(DIGITS.with_coder(Linear(DIGITS.encode(DIGITS.x), 8, (8,)))) == "table"
    assert fitting(DIGITS.with_coder(Linear(DIGITS.encode(DIGITS.x), 8, (2, 4)))) == "signal"


class Random(Identity):
    def encode(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Dead(Identity):
    def encode(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Smaller(Identity):
    def decode(self, z: Tensor) -> Tensor:
        return z[..., :4]


class Whole(Identity):
    def encode(self, x: Tensor) -> Tensor:
        return x.round().int()


@pytest.mark.parametrize(
    ("coder", "words"),
    [
        (Random(), "encodes the same rows otherwise each time: let encode give the mean"),
        (Dead(), "std 0: nothing to learn"),
        (Smaller(), r"decode of the Smaller gave shape \(1, 8, 4\), where \(1, 8, 8\) is wanted"),
        (Whole(), "encode of the Whole gave torch.int32 .* not floats"),
        (Identity, "the coder is the class Identity: give an object"),
        (nn.Linear(2, 2), "the coder is a Linear: give an object with encode"),
        (Linear(torch.randn(9, 5), 2, (2,)), r"encode of the Linear failed on \(8, 1, 8, 8\)"),
    ],
)
def test_what_is_no_coder_is_refused_in_a_sentence(coder: object, words: str):
    with pytest.raises(DataError, match=words) as caught:
        DIGITS.with_coder(coder)
    assert "\n" not in str(caught.value)


def test_what_changes_encoded_rows_is_refused():
    with pytest.raises(DataError, match="has a coder already"):
        LATENT.with_coder(LINEAR)
    for change in (
        lambda: replace(DIGITS, augment=lambda x: x).with_coder(LINEAR),
        lambda: replace(LATENT, augment=lambda x: x),
    ):
        with pytest.raises(DataError, match="augment changes examples in every batch, and a coder encodes them once"):
            change()
    with pytest.raises(DataError, match="scale = 0"):
        DIGITS.with_coder(LINEAR, scale=0)
    with pytest.raises(DataError, match="autoencoders of diffusers code images of bytes, and 'moons' holds vectors"):
        load("moons").with_coder("anywhere")


def test_a_coder_is_known_again_by_what_it_decodes():
    told = LATENT.space.to_meta()
    assert same_space(told, json.loads(json.dumps(told)))
    assert same_space(None, None)
    assert not same_space(told, None)
    assert not same_space(told, replace(LATENT.space, scale=2 * LATENT.space.scale).to_meta())
    assert not same_space(told, replace(LATENT.space, shift=0.5).to_meta())
    other = Linear(DIGITS.encode(DIGITS.x[:100]), 16, (1, 4, 4))
    assert not same_space(told, replace(LATENT.space, coder=other).to_meta())
    with pytest.raises(DataError, match="takes no coder"):
        LatentSpace.from_meta(DIGITS.meta(), LINEAR)


def test_a_module_codes_without_gradients_and_in_evaluation_mode():
    class Noisy(Linear):
        def encode(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(super().encode(x), 0.5, self.training)

    coder = Noisy(DIGITS.encode(DIGITS.x), 16, (1, 4, 4)).train()
    coder.axes = nn.Parameter(coder._buffers.pop("axes"))
    data = DIGITS.with_coder(coder)
    assert not data.latents.requires_grad
    assert torch.equal(data.latents, LATENT.latents)


def saved(kind: str, folder: Path, seed: int = 0) -> Path:
    """A folder with an autoencoder of diffusers of random weights, for grey pictures, with latents (2, h/2, w/2)."""
    import diffusers

    torch.manual_seed(seed)
    if kind == "AutoencoderTiny":
        model = diffusers.AutoencoderTiny(
            1, 1, (4, 4), (4, 4), latent_channels=2, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)
        )
    else:
        down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
        model = diffusers.AutoencoderKL(1, 1, down, up, (4, 4), latent_channels=2, norm_num_groups=2)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderKL"])
def test_an_autoencoder_of_diffusers_is_opened_from_its_folder(tmp_path: Path, kind: str):
    import diffusers

    folder = saved(kind, tmp_path / "coder")
    data = DIGITS.with_coder(folder)
    told = data.meta()["latent"]
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert (told["class"], told["path"], told["sha256"]) == (kind, str(folder), digest)
    model = getattr(diffusers, kind).from_pretrained(folder).eval()
    with torch.no_grad():
        out = model.encode(DIGITS.encode(DIGITS.x[:6]))
        z = out.latents if kind == "AutoencoderTiny" else out.latent_dist.mean  # the mean, not a sample
        x = model.decode(z).sample
    assert torch.allclose(data.latents[:6, 0], (z - data.space.shift) * data.space.scale, atol=1e-4)
    assert torch.allclose(data.space.decode(data.latents[:6, 0]), x, atol=1e-4)
    assert torch.allclose(DIGITS.with_coder(model).latents, data.latents, atol=1e-4)  # an object of it as well


class Hostile:
    """A pickle that leaves a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_folder_that_is_no_autoencoder_is_refused_and_nothing_of_it_runs(tmp_path: Path):
    folder = saved("AutoencoderTiny", tmp_path / "coder")

    def refused(words: str) -> None:
        with pytest.raises(DataError, match=words):
            DIGITS.with_coder(folder)

    weights, config = (folder / WEIGHTS).read_bytes(), json.loads((folder / "config.json").read_bytes())
    (folder / WEIGHTS).unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Hostile(tmp_path / "hurt")))
    refused("has no whole diffusion_pytorch_model.safetensors, and other weights are not opened")
    assert not (tmp_path / "hurt").exists()
    (folder / WEIGHTS).write_bytes(weights[:-40])
    refused("cannot be opened as AutoencoderTiny")
    (folder / WEIGHTS).write_bytes(weights)
    for name, words in ((config["_class_name"], "not those of its config.json"), ("UNet2DModel", "is wanted")):
        changed = config | {"_class_name": name, "num_encoder_blocks": [1, 2]}
        (folder / "config.json").write_text(json.dumps(changed))
        refused(words)
    (folder / "config.json").unlink()
    refused("as it has no config.json")
    (tmp_path / "pipeline").mkdir()
    saved("AutoencoderTiny", tmp_path / "pipeline" / "vae")
    with pytest.raises(DataError, match=r"did you mean .*vae"):
        DIGITS.with_coder(tmp_path / "pipeline")


def test_data_say_that_they_are_latents():
    text = "\n".join(LATENT.describe())
    assert "latents of shape (1, 4, 4)" in text
    assert "df.load(path, coder=...)" in text
    assert isinstance(LATENT, Data)
    x, z = DIGITS.encode(DIGITS.x[:512]), LATENT.latents[:512, 0]
    lost = ((LATENT.space.decode(z) - x).square().sum() / (x - x.mean()).square().sum()).sqrt()
    assert f"by {lost.item():.2g} of their std" in text
