"""Discrete values as cells: a partition of the line whose masses sum to one, invertible, with probabilities that a
density bounds from below; and tables whose columns are chosen, never silently changed."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffflow as df
from diffflow.data import Columns, DataError, Transform, load
from diffflow.data.discrete import Cells, discrete
from diffflow.data.prepare import holdout

F64 = torch.float64
levels = st.lists(st.integers(-50, 50), min_size=2, max_size=9, unique=True).map(lambda v: tuple(map(float, sorted(v))))


@settings(deadline=None)
@given(levels, st.floats(0, 1, exclude_max=True))
def test_a_value_spread_over_its_cell_is_read_back(v, u):
    cells, x = Cells(v), torch.tensor(v)
    spread = cells.dequantise(x, torch.full(x.shape, u))
    assert torch.equal(cells.snap(spread), x.double())
    assert torch.equal(cells.dequantise(x, None), x.double())
    assert cells.is_level(x).all()
    assert not cells.is_level(x + 0.3).any()
    # the cells partition their range: every inner edge is the middle of its levels
    assert (cells.edges.diff() > 0).all()
    torch.testing.assert_close(cells.edges[1:-1], (x[1:] + x[:-1]).double() / 2)
    assert cells.widths(x).sum() == pytest.approx((cells.edges[-1] - cells.edges[0]).item())


def test_levels_that_float32_does_not_hold_are_known(tmp_path):
    """9.4 as float32 is not 9.4: rows and levels are told by the same rounding."""
    values = np.random.default_rng(0).choice([9.1, 9.4, 9.5, 100000.3], 200)
    (tmp_path / "t.csv").write_text("\n".join(f"{v},{k + 0.5}" for k, v in enumerate(values)))
    data = load(tmp_path / "t.csv", "all", columns=Columns(discrete="levels"))
    # float32 holds z = -.58 to 2^-25, which is .0013 in x (std 43,000): less than a hundredth of the narrowest cell, .2
    z = data.encode(data.x, 0.01 + 0.98 * torch.rand(200, 2))
    assert torch.equal(data.decode(z)[:, 0], data.x[:, 0])


def test_the_density_of_spread_values_bounds_their_probability():
    """log P(v) >= E_u log p(x) + log width, an equality for a density that is flat on each cell."""
    v = (0.0, 1.0, 3.0, 3.5)
    cells, share = Cells(v), torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=F64)
    x = torch.tensor(v)
    flat = share / cells.widths(x)  # a density with these masses
    got = flat[cells.index(cells.dequantise(x, torch.rand(4)))].log() + cells.widths(x).log()
    torch.testing.assert_close(got, share.log())


def test_units_turn_densities_of_model_units_into_probabilities(tmp_path):
    """A Gaussian column keeps its density in data units; a fair die has log 1/6 where a model is flat on its cells."""
    rng = np.random.default_rng(0)
    n = 4000
    die, height = rng.integers(1, 7, n), rng.normal(170, 8, n)
    (tmp_path / "t.csv").write_text(
        "die,height\n" + "\n".join(f"{a},{b:.9g}" for a, b in zip(die, height, strict=True))
    )
    data = load(tmp_path / "t.csv", "all", columns=Columns(discrete="levels"))
    assert data.transform.levels == ((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), ())
    u = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    z = data.encode(data.x, u).double()
    mean, std = (torch.tensor(v, dtype=F64) for v in (data.transform.mean, data.transform.std))
    # the law of the encoded values in model units: uniform over [.5, 6.5], and a standard normal, both moved and scaled
    inside = (z[:, 0] * std[0] + mean[0] > 0.5) & (z[:, 0] * std[0] + mean[0] < 6.5)
    assert inside.all()
    log_p = (std[0] / 6).log() + (-0.5 * z[:, 1] ** 2 - 0.5 * math.log(2 * math.pi))
    total = log_p + data.transform.log_units(data.x)
    x = data.x[:, 1].double()
    expected = math.log(1 / 6) - 0.5 * ((x - mean[1]) / std[1]) ** 2 - 0.5 * math.log(2 * math.pi) - std[1].log()
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-5)
    assert torch.equal(data.decode(data.encode(data.x, u))[:, 0], data.x[:, 0])
    meta = json.loads(json.dumps(data.meta()))
    assert Transform.from_meta(meta) == data.transform
    with pytest.raises(ValueError, match=r"column 'die' takes the levels 1, 2, .* and here 2.5"):
        data.encode(torch.tensor([[2.5, 170.0]]))


def test_bytes_spread_over_cells_have_the_bits_of_their_law():
    """Levels drawn from a known law, a density flat on each cell: bits per dimension are its entropy."""
    transform, dims = Transform("image", (1, 2, 2)), 4
    p = torch.tensor([0.5, 0.25, 0.25], dtype=F64)  # bytes 0, 100, 255; entropy 1.5 bits
    x = torch.tensor([0, 100, 255], dtype=torch.uint8)[
        torch.multinomial(p, 4000, True, generator=torch.Generator().manual_seed(0))
    ].reshape(-1, 1, 2, 2)
    z = transform.encode(x, torch.rand(x.shape, generator=torch.Generator().manual_seed(1)))
    back = ((z.double() + 1) * 127.5).round()
    assert torch.equal(back.clamp(0, 255).to(torch.uint8), x)
    value = {0: p[0], 100: p[1], 255: p[2]}
    nats = torch.tensor([[value[int(b)] for b in row] for row in x.flatten(1)], dtype=F64)
    log_p = (nats * 127.5).log().sum(1)  # density of a level's mass over a cell of width 1/127.5
    bits = df.bits_per_dim(log_p, dims, 1 / 127.5)
    torch.testing.assert_close(bits, -nats.log2().mean(1))
    assert abs(bits.mean() - 1.5) < 4.5 * bits.std() / math.sqrt(len(bits))
    torch.testing.assert_close(-(log_p + transform.log_units(x)) / dims / math.log(2), bits)


def test_columns_are_refused_with_their_choices_or_changed_and_stated(tmp_path):
    rng = np.random.default_rng(1)
    rows = [f"{rng.normal():.6g},{rng.choice(['red', 'blue'])},{rng.integers(3)},7" for _ in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["size,colour,grade,unit", *rows]))

    def take(**choices):
        return load(tmp_path / "t.csv", "all", columns=Columns(**choices))

    with pytest.raises(DataError, match=r"--data.text levels(.|\n)*column 'colour' holds text: 'blue', 'red'"):
        take(text="refuse")
    with pytest.raises(DataError, match=r"--data.constant drop\n  column 'unit': always 7"):
        take(text="levels")
    with pytest.raises(DataError, match=r"Choose: --data.discrete(.|\n)*column 'grade': 3 values, 0, 1, 2"):
        take(text="levels", constant="drop")
    data = take(text="levels", constant="drop", discrete="levels")
    assert data.transform.columns == ("size", "colour", "grade")
    assert data.transform.names == ((), ("blue", "red"), ())
    assert data.transform.levels == ((), (0.0, 1.0), (0.0, 1.0, 2.0))
    assert any("left out: unit (constant)" in note for note in data.notes)
    assert any("spread over cells: colour (2 values), grade (3 values)" in note for note in data.notes)
    dropped = take(text="drop", constant="drop", discrete="drop")
    assert dropped.transform.columns == ("size",)
    assert any("left out: colour (text)" in note for note in dropped.notes)
    assert any("left out: grade (of few values)" in note for note in dropped.notes)
    kept = take(text="drop", constant="drop", discrete="keep")
    assert kept.transform.levels == ()
    assert any("taken as continuous: grade" in note for note in kept.notes)
    for wrong in ({"text": "keep"}, {"constant": "levels"}, {"discrete": "yes"}):
        with pytest.raises(DataError, match="is one of auto, refuse"):
            take(**wrong)


def test_the_value_of_a_constant_column_of_words_is_that_of_its_training_rows(tmp_path):
    """The held-out row has another word, which comes first in the alphabet."""
    words = np.where(holdout(10, None, 1), "blue", "red")
    (tmp_path / "t.csv").write_text("\n".join(f"{k + 0.5},{word}" for k, word in enumerate(words)))
    with pytest.raises(DataError, match="column 2: always red"):
        load(tmp_path / "t.csv", columns=Columns(text="levels"))


@pytest.mark.parametrize(
    ("x", "known"), [([1, 2] * 20, True), (list(range(40)), False), ([3] * 40, False), ([1, 2] * 9, True)]
)
def test_few_values_are_each_met_ten_times(x, known):
    assert bool(discrete(np.array(x, float))) == (known and len(x) >= 20)
    with pytest.raises(ValueError, match="at least two rising"):
        Cells((1.0, 1.0))


def test_other_rows_are_read_as_the_model_s(tmp_path):
    """The columns of a transform by their names, also where the file has others, and where arrays have none."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    x[:, 1] = 2.0
    np.save(tmp_path / "a.npy", x.astype(np.float32))
    kept = load(tmp_path / "a.npy", "train", columns=Columns(constant="drop"))
    assert kept.shape == (2,)
    again = load(tmp_path / "a.npy", "all", like=kept.transform)
    np.testing.assert_array_equal(again.x.numpy(), x[:, [0, 2]].astype(np.float32))
    assert again.transform == kept.transform
    (tmp_path / "b.csv").write_text("10,word,30,0\n11,more,31,0\n")
    other = load(tmp_path / "b.csv", "all", like=kept.transform)
    assert other.x.tolist() == [[10.0, 30.0], [11.0, 31.0]]
    (tmp_path / "c.csv").write_text("30\n31\n")
    with pytest.raises(DataError, match="lacks"):
        load(tmp_path / "c.csv", "all", like=kept.transform)


def test_names_of_columns_are_their_own(tmp_path):
    (tmp_path / "t.csv").write_text("a,a,b\n1,2,3\n4,5,6\n")
    with pytest.raises(DataError, match=r"one name(.|\n)*'a'"):
        load(tmp_path / "t.csv", "all")


def test_a_first_line_of_words_is_a_header_only_over_numbers(tmp_path):
    rows = ["x,u", "y,v"] * 25
    (tmp_path / "t.csv").write_text("\n".join(rows))
    data = load(tmp_path / "t.csv", "all", columns=Columns(text="levels"))
    assert len(data) == 50
    assert data.transform.names == (("x", "y"), ("u", "v"))
    (tmp_path / "t.csv").write_text("\n".join(["colour,shape", *rows]))
    assert len(load(tmp_path / "t.csv", "all", columns=Columns(text="levels"))) == 50
    (tmp_path / "t.csv").write_text(",a\n1,2.5\n3,4.5\n5,7\n")  # as pandas writes an index
    assert load(tmp_path / "t.csv", "all", columns=Columns(text="refuse")).transform.columns == ("column 1", "a")
