"""Column Shapes and Pair Trends against formulas by hand, and what must not change them."""

from __future__ import annotations

import math
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from diffflow.metrics.tables import TableComparison, column_shapes, gap_scores, pair_trends, similarity
from diffflow.metrics.tables.pictures import associations, cramers_v
from diffflow.metrics.tables.similarity import shape_scores, trend_scores

sys.path.append(str(Path(__file__).parent))
from tables_by_hand import COLUMNS, SCHEMA, Made, draw

NAN = math.nan
NUMBER, WORD = Made("x"), Made("w", "words", tuple("pqrst"))
TWO = (NUMBER, Made("y"))


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_shapes_by_hand() -> None:
    # the distribution functions of 1 2 3 4 and 3 4 5 6 are 1/2 and 0 at 2; gaps count nowhere
    assert column_shapes([NUMBER], column(1, 2, 3, 4, NAN), column(3, 4, 5, 6)) == pytest.approx(0.5)
    # words: (1/2, 1/2, 0) and (1/4, 1/4, 1/2); then a gap as a fourth value, (3/4 of these, 1/4)
    real = column(0, 1, 2, 2)
    assert column_shapes([WORD], column(0, 0, 1, 1), real) == pytest.approx(0.5)
    assert column_shapes([WORD], column(0, 0, 1, NAN), real) == pytest.approx(1 - 0.5 * (1 / 4 + 0 + 1 / 2 + 1 / 4))
    # levels are only equal or different: as numbers these would be 2/3 apart in KS, too, but 1 2 and 2 1 not
    assert column_shapes([Made("l", "levels")], column(1, 2), column(1, 7)) == pytest.approx(0.5)
    assert column_shapes([NUMBER], column(NAN, NAN), column(1, 2)) == 0.0
    assert column_shapes([NUMBER], column(NAN), column(NAN)) == 1.0


def test_gaps_by_hand() -> None:
    found = gap_scores(TWO, np.array([[NAN, 1], [1, 1], [1, 1], [1, 1]]), np.array([[NAN, 1], [NAN, 1]]))
    assert found[0] == pytest.approx(1 - abs(1 / 4 - 1))
    assert np.isnan(found[1])  # neither has any


def test_trends_of_numbers_by_hand() -> None:
    up, down = np.array([[1.0, 1], [2, 2], [3, 3], [4, NAN]]), np.array([[1.0, 3], [2, 2], [3, 1]])
    assert pair_trends(TWO, up, up) == pytest.approx(1.0)
    assert pair_trends(TWO, up, down) == pytest.approx(0.0)  # 1 - |1 - -1| / 2
    flat = np.array([[1.0, 1], [2, 0], [3, 1]])  # r = 0
    assert pair_trends(TWO, flat, up) == pytest.approx(0.5)
    constant = np.array([[1.0, 1], [2, 1], [3, 1]])
    assert pair_trends(TWO, constant, up) == pytest.approx(0.5)  # samples without a correlation have 0
    assert np.isnan(pair_trends(TWO, up, constant)[0])  # real rows without one say nothing


def test_trends_of_words_by_hand() -> None:
    pair = (WORD, Made("v", "words", tuple("pq")))
    x, y = np.array([[0.0, 0], [0, 0], [1, 1], [1, NAN]]), np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    # cells 00 01 10 11 1-gap: (1/2 0 0 1/4 1/4) and (1/4 1/4 1/4 1/4 0)
    assert pair_trends(pair, x, y) == pytest.approx(1 - 0.5 * (1 / 4 + 1 / 4 + 1 / 4 + 0 + 1 / 4))


def test_numbers_beside_words_are_cut_at_the_edges_of_the_real_ones() -> None:
    rng = np.random.default_rng(0)
    real = np.stack([rng.uniform(0, 1, 400), rng.integers(0, 3, 400)], 1)
    far = real.copy()
    far[np.argmax(real[:, 0]), 0] = 1000.0  # in the open last bin, as it was; with edges of its own all others are one
    assert pair_trends((NUMBER, WORD), far, real) == pytest.approx(1.0)
    x = np.stack([rng.normal(0.5, 0.3, 300), rng.integers(0, 3, 300)], 1)
    edges = np.linspace(real[:, 0].min(), real[:, 0].max(), 11)
    edges[0], edges[-1] = -np.inf, np.inf
    p, q = (
        np.histogram2d(np.clip(s[:, 0], -9, 9), s[:, 1], [np.clip(edges, -9, 9), [-0.5, 0.5, 1.5, 2.5]])[0]
        for s in (x, real)
    )
    assert pair_trends((NUMBER, WORD), x, real) == pytest.approx(1 - 0.5 * np.abs(p / 300 - q / 400).sum())


def test_shapes_of_numbers_are_one_minus_ks_and_trends_pearsons() -> None:
    x, y = draw(150, 0), draw(230, 1)
    shapes, trends = column_shapes(SCHEMA, x, y), pair_trends(SCHEMA, x, y)
    for k in (0, 1, 4):
        a, b = (s[~np.isnan(s[:, k]), k] for s in (x, y))
        assert shapes[k] == pytest.approx(1 - ks_2samp(a, b).statistic)
    r = [np.corrcoef(s[~np.isnan(s[:, 0])][:, [0, 1]].T)[0, 1] for s in (x, y)]
    assert trends[0] == pytest.approx(1 - abs(r[0] - r[1]) / 2)


