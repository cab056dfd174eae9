"""A server as a user starts it: a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'web' is not installed")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of an answer that is an error, which has nothing else."""
        (message,) = self.json.values()
        assert self.headers["content-type"] == "application/json"
        assert "\n" not in message
        assert message
        return message


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    log: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Sends a request; a document becomes JSON, and `Content_Type=...` a header."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def infer(self, model: str, *inputs: Any, **more: Any) -> Answer:
        return self.ask("POST", f"/v2/models/{model}/infer", {"inputs": list(inputs), **more})

    def logged(self, **facts: Any) -> list[dict[str, Any]]:
        """The lines of the log with these facts, each line a JSON object; waited for, as they come after the answer."""
        until = time.monotonic() + 5
        while True:
            lines = [json.loads(line) for line in self.log]
            found = [line for line in lines if facts.items() <= line.items()]
            if found or time.monotonic() > until:
                return found
            time.sleep(0.01)

    def faults(self) -> list[str]:
        """The lines of the log about errors that nobody expected."""
        return [line for line in self.log if '"fault"' in line or "traceback" in line]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def serving(*arguments: object, folder: Path | None = None, **environment: str) -> Iterator[Server]:
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-m", "diptych", "serve"]
    with subprocess.Popen(
        [*command, "--port", "0", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline()
        assert said.startswith("serving at http://"), process.stderr.read()
        server = Server(process, int(said.strip().rpartition(":")[2]))
        reading = threading.Thread(target=lambda: server.log.extend(process.stderr))
        reading.start()
        try:
            yield server
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(30)
            reading.join(10)
