"""Lists of labels beside pictures: dataset.json, metadata.csv, metadata.jsonl, labels.csv.

    dataset.json                     {"labels": [["00000/img0.png", 3], ...]}, or null: there are none (StyleGAN, EDM)
    metadata.csv, labels.csv         file_name,label                           a header, then a row a picture
    metadata.jsonl                   {"file_name": "0.png", "label": "cat"}    a line a picture (Hugging Face)

Paths are relative to the folder of the list. A list wins over folders.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import DataError
from .archives import Entry

LISTS = ("dataset.json", "metadata.csv", "metadata.jsonl", "labels.csv")
FILE = ("file_name", "filename", "file", "image", "image_name", "image_path", "file_path", "filepath", "path", "name")
FILE += ("img", "image_id", "id")
LABEL = ("label", "labels", "class", "class_name", "category", "target", "y", "class_id", "label_id")


@dataclass
class Lists:
    """What the lists of labels say.

    Args:
        labels: by path; None: no list has labels.
        unlabelled: whether a list says that there are none.
        read: the names of the lists that were read.
        notes: what they hold beside.
    """

    labels: dict[str, str] | None = None
    unlabelled: bool = False
    read: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_lists(source: str, entries: Iterable[Entry], pictures: Sequence[str]) -> Lists:
    """Read the lists of labels among the files of a folder or an archive.

    Args:
        source: what messages call the data.
        entries: all its files.
        pictures: the names of the pictures.

    Raises:
        DataError: a list that cannot be read, or that gives a picture several labels.
    """
    out, known = Lists(), set(pictures)
    labels: dict[str, str] = {}
    for entry in entries:
        base, _, file = entry.name.rpartition("/")
        if file.lower() not in LISTS:
            continue
        try:
            text = entry.read().decode("utf-8-sig")
            rows = _rows(file.lower(), text)
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise DataError(f"{entry.name!r} in {source!r} is no list of labels that can be read: {error}") from None
        if isinstance(rows, str):
            out.notes.append(f"{entry.name}: {rows}")
            continue
        out.read.append(entry.name)
        if rows is None:
            out.unlabelled = True
            out.notes.append(f"{entry.name} says that the pictures have no labels")
            continue
        prefix = f"{base}/" if base else ""
        told = [(prefix + name.replace("\\", "/").removeprefix("./"), label) for name, label in rows]
        if told and not any(name in known for name, _ in told):
            places = _elsewhere([name for name, _ in told], pictures)
            told = [(places[name], label) for name, label in told]
        found: dict[str, str] = {}
        for name, label in told:
            if found.setdefault(name, label) != label or labels.get(name, label) != label:
                raise DataError(
                    f"{entry.name!r} in {source!r} gives {name} several labels, {labels.get(name, found[name])} and "
                    f"{label}, and a picture has one class: leave one row of each picture, or rename the list"
                )
        if absent := [name for name in found if name not in known]:
            out.notes.append(f"{len(absent)} pictures of {entry.name} are not there: {', '.join(absent[:5])}")
        labels |= found
        out.labels = labels
    return out


def _elsewhere(names: Iterable[str], pictures: Sequence[str]) -> dict[str, str]:
    """Pictures that a list means whose paths are those of none: by names without suffix, folder or case, if single.

    Args:
        names: the paths of the list.
        pictures: the names of the pictures.

    Returns:
        The picture by the path of the list; the path itself where it is not known which.
    """
    by_stem: dict[str, list[str]] = {}
    for name in pictures:
        file = name.rpartition("/")[2].lower()
        for key in {file, file.rpartition(".")[0]}:
            by_stem.setdefault(key, []).append(name)
    files = {name: name.rpartition("/")[2].lower() for name in names}
    met = {name: by_stem.get(file) or by_stem.get(file.rpartition(".")[0], []) for name, file in files.items()}
    return {name: places[0] if len(places) == 1 else name for name, places in met.items()}


def _rows(file: str, text: str) -> list[tuple[str, str]] | str | None:
    """Pairs of path and label; None where a list says that there are none; words for a file that is no such list."""
    if file == "dataset.json":
        content = json.loads(text)
        if not isinstance(content, Mapping) or "labels" not in content:
            return "has no 'labels', and was not read"
        labels = content["labels"]
        if not labels:
            return None
        pairs = labels.items() if isinstance(labels, Mapping) else [(pair[0], pair[1]) for pair in labels]
        return [(str(name), _spelt(label)) for name, label in pairs]
    if file.endswith(".jsonl"):
        rows: list[Mapping[str, Any]] = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        first = text[: text.find("\n")]
        rows = list(csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=first.count)))
    columns = list(rows[0]) if rows else []
    spelt = {str(c).strip().lower(): c for c in columns}
    name = next((spelt[k] for k in FILE if k in spelt), None)
    label = next((spelt[k] for k in LABEL if k in spelt), None)
    if name is None:
        return f"has no column of file names ({FILE[0]}), and was not read"
    if label is None:
        others = ", ".join(str(c) for c in columns if c != name) or "no others"
        return f"has no column of labels (such as label); it has {others}, which are not read"
    return [(str(row[name]).strip(), _spelt(row.get(label))) for row in rows]


def _spelt(label: Any) -> str:
    """A label as the name of its class; "" for none. Raises ValueError for one that names no class."""
    if label is None:
        return ""
    if isinstance(label, Sequence) and not isinstance(label, str):
        hot = [k for k, v in enumerate(label) if v]
        if len(hot) != 1 or label[hot[0]] != 1:
            raise ValueError(f"the label {label!r} names no class")
        return str(hot[0])
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(label).strip())  # 3.0 is what tables with gaps make of 3
