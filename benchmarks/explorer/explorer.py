"""Explorer's frames a second measured in headless Chromium, whose drawing is done by the processor.

The static folder is served by itself; for each setting the page plays for --seconds, and what is counted is the frames
that the page has drawn (each a step of all particles), together with the time that a step takes in the worker.

    python benchmarks/explorer/explorer.py --out results/explorer.json
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import platform
import shutil
import sys
import threading
from importlib.metadata import version
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from diffflow import files
from diffflow.explorer.server import STATIC

SETTINGS = {
    "diffusion SDE, eight Gaussians (the first picture)": "",
    "Diffusion-GAN, eight Gaussians": "gan=1&churn=1",
    "Diffusion-GAN, two moons": "target=moons&gan=1&churn=1",
    "GAN, spirals": "target=spirals&family=static&churn=0",
    "split screen: ODE and SDE": "split=1&churn=0&b.churn=1",
    "Diffusion-GAN, checkerboard": "target=checkerboard&gan=1&churn=1",
}
COUNT = """async (seconds) => {
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    let frames = 0, last = explorer.step, begun = performance.now();
    while (performance.now() - begun < 1000 * seconds) {
        if (explorer.step !== last) { frames += 1; last = explorer.step; }
        await wait(2);
    }
    return frames / ((performance.now() - begun) / 1000);
}"""
STEP = """async (words) => {
    const { Simulation } = await import("/simulate.js"), { TOYS } = await import("/toys.js");
    const s = (await import("/state.js")).read(words), sides = s.b ? [s.a, s.b] : [s.a];
    const sims = sides.map((a) => new Simulation({ ...a, steps: 120 }, TOYS[s.target].make()));
    const begun = performance.now();
    let k = 0;
    while (sims.map((m) => m.step()).every(Boolean)) k += 1;
    return (performance.now() - begun) / k;
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", default="results/explorer.json")
    options = parser.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(STATIC)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    rows = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for name, words in SETTINGS.items():
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{url}#{words}&pace=60&steps=2000")
            page.wait_for_timeout(1500)
            rate = page.evaluate(COUNT, options.seconds)
            page.goto("about:blank")
            page.goto(f"{url}style.css")
            rows.append({"setting": name, "particles": 2000, "frames": rate, "step_ms": page.evaluate(STEP, words)})
            page.close()
        chromium = browser.version
        browser.close()
    table = Table("setting, 2000 particles a side", "frames/s", "ms a step", box=None, title="asked for: 60 a second")
    for row in rows:
        table.add_row(row["setting"], f"{row['frames']:.1f}", f"{row['step_ms']:.2f}")
    record = {
        "command": " ".join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), "diffflow": version("diffflow"), "chromium": chromium},
        "cores": os.cpu_count(),
        "window": [1440, 900],
        "rows": rows,
    }
    files.write_json(Path(options.out), record)
    Console().print(table)


if __name__ == "__main__":
    main()
