"""What becomes of pixels, sizes and files: bits, ranges, shapes, formats, and that each file is decoded once.

Every test of this file failed before, silently or with a misleading message, unless it says otherwise.
"""

from __future__ import annotations

import io
import struct
import sys
import types
import zipfile
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin, TiffImagePlugin

import diffflow as df
from diffflow.data import DataError, load
from diffflow.data.prepare import finish
from diffflow.data.raw import Raw
from diffflow.data.readers import decode as decoding
from diffflow.data.readers import images
from diffflow.data.readers.form import Form, common_size, fitted, place

RNG = np.random.default_rng(0)


def grey(h: int = 8, w: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (h, w), dtype=np.uint8)


def colour(h: int = 8, w: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)


def save(folder, pictures, suffix=".png", **options):
    folder.mkdir(parents=True, exist_ok=True)
    for k, picture in enumerate(pictures):
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(folder / f"{k:02d}{suffix}", **options)
    return folder


def said(data, *words):
    return all(any(word in note for note in data.notes) for word in words)


# -- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_bits_that_are_used_are_kept(tmp_path, bits, suffix):
    """Pixels of b bits in a file of 16 come back to half a step of 8 bits; 16 of 16 did so before."""
    values = RNG.integers(0, 1 << bits, (6, 8, 8)).astype(np.uint16)
    values[0, 0, 0] = (1 << bits) - 1
    data = load(save(tmp_path / "x", values, suffix), "all")
    exact = values * (255 / ((1 << bits) - 1))
    assert np.abs(data.x.numpy()[:, 0] - exact).max() <= 0.5 + 1e-9
    assert said(data, "6 of 6 images: 16 bits" + (f" of which {bits} are used" if bits < 16 else ", scaled to 8"))
    if bits > 8:  # the same numbers as an array
        np.save(tmp_path / "x.npy", values)
        assert load(tmp_path / "x.npy", "all").x.equal(data.x)
    assert df.data.of([Image.fromarray(v) for v in values], split="all").x.equal(data.x)


def test_pictures_in_which_nothing_can_be_seen_are_said_and_not_trained_on(tmp_path):
    masks = (grey(32, 32) > 127).astype(np.uint8)
    np.save(tmp_path / "masks.npy", np.stack([masks] * 3))
    np.save(tmp_path / "small.npy", RNG.uniform(0, 0.003, (5, 1, 16, 16)))
    cases = {
        save(tmp_path / "masks", [masks] * 3): "from 0 to 1 of 255",
        tmp_path / "masks.npy": "from 0 to 1 of 255",
        save(tmp_path / "flat", [(90 + grey() % 21).astype(np.uint8)] * 9): "from 90 to 110 of 255",
        tmp_path / "small.npy": "from 0 to 1 of 255",
    }
    for source, words in cases.items():
        data = load(source)
        assert said(data, f"ATTENTION: pixels run {words} only")
        for given in (data, str(source)):
            with pytest.raises(DataError, match=rf"run {words}, where next to nothing can be seen: multiply masks"):
                df.train(given, tmp_path / "run", steps=1)
    assert not (tmp_path / "run").exists()
    assert said(load(tmp_path / "small.npy"), "only (floats in [0, 1] stored as 8 bits)")
    kept = load(tmp_path / "small.npy", "all", kind="image")
    assert not kept.transform.of_bytes
    assert said(load(save(tmp_path / "few", [masks * 255] * 3)), "only 2 levels of grey or colour are used")
    assert said(load(save(tmp_path / "black", [masks * 0] * 3)), "every pixel is 0 of 255: there is nothing to learn")
    assert not said(load(save(tmp_path / "all", [grey(32, 32)] * 3)), "levels")


