"""The server as an ASGI application: the guard, /v2, /api, /metrics and the page."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

from diptych.engines.batches import processors
from diptych.errors import UsageError
from diptych.options import ServeOptions
from diptych.serving.answers import Answer, Paths, Refusal, refusal_of
from diptych.serving.api import make_api
from diptych.serving.asgi import Message, Receive, Scope, Send
from diptych.serving.guard import Guard
from diptych.serving.jobs import Jobs
from diptych.serving.limits import Room
from diptych.serving.logs import Log
from diptych.serving.protocol import Protocol, largest_item, reading_threads
from diptych.serving.repository import Repository, named_sources
from diptych.serving.site import Site
from diptych.serving.statistics import exposition

__all__ = ["Application"]

_EXPOSITION = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_PLAIN_HEADERS = ((b"x-content-type-options", b"nosniff"),)
_BODIES_AT_ONCE = 8  # as many of the largest bodies may be held


class Application:
    """Answers every request. `start` loads the models first.

    Args:
        models: Each a model's name or file, NAME=MODEL, or a folder of models.
        options: How the server works.
        log: Where requests are written.

    Raises:
        UsageError: The options or names do not fit together.
    """

    def __init__(self, models: Sequence[str], options: ServeOptions, log: Log) -> None:
        sources, folders = named_sources(models)
        if (options.reading.given() or options.preprocessing) and (folders or len(sources) != 1):
            raise UsageError("how to read a model, and its recipe, are for one model that is named: name one")
        places = [
            Path(str(place)).parent for source in sources.values() for place in source.versions.values()
        ]
        self.guard = Guard(options)
        self.options, self.log = options, log
        self.paths = Paths([*folders, *places])
        self._computing = ThreadPoolExecutor(processors(), "compute")
        self.reading = ThreadPoolExecutor(reading_threads(), "read")
        self.repository = Repository(options, self._computing, sources, folders, self.paths, log)
        self.room = Room(_BODIES_AT_ONCE * options.max_bytes + 2 * largest_item(options))
        self.protocol = Protocol(self.repository, options, self.room, self.reading, self.paths)
        self.site = Site(self._for_the_page)
        self._statuses: Counter[int] = Counter()
        self.jobs = Jobs()
        self._api = make_api(self)

    def start(self) -> None:
        """Loads the models. Raises the error of one that was named and cannot be run."""
        self.repository.start()
        self.protocol.ready = True

    def close(self) -> bool:
        """Ends the threads; returns whether no long work is left, which cannot be stopped between its steps."""
        self._computing.shutdown(wait=False, cancel_futures=True)
        self.reading.shutdown(wait=False, cancel_futures=True)
        return self.jobs.close()

    def _for_the_page(self) -> dict[str, Any]:
        """What the page can ask the server for, which is nothing where that needs a token: the page has none."""
        if self.options.token is not None:
            return {"models": [], "uploads": False}
        models = sorted({each.name for each in self.repository.all() if each.takes_pictures})
        return {"models": models, "uploads": self.options.allow_uploads}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return
        began, method, path = perf_counter(), scope["method"], scope["path"]
        if path == "/openapi.json":
            path = scope["path"] = "/api/openapi.json"
        headers = dict(scope["headers"])
        error: str | None = None
        try:
            early = self.guard.check(method, path, headers)
            if early is None and (path == "/api" or path.startswith("/api/")):
                status = await self._delegate(scope, receive, send, headers)
                self._note(scope, status, began, None)
                return
            answer = early or await self._answer(method, path, headers, receive)
        except Exception as raised:
            refusal = self._refusal(raised, method, path)
            answer, error = refusal.answer(), refusal.message
        await self._send(send, answer, method, headers)
        self._note(scope, answer.status, began, error)

    async def _answer(self, method: str, path: str, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        if path.startswith("/v2"):
            return await self.protocol(method, path, headers, receive)
        if path == "/metrics":
            models = [(each.name, each.version, each.statistics) for each in self.repository.all()]
            return Answer(200, exposition(models, self._statuses).encode(), (_EXPOSITION,))
        # In a thread, because what Python makes for the site takes a second when it is first asked for.
        return await asyncio.to_thread(self.site.answer, method, path, headers.get(b"if-none-match"))

    async def _delegate(self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]) -> int:
        """Lets the routes under /api answer; returns the status."""
        status, more = 0, [*_PLAIN_HEADERS, *self.guard.headers(headers.get(b"origin"))]

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            await self._api(scope, receive, sending)
        except Exception:
            if not status:  # else its own handler has answered, and noted it
                raise
        return status

    def _refusal(self, error: Exception, method: str, path: str) -> Refusal:
        known = refusal_of(error, self.paths)
        if known is not None:
            return known
        if isinstance(error, TimeoutError):
            return Refusal(
                504,
                f"the request was not answered within the {self.options.timeout:g} s that this server allows",
            )
        return self.fault(error, method, path)

    def fault(self, error: Exception, method: str, path: str) -> Refusal:
        """Logs an error that nobody expected, and returns what the client is told."""
        self.log.fault("fault", error, method=method, path=path[:500])
        return Refusal(
            500, "this is a fault of the server, and its log says more; please tell whoever runs it"
        )

    async def _send(self, send: Send, answer: Answer, method: str, headers: dict[bytes, bytes]) -> None:
        more = self.guard.headers(headers.get(b"origin"))
        length = (b"content-length", str(len(answer.body)).encode())
        start: Message = {
            "type": "http.response.start",
            "status": answer.status if answer.status != 499 else 400,
            "headers": [*answer.headers, *_PLAIN_HEADERS, *more, length],
        }
        await send(start)
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})

    def _note(self, scope: Scope, status: int, began: float, error: str | None) -> None:
        self._statuses[status] += 1
        if self.log.requests or status >= 500:
            self.log.write(
                "info" if status < 400 else "warning" if status < 500 else "error",
                "request",
                method=scope["method"],
                path=scope["path"][:500],
                client=(scope.get("client") or (None,))[0],
                status=status,
                seconds=round(perf_counter() - began, 6),
                error=error,
            )
