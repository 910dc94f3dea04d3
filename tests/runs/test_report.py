"""The report of a run is one page that stands alone; figures put every image where it belongs."""

from __future__ import annotations

import html.parser
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffflow import figures
from diffflow.models.base import TrainConfig
from diffflow.models.presets import BY_MODEL
from diffflow.models.presets.scales import DATA_SCALES
from diffflow.models.settings.serialise import families, replace, to_yaml
from diffflow.runs import report

META = {
    "name": "<b>cats & dogs</b>",
    "split": "train",
    "kind": "image",
    "shape": [1, 8, 8],
    "classes": ["cat", "dog"],
    "count": 1234,
    "mean": -0.1,
    "std": 0.7,
    "std_ratio": 3.0,
    "fingerprint": "ab" * 32,
    "notes": ["3 images were grey"],
}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    home = tmp_path / "cats"
    (home / "samples").mkdir(parents=True)
    about = {
        "data": META,
        "parameters": {"denoiser": 5000},
        "torch": "2.13.0",
        "command": ["/bin/diffflow", "train", "a b"],
    }
    (home / "run.json").write_text(json.dumps(about))
    (home / "config.yaml").write_text("sampling: {steps: 20, churn: 0.5, sigma_min: 0.002, sigma_max: 80.0}\n")
    lines = [
        {"step": k, "images": 16 * k, "seconds": 60.0 * k, "loss": {"denoiser": 1 / k}, "grad": {"denoiser": 2.0}}
        for k in range(1, 31)
    ]
    (home / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    image = figures.png(figures.grid(np.random.default_rng(0).random((4, 1, 8, 8))))
    for step in (10, 20, 30):
        (home / "samples" / f"{step:06d}.png").write_bytes(image)
    return home


class Page(html.parser.HTMLParser):
    """Collects tags, addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "action", "data") and v]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone(run_dir: Path) -> None:
    text = report.write(run_dir).read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert len(page.addresses) == 4  # the newest grid, two earlier ones, the curves
    assert all(a.startswith("data:image/png;base64,") for a in page.addresses)
    assert not re.search(r"url\(|@import|https?://", text)


def test_the_page_tells_what_a_stranger_asks(run_dir: Path) -> None:
    page = Page(report.write(run_dir).read_text())
    for words in ("5,000 parameters", "1,234 images", "30 steps", "480 examples", "30.0 minutes", "3 images were grey"):
        assert words in page.text
    for command in ("diffflow sample", "diffflow train --out", "--resume auto --minutes 60", "df.load(", "train 'a b'"):
        assert command in page.text
    assert "<b>cats & dogs</b>" in page.text  # shown, not obeyed
    assert "here 0.5" in page.text


def test_commands_can_be_pasted(run_dir: Path) -> None:
    about = json.loads((run_dir / "run.json").read_text())
    about["data"]["classes"] = ["cat", "Ankle boot"]
    (run_dir / "run.json").write_text(json.dumps(about))
    home = run_dir.rename(run_dir.with_name("cat's run"))
    page = Page(report.write(home).read_text())
    lines = [shlex.split(line) for line in page.text.splitlines() if line.startswith("diffflow ")]
    assert [str(home) in words for words in lines] == [True] * 5 + [False]  # the last is how the run was made
    assert lines[0][lines[0].index("--class") + 1] == "Ankle boot"
    assert f"df.load({str(home)!r})" in page.text


def test_a_line_cut_by_a_crash_is_left_out(run_dir: Path) -> None:
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write('{"step": 31, "ima')
    assert "30 steps" in Page(report.write(run_dir).read_text()).text


def test_measurements_show_error_and_floor(run_dir: Path) -> None:
    metrics = [{"name": "w2", "value": 1.2345, "stderr": 0.021, "floor": 1.1, "better": "lower", "n": 500}]
    (run_dir / "evaluation.json").write_text(
        json.dumps({"metrics": metrics, "card": {"seed": 7}, "summary": "All well."})
    )
    text = Page(report.write(run_dir).read_text()).text
    for words in ("1.234 ± 0.021", "1.1", "exact Wasserstein-2", '"seed": 7', "All well."):
        assert words in text


def test_a_young_run_has_a_report_too(run_dir: Path) -> None:
    (run_dir / "metrics.jsonl").write_text("")
    for picture in (run_dir / "samples").iterdir():
        picture.unlink()
    assert "Training" not in Page(report.write(run_dir).read_text()).tags


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e3))
def test_plus_minus_keeps_two_digits_of_the_error(value: float, stderr: float) -> None:
    shown, error = map(float, report.plus_minus(value, stderr).split(" ± "))
    # Two significant digits, or whole numbers from ten on: off by at most half a unit of the last place.
    assert abs(error - stderr) <= 0.051 * stderr + 1e-12
    assert abs(shown - value) <= 0.051 * stderr + 1e-9


@given(
    n=st.integers(1, 13),
    columns=st.none() | st.integers(1, 15),
    channels=st.sampled_from([1, 3]),
    gap=st.integers(0, 3),
    scale=st.integers(1, 3),
)
def test_a_grid_holds_every_image_where_it_belongs(
    n: int, columns: int | None, channels: int, gap: int, scale: int
) -> None:
    images = np.random.default_rng(n).random((n, channels, 5, 4))
    sheet = np.asarray(figures.grid(images, columns, gap=gap, scale=scale))
    wide = min(columns, n) if columns else int(np.ceil(np.sqrt(n)))
    tall = -(-n // wide)
    assert sheet.shape[:2] == (gap + tall * (5 * scale + gap), gap + wide * (4 * scale + gap))
    i = n - 1
    top, left = gap + i // wide * (5 * scale + gap), gap + i % wide * (4 * scale + gap)
    tile = sheet[top : top + 5 * scale : scale, left : left + 4 * scale : scale]
    np.testing.assert_array_equal(tile.reshape(5, 4, channels), np.rint(images[i] * 255).transpose(1, 2, 0))


@pytest.mark.parametrize("shape", [(3, 2, 4, 4), (0, 1, 4, 4), (4, 4), (2, 4, 4)])
def test_a_grid_of_something_else_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        figures.grid(np.zeros(shape))


def test_scatter_needs_a_plane() -> None:
    assert len(figures.png(figures.scatter(np.zeros((5, 3)), truth=np.ones((5, 3))))) > 1000
    with pytest.raises(ValueError, match="d >= 2"):
        figures.scatter(np.zeros((5, 1)))


def test_the_dial_takes_grey_and_colour() -> None:
    for shape in ((3, 1, 8, 8), (3, 3, 32, 32)):
        rows = [figures.DialRow("a", "b", np.zeros(shape)), figures.DialRow("c", "d", np.ones(shape))]
        assert figures.png(figures.dial(rows, ["x", "y", "z"])).startswith(b"\x89PNG")


def test_curves_survive_gaps_and_zeros() -> None:
    assert figures.curves([]) is None
    assert figures.curves([{"loss": {}, "grad": {}, "images": 1}]) is None
    lines = [{"images": k, "loss": {"a": 0.0, "b": 1.0 + k}, "grad": {"a": 1.0}} for k in range(3)]
    assert figures.png(figures.curves(lines)).startswith(b"\x89PNG")


def test_smoothing_keeps_a_line_a_line() -> None:
    x = np.cumsum(np.random.default_rng(0).random(200))
    mean_x, mean_y = figures.smooth(x, 3 * x + 1)
    np.testing.assert_allclose(mean_y, 3 * mean_x + 1)


# -- every family of models -------------------------------------------------------------------------------------------
FAMILIES = {
    "gan": ("A generator and a discriminator", "one evaluation", "game vanilla", "−l′(d)", "1 regression step for"),
    "discriminator-flow": (
        "A discriminator with",
        "climb what the discriminator",
        "one discriminator d(x, t)",
        "−η l′",
        "−0.25 × the data’s variance: noise",
    ),
    "improved-gan": ("noised less and less, from 1 to 0.01", "one discriminator", "sample × the data’s variance"),
    "improved-gan-independent": ("10 independent discriminators", "in 10 steps"),
    "diffusion-gan": (
        "A denoiser and a discriminator",
        "gan G²/2",
        "(1 + σ²/std²)",
        "gan up to 2, churn up to 1",
        "--gan 1",
        "gan=1.0",
    ),
    "score-gan": (
        "the data noised by σ",
        "the denoiser of its own samples",
        "difference of two denoisers",
        "one evaluation",
    ),
    "mmd-generator": ("A generator with", "a field of samples and data alone: MMD", "one evaluation"),
}


SETTINGS = {
    "gan": {"game.loss": "vanilla", "move.steps": 1},
    "improved-gan": {"path.noise": 1.0, "path.noise_end": 0.01},
    "discriminator-flow": {"path.entropy": 0.25},
    "improved-gan-independent": {"model.stages": 10, "path.steps": 10},
    "diffusion-gan": {"ranges.gan": 2.0, "ranges.churn": 1.0},
}


def log_line(k: int, **log: float) -> dict:
    return {
        "step": k, "images": 16 * k, "seconds": 60.0 * k, "loss": {"generator": 1 / k}, "grad": {"generator": 2.0},
        "log": {key.replace("_", "/", 1): value for key, value in log.items()},
    }  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_page_of_every_family_says_what_it_is(run_dir: Path, name: str) -> None:
    config = replace(BY_MODEL[name]("toy").config, SETTINGS.get(name, {}))
    (run_dir / "config.yaml").write_text(to_yaml(config))
    text = " ".join(Page(report.write(run_dir).read_text()).text.split())
    for words in FAMILIES[name]:
        assert words in text
    generator = "generator" in config.players()
    assert ("run.sde(" in text) != generator  # which has no equation of its own
    assert ("--churn" in text) == (name == "diffusion-gan")
    assert "the reverse SDE" not in text or name == "diffusion-gan"


def test_every_family_is_described() -> None:
    for family in families().values():
        assert family.words != TrainConfig.words
        assert all(symbol and meaning for symbol, meaning in family().equation_rows())
    for preset in BY_MODEL.values():
        for scale in DATA_SCALES:
            rows = preset(scale).config.equation_rows()
            assert all(symbol and meaning for symbol, meaning in rows)
            assert "None" not in str(rows)


def test_signals_have_a_panel_for_shares_and_one_for_sizes(run_dir: Path) -> None:
    assert figures.signals([]) is None
    assert figures.signals([log_line(1, discriminator_evaluations=14.0)]) is None
    lines = [log_line(k, discriminator_accuracy=0.5, generator_std_ratio=1.7, samples_modes=1.0) for k in range(1, 4)]
    lines.append(log_line(4, discriminator_accuracy=0.6))  # grids, and so modes, are drawn now and then
    axes = figures.signals(lines).axes
    assert [ax.get_title() for ax in axes] == ["shares", "sizes"]
    labels = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in axes]
    assert labels == [["discriminator: accuracy", "samples: modes"], ["generator: std_ratio"]]
    assert axes[0].get_ylim() == (-0.03, 1.03)
    assert axes[1].get_ylim()[1] > 1.7  # a width may exceed the data's
    assert [ax.get_title() for ax in figures.signals([log_line(1, generator_std_ratio=0.5)]).axes] == ["sizes"]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = Page(report.write(run_dir).read_text()).text
    assert "Accuracy: share of real and generated samples" in text
    assert "calibration:" not in text  # not logged, not explained


def test_warnings_of_the_training_are_shown(run_dir: Path) -> None:
    lines = [log_line(1), log_line(2) | {"warnings": ["the samples <collapse>"]}]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = Page(report.write(run_dir).read_text()).text
    assert "step 2" in text
    assert "the samples <collapse>" in text
