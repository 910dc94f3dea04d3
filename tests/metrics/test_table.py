"""The table of metrics: its words everywhere, metrics of one's own, and what evaluate refuses before any work."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import diffflow as df
from diffflow.metrics import METRICS, Metric, MetricRow, evaluate, register
from diffflow.metrics.table import NEEDS, ROWS, markdown

PAGES = Path(__file__).parents[2] / "docs"


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, MetricRow]:
    """The table, put back afterwards."""
    kept = dict(METRICS)
    yield METRICS
    METRICS.clear()
    METRICS.update(kept)


def test_the_page_says_what_the_table_says() -> None:
    """Each line of the page's table is one of `markdown()`, which the documentation's build puts in its place."""
    (page,) = PAGES.rglob("metrics.md")
    table = page.read_text().split("| metric |", 1)[1].split("\n\n", 1)[0]
    shown = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(shown) > 10
    assert set(shown) <= set(markdown().splitlines())


def test_every_row_has_a_name_of_its_own_a_meaning_and_known_needs() -> None:
    assert list(METRICS) == [row.name for row in ROWS]
    for row in ROWS:
        assert len(row.meaning) > 10
        assert set(row.needs) <= NEEDS.keys()


@pytest.mark.parametrize("name", df.metrics.__all__)
def test_what_is_public_is_documented(name: str) -> None:
    public = getattr(df.metrics, name)
    if not callable(public):
        return
    text = inspect.getdoc(public) or ""
    told = {line.split(":")[0].strip() for line in text.partition("Args:")[2].splitlines()}
    assert set(inspect.signature(public).parameters) <= told
    assert text.splitlines()[0].endswith(".")
    assert "Raises:" in text or isinstance(public, type) or "raise " not in inspect.getsource(public)


def test_evaluate_measures_the_rows_that_have_what_they_need_in_their_order(table: dict[str, MetricRow]) -> None:
    x, y, z = (normal(60, 2, s) for s in range(3))
    names = [m.name for m in evaluate(x, y, z)]
    assert names == [row.name for row in ROWS if not row.needs]

    def spread(x: torch.Tensor, y: torch.Tensor, other: torch.Tensor, *, limit: int, seed: int) -> Metric:
        return Metric("spread", float(x.std() / y.std()), 0.1, float(other.std() / y.std()), "higher", len(x))

    row = register(MetricRow(name="spread", function=spread, meaning="how wide the samples are", better="higher"))
    found = evaluate(x, y, z)
    assert [m.name for m in found] == [*names, "spread"]
    assert found["spread"].value == pytest.approx(float(x.std() / y.std()))
    assert register(row) is row  # once more does nothing
    with pytest.raises(ValueError, match="'spread' is there already: give yours another name"):
        register(MetricRow(name="spread", function=spread, meaning="another", better="lower"))
    with pytest.raises(ValueError, match="needs 'weights'; evaluate knows features, columns, density, labels"):
        register(MetricRow(name="heavy", function=spread, needs=("weights",), meaning="another", better="lower"))


def test_a_metric_that_is_not_its_row_is_refused(table: dict[str, MetricRow]) -> None:
    for name in ("spread", "w2", "width"):  # the other direction, a name that is taken, a name without a row
        wrong = lambda x, y, other, *, limit, seed, name=name: Metric(name, 1.0, 0.1, None, "lower", len(x))
        table.clear()
        for row in (ROWS[0], MetricRow(name="spread", function=wrong, meaning="width of samples", better="higher")):
            register(row)
        with pytest.raises(ValueError, match=f"the function of 'spread' gave '{name}', where lower is better"):
            evaluate(*(normal(40, 2, s) for s in range(3)))


def test_too_few_points_and_strange_labels_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed before: everything but precision was measured first, and labels that no class has counted as misses."""
    monkeypatch.setitem(METRICS, "w2", replace(METRICS["w2"], function=lambda **given: 1 / 0))
    with pytest.raises(ValueError, match=r"at least 12 samples and 2 training points, got 5 and 60"):
        evaluate(normal(5, 2, 0), normal(60, 2, 1), normal(60, 2, 2))
    train, test = (df.data.load("digits", split) for split in ("train", "test"))
    judge = df.metrics.Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), None, 10, "line")
    labels = test.y[:50].clone()
    for bad, message in ((-1, "label 7 is -1"), (10, "label 7 is 10, no class of a judge of 10 classes: give 0 to 9")):
        labels[7] = bad
        with pytest.raises(ValueError, match=message):
            evaluate(test.x[:50], train, test, labels, judge)
