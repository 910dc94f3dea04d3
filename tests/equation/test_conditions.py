"""Conditions: trees of rows, their null and their units; guidance by part against closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffflow as df
from diffflow.data import DataError
from diffflow.data.conditions import Condition, describe, encode, from_meta, null, to_meta
from diffflow.equation.conditions import apply, count, expanded, hide, is_null, is_single, leaves, repeated, rows
from diffflow.equation.noise import Noise
from diffflow.networks.condition_inputs import ConditionInput
from diffflow.objectives.base import Batch
from diffflow.objectives.score_matching import ScoreMatching

N = 12


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


RAW = {
    "labels": torch.arange(N) % 3,
    "vector": 5 * numbers(N, 3) + 2,
    "number": numbers(N, 1)[:, 0],
    "sequence": 4 * numbers(N, 5, 2),
    "tokens": torch.arange(4 * N).reshape(N, 4) % 7,
    "image": (torch.arange(N * 2 * 4 * 4) % 256).reshape(N, 2, 4, 4).to(torch.uint8),
    "floats": numbers(N, 2, 3, 3) * 9,
}


@given(picked=st.lists(st.sampled_from(list(RAW)), min_size=1, unique=True), index=st.permutations(range(N)))
@settings(max_examples=30, deadline=None)
def test_rows_and_units_commute_and_come_back_from_meta(picked, index):
    raw, index = {k: RAW[k] for k in picked}, torch.tensor(index[:5])
    found = describe(raw)
    whole = encode(found, raw)
    assert count(whole) == N
    for name, part in leaves(encode(found, rows(raw, index))):
        assert torch.equal(part, rows(whole, index)[name])
    assert from_meta({"classes": None, "cond": to_meta(found)}) == found


def test_floats_are_standardised_by_column_and_by_channel():
    for name, axes in (("vector", (0,)), ("floats", (0, 2, 3))):
        coded = Condition.of(RAW[name]).encode(RAW[name]).double()
        torch.testing.assert_close(coded.mean(axes), torch.zeros(coded.shape[1]).double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(coded.square().mean(axes), torch.ones(coded.shape[1]).double(), atol=1e-5, rtol=0)
    sequence = Condition.of(RAW["sequence"]).encode(RAW["sequence"])
    assert math.isclose(float(sequence.double().square().mean()), 1.0, rel_tol=1e-6)
    assert torch.equal(Condition.of(RAW["image"]).encode(RAW["image"]), RAW["image"].float() / 127.5 - 1)


def test_a_null_row_stays_null_in_every_kind_and_moves_no_scale():
    for name, values in RAW.items():
        if name == "image":
            continue
        floats = values.is_floating_point()
        gaps = values.clone()
        gaps[3] = torch.nan if floats else -1
        found = Condition.of(torch.cat([gaps, values[3:4]]))  # the same rows that say something
        coded = found.encode(gaps)
        assert is_null(coded).tolist() == [i == 3 for i in range(N)]
        before = Condition.of(values)
        torch.testing.assert_close(torch.tensor(found.std), torch.tensor(before.std))
        assert bool(is_null(null(found, 4)).all())


def test_one_condition_for_all_is_a_row_for_each():
    found = describe({"v": RAW["vector"], "l": RAW["labels"]})
    one = encode(found, {"v": RAW["vector"][0], "l": int(RAW["labels"][0])})
    assert is_single(one)
    several = expanded(one, 4)
    assert count(several) == 4
    assert torch.equal(several["v"], encode(found, rows(RAW_TWO, torch.zeros(4).long()))["v"])
    assert torch.equal(repeated(several, 2)["v"], several["v"].repeat(2, 1))
    assert bool(is_null(encode(found, {"l": 1})["v"]).all())  # what is left out is null


RAW_TWO = {"v": RAW["vector"], "l": RAW["labels"]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.zeros(N, 2), "never changes in column 0, 1"),
        (torch.zeros(N).long(), "holds 1 class: one class says nothing"),
        (torch.full((N,), -2), "whole numbers from 0"),
        (torch.tensor([[1.0, torch.nan], [0.0, 2.0]]), "no finite numbers, first in row 0"),
        (torch.tensor([[1.0], [torch.inf]]), "no finite numbers, first in row 1"),
        (torch.zeros(2, 2, 2, 2, 2, 2), "no condition"),
        (torch.tensor(1.0), "a row for each example"),
        (torch.zeros(N, 2, dtype=torch.complex64), "no condition"),
    ],
)
def test_what_is_no_condition_is_refused(values, words):
    with pytest.raises(DataError, match=words):
        describe(values)


def test_data_refuse_conditions_that_do_not_fit():
    data = df.data.load("moons")
    for cond, words in [
        (torch.zeros(3, 2), "for 10000 examples: give a row for each"),
        ({}, "a dict of conditions is empty"),
        ({"a": {"b": torch.zeros(10_000)}}, "is a dict"),
        ("text", "no array of numbers|a row for each"),
    ]:
        with pytest.raises(DataError, match=words):
            data.with_cond(cond)
    flipped = df.data.load("digits", flip=True)
    with pytest.raises(DataError, match="flip mirrors the examples and not the pictures"):
        flipped.with_cond(flipped.x)
    with pytest.raises(DataError, match="kinds names b"):
        data.with_cond({"a": data.x}, kinds={"b": "vector"})


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        ({"c": 1}, "has 'c'.*'v', 'l'"),
        (torch.zeros(3), "is no dict.*'v', 'l'"),
        ({"v": torch.zeros(4, 2)}, r"cond\['v'\] has shape \(4, 2\): give \(n, 3\)"),
        ({"l": 7}, r"cond\['l'\] = \[7\] must be integer labels 0..2"),
        ({"l": 0.5}, "of torch.float64 must be integer labels"),
        ({"v": torch.tensor([1.0, torch.nan, 2.0])}, "no finite numbers"),
    ],
)
def test_what_a_model_is_not_told_is_refused(cond, words):
    with pytest.raises(ValueError, match=words):
        encode(describe(RAW_TWO), cond)


class Frame:
    """What numpy makes an array of, as a data frame's column is."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __len__(self):
        return len(self.values)


