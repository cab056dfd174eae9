"""Giving damaged inputs to a target, and noticing what must not be."""

from __future__ import annotations

import faulthandler
import hashlib
import random
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from diptych.errors import DiptychError
from fuzz.mutating import Mutator
from fuzz.targets import Target

__all__ = ["FOUND", "Count", "Fault", "attempt", "fuzz"]

FOUND = Path(__file__).parent / "found"
"""Where inputs go that make a target fail."""

MOST_SECONDS = 5.0  # of the processor's time for one input
MOST_MEMORY = 512  # MiB beyond the peak after the good files
MOST_ADDRESSES = 16  # GiB, so that an absurd request fails at once
_LONGEST_MESSAGE = 2000
_MOST_KEPT = 2000
_MOST_FAULTS = 20


class TooSlow(BaseException):
    """An input takes too long; no reader can take it for damage."""


@dataclass(frozen=True)
class Fault:
    """Something that must not be: what, and the input's file."""

    what: str
    trace: str = ""
    path: str = ""


@dataclass
class Count:
    """What came of the inputs of one target."""

    runs: int = 0
    refused: int = 0
    read: int = 0
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)


def attempt(target: Target, path: Path) -> tuple[bool, str, Fault | None]:
    """Reads one file: whether it was read, what was said, and what must not be, if anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return True, target.read(path), None
    except DiptychError as error:
        said = str(error)
        if "\n" in said or not 10 < len(said) < _LONGEST_MESSAGE:
            return (
                False,
                said,
                Fault(f"a message that is not a sentence of one line: {said[:300]!r}", _trace(error)),
            )
        return False, said, None
    except (Exception, TooSlow) as error:
        return False, "", Fault(f"{type(error).__name__}: {str(error)[:200]}", _trace(error))


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-12))


def _where(fault: Fault) -> str:
    """What faults of the same cause have in common."""
    lines = re.findall(r'File "(.*?)", line (\d+)', fault.trace)
    return f"{fault.what.split(':')[0]} {lines[-1] if lines else ''}"


def fuzz(target: Target, seconds: float, seed: int, folder: Path) -> Count:
    """Reads damaged inputs for some seconds.

    Inputs that make the target say something new are kept for the time, and damaged further.
    """
    mutator, count = Mutator(seed), Count()
    path = folder / f"input{target.suffix}"
    pool = [*target.seeds, *target.corpus]
    good = len(target.seeds)
    said_before: set[str] = set()
    found_before: set[str] = set()
    good_read = 0
    for number, content in enumerate(pool):
        path.write_bytes(content)
        with limited():
            read, said, fault = attempt(target, path)
        good_read += number < good and read
        said_before.add(_skeleton(said, path))
        _note(count, target, content, fault, found_before)
    if 3 * good_read < good:  # some hold other values than models
        count.faults.append(Fault(f"only {good_read} of {good} good files are read"))
    peak = _peak()
    begin = time.monotonic()
    while time.monotonic() - begin < seconds and len(count.faults) < _MOST_FAULTS:
        content = _damaged(mutator, target, pool, good)
        path.write_bytes(content)
        with limited():
            read, said, fault = attempt(target, path)
        count.runs += 1
        count.read += read
        count.refused += not read and fault is None
        now = _peak()
        if fault is None and now - peak > MOST_MEMORY:
            fault = Fault(f"memory: {now - peak} MiB more than for any good file")
            peak = now
        _note(count, target, content, fault, found_before)
        skeleton = _skeleton(said, path)
        if skeleton not in said_before:
            said_before.add(skeleton)
            if len(pool) < _MOST_KEPT:
                pool.append(content)
    count.seconds = time.monotonic() - begin
    return count


def _damaged(mutator: Mutator, target: Target, pool: list[bytes], good: int) -> bytes:
    within = pool[:good] if mutator.chance(0.6) else pool
    content, other = mutator.random.choice(within), mutator.random.choice(within)
    if target.shapes and mutator.chance(0.7):
        try:
            return mutator.random.choice(target.shapes)(mutator, content, other)
        except Exception:  # the content is not whole enough for that
            pass
    return mutator.bytes(content, other)


def _skeleton(said: str, path: Path) -> str:
    return re.sub(r"\d+|'.*?'|\(.*?\)", "#", said.replace(str(path), ""))[:160]


def _note(count: Count, target: Target, content: bytes, fault: Fault | None, before: set[str]) -> None:
    """Counts a fault, and keeps its input, unless another of the same cause was kept."""
    if fault is None or _where(fault) in before:
        return
    before.add(_where(fault))
    count.faults.append(Fault(fault.what, fault.trace, str(keep(target, content))))


def keep(target: Target, content: bytes) -> Path:
    """Writes an input to the folder of those found."""
    place = FOUND / target.name
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{hashlib.sha256(content).hexdigest()[:12]}{target.suffix}"
    path.write_bytes(content)
    return path


@contextmanager
def limited() -> Iterator[None]:
    """Raises `TooSlow` in the block after some seconds; ends the process where it does not listen."""

    def late(*_: object) -> None:
        raise TooSlow(f"more than {MOST_SECONDS:g} seconds")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    faulthandler.dump_traceback_later(12 * MOST_SECONDS, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGPROF, before)


def _peak() -> int:
    """The most memory that this process has had, in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


def limit_memory() -> None:
    """Limits the addresses of this process."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES * 2**30, MOST_ADDRESSES * 2**30))


def new_seed() -> int:
    """A seed that is printed, so that the run can be repeated."""
    return random.SystemRandom().randrange(2**32)
