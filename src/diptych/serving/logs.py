"""The log: one JSON object a line on standard error."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from diptych.serving.answers import json_bytes

__all__ = ["Log"]


class Log:
    """Writes what happens.

    Args:
        stream: Where to; by default standard error.
        requests: Whether all requests are written, and that it starts and ends, or only faults.
    """

    def __init__(self, stream: TextIO | None = None, *, requests: bool = True) -> None:
        self._stream, self.requests = stream or sys.stderr, requests

    def write(self, level: str, event: str, **facts: Any) -> None:
        """Writes a line.

        Args:
            level: "info", "warning" or "error".
            event: What happened, in words that stay the same.
            **facts: More about it; None is left out.
        """
        if level == "info" and not self.requests:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "event": event,
            **{name: value for name, value in facts.items() if value is not None},
        }
        with contextlib.suppress(OSError, ValueError):  # a log that cannot be written stops no answer
            self._stream.write(json_bytes(line).decode() + "\n")

    def fault(self, event: str, error: BaseException, **facts: Any) -> None:
        """Writes an error that is a fault of the server, with its traceback."""
        text = "".join(traceback.format_exception(error))
        self.write("error", event, error=type(error).__name__, traceback=text, **facts)


class LibraryLog(logging.Handler):
    """Brings what uvicorn logs into the log, from warnings on.

    Args:
        log: The log.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage()
        if error is not None:
            self._log.fault(text, error)
        else:
            self._log.write(record.levelname.lower(), text)
