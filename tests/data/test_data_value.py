"""Data and Transform as values: encode and decode are inverse, meta is enough to decode, splits are fixed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffflow.data import Columns, DataError, Transform, load
from diffflow.data.conditions import in_proportion
from diffflow.data.prepare import finish, holdout
from diffflow.data.raw import Raw


@settings(deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5)))
def test_images_survive_encode_and_decode(x):
    transform = Transform("image", x.shape[1:])
    z = transform.encode(torch.from_numpy(x))
    assert z.dtype == torch.float32
    assert z.min() >= -1
    assert z.max() <= 1
    back = transform.decode(z)
    # float32 carries 24 bits: half a grey level is 4 orders away
    assert torch.equal((back * 255).round().to(torch.uint8), torch.from_numpy(x))
    torch.testing.assert_close(transform.encode(back), z, rtol=0, atol=3e-7)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, (7, 3), elements=st.floats(-5, 5)),
    st.lists(st.floats(-100, 100), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
)
def test_vectors_survive_decode_and_encode(z, mean, std):
    transform = Transform("vector", (3,), tuple(mean), tuple(std))
    z = torch.from_numpy(z).float()
    # decode rounds to float32 at the size of x: relative 2^-24 of (|mean| + 5 std), divided by std on the way back
    bound = 2**-23 * (max(np.abs(mean) / np.array(std)) + 10)
    torch.testing.assert_close(transform.encode(transform.decode(z)), z, rtol=0, atol=bound)


def test_meta_is_json_and_enough_to_decode():
    for data in (load("digits"), finish(Raw(np.random.default_rng(0).normal(3, 2, (50, 4))), "table", "train", False)):
        meta = json.loads(json.dumps(data.meta()))
        z = data.encode(data.x[:5])
        assert torch.equal(Transform.from_meta(meta).decode(z), data.decode(z))
        assert meta["count"] == len(data)
        assert len(meta["fingerprint"]) == 64


@given(
    counts=st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any),
    n=st.integers(1, 20_000),
    first=st.integers(0, 10**6),
)
@settings(deadline=None)
def test_classes_as_often_as_in_the_data(counts: list[int], n: int, first: int):
    labels = in_proportion(torch.tensor(counts), n, first)
    found = torch.bincount(labels, minlength=len(counts))
    expected = n * torch.tensor(counts).double() / sum(counts)
    # n is a sum of Fibonacci numbers, no two of them neighbours, and each such stretch of a golden rotation meets an
    # interval as often as it should but for 2, the variation of its indicator (Denjoy and Koksma)
    bound = 2 * (1 + math.log(5**0.5 * n, (1 + 5**0.5) / 2) / 2)
    assert (found - expected).abs().max() <= bound
    assert not found[torch.tensor(counts) == 0].any()
    assert torch.equal(in_proportion(torch.tensor(counts), n + first)[first:], labels)  # parts fit together


def test_labels_of_data():
    data = load("digits")
    labels = data.labels(len(data))
    assert labels is not None
    assert data.y is not None
    assert (torch.bincount(labels) - torch.bincount(data.y)).abs().max() <= 3
    assert load("8gaussians").labels(10) is None
    assert json.loads(json.dumps(data.meta()))["counts"] == torch.bincount(data.y).tolist()


def test_decode_clamps_and_encode_refuses():
    transform = Transform("image", (1, 1, 1))
    assert transform.decode(torch.tensor([[[[3.0]]], [[[-3.0]]]])).flatten().tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"\[0, 1\].*use uint8"):
        transform.encode(torch.full((1, 1, 1, 1), 2.0))
    with pytest.raises(ValueError, match="int64"):
        transform.encode(torch.zeros(1, 1, 1, 1, dtype=torch.int64))


def test_moments_and_spread_are_those_of_the_encoded_data():
    data = load("digits")
    z = data.encode(data.x).double()
    assert data.mean == pytest.approx(float(z.mean()), abs=1e-6)
    assert data.std == pytest.approx(float(z.std(correction=0)), abs=1e-6)
    covariance = torch.cov(z.flatten(1).T, correction=0)
    assert data.principal_std == pytest.approx(float(torch.linalg.eigvalsh(covariance)[-1].sqrt()), rel=1e-3)


def test_batch_takes_rows_and_mirrors_those_asked_for():
    data = load("digits", flip=True)
    index = torch.tensor([5, 0, 9])
    x, y = data.batch(index, torch.tensor([True, False, True]))
    plain = data.encode(data.x[index])
    assert torch.equal(x[1], plain[1])
    assert torch.equal(x[[0, 2]], plain[[0, 2]].flip(-1))
    assert y is not None
    assert data.y is not None
    assert torch.equal(y, data.y[index])


def test_fingerprint_sees_every_pixel_and_label():
    x = np.arange(48, dtype=np.uint8).reshape(12, 1, 2, 2)
    changed = x.copy()
    changed[3, 0, 1, 1] ^= 1
    y = np.arange(12) % 2
    prints = {
        finish(Raw(a, b), "x", "all", False).fingerprint for a, b in ((x, None), (x, y), (x, 1 - y), (changed, y))
    }
    assert len(prints) == 4
    assert finish(Raw(x, y), "other name", "all", False).fingerprint in prints


@settings(deadline=None)
@given(st.integers(2, 200), st.integers(1, 6), st.data())
def test_holdout_is_exact_and_stratified_and_empties_no_class(n, classes, data):
    y = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    count = data.draw(st.integers(0, n))
    mask = holdout(n, y, count)
    assert mask.sum() == min(count, n - len(np.unique(y)))
    assert np.array_equal(mask, holdout(n, y, count))
    sizes = np.array([(y == label).sum() for label in np.unique(y)])
    taken = np.array([mask[y == label].sum() for label in np.unique(y)])
    assert (taken < sizes).all()  # failed before: the last row of a small class was taken
    if (np.ceil(count * sizes / n) < sizes).all():  # largest remainders: within one of the exact share
        assert (abs(taken - count * sizes / n) < 1).all()
    assert holdout(n, None, count).sum() == count


def test_digits_split_is_stated_fixed_and_disjoint():
    train, test, everything = (load("digits", s) for s in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1297, 500, 1797)
    assert train.shape == (1, 8, 8)
    assert train.classes == [str(k) for k in range(10)]
    assert train.y is not None
    assert test.y is not None
    share = torch.bincount(test.y) / torch.bincount(torch.cat([train.y, test.y]))
    assert (share - 500 / 1797).abs().max() < 1 / 174  # 174: the smallest class
    rows = [d.x.flatten(1).tolist() for d in (train, test)]
    assert len({tuple(r) for r in rows[0] + rows[1]}) == 1797
    # results are quoted on this split: it must never move
    assert np.flatnonzero(holdout(1797, everything.y.numpy(), 500))[:5].tolist() == [3, 5, 7, 13, 16]


def test_toys_are_seeded_draws_of_their_law():
    train, test = load("moons"), load("moons", "test")
    assert len(train) == 10_000
    assert train.law is not None
    assert torch.equal(train.x, load("moons").x)
    assert not torch.equal(train.x, test.x)
    assert torch.equal(train.encode(train.x), train.x)
    # the mean log-density of draws estimates minus the entropy: two independent sets agree within 4.5 standard errors
    a, b = train.law.log_prob(train.x), train.law.log_prob(test.x)
    assert abs(float(a.mean() - b.mean())) < 4.5 * float((a.var() / len(a) + b.var() / len(b)).sqrt())


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("mooons", {}, "did you mean 'moons'"),
        ("digit", {}, "did you mean 'digits'"),
        ("zzzzzz", {}, "Names are 8gaussians.*checkerboard, digits; else give the path"),
        ("", {}, "no data called ''"),
        ("digits", {"split": "tset"}, "not 'tset'; did you mean 'test'"),
        ("digits", {"size": 16}, r"size=16 \(--data.size\) is for image files"),
        ("digits", {"size": 0}, "positive side"),
        ("moons", {"flip": True}, "flip mirrors images"),
    ],
)
def test_bad_requests_name_the_value_and_the_remedy(source, options, message):
    with pytest.raises(DataError, match=message):
        load(source, **options)


def test_constant_and_unbounded_columns_are_refused():
    x = np.random.default_rng(0).normal(size=(20, 3))
    x[:, 1] = 4.5
    with pytest.raises(DataError, match=r"--data.constant drop\n  column 2: always 4.5"):
        finish(Raw(x), "t", "train", False, columns=Columns(text="refuse"))
    x[:, 1] = np.arange(20) + 1e9
    with pytest.raises(DataError, match="subtract an offset"):
        finish(Raw(x), "t", "train", False)


def test_both_splits_share_the_statistics_of_the_training_rows():
    raw = Raw(np.random.default_rng(1).normal(5, 3, (200, 2)))
    train, test = finish(raw, "t", "train", False), finish(raw, "t", "test", False)
    assert train.transform == test.transform
    assert (len(train), len(test)) == (180, 20)
    torch.testing.assert_close(train.encode(train.x).mean(0), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(train.encode(train.x).std(0, correction=0), torch.ones(2), rtol=0, atol=1e-6)
