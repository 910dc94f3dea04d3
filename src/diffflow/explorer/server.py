"""Server of `diffflow explore`: the page, and an interface to the runs below one folder.

    GET    /                        the page, its scripts and styles (static/)
    GET    /api/runs                the runs: name, kind, data, dials, whether one is training
    GET    /api/runs/NAME           one of them: settings, frontier, last lines of the log
    POST   /api/runs/NAME/samples   {n, class, seed, steps, churn, gan, guidance, frames, plans} -> a job
    GET    /api/jobs/ID             how far it is, and the samples when it is done
    DELETE /api/jobs/ID             stop it

Samples come as one PNG, a row for every moment of the way from noise and a column for every sample; vectors as numbers.
Everything that is wrong with a request has a status of 4xx and a message that names it. Listing runs imports nothing
that their files name.
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
from diffflow.data import tiles
from diffflow.runs.load import open_run
from diffflow.sampling.sample import Step
from diffflow.training import lock
from diffflow.training.run_folder import Folder

from .guard import App, Guard
from .jobs import Full, Job, Jobs

STATIC = Path(__file__).parent / "static"
MOST = {"images": 64, "rows": 1000, "steps": 1000, "frames": 24}
PIXELS = 1 << 24  # of all moments of all samples together
LOGGED = 400  # lines of a log that are shown


class BadRequest(ValueError):
    """A request that cannot be met."""


class Runs:
    """The runs directly below a folder, by name; the one that was asked for last stays loaded.

    Args:
        home: the folder.
        device: where samples are computed; default: the best there is.
    """

    def __init__(self, home: Path, device: str | None = None):
        self.home, self.device = home, device
        self.last: tuple[str, float, df.Run] | None = None
        self.lock = threading.Lock()

    def names(self) -> list[str]:
        """The folders that hold a run; a link is none."""

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
        """The directory of a run.

        Raises:
            HTTPException: a name that is not in the list: nothing else of the disk can be asked for.
        """
        if name not in self.names():
            raise HTTPException(404, f"there is no run {name!r} in {self.home.name}")
        return Folder(self.home / name)

    def load(self, name: str) -> df.Run:
        """The run itself, read again where it has a new checkpoint."""
        folder = self.folder(name)
        changed = max((p.stat().st_mtime for p in folder.checkpoints.glob("*")), default=0.0)
        with self.lock:
            if self.last is None or self.last[:2] != (name, changed):
                self.last = name, changed, open_run(folder.path, device=self.device)
            return self.last[2]

    def line(self, name: str) -> dict[str, Any]:
        """A run in a few words; `problem` where it cannot be read."""
        folder = Folder(self.home / name)
        try:
            about, config = folder.about(), folder.config()
            data = about["data"]
            shape = data.get("data_shape", data["shape"])
            return {
                "name": name, "kind": type(config).__name__.removesuffix("Config"), "data": data["name"],
                "shape": shape, "classes": data["classes"], "image": tiles.can_draw(shape),
                "dials": dataclasses.asdict(config.dials), "players": list(config.players()),
                "training": lock.holder(folder.path) is not None, "frontier": (folder.path / "frontier.json").exists(),
            }  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            return {"name": name, "problem": str(error) or type(error).__name__}

    def log(self, name: str) -> list[Any]:
        """The lines of its log, at most LOGGED, evenly spread, the last among them."""
        lines = [line for line in Folder(self.home / name).lines() if isinstance(line, dict)]
        stride = max(1, math.ceil(len(lines) / LOGGED))
        return lines[::-1][::stride][::-1]

    def frontier(self, name: str) -> Any:
        """What `diffflow frontier` has left, if it is readable."""
        try:
            content = json.loads((self.home / name / "frontier.json").read_bytes())
            return content if isinstance(content["points"], list) and content["points"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def finite(value: Any) -> Any:
    """The value with numbers that JSON knows: what is infinite or undefined becomes null."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(body: Mapping[str, Any], key: str, low: float, high: float, integer: bool, default: Any) -> Any:
    """A number of a request, or the default where it is left out. Raises BadRequest, naming it, for anything else."""
    value = body.get(key)
    if value is None:  # left out, or null
        return default
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and not math.isfinite(value)):
        raise BadRequest(f"{key} = {json.dumps(value)[:40]} is not a number")
    if integer and value != int(value):
        raise BadRequest(f"{key} = {value} is not a whole number")
    if not low <= value <= high:
        raise BadRequest(f"{key} = {str(value)[:40]} is not between {low:g} and {high:g}")
    return int(value) if integer else float(value)


KEYS = ("n", "class", "seed", "steps", "churn", "gan", "guidance", "frames", "plans")


