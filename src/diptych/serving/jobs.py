"""Long work: in a thread of its own, one after the other, with progress that can be watched and cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from diptych.progress import Progress
from diptych.serving.answers import Refusal, json_bytes, retry_after

__all__ = ["Job", "Jobs", "Result", "Work"]

_SECONDS_BETWEEN = 0.1  # two reports of progress
_SECONDS_TO_END = 5.0
_SECONDS_QUIET = 15.0  # after which a line is sent so that no proxy takes the connection for dead


@dataclass(frozen=True)
class Result:
    """What work has made.

    Attributes:
        content: A file's bytes.
        kind: Its media type.
        headers: Further headers of the response.
    """

    content: bytes
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(document: Any) -> Result:
        """A JSON document; numbers that JSON cannot hold become null."""
        return Result(json_bytes(document))


Work = Callable[[Progress], Result]


class Cancelled(Exception):
    """Raised in the thread of a job at its next report of progress."""


class Job:
    """A piece of long work.

    Attributes:
        id: By which it is cancelled; it cannot be guessed.
        done: Of `total`, as last reported.
        total: As `done`; 0 before the first report.
        what: What is being done, in words.
        future: Of the result.
    """

    def __init__(self, work: Work, seconds: float) -> None:
        self.id = secrets.token_urlsafe(12)
        self.done, self.total, self.what = 0, 0, "waiting"
        self.future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(
            lambda future: future.cancelled() or future.exception()
        )  # may be unwatched
        self._work, self._seconds, self._cancelled = work, seconds, threading.Event()

    def cancel(self) -> None:
        """Asks the work to stop; it does at its next report of progress."""
        self._cancelled.set()
        if not self.future.done() and not self.future.get_loop().is_closed():
            self.future.set_exception(Refusal(409, "the work was cancelled", reason="CANCELED"))

    def run(self) -> Result:
        """Does the work, in a thread."""
        until = monotonic() + self._seconds

        def progress(done: int, total: int, what: str) -> None:
            if self._cancelled.is_set():
                raise Cancelled
            if monotonic() > until:
                raise Refusal(
                    504, f"the work took longer than the {self._seconds:g} s that it may; give it less to do"
                )
            self.done, self.total, self.what = done, total, what

        progress(0, 0, "working")
        return self._work(progress)

    def report(self) -> dict[str, Any]:
        """The progress as a document."""
        return {"id": self.id, "done": self.done, "total": self.total, "what": self.what}


class Jobs:
    """The long work of a server.

    Args:
        most: How many pieces may wait, with the one that is done.
        seconds: The most that one may take.
    """

    def __init__(self, most: int = 16, seconds: float = 600.0) -> None:
        self._most, self._seconds = most, seconds
        self._executor = ThreadPoolExecutor(1, "work")
        self._jobs: dict[str, Job] = {}
        self._working = False

    def start(self, work: Work) -> Job:
        """Takes a piece of work. Raises `Refusal` where too many wait already."""
        if len(self._jobs) >= self._most:
            raise Refusal(
                503,
                f"{len(self._jobs)} pieces of long work wait already; try again",
                retry_after(5),
                "REJECTED",
            )
        job = Job(work, self._seconds)
        self._jobs[job.id] = job
        running = asyncio.get_running_loop().run_in_executor(self._executor, self._run, job)
        running.add_done_callback(lambda finished: self._finished(job, finished))
        return job

    def _run(self, job: Job) -> Result:
        self._working = True
        try:
            return job.run()
        finally:
            self._working = False

    def _finished(self, job: Job, running: asyncio.Future[Result]) -> None:
        self._jobs.pop(job.id, None)
        error = asyncio.CancelledError() if running.cancelled() else running.exception()
        if job.future.done():
            return
        if error is None:
            job.future.set_result(running.result())
        elif isinstance(error, Exception):
            job.future.set_exception(error)
        else:
            job.future.cancel()

    def find(self, identity: str) -> Job:
        """The job of an id. Raises `Refusal` where there is none, or it is done."""
        job = self._jobs.get(identity)
        if job is None:
            raise Refusal(404, "there is no such work, or it is done")
        return job

    def close(self) -> bool:
        """Cancels everything; returns whether all of it has ended, for which it waits a little."""
        for job in list(self._jobs.values()):
            job.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)
        until = monotonic() + _SECONDS_TO_END
        while self._working and monotonic() < until:
            sleep(0.01)
        return not self._working


async def watched(job: Job) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of a job: "started", "progress" as it changes, "" to keep a connection, until it is done."""
    yield "started", job.report()
    last, sent = job.report(), monotonic()
    while not job.future.done():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wait([job.future])), _SECONDS_BETWEEN)
        now = job.report()
        if now != last:
            last, sent = now, monotonic()
            yield "progress", now
        elif monotonic() - sent > _SECONDS_QUIET:
            sent = monotonic()
            yield "", {}
