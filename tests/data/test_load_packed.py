"""idx folders, the CIFAR-10 form, and kinds of data that a plug-in reads, on small files made here."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from diffflow.data import READERS, DataError, Raw, Reader, by_suffix, load

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_folder(root, n: int = 30, zipped: bool = True):
    root.mkdir()
    sets = {}
    for name, count in (("train", n), ("t10k", n // 3)):
        x = RNG.integers(0, 256, (count, 7, 6), dtype=np.uint8)
        y = np.arange(count, dtype=np.uint8) % 10
        sets[name] = (x, y)
        for kind, array, ndim in (("images", x, 3), ("labels", y, 1)):
            path = root / f"{name}-{kind}-idx{ndim}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    return sets


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_round_trip(tmp_path, zipped):
    sets = idx_folder(tmp_path / "mnist", zipped=zipped)
    for split, name in (("train", "train"), ("test", "t10k")):
        data = load(tmp_path / "mnist", split)
        assert data.y is not None
        assert np.array_equal(data.x.numpy()[:, 0], sets[name][0])
        assert np.array_equal(data.y.numpy(), sets[name][1])
        assert data.classes == [str(k) for k in range(10)]
    assert len(load(tmp_path / "mnist", "all")) == 40


def test_a_folder_called_fashion_has_garment_names(tmp_path):
    idx_folder(tmp_path / "My-Fashion-set")
    classes = load(tmp_path / "My-Fashion-set").classes
    assert classes is not None
    assert classes[0] == "T-shirt/top"
    assert len(classes) == 10


def test_damaged_idx_files_say_what_is_wrong(tmp_path):
    root = tmp_path / "mnist"
    idx_folder(root)
    images = root / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot be read.*copy or download it again"):
        load(root)
    images.write_bytes(gzip.compress(idx(np.zeros((3, 7, 6), np.uint8))[:-5]))
    with pytest.raises(DataError, match=r"promises 126 bytes \(3x7x6\) but holds 121"):
        load(root)
    images.write_bytes(b"\x89PNG\r\n\x1a\n not idx")
    with pytest.raises(DataError, match="no idx file of 3-dimensional uint8"):
        load(root)
    images.write_bytes(gzip.compress(idx(np.zeros((3, 7, 6), np.uint8))))
    with pytest.raises(DataError, match="3 examples but 30 labels"):
        load(root)
    images.unlink()
    with pytest.raises(DataError, match="lacks the idx files for: train images"):
        load(root)
    assert len(load(root, "test")) == 10


def sheet_folder(root, split: str, n: int, side: int = 4):
    root.mkdir(exist_ok=True)
    x = RNG.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    with zipfile.ZipFile(root / f"{split}_images.zip", "w") as archive:
        for s in range(-(-n // 100)):
            tiles = np.zeros((100, side, side, 3), np.uint8)
            part = x[100 * s : 100 * s + 100]
            tiles[: len(part)] = part
            sheet = tiles.reshape(10, 10, side, side, 3).swapaxes(1, 2).reshape(10 * side, 10 * side, 3)
            out = io.BytesIO()
            Image.fromarray(sheet).save(out, "WEBP", lossless=True, exact=True)
            archive.writestr(f"{s:03d}.webp", out.getvalue())
    y = np.arange(n) % 10
    np.savez_compressed(root / f"{split}_labels.npz", label=y)
    return x, y


def test_sheets_round_trip(tmp_path):
    root = tmp_path / "cifar"
    for split, n in (("train", 230), ("test", 40)):
        x, y = sheet_folder(root, split, n)
        data = load(root, split)
        assert data.y is not None
        assert np.array_equal(data.x.numpy().transpose(0, 2, 3, 1), x)
        assert np.array_equal(data.y.numpy(), y)
        assert data.classes is not None
        assert data.classes[3] == "cat"
    assert len(load(root, "all")) == 270


def test_damaged_sheets_say_what_is_wrong(tmp_path):
    root = tmp_path / "cifar"
    sheet_folder(root, "train", 230)
    with pytest.raises(DataError, match=r"lacks test_images\.zip and test_labels\.npz"):
        load(root, "test")
    np.savez(root / "train_labels.npz", label=np.zeros(320, int))
    with pytest.raises(DataError, match="places for 300 images, but there are 320 labels"):
        load(root)
    np.savez(root / "train_labels.npz", wrong=np.zeros(230, int))
    with pytest.raises(DataError, match="no readable array 'label'"):
        load(root)
    np.savez(root / "train_labels.npz", label=np.zeros(230, int))
    with zipfile.ZipFile(root / "train_images.zip", "a") as archive:
        archive.writestr("009.webp", b"RIFF broken")
        archive.writestr("010.webp", b"")
        eps = io.BytesIO()
        Image.new("RGB", (40, 40)).save(eps, "EPS")
        archive.writestr("011.webp", eps.getvalue())
    with pytest.raises(DataError, match="3 sheets") as caught:
        load(root)
    assert [p.split(":")[0] for p in caught.value.problems] == ["009.webp", "010.webp", "011.webp"]
    assert "cannot identify" in caught.value.problems[2]


@pytest.fixture
def own_readers():
    """Two kinds of data from outside the package: a file of float32 pairs, and a folder that ours take for images."""
    rows = {
        f"{__name__}:pairs": Reader(
            (".f32",), by_suffix(".f32"), lambda path, request: Raw(np.fromfile(path, np.float32).reshape(-1, 2))
        ),
        f"{__name__}:shards": Reader(
            ("folders of shards",),
            lambda path: (path / "shards.txt").is_file(),
            lambda path, request: Raw(np.arange(40.0).reshape(20, 2), test=np.arange(20) >= 15),
        ),
    }
    READERS.update(rows)
    yield
    for name in rows:
        del READERS[name]


@pytest.mark.usefixtures("own_readers")
def test_a_reader_from_outside_reads_files_of_its_kind(tmp_path):
    x = RNG.normal(size=(30, 2)).astype(np.float32)
    x.tofile(tmp_path / "points.F32")
    data = load(tmp_path / "points.F32", "all")
    assert np.array_equal(data.x.numpy(), x)
    with pytest.raises(DataError, match=r"size=8 \(--data.size\) is for image files"):
        load(tmp_path / "points.F32", size=8)
    (tmp_path / "x.lance").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is of no known kind; known are folders, ") as told:
        load(tmp_path / "x.lance")
    assert all(kind in str(told.value) for reader in READERS.values() for kind in reader.kinds)
    # rows from outside are asked first: our reader of image folders takes every folder
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "shards.txt").write_text("1\n")
    assert len(load(tmp_path / "shards")) == 15


def test_readers_from_outside_say_their_module():
    with pytest.raises(ValueError, match="a data reader from outside the package is called MODULE:NAME"):
        READERS["pairs"] = Reader((".f32",), by_suffix(".f32"), lambda path, request: Raw(np.zeros((1, 2))))
