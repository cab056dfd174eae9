"""What the tests of JLD2 files share: where the golden files are, and how values are found and measured."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from diptych.formats import hdf5
from diptych.formats.julia import JuliaStruct, NamedTuple
from flux_golden import GOLDEN

FLUX = sorted(GOLDEN.glob("flux-*/*.jld2"))
NEW = GOLDEN / "flux-0.16.9"
OLD = GOLDEN / "flux-0.12.1"
MADE = GOLDEN / "hdf5"


def arrays(value: Any, path: str = "") -> dict[str, Any]:
    """All arrays of numbers by path, through tuples, structs and dictionaries."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {path: value}
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, NamedTuple):
        parts = list(value.as_dict().items())
    elif isinstance(value, (tuple, list)):
        parts = list(enumerate(value))
    elif isinstance(value, JuliaStruct):
        parts = list(zip(value.names, value.fields, strict=False))
    elif isinstance(value, Mapping):
        parts = list(value.items())
    found: dict[str, Any] = {}
    for name, part in parts:
        found |= arrays(part, f"{path}.{name}")
    return found


class Memory:
    peak = 0


@contextmanager
def measured() -> Iterator[Memory]:
    """The most memory that Python took meanwhile, in bytes."""
    memory = Memory()
    tracemalloc.start()
    try:
        yield memory
        memory.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def resealed(data: bytes | bytearray) -> bytearray:
    """The file with the checksums of its object headers made right again."""
    out = bytearray(data)
    at = out.find(b"OHDR")
    while at >= 0:
        flags = out[at + 5]
        width = 1 << (flags & 3)
        end = at + 6 + width + int.from_bytes(out[at + 6 : at + 6 + width], "little")
        if end + 4 <= len(out):
            out[end : end + 4] = struct.pack("<I", hdf5.lookup3(bytes(out[at:end])))
        at = out.find(b"OHDR", at + 4)
    return out
