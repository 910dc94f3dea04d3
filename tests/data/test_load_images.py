"""Image folders and zips: layout, pixel formats, and every kind of damage named in one error."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from diffflow.data import DataError, load
from diffflow.data.readers.archives import Limits
from diffflow.data.readers.images import read_zip

RNG = np.random.default_rng(0)


def png(pixels: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", **options)
    return out.getvalue()


def grey(h: int = 6, w: int = 5) -> np.ndarray:
    return RNG.integers(0, 256, (h, w), dtype=np.uint8)


def colour(h: int = 6, w: int = 5) -> np.ndarray:
    return RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)


def write(root, files: dict[str, bytes]):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def pack(path, files: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_subfolders_are_classes_in_folder_and_zip(tmp_path):
    pictures = {f"{c}/{i}.png": colour() for c in ("dog", "cat") for i in range(4)}
    files = {name: png(p) for name, p in pictures.items()}
    folder = load(write(tmp_path / "pets", files), "all")
    archive = load(pack(tmp_path / "pets.zip", {f"wrapper/{n}": f for n, f in files.items()}), "all")
    assert folder.classes == archive.classes == ["cat", "dog"]
    assert folder.shape == (3, 6, 5)
    assert folder.fingerprint == archive.fingerprint
    names = sorted(pictures)
    assert np.array_equal(folder.x.numpy().transpose(0, 2, 3, 1), np.stack([pictures[n] for n in names]))
    assert folder.y is not None
    assert folder.y.tolist() == [0] * 4 + [1] * 4


def test_a_flat_folder_has_no_labels_and_holds_out_a_tenth(tmp_path):
    root = write(tmp_path / "flat", {f"{i:02d}.png": png(grey()) for i in range(20)} | {"notes.txt": b"hello"})
    train, test = load(root), load(root, "test")
    assert train.y is None
    assert train.classes is None
    assert train.shape == (1, 6, 5)
    assert (len(train), len(test)) == (18, 2)
    assert any("notes.txt" in note for note in train.notes)
    assert any("18 train, 2 test" in note for note in train.notes)


def test_train_and_test_folders_are_the_split(tmp_path):
    names = ["train/a/1.png", "train/b/2.png", "train/a/3.png", "val/b/4.png"]
    root = write(tmp_path / "set", {n: png(grey()) for n in names})
    assert (len(load(root)), len(load(root, "test")), len(load(root, "all"))) == (3, 1, 4)
    test = load(root, "test")
    assert test.y is not None
    assert test.y.tolist() == [1]  # class numbers agree between splits
    write(root, {"test/a/5.png": png(grey())})
    with pytest.raises(DataError, match="keep 'train' and one other"):
        load(root)


def test_every_pixel_format_is_handled_and_reported(tmp_path):
    base = colour()
    wide = RNG.integers(0, 65536, (6, 5)).astype(np.uint16)
    alpha = np.dstack([base, np.full((6, 5), 0, np.uint8)])
    palette, turned, tiff = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(base).quantize(8).save(palette, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colour(5, 6)).save(turned, "PNG", exif=exif)
    Image.fromarray(base).convert("CMYK").save(tiff, "TIFF")
    files = {"0.png": png(base), "1.png": png(grey()), "2.png": png(wide), "3.png": png(alpha)}
    files |= {"4.png": palette.getvalue(), "5.png": turned.getvalue(), "6.tif": tiff.getvalue()}
    data = load(write(tmp_path / "mixed", files), "all")
    assert data.shape == (3, 6, 5)
    assert torch.equal(data.x[2, 0], torch.from_numpy(np.rint(wide / 257.0).astype(np.uint8)))
    assert (data.x[3] == 255).all()  # fully transparent: the white below shows
    report = "\n".join(data.notes)
    for what in ("16 bits", "laid over white", "palette", "EXIF", "CMYK", "grey, repeated in three channels"):
        assert what in report


def test_the_scan_names_every_bad_file(tmp_path):
    files = {f"good{i}.png": png(colour(32, 32)) for i in range(3)}
    files |= {"cut.png": png(colour(32, 32))[:900], "empty.png": b"", "text.jpg": b"no image at all"}
    flipped = bytearray(png(colour(32, 32)))
    flipped[200] ^= 255
    files["flipped.png"] = bytes(flipped)
    for source in (write(tmp_path / "bad", files), pack(tmp_path / "bad.zip", files)):
        with pytest.raises(DataError, match=r"4 of 7 images.*repair or remove") as caught:
            load(source)
        assert [p.split(":")[0] for p in caught.value.problems] == ["cut.png", "empty.png", "flipped.png", "text.jpg"]
        assert all(name in str(caught.value) for name in ("cut.png", "empty.png", "flipped.png", "text.jpg"))


def test_postscript_is_never_handed_to_its_interpreter(tmp_path, monkeypatch):
    def started(*args, **options):
        raise AssertionError("an interpreter was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    eps = io.BytesIO()
    Image.fromarray(colour()).save(eps, "EPS")
    root = write(tmp_path / "set", {"fine.png": png(colour()), "x.png": eps.getvalue()})
    with pytest.raises(DataError, match=r"1 of 2 images.*\n  x.png: not an image of a known format"):
        load(root)


def test_mixed_sizes_are_cropped_and_said(tmp_path):
    """They were refused until a size was asked for."""
    root = write(
        tmp_path / "sizes", {"a.png": png(colour(8, 8)), "b.png": png(colour(8, 16)), "c.png": png(colour(8, 8))}
    )
    chosen, asked = load(root, "all"), load(root, "all", size=8)
    assert any("2 different sizes (width x height): 8x8 (2 images), 16x8 (1 images)" in n for n in chosen.notes)
    assert chosen.fingerprint == asked.fingerprint
    for data in (chosen, asked):
        assert data.shape == (3, 8, 8)
        assert any("1 of 3 images: resized and centre-cropped to 8x8" in n for n in data.notes)
    # a crop without a resize keeps the middle columns exactly
    middle = np.asarray(Image.open(root / "b.png"))[:, 4:12].transpose(2, 0, 1)
    assert np.array_equal(chosen.x[1].numpy(), middle)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.md": b"x"}, "no images in .* it holds 'readme.md'.*Images end in"),
        ({"loose.png": png(grey()), "cat/1.png": png(grey()), "dog/1.png": png(grey())}, "outside them.*\n  loose.png"),
    ],
)
def test_folders_that_cannot_be_meant(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "odd", files))


def test_a_line_is_padded_to_a_line_and_what_memory_does_not_hold_is_said(tmp_path, monkeypatch):
    """A thousand times as wide as high: its height was rounded to 0, and the file called damaged."""
    files = {"line.png": png(np.zeros((1, 1000), np.uint8)), "post.png": png(np.zeros((1000, 1), np.uint8))}
    x = load(write(tmp_path / "lines", files), "all", size=16, fit="pad").x[:, 0]
    dark = (x < 255).sum((1, 2))
    assert dark.tolist() == [16, 16]

    def decode(*_):
        raise MemoryError

    monkeypatch.setattr("diffflow.data.readers.images.decode", decode)
    with pytest.raises(DataError, match=r"line.png: there is too little memory to decode it"):
        load(tmp_path / "lines", size=16)


def test_the_only_limit_on_the_size_of_a_picture_is_our_own(tmp_path, recwarn):
    """100 million pixels are read, without Pillow's warning of an attack; 900 million are refused in our words."""
    write(tmp_path / "large", {f"{side}.png": _head_only(side) for side in (10_000, 30_000)} | {"a.png": png(grey())})
    with pytest.raises(DataError, match=r"10000.png: image file is truncated.*\n  30000.png: far more pixels than the"):
        load(tmp_path / "large")
    assert not [w for w in recwarn if "DOS attack" in str(w.message)]


