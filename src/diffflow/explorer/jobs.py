"""Jobs: one thread works through a short queue, so that many requests share one network.

What waits can be given up, and what runs can be stopped between two steps.

    queued -> running -> done | failed | stopped
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

WAITING = 8  # jobs in the queue
KEPT = 24  # results that are remembered


class Full(RuntimeError):
    """Too many jobs wait."""


class Stopped(Exception):
    """Somebody does not want this job any more."""


@dataclass
class Job:
    """A piece of work, and how far it is.

    Args:
        work: `work(report)` gives the result, and calls report(done, total) between its steps.
        name: under which it is asked for.
        state: queued, running, done, failed or stopped.
        done: steps done.
        total: of how many.
        error: why it failed.
        result: what it gave.
        seconds: how long it took.
        unwanted: whether it is to be stopped.
    """

    work: Callable[[Callable[[int, int], None]], Any]
    name: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    state: str = "queued"
    done: int = 0
    total: int = 0
    error: str = ""
    result: Any = None
    seconds: float = 0.0
    unwanted: bool = False

    def about(self) -> dict[str, Any]:
        """State and progress, as the page reads them."""
        keys = ("state", "done", "total", "error", "seconds")
        return {"job": self.name} | {key: getattr(self, key) for key in keys}


class Jobs:
    """A queue with one worker, which starts with the first job.

    Args:
        waiting: most jobs in the queue.
        kept: results that are remembered.
    """

    def __init__(self, waiting: int = WAITING, kept: int = KEPT):
        self.waiting, self.kept = waiting, kept
        self.known: OrderedDict[str, Job] = OrderedDict()
        self.queue: list[Job] = []
        self.turn = threading.Condition()
        self.thread: threading.Thread | None = None

    def add(self, work: Callable[[Callable[[int, int], None]], Any]) -> Job:
        """Queue a piece of work. Raises Full where too many jobs wait."""
        with self.turn:
            if len(self.queue) >= self.waiting:
                raise Full(f"{len(self.queue)} requests for samples wait already: try again in a moment")
            job = Job(work)
            self.queue.append(job)
            self.known[job.name] = job
            ended = [k for k, j in self.known.items() if j.state not in ("queued", "running")]
            for name in ended[: max(0, len(self.known) - self.kept)]:
                del self.known[name]
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="samples", daemon=True)
                self.thread.start()
            self.turn.notify()
            return job

    def stop(self, name: str) -> Job:
        """Stop a job, or take it out of the queue. Raises KeyError for one that is not known."""
        with self.turn:
            job = self.known[name]
            job.unwanted = True
            if job in self.queue:
                self.queue.remove(job)
                job.state = "stopped"
            return job

    def _run(self) -> None:
        while True:
            with self.turn:
                while not self.queue:
                    self.turn.wait()
                job = self.queue.pop(0)
                job.state = "running"
            begun = time.monotonic()

            def report(done: int, total: int, job: Job = job) -> None:
                job.done, job.total = done, total
                if job.unwanted:
                    raise Stopped

            try:
                job.result = job.work(report)
                end = "done"
            except Stopped:
                end = "stopped"
            except Exception as error:  # a worker that ends would leave everybody waiting
                job.error, end = str(error) or type(error).__name__, "failed"
            job.seconds = time.monotonic() - begun
            job.state = end