@dataclasses.dataclass(frozen=True)
class SampleRequest:
    """A request for samples, checked.

    Args:
        n: how many.
        label: class index; None: every class in turn.
        seed: of their noise.
        frames: moments of the way that are shown.
        plans: whether a calibrated plan may be used.
        dials: steps, churn, gan and guidance, where they are given.
    """

    n: int
    label: int | None
    seed: int
    frames: int
    plans: bool
    dials: dict[str, Any]

    @classmethod
    def of(cls, body: Any, about: Mapping[str, Any]) -> SampleRequest:
        """A request to a run that is described by its line (`Runs.line`): nothing is loaded to refuse one.

        Raises:
            BadRequest: what is wrong with it.
        """
        if not isinstance(body, dict):
            raise BadRequest("a request for samples is a JSON object")
        if unknown := sorted(body.keys() - set(KEYS)):
            raise BadRequest(f"{', '.join(unknown)[:80]}: a request for samples has only {', '.join(KEYS)}")
        if "problem" in about:
            raise BadRequest(about["problem"])
        classes = about["classes"] or ()
        label = number(body, "class", 0, len(classes) - 1, True, None) if classes else None
        if not classes and body.get("class") is not None:
            raise BadRequest("class was given, but this run was trained without classes")
        if not isinstance(body.get("plans", True), bool):
            raise BadRequest("plans is true or false")
        dials = {
            "steps": number(body, "steps", 1, MOST["steps"], True, None),
            "churn": number(body, "churn", 0, 100, False, None),
            "gan": number(body, "gan", 0, 100, False, None),
            "guidance": number(body, "guidance", -20, 20, False, None),
        }
        n = number(body, "n", 1, MOST["images" if about["image"] else "rows"], True, 16 if about["image"] else 300)
        frames = number(body, "frames", 1, MOST["frames"], True, 12)
        size = n * math.prod(tiles.size(about["shape"]) if about["image"] else (2,))
        if 2 * size > PIXELS:
            raise BadRequest(
                f"n = {n} samples of this size are too much for one picture: ask for {PIXELS // (2 * size // n)}"
            )
        return cls(
            n,
            label,
            number(body, "seed", 0, 2**31 - 1, True, 0),
            min(frames, PIXELS // size - 1),
            body.get("plans", True),
            {k: v for k, v in dials.items() if v is not None},
        )


def draw_frames(run: df.Run, ask: SampleRequest, report: Callable[[int, int], None]) -> dict[str, Any]:
    """The samples and their way from noise, as the page shows them.

    Args:
        run: whose samples.
        ask: how they are drawn.
        report: called with (steps done, of how many).

    Raises:
        BadRequest: a class that is missing, or samples that are not finite.
    """
    cond = run.example_conditions(ask.n)
    if run.classes and ask.label is not None:
        cond = torch.full((ask.n,), ask.label)
    steps = ask.dials.get("steps", run.dials.steps)

    def on_step(step: Step) -> None:
        report(step.index, step.total)

    report(0, steps)
    keep = None if "generator" in run.players else max(1, math.ceil(steps / ask.frames))
    noise = df.Noise(ask.seed)
    path = run.sample(ask.n, cond, noise=noise, keep=keep, on_step=on_step, plans=ask.plans, **ask.dials)
    states = [*path.kept]
    if not states or not torch.equal(states[-1][1], path.last):
        states.append((float(path.times[-1]), path.last))
    states = states[-(ask.frames + 1) :]
    answer = {
        "n": ask.n, "times": [float(t) for t, _ in states], "evaluations": path.nfe,
        "labels": cond.tolist() if run.classes and isinstance(cond, torch.Tensor) else None, "step": run.step,
    }  # fmt: skip
    cloud = torch.stack([x for _, x in states])  # (moments, n, *shape)
    if not cloud.isfinite().all():
        raise BadRequest("some of these samples are not finite numbers: take more steps, less churn, or less guidance")
    if tiles.can_draw(run.shape):
        rows = tiles.tiles(cloud.reshape(-1, *run.shape), like=cloud[-1])
        picture = figures.grid(rows, columns=ask.n, gap=0, scale=1)
        return answer | {"png": base64.b64encode(figures.png(picture)).decode(), "shape": list(rows.shape[1:])}
    points = cloud[..., :2].double().numpy()
    return answer | {
        "points": [[[float(f"{v:.5g}") for v in x] for x in xs] for xs in points],
        "shape": list(run.shape),
    }


def error_response(request: Request, error: Exception) -> Response:
    """What is wrong, as JSON with a status of 4xx."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    return JSONResponse({"error": str(error)}, 429 if isinstance(error, Full) else 400)


def create(home: Path, token: str, hosts: list[str], device: str | None = None, jobs: Jobs | None = None) -> App:
    """The server as an ASGI application, guarded.

    Args:
        home: the folder of runs.
        token: what requests below /api/ must carry.
        hosts: what its own address may be called.
        device: where samples are computed; default: the best there is.
        jobs: the queue; default: a new one.
    """
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
            raise BadRequest("the request's body is not JSON") from error
        checked = SampleRequest.of(body, await run_in_threadpool(runs.line, folder.path.name))
        return JSONResponse(queue.add(lambda report: draw_frames(runs.load(name), checked, report)).about(), 202)

    def find(request: Request) -> Job:
        job = queue.known.get(request.path_params["job"])
        if job is None:
            raise HTTPException(404, "there is no such request, or its samples are forgotten: ask again")
        return job

    def progress(request: Request) -> Response:
        job = find(request)
        return JSONResponse(job.about() | ({"result": job.result} if job.state == "done" else {}))

    def stop(request: Request) -> Response:
        return JSONResponse(queue.stop(find(request).name).about())

    routes = [
        Route("/api/runs", every),
        Route("/api/runs/{name}", one),
        Route("/api/runs/{name}/samples", ask, methods=["POST"]),
        Route("/api/jobs/{job}", progress, methods=["GET"]),
        Route("/api/jobs/{job}", stop, methods=["DELETE"]),
        Mount("/", StaticFiles(directory=STATIC, html=True)),
    ]
    handlers: Any = dict.fromkeys((HTTPException, ValueError, RuntimeError, OSError), error_response)
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts, token)


def serve(home: Path, port: int, device: str | None, say: Callable[[str], None]) -> None:
    """Serve on 127.0.0.1 until interrupted.

    Args:
        home: the folder of runs.
        port: the port; 0: any that is free.
        device: where samples are computed; default: the best there is.
        say: called with the page's address.

    Raises:
        OSError: the port is taken.
    """
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
