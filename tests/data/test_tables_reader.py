"""Tables by columns: any usual file or frame in, one like it out."""

import builtins
import csv
import gzip
import io
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffflow.data.by_columns import Wishes
from diffflow.data.errors import DataError
from diffflow.data.frames import read_frame
from diffflow.data.readers.tables import read_columns
from diffflow.data.writers.tables import to_csv, to_frame

RNG = np.random.default_rng(0)


@pytest.fixture
def read(tmp_path):
    """Read a table of this text."""

    def read(text, name="t.csv", **wishes):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_columns(tmp_path / name, Wishes(**wishes))

    return read


def kinds(raw):
    return {spec.name: spec.kind for spec in raw.schema}


SAME = [
    "1,5;2,5\n2,5;3,5\n3,25;4,0\n",  # decimal commas, without a header
    "a;b\n1,5;2,5\n2,5;3,5\n3,25;4,0\n",
    "x\n3,14\n2,71\n1,41\n",
    "3,14\n2,71\n1,05\n",  # 05 is a fraction
    "1,2\n3,4\n5,7\n",
    "sex,h\n" + "m,1.5\nf,2.5\n,3.5\nm,9.75\n" * 6,
    "code,n\n" + "A1,1\nB2,2\n7,3\n" * 9,
    "id,2019,2020\na,5,6\nb,7,9\na,8,3\n",  # years as names
    'a,b\n"x, y",2\nz,3\n"x ""q""",3\n',
    "colour,size\nred,small\nblue,small\nred,big\n",
    "red,small\nblue,small\nred,big\n",
    "2019-01-01,5\n2019-01-02,6\n2019-01-07,6\n",
    'v\n1\n""\n3\n',
    "price,when\n" + '"$1,234.50",2020-02-29\n"$11,234.00",2020-02-28\n' * 3,
    "a,b,c\n1,k,x\n2,k,\n3,k,y\n",  # a constant
    "a,b\n12_34,20190131\n00501,20190228\n12E4,20190131\n",
]


@pytest.mark.parametrize("text", SAME)
def test_what_is_read_is_written_back_to_the_letter(read, text):
    raw = read(text)
    assert to_csv(raw.schema, raw.x) == text
    assert raw.x.dtype == np.float64
    assert raw.x.shape == (text.count("\n") - (0 if raw.schema[0].name == "1" else 1), len(raw.columns))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.txt"])
def test_every_encoding_delimiter_and_packing_is_one_table(read, encoding, delimiter, name):
    text = "größe,n\r\ngroß,2\r\nklein,3\r\ngroß,4.5\r\n".replace(",", delimiter)
    content = text.encode(encoding)
    raw = read(gzip.compress(content) if name.endswith(".gz") else content, name)
    assert to_csv(raw.schema, raw.x) == "größe,n\ngroß,2\nklein,3\ngroß,4.5\n"
    assert bool(raw.notes) == (encoding == "cp1252")


