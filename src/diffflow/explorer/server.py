"""What does `diffflow explore` serve? The page, and the runs below one folder.

    GET    /                        the page, its scripts and styles (static/)
    GET    /api/runs                the runs: name, kind, step, data, dials
    GET    /api/runs/NAME           one of them: settings, frontier, last lines of the log
    POST   /api/runs/NAME/samples   {n, class, seed, steps, churn, gan, guidance, frames, plans} -> a job
    GET    /api/jobs/ID             how far it is, and the samples when it is done
    DELETE /api/jobs/ID             stop it

Samples come as one PNG, a row for every moment of the way from noise and a column for every sample; vectors as numbers.
Everything that is wrong with a request has a status of 4xx and a message that names it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import diffflow as df
from diffflow import figures
from diffflow.sampling.sample import Step
from diffflow.training.run_folder import Folder

from .guard import App, Guard
from .jobs import Full, Job, Jobs

STATIC = Path(__file__).parent / "static"
MOST = {"images": 64, "rows": 1000, "steps": 1000, "frames": 24}
PIXELS = 1 << 24  # of all moments of all samples together
LOGGED = 400  # lines of a log that are shown


class Bad(ValueError):
    """A request that cannot be met."""


class Runs:
    """The runs directly below a folder, by name; the one that was asked for last stays loaded."""

    def __init__(self, home: Path, device: str | None = None):
        self.home, self.device = home, device
        self.last: tuple[str, float, df.Run] | None = None
        self.lock = threading.Lock()

    def names(self) -> list[str]:
        def holds(path: Path) -> bool:
            try:
                return not path.is_symlink() and (path / "run.json").is_file()
            except OSError:
                return False

        try:
            return sorted(path.name for path in self.home.iterdir() if holds(path))
        except OSError:
            return []

    def folder(self, name: str) -> Folder:
        """Raises HTTPException for a name that is not in the list: nothing else of the disk can be asked for."""
        if name not in self.names():
            raise HTTPException(404, f"there is no run {name!r} in {self.home.name}")
        return Folder(self.home / name)

    def load(self, name: str) -> df.Run:
        folder = self.folder(name)
        changed = max((p.stat().st_mtime for p in folder.checkpoints.glob("*")), default=0.0)
        with self.lock:
            if self.last is None or self.last[:2] != (name, changed):
                self.last = name, changed, df.load(folder.path, device=self.device)
            return self.last[2]

    def line(self, name: str) -> dict[str, Any]:
        """A run in a few words; `problem` where it cannot be read."""
        folder = Folder(self.home / name)
        try:
            about, config = folder.about(), folder.config()
            data = about["data"]
            return {
                "name": name, "kind": type(config).__name__.removesuffix("Config"), "data": data["name"],
                "shape": data["shape"], "classes": data["classes"], "image": len(data["shape"]) == 3,
                "dials": dataclasses.asdict(config.dials), "players": list(config.players()),
                "training": "finished" not in about, "frontier": (folder.path / "frontier.json").exists(),
            }  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            return {"name": name, "problem": str(error) or type(error).__name__}

    def log(self, name: str) -> list[Any]:
        """The lines of its log, at most so many, evenly spread, the last among them."""
        lines = [line for line in Folder(self.home / name).lines() if isinstance(line, dict)]
        every = max(1, math.ceil(len(lines) / LOGGED))
        return lines[::-1][::every][::-1]

    def frontier(self, name: str) -> Any:
        """What `diffflow frontier` has left, if it is readable."""
        try:
            found = json.loads((self.home / name / "frontier.json").read_bytes())
            return found if isinstance(found["points"], list) and found["points"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def finite(value: Any) -> Any:
    """A value of JSON whose numbers JSON knows: what is infinite or undefined becomes null."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(body: Mapping[str, Any], key: str, low: float, high: float, whole: bool, default: Any) -> Any:
    """A number of a request. Raises Bad, naming it, for anything else."""
    value = body.get(key)
    if value is None:  # left out, or null
        return default
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or (isinstance(value, float) and not math.isfinite(value)):
        raise Bad(f"{key} = {json.dumps(value)[:40]} is not a number")
    if whole and value != int(value):
        raise Bad(f"{key} = {value} is not a whole number")
    if not low <= value <= high:
        raise Bad(f"{key} = {str(value)[:40]} is not between {low:g} and {high:g}")
    return int(value) if whole else float(value)


ASKED = ("n", "class", "seed", "steps", "churn", "gan", "guidance", "frames", "plans")


