"""Parts computed by processes on this machine, which end with the process that started them."""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych import errors
from diptych.batch.inputs import Input
from diptych.batch.shards import Made, Task, Worker, part_name
from diptych.engines.batches import processors
from diptych.errors import DiptychError, OutputError

__all__ = ["ended", "error_of", "made_locally", "started"]

Told = Callable[[int, int], object]
"""Called with the number of a part, and how many of its pictures are done."""

_MOST_DEATHS = 30  # of processes over one part
_MOST_STARTS = 3  # of processes in a row that end before they begin
_SUSPICIOUS = 3  # deaths in a row over the same picture
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}


def made_locally(
    task: Task, shards: Iterable[tuple[int, tuple[Input, ...]]], workers: int | None, told: Told
) -> Iterator[Made]:
    """Makes parts, several side by side.

    Args:
        task: What all parts share.
        shards: The numbers of the parts, and their pictures.
        workers: How many processes; by default one for each processor. A single part is made in this process.
        told: Called after every few pictures, from any thread.

    Yields:
        The parts as they are finished.

    Raises:
        OutputError: A part cannot be written.
        ImageError: Its pictures end every process that reads them.
    """
    left = list(shards)
    count = min(workers or processors(), len(left))
    if count <= 1:
        worker = Worker(task) if left else None
        for number, inputs in left:
            assert worker is not None
            yield worker.make(number, inputs, lambda done, number=number: told(number, done))  # type: ignore[misc]
        return
    waiting: queue.SimpleQueue[_Shard] = queue.SimpleQueue()
    for number, inputs in left:
        waiting.put(_Shard(number, inputs))
    finished: queue.SimpleQueue[Made | BaseException] = queue.SimpleQueue()
    lines = [_Line(task, waiting, finished, told) for _ in range(count)]
    try:
        for line in lines:
            line.start()
        for _ in left:
            result = finished.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        for line in lines:
            line.stop()


@dataclass
class _Shard:
    """A part that is to be made, and what was learned when processes died over it."""

    number: int
    inputs: tuple[Input, ...]
    deaths: int = 0
    suspects: list[int] = field(default_factory=list)
    fatal: set[int] = field(default_factory=set)
    reached: int | None = None  # how many pictures were done when the process last told


class _Line(threading.Thread):
    """A process that makes parts, with the thread that feeds it and replaces it when it dies."""

    def __init__(
        self,
        task: Task,
        waiting: queue.SimpleQueue[_Shard],
        finished: queue.SimpleQueue[Made | BaseException],
        told: Told,
    ) -> None:
        super().__init__(daemon=True)
        self._task, self._waiting, self._finished, self._told = task, waiting, finished, told
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._failed_starts = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        """Makes parts until none are waiting."""
        while not self._stopped:
            try:
                shard = self._waiting.get_nowait()
            except queue.Empty:
                break
            try:
                made = self._make(shard)
            except BaseException as error:
                self._finished.put(error)
                return
            if made is not None:
                self._finished.put(made)
        self.stop(wait=False)

    def stop(self, wait: bool = True) -> None:
        """Ends the process: at once where it is at work."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is None:
            return
        if wait:
            ended(process)
        elif process.stdin is not None:
            process.stdin.close()  # it ends when it sees this

    def _make(self, shard: _Shard) -> Made | None:
        while not self._stopped:
            try:
                return self._asked(shard)
            except (EOFError, OSError, pickle.UnpicklingError):
                self._process_died(shard)
        return None

    def _asked(self, shard: _Shard) -> Made:
        """Has the process make the part; raises `EOFError` or `OSError` where it dies."""
        process = self._alive()
        assert process.stdin is not None
        assert process.stdout is not None
        shard.reached = None
        command = (shard.number, shard.inputs, frozenset(shard.fatal), shard.deaths > 0)
        pickle.dump(command, process.stdin)
        process.stdin.flush()
        while True:
            kind, said = pickle.load(process.stdout)  # from our own process
            if kind == "begun":
                shard.reached, self._failed_starts = 0, 0
            elif kind == "done":
                shard.reached = said
                self._told(shard.number, said)
            elif kind == "made":
                made: Made = said
                return made
            else:
                raise error_of(kind, said)

    def _alive(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise EOFError
            if self._process is not None and self._process.poll() is None:
                return self._process
            self._process = started("diptych.batch.worker")
            process = self._process
        assert process.stdin is not None
        pickle.dump(self._task, process.stdin)
        process.stdin.flush()
        return process

    def _process_died(self, shard: _Shard) -> None:
        """Prepares another attempt, in which the picture that ends the process is found, and then left out."""
        process = self._process
        if self._stopped or process is None:
            return
        status = ended(process)
        shard.deaths += 1
        if shard.reached is None:
            self._failed_starts += 1
        elif shard.deaths > 1:  # from the second attempt on, it tells of every picture
            shard.suspects.append(shard.reached)
            if shard.suspects[-_SUSPICIOUS:] == [shard.reached] * _SUSPICIOUS:
                shard.fatal.add(shard.reached)
        if self._failed_starts >= _MOST_STARTS:
            raise OutputError(
                f"the processes that should make {part_name(shard.number)} end before they begin ({_by(status)}): "
                "see why with DIPTYCH_DEBUG=1, or take --workers 1"
            )
        if shard.deaths > _MOST_DEATHS:
            first, last = shard.inputs[0].name, shard.inputs[-1].name
            raise OutputError(
                f"{part_name(shard.number)} cannot be made: the processes for the pictures {first} to {last} ended "
                f"{shard.deaths} times ({_by(status)}); take fewer --workers, or leave these pictures out"
            )


def started(module: str) -> subprocess.Popen[bytes]:
    """Starts a module as a process that can be written to and read from; see `worker.Channel`."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("DIPTYCH_DEBUG", "") not in {"", "0"} else subprocess.DEVNULL,
        env=_environment(),
    )


def ended(process: subprocess.Popen[bytes]) -> int:
    """Ends a process at once; returns its exit status."""
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # what was not sent yet has nobody to read it
                stream.close()
    return process.wait()


def _environment() -> dict[str, str]:
    """That of a process: it imports what this one can import, and computes on one thread."""
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join([here, *(place for place in sys.path if place)])
    return {**os.environ, "PYTHONPATH": path, **_SETTINGS}


def _by(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def error_of(kind: str, message: str) -> Exception:
    """The exception that a process has reported."""
    found: Any = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, DiptychError):
        error: Exception = found.__new__(found, message)
        error.args = (message,)
        return error
    return MemoryError(message) if kind == "MemoryError" else RuntimeError(f"{kind}: {message}")