@pytest.mark.parametrize(
    ("low", "high", "base", "words"),
    [
        (-1e-4, 1.0, 0.0, "floats in [0, 1] stored as 8 bits (they run from -0.0001 to 1: what is beyond was cut)"),
        (-0.03, 1.04, 0.0, "floats in [0, 1] stored as 8 bits (they run from -0.03 to 1.04: what is beyond was cut)"),
        (0.0, 1.0, 0.0, "floats in [0, 1] stored as 8 bits"),
        (-1.0, 1.0, -1.0, "floats in [-1, 1] stored as 8 bits"),
        (-1.0, 1.01, -1.0, "floats in [-1, 1] stored as 8 bits (they run from -1 to 1.01: what is beyond was cut)"),
    ],
)
def test_floats_by_their_range(tmp_path, low, high, base, words):
    """Of an array and of float TIFFs; exact ranges of arrays were read before."""
    x = RNG.uniform(low, high, (8, 1, 16, 16)).astype(np.float32)
    x[0, 0, 0, :2] = low, high
    np.save(tmp_path / "x.npy", x)
    expected = (x.clip(base, 1) - base) * 255 / (1 - base)
    for source in (tmp_path / "x.npy", save(tmp_path / "x", x[:, 0], ".tif")):
        data = load(source, "all")
        assert np.abs(data.x.numpy() - expected).max() <= 0.5 + 1e-3
        assert said(data, words)


def test_floats_without_a_known_range_and_signals_are_refused(tmp_path):
    """Signals were refused before."""
    x = RNG.normal(size=(4, 8, 8)).astype(np.float32) * 900
    with pytest.raises(DataError, match=r"pixels of .* \(float32\) run from .*; save them as uint8"):
        load(save(tmp_path / "x", x, ".tif"))
    x[2, 3, 3] = np.nan
    with pytest.raises(DataError, match=r"1 of 4 images.*\n  02.tif: pixels that are NaN"):
        load(save(tmp_path / "y", x, ".tif"))
    np.save(tmp_path / "s.npy", RNG.normal(size=(2000, 2, 64)).astype(np.float32))
    with pytest.raises(DataError, match=r"--data\.kind signal or --data\.kind image"):
        load(tmp_path / "s.npy")


def colour_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG that Pillow reads but does not write, of values uint16 (h, w, 3)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    h, w, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_colours_of_few_bits_in_16_are_said(tmp_path, bits):
    """Pillow keeps the upper 8 bits of each colour: of 12 bits, 16 levels."""
    (tmp_path / "x").mkdir()
    for k in range(3):
        values = RNG.integers(0, 1 << bits, (16, 16, 3))
        (tmp_path / "x" / f"{k}.png").write_bytes(colour_of_16_bits(values))
    data = load(tmp_path / "x")
    assert said(data, "3 of 3 images: 16 bits a channel, of which the upper 8 are read")
    assert said(data, f"run from 0 to {(1 << bits - 8) - 1} of 255") == (bits < 16)


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_the_common_size_is_the_most_frequent_shorter_side_or_a_power_of_two():
    assert common_size(Counter({(40, 60): 3, (60, 40): 3, (90, 80): 2})) == (40, 40)
    assert common_size(Counter({(3000, 4000): 3, (4000, 3000): 3})) == (256, 256)  # nobody trains on these
    assert common_size(Counter({(70 + k, 100): 1 for k in range(9)})) == (64, 64)
    assert common_size(Counter({(9, 9): 1, (40, 40): 1, (41, 50): 1, (42, 50): 1, (43, 43): 1})) == (32, 32)
    assert common_size(Counter({(1, 5): 1, (2, 5): 1})) == (1, 1)


@pytest.mark.parametrize("mode", [grey, colour])
def test_crop_pad_and_resize(tmp_path, mode):
    """A picture twice as wide: its middle; all of it between bars; all of it, squashed."""
    square, wide = mode(8, 8), mode(8, 16)
    folder = save(tmp_path / "x", [square, wide])
    sides = np.asarray(Image.fromarray(wide).resize((8, 8), Image.Resampling.LANCZOS))
    within = np.asarray(Image.fromarray(wide).resize((8, 4), Image.Resampling.LANCZOS))
    for fit, background, expected in (
        ("crop", "white", wide[:, 4:12]),
        ("resize", "white", sides),
        ("pad", "#333333", np.concatenate([np.full_like(sides[:2], 51), within, np.full_like(sides[:2], 51)])),
    ):
        data = load(folder, "all", fit=fit, background=background)
        first, second = data.x.numpy().transpose(0, 2, 3, 1).squeeze()
        assert np.array_equal(first, square)
        assert np.array_equal(second, expected)
        assert said(data, "1 of 2 images: resized", "2 different sizes (width x height): 8x8 (1 images), 16x8")
        assert len(load(folder, "all", size=4, fit=fit).x[0, 0]) == 4
    with pytest.raises(DataError, match=r"fit \(--data.fit\) is one of crop, pad, resize, not 'stretch'"):
        load(folder, fit="stretch")
    with pytest.raises(DataError, match="'blurple' is no colour: give a name"):
        load(folder, background="blurple")


