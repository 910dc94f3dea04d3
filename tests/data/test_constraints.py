"""What a user asks of rows: every name comes through, sums are sums, and what is no condition is named."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffflow.data.constraints import OPERATORS, parse_constraints, quoted
from diffflow.data.errors import DataError

names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(
    lambda s: s == s.strip()
)
numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 3))
operators = st.sampled_from([op for op in OPERATORS if op not in ("=", "==")])


def one(word, columns, **more):
    (comparison,) = parse_constraints([word], columns, **more).comparisons
    return comparison


@settings(deadline=None, max_examples=60)
@given(st.sets(names, min_size=1, max_size=5), st.data())
def test_a_quoted_name_has_the_value_that_follows_whatever_both_hold(columns, data):
    name, value = data.draw(st.sampled_from(sorted(columns))), data.draw(names)
    assume(not value.startswith("="))  # "==" is a sign of equality, too
    found = parse_constraints([f"{quoted(name)}={value}"], columns)
    assert found.equalities == {name: value}
    assert found.comparisons == ()


@settings(deadline=None, max_examples=60)
@given(st.sets(names.filter(lambda s: not any(c.isdigit() for c in s)), min_size=2, max_size=4), operators, numbers,
       st.data())
def test_a_comparison_of_quoted_names_is_that_of_their_numbers(columns, operator, bound, data):
    first, second = data.draw(st.permutations(sorted(columns)))[:2]
    a, b = data.draw(st.tuples(numbers, numbers))
    rows = {name: np.zeros(2) for name in columns} | {first: np.array([a, np.nan]), second: np.array([b, b])}
    for word, total in ((first, a), (None, a - 2 * b + 1)):
        text = quoted(first) if word else f"{quoted(first)} - 2*{quoted(second)}+1"
        holds = parse_constraints([f"{text}{operator}{bound}"], columns).holds(rows)
        if abs(total - bound) > 1e-6:
            assert holds.tolist() == [bool(OPERATORS[operator](np.array(total), bound)), False]  # a gap fulfils nothing


@settings(deadline=None)
@given(st.text(max_size=20), st.sets(names, max_size=3))
def test_any_text_is_read_or_refused_by_a_data_error(text, columns):
    try:
        found = parse_constraints([text], columns)
    except DataError:
        return
    assert set(found.equalities) | {name for c in found.comparisons for _, name in c.terms} <= columns


@pytest.mark.parametrize(
    ("word", "equalities"),
    [
        ("species=Adelie", {"species": "Adelie"}),
        ("species == Adelie", {"species": "Adelie"}),
        (" species = New York, NY ", {"species": "New York, NY"}),
        ("species=a=b", {"species": "a=b"}),
        ("species=>60", {"species": ">60"}),
        ("body mass=4000", {"body mass": "4000"}),
        ("'body mass'=4000", {"body mass": "4000"}),
        ("O'Brien=1", {"O'Brien": "1"}),
        ("a=b=2", {"a=b": "2"}),
        ("a=b", {"a": "b"}),
        ("x-y=3", {"x-y": "3"}),
    ],
)
def test_equalities(word, equalities):
    columns = ["species", "body mass", "O'Brien", "a", "a=b", "x", "x-y", "age"]
    found = parse_constraints([word], columns)
    assert (found.equalities, found.comparisons) == (equalities, ())


@pytest.mark.parametrize(
    ("word", "terms", "operator", "bound"),
    [
        ("age>60", ((1, "age"),), ">", 60),
        ("60 < age", ((1, "age"),), ">", 60),
        ("age!=-1.5e1", ((1, "age"),), "!=", -15),
        ("a+b<=10", ((1, "a"), (1, "b")), "<=", 10),
        ("2*a - b > age+1", ((2, "a"), (-1, "b"), (-1, "age")), ">", 1),
        ("-a>=.5", ((-1, "a"),), ">=", 0.5),
        ("a+a<1", ((2, "a"),), "<", 1),
        ("a+3<10", ((1, "a"),), "<", 7),
        ("10>=a+b", ((1, "a"), (1, "b")), "<=", 10),
        ("a+b=10", ((1, "a"), (1, "b")), "=", 10),
        ("x-y<3", ((1, "x-y"),), "<", 3),
        ("x - b<3", ((1, "x"), (-1, "b")), "<", 3),
        ("a<b", ((1, "a"), (-1, "b")), "<", 0),
        ("2020>1", ((1, "2020"),), ">", 1),
    ],
)
def test_comparisons(word, terms, operator, bound):
    c = one(word, ["age", "a", "b", "x", "x-y", "2020"])
    assert (c.terms, c.operator, c.bound) == (terms, operator, bound)


def test_a_range_is_two_comparisons():
    found = parse_constraints(["60<=age<70"], ["age"])
    age = np.array([59.0, 60.0, 69.9, 70.0, np.nan])
    assert found.holds({"age": age}).tolist() == [False, True, True, False, False]
    assert parse_constraints([], ["age"]).holds({"age": np.zeros(3)}).all()


def test_values_are_read_as_their_column_writes_them():
    dates = {"2020-01-01": 18262.0}
    words = {"Adelie": 0.0, "Gentoo": 1.0}
    columns = {"day": dates.__getitem__, "species": words.__getitem__, "n": float}
    assert one("day>2020-01-01", columns).bound == 18262
    assert one("2020-01-01<=day", columns).operator == ">="
    assert one("species!=Gentoo", columns, unordered=["species"]).bound == 1
    assert one("day-n>3", columns).bound == 3
    for word, message in [
        ("species>Adelie", "holds words, which are equal or not"),
        ("species+n>1", "holds words"),
        ("species!=Chinstrap", "column species has no value 'Chinstrap'"),
        ("day>yesterday", "column day has no value 'yesterday'"),
    ]:
        with pytest.raises(DataError, match=message):
            parse_constraints([word], columns, unordered=["species"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["agee>60"], r"names no column: there is no column 'agee'; did you mean 'age'\?"),
        (["agee=60"], r"there is no column 'agee'; did you mean 'age'\?"),
        (["age"], "is no condition: write column=value"),
        (["age>"], "is no condition"),
        (["age="], "no value stands behind"),
        (["1<age<2<3"], "is no condition"),
        (["age+<3"], "a sign stands at the end"),
        (["age+mas<3"], r"neither a column nor a number: there is no column 'mas'; did you mean 'mass'\?"),
        (["age+mass<x"], "'x' is no number"),
        (["age=1", "age=2"], "age is asked to be '1' and '2'"),
        (["age>NA"], "has no value 'NA'"),
        (["age>nan"], "is a gap"),
        (["1<2"], "names no column"),
        (["__import__('os').system('true')>0"], "names no column"),
        ([""], "is no condition"),
    ],
)
def test_what_is_no_condition_is_refused_by_name(words, message):
    with pytest.raises(DataError, match=message):
        parse_constraints(words, ["age", "mass"])
