"""What trees tell of a table, what samples give away, unlikely cells, and what pages say of it all."""

from __future__ import annotations

import json
import math
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score

from diffflow import figures
from diffflow.metrics import METRICS
from diffflow.metrics.evaluate import evaluate
from diffflow.metrics.tables import (
    TableComparison,
    association_picture,
    c2st_auc,
    closest_metrics,
    closest_share,
    column_picture,
    content,
    duplicates,
    lines,
    rare,
    trained_on,
    unlikely_cells,
    utility,
)
from diffflow.metrics.tables.boosting import auc, auc_stderr, guessed, r2
from diffflow.metrics.tables.page import HEADS, PROTECTION, column_rows, pair_rows, rare_rows
from diffflow.metrics.tables.privacy import distances, scales_of
from diffflow.runs import report

sys.path.append(str(Path(__file__).parent))
from tables_by_hand import SCHEMA, Made, draw

NAN = math.nan
WORD = Made("w", "words", tuple("pqrst"))


def test_area_under_the_curve_is_the_share_of_pairs_in_order_and_its_error_delongs() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 9, 80) / 9, rng.random(80) < 0.4
    area, influence = auc(scores, positive)
    pairs = np.sign(scores[positive][:, None] - scores[~positive]) / 2 + 0.5
    assert area == pytest.approx(pairs.mean()) == pytest.approx(roc_auc_score(positive, scores))
    delong = pairs.mean(1).var() / positive.sum() + pairs.mean(0).var() / (~positive).sum()
    assert influence.var() / 80 == pytest.approx(delong)
    assert influence.mean() == pytest.approx(0.0, abs=1e-12)


def test_error_of_an_area_is_that_of_the_rank_sum_where_nothing_is_told() -> None:
    # Mann and Whitney: (n + m + 1) / (12 n m); the shrunken formula is for 0.5 the same
    assert auc_stderr(0.5, 40, 70) == pytest.approx(math.sqrt((111) / (12 * 40 * 70)))
    assert 0 < auc_stderr(1.0, 40, 40) < auc_stderr(0.5, 40, 40)


def test_r2_by_hand_and_its_influence_is_the_derivative() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=50)
    told = truth + 0.3 * rng.normal(size=50)
    value, influence = r2(told, truth)
    assert value == pytest.approx(r2_score(truth, told))
    step = 1e-6  # more weight to row 3
    weights = np.ones(50)
    weights[3] += step * 50
    moved = r2_score(truth, told, sample_weight=weights)
    assert (moved - value) / step == pytest.approx(influence[3], rel=1e-3)


def test_c2st_is_a_half_for_one_law_and_one_for_disjoint_rows() -> None:
    found = np.array([c2st_auc(SCHEMA, draw(50, s), draw(50, 100 + s), seed=s)[:2] for s in range(8)])
    values, stated = found.T
    assert abs(values.mean() - 0.5) < 4 * stated.mean() / math.sqrt(8)
    assert 0.5 < stated.mean() / values.std(ddof=1) < 2.5  # eight values: known to 27 %
    far = draw(60, 1)
    far[:, 4] += 1000
    value, stderr, n = c2st_auc(SCHEMA, draw(60, 0), far)
    assert (value, n) == (1.0, 60)
    assert stderr == pytest.approx(auc_stderr(1.0, 12, 12) * math.sqrt(1 / 5 + 1 / 4))  # folds of 12 rows of each
    words = draw(60, 1)
    words[:, 2] = 7 - words[:, 2]
    assert c2st_auc(SCHEMA, draw(60, 0), words)[0] > 0.5 + 4 * values.std(ddof=1)
    gaps = draw(30, 1)
    gaps[:, 1] = NAN
    assert c2st_auc(SCHEMA, draw(30, 0), gaps)[0] == 1.0


def test_c2st_is_decided_by_its_seed_and_not_by_the_names_of_words() -> None:
    x, y = draw(50, 0), draw(50, 1)
    y[:, 2] = np.minimum(7, y[:, 2] + 1)
    first = c2st_auc(SCHEMA, x, y, seed=3)
    assert c2st_auc(SCHEMA, x, y, seed=3) == first
    a, b = x.copy(), y.copy()
    for s in (a, b):
        s[:, 2] = 7 - s[:, 2]
    assert c2st_auc(SCHEMA, a, b, seed=3)[0] == pytest.approx(first[0], abs=0.05)  # words equally common swap places
    with pytest.raises(ValueError, match="needs 10 rows in each set, got 9 and 50"):
        c2st_auc(SCHEMA, x[:9], y)


