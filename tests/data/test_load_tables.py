"""Arrays and tables: the conventions of values and axes, and every bad cell named."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffflow.data import Columns, DataError, load

OLDER = Columns(text="refuse")  # every column is a number with a density; of the other way is test_tables_reader.py
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 3, 6, 5), dtype=np.uint8)
PIXELS[0, 0, 0, :2] = 0, 255  # so that the range of the values is the whole range


@pytest.mark.parametrize(
    "array",
    [
        PIXELS,
        PIXELS.transpose(0, 2, 3, 1),
        PIXELS / 255.0,
        (PIXELS / 127.5 - 1.0).astype(np.float32),
        PIXELS.astype(np.float32),
        PIXELS.astype(np.int64),
        PIXELS.astype(np.uint16) * 257,
    ],
    ids=["uint8", "channels last", "0..1", "-1..1", "whole floats", "int64", "uint16"],
)
def test_every_convention_of_pixels_gives_the_same_bytes(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    data = load(tmp_path / "x.npy", "all")
    assert data.kind == "image"
    assert torch.equal(data.x, torch.from_numpy(PIXELS))


def test_grey_arrays_and_transparency(tmp_path):
    np.save(tmp_path / "grey.npy", PIXELS[:, 0])
    assert load(tmp_path / "grey.npy", "all").shape == (1, 6, 5)
    alpha = np.concatenate([PIXELS, np.zeros((12, 1, 6, 5), np.uint8)], 1)
    np.save(tmp_path / "alpha.npy", alpha)
    data = load(tmp_path / "alpha.npy", "all")
    assert (data.x == 255).all()
    assert any("laid over white" in n for n in data.notes)


def test_npz_labels_names_and_splits(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.array(["b", "a", "c"] * 4))
    data = load(tmp_path / "a.npz", "all")
    assert data.classes == ["a", "b", "c"]
    assert data.y is not None
    assert data.y[:3].tolist() == [1, 0, 2]
    np.savez(tmp_path / "b.npz", x=PIXELS, y=np.array([7.0, 3.0] * 6))
    assert load(tmp_path / "b.npz", "all").classes == ["3", "7"]
    np.savez(tmp_path / "c.npz", x=PIXELS, y=np.array([0, 1] * 6), classes=np.array(["cat", "dog"]))
    assert load(tmp_path / "c.npz").classes == ["cat", "dog"]
    np.savez(tmp_path / "d.npz", x_train=PIXELS[:9], y_train=np.arange(9), x_test=PIXELS[9:], y_test=np.arange(3))
    assert (len(load(tmp_path / "d.npz")), len(load(tmp_path / "d.npz", "test"))) == (9, 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.full((4, 2, 6, 6), 0.5)}, "no axis of 1, 3 or 4 channels"),
        ({"x": np.zeros((4, 3, 6, 3), np.uint8)}, "could be channels first or last"),
        ({"x": np.linspace(-7, 300, 144).reshape(4, 1, 6, 6)}, "run from -7 to 300"),
        ({"x": np.zeros((0, 3))}, "has shape"),
        ({"x": np.zeros(3, complex)}, "complex128, not numbers"),
        ({"x": np.array([[1.0, 2.0], [np.nan, 1.0], [3.0, np.inf]])}, "2 of 3 examples.*\n  example 1\n  example 2"),
        ({"p": np.zeros(3), "q": np.zeros(3)}, r"arrays \['p', 'q'\]; name the data one of x,"),
        ({"x": PIXELS, "y": np.arange(5)}, "12 examples but 5 labels"),
        ({"x": PIXELS, "y": np.linspace(0, 1, 12)}, "one whole number or name per example"),
        ({"x": PIXELS, "y": np.arange(12), "classes": np.array(["a"])}, "from 0 to 11, but there are 1 classes"),
        ({"x": np.array([{"a": 1}], dtype=object)}, "cannot be read as arrays of numbers"),
    ],
)
def test_bad_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "bad.npz")


def test_arrays_beyond_float32_are_named(tmp_path):
    x = RNG.normal(size=(20, 2))
    x[4, 1] = 1e39
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=r"not finite in float32.*\n  row 5, column 2: 1e\+39"):
        load(tmp_path / "x.npy")


def test_an_npz_by_another_name_is_read_as_one(tmp_path):
    np.savez(tmp_path / "x.npz", x=PIXELS)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    assert torch.equal(load(tmp_path / "x.npy", "all").x, torch.from_numpy(PIXELS))


def test_every_line_end_is_a_line_end(tmp_path):
    for name, end in (("cr", "\r"), ("lf", "\n"), ("crlf", "\r\n")):
        (tmp_path / f"{name}.csv").write_bytes(end.join(["a;b", "1;2", "3;5", "4;7"]).encode())
    tables = [load(tmp_path / f"{name}.csv", "all").x.tolist() for name in ("cr", "lf", "crlf")]
    assert tables == [[[1, 2], [3, 5], [4, 7]]] * 3


def test_truncated_arrays(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:-100])
    with pytest.raises(DataError, match="cannot be read as arrays"):
        load(tmp_path / "x.npy")


table = hnp.arrays(np.float64, st.tuples(st.integers(20, 30), st.integers(1, 4)), elements=st.floats(-50, 50, width=32))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table, st.booleans(), st.sampled_from(",;\t"), st.booleans())
def test_tables_round_trip(tmp_path, x, header, delimiter, zipped):
    x = x + np.arange(len(x))[:, None] * 200.0  # no column constant
    lines = [delimiter.join(f"c{k}" for k in range(x.shape[1]))] if header else []
    text = "\n".join(lines + [delimiter.join(repr(float(v)) for v in row) for row in x]) + "\n"
    path = tmp_path / f"t.csv{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    data = load(path, "all", columns=OLDER)
    assert data.kind == "vector"
    assert torch.equal(data.x, torch.from_numpy(x.astype(np.float32)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,nan\n4,inf\nx,5\n6,\n", "4 bad.*\n  row 3, column 'b': 'nan'\n  row 4, column 'b': 'inf'\n"),
        ("1,2\n3,4,5\n6,7\n", "row 2: 3 cells, not 2"),
        ("1,oops\n3,4\n", "row 1, column 2: 'oops'"),
        ("1,2\n3,1e39\n", "row 2, column 2: '1e39'"),
        (f"1,2\n3,{'4' * 200_000}\n", "no table of numbers: row 2: field larger"),
        ("a,b\n", "a header and no rows"),
        ("\n\n", "holds no rows"),
        (
            "a,flat\n1,3\n2,3\n5,3\n",
            "never change.*remove them, or leave them out with --data.constant drop\n  column 'flat': always 3",
        ),
    ],
)
def test_bad_tables_name_row_and_column(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "t.csv", "all", columns=OLDER)


def test_many_bad_cells_are_all_kept_and_the_first_twenty_shown(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n" + "1,nan\n" * 50)
    with pytest.raises(DataError, match="and 30 more") as caught:
        load(tmp_path / "t.csv", columns=OLDER)
    assert len(caught.value.problems) == 50


def test_unreadable_tables(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe1\x002\x00")
    with pytest.raises(DataError, match=r"no UTF-8 text.*save it as UTF-8"):
        load(tmp_path / "t.csv", columns=OLDER)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"1,2\n3,4\n")[:-9])
    with pytest.raises(DataError, match="copy or download it again"):
        load(tmp_path / "t.csv.gz")