def test_blanks_between_columns(read):
    assert read("1.5  2.25\n3.5 4.75\n", "t.txt").x.tolist() == [[1.5, 2.25], [3.5, 4.75]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n4,5,6\n", "2 rows of another width.*\n  row 3: 1 cells, not 2\n  row 4: 3 cells, not 2"),
        ("3,14\n2,71\n1,41\n", "one column of decimals.*or two of whole numbers"),
        ("a,b\n", "a header and no rows"),
        ("\n\n", "holds no rows"),
        ("a,a\n1,2\n3,4\n", "several columns of one name"),
        (f"1,2\n3,{'4' * 200_000}\n", "row 2: field larger"),
        (b"\x89PNG\0\0\r\n" * 9, "is no text"),
    ],
)
def test_what_is_no_table_is_refused_with_its_rows(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_columns_are_what_the_user_says(read):
    text = "a,b,c\n1,-9,x\n2,5,y\n3,7,x\n"
    raw = read(text, kinds={"a": "words", "b": "gap=-9", "c": "drop"})
    assert kinds(raw) == {"a": "words", "b": "integer", "c": "dropped"}
    assert np.isnan(raw.x[0, 1])
    assert to_csv(raw.schema, raw.x) == "a,b\n1,-9\n2,5\n3,7\n"
    with pytest.raises(DataError, match=r"no column 'aa'.*did you mean 'a'"):
        read(text, kinds={"aa": "words"})
    with pytest.raises(DataError, match="cannot be 'wrods'; did you mean 'words'"):
        read(text, kinds={"a": "wrods"})
    with pytest.raises(DataError, match=r"cannot be integer(.|\n)*row 2: 'x'(.|\n)*row 4: 'x'"):
        read(text, kinds={"c": "integer"})


def test_new_rows_of_a_known_table(read):
    raw = read("s,n,k,day\n" + "a,1.5,9,2020-01-01\nb,2.5,9,2020-03-01\nc,7.5,9,2021-01-01\n" * 9)
    new = read("x,n,day,s\n,2.5,2020-03-01,a\nzz,?,2020-01-01,c\n", like=raw.schema)  # another order, one more, a gap
    np.testing.assert_array_equal(new.x, [[0, 2.5, 18322], [2, np.nan, 18262]])
    assert new.schema == raw.schema
    assert "no such column: x" in new.notes[0]
    with pytest.raises(DataError, match=r"lacks columns(.|\n)*'s'\n  'day'"):
        read("n,x\n2.5,a\n", like=raw.schema)
    with pytest.raises(DataError, match=r"row 3, column 's': 'd'(.|\n)*row 2, column 'n': '3\.5' is not"):
        read("s,n,day\na,3.5,2020-01-01\nd,1.5,2020-01-01\n", like=raw.schema)
    with pytest.raises(DataError, match="and 10 more"):
        read("s,n,day\n" + "q,1.5,2020-01-01\n" * 30, like=raw.schema)
    plain = read("a,1.5,9,2020-01-01\n", like=raw.schema)  # no header: by place
    assert plain.x.tolist() == [[0, 1.5, 18262]]


def test_rows_outside_the_range_are_brought_in_unless_the_tails_are_wanted(read):
    raw = read("n,w,i\n" + "".join(f"{v:.2f},a,{10 * k}\n" for k, v in enumerate(RNG.random(60) * 9)) + "3.00,b,0\n")
    x = np.array([[-1.234, 1.2, 47.0], [99.0, np.nan, 1e4]])
    assert to_csv(raw.schema, x, clip=False).splitlines()[1:] == ["-1.23,b,50", "99.00,,10000"]
    inside = [row.split(",") for row in to_csv(raw.schema, x).splitlines()[1:]]
    assert inside[1][2] == "590"
    assert [float(row[0]) for row in inside] == [raw.x[:, 0].min(), raw.x[:, 0].max()]


word = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=5)
column = st.one_of(
    st.sampled_from([("a", "b,c", 'd"e'), ("0", "1"), ("1.5", "2.5", "9.0"), ("x", "12E4")]).map(st.sampled_from),
    st.just(st.integers(-(10**12), 10**12).map(str)),
    st.just(st.integers(-(10**6), 10**6).map(lambda v: f"{v / 100 or 0.0:.2f}")),
    st.just(st.dates().map(str)),
    st.just(word),
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.lists(column, min_size=1, max_size=4), st.sampled_from([None, "", "NA"]), st.sampled_from(",;\t|"))
def test_tables_made_at_random_come_back(tmp_path, data, makers, gap, delimiter):
    n = data.draw(st.integers(3, 25))
    columns = [[f"{k}.5" for k in range(n)]]  # so that no row is blank
    for maker in makers:
        cells = data.draw(st.lists(maker, min_size=n, max_size=n))
        holes = data.draw(st.lists(st.booleans(), min_size=n, max_size=n)) if gap is not None else [False] * n
        columns.append([gap if hole else cell for cell, hole in zip(cells, holes, strict=True)])
    buffer = io.StringIO()
    lines = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    lines.writerows([[f"c{k}" for k in range(len(columns))], *zip(*columns, strict=True)])
    (tmp_path / "t.csv").write_text(buffer.getvalue(), encoding="utf-8", newline="")
    raw = read_columns(tmp_path / "t.csv")
    written = to_csv(raw.schema, raw.x, delimiter=delimiter)
    cells = list(csv.reader(io.StringIO(written, newline=""), delimiter=delimiter))
    for k, spec in enumerate(raw.schema):
        if spec.kind != "identifier":
            assert [row[k] for row in cells[1:]] == columns[k]
    (tmp_path / "again.csv").write_text(written, encoding="utf-8", newline="")
    again = read_columns(tmp_path / "again.csv")
    np.testing.assert_array_equal(again.x, raw.x)