def linear(n: int, seed: int, slope: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    return np.stack([x[:, 0], x[:, 1], slope * x[:, 0]], 1)


NUMBERS = (Made("x"), Made("noise"), Made("sum"))


def test_models_learn_from_samples_what_is_in_them() -> None:
    train, test = linear(200, 0), linear(100, 1)
    same = utility(NUMBERS, train, train, test)
    assert (same.target, same.measure, same.n, same.trained) == ("sum", "R2", 100, 200)
    assert same.why == "the last column, and it follows from the others"
    assert same.floor > 0.85
    turned = utility(NUMBERS, linear(200, 2, slope=-1.0), train, test, "sum")
    assert turned.why == "named"
    assert turned.value == pytest.approx(-3.0, abs=0.4)  # E (x - -x)^2 / E x^2 = 4
    nothing = train.copy()
    nothing[:, 2] = np.random.default_rng(0).permutation(nothing[:, 2])
    assert utility(NUMBERS, nothing, train, test, "sum").value < 4 * same.stderr
    with pytest.raises(ValueError, match="no column 'total' that a model learns; there are x, noise, sum"):
        utility(NUMBERS, train, train, test, "total")
    assert utility(NUMBERS[:1], train[:, :1], train[:, :1], test[:, :1]) is None


def test_classes_are_scored_one_against_the_rest() -> None:
    train, test = draw(300, 0), draw(200, 1)
    area, influence = trained_on(SCHEMA, train, test, "lev")
    assert area > 0.95
    assert len(influence) == 200
    one = train.copy()
    one[:, 3] = 2.0  # samples of one class teach nothing: chances are ties
    assert trained_on(SCHEMA, one, test, "lev", real=train)[0] == 0.5
    assert math.isnan(trained_on(SCHEMA, train, test[test[:, 3] == 1.0], "lev")[0])  # test rows of one class


def test_the_target_is_guessed_by_name_then_place_then_what_follows() -> None:
    rows = linear(200, 0)
    assert guessed([Made("Target"), Made("b"), Made("c")], rows) == ("Target", "by its name")
    name, why = guessed([Made("sum"), Made("x"), Made("noise")], rows[:, [2, 0, 1]])
    assert name in ("sum", "x")
    assert why == "it follows best from the others, and the last column, noise, does not"


def test_mixed_distances_by_hand() -> None:
    columns = (Made("x"), WORD, Made("lev", "levels"))
    x, y = np.array([[1.0, 0, 5], [NAN, NAN, 1]]), np.array([[4.0, 1, 5], [NAN, NAN, 3], [1, 0, NAN]])
    found = distances(columns, x, y, np.array([2.0, 7.0, 4.0]))
    assert found == pytest.approx(np.array([[1.5 + 1, 1 + 1 + 0.5, 1], [1 + 1 + 1, 0.5, 1 + 1 + 1]]))
    assert scales_of(columns, y) == pytest.approx([1.5, 0.5, 1])  # standard deviations without gaps


def test_the_closest_row_is_a_training_row_for_half_of_fresh_rows_and_all_copies() -> None:
    found = np.array(
        [closest_share(SCHEMA, draw(200, 3 * s), draw(250, 3 * s + 1), draw(50, 3 * s + 2))[:2] for s in range(40)]
    )
    values, stated = found.T
    assert abs(values.mean() - 0.5) < 4 * values.std(ddof=1) / math.sqrt(40)
    # averaging over parts of the training rows takes up to a factor sqrt 2; the spread is known to 11 %
    assert 0.75 < stated.mean() / values.std(ddof=1) < 2.0
    train, held = draw(60, 0), draw(60, 1)
    assert closest_share(SCHEMA, train, train, held)[0] == pytest.approx(1.0, abs=0.02)  # but for equal rows
    assert closest_share(SCHEMA, held, train, held)[0] == pytest.approx(0.0, abs=0.02)
    assert closest_share(SCHEMA, train, held, held)[0] == 0.5  # ties
    one = closest_share(SCHEMA, draw(30, 5), draw(1, 6), draw(1, 7))
    assert one[1] > 0.2  # whose half is won by one row or the other: an error of nearly 1/2


def test_the_error_of_the_closest_row_is_that_of_the_exchange() -> None:
    # samples at two real rows only, one of training: 3/4 there. Halves of {3/4, 1/4}: standard deviation 1/4
    column = [Made("x")]
    x = np.array([[0.0]] * 75 + [[10.0]] * 25)
    share, stderr, n = closest_share(column, x, np.array([[0.0]]), np.array([[10.0]]))
    assert (share, n) == (0.75, 100)
    assert stderr == pytest.approx(0.25)
    # two of each: the spread of the shares of all six halves
    mass = (0.4, 0.3, 0.2, 0.1)
    x = np.repeat([0.0, 10, 20, 30], [40, 30, 20, 10])[:, None]
    share, stderr, _ = closest_share(column, x, np.array([[0.0], [10]]), np.array([[20.0], [30]]))
    assert share == pytest.approx(0.7)
    assert stderr == pytest.approx(np.std([sum(half) for half in combinations(mass, 2)]))


def test_duplicates_are_equal_in_every_cell_gaps_included() -> None:
    train = np.array([[1.0, NAN, 0], [2, 2, 2]])
    x = np.array([[1.0, -NAN, -0.0], [1, 1, 0], [2, 2, 2], [2, 2, NAN]])
    assert duplicates(x, train).tolist() == [True, False, True, False]
    table = TableComparison([Made("p", decimals=1)], np.array([[0.30000000000000004]]), np.array([[0.3], [0.5]]))
    assert duplicates(table.x, table.train).all()  # as the file writes them


def test_rare_words_by_hand() -> None:
    train = np.array([0.0] * 90 + [1] * 8 + [2, 3])[:, None]  # rare: 2 and 3, once each
    x = np.array([0.0] * 40 + [2] * 10)[:, None]
    found = rare([WORD], x, train, train[:95])
    assert [(v.value, v.training, v.samples) for v in found.values] == [("r", 1, 10), ("s", 1, 0)]
    assert found.reached == 0.5
    chance = 1 - 0.99**50
    assert found.expected == pytest.approx(chance)
    assert found.stderr == pytest.approx(math.sqrt(2 * chance * (1 - chance)) / 2)
    assert [v.value for v in found.too_often()] == ["r"]  # 10 of 11 with chance 1/3
    assert (found.once, found.holders, found.real_holders) == (2, 0.2, 0.0)
    assert found.values[0].expected == pytest.approx(0.5)
    assert rare([Made("x")], x, train, train) is None
    # of resampled rows none comes too often, but with a chance of .01 a table
    rng = np.random.default_rng(0)
    law = np.minimum(99, rng.geometric(0.05, 2000) - 1).astype(float)[:, None]
    many = Made("m", "words", tuple(map(str, range(100))))
    wrong = [bool(rare([many], rng.permutation(law)[:900], law[:1000], law[1000:]).too_often()) for _ in range(30)]
    assert sum(wrong) <= 3  # 30 at .01: four and more have a chance of 2e-4


def test_unlikely_cells_are_judged_by_what_is_usual_in_their_column() -> None:
    schema = (Made("x"), Made("id", "identifier", modelled=False), WORD)
    x, nats = np.array([[1.0, 0], [2, NAN], [3, 2]]), np.array([[-9.0, -1], [-9, -8], [-12, -1]])
    cells = unlikely_cells(schema, x, nats)
    assert [(c.row, c.column, c.value, c.below) for c in cells] == [(1, "w", "a gap", 7.0), (2, "x", "3", 3.0)]
    assert str(cells[0]) == "row 2: w = a gap, 7.0 nats below what is usual there"
    shifted = unlikely_cells(schema, x, np.add(nats, [100.0, -3.0]))  # other units of a number
    assert [c.below for c in shifted] == [7.0, 3.0]
    usual = np.array([[-12.0, -1.0]])
    assert [c.column for c in unlikely_cells(schema, x, nats, usual)] == ["w"]
    both = unlikely_cells(schema, x[:1], np.array([[-9.0, -5]]), np.zeros((1, 2)), each=1)
    assert [c.below for c in both] == [9.0]
    with pytest.raises(ValueError, match="need a value for each cell"):
        unlikely_cells(schema, x, nats[:2])
    with pytest.raises(ValueError, match="no numbers"):
        unlikely_cells(schema, x, nats * NAN)


@pytest.fixture(scope="module")
def table() -> TableComparison:
    """Copies of training rows, but for a column of them."""
    x, train = draw(60, 0), draw(80, 1)
    x[:30] = train[:30]
    x[30:, 4] = NAN
    train[50, 2] = 7.0
    return TableComparison(SCHEMA, x, train, draw(40, 2), target="lev")


def test_evaluate_has_the_metrics_of_tables_where_there_is_one(
    table: TableComparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {row.name: row for row in METRICS.values() if row.needs == ("table",) or row.name == "w2"}
    monkeypatch.setattr(sys.modules["diffflow.metrics.evaluate"], "METRICS", few)  # others take their time

    a, b, c = (torch.from_numpy(np.nan_to_num(s)) for s in (table.x, table.train, table.heldout))
    names = {row.name for row in METRICS.values() if row.needs == ("table",)}
    found = evaluate(a, b, c, table=table)
    measured = {m.name: m for m in found if m.name in names}
    assert set(measured) == names
    assert not names & {m.name for m in evaluate(a, b, c)}
    assert all(math.isfinite(m.value) and m.stderr >= 0 and m.floor is not None for m in measured.values())
    assert measured["duplicates"].value >= 0.5
    assert "30 of 60 samples equal a training row" in measured["duplicates"].note
    assert "the worst column is k" in measured["gap_shares"].note
    assert measured["closest_is_training"].value > 0.5
    assert measured["tstr"].note.startswith("AUC of lev (named), trained on 60 rows")


def test_what_is_said_of_a_table(table: TableComparison, tmp_path: Path) -> None:
    said = json.loads(json.dumps(content(table, closest_metrics(table)), allow_nan=False))
    assert [c["name"] for c in said["columns"]] == ["a", "b", "w", "lev", "k"]
    assert said["columns"][4]["gaps"] == 0.5
    assert said["target"] == {"name": "lev", "why": "named", "measure": "AUC"}
    rows = column_rows(said)
    shapes = [float(row[2]) for row in rows]
    assert shapes == sorted(shapes)
    for kind, found in (("columns", rows), ("pairs", pair_rows(said)), ("rare", rare_rows(said))):
        assert found
        assert {len(row) for row in found} == {len(HEADS[kind])}
    text = "\n".join(lines(said))
    assert "columns least like the data:" in text
    assert "pairs least like the data:" in text
    assert PROTECTION in text
    assert "equal to a training row in every cell, and 0.0% of the rows held out are" in text
    page = report.table_page.section({"table": said | {"privacy": ["<b>"]}}, tmp_path, report._table, report._image)
    assert "<td class=number>" in page
    assert all(f"<td>{name}</td>" in page for name in ("a", "b", "w", "lev", "k"))
    assert "&lt;b&gt;" in page
    assert not report.table_page.section({}, tmp_path, report._table, report._image)
    for draw_it in (column_picture, association_picture):
        assert figures.png(draw_it(SCHEMA, table.x, table.train)).startswith(b"\x89PNG")


def test_without_held_out_rows_half_of_the_training_rows_stand_in() -> None:
    train = draw(40, 1)
    table = TableComparison(SCHEMA, draw(30, 0), train)
    real, other = table.real
    assert sorted(map(tuple, np.nan_to_num(np.vstack([real, other])))) == sorted(map(tuple, np.nan_to_num(table.train)))
    assert table.closest is None
    assert "Nothing was held out" in " ".join(content(table)["privacy"])
    one = TableComparison([Made("x")], np.zeros((5, 1)), np.ones((1, 1)), np.ones((1, 1)))
    assert one.shapes.mean == 0.0
    assert one.trends is one.c2st is one.utility is one.rare is None
    with pytest.raises(ValueError, match="nothing can be compared"):
        TableComparison([Made("x")], np.zeros((5, 1)), np.ones((1, 1)))
    with pytest.raises(ValueError, match="no column 'z'"):
        TableComparison([Made("x")], np.zeros((5, 1)), np.ones((2, 1)), target="z")
