"""A table from file to samples: what comes back has the types, words, decimals, ranges and gaps of the file."""

import io

import numpy as np
import pytest

import diffflow as df
from diffflow.data import DataError
from diffflow.data.table_transform import TableTransform
from diffflow.runs.tables import TableDraws

pd = pytest.importorskip("pandas")
N = 300


def people(seed=0):
    """A data frame with a column of every kind."""
    r = np.random.RandomState(seed)
    age = r.randint(18, 90, N)
    return pd.DataFrame(
        {
            "id": [f"P{k:04d}" for k in r.permutation(N)],
            "sex": r.choice(["f", "m"], N),
            "age": pd.array(np.where(r.rand(N) < 0.1, None, age), dtype="Int64"),
            "wage": np.round(np.exp(r.randn(N)) * 20 + 5, 2),
            "rain": np.where(r.rand(N) < 0.4, 0.0, np.round(r.exponential(9, N), 1)),
            "born": pd.to_datetime("1950-01-01") + pd.to_timedelta(r.randint(0, 20_000, N), unit="D"),
            "country": "CH",
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("people")
    people().to_csv(path / "people.csv", index=False)
    return df.train(path / "people.csv", path / "run", steps=60, settings={"fit.batch": 64, "model.net.width": 32})


def test_a_table_trains_without_a_choice(run):
    assert isinstance(run.transform, TableTransform)
    kinds = {column.name: column.kind for column in run.transform.schema}
    assert kinds == {
        "id": "identifier", "sex": "words", "age": "integer", "wage": "number", "rain": "number", "born": "date",
        "country": "constant",
    }  # fmt: skip
    assert run.shape == (5,)


def test_samples_are_a_frame_like_the_file(run):
    real, draws = people(), run.sample(200, noise=0)
    assert isinstance(draws, TableDraws)
    frame = draws.frame
    assert list(frame.columns) == list(real.columns)
    assert frame["sex"].dtype == "category"
    assert set(frame["sex"]) <= {"f", "m"}
    assert frame["age"].dtype == "Int64"
    assert frame["age"].dropna().between(real["age"].min(), real["age"].max()).all()
    assert pd.api.types.is_datetime64_any_dtype(frame["born"])
    assert frame["born"].between(real["born"].min(), real["born"].max()).all()
    assert (frame["wage"].round(2) == frame["wage"]).all()
    assert frame["wage"].between(real["wage"].min(), real["wage"].max()).all()
    assert (frame["country"] == "CH").all()
    assert not set(frame["id"]) & set(real["id"])
    assert frame["id"].is_unique
    again = pd.read_csv(io.StringIO(draws.csv))
    assert list(again.columns) == list(real.columns)


def test_rows_have_a_likelihood_and_strange_ones_are_named(run, tmp_path):
    x = df.data.load(run.config.data.source, like=run.transform).x[:8]
    value = run.log_likelihood(x, steps=8).value
    assert value.shape == (8,)
    assert value.isfinite().all()
    strange = people(1).assign(sex="other").drop(columns="country")
    strange.to_csv(tmp_path / "strange.csv", index=False)
    with pytest.raises(DataError, match="'other'"):
        df.data.load(tmp_path / "strange.csv", "all", like=run.transform)


def test_a_table_is_evaluated_in_its_field_s_words(run):
    found = run.evaluate(n=60)
    assert {"column_shapes", "pair_trends", "c2st_auc", "closest_is_training"} <= {m.name for m in found}
    assert found.table is not None
    assert (run.path / "columns.png").exists()


def test_rows_given_some_columns_have_them(run, tmp_path, capsys):
    from diffflow.cli import main
    from diffflow.runs.given import draw_given

    draws, how = draw_given(run, {"sex": "f", "wage": 31.25}, 40, noise=0)
    assert (draws.frame["sex"] == "f").all()
    assert (draws.frame["wage"] == 31.25).all()
    assert how.acceptance == 1
    draws, how = draw_given(run, ["sex=m", "age>40"], 20, noise=0)
    assert (draws.frame["age"] > 40).all()
    assert 0 < how.acceptance < 1
    ask = ["sample", str(run.path), "-n", "6", "--given", "sex=f", "age>30", "--out", str(tmp_path / "s.csv")]
    assert main(ask) == 0
    assert "6 rows by langevin, 781 evaluations each" in " ".join(capsys.readouterr().err.split())
    frame = pd.read_csv(tmp_path / "s.csv")
    assert (frame["sex"] == "f").all()
    assert (frame["age"] > 30).all()
    assert main(["sample", str(run.path), "--given", "sex=nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