def test_large_tables_are_read_in_seconds(tmp_path):
    n = 10_000
    parts = [RNG.normal(size=n).round(3), RNG.integers(0, 10**5, n), RNG.integers(0, 50, n)]
    columns = [[str(v) for v in part.tolist()] for part in parts] * 3 + [[f"w{v}" for v in parts[2]]]
    text = "\n".join(map(",".join, zip(*columns, strict=True)))
    (tmp_path / "t.csv").write_text(",".join(f"c{k}" for k in range(10)) + "\n" + text)
    start = time.process_time()
    raw = read_columns(tmp_path / "t.csv")
    assert time.process_time() - start < 3  # 0.35 s
    assert list(kinds(raw).values()) == [*["number", "integer", "levels"] * 3, "words"]


class Frame(dict):
    """What of a data frame is asked for, without pandas."""

    columns = property(lambda self: list(self))


def test_frames_without_pandas():
    frame = Frame(a=np.array([1.5, 2.25, np.nan] * 9), b=["x", None, "y"] * 9, c=np.arange(27) % 2 == 0)
    raw = read_frame(frame)
    assert kinds(raw) == {"a": "levels", "b": "words", "c": "words"}
    assert np.isnan(raw.x).sum(0).tolist() == [9, 9, 0]


def table_of_every_type(pandas):
    return pandas.DataFrame(
        {
            "c": pandas.Categorical(["b", "a", None, "b"] * 6, categories=["b", "a"], ordered=True),
            "i": pandas.array([1, None, 3, 40000] * 6, dtype="Int64"),
            "many": pandas.array(range(0, 24 * 7, 7), dtype="Int64"),
            "bool": pandas.array([True, None, False, True] * 6, dtype="boolean"),
            "d": pandas.to_datetime(["2020-01-01", "2020-02-03", None, "2020-05-05"] * 6),
            "t": pandas.date_range("2020-01-01 10:00", periods=24, freq="37min", tz="UTC"),
            "s": ["x", "NA", None, "y"] * 6,
            "f": RNG.normal(size=24),
            "one": ["const"] * 24,
        }
    )


def test_frames_come_back_with_their_types():
    pandas = pytest.importorskip("pandas")
    frame = table_of_every_type(pandas)
    raw = read_frame(frame)
    back = to_frame(raw.schema, raw.x)
    types = "category Int64 Int64 boolean datetime64 datetime64 category float64 str".split()
    assert all(str(t).startswith(wanted) for t, wanted in zip(back.dtypes, types, strict=True))
    assert back["c"].cat.ordered
    for name in ("c", "i", "many", "bool", "f"):
        pandas.testing.assert_series_equal(back[name], frame[name])
    for name in ("d", "t", "s", "one"):
        assert [str(v) for v in back[name].astype(object).fillna("gap")] == [
            str(v) for v in frame[name].astype(object).fillna("gap")
        ]
    np.testing.assert_array_equal(read_frame(back).x, raw.x)


def test_parquet_is_the_frame(tmp_path):
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = table_of_every_type(pandas)
    frame.to_parquet(tmp_path / "t.parquet")
    raw, other = read_columns(tmp_path / "t.parquet"), read_frame(frame)
    assert raw.schema == other.schema
    np.testing.assert_array_equal(raw.x, other.x)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"pip install 'diffflow\[tables\]'"):
        read_columns(tmp_path / "t.parquet")
