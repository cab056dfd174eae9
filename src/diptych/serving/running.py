"""Runs the application: the socket, the signals, and an HTTP parser with bounds."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from diptych.errors import UsageError, reason
from diptych.options import ServeOptions
from diptych.serving.application import Application
from diptych.serving.logs import LibraryLog, Log

__all__ = ["serve"]

_MOST_HEAD = 2**16  # bytes of an address and headers
_SECONDS_FOR_HEAD = 10.0
_SECONDS_IDLE = 75
_SECONDS_STUCK = 60.0  # in which a client reads nothing of its answer
_SECONDS_TO_END = 60
_SWITCH = 0.001  # seconds; Python's 0.005 would let the thread that computes delay every answer


def serve(
    models: Sequence[str],
    options: ServeOptions,
    log: Log | None = None,
    started: Callable[[str], None] | None = None,
) -> bool:
    """Serves models until the process gets SIGTERM or SIGINT; what was begun is finished then.

    Args:
        models: Each a model's name or file, NAME=MODEL, or a folder of models; none for the classifier in the box.
        options: How the server works.
        log: Where requests are written.
        started: Called with the address, once requests are answered.

    Returns:
        Whether all has ended; False where a thread still does long work that nobody waits for.

    Raises:
        UsageError: The port is taken, or the options do not fit together.
        DiptychError: A model cannot be read or run.
    """
    log = log or Log()
    application = Application(models or ["scenes"], options, log)
    listening = _listening(options.host, options.port)
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        application.start()
        asyncio.run(_run(application, listening, options, started))
    finally:
        sys.setswitchinterval(before)
        listening.close()
        ended = application.close()
    return ended


async def _run(
    application: Application,
    listening: socket.socket,
    options: ServeOptions,
    started: Callable[[str], None] | None,
) -> None:
    server = _Server(_configuration(application))
    loop = asyncio.get_running_loop()
    for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        if signal.getsignal(number) is signal.SIG_IGN:  # as under nohup
            continue
        with contextlib.suppress(
            NotImplementedError, RuntimeError, ValueError
        ):  # Windows, or not the main thread
            loop.add_signal_handler(number, server.end)
    gc.collect()
    gc.freeze()  # what is loaded now stays; looking through it again would delay answers
    work = asyncio.create_task(server.serve([listening]))
    while not server.started and not work.done():
        await asyncio.sleep(0.005)
    address = _address(options.host, listening.getsockname()[1])
    models = [f"{each.name}/{each.version}" for each in application.repository.all()]
    application.log.write("info", "started", address=address, models=models)
    if server.started and started is not None:
        started(address)
    await work
    application.log.write("info", "ended")


def _configuration(application: Application) -> uvicorn.Config:
    config = uvicorn.Config(
        application,
        http=_Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_SECONDS_IDLE,
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    for name in ("uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [LibraryLog(application.log)], False
        logger.setLevel(logging.WARNING)
    return config


class _Server(uvicorn.Server):
    """uvicorn's server, whose signals are ours: it ends with what was begun, and then the command is done."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See `uvicorn.Server`."""
        yield

    def end(self) -> None:
        """Ends once what was begun is answered; asked for twice, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


class _Protocol(HttpToolsProtocol):
    """uvicorn's connection, with bounds on the bytes and the seconds of a request's head."""

    _head: int | None = None  # bytes of the head that is being received; None between heads
    _timer: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    _unsent = -1

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._wait(_SECONDS_IDLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._wait(None)
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called where a client does not read as fast as it is answered."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Called once most is sent."""
        self._stop_watching()
        super().resume_writing()

    def _watch(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent == self._unsent:
            self.transport.abort()
            return
        self._unsent = unsent
        self._sending = self.loop.call_later(_SECONDS_STUCK, self._watch)

    def _stop_watching(self) -> None:
        self._unsent = -1
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        before = self._head
        super().data_received(data)
        if before is not None and self._head is not None:
            self._head = before + len(data)
            if self._head > _MOST_HEAD:
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Called with the first byte of a request."""
        self._head = 0
        self._wait(_SECONDS_FOR_HEAD)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called once the head is complete."""
        self._head = None
        self._wait(None)
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP, as JSON."""
        self._refuse(
            "400 Bad Request",
            "this is no request of HTTP/1.1, or its address and headers are longer than 64 KiB",
        )

    def _late(self) -> None:
        if self._head is None:
            self.transport.close()
        else:
            self._refuse("408 Request Timeout", f"the headers did not arrive within {_SECONDS_FOR_HEAD:g} s")

    def _refuse(self, status: str, message: str) -> None:
        body = json.dumps({"error": message})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        self.transport.close()

    def _wait(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)


def _listening(host: str, port: int) -> socket.socket:
    """The socket, which is listening. Raises `UsageError` where that cannot be."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"there is no address {host!r} on this machine ({reason(error)}); choose another --host"
        ) from error
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"port {port} of {host} cannot be had ({reason(error)}); choose another with --port, or "
            "--port 0 for a free one"
        ) from error
    listening.setblocking(False)
    return listening


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
