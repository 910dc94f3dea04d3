"""Layouts: what the folders of pictures, and lists of labels beside them, say of classes and of the split.

    labels   dataset.json (StyleGAN, EDM) or metadata.csv, metadata.jsonl (Hugging Face), wherever one lies (labels.py)
    split    root/train/... beside root/test/..., or root/class/train/..., in the usual spellings
    classes  root/class/.../name.png; folders that all pictures share, and those that only number pictures, mean nothing

What looks like several splits, or like something else than classes, is refused: a model must not learn test pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

import numpy as np

from ..errors import DataError
from ..words import natural

TRAIN = {"train", "training", "trn", "trainval"}
TEST = {"test", "testing", "tst", "val", "valid", "validation", "validate", "dev", "eval", "evaluation"}
TEST |= {"holdout", "heldout"}
TRAIN |= {"entrainement", "entraînement", "apprentissage", "entrenamiento", "addestramento", "treino", "treinamento"}
TRAIN |= {"trainieren", "训练", "训练集", "訓練", "학습", "обучение"}
TEST |= {"prueba", "pruebas", "teste", "testes", "tests", "validierung", "validación", "validacion", "validação"}
TEST |= {"validacao", "convalida", "测试", "测试集", "验证", "验证集", "テスト", "検証", "테스트", "검증", "тест"}
UNUSED = {"unlabeled", "unlabelled", "unsupervised", "unsup", "extra", "predict", "prediction", "submission"}
SPLITS = TRAIN | TEST | UNUSED
DECORATION = {"set", "data", "dataset", "split", "images", "image", "imgs", "img", "pictures", "pics", "samples"}
NOT_CLASSES = {"images", "image", "imgs", "img", "masks", "mask", "labels", "annotations", "annotation", "gt"}
NOT_CLASSES |= {"groundtruth", "segmentation", "segmentations", "depth", "targets", "inputs"}
NUMBER = re.compile(r"(\d+)(?!.*\d)")  # the last one in a name
SHOWN = 20  # names of classes in a note


@dataclass(frozen=True)
class Layout:
    """What a layout says of each of n files.

    Args:
        y: labels int64 (n,) in the order of `classes`; None without.
        classes: their names, numbers in numeric order; None without.
        test: mask (n,) of the test files; None without a split.
        kept: mask (n,) of the files that are read.
        notes: what was decided, one sentence each.
    """

    y: np.ndarray | None
    classes: list[str] | None
    test: np.ndarray | None
    kept: np.ndarray
    notes: tuple[str, ...] = ()


def layout(source: str, names: Sequence[str], labels: Mapping[str, str] | None = None, known: bool = False) -> Layout:
    """What folders and labels say of pictures.

    Args:
        source: what messages call the data.
        names: relative paths of the pictures, "/" between folders.
        labels: the class of each picture, by its path; None: folders say it.
        known: whether a list says that there are no labels: then folders are no classes.

    Raises:
        DataError: folders that look like several splits or like no classes, pictures beside class folders, pictures
            without a label.
    """
    notes: list[str] = []
    test, folders = _take_split(source, names, _own([tuple(n.split("/")[:-1]) for n in names]))
    folders = folders if test is None else _own(folders)
    kept = np.ones(len(names), bool)
    if labels is not None:
        told = [labels.get(n, "") for n in names]
        why = f"pictures in {source!r} have no label in the list that lies there; add them, or move the list elsewhere:"
        kept = _with_class(names, told, test, notes, why)
        y, classes = number(told, kept)
    elif known or not any(folders) or (numbering := _only_numbers(names, folders)):
        if not known and any(folders):
            notes.append(numbering)
        return Layout(None, None, test, kept, tuple(notes))
    else:
        told = [f[0] if f else "" for f in folders]
        why = f"{source!r} has class folders, and images outside them; move these into a class folder:"
        kept = _with_class(names, told, test, notes, why)
        y, classes = number(told, kept)
        if {_word(c) for c in classes} <= NOT_CLASSES and len(classes) > 1:
            raise DataError(
                f"{source!r} has the folders {', '.join(classes)}, which look like no classes; give one of them"
            )
    if test is not None and not (test & kept).any():
        test = None
    notes.append(_order(classes, y[kept]))
    if labels is None and (deeper := sorted({f[1] for f in folders if len(f) > 1}, key=natural)):
        notes.append(
            f"folders inside these ({', '.join(deeper[:5])}{', ...' if len(deeper) > 5 else ''}) say nothing: if "
            f"{', '.join(classes[:3])} are splits, call them train and test; if those are classes, give one of these"
        )
    return Layout(y, classes, test, kept, tuple(notes))


def number(labels: Sequence[str], kept: np.ndarray | None = None) -> tuple[np.ndarray, list[str]]:
    """Labels by number, and the names of the classes, in natural order: 2 before 10, a2 before a10.

    Args:
        labels: of each row (n,).
        kept: mask (n,) of the rows that count; others get -1; None: all.
    """
    classes = sorted({c for i, c in enumerate(labels) if kept is None or kept[i]}, key=natural)
    place = {c: k for k, c in enumerate(classes)}
    return np.array([place.get(c, -1) for c in labels], np.int64), classes


def _own(folders: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Folders without those at their heads that all files share."""
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False)))
    return [f[shared:] for f in folders]


def _parts(folder: str) -> list[str]:
    """The words in a folder's name, in lower case: "seg_trainA" is seg, train, a."""
    return [w for w in re.split(r"[\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", folder).lower()) if w]


