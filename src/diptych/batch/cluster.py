"""Parts computed by the tasks of a Ray cluster: paths travel to them, and the model once to each process.

Only Ray's core is used. Ray Data would read all of its input again to resume (ray-project/ray#65891), and gives files
in no fixed order. Ray runs in a process of its own, because it ends the process that it runs in where a cluster breaks,
and prints its logs to standard output.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diptych.batch.inputs import Input
from diptych.batch.local import ended, error_of, started
from diptych.batch.shards import Made, Task, Worker, part_name
from diptych.batch.worker import Channel
from diptych.errors import DiptychError, OutputError, UsageError, reason
from diptych.extras import imported

__all__ = ["made_on"]

Shard = tuple[int, tuple[Input, ...]]
"""The number of a part, and its pictures."""

_RETRIES = 20  # of a part whose process has died
_OBJECT_STORE = 256 * 2**20  # bytes, of a cluster that is started here: only the model lies there
_SECONDS_TO_KNOCK = 10.0
_GONE = "what is finished is kept: the same command goes on, with --on ray or --on local"


def made_on(address: str) -> Callable[..., Iterator[Made]]:
    """The function that makes parts on a cluster, which is called as `local.made_locally` is.

    Args:
        address: "ray" for the cluster that RAY_ADDRESS names, or one that is started here and ended with the job; or
            a cluster's address.
    """
    if find_spec("ray") is None:
        imported(
            "ray"
        )  # says what to install; importing it here takes a second that the other process needs too
    return partial(_made, _named(address))


def _named(address: str) -> str:
    """The address of a cluster that is there already; empty where one is to be started."""
    if address != "ray":
        return address
    ray: Any = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():  # by the program that calls us
        return str(ray.get_runtime_context().gcs_address)
    return os.environ.get("RAY_ADDRESS", "")


def _made(
    address: str, task: Task, shards: Iterable[Shard], workers: int | None, told: Callable[[int, int], object]
) -> Iterator[Made]:
    left = list(shards)
    process = started("diptych.batch.cluster")
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump((address, task, left, workers), process.stdin)
        process.stdin.flush()
        for _ in left:
            kind, said = pickle.load(process.stdout)  # from our own process
            if kind != "made":
                raise error_of(kind, said)
            yield said
    except (EOFError, OSError, pickle.UnpicklingError) as error:
        raise OutputError(f"the Ray cluster has gone away; {_GONE}") from error
    finally:
        ended(process)


# ---- In the process of its own ----------------------------------------------------------------------------


def main() -> None:
    """Has a cluster make parts; see `worker.Channel` for the messages."""
    channel = Channel()
    address, task, shards, workers = channel.command()
    try:
        ray = _connected(address, workers)
        for made in _gathered(ray, task, shards, workers):
            channel.reply("made", made)
        channel.command()  # until the starter ends us: it has read all
    except Exception as error:
        channel.reply(type(error).__name__, str(error))
        with suppress(Exception):
            channel.command()


def _connected(address: str, workers: int | None) -> Any:
    """Ray, connected to the cluster; one that is started here ends with this process."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if (
        address and _has_token()
    ):  # which a cluster asks for where there is one, and Ray's driver does not send by itself
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    ray = imported("ray")
    try:
        if address:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        else:
            # Its memory monitor counts the memory of all programs, and kills our processes for what others take.
            os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
            ray.init(
                num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
                object_store_memory=_OBJECT_STORE,
            )  # fmt: skip
    except Exception as error:  # of many kinds, by what is wrong
        raise _not_reached(address, error) from error
    return ray


def _has_token() -> bool:
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    return bool(named) or Path.home().joinpath(".ray", "auth_token").is_file()


def _knock(address: str) -> None:
    """Raises `OSError` where nobody listens at the address: Ray would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_KNOCK).close()


def _gathered(ray: Any, task: Task, shards: Iterable[Shard], workers: int | None) -> Iterator[Made]:
    remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_make)
    try:
        shared = [ray.put(task)]  # in a list, so that a process fetches it once and not for each part
        most = workers or max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
        waiting, running = iter(shards), dict[Any, Shard]()
        while True:
            while len(running) < most and (shard := next(waiting, None)) is not None:
                running[remote.remote(shared, task.id, *shard)] = shard
            if not running:
                return
            done, _ = ray.wait(list(running))
            for reference in done:
                yield _result(ray, reference, *running.pop(reference))
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise OutputError(f"the Ray cluster has gone away ({reason(error)}); {_GONE}") from error


_workers: dict[str, Worker] = {}


def _make(shared: list[Any], plan: str, number: int, inputs: tuple[Input, ...]) -> Made | tuple[str, str]:
    """The task: runs in a process of the cluster, which keeps the model ready for the next part."""
    try:
        if plan not in _workers:
            import ray

            _workers.clear()
            _workers[plan] = Worker(ray.get(shared[0]))
        return _workers[plan].make(number, inputs)
    except DiptychError as error:  # as text: exceptions of ours need not survive pickling
        return type(error).__name__, str(error)


def _result(ray: Any, reference: Any, number: int, inputs: tuple[Input, ...]) -> Made:
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
    if isinstance(result, tuple):
        raise error_of(*result)
    made: Made = result
    return made


def _not_reached(address: str, error: Exception) -> DiptychError:
    said = reason(error, 300)
    if "ersion mismatch" in said or ("ersion" in said and "ython" in said):
        return UsageError(
            f"the Ray cluster at {address} has another version of Ray or Python than this program ({said}); install "
            "the same versions on both sides"
        )
    if address:
        return OutputError(
            f"the Ray cluster at {address} cannot be reached ({said}); check the address and, where it asks for one, "
            "its token, or start it"
        )
    return OutputError(f"Ray cannot be started on this machine ({said}); use --on local")


if __name__ == "__main__":
    from diptych.batch.cluster import main as run  # so that the tasks are found by the module's name

    run()