def _head_only(side: int) -> bytes:
    """A PNG of side x side bits, of which there are few."""
    content = png(grey())
    head = struct.pack(">4sIIBBBBB", b"IHDR", side, side, 1, 0, 0, 0, 0)
    return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]


def test_empty_missing_and_unknown_paths(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty; put images in it"):
        load(tmp_path / "empty")
    with pytest.raises(DataError, match="did you mean 'empty'"):
        load(tmp_path / "emptyy")
    (tmp_path / "x.lance").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no known kind; known are"):
        load(tmp_path / "x.lance")
    (tmp_path / "x.PNG").write_bytes(png(grey()))
    with pytest.raises(DataError, match=r"is one picture: put it into a folder"):
        load(tmp_path / "x.PNG")
    (tmp_path / "x.zip").write_bytes(b"PK but not really")
    with pytest.raises(DataError, match="no readable zip archive"):
        load(tmp_path / "x.zip")
    write(tmp_path / "linked", {"a/1.png": png(grey())})
    os.symlink(tmp_path / "nowhere", tmp_path / "linked" / "a" / "b.png")
    with pytest.raises(DataError, match=r"1 of 2 images.*\n  a/b.png: .*No such file"):
        load(tmp_path / "linked")


def test_archives_that_reach_out_are_refused_with_every_reason(tmp_path):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fine.png", png(grey()))
        for name in ("../up.png", "a/../../up.png", "/etc/x.png", "C:/x.png"):
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bomb.png", b"\0" * 1_000_000)
    with pytest.raises(DataError, match="refused") as caught:
        load(path)
    reasons = "\n".join(caught.value.problems)
    assert "fine.png" not in reasons
    assert reasons.count("leaves the folder") == 4
    assert "'link.png': a link" in reasons
    assert "'bomb.png': compressed more than 200 to 1" in reasons
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.zip"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(count=2), "3 entries; at most 2"),
        (Limits(entry=10), "bytes; at most 10"),
        (Limits(total=100), "when unpacked; at most 100"),
        (Limits(ratio=0.1), "more than 0.1 to 1"),
    ],
)
def test_limits_of_archives(tmp_path, limits, message):
    path = pack(tmp_path / "a.zip", {f"{i}.png": png(grey()) for i in range(3)})
    assert len(read_zip(path).x) == 3
    with pytest.raises(DataError, match=message):
        read_zip(path, limits=limits)


def test_a_damaged_archive_entry_is_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("one.png", png(grey()))
        archive.writestr("two.png", png(grey()))
    content = bytearray(path.read_bytes())
    content[60] ^= 255  # inside the first entry: its checksum no longer fits
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"1 of 2 images.*\n  one.png: damaged in the archive"):
        load(path)
