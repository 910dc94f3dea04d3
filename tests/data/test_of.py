"""Data in memory: every form of the same rows is the same data to the bit, floats stay floats, and what would be a
guess is refused."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

import diffflow as df
from diffflow.data import Columns, Data, DataError, Transform, load, of
from diffflow.data.readers import memory
from diffflow.training.batches import Batches

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 3, 6, 5), dtype=np.uint8)
LABELS = RNG.integers(0, 3, 40)
SIGNALS = (RNG.normal(size=(50, 2, 16)) * np.array([0.3, 20.0])[:, None] + np.array([1.0, -7.0])[:, None]).astype("f4")
KINDS = {"vector": 1, "signal": 2, "image": 3, "volume": 4}


def same(a: Data, b: Data) -> None:
    """Assert that two data sets give one training: content, units, moments, batches, and the rows held out."""
    assert torch.equal(a.x, b.x)
    assert a.x.dtype == b.x.dtype
    assert a.classes == b.classes
    assert a.transform == b.transform
    assert a.fingerprint == b.fingerprint
    metas = [{k: v for k, v in d.meta().items() if k not in ("name", "notes")} for d in (a, b)]
    assert metas[0] == metas[1]
    one, other = (Batches(d, 3, torch.device("cpu"))(5, 20) for d in (a, b))
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.rows, other.rows)
    if a.y is not None:
        assert torch.equal(one.cond, other.cond)


def aside(data: Data) -> Data:
    """What is held out of data."""
    assert data.heldout is not None
    return data.heldout


class Frame:
    """What of a pandas data frame is asked for."""

    def __init__(self, columns: dict[str, Any]):
        self.values = {k: np.asarray(v) for k, v in columns.items()}
        self.columns = list(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def to_numpy(self) -> None:
        raise AssertionError("columns are read one by one")


class Items(Dataset):
    def __init__(self, x: Any, y: Any = None, keys: tuple[str, str] | None = None):
        self.x, self.y, self.keys = x, y, keys

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        if self.keys is not None:
            return dict(zip(self.keys, (self.x[i], self.y[i]), strict=True))
        return self.x[i] if self.y is None else (self.x[i], self.y[i])


class Stream(IterableDataset):
    def __init__(self, items: Items):
        self.items = items

    def __iter__(self) -> Any:
        return (self.items[i] for i in range(len(self.items)))


class HuggingFace(Items):
    """What of a data set of the library `datasets` is asked for."""

    column_names: ClassVar = ["image", "label"]

    class Label:
        names: ClassVar = ["cat", "dog", "eel"]

    def __init__(self, x: Any, y: Any):
        super().__init__(x, y, ("image", "label"))
        self.features = {"image": None, "label": self.Label()}


# -- every form is the reader's ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_arrays_are_those_of_an_npy_file(tmp_path, split):
    for kind, x in (("signal", SIGNALS), (None, RNG.normal(size=(30, 3))), (None, PIXELS), ("image", PIXELS / 99.0)):
        np.save(tmp_path / "x.npy", x)
        read = load(tmp_path / "x.npy", split, kind=kind)
        for form in (x, torch.from_numpy(x), list(x), (row for row in x), Items(x), DataLoader(Items(x), 7)):
            same(of(form, kind=kind, split=split), read)


def test_labelled_forms_are_those_of_an_npz_file(tmp_path):
    np.savez(tmp_path / "x.npz", x=PIXELS, y=LABELS)
    read = load(tmp_path / "x.npz")
    x, y = torch.from_numpy(PIXELS), torch.from_numpy(LABELS)
    forms = [
        (PIXELS, LABELS), {"x": PIXELS, "y": LABELS}, TensorDataset(x, y), Items(x, y), Stream(Items(x, LABELS)),
        Items(x, y, ("image", "label")), DataLoader(Items(x, y), 6, shuffle=True), DataLoader(Stream(Items(x, y)), 6),
        DataLoader(Items(x, y), 6, collate_fn=lambda items: default_collate(items)), zip(PIXELS, LABELS, strict=True),
    ]  # fmt: skip
    for form in forms:
        same(of(form), read)
    same(of(PIXELS, [str(v) for v in LABELS]), read)
    held = load(tmp_path / "x.npz", "test")
    data = of(PIXELS, LABELS)
    same(aside(data), held)
    assert {*map(bytes, data.x.numpy())} | {*map(bytes, held.x.numpy())} == {*map(bytes, PIXELS)}


def test_pictures_are_those_of_a_folder(tmp_path):
    pictures = [Image.fromarray(p.transpose(1, 2, 0)) for p in PIXELS]
    for k, (picture, label) in enumerate(zip(pictures, LABELS, strict=True)):
        folder = tmp_path / "x" / ["cat", "dog", "eel"][label]
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{k:03d}.png")
    order = np.argsort(LABELS, kind="stable")
    read = load(tmp_path / "x")
    same(of(HuggingFace([pictures[i] for i in order], LABELS[order].tolist())), read)

    class Captioned(HuggingFace):
        column_names: ClassVar = ["image", "caption", "label"]

    assert "columns that are not read: caption" in of(Captioned(pictures, LABELS.tolist())).notes
    grey = [Image.fromarray(p[0]) for p in PIXELS]
    mixed = of([*pictures[:20], *grey[20:]], split="all")
    assert torch.equal(mixed.x[20:], torch.from_numpy(PIXELS[20:, :1]).expand(-1, 3, -1, -1))
    assert any("20 of 40 images: grey, repeated" in note for note in mixed.notes)
    with pytest.raises(DataError, match="2 different sizes"):
        of([pictures[0], pictures[1].resize((9, 9))])


def test_a_data_frame_is_its_csv_file(tmp_path):
    n = 60
    columns = {
        "size": RNG.normal(size=n), "weight": RNG.normal(size=n).astype("f4"), "count": RNG.integers(0, 2**40, n),
        "colour": RNG.choice(["red", "blue"], n),
    }  # fmt: skip
    lines = [",".join(columns), *(",".join(str(v) for v in row) for row in zip(*columns.values(), strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    for text in ("levels", "drop"):
        choice = Columns(text=text)
        same(of(Frame(columns), columns=choice), load(tmp_path / "t.csv", columns=choice))
    strict = Columns(text="refuse")
    for wrong in (lambda frame: of(frame, columns=strict), lambda frame: of(frame, columns=choice, y="smell")):
        with pytest.raises(DataError, match=r"column 'colour' holds text: 'blue', 'red'|no column 'smell'"):
            wrong(Frame(columns))
    classed = of(Frame(columns), y="colour")
    assert classed.classes == ["blue", "red"]
    assert classed.shape == (3,)
    columns["size"][4] = np.nan
    with pytest.raises(DataError, match="row 5, column 'size': 'nan'"):
        of(Frame(columns), columns=choice)
    assert np.isnan(of(Frame(columns), split="all").x[4, 0])  # read by columns it is a gap
    nameless = of(Frame(dict(enumerate(RNG.normal(size=(3, n))))))  # type: ignore[arg-type]
    assert nameless.transform.columns == ("1", "2", "3")


# -- units -------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["signal", "image", "volume"]).flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            hnp.array_shapes(min_dims=KINDS[kind], max_dims=KINDS[kind], max_side=4),
            st.sampled_from(["f2", "f4", "f8", "i2", "u1"]),
            st.integers(0, 2**31),
        )
    )
)
def test_floats_come_back_and_channels_have_unit_deviation(case):
    kind, shape, dtype, seed = case
    rng = np.random.default_rng(seed)
    scale, shift = rng.uniform(0.5, 30, (shape[0], *[1] * (len(shape) - 1))), rng.uniform(-9, 9)
    x = (rng.normal(size=(20, *shape)) * scale + shift + 100 * (dtype == "u1")).clip(-250, 250).astype(dtype)
    if kind == "image" and dtype == "u1":
        return  # bytes
    assume(all(len(np.unique(channel)) > 1 for channel in x.swapaxes(0, 1)))
    data = of(x, kind=kind)
    if data.transform.of_bytes:  # integers in 0 to 255
        return
    assert (data.kind, data.shape, data.x.dtype) == (kind, shape, torch.float32)
    z = data.encode(data.x).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(z.mean(1), torch.zeros(shape[0]).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(1, correction=0), torch.ones(shape[0]).double(), rtol=0, atol=1e-5)
    back = data.decode(data.encode(data.x))
    # encode rounds z to 2^-24 of itself, and decode the sum to 2^-24 of itself
    bound = 2**-23 * (data.x.abs().amax() + 2 * max(map(abs, data.transform.mean)))
    torch.testing.assert_close(back, data.x, rtol=0, atol=float(bound))
    assert Transform.from_meta(json.loads(json.dumps(data.meta()))) == data.transform


def test_log_units_turn_a_gaussian_of_model_units_into_that_of_the_data():
    data = of(SIGNALS, kind="signal", split="all")
    z = data.encode(data.x).double()
    got = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1) + data.transform.log_units(data.x)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None] for v in (data.transform.mean, data.transform.std))
    law = torch.distributions.Normal(mean, std)
    torch.testing.assert_close(got, law.log_prob(data.x.double()).flatten(1).sum(1), rtol=1e-6, atol=0)


def test_moments_of_floats_are_those_of_the_encoded_data():
    data = of(SIGNALS, kind="signal")
    z = data.encode(data.x).double()
    assert data.mean == pytest.approx(float(z.mean()), abs=1e-6)
    assert data.std == pytest.approx(float(z.std(correction=0)), abs=1e-6)
    covariance = torch.cov(z.flatten(1).T, correction=0)
    assert data.principal_std == pytest.approx(float(torch.linalg.eigvalsh(covariance)[-1].sqrt()), rel=1e-2)
    stds = ", ".join(f"{v:.3g}" for v in data.x.double().transpose(0, 1).flatten(1).std(1, correction=0))
    assert any(f"divided by its standard deviation over the training rows: {stds} (" in note for note in data.notes)


def test_the_missing_axis_of_one_channel_is_added():
    for kind, x in (("signal", SIGNALS[:, 0]), ("image", SIGNALS), ("volume", SIGNALS.reshape(50, 2, 4, 4))):
        assert of(x, kind=kind).shape == (1, *x.shape[1:])


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_three_axes_are_never_guessed(tmp_path):
    for x in (SIGNALS, PIXELS[:, 0]):
        with pytest.raises(DataError, match="kind='signal' or kind='image'"):
            of(x)
    np.save(tmp_path / "x.npy", SIGNALS)
    with pytest.raises(DataError, match=r"--data.kind signal or --data.kind image"):
        load(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", PIXELS[:, 0])
    assert load(tmp_path / "x.npy").kind == "image"  # bytes of three axes in a file are grey images
    assert of(PIXELS[:, 0], kind="image").transform.of_bytes
    assert of(PIXELS[:, 0], kind="signal").x.dtype == torch.float32


def test_floats_of_four_axes_stay_floats_in_memory_and_where_a_file_s_kind_is_named(tmp_path):
    x = RNG.uniform(size=(30, 5, 6, 6))
    data = of(x)
    assert not data.transform.of_bytes
    assert any("images of floats, which stay floats" in note for note in data.notes)
    np.save(tmp_path / "x.npy", x[:, :3])
    assert load(tmp_path / "x.npy").transform.of_bytes
    assert not load(tmp_path / "x.npy", kind="image").transform.of_bytes
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=r"no axis of 1, 3 or 4 channels.*--data.kind"):
        load(tmp_path / "x.npy")
    assert load(tmp_path / "x.npy", kind="image").shape == (5, 6, 6)


@pytest.mark.parametrize(
    ("x", "how", "message"),
    [
        (np.where(np.arange(40)[:, None, None] == 7, np.nan, 1.0) * SIGNALS[:40], {"kind": "signal"}, "example 7$"),
        (SIGNALS.astype("f8") * 1e38, {"kind": "signal"}, r"not finite in float32; remove or rescale(.|\n)*example 0"),
        (SIGNALS * [[1], [0]], {"kind": "signal"}, r"never change.*\n  channel 2: always 0$"),
        (SIGNALS + np.array([[1e9], [0]]), {"kind": "signal"}, r"too far from zero.*\n  channel 1: mean 1e\+09"),
        (SIGNALS, {"kind": "volume"}, r"\(50, 2, 16\), which volumes .* do not have"),
        (SIGNALS, {"kind": "sound"}, "kind is one of"),
        (np.zeros(3, complex), {}, "complex64|complex128, not numbers"),
        ("moons", {}, "df.data.load reads these"),
        (7, {}, "of type int: give an array"),
        ([], {}, "gave no examples"),
        ([np.zeros(3), np.zeros(4)], {}, r"example 1 has shape \(4,\), and the first one \(3,\)"),
        ([(1.0, 2.0, 3.0)], {}, "3 parts"),
        ([{"picture": 1}], {}, "call the example one of image"),
        ({"train": HuggingFace([], []), "test": HuggingFace([], [])}, {}, "splits 'train', 'test': give one"),
        (np.ma.masked_array([1.0, 2.0]), {}, "masked"),
        (SIGNALS, {"kind": "signal", "test": [50]}, "rows that are not there"),
        (SIGNALS, {"kind": "signal", "test": np.ones(3, bool)}, "mask of shape"),
        (SIGNALS, {"kind": "signal", "test": [1], "heldout": SIGNALS}, "leave out test="),
        (np.eye(4)[:, :2], {"heldout": np.eye(3)}, r"heldout holds examples of shape \(3,\), .* of shape \(2,\)"),
        (PIXELS, {"y": LABELS, "heldout": (PIXELS, LABELS + 1)}, r"that the training rows do not have(.|\n)*  3$"),
        (PIXELS, {"augment": lambda x: x / 255}, "gave torch.float32 of shape .2, 3, 6, 5.: give back the same"),
        (PIXELS, {"augment": lambda x: x[..., 1:]}, "give back the same"),
        (PIXELS, {"limit": 0}, "at least 1"),
        (Items(PIXELS, torch.zeros(40, 3)), {}, r"float32 \(40, 3\); they should be one .*with_cond"),
        (np.zeros((9, 8, 8, 3)), {}, r"transpose\(0, 3, 1, 2\)"),
    ],
)
def test_what_cannot_be_meant_is_refused(x, how, message):
    with pytest.raises(DataError, match=message):
        of(x, **how)


def test_endless_iterables_need_a_limit(monkeypatch):
    rows = (RNG.normal(size=3) for _ in itertools.count())
    assert len(of(rows, limit=30, split="all")) == 30
    assert len(of(rows, limit=30, split="all")) == 30  # no row more was taken than asked for
    monkeypatch.setattr(memory, "MOST_ROWS", 50)
    with pytest.raises(DataError, match=r"goes on after 51 of them(.|\n)*limit="):
        of(rows)
    monkeypatch.setattr(memory, "MOST_ROWS", 10**6)
    monkeypatch.setattr(memory, "MOST_BYTES", 240)
    with pytest.raises(DataError, match="goes on after 11 of them"):
        of(rows)


# -- the user's own split, memory, and changes on the fly --------------------------------------------------------------


def test_test_rows_of_one_s_own():
    rows = np.arange(50) % 5 == 0
    for test in (rows, np.flatnonzero(rows), slice(0, 50, 5), torch.from_numpy(rows), range(0, 50, 5)):
        data = of(SIGNALS, kind="signal", test=test)
        assert torch.equal(data.x, torch.from_numpy(SIGNALS[~rows]))
        assert torch.equal(aside(data).x, torch.from_numpy(SIGNALS[rows]))
    pair = of(SIGNALS[~rows], LABELS, kind="signal", heldout=(SIGNALS[rows], LABELS[:10]))
    assert pair.fingerprint == of((SIGNALS[~rows], LABELS), kind="signal", split="all").fingerprint
    assert pair.transform == data.transform == aside(data).transform == aside(pair).transform
    assert torch.equal(aside(pair).x, aside(data).x)


@pytest.mark.parametrize("test", [np.arange(20) // 15, 5, 0.2, [1, 1], [[1], [2]]])
def test_what_may_be_a_mask_or_a_number_of_rows_is_not_guessed(test):
    with pytest.raises(DataError, match=r"a mask .* numbers"):
        of(SIGNALS[:20], kind="signal", test=test)


def test_no_test_rows_are_none_and_items_that_are_lists_are_named():
    assert len(of(SIGNALS[:20], kind="signal", test=[])) == 20
    with pytest.raises(DataError, match=r"items are x, \(x, y\) or dicts"):
        of([[row, 1] for row in SIGNALS[:20]], kind="signal")


def test_conditions_of_all_rows_follow_their_examples():
    c = SIGNALS.mean((1, 2), keepdims=True)[:, 0]
    data = of(SIGNALS, kind="signal").with_cond(c)
    torch.testing.assert_close(data.cond[:, 0], data.x.mean((1, 2)))
    torch.testing.assert_close(aside(data).cond[:, 0], aside(data).x.mean((1, 2)))
    assert aside(data).conditions == data.conditions
    with pytest.raises(DataError, match="give a row for each"):
        of(SIGNALS, kind="signal").with_cond(c[:49])


@pytest.mark.parametrize(("x", "kind"), [(SIGNALS, "signal"), (PIXELS, None)])
def test_memory_maps_are_not_copied(tmp_path, x, kind):
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    whole = of(mapped, kind=kind, split="all")
    assert np.shares_memory(whole.x.numpy(), mapped)
    parts = of(mapped, kind=kind, test=slice(30, None))
    assert np.shares_memory(parts.x.numpy(), mapped)
    assert np.shares_memory(aside(parts).x.numpy(), mapped)
    same(of(mapped, kind=kind), of(x, kind=kind))
    assert any("copied from the file into memory" in note for note in of(mapped, kind=kind).notes)
    data = of(x, kind=kind, split="all")  # an array may change under our hands
    assert not np.shares_memory(data.x.numpy(), x)


def jitter(x: torch.Tensor) -> torch.Tensor:
    return x + 0.1 * torch.randn(x.shape)


def test_changes_on_the_fly_are_a_function_of_seed_and_batch(tmp_path):
    plain, changed = (of(SIGNALS, kind="signal", augment=f) for f in (None, jitter))
    assert plain.fingerprint == changed.fingerprint
    a, b = (Batches(d, 0, torch.device("cpu")) for d in (plain, changed))
    state = torch.random.get_rng_state()
    first, again, later = b(8, 4), b(8, 4), b(12, 4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.x, again.x)
    noise = (first.x - a(8, 4).x) * torch.tensor(plain.transform.std)[:, None]
    other = (later.x - a(12, 4).x) * torch.tensor(plain.transform.std)[:, None]
    assert noise.std() == pytest.approx(0.1, rel=4.5 / math.sqrt(2 * noise.numel()) + 1e-3)
    assert not torch.allclose(noise, other)
    assert torch.equal(changed.batch(torch.arange(5))[0], plain.batch(torch.arange(5))[0])  # only for training
    small = {"fit.batch": 8, "fit.tensorboard": False, "model.net": df.UNetNDConfig(widths=(16,), head=16)}
    whole = df.train(changed, tmp_path / "a", steps=4, settings=small)
    df.train(changed, tmp_path / "b", steps=2, settings=small)
    resumed = df.train(changed, tmp_path / "b", steps=4, resume=True)
    left = df.train(plain, tmp_path / "c", steps=4, settings=small)
    for run, equal in ((resumed, True), (left, False)):
        pairs = zip(whole.denoiser.parameters(), run.denoiser.parameters(), strict=True)
        assert all(torch.equal(p, q) for p, q in pairs) == equal


def test_conditions_may_be_given_at_once():
    """cond= is with_cond: the rows that are held out take theirs with them."""
    x = np.arange(80, dtype=np.float32).reshape(40, 2) ** 1.5
    at_once, after = df.data.of(x, cond=2 * x), df.data.of(x).with_cond(2 * x)
    for a, b in ((at_once, after), (at_once.heldout, after.heldout)):
        assert torch.equal(a.cond, b.cond)
        assert torch.equal(a.cond, 2 * a.x)