@dataclasses.dataclass(frozen=True)
class Ask:
    """A request for samples, checked."""

    n: int
    label: int | None
    seed: int
    frames: int
    plans: bool
    dials: dict[str, Any]

    @classmethod
    def of(cls, body: Any, about: Mapping[str, Any]) -> Ask:
        """Of a run that is described by its line (Runs.line): nothing is loaded to refuse a request."""
        if not isinstance(body, dict):
            raise Bad("a request for samples is a JSON object")
        if unknown := sorted(body.keys() - set(ASKED)):
            raise Bad(f"{', '.join(unknown)[:80]}: a request for samples has only {', '.join(ASKED)}")
        if "problem" in about:
            raise Bad(about["problem"])
        classes = about["classes"] or ()
        label = number(body, "class", 0, len(classes) - 1, True, None) if classes else None
        if not classes and body.get("class") is not None:
            raise Bad("class was given, but this run was trained without classes")
        if not isinstance(body.get("plans", True), bool):
            raise Bad("plans is true or false")
        dials = {
            "steps": number(body, "steps", 1, MOST["steps"], True, None),
            "churn": number(body, "churn", 0, 100, False, None),
            "gan": number(body, "gan", 0, 100, False, None),
            "guidance": number(body, "guidance", -20, 20, False, None),
        }
        n = number(body, "n", 1, MOST["images" if about["image"] else "rows"], True, 16 if about["image"] else 300)
        frames = number(body, "frames", 1, MOST["frames"], True, 12)
        size = n * math.prod(about["shape"][-2:] if about["image"] else (2,))
        if 2 * size > PIXELS:
            raise Bad(f"n = {n} samples of this size are too much for one picture: ask for {PIXELS // (2 * size // n)}")
        return cls(
            n,
            label,
            number(body, "seed", 0, 2**31 - 1, True, 0),
            min(frames, PIXELS // size - 1),
            body.get("plans", True),
            {k: v for k, v in dials.items() if v is not None},
        )


def drawn(run: df.Run, ask: Ask, report: Callable[[int, int], None]) -> dict[str, Any]:
    """The samples, as the page shows them."""
    cond = None
    if run.classes:
        cond = torch.full((ask.n,), ask.label) if ask.label is not None else torch.arange(ask.n) % len(run.classes)
    if not run.config.classless and cond is None and run.classes:
        raise Bad("this run has classes only: choose one")
    steps = ask.dials.get("steps", run.dials.steps)

    def on_step(step: Step) -> None:
        report(step.index, step.total)

    report(0, steps)
    keep = None if "generator" in run.players else max(1, math.ceil(steps / ask.frames))
    noise = df.Noise(ask.seed)
    found = run.sample(ask.n, cond, noise=noise, keep=keep, on_step=on_step, plans=ask.plans, **ask.dials)
    states = [*found.kept]
    if not states or not torch.equal(states[-1][1], found.last):
        states.append((float(found.times[-1]), found.last))
    states = states[-(ask.frames + 1) :]
    told = {
        "n": ask.n, "times": [float(t) for t, _ in states], "evaluations": found.nfe,
        "labels": None if cond is None else cond.tolist(), "step": run.step,
    }  # fmt: skip
    cloud = torch.stack([x for _, x in states])  # (moments, n, *shape)
    if not cloud.isfinite().all():
        raise Bad("some of these samples are not finite numbers: take more steps, less churn, or less guidance")
    if len(run.shape) == 3:
        rows = cloud.reshape(-1, *run.shape)
        picture = figures.grid(rows.numpy(), columns=ask.n, gap=0, scale=1)
        return told | {"png": base64.b64encode(figures.png(picture)).decode(), "shape": list(run.shape)}
    points = cloud[..., :2].double().numpy()
    return told | {"points": [[[float(f"{v:.5g}") for v in x] for x in xs] for xs in points], "shape": list(run.shape)}


def explain(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    return JSONResponse({"error": str(error)}, 429 if isinstance(error, Full) else 400)


def create(home: Path, token: str, hosts: list[str], device: str | None = None, jobs: Jobs | None = None) -> App:
    """The server as an ASGI application, guarded. `hosts` are what its own address may be called."""
    runs, queue = Runs(home, device), jobs or Jobs()

    def every(request: Request) -> Response:
        lines = [runs.line(name) for name in runs.names()]
        return JSONResponse({"home": home.resolve().name, "path": str(home), "runs": finite(lines)})

    def one(request: Request) -> Response:
        name = runs.folder(request.path_params["name"]).path.name
        return JSONResponse(finite(runs.line(name) | {"log": runs.log(name), "swept": runs.frontier(name)}))

    async def ask(request: Request) -> Response:
        name = request.path_params["name"]
        folder = runs.folder(name)
        try:
            body = json.loads(await request.body() or b"{}")
        except (ValueError, RecursionError) as error:
            raise Bad("the request's body is not JSON") from error
        checked = Ask.of(body, await run_in_threadpool(runs.line, folder.path.name))
        return JSONResponse(queue.add(lambda report: drawn(runs.load(name), checked, report)).about(), 202)

    def find(request: Request) -> Job:
        job = queue.known.get(request.path_params["job"])
        if job is None:
            raise HTTPException(404, "there is no such request, or its samples are forgotten: ask again")
        return job

    def told(request: Request) -> Response:
        job = find(request)
        return JSONResponse(job.about() | ({"result": job.result} if job.state == "done" else {}))

    def stop(request: Request) -> Response:
        return JSONResponse(queue.stop(find(request).name).about())

    routes = [
        Route("/api/runs", every),
        Route("/api/runs/{name}", one),
        Route("/api/runs/{name}/samples", ask, methods=["POST"]),
        Route("/api/jobs/{job}", told, methods=["GET"]),
        Route("/api/jobs/{job}", stop, methods=["DELETE"]),
        Mount("/", StaticFiles(directory=STATIC, html=True)),
    ]
    handlers: Any = dict.fromkeys((HTTPException, ValueError, RuntimeError, OSError), explain)
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts, token)


def serve(home: Path, port: int, device: str | None, say: Callable[[str], None]) -> None:
    """Serve on 127.0.0.1 until interrupted. Raises OSError where the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)  # before anybody is told the address
    except OSError as error:
        raise OSError(
            f"port {port} is not to be had ({os.strerror(error.errno or 0)}): choose another, or --port 0 for any"
        ) from error
    port, token = listener.getsockname()[1], secrets.token_urlsafe(24)
    app = create(home, token, [f"127.0.0.1:{port}", f"localhost:{port}"], device)
    say(f"http://127.0.0.1:{port}/?token={token}")
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False)
    uvicorn.Server(config).run(sockets=[listener])