def test_the_same_numbers_are_the_same_condition_in_any_form():
    data = df.data.of(torch.randn(6, 2), split="all")
    whole = np.array([2, 0, 1, 2, 1, 0])
    for labels in (np.uint16, np.uint32, np.uint64, np.int8, ">i4", "<i2"):
        c = whole.astype(labels)
        for form in (c, Frame(c), c[::-1].copy()[::-1], torch.from_numpy(whole.astype(np.int8)), list(c)):
            told = data.with_cond(form)
            assert encode(told.conditions, told.cond).tolist() == whole.tolist()
            assert encode(told.conditions, form).tolist() == whole.tolist()
    floats = whole / 4  # exact in every type
    wanted = encode(*(lambda d: (d.conditions, d.cond))(data.with_cond(floats)))
    for c in (floats.astype(np.float16), floats.astype(">f8"), floats[::-1].copy()[::-1], floats.astype(np.longdouble)):
        told = data.with_cond(Frame(c))
        assert torch.equal(encode(told.conditions, c), wanted)
    bf16 = torch.from_numpy(floats).bfloat16()
    told = data.with_cond(bf16)
    assert told.meta()["cond"]["sha256"]
    assert torch.equal(encode(told.conditions, bf16), wanted)
    assert torch.equal(encode(told.conditions, 0.5), wanted[:1])  # one number for all
    with pytest.raises(ValueError, match=r"has shape \(4, 3\): give \(n, 1\)"):
        encode(told.conditions, torch.ones(4, 3))
    for wrong in ("a", ["a", "b"], np.array([None]), torch.ones(6, dtype=torch.complex64), np.ones(6, "M8[D]")):
        with pytest.raises(ValueError, match="cond is"):
            encode(told.conditions, wrong)


def test_conditions_stay_what_they_were_given_as():
    c = np.arange(6.0)
    told = df.data.of(torch.randn(6, 2), split="all").with_cond({"array": c, "tensor": (t := torch.arange(6.0))})
    c[:] = 0
    t.zero_()
    assert told.cond["array"].tolist() == told.cond["tensor"].tolist() == list(range(6))


