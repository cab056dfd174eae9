"""What is counted of every model, as Triton counts it, and its two forms: /v2/.../stats and /metrics."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Statistics", "exposition"]

REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


@dataclass
class _Duration:
    """How often something was done, and how long it took in all."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.nanoseconds += round(seconds * 1e9)

    def to_document(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.nanoseconds}


@dataclass
class Statistics:
    """The counts of one version of a model.

    Attributes:
        inferences: Samples computed.
        executions: Batches computed.
        last: When the last request came, milliseconds since 1970.
        failures: Failed requests by reason, one of `REASONS`.
        success, failure, queue, input, infer, output: Requests and their durations: whole ones that succeeded or
            failed, and of the former those of waiting, reading, computing and writing.
        pending: Requests that were admitted and have no answer yet.
    """

    inferences: int = 0
    executions: int = 0
    last: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    success: _Duration = field(default_factory=_Duration)
    failure: _Duration = field(default_factory=_Duration)
    queue: _Duration = field(default_factory=_Duration)
    input: _Duration = field(default_factory=_Duration)
    infer: _Duration = field(default_factory=_Duration)
    output: _Duration = field(default_factory=_Duration)
    pending: int = 0

    def answered(
        self, began: float, reading: float, waiting: float, computing: float, writing: float
    ) -> None:
        """Counts a request that succeeded now.

        Args:
            began: When it came, by `time.perf_counter`.
            reading: Seconds of reading its input.
            waiting: Seconds that it waited for a batch.
            computing: Seconds that its batch was computed.
            writing: Seconds of writing its output.
        """
        self.input.add(reading)
        self.queue.add(waiting)
        self.infer.add(computing)
        self.output.add(writing)
        self.success.add(time.perf_counter() - began)
        self.last = int(time.time() * 1000)

    def failed(self, reason: str, seconds: float) -> None:
        """Counts a request that failed."""
        self.failures[reason] += 1
        self.failure.add(seconds)

    def to_document(self, name: str, version: str) -> dict[str, Any]:
        """As in `model_stats` of Triton's statistics extension."""
        durations = {
            "success": self.success,
            "fail": self.failure,
            "queue": self.queue,
            "compute_input": self.input,
            "compute_infer": self.infer,
            "compute_output": self.output,
        }
        return {
            "name": name,
            "version": version,
            "last_inference": self.last,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                **{key: duration.to_document() for key, duration in durations.items()},
                "cache_hit": {"count": 0, "ns": 0},
                "cache_miss": {"count": 0, "ns": 0},
            },
            "batch_stats": [],
        }


_COUNTERS: dict[str, tuple[str, Callable[[Statistics], int]]] = {
    "nv_inference_request_success": ("Requests that succeeded", lambda s: s.success.count),
    "nv_inference_count": ("Samples that were computed", lambda s: s.inferences),
    "nv_inference_exec_count": ("Batches that were computed", lambda s: s.executions),
    "nv_inference_request_duration_us": (
        "Microseconds of the requests that succeeded, from their arrival to their answer",
        lambda s: s.success.nanoseconds // 1000,
    ),
    "nv_inference_queue_duration_us": (
        "Microseconds that requests have waited for a batch",
        lambda s: s.queue.nanoseconds // 1000,
    ),
    "nv_inference_compute_input_duration_us": (
        "Microseconds of reading inputs, pictures included",
        lambda s: s.input.nanoseconds // 1000,
    ),
    "nv_inference_compute_infer_duration_us": (
        "Microseconds of computing, counted for each request of a batch",
        lambda s: s.infer.nanoseconds // 1000,
    ),
    "nv_inference_compute_output_duration_us": (
        "Microseconds of writing outputs",
        lambda s: s.output.nanoseconds // 1000,
    ),
}


def exposition(models: Iterable[tuple[str, str, Statistics]], requests: dict[int, int]) -> str:
    """The metrics in Prometheus' text format, under the names that Triton gives them.

    A client library is no help here: it would append _total to each name.

    Args:
        models: The name, the version and the counts of every model.
        requests: The responses that were sent, by their status.
    """
    models, lines = list(models), list[str]()
    for name, (help_text, value) in _COUNTERS.items():
        lines += _head(name, help_text, "counter")
        lines += [f"{name}{_labels(model=m, version=v)} {value(s)}" for m, v, s in models]
    name = "nv_inference_request_failure"
    lines += _head(name, "Requests that failed, by reason", "counter")
    lines += [
        f"{name}{_labels(model=m, version=v, reason=reason)} {count}"
        for m, v, s in models
        for reason, count in s.failures.items()
    ]
    name = "nv_inference_pending_request_count"
    lines += _head(name, "Requests that wait or are computed", "gauge")
    lines += [f"{name}{_labels(model=m, version=v)} {s.pending}" for m, v, s in models]
    name = "rest_server_requests_total"
    lines += _head(name, "Responses of the server, by status", "counter")
    lines += [f"{name}{_labels(status=str(status))} {count}" for status, count in sorted(requests.items())]
    lines += _head("process_cpu_seconds_total", "Seconds of processor time", "counter")
    lines.append(f"process_cpu_seconds_total {time.process_time():.3f}")
    memory = resident_bytes()
    if memory is not None:
        lines += _head("process_resident_memory_bytes", "Memory that the process holds", "gauge")
        lines.append(f"process_resident_memory_bytes {memory}")
    return "\n".join(lines) + "\n"


def resident_bytes() -> int | None:
    """The memory that this process holds, where the system tells."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123 - not a file on a disk
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _head(name: str, help_text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]


def _labels(**values: str) -> str:
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for k, v in values.items()}
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped.items()) + "}"
