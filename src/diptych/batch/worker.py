"""The process that makes parts: it reads commands from standard input, and ends when that is closed.

The messages are pickles, between processes that belong together: first a `Task`, then for each part its number, its
pictures, those to leave out, and whether to tell of every picture.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from time import monotonic
from typing import IO, Any

_SECONDS = 0.2  # between two reports


def main() -> None:
    """Makes parts until standard input ends, which is when the process that started this one has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the starter ends us
    commands, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not be taken for a reply
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(commands, received), daemon=True).start()
    worker: Any = None
    task = received.get()
    while True:
        number, inputs, fatal, careful = received.get()
        try:
            if worker is None:
                from diptych.batch.shards import Worker

                worker = Worker(task)
            _reply(replies, "begun", None)
            made = worker.make(number, inputs, _Reporter(replies, 0.0 if careful else _SECONDS), fatal)
            _reply(replies, "made", made)
        except Exception as error:
            _reply(replies, type(error).__name__, str(error))


def _receive(commands: IO[bytes], received: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            received.put(pickle.load(commands))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(1)  # nobody is there any more; an unfinished file is removed by the next command


class _Reporter:
    """Tells how many pictures are done, every so often."""

    def __init__(self, replies: IO[bytes], seconds: float) -> None:
        self._replies, self._seconds, self._next = replies, seconds, 0.0

    def __call__(self, done: int) -> None:
        if monotonic() >= self._next:
            self._next = monotonic() + self._seconds
            _reply(self._replies, "done", done)


def _reply(replies: IO[bytes], kind: str, said: object) -> None:
    try:
        pickle.dump((kind, said), replies)
        replies.flush()
    except OSError:
        os._exit(1)


if __name__ == "__main__":
    main()
