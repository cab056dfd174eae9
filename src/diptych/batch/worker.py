"""The processes of a job: they read commands from standard input, and end when that is closed.

The messages are pickles, between processes that belong together. To a process that makes parts: first a `Task`, then
for each part its number, its pictures, those to leave out, and whether to tell of every picture.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import signal
import sys
import threading
from time import monotonic
from typing import IO, Any

__all__ = ["Channel"]

_SECONDS = 0.2  # between two reports


class Channel:
    """The connection to the process that has started this one."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the starter ends us
        self._replies = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what libraries print must not be taken for a reply
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._receive, args=(sys.stdin.buffer,), daemon=True).start()

    def _receive(self, commands: IO[bytes]) -> None:
        while True:
            try:
                self._received.put(pickle.load(commands))
            except (EOFError, OSError, pickle.UnpicklingError):
                os._exit(1)  # nobody is there any more; an unfinished file is removed by the next command

    def command(self) -> Any:
        """The next command, waited for."""
        return self._received.get()

    def reply(self, kind: str, said: object = None) -> None:
        """Sends a reply: "made" with a part, "done" with a number, or an exception's name with its message."""
        try:
            pickle.dump((kind, said), self._replies)
            self._replies.flush()
        except OSError:
            os._exit(1)


class _Reporter:
    """Tells how many pictures are done, every so often."""

    def __init__(self, channel: Channel, seconds: float) -> None:
        self._channel, self._seconds, self._next = channel, seconds, 0.0

    def __call__(self, done: int) -> None:
        if monotonic() >= self._next:
            self._next = monotonic() + self._seconds
            self._channel.reply("done", done)


class _WithoutPandas:
    """Keeps pyarrow from importing pandas, to recognise objects that do not occur here: it takes 0.15 s and 40 MB."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """See `importlib.abc.MetaPathFinder`."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not imported by the processes of a job", name=name)


def main() -> None:
    """Makes parts until the process that started this one ends."""
    sys.meta_path.insert(0, _WithoutPandas())
    channel = Channel()
    worker: Any = None
    task = channel.command()
    while True:
        number, inputs, fatal, careful = channel.command()
        try:
            if worker is None:
                from diptych.batch.shards import Worker

                worker = Worker(task)
                gc.freeze()  # what is loaded now stays: looking through it again costs a twentieth of the time
            channel.reply("begun")
            reporter = _Reporter(channel, 0.0 if careful else _SECONDS)
            channel.reply("made", worker.make(number, inputs, reporter, fatal))
        except Exception as error:
            channel.reply(type(error).__name__, str(error))


if __name__ == "__main__":
    main()