def test_other_labels_have_not_the_names_of_the_classes():
    y = torch.arange(30) % 3
    data = df.data.of(torch.randn(30, 2), np.array(["cat", "dog", "owl"])[y], split="all")
    other, some = torch.arange(30) % 5, torch.where(torch.arange(30) % 2 == 0, y, -1)
    found = data.with_cond({"other": other, "kind": y, "some": some, "two": y % 2}).conditions
    assert {name: len(c.names) for name, c in found.items()} == {"other": 5, "kind": 3, "some": 3, "two": 2}
    assert found["kind"].names == found["some"].names == ("cat", "dog", "owl")


def test_every_name_has_an_input_of_its_own():
    values = {"a.b": torch.randn(4, 2), "a_b": torch.randn(4, 2), "a%2eb": torch.randn(4, 2)}
    found = describe(values)
    net = ConditionInput(found, 8, (2,))
    assert len(net.parts) == 3
    base = net(encode(found, values), 4, torch.device("cpu"))
    for name in values:
        changed = net(encode(found, values | {name: torch.zeros(4, 2)}), 4, torch.device("cpu"))
        assert not torch.equal(base, changed)
    data = df.data.of(torch.randn(4, 2), split="all")
    for same in ({"": torch.randn(4, 1)}, {1: torch.randn(4, 1), "1": torch.randn(4, 1)}):
        with pytest.raises(DataError, match="a name of its own"):
            data.with_cond(same)


def test_weights_of_guidance_are_numbers():
    from diffflow.models.settings.common import Dials

    assert Dials(guidance=np.float32(2)) == Dials(guidance=2) == Dials(guidance={"": 2.0})
    for wrong in ("x", {"a": "x"}, [1, 2], None):
        with pytest.raises(ValueError, match=r"guidance = .* must be a number"):
            Dials(guidance=wrong)


def test_conditions_belong_to_their_rows_in_every_batch_and_in_rows_kept_aside():
    """x itself as the condition: whatever picks, orders or keeps rows aside, the two must stay together."""
    from diffflow.training.batches import Batches
    from diffflow.training.early_stopping import holdout_split

    x = numbers(200, 3).float()
    data = df.data.of(x, name="x").with_cond(x)
    for part in (data, data.heldout, *holdout_split(data, 0.2)):
        batch = Batches(part, 3, torch.device("cpu"))(5, 40)
        torch.testing.assert_close(data.conditions.encode(data.decode(batch.x)), batch.cond, atol=1e-5, rtol=0)


# -- dropout -----------------------------------------------------------------------------------------------------------


def test_each_part_is_hidden_per_sample_and_all_together_as_often():
    """P(one part hidden) = 1 - (1 - p)^2, P(both) = p + (1 - p) p^2; rows are hidden whole, the others untouched."""
    n, p = 40_000, 0.2
    cond = {"a": numbers(n, 2).float(), "b": torch.arange(n) % 5}
    (_,) = ScoreMatching(df.Denoiser(Spy(), 1.0), label_dropout=p).turns(
        Batch(torch.zeros(n, 2), cond, torch.arange(n)), Noise(3)
    )
    a, b = is_null(Spy.told["a"]), is_null(Spy.told["b"])
    for share, wanted in (((a.float().mean()), 1 - (1 - p) ** 2), ((a & b).float().mean(), p + (1 - p) * p**2)):
        assert abs(float(share) - wanted) < 4.5 * math.sqrt(wanted * (1 - wanted) / n)
    assert torch.equal(Spy.told["a"][~a], cond["a"][~a])
    assert torch.equal(Spy.told["b"][~b], cond["b"][~b])
    assert bool(Spy.told["a"][a].isnan().all())


class Spy(torch.nn.Module):
    told = None

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, time, cond=None):
        Spy.told = apply(torch.clone, cond)
        return self.w * x


# -- guidance ----------------------------------------------------------------------------------------------------------


class Gaussians:
    """The exact denoiser of x = sum of the conditions + s eps, conditions standard normal, any of them known."""

    conditional, cost, principal_std = True, 1, 2.0

    def __init__(self, names=("a", "b"), s=0.7, cond=None):
        self.names, self.s, self.cond = names, s, cond

    def given(self, cond):
        return Gaussians(self.names, self.s, cond)

    def __call__(self, y, sigma):
        mean, variance = torch.zeros_like(y), torch.full_like(y, self.s**2)
        for name in self.names:
            part = None if self.cond is None else self.cond[name] if isinstance(self.cond, dict) else self.cond
            known = torch.zeros_like(y).bool() if part is None else ~part.isnan()
            mean = mean + (0.0 if part is None else part.nan_to_num() * known)
            variance = variance + (~known).to(y.dtype)
        return mean + variance / (variance + sigma**2) * (y - mean)