def test_sixteen_bits_are_fitted_without_losing_any(tmp_path):
    """A constant stays itself through each fit, at 12 bits in 16; a padded one among the background."""
    folder = save(tmp_path / "x", [np.full((8, 16), 2048, np.uint16), np.full((8, 8), 4095, np.uint16)])
    for fit in ("crop", "resize", "pad"):
        x = load(folder, "all", fit=fit, background="black").x.numpy()[:, 0]
        assert (x[1] == 255).all()
        rows = x[0, 2:6] if fit == "pad" else x[0]
        assert (rows == 128).all()
        assert fit != "pad" or (x[0, :2] == 0).all()


def test_other_pictures_are_brought_to_the_size_of_a_run(tmp_path):
    """Of sizes that differ: those of one other size are refused as ever."""
    trained = load(save(tmp_path / "a", [grey(8, 8), grey(8, 8), grey(8, 9)]), "all")
    other = save(tmp_path / "b", [grey(16, 16), grey(16, 24), grey(16, 16)])
    assert load(other, "all").shape == (1, 16, 16)
    assert load(other, "all", like=trained.transform).shape == (1, 8, 8)
    with pytest.raises(DataError, match=r"of shape \(1, 16, 16\), and .* of shape \(1, 8, 8\) are asked for"):
        load(save(tmp_path / "c", [grey(16, 16)] * 3), like=trained.transform)


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    """Draft mode, where a quarter or less is wanted: within a grey level or two of the long way."""
    y, x = np.mgrid[:512, :512] / 512
    picture = np.stack([255 * x, 255 * y, 127 + 120 * np.sin(9 * x * y)], 2).astype(np.uint8)
    folder = save(tmp_path / "x", [picture, picture[:, ::-1]], ".jpg", quality=95)
    expected = np.asarray(Image.open(folder / "00.jpg").resize((32, 32), Image.Resampling.LANCZOS)).astype(int)
    data = load(folder, "all", size=32)
    assert np.abs(data.x[0].numpy().transpose(1, 2, 0) - expected).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_the_background(tmp_path, mode):
    """White by default, as before."""
    clear = Image.new(mode, (8, 8), (0,) * len(mode))
    half = Image.fromarray(np.dstack([colour(), np.full((8, 8), 128, np.uint8)])).convert(mode)
    folder = save(tmp_path / "x", [clear, half])
    for background, rgb in (("white", (255,) * 3), ("#336699", (51, 102, 153)), ("black", (0,) * 3)):
        data = load(folder, "all", background=background)
        assert len(data.x[0]) == (1 if mode == "LA" and len(set(rgb)) == 1 else 3)
        assert (data.x[0] == torch.tensor(rgb)[: len(data.x[0]), None, None]).all()
        assert said(data, f"2 of 2 images: transparent, laid over {background}")
    alpha = np.dstack([colour(), np.zeros((8, 8), np.uint8)]).transpose(2, 0, 1)
    np.save(tmp_path / "x.npy", np.stack([alpha] * 3))
    assert (load(tmp_path / "x.npy", "all", background="#336699").x[0, :, 0, 0] == torch.tensor([51, 102, 153])).all()


