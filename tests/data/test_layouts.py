"""Pictures as people have them: labels in lists, shards, splits in any spelling, unpacked idx sets, numbered classes.

Every test of this file failed before, silently or with a misleading message, unless it says otherwise.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import diffflow as df
from diffflow.cli import UsageError
from diffflow.cli.conditions import labels_of
from diffflow.data import DataError, load
from diffflow.data.conditions import Condition
from diffflow.data.readers.layout import layout
from diffflow.data.words import natural
from diffflow.runs.conditions import class_indices
from diffflow.training.previews import grid_conditions


def png(k: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def folder(root, files):
    """A folder of these files; of a list of names, pictures that differ."""
    if not isinstance(files, dict):
        files = {name: png(k) for k, name in enumerate(files)}
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def packed(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def said(data, *words):
    return all(any(word in note for note in data.notes) for word in words)


# -- labels in lists, shards ------------------------------------------------------------------------------------------

SHARDS = [f"{i // 10:05d}/img{i:08d}.png" for i in range(30)]


@pytest.mark.parametrize("wrapper", ["", "set/"])
@pytest.mark.parametrize("form", ["pairs", "mapping", "one-hot"])
def test_labels_of_dataset_json_win_over_shard_folders(tmp_path, form, wrapper):
    labels = {name: i % 2 for i, name in enumerate(SHARDS)}
    content = {
        "pairs": [[n, k] for n, k in labels.items()],
        "mapping": labels,
        "one-hot": [[n, [1 - k, k]] for n, k in labels.items()],
    }[form]
    files = {n: png(i) for i, n in enumerate(SHARDS)} | {"dataset.json": json.dumps({"labels": content})}
    files = {wrapper + name: content for name, content in files.items()}
    for source in (packed(tmp_path / "sg.zip", files), folder(tmp_path / "sg", files)):
        data = load(source, "all")
        assert data.classes == ["0", "1"]
        assert data.y is not None
        assert data.y.tolist() == list(labels.values())


def test_null_labels_are_none_and_shards_alone_are_no_classes(tmp_path):
    files = {n: png(i) for i, n in enumerate(SHARDS)}
    data = load(packed(tmp_path / "null.zip", files | {"dataset.json": '{"labels": null}'}))
    assert data.classes is data.y is None
    assert said(data, "says that the pictures have no labels")
    data = load(packed(tmp_path / "none.zip", files))
    assert data.classes is None
    assert said(data, "the folders 00000, 00001, 00002 hold one numbered sequence: no classes")
    cats = {f"{c}/{k}.png": png(k) for c in ("cat", "dog") for k in range(3)}
    assert load(packed(tmp_path / "cats.zip", cats | {"dataset.json": '{"labels": null}'})).classes is None


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ([f"{i // 10 * 1000:05d}/{i // 10 * 1000 + i % 10:05d}.png" for i in range(30)], 0),  # FFHQ
        ([f"part-{i // 10}/{i % 10}.png" for i in range(30)], 0),
        ([f"{k:02x}/{k:02x}{k * 7919:010x}.png" for k in range(32)], 0),  # by the first letters of a sum
        ([f"{i // 10:05d}/{i % 10:05d}_{i % 3:05d}.png" for i in range(30)], 3),  # road signs: real classes
        ([f"{i % 3:03d}/{i}.png" for i in range(30)], 3),  # numbers that run across folders
        ([f"{i // 10}/{i:04d}.png" for i in range(30)], 3),
    ],
)
def test_shards_are_told_from_numbered_classes(names, classes):
    assert len(layout("x", names).classes or ()) == classes


def test_lists_of_the_hugging_face_form(tmp_path):
    names = [f"{k}.png" for k in range(12)]
    words = [["ant", "bee", "cat"][k % 3] for k in range(12)]
    table = "file_name,label\n" + "\n".join(f"{n},{w}" for n, w in zip(names, words, strict=True))
    lines = "\n".join(json.dumps({"file_name": n, "label": w}) for n, w in zip(names, words, strict=True))
    pictures = {n: png(k) for k, n in enumerate(names)}
    spoken = table.replace(",", ";").replace("file_name", "Filename").replace("label", "Class")
    for k, (file, text) in enumerate(
        {"metadata.csv": table, "metadata.jsonl": lines, "labels.csv": "\ufeff" + spoken}.items()
    ):
        data = load(folder(tmp_path / str(k), pictures | {file: text}), "all")
        assert data.classes == ["ant", "bee", "cat"]
        assert data.y is not None
        assert [["ant", "bee", "cat"][i] for i in data.y] == [w for _, w in sorted(zip(names, words, strict=True))]
        assert not any("left out" in note for note in data.notes)
    split = {f"{s}/{n}": png(k) for k, n in enumerate(names) for s in ("train", "test")}
    split |= {f"{s}/metadata.csv": table for s in ("train", "test")}
    root = folder(tmp_path / "split", split)
    assert (len(load(root)), len(load(root, "test")), load(root).classes) == (12, 12, ["ant", "bee", "cat"])
    bare = table.replace(".png", "").replace("file_name", "id")  # as some competitions have it
    deep = {f"train/{n}": content for n, content in pictures.items()} | {"labels.csv": bare}
    assert load(folder(tmp_path / "bare", deep), "all").fingerprint == load(tmp_path / "0", "all").fingerprint
    contest = folder(tmp_path / "contest", deep | {f"test/t{k}.png": png(k) for k in range(3)})
    assert len(load(contest)) == 11
    assert said(load(contest), "3 test pictures have no class, and were left out")
    gaps = folder(tmp_path / "gaps", pictures | {"metadata.csv": table.replace("7.png,bee", "7.png,")})
    with pytest.raises(DataError, match=r"pictures in .* have no label in the list that lies there.*:\n  7.png"):
        load(gaps)
    captions = folder(tmp_path / "text", pictures | {"metadata.csv": "file_name,text\n0.png,a red ant"})
    assert said(load(captions), "has no column of labels (such as label); it has text, which are not read")
    with pytest.raises(DataError, match=r"'dataset.json' in .* is no list of labels that can be read"):
        load(folder(tmp_path / "broken", pictures | {"dataset.json": "{"}))


def test_a_picture_with_several_labels_is_refused_and_case_and_suffix_do_not_matter(tmp_path):
    """The last row won, silently; and a list of "0.PNG" for 0.png labelled nothing."""
    pictures = {f"{k}.png": png(k) for k in range(4)}
    rows = [("0.PNG", "ant"), ("1.jpg", "bee"), ("2", "ant"), ("3.PNG", "bee")]
    table = "image_id,label\n" + "".join(f"{name},{label}\n" for name, label in rows)
    data = load(folder(tmp_path / "case", pictures | {"labels.csv": table}), "all")
    assert data.classes == ["ant", "bee"]
    assert data.y is not None
    assert data.y.tolist() == [0, 1, 0, 1]
    twice = {"labels.csv": table + "2,ant\n"}
    assert load(folder(tmp_path / "twice", pictures | twice), "all").fingerprint == data.fingerprint
    other = {"labels.csv": table, "metadata.csv": "id,label\n2,bee"}
    for k, more in enumerate(({"labels.csv": table + "2,bee\n"}, other)):
        with pytest.raises(DataError, match=r"gives 2.png several labels, ant and bee, and a picture has one class"):
            load(folder(tmp_path / f"two{k}", pictures | more))


def test_folders_inside_those_of_classes_are_named():
    found = layout("x", [f"{a}/{b}/{a}{b}{k}.png" for a in ("eins", "zwei") for b in "cd" for k in range(3)])
    assert found.classes == ["eins", "zwei"]
    assert any("folders inside these (c, d) say nothing: if eins, zwei are splits" in note for note in found.notes)


# -- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training", "testing"),
        ("Train", "Test"),
        ("TRAIN", "Validation"),
        ("train_set", "test-set"),
        ("train2017", "val2017"),
        ("TrainingImages", "dev"),
        ("X_train", "X_test"),
        ("TRAIN_64x64", "VALID_64x64"),
        ("seg_train", "seg_test-dev"),
        ("apprentissage", "test"),
        ("Training", "Validierung"),
        ("entrenamiento", "prueba"),
        ("训练集", "测试集"),
    ],
)
def test_splits_in_usual_spellings(tmp_path, train, test):
    names = [f"{s}/{c}/{i}.png" for s in (train, test) for c in "ab" for i in range(3)]
    root = folder(tmp_path / "m", names)
    assert (len(load(root)), len(load(root, "test")), load(root).classes) == (6, 6, ["a", "b"])
    other = folder(tmp_path / "n", [f"{n.split('/')[1]}/{n.split('/')[0]}/{n.split('/')[2]}" for n in names])
    assert (len(load(other)), len(load(other, "test")), load(other).classes) == (6, 6, ["a", "b"])  # class above split


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/1.png", "unlabeled/2.png"], "look like splits: train, unlabeled; keep 'train'"),
        (["test/a/1.png", "val/a/2.png"], "look like splits"),
        (["trainA/1.png", "trainB/2.png", "testA/3.png", "testB/4.png"], "look like splits: trainA, trainB, testA"),
        (["train/a/1.png", "test/a/2.png", "extra/3.png"], "look like splits"),
        (["train/a/1.png", "test/a/2.png", "cat/3.png"], r"pictures outside them.*\n  folder cat"),
        (["train/a/1.png", "test/a/2.png", "3.png"], r"pictures outside them.*\n  3.png"),
        (["images/1.png", "masks/1.png"], "images, masks, which look like no classes"),
    ],
)
def test_folders_that_look_like_splits_or_like_no_classes_are_refused(names, message):
    with pytest.raises(DataError, match=message):
        layout("x", names)


def test_what_only_resembles_a_split():
    """Vehicles with a class called train; and test pictures without classes."""
    found = layout("x", ["train/1.png", "plane/2.png", "car/3.png"])
    assert (found.classes, found.test) == (["car", "plane", "train"], None)
    assert layout("x", ["steam_train/1.png", "freight_train/2.png"]).classes == ["freight_train", "steam_train"]
    assert layout("x", ["steam_train/1.png", "test_tube/2.png"]).classes == ["steam_train", "test_tube"]
    found = layout("x", ["train/a/1.png", "train/b/2.png", "test/3.png", "test/4.png"])
    assert found.kept.tolist() == [True, True, False, False]
    assert found.test is None  # so that a tenth of the others is held out
    assert any("2 test pictures have no class, and were left out" in note for note in found.notes)
    found = layout("x", ["train/images/1.png", "val/images/2.png"])  # folders that all share, below the split
    assert found.classes is None
    assert found.test is not None
    assert found.test.tolist() == [False, True]


# -- idx --------------------------------------------------------------------------------------------------------------


def idx(array) -> bytes:
    array = np.asarray(array, np.uint8)
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_files(prefix: str = "", low: int = 0, n: int = 30) -> dict[str, bytes]:
    out = {}
    for name, count in (("train", n), ("t10k", n // 3)):
        out[f"{prefix}{name}-images-idx3-ubyte"] = idx(np.random.default_rng(n).integers(0, 256, (count, 4, 4)))
        out[f"{prefix}{name}-labels-idx1-ubyte"] = idx(low + np.arange(count) % 10)
    return out


def test_mnist_as_others_unpack_it(tmp_path):
    plain = idx_files()
    expected = load(folder(tmp_path / "plain", plain)).fingerprint
    doubled = {f"{n}/{n}": content for n, content in plain.items()}
    dotted = {f"{n}/{n.replace('-idx', '.idx')}": content for n, content in plain.items()}
    beside = {n.replace("-idx", ".idx"): content for n, content in plain.items()}
    beside |= {f"{n}/{n}": b"another file" for n in plain}  # a file wins over a folder
    deep = {f"MNIST/raw/{n}": content for n, content in plain.items()}
    deep |= {f"MNIST/raw/{n}.gz": gzip.compress(content) for n, content in plain.items()}
    deeper = {f"a/b/{n}": content for n, content in doubled.items()} | {"a/readme.txt": b"x"}
    for k, files in enumerate((doubled, dotted, beside, deep, deeper)):
        data = load(folder(tmp_path / str(k), files))
        assert data.fingerprint == expected
        assert len(load(tmp_path / str(k), "test")) == 10
        assert df.presets.fitting(str(tmp_path / str(k))) == "mnist"
    assert said(load(tmp_path / "3"), "MNIST/raw are read")
    clothes = load(folder(tmp_path / "f", {f"FashionMNIST/raw/{n}": content for n, content in plain.items()}))
    assert clothes.classes is not None
    assert clothes.classes[0] == "T-shirt/top"
    two = {f"{s}/raw/{n}": content for s in ("MNIST", "KMNIST") for n, content in plain.items()}
    with pytest.raises(DataError, match=r"idx files in several folders.*\n  .*/KMNIST/raw\n  .*/MNIST/raw"):
        load(folder(tmp_path / "two", two))


def test_sets_of_emnist_are_refused_by_name_and_unused_labels_are_no_classes(tmp_path):
    both = idx_files("emnist-letters-", low=1) | idx_files("emnist-digits-", n=60)
    with pytest.raises(DataError, match="several sets: emnist-digits, emnist-letters; move"):
        load(folder(tmp_path / "both", both))
    letters = load(folder(tmp_path / "letters", idx_files("emnist-letters-", low=1)))
    assert letters.classes == [str(k) for k in range(1, 11)]
    assert letters.y is not None
    assert letters.y[:3].tolist() == [0, 1, 2]
    assert said(letters, "labels 1, 2, 3, 4, 5, 6, 7, 8, 9, 10: numbered 0..9 in this order")
    gaps = idx_files()
    gaps["train-labels-idx1-ubyte"] = idx(np.arange(30) % 3 * 4)
    gaps["t10k-labels-idx1-ubyte"] = idx([0] * 10)
    assert load(folder(tmp_path / "gaps", gaps)).classes == ["0", "4", "8"]


# -- classes ----------------------------------------------------------------------------------------------------------


def test_numbers_of_classes_rise_and_names_ask_for_them(tmp_path):
    data = load(folder(tmp_path / "n", [f"{c}/{k}.png" for c in range(12) for k in range(3)]), "all")
    assert data.classes == [str(k) for k in range(12)]
    assert said(data, "12 classes, numbered from 0 in the order 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")
    assert sorted(["c10", "c2", "b", "10", "9", "1a"], key=natural) == ["1a", "9", "10", "b", "c2", "c10"]
    y = np.repeat([str(k) for k in range(12)], 3)
    x = np.random.default_rng(0).integers(0, 256, (36, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    held = df.data.of(x[::-1], y[::-1], heldout=(x[20:], y[20:]))
    for named in (load(tmp_path / "x.npz", "all"), df.data.of(x, y, split="all"), held.heldout):
        assert named is not None
        assert named.classes == data.classes
        assert named.y is not None
        assert named.y.tolist() == [k // 3 for k in range(36)][-len(named) :]
    assert held.y is not None
    assert held.y.tolist() == [k // 3 for k in range(36)][::-1]
    cpu, classes = torch.device("cpu"), [str(k) for k in range(1, 13)]
    assert class_indices("2", classes, None, cpu, tmp_path).item() == 1
    assert class_indices(["12", "1"], classes, 2, cpu, tmp_path).tolist() == [11, 0]
    assert class_indices(2, classes, None, cpu, tmp_path).item() == 2
    assert Condition.labels(classes).encode(np.array(["3", "4"])).tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"cond = 'catt': no such class; did you mean 'cat'\?"):
        class_indices("catt", ["cat", "dog"], None, cpu, tmp_path)


@pytest.mark.parametrize("each", [1, 2])
def test_a_split_never_empties_a_class(tmp_path, each):
    root = folder(tmp_path / "few", [f"c{c}/{k}.png" for c in range(20) for k in range(each)])
    train = load(root)
    assert train.y is not None
    assert sorted(set(train.y.tolist())) == list(range(20))
    assert len(train) == (20 if each == 1 else 36)
    if each == 1:
        assert said(train, "none is made: each class has one example only", "of one picture each")
        with pytest.raises(DataError, match="no test examples; split='all'"):
            load(root, "test")


def test_classes_that_training_never_sees_are_named_and_skipped(tmp_path):
    names = [f"{place}/{k}.png" for place in ("train/a", "train/c", "test/a", "test/b") for k in "12"]
    data = load(folder(tmp_path / "some", names))
    assert data.classes == ["a", "b", "c"]
    assert said(data, "no training example is of class b")
    assert not any("no training example" in note for note in load(tmp_path / "some", "all").notes)
    counts = data.meta()["counts"]
    assert counts == [2, 0, 2]
    seen, unknown = (labels_of((), data.classes, 4, counts=c) for c in (counts, None))
    assert seen is not None
    assert seen.tolist() == [0, 2, 0, 2]
    assert unknown is not None
    assert unknown.tolist() == [0, 1, 2, 0]  # of an older run nobody knows
    with pytest.raises(UsageError, match="--class b: no training example is of this class"):
        labels_of(("b",), data.classes, 4, counts=counts)
    assert grid_conditions({}, data, 4, torch.device("cpu")).tolist() == [0, 2, 0, 2]


# -- links, archives --------------------------------------------------------------------------------------------------


def test_links_to_folders_are_followed_where_they_do_not_loop(tmp_path):
    folder(tmp_path / "store", [f"{c}/{k}.png" for c in ("cat", "dog") for k in range(3)])
    plain = load(tmp_path / "store", "all")
    (tmp_path / "set").mkdir()
    os.symlink(tmp_path / "store" / "dog", tmp_path / "set" / "dog")
    os.symlink("../store/cat", tmp_path / "set" / "cat")
    for name, target in (("up", ".."), ("self", tmp_path / "store" / "cat"), ("root", "/")):
        os.symlink(target, tmp_path / "store" / "cat" / name)
    cats = load(tmp_path / "store" / "cat", "all")
    assert cats.x.equal(plain.x[:3])
    assert said(cats, "links that lead back to a folder above were not followed: root, self, up")
    linked = load(tmp_path / "set", "all")
    assert (linked.fingerprint, linked.classes) == (plain.fingerprint, ["cat", "dog"])
    os.symlink(tmp_path / "set", tmp_path / "link")
    assert load(tmp_path / "link", "all").fingerprint == plain.fingerprint


def test_backslashes_and_dots_in_zips_separate_folders(tmp_path):
    pictures = {f"{c}/{k}.png": png(k + 3 * (c == "dog")) for c in ("cat", "dog") for k in range(3)}
    plain = load(packed(tmp_path / "plain.zip", pictures), "all")
    for k, turn in enumerate((lambda n: n.replace("/", "\\"), lambda n: f"set\\{n}", lambda n: f"./{n}")):
        files = {turn(n): content for n, content in pictures.items()}
        data = load(packed(tmp_path / f"{k}.zip", files | ({} if k else {"cat\\": b""})), "all")
        assert (data.fingerprint, data.classes) == (plain.fingerprint, ["cat", "dog"])
    with pytest.raises(DataError, match="leaves the folder"):
        load(packed(tmp_path / "up.zip", {"..\\..\\x.png": png(), "a.png": png()}))
    with pytest.raises(DataError, match=r"'a/1\.png': stored 2 times"):
        load(packed(tmp_path / "twice.zip", {"a\\1.png": png(), "a/1.png": png(1)}))
