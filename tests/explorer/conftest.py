"""A real server on a free port, a real browser, and a run that is trained in seconds."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from diffflow.cli import main
from diffflow.explorer.server import create
from diffflow.models.presets import preset
from diffflow.models.settings.serialise import replace
from diffflow.training.train import train

TOKEN = "a token for tests"


class Server:
    """The explorer's server on a thread of its own. `sent`: the addresses that pages have asked for."""

    def __init__(self, home: Path):
        import socket

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{listener.getsockname()[1]}"
        self.url, self.home = f"http://{self.host}", home
        app = create(home, TOKEN, [self.host], "cpu")
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, each of a kind: digits, points of the plane, a GAN, a table of three columns, and two steps of
    the digits' sampler as a generator."""
    folder = tmp_path_factory.mktemp("explorer") / "runs"
    small = {"fit.batch": 16, "fit.tensorboard": False, "fit.sample_minutes": 1e6, "fit.log_every": 5}
    train(
        replace(preset("demo").config, {"fit.steps": 20, "fit.minutes": None, **small}), folder / "digits", device="cpu"
    )
    toy = replace(preset("toy").config, {"data.source": "moons", "fit.steps": 20, "fit.minutes": None, **small})
    train(toy, folder / "moons", device="cpu")
    train(
        replace(preset("gan", "moons").config, {"data.source": "moons", "fit.steps": 5, **small}),
        folder / "gan",
        device="cpu",
    )
    rows = folder.parent / "rows.csv"
    rows.write_text("a,b,c\n" + "\n".join(f"{k % 7},{k % 11},{(k * k) % 13 + 0.5 * k}" for k in range(300)))
    table = replace(
        preset("table").config, {"data.source": str(rows), "data.discrete": "keep", "fit.steps": 5, **small}
    )
    train(replace(table, {"fit.minutes": None}), folder / "table", device="cpu")
    quick = folder.parent / "quick.yaml"
    quick.write_text("fit: {batch: 4, tensorboard: false}")
    ask = f"distill {folder / 'digits'} --steps 2 --updates 1 --config {quick} --out {folder / 'few'}"
    assert main(ask.split()) == 0
    return folder


@pytest.fixture(scope="session")
def serve():
    return Server


@pytest.fixture(scope="session")
def server(serve, home: Path):
    running = serve(home)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def browser():
    """Chromium: Debian's, or the one that playwright has installed (`make test` fetches one where there is none)."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def module(browser: Browser, server: Server):
    """A page without content, of the server's origin: a place to call the page's modules from."""
    page = browser.new_page()
    page.goto(f"{server.url}/style.css")
    yield page
    page.close()


@pytest.fixture(scope="module")
def ask(module: Page):
    """What the body of an async function of `given` returns, which finds the page's modules as E, T and S."""

    def call(code: str, given: object = None):
        head = 'const E = await import("/equation.js"), T = await import("/toys.js"), S = await import("/simulate.js");'
        return module.evaluate(f"async (given) => {{ {head} {code} }}", given)

    return call


@pytest.fixture(scope="session")
def parked(browser: Browser) -> list[Page]:
    """Pages of earlier tests, each of a context of its own: to load another address takes half of what a new one takes."""
    return []


@pytest.fixture
def opened(browser: Browser, server: Server, parked: list[Page]):
    """Opens the page at an address (what follows #) and size, `on` a page of the same test where that is over; afterwards
    nothing may have gone wrong in it, and nothing may have been asked of anybody else."""
    pages: list[Page] = []
    wrong: list[str] = []
    heard = {
        "console": lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None,
        "pageerror": lambda e: wrong.append(str(e)),
        "request": lambda r: wrong.append(r.url) if not r.url.startswith((server.url, "data:", "blob:")) else None,
    }

    def new() -> Page:
        page = parked.pop() if parked else browser.new_context(accept_downloads=True).new_page()
        for event, listener in heard.items():
            page.on(event, listener)
        pages.append(page)
        return page

    def leave(page: Page) -> None:
        """Nothing moves on it any more, and nothing is remembered; of its own accord, so that its process stays."""
        page.evaluate("localStorage.clear(); sessionStorage.clear(); location.href = 'about:blank';")
        page.wait_for_url("about:blank")

    def open_(
        words: str = "", width: int = 1440, height: int = 900, token: bool = True, on: Page | None = None
    ) -> Page:
        if on:
            leave(on)
        page = on or new()
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"{server.url}/{f'?token={TOKEN}' if token else ''}#{words}")
        return page

    yield open_
    for page in pages:
        for event, listener in heard.items():
            page.remove_listener(event, listener)
        leave(page)
    parked.extend(pages)
    assert wrong == []
