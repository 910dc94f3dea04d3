"""The page's main states as pictures. They are drawn in every run of the tests, and looked at by people:

    DIFFFLOW_PICTURES=docs/assets/explorer DIFFFLOW_RUNS=runs make test ARGS="tests/explorer/test_pictures.py"

writes those of the documentation, with the runs of a folder (without it, the tests' own run of twenty steps)."""

import io
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from diffflow.explorer.server import STATIC

STATES = {
    "first": ("target=8gaussians", None, "light", 1440),
    "lesson": ("", "imbalance", "light", 1440),
    "dark": ("target=moons&gan=1&churn=0.5&cloud=1", None, "dark", 1440),
    "runs": ("run=digits&n=24&churn=1", None, "light", 1440),
    "phone": ("target=spirals&split=1&family=static&churn=0&b.churn=1", None, "light", 390),
    "phone-runs": ("run=digits&n=12", None, "dark", 390),
}


KEPT = os.environ.get("DIFFFLOW_PICTURES")  # of the documentation; otherwise fewer particles on a quick way will do
QUICK = "" if KEPT else "&particles=500&pace=600"


@pytest.fixture(scope="module")
def server(serve, home: Path):
    running = serve(Path(os.environ.get("DIFFFLOW_RUNS", home)))
    yield running
    running.stop()


@pytest.mark.parametrize("name", sorted(STATES))
def test_main_states(opened, name: str, tmp_path: Path) -> None:
    words, lesson, theme, width = STATES[name]
    page = opened(words if "run=" in words else words + QUICK, width=width, height=900 if width > 500 else 844)
    page.evaluate("(t) => { document.documentElement.dataset.theme = t; }", theme)
    if lesson:
        page.click(f'[data-lesson="{lesson}"]')
    end = time.monotonic() + 40
    ready = "explorer.now.k > 0.7 * explorer.now.last"
    if "run=" in words:
        ready = "document.getElementById('ask-status')?.textContent.includes('evaluation')"
    while not page.evaluate(ready):
        assert time.monotonic() < end
        page.wait_for_timeout(30)
    page.wait_for_timeout((1500 if KEPT else 300) if "run=" in words else 200)
    folder = Path(KEPT or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(folder / f"{name}.png", optimize=True)
    assert picture.width == width
    tones = picture.convert("L").histogram()
    assert sum(n > 20 for n in tones) > 20  # drawn, and not blank
    ground = max(range(256), key=lambda v: tones[v])
    assert (ground < 60) == (theme == "dark")


def test_the_page_names_no_other_host() -> None:
    """Not in its code either, but for the names of XML dialects."""
    for file in STATIC.iterdir():
        text = file.read_text().replace("http://www.w3.org/", "")
        assert "://" not in text, file
        assert "eval(" not in text