def _word(folder: str) -> str:
    """A folder's name as the word that it is: "Train_Set", "train-images" and "train2017" are "train"."""
    words = _parts(folder)
    kept = [w for w in words if w not in DECORATION] or words
    word = "".join(kept)
    short = word.removesuffix("set").removesuffix("data")  # "trainset", "testdata"
    return short if short in TRAIN | TEST else word


def _words(folders: Sequence[str]) -> dict[str, str]:
    """Folders' names as words (`_word`); where all have one of a split in them ("X_train", "seg_test"), as that one.

    What else is in those for training must be in the others: a steam train and a test tube are classes.
    """
    words = {name: _word(name) for name in folders}
    inside: dict[str, str] = {}
    rests: dict[bool, set[tuple[str, ...]]] = {True: set(), False: set()}
    for name, word in words.items():
        parts = _parts(name) if word not in SPLITS else [word]
        met = [which & {*parts} for which in (TRAIN, TEST, UNUSED) if which & {*parts}]
        if len(met) != 1:
            return words
        inside[name] = min(met[0])
        rests[inside[name] in TRAIN].add(tuple(p for p in parts if p not in SPLITS | DECORATION))
    return inside if rests[True] == rests[False] else words


def _take_split(
    source: str, names: Sequence[str], folders: list[tuple[str, ...]]
) -> tuple[np.ndarray | None, list[tuple[str, ...]]]:
    """The mask of the test files (None without a split), and the folders without that level. Raises DataError."""
    for level in (0, 1):  # train/cat/1.png, or cat/train/1.png
        words = _words(sorted({f[level] for f in folders if len(f) > level}))
        train, test, unused = ([n for n, w in words.items() if w in which] for which in (TRAIN, TEST, UNUSED))
        splits = [*train, *test, *unused]
        if len(splits) < 2:  # one word is a class: vehicles, of which one is called "train"
            continue
        outside = [f"folder {name}" for name in words if name not in splits]
        outside += [n for n, f in zip(names, folders, strict=True) if len(f) <= level]
        if outside:
            raise DataError(
                f"{source!r} has the splits {', '.join(splits)}, and pictures outside them; move these into a split, "
                "or give the folder of one split",
                outside,
            )
        if len(train) != 1 or len(test) != 1 or unused:
            raise DataError(
                f"{source!r} has folders that look like splits: {', '.join(splits)}; keep 'train' and one other, move "
                "the others elsewhere, or give one of these folders"
            )
        mask = np.array([f[level] == test[0] for f in folders])
        return mask, [f[:level] + f[level + 1 :] for f in folders]
    return None, folders


def _only_numbers(names: Sequence[str], folders: list[tuple[str, ...]]) -> str:
    """The note for folders that only keep folders small: parts of a numbered sequence; "" for any others.

    Such are 00000, 00001, ... whose pictures have rising numbers throughout (one shard ends where the next begins),
    part-0, shard_1, ..., and the first letters of names that are hexadecimal sums.
    """
    if not all(folders) or len({f[0] for f in folders}) < 2:
        return ""
    tops = sorted({f[0] for f in folders}, key=natural)
    shown = f"{', '.join(tops[:3])}{', ...' if len(tops) > 3 else ''}"
    stems = [n.rpartition("/")[2].rpartition(".")[0] for n in names]
    if all(re.fullmatch(r"(shard|part|chunk|batch|split)s?[-_ ]?\d+", t, re.IGNORECASE) for t in tops):
        return f"the folders {shown} are parts of one set, no classes"
    if all(re.fullmatch(r"[0-9a-f]{1,3}", t, re.IGNORECASE) for t in tops) and all(
        re.fullmatch(r"[0-9a-f-]{8,}", s, re.IGNORECASE) and s.startswith(f[0])
        for s, f in zip(stems, folders, strict=True)
    ):
        return f"the folders {shown} are the first letters of the names in them, no classes"
    if not all(t.isdecimal() for t in tops) or len({len(t) for t in tops}) > 1 or len(tops[0]) < 3:
        return ""
    spans: dict[str, tuple[int, int]] = {}
    met: set[int] = set()
    for stem, (top, *_) in zip(stems, folders, strict=True):
        match = NUMBER.search(stem)
        if match is None or int(match[1]) in met:
            return ""
        met.add(value := int(match[1]))
        low, high = spans.get(top, (value, value))
        spans[top] = min(low, value), max(high, value)
    ordered = [spans[t] for t in tops]
    if all(a[1] < b[0] for a, b in pairwise(ordered)):
        return f"the folders {shown} hold one numbered sequence: no classes (a metadata.csv would name some)"
    return ""


def _with_class(
    names: Sequence[str], told: Sequence[str], test: np.ndarray | None, notes: list[str], why: str
) -> np.ndarray:
    """Mask (n,) of the pictures with a class ("" is none): others are left out where all are test pictures.

    Raises:
        DataError: training pictures without, which are named after the reason.
    """
    without = np.array([not c for c in told])
    if without.any() and test is not None and not (without & ~test).any():
        notes.append(f"{int(without.sum())} test pictures have no class, and were left out")
    elif without.any():
        raise DataError(why, [n for n, out in zip(names, without, strict=True) if out])
    return ~without


def _order(classes: list[str], y: np.ndarray) -> str:
    """The note on classes: their names in order, which are numbered 0, 1, ..."""
    shown = ", ".join(classes[:SHOWN]) + (f", ... {classes[-1]}" if len(classes) > SHOWN else "")
    single = ", of one picture each" if len(classes) == len(y) > 1 else ""
    return f"{len(classes)} class{'es' if len(classes) > 1 else ''}{single}, numbered from 0 in the order {shown}"
