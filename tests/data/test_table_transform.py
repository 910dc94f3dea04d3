"""Rows of a table come back from model units as they were, and densities change by the derivative of the map."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffflow.data.column_parts import Part, knots_of, slopes, to_scores
from diffflow.data.schema import ColumnSpec
from diffflow.data.table_transform import TableTransform, measure
from diffflow.data.transform import Transform

NAN = math.nan


def table(n=400, seed=0):
    """A schema with a column of each kind, and rows of it (n, 7)."""
    r = np.random.RandomState(seed)
    schema = (
        ColumnSpec("sex", "words", words=("f", "m", "x")),
        ColumnSpec("id", "identifier"),
        ColumnSpec("town", "words", words=("a", "b"), gap=""),
        ColumnSpec("doors", "levels", values=(2.0, 4.0, 5.0)),
        ColumnSpec("stars", "levels", values=(1.0, 2.0, 3.0), gap="NA"),
        ColumnSpec("age", "integer", low=0.0, high=99.0),
        ColumnSpec("price", "number", decimals=2, low=0.01, high=900.0, gap=""),
        ColumnSpec("rain", "number", decimals=1, low=0.0, high=80.0),
    )
    town = r.choice([0.0, 1.0, NAN], n)
    stars = r.choice([1.0, 2.0, 3.0, NAN], n)
    price = np.round(np.exp(r.randn(n)).clip(0.01, 900), 2)
    price[r.rand(n) < 0.1] = NAN
    rain = np.where(r.rand(n) < 0.4, 0.0, np.round(r.exponential(10, n).clip(0.1, 80), 1))
    columns = [r.choice(3, n), town, r.choice([2.0, 4.0, 5.0], n), stars, r.randint(0, 100, n), price, rain]
    return schema, np.stack(columns, 1).astype(float)


SCHEMA, X = table()
T = measure(SCHEMA, X)


def uniforms(n, seed=0):
    return torch.rand(n, 7, generator=torch.Generator().manual_seed(seed))


def test_the_coordinates_of_each_kind():
    assert [(p.kind, p.width) for p in T.parts] == [
        ("words", 3), ("words", 3), ("levels", 1), ("words", 4), ("number", 1), ("number", 3), ("number", 3),
    ]  # fmt: skip
    assert T.shape == (18,)
    assert T.data_shape == (7,)
    assert T.points == 15
    assert T.parts[6].values == (0.0,)  # two fifths of the rows have no rain at all


@pytest.mark.parametrize("spread", [False, True])
def test_rows_come_back_exactly(spread):
    x = torch.from_numpy(X)
    back = T.decode(T.encode(x, uniforms(len(x)) if spread else None))
    assert torch.equal(back.isnan(), x.isnan())
    assert torch.equal(back.nan_to_num(-1), x.nan_to_num(-1))


@given(st.integers(0, 10_000), st.integers(20, 120))
@settings(max_examples=25, deadline=None)
def test_rows_of_any_table_come_back(seed, n):
    schema, rows = table(n, seed)
    t = measure(schema, rows)
    x = torch.from_numpy(rows)
    back = t.decode(t.encode(x, torch.rand(n, 7)))
    assert torch.equal(back.nan_to_num(-1), x.nan_to_num(-1))


def test_the_map_survives_its_record():
    again = Transform.from_meta({"transform": T.to_meta()})
    assert isinstance(again, TableTransform)
    x, u = torch.from_numpy(X), uniforms(len(X))
    assert torch.equal(again.encode(x, u), T.encode(x, u))
    assert torch.equal(again.log_units(x, u), T.log_units(x, u))


def test_whatever_is_decoded_is_a_row_of_the_file():
    z = 4 * torch.randn(1000, 18, generator=torch.Generator().manual_seed(0))
    x = T.decode(z)
    assert set(x[:, 0].tolist()) <= {0.0, 1.0, 2.0}
    assert set(x[:, 2].tolist()) <= {2.0, 4.0, 5.0}
    assert torch.equal(x[:, 4], x[:, 4].round())
    for k, column in ((4, T.modelled[4]), (5, T.modelled[5]), (6, T.modelled[6])):
        present = x[:, k][~x[:, k].isnan()]
        assert column.low <= present.min()
        assert present.max() <= column.high
    assert torch.equal(x.nan_to_num(0), T.decode(T.encode(x)).nan_to_num(0))  # once more changes nothing


def test_density_changes_by_the_derivative_of_the_scores():
    """log_units is the log-derivative of the scores of present numbers, by finite differences."""
    x, u = torch.from_numpy(X), uniforms(len(X))
    h = 1e-6
    expected = torch.zeros(len(x), dtype=torch.float64)
    for k, part in enumerate(T.parts):
        if part.kind == "number":
            moved = x[:, k] + (u[:, k].double() - 0.5) * part.spread
            slope = (to_scores(moved + h, part) - to_scores(moved - h, part)) / (2 * h)
            absent = x[:, k].isnan() | (x[:, k] == 0 if 0.0 in part.values else torch.zeros(len(x), dtype=torch.bool))
            z = torch.special.ndtri(u[:, k].double())
            normal = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
            expected += torch.where(absent, -normal, slope.log())
    near = (T.log_units(x, u) - expected).abs() < 1e-4
    assert near.double().mean() > 0.98  # a knot may lie within the difference


def test_scores_of_a_column_are_normal():
    r = np.random.RandomState(1)
    x = np.exp(r.randn(20_000))
    knots, scores = knots_of(x)
    part = Part("number", 0, 1, knots=knots, scores=scores)
    z = to_scores(torch.from_numpy(np.exp(r.randn(20_000))), part).sort().values
    expected = torch.special.ndtri((torch.arange(20_000).double() + 0.5) / 20_000)
    assert (z - expected).abs()[200:-200].max() < 0.12  # of 19,600 quantiles, with standard errors of .03 and less
    mean = float((slopes(torch.from_numpy(x), part).log() - 0.5 * to_scores(torch.from_numpy(x), part) ** 2).mean())
    assert mean == pytest.approx(-0.5, abs=0.03)  # less the entropy of a log-normal, 1/2 + log sqrt(2 pi)


def test_a_column_that_is_normal_is_left_straight():
    x = np.random.RandomState(0).randn(60)
    assert len(knots_of(x)[0]) == 2


def test_what_the_training_rows_never_had_is_refused():
    x = torch.from_numpy(X[:1].copy())
    for k, value, words in ((0, 3.0, "takes 3 values"), (2, 3.0, "takes 3 values"), (4, NAN, "has gaps")):
        wrong = x.clone()
        wrong[0, k] = value
        with pytest.raises(ValueError, match=words):
            T.encode(wrong)
    with pytest.raises(ValueError, match="rows have 7 columns"):
        T.encode(x[:, :3])
