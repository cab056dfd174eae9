"""Dynamic batching: requests that come while a model computes are computed together, and get the same bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from diptych.model.layers import Array

__all__ = ["Batcher", "Computed"]

Computed: TypeAlias = "tuple[Array, float, float]"
"""An output, and the seconds that its request has waited and that its batch took."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """A request's samples, and the future of its output."""

    x: Array
    future: asyncio.Future[Computed]
    came: float


class Batcher:
    """Computes one batch after the other, each of what has come until then.

    It belongs to one event loop; only the computing happens in a thread.

    Args:
        run: Computes a batch, (N, ...). A sample's output must not depend on the others.
        may_join: Whether samples of this shape may be computed together.
        most: The most samples that are joined. A request of more is computed by itself.
        delay: Seconds that a batch waits to be filled, from its first request on.
        executor: Its threads compute.
        counted: Called with the number of samples of every batch that was computed.
    """

    def __init__(
        self,
        run: Callable[[Array], Array],
        may_join: Callable[[tuple[int, ...]], bool],
        most: int,
        delay: float,
        executor: Executor,
        counted: Callable[[int], None],
    ) -> None:
        self._run, self._may_join, self._most, self._delay = run, may_join, most, delay
        self._executor, self._counted = executor, counted
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, x: Array) -> Computed:
        """The output for a request's samples, (N, ...). Raises what computing them raises."""
        future: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(x, future, perf_counter()))
        self._start()
        return await future

    def _start(self) -> None:
        """Begins a batch, unless one is being computed or is still to be filled."""
        while self._waiting and self._waiting[0].future.done():  # given up, at its time limit
            self._waiting.popleft()
        if self._busy or not self._waiting:
            return
        left = self._delay - (perf_counter() - self._waiting[0].came)
        if left > 0 and sum(len(each.x) for each in self._waiting) < self._most:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(left, self._fill_no_more)
            return
        batch = self._taken()
        self._busy = True
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._computed, batch)
        work.add_done_callback(partial(self._finished, batch))

    def _fill_no_more(self) -> None:
        self._timer = None
        self._start()

    def _taken(self) -> list[_Waiting]:
        """The requests of the next batch, in the order in which they came, all of one shape."""
        batch = [self._waiting.popleft()]
        shape, count = batch[0].x.shape[1:], len(batch[0].x)
        if count >= self._most or not self._waiting or not self._may_join(shape):
            return batch
        while self._waiting:
            following = self._waiting[0]
            if following.x.shape[1:] != shape or count + len(following.x) > self._most:
                break
            self._waiting.popleft()
            if not following.future.done():
                batch.append(following)
                count += len(following.x)
        return batch

    def _computed(self, batch: list[_Waiting]) -> tuple[list[Array | Exception], float, float]:
        """The output of each request, or what it raises: one that fails does not fail the others."""
        start = perf_counter()
        if len(batch) > 1:
            try:
                output = self._run(np.concatenate([each.x for each in batch]))
                ends = np.cumsum([len(each.x) for each in batch])[:-1]
                return list(np.split(output, ends)), start, perf_counter() - start
            except Exception:  # each alone will tell whose it is
                pass
        return [self._alone(each.x) for each in batch], start, perf_counter() - start

    def _alone(self, x: Array) -> Array | Exception:
        try:
            return self._run(x)
        except Exception as error:
            return error

    def _finished(self, batch: list[_Waiting], work: asyncio.Future[Any]) -> None:
        self._busy = False
        outputs, start, seconds = work.result()
        self._counted(sum(len(each.x) for each in batch))
        for each, output in zip(batch, outputs, strict=True):
            if each.future.done():  # given up, at its time limit
                continue
            if isinstance(output, Exception):
                each.future.set_exception(output)
            else:
                each.future.set_result((output, start - each.came, seconds))
        self._start()
