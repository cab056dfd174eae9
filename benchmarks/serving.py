"""Measures `diptych serve`: requests a second, p50 and p99, memory over minutes, and hostile uploads.

The server is a process of its own, and so is the client, which holds some connections and sends the next request on
each as soon as it has the answer to the last. Without --cores both share every core of the machine; with --cores the
server gets the cores of the list, and the client the others.

    python benchmarks/serving.py                            # 10 seconds of each form of request
    python benchmarks/serving.py --minutes 10               # memory under load
    python benchmarks/serving.py --hostile 5000             # damaged and wrong bodies: no 5xx, no crash

Memory grows once with hostile uploads, by PyTorch, which reads .pt files.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import diptych
from diptych.images.generation import generate

CONNECTIONS = 8
PROMPT = "a lighthouse on a rocky coast at sunset"


class Connection(asyncio.Protocol):
    """Sends the same request again and again, and notes how long each answer took."""

    def __init__(
        self, request: bytes, until: float, seconds: list[float], done: asyncio.Future[None]
    ) -> None:
        self.request, self.until, self.seconds, self.done = request, until, seconds, done
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Sends the request once more."""
        self.began = time.perf_counter()
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
            return
        now = time.perf_counter()
        assert head.startswith(b"HTTP/1.1 200"), self.received
        self.seconds.append(now - self.began)
        self.received = b""
        if now < self.until:
            self.send()
        else:
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)


async def load(port: int, request: bytes, seconds: float, connections: int) -> list[float]:
    """The seconds that each request took."""
    loop = asyncio.get_running_loop()
    until, taken = time.perf_counter() + seconds, list[float]()
    waiting = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(
            lambda done=done: Connection(request, until, taken, done), "127.0.0.1", port
        )
        waiting.append(done)
    await asyncio.gather(*waiting)
    return taken


def http(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def requests_by_form() -> dict[str, bytes]:
    """One picture as each form of request for `scenes`."""
    (picture,) = generate(PROMPT, count=1)
    stream = io.BytesIO()
    Image.fromarray(picture).resize((256, 256)).save(stream, "JPEG")
    x = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    path = "/v2/models/scenes/infer"
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32]}
    text = json.dumps({"inputs": [{**tensor, "data": [round(v, 6) for v in x.ravel().tolist()]}]}).encode()
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": x.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    binary = {"Inference-Header-Content-Length": str(len(head))}
    return {
        "binary tensor": http(path, head + x.tobytes(), binary),
        "JSON": http(path, text, {}),
        "JPEG, 256 x 256": http(path, stream.getvalue(), {"Inference-Header-Content-Length": "0"}),
    }


@contextlib.contextmanager
def server(cores: list[int] | None, options: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server of `scenes`, and its port."""
    command = [sys.executable, "-m", "diptych", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().strip().rpartition(":")[2])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, "the server did not end well"


def resident(pid: int) -> float:
    """Megabytes that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(name: str, port: int, request: bytes, seconds: float, connections: int) -> None:
    asyncio.run(load(port, request, 1.0, connections))
    cpu = time.process_time()
    taken = np.sort(asyncio.run(load(port, request, seconds, connections)))
    cpu = time.process_time() - cpu
    print(
        f"{name:16} {len(taken) / seconds:7,.0f} requests/s   p50 {taken[len(taken) // 2] * 1e3:6.2f} ms   "
        f"p99 {taken[int(len(taken) * 0.99)] * 1e3:6.2f} ms   client used {cpu / seconds:.2f} cores"
    )


def grow(pid: int, port: int, forms: dict[str, bytes], minutes: float, connections: int) -> None:
    """Memory under load: each form in turn; the first minute fills what is kept."""
    first, until, last = None, time.monotonic() + minutes * 60, 0.0
    while time.monotonic() < until:
        for request in forms.values():
            asyncio.run(load(port, request, 5.0, connections))
        last = resident(pid)
        if first is None:
            first = last
        print(f"{(minutes * 60 - until + time.monotonic()) / 60:5.1f} min: {last:7.1f} MB", flush=True)
    print(f"growth after the first round: {last - (first or last):+.1f} MB")


def uploads() -> list[bytes]:
    """A model in every format, as requests to look into it."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("safetensors", "onnx", "bson", "jld2", "pt"):
            file = Path(folder, f"model.{suffix}")
            diptych.write(diptych.load_model("small-cnn-32"), file)
            found.append(http(f"/api/inspect?name={file.name}", file.read_bytes(), {}))
    return found


def hostile_bodies(forms: dict[str, bytes], count: int) -> Iterator[bytes]:
    """Damaged pictures, tensors, documents and model files, as bodies of requests."""
    chance = random.Random(0)
    good = [*forms.values(), *uploads()]
    for number in range(count):
        request = bytearray(good[number % len(good)])
        start = request.index(b"\r\n\r\n") + 4
        kind = number // len(good) % 4
        if kind == 0:
            for _ in range(chance.randint(1, 40)):
                request[chance.randrange(start, len(request))] = chance.randrange(256)
            yield bytes(request)
            continue
        body = bytes(request[start:])
        if kind == 1:
            body = body[: chance.randrange(len(body))]
        elif kind == 2:
            body = chance.randbytes(chance.randrange(2000))
        else:
            at = chance.randrange(len(body))
            body = body[:at] + chance.randbytes(chance.randrange(64)) + body[at:]
        lines = [
            line
            for line in bytes(request[: start - 4]).split(b"\r\n")
            if not line.startswith(b"Content-Length")
        ]
        yield b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body


async def attack(port: int, forms: dict[str, bytes], count: int) -> Counter[int]:
    statuses: Counter[int] = Counter()
    for body in hostile_bodies(forms, count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(body.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close", 1))
        answer = await asyncio.wait_for(reader.read(), 60)
        status = int(answer.split(b" ", 2)[1])
        statuses[status] += 1
        assert status < 500, (answer, body[:300])
        assert not any(sign in answer for sign in (b"/home", b"/tmp", b"Traceback", b"site-packages")), answer
        writer.close()
    return statuses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each form of request")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long memory is watched under load")
    parser.add_argument("--hostile", type=int, default=0, help="how many hostile uploads are sent")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--cores", help="the server's cores, such as 0; the client gets the others")
    arguments, options = parser.parse_known_args()
    every = sorted(os.sched_getaffinity(0))
    cores = None if arguments.cores is None else [int(core) for core in arguments.cores.split(",")]
    if cores is not None:
        os.sched_setaffinity(0, set(every) - set(cores))
    shared = f"server on cores {cores}, client on the others" if cores else "server and client share all"
    print(f"{len(every)} cores, {shared}; {arguments.connections} connections")
    forms = requests_by_form()
    options += ["--allow-uploads"] if arguments.hostile else []
    with server(cores, options) as (process, port):
        if arguments.hostile:
            before = resident(process.pid)
            statuses = asyncio.run(attack(port, forms, arguments.hostile))
            after = resident(process.pid)
            print(
                f"{arguments.hostile:,} hostile uploads: {dict(sorted(statuses.items()))}; {after - before:+.1f} MB"
            )
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready") as answer:
                assert answer.status == 200
        elif arguments.minutes:
            grow(process.pid, port, forms, arguments.minutes, arguments.connections)
        else:
            for name, request in forms.items():
                measure(name, port, request, arguments.seconds, arguments.connections)


if __name__ == "__main__":
    main()