def test_what_must_not_change_scores() -> None:
    x, y = draw(120, 2), draw(90, 3)
    shapes, gaps, trends = column_shapes(SCHEMA, x, y), gap_scores(SCHEMA, x, y), pair_trends(SCHEMA, x, y)
    rng = np.random.default_rng(0)
    a, b = x[rng.permutation(len(x))], y[rng.permutation(len(y))]  # rows
    assert pair_trends(SCHEMA, a, b) == pytest.approx(trends)
    assert column_shapes(SCHEMA, a, b) == pytest.approx(shapes)
    order = [3, 0, 4, 2, 1]  # columns
    turned = [COLUMNS[k] for k in order]
    assert column_shapes(turned, x[:, order], y[:, order]) == pytest.approx(shapes[order])
    assert gap_scores(turned, x[:, order], y[:, order])[1] == pytest.approx(gaps[0])
    named = dict(zip(combinations(range(5), 2), trends, strict=True))
    expected = [named[tuple(sorted((order[i], order[j])))] for i, j in combinations(range(5), 2)]
    assert pair_trends(turned, x[:, order], y[:, order]) == pytest.approx(expected)
    relabel = rng.permutation(8).astype(float)  # words
    a, b = x.copy(), y.copy()
    for s in (a, b):
        s[:, 2] = relabel[s[:, 2].astype(int)]
        s[:, 1] = 1e6 - 400 * s[:, 1]  # and a number in other units, turned round
    assert column_shapes(SCHEMA, a, b) == pytest.approx(shapes)
    assert pair_trends(SCHEMA, a, b) == pytest.approx(trends, abs=1e-9)
    assert column_shapes(SCHEMA, x, x) == pytest.approx(1.0)
    assert pair_trends(SCHEMA, x, x) == pytest.approx(1.0)


def test_value_and_floor_of_one_law_agree_though_samples_are_many_and_held_out_rows_few() -> None:
    # KS of 60 rows is .1 by chance, of 600 a third of that: both are taken of 60 rows
    train, held = draw(500, 10), [draw(60, 20 + s) for s in range(8)]
    for score in (shape_scores, trend_scores):
        found = [score(SCHEMA, draw(600, 40 + s), train, h) for s, h in enumerate(held)]
        values, floors = np.array([f.mean for f in found]), np.array([f.mean_floor for f in found])
        apart = (values - floors).mean()
        assert abs(apart) < 4 * np.hypot(values.std(ddof=1), floors.std(ddof=1)) / math.sqrt(8)
        assert found[0].n == 60
    assert values.mean() < pair_trends(SCHEMA, draw(600, 40), train).mean() - 0.02  # which is of 600


def test_stated_errors_are_the_spread_over_fresh_draws() -> None:
    found = [
        shape_scores(SCHEMA, np.add(draw(100, 3 * s), [0.5, 0.5, 0, 0, 0]), draw(100, 3 * s + 1), draw(100, 3 * s + 2))
        for s in range(60)
    ]
    means, stated = np.array([f.mean for f in found]), np.array([f.mean_stderr for f in found])
    # the spread of 60 means is known to 9 %; where samples are right the bootstrap states up to half too much
    assert 0.7 < stated.mean() / means.std(ddof=1) < 1.8
    moved = np.array([f.values[1] for f in found])
    assert 0.65 < np.mean([f.stderr[1] for f in found]) / moved.std(ddof=1) < 1.5


def test_the_worst_column_and_pair_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    x, train, held = draw(300, 0), draw(300, 1), draw(300, 2)
    x[:, 4] += 20
    table = TableComparison(SCHEMA, x, train, held)
    assert table.shapes.worst().startswith("k (0.00, real data 0.9")
    x[:, 4] -= 20
    x[:, 3] = x[::-1, 3]  # levels that follow from nothing
    pairs = TableComparison(SCHEMA, x, train, held).trends
    assert pairs.names[pairs.order()[0]] == ("b", "lev")
    monkeypatch.setattr(similarity, "PAIRS", 12)
    wide = [Made(f"c{k}") for k in range(6)]
    rows = np.random.default_rng(0).normal(size=(20, 6))
    some = trend_scores(wide, rows, rows, rows)
    assert (len(some.names), some.of) == (12, 15)
    assert some.mean == pytest.approx(1.0)
    assert trend_scores([NUMBER], rows[:, :1], rows[:, :1], rows[:, :1]) is None


def test_cramers_v_and_correlations() -> None:
    assert cramers_v(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])) == pytest.approx(1.0)
    assert cramers_v(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == pytest.approx(0.0)
    # cells 2 1 / 1 2 of 6: chi-squared = 4 (1/2)^2 / (3/2) = 2/3, V = sqrt(2/3 / 6)
    assert cramers_v(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 1, 1])) == pytest.approx(1 / 3)
    x = draw(200, 0)
    found = associations(SCHEMA, x, x)
    assert found == pytest.approx(found.T)
    assert found[1, 4] == pytest.approx(np.corrcoef(x[:, 1], x[:, 4])[0, 1])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.zeros((3, 4)), r"shape \(3, 4\): give \(n, 5\)"),
        (np.zeros((0, 5)), r"shape \(0, 5\)"),
        (np.array([[0, 0, 0, 0, 0], [0, math.inf, 0, 0, 0]]), "infinite, the first in row 1, column 'b'"),
    ],
)
def test_rows_that_are_no_codes_are_refused(rows: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TableComparison(SCHEMA, rows, draw(20, 0))
