"""Rows of a table given some of its columns: species=Adelie, mass=4000, age>60.

Values are known coordinates of the conditional law (impute.py); comparisons and sums are fulfilled by rejection, whose
acceptance is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.constraints import Constraints, parse_constraints
from ..data.schema import ColumnSpec
from ..data.table_transform import TableTransform
from ..equation.noise import Noise
from ..sampling.observations.observation import Observation
from .impute import GivenDraws, sample_given
from .run import Run
from .tables import TableDraws


def draw_given(
    run: Run,
    given: Sequence[str] | Mapping[str, object],
    n: int,
    *,
    method: str | None = None,
    noise: Noise | int | None = None,
    batch: int = 1024,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[TableDraws, GivenDraws]:
    """Draw rows of a table given some of its columns.

    Args:
        run: a run that was trained on a table.
        given: conditions in words, such as "species=Adelie" and "60<=age<70"; or values by the names of columns.
        n: how many rows.
        method: how they are drawn (`impute.method_of`).
        noise: streams; an integer seed; None: a fresh seed.
        batch: how many move together.
        on_batch: called with (rows that there are, n).

    Returns:
        The rows, and how they were drawn: evaluations, and the share of the proposals that fulfilled comparisons.

    Raises:
        ValueError: a run that was trained on something else, or comparisons that next to no row fulfils.
        DataError: columns or values that the model does not know.
    """
    transform = run.transform
    if not isinstance(transform, TableTransform):
        raise ValueError(f"{run.path} was trained on {transform.kind}s without columns of a file: nothing can be given")
    asked = conditions(given, transform.modelled)
    observation, values = observe(transform, asked.equalities)

    def accept(z: Tensor) -> Tensor:
        x = transform.decode(z).numpy()
        columns = {spec.name: x[:, k] for k, spec in enumerate(transform.modelled)}
        return torch.from_numpy(np.asarray(asked.holds(columns)))

    found = sample_given(
        run,
        observation,
        n,
        method=method,
        accept=accept if asked.comparisons else None,
        noise=noise,
        batch=batch,
        on_batch=on_batch,
    )
    x = transform.decode(found.x)
    for k, value in values.items():
        x[:, k] = value  # as it was given, and not as a coordinate rounds it
    times = torch.zeros(1, dtype=torch.float64)
    return TableDraws(x, found.nfe, times, [], transform), found


def conditions(given: Sequence[str] | Mapping[str, object], columns: Sequence[ColumnSpec]) -> Constraints:
    """Conditions in words, or values by the names of columns, as what is asked. Raises DataError for unknown ones."""
    if isinstance(given, Mapping):
        given = [f"{name}={value}" for name, value in given.items()]
    readers = {spec.name: _reader(spec) for spec in columns}
    return parse_constraints(list(given), readers, [spec.name for spec in columns if spec.kind == "words"])


def _reader(spec: ColumnSpec) -> Callable[[str], float]:
    """The function from a value's text to its code."""
    return lambda text: float(spec.parse([text])[0])


def observe(transform: TableTransform, equalities: Mapping[str, str]) -> tuple[Observation, dict[int, float]]:
    """What values of columns say of a row in model units.

    Args:
        transform: of the table.
        equalities: values by the names of columns, as the file writes them.

    Returns:
        The observation, and the codes by the number of the column. Where a number is known to be absent, its score is
        not: it is a draw of its own.
    """
    names = [spec.name for spec in transform.modelled]
    codes = {names.index(name): _reader(transform.modelled[names.index(name)])(v) for name, v in equalities.items()}
    row = torch.zeros(1, len(names), dtype=torch.float64)
    known = torch.zeros(transform.shape, dtype=torch.bool)
    for k, (part, spec) in enumerate(zip(transform.parts, transform.modelled, strict=True)):
        row[0, k] = codes.get(k, part.values[0] if part.kind != "number" else spec.low)
        known[part.first : part.last] = k in codes
    z = transform.encode(row)[0]
    for k in codes:
        part = transform.parts[k]
        if part.flagged and not z[part.first]:
            known[part.last - 1] = False
    return Observation(z, known), codes