# -- files ------------------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_counted_and_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    folder = save(tmp_path / "x", [colour()] * 5)
    for name in [f"{k}.HEIC" for k in range(20)] + ["notes.txt", "README"]:
        (folder / name).write_bytes(b"x")
    data = load(folder)
    assert said(data, "22 files were left out (20 .heic, 1 without a suffix, 1 .txt): 0.HEIC,")
    assert said(data, "pillow-heif reads .heic: pip install pillow-heif")
    for path in folder.glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"no images in .*\(pillow-heif reads .heic: pip install pillow-heif\)"):
        load(folder)


def test_heic_is_read_where_its_plugin_is(tmp_path, monkeypatch):
    """A stand-in for pillow-heif, which reads PNG by another name."""
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    plugin = types.ModuleType("pillow_heif")

    class Heif(PngImagePlugin.PngImageFile):
        format = "HEIF"

    def register() -> None:
        Image.register_open("HEIF", Heif, lambda prefix: prefix[:4] == b"\x89PNG")

    monkeypatch.setattr(plugin, "register_heif_opener", register, raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    folder = save(tmp_path / "x", pictures := [colour(), colour()], ".png")
    for k in range(2):
        (folder / f"{k:02d}.png").rename(folder / f"{k:02d}.heic")
    data = load(folder, "all")
    assert np.array_equal(data.x.numpy().transpose(0, 2, 3, 1), pictures)


def test_other_suffixes_of_known_formats_are_read(tmp_path):
    folder = save(tmp_path / "x", [grey()] * 2, ".jpe")
    for suffix, kind in ((".jfif", "JPEG"), (".apng", "PNG"), (".pbm", "PPM"), (".JPG", "JPEG"), (".pnm", "PPM")):
        Image.fromarray(grey()).convert("1" if suffix == ".pbm" else "L").save(folder / f"z{suffix}", kind)
    assert len(load(folder, "all")) == 7
    if ".avif" in Image.registered_extensions():
        assert len(load(save(tmp_path / "y", [colour(), colour()], ".avif"), "all")) == 2


def test_pages_of_a_tiff_are_pictures_with_the_class_of_their_file(tmp_path):
    pictures = [grey() for _ in range(12)]
    for name, first in (("a/x.tif", 0), ("b/y.tif", 5)):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True)
        pages = [Image.fromarray(p) for p in pictures[first : first + (5 if first == 0 else 7)]]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    data = load(tmp_path / "set", "all")
    assert np.array_equal(data.x.numpy()[:, 0], pictures)
    assert data.y is not None
    assert data.y.tolist() == [0] * 5 + [1] * 7
    assert said(data, "2 TIFF files of several pages: each of the 12 pages is a picture")
    small = TiffImagePlugin.ImageFileDirectory_v2()
    small[254] = 1  # a thumbnail of the first page
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "t.tif"), True) as writer:
        for picture, info in ((grey(8, 8), None), (grey(4, 4), small)):
            Image.fromarray(picture).save(writer, format="TIFF", **({} if info is None else {"tiffinfo": info}))
            writer.newFrame()
    (tmp_path / "one").mkdir()
    (tmp_path / "t.tif").rename(tmp_path / "one" / "t.tif")
    assert len(load(tmp_path / "one", "all")) == 1
    frames = [Image.fromarray(colour()) for _ in range(3)]
    frames[0].save(tmp_path / "one" / "z.gif", save_all=True, append_images=frames[1:])
    data = load(tmp_path / "one", "all")
    assert len(data) == 2
    assert said(data, "1 of 2 images: animated, first frame used")


@pytest.mark.parametrize("zipped", [False, True])
def test_each_file_is_decoded_once_and_looked_at_without_decoding(tmp_path, monkeypatch, zipped):
    """Work that is linear: no file twice, and nothing that grows with their product."""
    folder = save(tmp_path / "x", [colour(8 + k % 2, 8) for k in range(30)])
    source = folder
    if zipped:
        source = tmp_path / "x.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.name)
    loaded = []
    load_image = PngImagePlugin.PngImageFile.load_prepare
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_prepare", lambda self: loaded.append(1) or load_image(self))
    assert df.presets.fitting(str(source)) == "cifar10"
    look = images.survey(source)
    assert (look.count, look.channels, look.size, look.classes) == (30, 3, (8, 8), 0)
    assert not loaded
    assert len(load(source, "all")) == 30
    assert len(loaded) == 30


