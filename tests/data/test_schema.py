"""Columns of tables: decided as a whole, and every value comes back as the file had it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffflow.data.errors import DataError
from diffflow.data.infer import infer
from diffflow.data.schema import ColumnSpec, described

RNG = np.random.default_rng(0)
MANY = [str(v) for v in RNG.permutation(4000)[:300]]
DECIMALS = [f"{v:.2f}" for v in RNG.normal(size=300) * 9]


@pytest.mark.parametrize(
    ("cells", "kind", "detail"),
    [
        (["a", "", "b", "a"], "words", ("a", "b")),  # one blank among words
        (["A1", "B2", "7"] * 9, "words", ("7", "A1", "B2")),  # codes, some of which look like numbers
        (["x", "nan", "inf", "Infinity"] * 3, "words", ("Infinity", "inf", "nan", "x")),
        (["None", "Stone", "NA"] * 3, "words", ("None", "Stone")),
        (["12_34", "5", "77"] * 9, "words", ("5", "12_34", "77")),
        (["00501", "10001", "501"] * 9, "words", ("00501", "501", "10001")),
        (["12E4", "3E5", "71E1"] * 9, "words", ("3E5", "12E4", "71E1")),
        (["-007", "12", "5"] * 9, "words", ("5", "12", "-007")),
        (["123456789012345678", "123456789012345679"] * 9, "words", ("123456789012345678", "123456789012345679")),
        (["True", "False"] * 9, "words", ("False", "True")),
        (["5", "NA"] * 9, "words", ("5",)),
        (["20190131", "20190228"] * 9, "levels", (17927.0, 17955.0)),  # days of eight digits
        (["99999901", "99999902", "99999903"] * 9, "levels", (99999901.0, 99999902.0, 99999903.0)),
        (["0", "1"] * 9, "levels", (0.0, 1.0)),
        (["1.50", "2", ".5"] * 9, "levels", (0.5, 1.5, 2.0)),
        (["2019-01-01", "2019-02-01"] * 9, "levels", (17897.0, 17928.0)),
        (MANY, "integer", (0, 1.0)),
        ([f"{v}.0" for v in MANY], "integer", (0, 1.0)),
        (DECIMALS, "number", (2, 0.01)),
        ([f"{float(v) * 1e5:.3e}" for v in DECIMALS], "number", (-1, 0.0)),
        ([repr(v) for v in RNG.normal(size=99).tolist()], "number", (-1, 0.0)),
        ([*MANY, "1e+05"], "integer", (0, 1.0)),  # as R writes 100000
        ([*(f"{k}.{k % 9 + 1}" for k in range(60)), "1e-04"], "number", (4, 0.0001)),
        (["7"] * 9, "constant", "7"),
        (["NA", ""] * 9, "constant", "NA"),
        ([f"C{k:05d}" for k in range(99)], "identifier", "C{:05d}"),
        ([str(k) for k in range(1, 99)], "identifier", "{:d}"),
        ([f"{k:08x}-0000-4000-8000-000000000000" for k in range(99)], "identifier", "uuid"),
        ([f"{10**16 + 7 * k + 1}" for k in range(99)], "identifier", "{:017d}"),
        ([f"a long remark, the {k}th, of somebody who writes on and on" for k in range(99)], "identifier", ""),
    ],
)
def test_columns_are_what_all_their_cells_say(cells, kind, detail):
    spec = infer("c", cells)
    said = {"words": spec.words, "levels": spec.values}.get(kind, (spec.decimals, spec.step))
    assert (spec.kind, spec.content if kind in ("constant", "identifier") else said) == (kind, detail)
    assert ColumnSpec.from_meta(json.loads(json.dumps(spec.to_meta()))) == spec
    if spec.modelled:
        plain = {"1e+05": "100000", "1e-04": "0.0001"}
        assert spec.write(spec.parse(cells)) == [plain.get(cell, cell) for cell in cells]


STYLES = [
    lambda v: f"{v:.2f}".replace(".", ","),
    lambda v: f"{v:,.2f}",
    lambda v: f"{v:,.2f}".translate(str.maketrans(",.", ".,")),
    lambda v: f"{v:,.1f}".replace(",", " "),
    lambda v: f"{v:,.0f}".replace(",", "'"),
    lambda v: f"{'-' if v < 0 else ''}${abs(v):,.2f}",
    lambda v: f"{v:.1f}%",
    lambda v: f"{v:.2f} €".replace(".", ","),
    lambda v: f"{v:.0f} kg",
    lambda v: f"({-v:.2f})" if v < 0 else f"{v:.2f}",
    lambda v: f"{v:+.3f}",
    lambda v: f"{v:.3f}".rstrip("0").rstrip("."),
    lambda v: f"{v:.5e}",
]


@pytest.mark.parametrize("style", range(len(STYLES)))
def test_numbers_are_read_in_the_style_of_the_column_and_written_back(style):
    values = RNG.normal(size=200) * 10.0 ** RNG.integers(1, 6, 200)
    values += np.sign(values)  # no zeros with a sign
    cells = [STYLES[style](v) for v in values]
    spec = infer("c", cells)
    codes = spec.parse(cells)
    assert spec.kind in ("number", "integer")
    assert (np.abs(codes - values) <= {4: 0.5, 8: 0.5, 12: 5e-6 * np.abs(values)}.get(style, 0.05) + 1e-9).all()
    assert spec.write(codes) == cells
    assert ColumnSpec.from_meta(spec.to_meta()).write(codes) == cells


def test_separators_of_one_column_tell_what_they_are():
    three = ["1,234", "5,678", "9,125"] * 9
    assert infer("c", three).values == (1234.0, 5678.0, 9125.0)
    assert "thousands" in infer("c", three).why
    assert infer("c", three, decimal=",").values == (1.234, 5.678, 9.125)
    assert infer("c", ["0,125", "5,678", "9,125"] * 9).values == (0.125, 5.678, 9.125)
    assert infer("c", ["1.234", "56.789", "999"] * 9, decimal=",").values == (999.0, 1234.0, 56789.0)
    assert infer("c", ["1,5", "2.5"] * 9).kind == "words"  # two styles are none
    assert infer("c", ["5%", "6"] * 9).kind == "words"


DATES = "%Y-%m-%d %d/%m/%Y %m/%d/%Y %d.%m.%Y %d-%b-%Y %Y%m%d %Y-%m-%dT%H:%M:%S %Y-%m-%dT%H:%M:%SZ %H:%M:%S %d.%m.%y"
MORE = ["%Y-%m-%d %H:%M", "%m/%d/%Y %I:%M %p", "%B %d, %Y", "%Y-%m-%d %H:%M:%S+02:00"]


@pytest.mark.parametrize("form", [*DATES.split(), *MORE])
def test_dates_are_read_in_one_format_and_written_back(form):
    times = np.datetime64("1999-01-13") + RNG.integers(0, 9000 * 86400, 200).astype("timedelta64[s]")
    cells = [t.astype(object).strftime(form) for t in times]
    spec = infer("c", cells)
    assert (spec.kind, spec.style) == ("date", form)
    assert spec.write(spec.parse(cells)) == cells
    unit = "s" if "%H" in form or "%I" in form else "D"
    if ("%S" in form and "%Y" in form) or unit == "D":
        np.testing.assert_array_equal(spec.parse(cells), times.astype(f"datetime64[{unit}]").astype(np.int64))


def test_day_and_month_are_told_apart_by_the_column():
    assert infer("c", [f"{d}/3/2019" for d in range(1, 31)]).style == "%-d/%-m/%Y"
    assert infer("c", [f"3/{d}/2019" for d in range(1, 31)]).style == "%-m/%-d/%Y"
    rising = [f"{m:02d}/{d:02d}/2019" for m in range(1, 7) for d in range(1, 7)]
    assert infer("c", rising).style == "%m/%d/%Y"  # rows in order of time
    mixed = [rising[k] for k in RNG.permutation(len(rising))]
    assert "exchanged" in infer("c", mixed).why
    assert infer("c", mixed, as_kind="date=%m/%d/%Y").style == "%m/%d/%Y"
    assert infer("c", ["2019-01-31", "2019-02-30"] * 9).kind == "words"  # there is no such day


def test_gaps_of_numbers_are_all_the_usual_signs_and_those_by_name():
    for gap in ("", "NA", "N/A", "NaN", "null", "None", "?", "-"):
        spec = infer("c", [*MANY, gap])
        assert (spec.kind, spec.gap) == ("integer", gap)
        assert spec.write(spec.parse([gap, MANY[0]])) == [gap, MANY[0]]
        assert np.isnan(spec.parse([gap])).all()
    spec = infer("c", [*MANY, "-999", "-999"])
    assert (spec.low, spec.gap) == (-999.0, None)
    spec = infer("c", [*MANY, "-999", "-999"], as_kind="gap=-999")
    assert (spec.low >= 0, spec.gap) == (True, "-999")
    assert infer("c", [*DECIMALS, "-999.00"], as_kind="number,gap=-999").gap == "-999.00"  # by its value
    spec = infer("c", [*MANY, "unknown", "unknown"])
    assert (spec.kind, spec.gap) == ("integer", "unknown")
    assert infer("c", ["a", "b"] * 9).parse(["NA", "?"]).tolist() == pytest.approx([np.nan] * 2, nan_ok=True)


def test_few_values_depend_on_rows():
    values = [str(v) for v in range(40)]
    assert infer("c", values * 50).kind == "levels"  # 2000 rows, 40 levels
    assert infer("c", values * 49).kind == "integer"
    assert infer("c", values[:16] * 5).kind == "levels"
    assert infer("c", values[:17] * 5).kind == "integer"
    assert infer("c", values[2:12] * 4).kind == "integer"  # each comes four times
    assert infer("c", values * 50, n_train=1900).kind == "integer"


def test_requests_win_and_what_does_not_fit_is_named():
    assert infer("c", MANY, as_kind="words").kind == "words"
    assert infer("c", MANY, as_kind="levels").values == tuple(sorted(map(float, MANY)))
    assert infer("c", ["12E4", "007"] * 9, as_kind="number").parse(["12E4", "007"]).tolist() == [120000.0, 7.0]
    assert not infer("c", MANY, as_kind="drop").modelled
    with pytest.raises(DataError, match=r"cannot be integer(.|\n)*row 2: '1\.5'(.|\n)*row 3: 'x'"):
        infer("c", ["1", "1.5", "x"], as_kind="integer")
    with pytest.raises(DataError, match="did you mean 'integer'"):
        infer("c", ["1"], as_kind="intger")
    with pytest.raises(DataError, match="no format of dates"):
        infer("c", ["1"], as_kind="date=%Q")


def test_what_the_column_never_saw_is_named_row_by_row():
    words, levels = infer("w", ["a", "b"] * 9), infer("l", ["1", "2", "5"] * 9)
    with pytest.raises(DataError, match=r"row 2, column 'w': 'c' is not among the words\n(.|\n)*row 3"):
        words.parse(["a", "c", "d"])
    with pytest.raises(DataError, match=r"row 2, column 'l': '3' is not among the levels"):
        levels.parse(["1", "3"])
    with pytest.raises(DataError, match="and 10 more"):
        words.parse(["z"] * 30)
    with pytest.raises(DataError, match=r"row 1, column 'i': '1\.5' is no whole number"):
        infer("i", MANY).parse(["1.5"])
    assert levels.number("3") == 3.0  # as a bound, it is one


def test_rare_words_become_one():
    spec = infer("c", ["a"] * 9 + ["b"] * 7 + ["c", "d", "d"], min_count=3)
    assert spec.words == ("a", "b", "other")
    assert spec.write(spec.parse(["a", "d", "never seen"])) == ["a", "other", "other"]
    spec = infer("c", [w for k in range(1500) for w in [f"w{k}"] * (2 + (k < 900))])
    assert len(spec.words) == 901
    assert "'other'" in spec.why


def test_snapped_codes_are_some_that_the_column_could_hold():
    mass = infer("c", [str(2700 + 25 * k) for k in RNG.integers(0, 60, 300)])
    assert mass.step == 25
    x = RNG.normal(3000, 2000, 500)
    snapped = mass.snap(x)
    assert set(snapped % 25) == {0.0}
    assert snapped.min() == mass.low
    assert snapped.max() == mass.high
    assert mass.snap(x, clip=False).max() > mass.high
    assert np.abs(mass.snap(x, clip=False) - x).max() <= 12.5
    sums = infer("c", [*[f"{k / 10}" for k in range(1, 200)], "0.30000000000000004"])
    assert sums.write(sums.snap(np.array([0.26, 7.0]))) == ["0.3", "7.0"]
    assert sums.write(sums.parse(["0.30000000000000004"])) == ["0.30000000000000004"]
    levels = infer("c", ["1", "2", "5"] * 9)
    assert levels.snap(np.array([1.4, 3.6, 99.0, np.nan]))[:3].tolist() == [1.0, 5.0, 5.0]
    tenths = infer("c", [f"{v:.1f}" for v in RNG.normal(size=300) * 9])
    assert all(float(t) == v for t, v in zip(tenths.write(tenths.snap(x)), tenths.snap(x), strict=True))


def test_identifiers_are_made_anew():
    old = [f"C{k:05d}" for k in range(99)]
    assert infer("c", old).made(2) == ["C00099", "C00100"]
    assert infer("row", [str(k) for k in range(1, 99)]).made(2, first=5) == ["6", "7"]  # counted as in the file
    made = infer("name", [f"{w} {v}" for w in "abcdefghij" for v in "klmnopqrst"]).made(200)
    assert len(set(made)) == 200
    uuids = infer("c", [f"{k:08x}-0000-4000-8000-000000000000" for k in range(99)]).made(9)
    assert len(set(uuids)) == 9
    assert all(len(u) == 36 for u in uuids)


def test_decisions_are_a_table():
    schema = [infer(f"c{k}", DECIMALS) for k in range(80)]
    lines = described(schema)
    assert len(lines) <= 40
    assert lines[-1] == "and 44 more: 44 number"
    assert len({line.index("number") for line in lines[1:-1]}) == 1


word = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=9)
columns = st.one_of(
    st.lists(st.sampled_from(["a", "b b", 'c"', "d,e", "nan", "7", "-1"]), min_size=3, max_size=60),
    st.lists(word, min_size=3, max_size=12),
    st.lists(st.integers(-(2**53), 2**53).map(str), min_size=3, max_size=60),
    st.lists(st.sampled_from([0, 3, 11, -4]).map(str), min_size=3, max_size=60),
    st.lists(st.integers(-(10**9), 10**9).map(lambda v: f"{v / 100:.2f}"), min_size=3, max_size=60),
    st.lists(st.dates().map(str), min_size=3, max_size=60),
    st.lists(st.datetimes().map(lambda t: t.isoformat(timespec="milliseconds")), min_size=3, max_size=60),
)


@settings(deadline=None, max_examples=40)
@given(columns, st.sampled_from(["", "NA", None]), st.data())
def test_what_is_written_is_what_was_read(cells, gap, data):
    if gap is not None:
        k = data.draw(st.integers(0, len(cells) - 1))
        cells = [*cells[:k], gap, *cells[k:]]
    spec = infer("c", cells)
    if spec.modelled:
        codes = spec.parse(cells)
        np.testing.assert_array_equal(np.isnan(codes), [cell == gap for cell in cells])
        assert spec.write(codes) == cells
        np.testing.assert_array_equal(spec.snap(codes), codes)
    else:
        assert spec.kind in ("constant", "identifier")
