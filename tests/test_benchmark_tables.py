"""The benchmark of tables: scores of rows of the same law, of copies and of impossible cells; its cells."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "tables"))
import quality
import scores
import tables_data


def people(n: int, seed: int) -> scores.Text:
    """Rows of a law with words that depend, whole numbers, decimals, dates and gaps, as a file has them."""
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, 3, n)
    mass = np.round(draw.normal(kind, 0.3), 2)
    gone = draw.random(n) < 0.2
    return {
        "id": np.array([f"P{seed}-{k}" for k in range(n)], dtype=object),
        "kind": np.array(["oak", "elm", "ash"], dtype=object)[kind],
        "mass": np.array([f"{v:.2f}" for v in mass], dtype=object),
        "age": np.array(["" if g else f"{a}" for g, a in zip(gone, draw.poisson(20, n), strict=True)], dtype=object),
        "day": np.array([f"2020-01-{d:02d}" for d in draw.integers(1, 29, n)], dtype=object),
        "land": np.array(["X"] * n, dtype=object),
    }


TRAIN, TEST, NEW = people(800, 0), people(200, 1), people(800, 2)
COLUMNS = scores.decide(TRAIN)
CODES = {name: scores.codes(t, COLUMNS) for name, t in (("train", TRAIN), ("test", TEST), ("new", NEW))}


def test_columns_are_what_their_cells_say() -> None:
    kinds = {c.name: c.kind for c in COLUMNS}
    assert list(kinds.values()) == ["identifier", "word", "number", "number", "date", "constant"]
    assert {c.name: c.decimals for c in COLUMNS if c.kind == "number"} == {"mass": 2, "age": 0}
    (age,) = [c for c in COLUMNS if c.name == "age"]
    assert age.gaps == pytest.approx(np.mean(TRAIN["age"] == ""))


def test_a_table_beside_itself_is_the_same_and_beside_others_of_its_law_is_near() -> None:
    for measure, bar in ((scores.shapes, 0.8), (scores.trends, 0.75)):
        same = measure(CODES["test"], CODES["test"], COLUMNS)
        assert list(same.values()) == pytest.approx([1.0] * len(same))
        assert min(measure(CODES["new"], CODES["test"], COLUMNS).values()) > bar


def test_distances_of_columns_and_pairs_are_those_by_hand() -> None:
    assert scores.shape(np.array([0, 0, 1, -1]), np.array([0, 1, 1, 1]), False) == pytest.approx(0.5)
    # the distributions are 2/3 apart between 2 and 3; gaps are not compared
    assert scores.shape(np.array([1.0, 2.0, 3.0, np.nan]), np.array([3.0, 4.0, 5.0]), True) == pytest.approx(1 / 3)
    x = {"a": np.arange(9.0), "b": -np.arange(9.0)}
    columns = tuple(scores.Column(name, "number") for name in "ab")
    assert scores.trends(x, {"a": x["a"], "b": x["a"]}, columns) == {"a x b": pytest.approx(0.0)}


def test_a_number_beyond_the_range_moves_no_edge() -> None:
    """One sample far out costs a word-number pair 1/n, where edges of its own would move all others into one bin."""
    columns = tuple(c for c in COLUMNS if c.name in ("kind", "mass"))
    far = {name: v.copy() for name, v in CODES["test"].items()}
    far["mass"][0] = 1e6
    (value,) = scores.trends(far, CODES["test"], columns).values()
    assert value >= 1 - 1 / len(far["mass"])


def test_rows_of_the_same_law_are_neither_told_nor_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "REPEATS", 1)
    fresh = scores.compare(CODES["new"], CODES["train"], CODES["test"], COLUMNS, "kind", resamples=4)
    assert abs(fresh["c2st"]["value"] - 0.5) < 4 * fresh["c2st"]["stderr"] + 0.02
    assert abs(fresh["dcr"]["value"] - 0.5) < 3 * fresh["dcr"]["stderr"]
    assert fresh["tstr"]["value"] > 0.8
    shuffled = {n: np.random.default_rng(k).permutation(v) for k, (n, v) in enumerate(CODES["new"].items())}
    poor = scores.compare(shuffled, CODES["train"], CODES["test"], COLUMNS, "kind", resamples=4)
    assert poor["c2st"]["value"] > 0.7  # they lack what `kind` says of `mass`, and nothing else
    assert poor["tstr"]["value"] < 0.65
    assert poor["trends"]["worst"]["kind x mass"] < fresh["trends"]["worst"].get("kind x mass", 1.0) - 0.2


def test_copies_of_training_rows_are_nearer_to_them() -> None:
    """A quarter of the copies find their original among the thinned rows; the others are coins: 1/4 + 3/4 x 1/2."""
    share = scores.dcr(CODES["train"], CODES["train"], CODES["test"], COLUMNS)
    assert share["value"] == pytest.approx(0.25 + 0.75 / 2, abs=3 * share["stderr"])


def test_cells_that_the_file_could_not_hold_are_counted() -> None:
    found = scores.validity(TRAIN, TRAIN, TEST, COLUMNS)
    sums = ("non_integers", "too_fine", "outside", "unknown", "gaps_off")
    assert [found[k] for k in sums] == [0] * 5
    assert (found["copies"], found["copied"], found["header"]) == (1.0, len(TRAIN["id"]), True)
    bad = {name: v.copy() for name, v in NEW.items()}
    bad["age"][:] = "20"
    bad["age"][:3] = ["1.5", "999", "old"]
    bad["kind"][0], bad["mass"][1], bad["day"][2], bad["day"][3] = "yew", "0.123", "2021-01-01", "soon"
    bad["mass"][2:], bad["id"][0] = "1.00", TRAIN["id"][5]
    found = scores.validity(bad, TRAIN, TEST, COLUMNS)
    assert found["non_integers"] == 1
    assert found["too_fine"] == 2  # 1.5 of whole numbers, and 0.123
    assert found["outside"] - found["columns"]["age"]["outside"] == 1
    assert found["unknown"] == 3
    assert found["gaps_off"] == 1
    assert (found["copied"], found["copies"]) == (1, 0.0)


def test_splits_share_no_row_and_files_keep_their_cells(tmp_path: Path) -> None:
    rows = [[f"{k}", "1,5" if k % 2 else ""] for k in range(100)]
    train, test = tables_data.split(rows, 1)
    assert (len(train), len(test)) == (80, 20)
    assert {r[0] for r in train + test} == {r[0] for r in rows}
    tables_data.write(tmp_path / "x.csv", ["a", "b"], train, ";")
    text, delimiter = scores.read(tmp_path / "x.csv")
    assert (delimiter, list(text["b"])) == (";", [r[1] for r in train])
    (_, b) = scores.decide(text, delimiter)
    assert (b.kind, b.low, b.decimals) == ("number", 1.5, 1)  # or a gap, which makes it two values
    header, cells, delimiter = tables_data.german(["day", "x"], [["2012/01/09", "12.8"]])
    assert (header, cells, delimiter) == (["day", "x"], [["09.01.2012", "12,8"]], ";")


def test_cells_run_once_and_the_table_counts_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings stand in: ours draws from the law, the peer draws its columns one by one and forgets decimals."""
    for name, rows in (("train", TRAIN), ("test", TEST)):
        path, cells = tmp_path / f"data/penguins/0/{name}.csv", list(zip(*rows.values(), strict=True))
        tables_data.write(path, list(rows), cells, ",")
    target = tables_data.Table("penguins", "", "", "", "kind", "word")
    monkeypatch.setitem(quality.TABLES, "penguins", target)
    monkeypatch.setattr(scores, "REPEATS", 1)

    def make(cell: quality.Cell, home: Path, o: object) -> dict:
        draw = np.random.default_rng(0)
        x = NEW if cell.method == "ours" else {name: draw.permutation(v) for name, v in NEW.items()}
        if cell.method != "ours":
            x["mass"] = np.array([f"{float(v) + 0.001 * draw.random()}" for v in x["mass"]], dtype=object)
        with open(home / "samples.csv", "w", newline="") as file:
            csv.writer(file).writerows([list(x), *zip(*x.values(), strict=True)])
        return {"seconds": 1.0 + (cell.method != "ours"), "stopped": False}

    monkeypatch.setattr(quality, "make", make)
    flags = ["--data", str(tmp_path / "data"), "--cells", str(tmp_path / "cells"), "--out", str(tmp_path / "out.json")]
    ask = ["run", "ours", "arf", "--tables", "penguins", "--splits", "0", "--quick", *flags]
    assert quality.main(ask) == 0
    monkeypatch.setattr(quality, "make", None)  # what is there is not done again
    assert quality.main(ask) == 0
    assert quality.main(["table", "--quick", *flags]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found["cells"]) == 2
    assert found["wins"]["c2st"] == found["wins"]["trends"] == found["wins"]["c2st <= 0.65"] == "1 of 1"
    (peer,) = [c for c in found["cells"] if c["cell"]["method"] == "arf"]
    assert peer["best"] == "rounded"
    assert peer["judged"]["rounded"]["c2st"]["value"] < peer["judged"]["own"]["c2st"]["value"]
    assert peer["validity"]["too_fine"] > 700
    line = found["tables"]["penguins"]
    assert line["dcr"]["met"]
    assert line["c2st"]["behind"] < 0
    assert not line["validity"]["unknown"]