TWO = {"a": numbers(50, 1), "b": numbers(50, 1, seed=1)}
Y, SIGMA = numbers(50, 1, seed=2), torch.tensor(0.8, dtype=torch.float64)


def guided(source, weight, cond):
    return df.guide(df.EDM().score(source), weight).given(cond).source(Y, SIGMA)


def test_guidance_by_part_is_its_formula():
    """D_c + sum_i (w_i - 1)(D_c - D_c without i), for closed forms of every denoiser in it."""
    D = Gaussians()
    full = D.given(TWO)(Y, SIGMA)
    lone = {k: D.given({j: TWO[j] if j != k else torch.full((50, 1), torch.nan) for j in TWO})(Y, SIGMA) for k in TWO}
    weights = {"a": 3.0, "b": 0.25}
    wanted = full + sum((w - 1) * (full - lone[k]) for k, w in weights.items())
    torch.testing.assert_close(guided(D, weights, TWO), wanted)
    torch.testing.assert_close(guided(D, {"a": 1.0, "b": 1.0}, TWO), full)
    torch.testing.assert_close(guided(D, {"a": 0.0}, TWO), lone["a"])  # weight 0 does not know that part
    swapped = dict(reversed(weights.items()))
    assert torch.equal(guided(D, swapped, TWO), guided(D, weights, TWO))


def test_one_part_is_plain_guidance():
    one = {"a": TWO["a"]}
    D = Gaussians(("a",))
    by_part, plain = guided(D, {"a": 2.5}, one), guided(Gaussians(("a",)), 2.5, one)
    torch.testing.assert_close(by_part, plain)
    free, full = D.given(None)(Y, SIGMA), D.given(one)(Y, SIGMA)
    torch.testing.assert_close(plain, free + 2.5 * (full - free))


def test_cost_counts_every_denoiser_that_is_asked():
    score = df.EDM().score(Gaussians())
    assert df.guide(score, {"a": 2.0, "b": 1.0}).cost == 2
    assert df.guide(score, {"a": 2.0, "b": 3.0}).cost == 3
    assert df.guide(score, 2.0).cost == 2
    assert df.guide(score, {"a": 1.0, "b": 1.0}) is score
    with pytest.raises(ValueError, match="not a number to steer with"):
        df.guide(score, {"a": math.nan})


# -- condition inputs --------------------------------------------------------------------------------------------------


def test_inputs_tell_rows_apart_and_forget_hidden_ones():
    torch.manual_seed(0)
    raw = {k: v for k, v in RAW.items() if k != "number"}
    found = describe(raw)
    net = ConditionInput(found, 16, (1, 4, 4))
    coded = encode(found, raw)
    x = torch.zeros(N, 1, 4, 4)
    assert net.channels == 3  # the picture of x's own size and where there is one
    whole = net(coded, N, x.device)
    torch.testing.assert_close(net(rows(coded, slice(4, 6)), 2, x.device), whole[4:6])  # a row is its own
    for name in found:
        mask = torch.zeros(N, dtype=torch.bool)
        mask[2] = True
        part = hide(coded, {name: mask})
        if name == "image":
            assert bool((net.maps(part, x)[2] == 0).all())
            assert torch.equal(net.maps(part, x)[3:], net.maps(coded, x)[3:])
        else:
            changed = net(part, N, x.device)
            assert not torch.equal(changed[2], whole[2])
            torch.testing.assert_close(changed[3:], whole[3:])
    nothing = net(None, N, x.device)
    torch.testing.assert_close(nothing, net(null(found, N), N, x.device))
    torch.testing.assert_close(nothing, nothing[:1].expand(N, -1))


def test_padding_of_a_sequence_says_nothing():
    """Steps of NaN are padding: what stands beside them alone is told, and the gradient has no NaN."""
    torch.manual_seed(0)
    c = numbers(N, 6, 2).float()
    found = Condition("sequence", (6, 2), std=(1.0,))
    net = ConditionInput(found, 8, (2,))
    c[:, 4:] = torch.nan
    out = net(c, N, c.device)
    assert bool(out.isfinite().all())
    out.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)
