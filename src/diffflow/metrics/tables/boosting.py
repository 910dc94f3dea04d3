"""What gradient boosting says of a table: whether it tells samples from real rows, and what it learns from them.

C2ST: a classifier is trained to tell two sets of equal size apart, in 5 folds; the area under its ROC curve is 0.5
where it finds nothing and 1 where it never errs. TSTR: a model of one column is trained on samples and tested on
held-out rows; the same trained on real rows (TRTR) is what samples can hope for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .columns import Codes, Column, Schema, as_codes, is_category, modelled, thinned

FOLDS = 5
MOST_WORDS = 200  # words of a column that a tree tells apart; the rarer ones are one
CLASSES = 20  # of a target; the rarer ones are one
FEW = 10  # levels of a target up to which they are classes
ROWS = 5000  # that a model of a target is trained on
TRIED = 8  # columns that are tried as targets where the last one follows from nothing
TARGETS = ("target", "class", "label", "outcome", "response", "y")


def _features(columns: Sequence[Column], sets: Sequence[Codes]) -> tuple[list[Codes], list[bool]]:
    """Rows as trees take them: words numbered by how often they come, the commonest first; and which are words."""
    words = [spec.kind == "words" for spec in columns]
    found = [rows.copy() for rows in sets]
    for k in (k for k, is_word in enumerate(words) if is_word):
        column = np.concatenate([rows[:, k] for rows in sets])
        values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
        place = dict(zip(values[np.argsort(-counts, kind="stable")], range(len(values)), strict=True))
        for rows in found:
            rows[:, k] = [np.nan if np.isnan(v) else min(place[v], MOST_WORDS) for v in rows[:, k]]
    return found, words


def _model(of_classes: bool, words: Sequence[bool], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind: Any = HistGradientBoostingClassifier if of_classes else HistGradientBoostingRegressor
    return kind(categorical_features=list(words), early_stopping=False, random_state=seed)


def auc(scores: Codes, positive: NDArray[np.bool_]) -> tuple[float, Codes]:
    """Area under the ROC curve, the chance that a positive scores more than a negative (ties: half), and its influence.

    Args:
        scores: (n,).
        positive: bool (n,), with both values in it.

    Returns:
        The area, and the influence (n,) of each score: its standard deviation over sqrt(n) is the standard error.

    References:
        DeLong et al. 1988, "Comparing the areas under two or more correlated receiver operating characteristic curves".
    """
    from scipy.stats import rankdata

    count, others = int(positive.sum()), int((~positive).sum())
    ranks, within = rankdata(scores), np.empty(len(scores))
    within[positive], within[~positive] = rankdata(scores[positive]), rankdata(scores[~positive])
    beaten = (ranks - within) / np.where(positive, others, count)  # share of the other kind below
    area = float(beaten[positive].mean())
    n = len(scores)
    return area, np.where(positive, (beaten - area) * n / count, (1.0 - beaten - area) * n / others)


def auc_stderr(area: float, positives: int, negatives: int) -> float:
    """Standard error of an area under the ROC curve; two hits and two misses are added, so that 0 and 1 keep one.

    References:
        Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating characteristic curve"; at
        0.5 it is that of the rank sum test.
    """
    fewer = min(positives, negatives)
    a = (area * fewer + 2.0) / (fewer + 4.0)
    q1, q2 = a / (2.0 - a), 2.0 * a * a / (1.0 + a)
    spread = a * (1.0 - a) + (positives - 1) * (q1 - a * a) + (negatives - 1) * (q2 - a * a)
    return math.sqrt(spread / (positives * negatives))


def c2st_auc(schema: Schema, x: Codes, y: Codes, *, limit: int = 1500, seed: int = 0) -> tuple[float, float, int]:
    """Classifier two-sample test by gradient boosting: the mean area under the ROC curve of 5 folds.

    Rows of two folds are trained on by the classifiers of the others, so the error of the mean is larger than that of
    independent folds: by (1/5 + 1/4) / (1/5), that is 1.5 in its root.

    Args:
        schema: the columns of both tables.
        x: samples, codes (n, d).
        y: real rows, codes (m, d).
        limit: most rows taken of each; both give as many.
        seed: of rows, folds and trees.

    Returns:
        The area, its standard error, and the number of rows of each set.

    Raises:
        ValueError: for fewer than 10 rows in a set.

    References:
        Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests"; Nadeau and Bengio 2003, "Inference for the
        generalization error".
    """
    n = min(limit, len(x), len(y))
    if n < 2 * FOLDS:
        raise ValueError(f"a classifier of {FOLDS} folds needs {2 * FOLDS} rows in each set, got {len(x)} and {len(y)}")
    rng = np.random.default_rng(seed)
    sets = [thinned(as_codes(schema, rows), n, rng) for rows in (x, y)]
    (a, b), words = _features(modelled(schema), sets)
    rows, is_sample, fold = np.concatenate([a, b]), np.arange(2 * n) < n, np.tile(np.arange(n) % FOLDS, 2)
    areas, errors = [], []
    for k in range(FOLDS):
        rest = fold != k
        model = _model(True, words, seed).fit(rows[rest], is_sample[rest])
        areas.append(auc(model.decision_function(rows[~rest]), is_sample[~rest])[0])
        errors.append(auc_stderr(areas[-1], *(int((fold[:n] == k).sum()),) * 2))
    spread = np.mean(np.square(errors)) * (1 / FOLDS + 1 / (FOLDS - 1))
    return float(np.mean(areas)), float(np.sqrt(spread)), n


@dataclass(frozen=True)
class Utility:
    """What models of one column learn from samples, tested on held-out rows.

    Args:
        target: the column.
        why: it is the target.
        measure: "R2" of numbers, the share of the variance that is explained; "AUC" of classes, mean of one class
            against the rest.
        value: of the model trained on samples.
        stderr: its error over fresh held-out rows.
        floor: of the model trained on as many real rows.
        floor_stderr: its error.
        difference_stderr: error of value minus floor, of the same rows.
        n: held-out rows.
        trained: rows that either model was trained on.
    """

    target: str
    why: str
    measure: Literal["R2", "AUC"]
    value: float
    stderr: float
    floor: float
    floor_stderr: float
    difference_stderr: float
    n: int
    trained: int


def trained_on(
    schema: Schema, rows: Codes, test: Codes, target: str, *, real: Codes | None = None, seed: int = 0
) -> tuple[float, Codes]:
    """The success on test rows of a model of one column, learned from rows.

    Args:
        schema: the columns.
        rows: that it is trained on, codes (n, d).
        test: rows it is tested on, codes (m, d).
        target: the column's name.
        real: rows that say which classes are common; None: those that it is trained on.
        seed: of the trees.

    Returns:
        R2, or the area under the ROC curve, and the influence of each test row that has the target: the standard
        deviation of these over the root of their number is the standard error. NaN where test rows tell nothing: of one
        class, or equal.

    Raises:
        ValueError: for a column that is not there.
    """
    columns = modelled(schema)
    k = place_of(columns, target)
    real = rows if real is None else real
    rows, test, real = (s[~np.isnan(s[:, k])] for s in (rows, test, real))
    classes = _of_classes(columns[k], real[:, k])
    others = [spec for i, spec in enumerate(columns) if i != k]
    (a, b), words = _features(others, [np.delete(rows, k, 1), np.delete(test, k, 1)])
    learned, truth = rows[:, k], test[:, k]
    if not classes:
        if len(truth) < 2 or truth.min() == truth.max() or not len(learned):
            return math.nan, np.zeros(0)
        return r2(_model(False, words, seed).fit(a, learned).predict(b), truth)
    values, counts = np.unique(real[:, k], return_counts=True)
    common = values[np.argsort(-counts, kind="stable")[:CLASSES]]
    learned, truth = (_class_of(v, common) for v in (learned, truth))
    seen = [c for c in np.unique(truth) if 0 < (truth == c).sum() < len(truth)]
    if not seen:
        return math.nan, np.zeros(0)
    chances = np.zeros((len(test), CLASSES + 1))
    if len(np.unique(learned)) > 1:
        model = _model(True, words, seed).fit(a, learned)
        chances[:, model.classes_] = model.predict_proba(b)
    areas, influences = zip(*(auc(chances[:, c], truth == c) for c in seen), strict=True)
    return float(np.mean(areas)), np.mean(influences, axis=0)


def _of_classes(spec: Column, column: Codes) -> bool:
    """Whether a column is told by class: words, and levels of few values."""
    return spec.kind == "words" or (is_category(spec) and len(np.unique(column)) <= FEW)


def _class_of(column: Codes, common: Codes) -> NDArray[np.intp]:
    """The place of each value among the common ones; CLASSES for any other."""
    same = column[:, None] == common
    return np.where(same.any(1), same.argmax(1), CLASSES)


def r2(predicted: Codes, truth: Codes) -> tuple[float, Codes]:
    """The share of the variance of truth (n,) that predictions explain, 1 - SSE / SST, and the influence of each."""
    errors, spread = (truth - predicted) ** 2, (truth - truth.mean()) ** 2
    ratio = errors.mean() / spread.mean()
    return 1.0 - float(ratio), -(errors - ratio * spread) / spread.mean()


def place_of(columns: Sequence[Column], target: str) -> int:
    """The place of a column by name; raises ValueError where it is not there."""
    names = [spec.name for spec in columns]
    if target not in names:
        raise ValueError(f"no column {target!r} that a model learns; there are {', '.join(names[:20])}")
    return names.index(target)


def _stderr(value: float, influence: Codes) -> float:
    n = len(influence)
    spread = float(influence.std()) / math.sqrt(n)
    return spread if spread > 0 else auc_stderr(value, max(1, n // 2), max(1, n // 2))  # never wrong, so far


def utility(
    schema: Schema, x: Codes, train: Codes, test: Codes, target: str | None = None, *, seed: int = 0
) -> Utility | None:
    """Train on synthetic, test on real: what a model of a column learns from samples, beside one of real rows.

    Args:
        schema: the columns.
        x: samples, codes (n, d).
        train: training rows, codes (m, d); as many as samples are used, 5000 at most.
        test: held-out rows (t, d).
        target: the column; None: one called "target", "class" and the like; else the last one, or, where it does not
            follow from the others, the one of up to 8 that does best within the training rows.
        seed: of rows and trees.

    Returns:
        The scores; None for one column, and where held-out rows tell nothing.

    Raises:
        ValueError: for a column that is not there.
    """
    columns = modelled(schema)
    if len(columns) < 2:
        return None
    rng = np.random.default_rng(seed)
    name, why = (target, "named") if target is not None else guessed(schema, train, seed)
    k = place_of(columns, name)
    sets = [s[~np.isnan(s[:, k])] for s in (x, train)]
    n = min(ROWS, *map(len, sets))
    if n < 2:
        return None
    ours, real = (trained_on(schema, thinned(s, n, rng), test, name, real=train, seed=seed) for s in sets)
    if math.isnan(ours[0]) or math.isnan(real[0]):
        return None
    measure = "AUC" if _of_classes(columns[k], sets[1][:, k]) else "R2"
    difference = float((ours[1] - real[1]).std()) / math.sqrt(len(ours[1]))
    return Utility(name, why, measure, ours[0], _stderr(*ours), real[0], _stderr(*real), difference, len(ours[1]), n)


def guessed(schema: Schema, train: Codes, seed: int = 0) -> tuple[str, str]:
    """The column that is most likely to be foretold, and why."""
    names = [spec.name for spec in modelled(schema)]
    for name in names:
        if name.strip().lower() in TARGETS:
            return name, "by its name"
    last = names[-1]
    rows = thinned(train, 2000, np.random.default_rng(seed))
    half = len(rows) // 2

    def followed(name: str) -> tuple[float, bool]:
        """How well a column follows from the others, 0 for chance to 1, and whether it surely does."""
        k = names.index(name)
        if half < 10 or np.isnan(rows[:half, k]).all():
            return 0.0, False
        score, influence = trained_on(schema, rows[:half], rows[half:], name, seed=seed)
        if math.isnan(score):
            return 0.0, False
        of_classes = _of_classes(modelled(schema)[k], rows[:, k])
        above = score - (0.5 if of_classes else 0.0)
        return above * (2 if of_classes else 1), above > 3 * _stderr(score, influence)

    if followed(last)[1]:
        return last, "the last column, and it follows from the others"
    tried = {name: followed(name)[0] for name in names[-1 - TRIED : -1]}
    best = max(tried, key=lambda name: tried[name])
    if tried[best] > 0:
        return best, f"it follows best from the others, and the last column, {last}, does not"
    return last, "the last column, though it does not follow from the others"
