"""Parts computed by the tasks of a Ray cluster: paths travel to them, and the model once to each process.

Only Ray's core is used. Ray Data would read all of its input again to resume (ray-project/ray#65891), and gives files
in no fixed order.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from diptych.batch.inputs import Input
from diptych.batch.shards import Made, Task, Worker, part_name
from diptych.errors import DiptychError, OutputError, UsageError, reason
from diptych.extras import imported

__all__ = ["made_on"]

Told = Callable[[int, int], object]

_RETRIES = 20  # of a part whose process has died
_OBJECT_STORE = 256 * 2**20  # bytes, of a cluster that is started here: only the model lies there
_SECONDS_TO_WAIT = 1.0
_SECONDS_TO_KNOCK = 10.0


def made_on(address: str) -> Callable[..., Iterator[Made]]:
    """The function that makes parts on a cluster, which is called as `local.made_locally` is.

    Args:
        address: "ray" for the cluster that RAY_ADDRESS names, or one that is started here and ended with the job; or
            a cluster's address.
    """
    return partial(_made, address)


def _made(
    address: str, task: Task, shards: Iterable[tuple[int, tuple[Input, ...]]], workers: int | None, told: Told
) -> Iterator[Made]:
    with _cluster(address, workers) as ray:
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_make)
        shared = [ray.put(task)]  # in a list, so that a process fetches it once and not for each part
        most = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
        if workers is not None:
            most = min(most, workers)
        waiting, running = iter(shards), dict[Any, tuple[int, tuple[Input, ...]]]()
        try:
            while True:
                while len(running) < most and (shard := next(waiting, None)) is not None:
                    running[remote.remote(shared, task.id, *shard)] = shard
                if not running:
                    return
                done, _ = ray.wait(list(running), timeout=_SECONDS_TO_WAIT)
                for reference in done:
                    number, inputs = running.pop(reference)
                    yield _result(ray, reference, number, inputs)
        finally:
            for reference in running:
                with suppress(Exception):
                    ray.cancel(reference, force=True)


_workers: dict[str, Worker] = {}


def _make(shared: list[Any], plan: str, number: int, inputs: tuple[Input, ...]) -> Made | tuple[str, str]:
    """The task: runs in a process of the cluster, which keeps the model ready for the next part."""
    if plan not in _workers:
        import cv2
        import ray

        cv2.setNumThreads(1)
        _workers.clear()
        _workers[plan] = Worker(ray.get(shared[0]))
    try:
        return _workers[plan].make(number, inputs)
    except DiptychError as error:  # as text: exceptions of ours need not survive pickling
        return type(error).__name__, str(error)


def _result(ray: Any, reference: Any, number: int, inputs: tuple[Input, ...]) -> Made:
    from diptych.batch.local import error_of

    try:
        result = ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise OutputError(
            f"{part_name(number)} cannot be made: the processes for the pictures {inputs[0].name} to "
            f"{inputs[-1].name} ended {_RETRIES + 1} times; make the part with --on local, or leave them out"
        ) from error
    except ray.exceptions.RayTaskError as error:
        raise OutputError(
            f"{part_name(number)} cannot be made on the cluster: {reason(error.cause)}; every machine needs the same "
            "version of diptych, and the pictures and --out at the same paths"
        ) from error
    except ray.exceptions.RayError as error:
        raise _gone(error) from error
    if isinstance(result, tuple):
        raise error_of(*result)
    made: Made = result
    return made


@contextmanager
def _cluster(address: str, workers: int | None) -> Iterator[Any]:
    """Ray, connected to the cluster; one that was started here ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # the announced default, without its warning
    ray = imported("ray")
    importlib.import_module("ray.exceptions")
    if ray.is_initialized():  # by the program that calls us
        yield ray
        return
    named = os.environ.get("RAY_ADDRESS", "") if address == "ray" else address
    try:
        if named:
            _knock(named)
            ray.init(named, log_to_driver=False, logging_level="ERROR")
        else:
            # Its memory monitor counts the memory of all programs, and kills our processes for what others take.
            os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
            os.environ["PYTHONPATH"] = os.pathsep.join(place for place in sys.path if place)
            ray.init(
                num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
                object_store_memory=_OBJECT_STORE,
            )  # fmt: skip
    except Exception as error:  # of many kinds, by what is wrong
        raise _not_reached(named, error) from error
    try:
        yield ray
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise _gone(error) from error
    finally:
        with suppress(Exception):
            ray.shutdown()


def _knock(address: str) -> None:
    """Raises `OSError` where nobody listens at the address: Ray would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_KNOCK).close()


def _not_reached(address: str, error: Exception) -> DiptychError:
    said = reason(error, 300)
    if "ersion mismatch" in said or ("ersion" in said and "ython" in said):
        return UsageError(
            f"the Ray cluster at {address} has another version of Ray or Python than this program ({said}); install "
            "the same versions on both sides"
        )
    if address:
        return OutputError(
            f"the Ray cluster at {address} cannot be reached ({said}); check the address, or start it"
        )
    return OutputError(f"Ray cannot be started on this machine ({said}); use --on local")


def _gone(error: Exception) -> OutputError:
    return OutputError(
        f"the Ray cluster has gone away ({reason(error)}); what is finished is kept: the same command goes on, with "
        "--on ray or --on local"
    )