def test_pictures_that_do_not_fit_in_memory_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    folder = save(tmp_path / "x", [colour(300, 300)] * 4)
    assert images.free_memory() > 1 << 26
    monkeypatch.setattr(images, "free_memory", lambda: 1 << 20)
    monkeypatch.setattr(images, "decode", None)
    with pytest.raises(DataError, match=r"4 pictures of 300x300 in .* take 0.001 GiB of memory .*--data.size 256"):
        load(folder)


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_rows_are_moved_and_not_copied_where_most_stay(monkeypatch, split):
    """Memory: all pictures are there once; a tenth of them does not keep the others."""
    monkeypatch.setattr("diffflow.data.prepare.CHUNK", 7)
    x = RNG.integers(0, 256, (100, 1, 4, 4), dtype=np.uint8)
    expected = finish(Raw(x), "x", split, False)
    mine = x.copy()
    data = finish(Raw(mine, own=True), "x", split, False)
    assert data.x.equal(expected.x)
    assert np.shares_memory(data.x.numpy(), mine) == (split != "test")


def test_what_heads_say_is_what_decoding_gives(tmp_path):
    """Size and channels, of every mode, also turned ones."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [Image.fromarray(colour(8, 12)).convert(m) for m in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16", "CMYK")]
    for k, picture in enumerate([*pictures, pictures[6].convert("F")]):
        for suffix in (".png", ".tif", ".jpg", ".webp"):
            for turned in (False, True):
                out = io.BytesIO()
                options = {"exif": exif} if turned else {}
                try:
                    picture.save(out, Image.registered_extensions()[suffix], **options)
                except (OSError, ValueError):  # not every format has every mode
                    continue
                for form in (Form(), Form(background="red")):
                    with decoding.opened(io.BytesIO(out.getvalue())) as image:
                        [(page, shape, count)] = decoding.pages(image, form)
                    pixels, _ = decoding.decode(out.getvalue(), page, form, None)
                    assert pixels.shape == (*shape, count), (picture.mode, suffix, turned, k)


# -- words ------------------------------------------------------------------------------------------------------------


def test_data_in_words():
    def in_words(data):
        return data.describe()[0].partition(", sha256 ")[0]

    def words(x, y=None, split="train", **how):
        return in_words(finish(Raw(x, y, **how), "it", split, False))

    x = RNG.integers(0, 256, (3786, 3, 4, 6), dtype=np.uint8)
    assert words(x) == "it: 3,786 pictures of 6x4, colour, no classes, 3,407 train + 379 test"
    assert words(x, split="test") == words(x)
    assert words(x, split="all") == "it: 3,786 pictures of 6x4, colour, no classes, split all"
    assert words(x[:20, :1], np.arange(20) % 2) == "it: 20 pictures of 6x4, grey, 2 classes, 18 train + 2 test"
    assert in_words(load("moons")) == "moons: 10,000 rows of 2 columns, no classes, split train"
    of = df.data.of
    assert in_words(of(RNG.normal(size=(50, 2, 64)), kind="signal")) == (
        "data: 50 signals of 64 values in 2 channels, no classes, 45 train + 5 test"
    )
    assert "50 volumes of 4x3x2, 1 channel," in in_words(of(RNG.normal(size=(50, 1, 2, 3, 4))))
    held = of(RNG.normal(size=(50, 5)), heldout=RNG.normal(size=(7, 5)))
    assert in_words(held) == "data: 57 rows of 5 columns, no classes, 50 train + 7 test"


def test_padding_lies_around_the_middle():
    x = np.zeros((3, 6, 7), np.uint8)
    place(x, np.full((2, 3, 1), 9, np.uint8), Form(background="#010203"))
    assert (x[:, 2:4, 2:5] == 9).all()
    assert x.sum() == 3 * 6 * 9 + (42 - 6) * (1 + 2 + 3)
    assert fitted(Image.new("L", (7, 6)), (6, 7), Form()).size == (7, 6)
