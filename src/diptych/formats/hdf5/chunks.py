"""The elements of HDF5 datasets, which lie in the file in one piece or in compressed chunks.

Section numbers refer to the "HDF5 File Format Specification Version 3.0" (The HDF Group); the filters'
numbers are those of the HDF Group's registry.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from diptych.errors import FormatError, MissingExtra, damage
from diptych.formats.hdf5 import Cursor, Hdf5File, Object, lookup3
from diptych.formats.hdf5.mapped import NOWHERE
from diptych.formats.hdf5.messages import Filter, Layout

__all__ = ["elements"]

LARGEST = 4 << 30
# The most bytes that one compressed byte can expand to. A block of Zstandard can be one byte, repeated.
_RATIO = {1: 1040, 307: 50_000, 32004: 260, 32015: 50_000}
_NAMES = {1: "deflate", 2: "shuffle", 3: "Fletcher32", 307: "bzip2", 32004: "LZ4", 32015: "Zstandard"}


def elements(file: Hdf5File, thing: Object, size: int) -> memoryview:
    """The bytes of a dataset of elements of `size` bytes each, in the file's order.

    A view of the file where nothing is compressed or cut in chunks. Raises `FormatError` where the file is
    damaged or says more than 4 GB, `MissingExtra` where a decompressor is not installed.
    """
    layout, space = thing.layout, thing.dataspace
    at = file.place(thing.address)
    if layout is None or space is None:
        file.fail("an array without a shape or a place", at)
    total = space.count * size
    if layout.kind == "plain":
        if thing.filters:
            file.fail("compressed elements that are not in chunks", at)
        if total > layout.size:
            file.fail(f"{total} bytes of elements expected where the file keeps {layout.size}", layout.at)
        return file.bytes(layout.at, total)
    if total > LARGEST:
        raise FormatError(
            f"{file.path} declares a compressed array of {total} bytes at byte {at}, more than the 4 GB "
            "allowed here; save it uncompressed or in parts"
        )
    if total == 0:
        return memoryview(b"")
    return _gather(file, thing, layout, space.shape, size)


def _gather(file: Hdf5File, thing: Object, layout: Layout, shape: tuple[int, ...], size: int) -> memoryview:
    at = file.place(thing.address)
    chunk = layout.chunk
    if len(chunk) != len(shape) or min(chunk) < 1:
        file.fail("chunks of another rank than their array", at)
    extent = [-(-length // step) for length, step in zip(shape, chunk, strict=True)]
    total, block = prod(shape) * size, prod(chunk) * size
    if layout.index == 1 and chunk != shape:
        file.fail("a single chunk that is not the whole array", at)
    if prod(extent) * block > LARGEST or prod(extent) > file.size:
        file.fail(f"chunks of {chunk} for an array of {shape}", at)
    if layout.index == 1:
        stored = layout.size if layout.filtered else block
        return _chunk(file, thing, layout.address, stored, layout.mask, block, size)
    whole = np.empty(shape, np.dtype((np.void, size)))
    missing = prod(extent)
    for corner, address, stored, mask in _chunks(file, thing, layout, extent, block):
        raw = _chunk(file, thing, address, stored, mask, block, size)
        values = np.frombuffer(raw, whole.dtype).reshape(chunk)
        target = tuple(slice(c, min(c + n, s)) for c, n, s in zip(corner, chunk, shape, strict=True))
        whole[target] = values[tuple(slice(0, t.stop - t.start) for t in target)]
        missing -= 1
    if missing:
        file.refuse(f"an array of which {missing} chunks were never written", at, "save it in one piece")
    return memoryview(whole.tobytes())[:total]


def _chunks(
    file: Hdf5File, thing: Object, layout: Layout, extent: list[int], block: int
) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
    """Each chunk's first element, address, stored size and filter mask, every chunk once."""
    if layout.index == 0:
        found = list(_tree(file, layout))
    elif layout.index == 2:
        # VII.B, implicit: the chunks lie one after the other.
        found = [
            (_corner(number, extent, layout.chunk), layout.address + number * block, block, 0)
            for number in range(prod(extent))
        ]
    else:
        found = [
            (_corner(number, extent, layout.chunk), *entry)
            for number, entry in enumerate(_fixed_array(file, layout, prod(extent), block))
        ]
    seen: set[tuple[int, ...]] = set()
    space = thing.dataspace
    shape = space.shape if space is not None else ()
    for entry in found:
        corner = entry[0]
        outside = any(c % n or c >= s for c, n, s in zip(corner, layout.chunk, shape, strict=True))
        if outside or corner in seen or entry[1] == NOWHERE:
            file.fail(f"a chunk at {corner} that is outside its array, or there twice", file.base)
        seen.add(corner)
        yield entry


def _corner(number: int, extent: list[int], chunk: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) * n for i, n in zip(np.unravel_index(number, extent), chunk, strict=True))


def _tree(file: Hdf5File, layout: Layout) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
    """III.A.1: a version 1 B-tree whose leaves are chunks."""
    rank = len(layout.chunk)
    width = 8 + 8 * (rank + 1)
    todo, seen = [layout.address], {layout.address}
    while todo:
        at = file.place(todo.pop())
        head = file.cursor(at, 24)
        if bytes(file.bytes(at, 5)) != b"TREE\x01":
            file.fail("no B-tree of chunks", at)
        head.skip(5)
        level, count = head.uint(1), head.uint(2)
        body = file.cursor(at + 24, count * (width + 8) + width)
        for _ in range(count):
            stored, mask = body.uint(4), body.uint(4)
            corner = tuple(body.uint(8) for _ in range(rank))
            body.skip(8)
            child = body.uint(8)
            if level == 0:
                yield corner, child, stored, mask
            elif child in seen:
                file.fail("a B-tree that grows into itself", at)
            else:
                seen.add(child)
                todo.append(child)


def _fixed_array(file: Hdf5File, layout: Layout, count: int, block: int) -> Iterator[tuple[int, int, int]]:
    """VII.C: a fixed array of chunk addresses, in pages where there are many."""
    at = file.place(layout.address)
    head = file.cursor(at, 28)
    if bytes(file.bytes(at, 5)) != b"FAHD\0" or file.uint(at + 24, 4) != lookup3(bytes(file.bytes(at, 24))):
        file.fail("no fixed array of chunks", at)
    head.skip(5)
    client, width, page_bits = head.uint(1), head.uint(1), head.uint(1)
    stored_count, data = head.uint(8), file.place(head.uint(8))
    expected = 8 if client == 0 else width
    if client > 1 or stored_count != count or width != expected or not (width == 8 or 13 <= width <= 20):
        file.fail("a fixed array that does not fit its dataset", at)
    if bytes(file.bytes(data, 4)) != b"FADB":
        file.fail("no data block of a fixed array", data)
    page = 1 << min(page_bits, 62)
    start = data + 14
    if count > page:
        start += -(-count // page) // 8 + bool(-(-count // page) % 8) + 4
    for first in range(0, count, page):
        here = min(page, count - first)
        body = file.cursor(start, here * width)
        for _ in range(here):
            yield _entry(body, client, width, block)
        start += here * width + 4


def _entry(body: Cursor, client: int, width: int, block: int) -> tuple[int, int, int]:
    address = body.uint(8)
    return (address, block, 0) if client == 0 else (address, body.uint(width - 12), body.uint(4))


def _chunk(
    file: Hdf5File, thing: Object, address: int, stored: int, mask: int, block: int, size: int
) -> memoryview:
    """Undoes the filters of one chunk (IV.A.2.l): `block` bytes, of elements of `size` bytes."""
    at = file.place(address)
    raw = file.bytes(at, stored)
    applied = [f for number, f in enumerate(thing.filters) if not mask >> number & 1]
    largest = max([_RATIO.get(f.number, 1) for f in applied], default=1) * stored + 4096
    if block > largest:
        file.fail(f"{stored} compressed bytes cannot hold the {block} declared", at)
    for step in reversed(applied):
        raw = _undo(file, step, raw, block, size, at)
    if len(raw) != block:
        file.fail(f"a chunk of {len(raw)} bytes where {block} are declared", at)
    return raw


def _undo(file: Hdf5File, step: Filter, raw: memoryview, block: int, size: int, at: int) -> memoryview:
    if step.number == 2:
        return _unshuffle(raw, step.values[0] if step.values else size)
    if step.number == 3:
        return raw[:-4]
    if step.number not in _NAMES:
        name = step.name or "unknown"
        raise FormatError(
            f"{file.path} is compressed with the filter {step.number} ({name}) at byte {at}, which is not "
            "read here; save it with deflate, Zstandard, LZ4 or uncompressed"
        )
    # A checksum may have been added to the elements before compression.
    limit = block + 4
    try:
        if step.number == 1:
            return memoryview(zlib.decompressobj().decompress(raw, limit))
        if step.number == 307:
            return memoryview(bz2.BZ2Decompressor().decompress(raw, limit))
        if step.number == 32004:
            return memoryview(_lz4(file, bytes(raw), limit))
        return memoryview(_zstandard(file, bytes(raw), limit))
    except (zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        file.fail(f"{_NAMES[step.number]} data that cannot be decompressed ({damage(error)})", at)


def _unshuffle(raw: memoryview, size: int) -> memoryview:
    """Undoes filter 2, which stores the first bytes of all elements, then the second ones; a remainder is unchanged."""
    if size < 2 or size > len(raw):
        return raw
    whole = len(raw) // size * size
    mixed = np.frombuffer(raw[:whole], np.uint8).reshape(size, -1)
    return memoryview(np.ascontiguousarray(mixed.T).tobytes() + bytes(raw[whole:]))


def _zstandard(file: Hdf5File, raw: bytes, limit: int) -> bytes:
    module = _optional(file, "zstandard", "Zstandard")
    out = bytearray()
    with module.ZstdDecompressor().stream_reader(raw) as reader:
        try:
            while len(out) < limit and (part := reader.read(limit - len(out))):
                out += part
        except module.ZstdError as error:
            raise ValueError(str(error)) from error
    return bytes(out)


def _lz4(file: Hdf5File, raw: bytes, limit: int) -> bytes:
    """Undoes filter 32004: blocks with big-endian lengths or, before JLD2 0.6, a frame of the lz4 program."""
    if raw[:4] == b"\x04\x22\x4d\x18":
        frame = _optional(file, "lz4.frame", "LZ4")
        return bytes(frame.LZ4FrameDecompressor().decompress(raw, max_length=limit))
    block = _optional(file, "lz4.block", "LZ4")
    total, step = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:12], "big")
    if total > limit or step < 1:
        raise ValueError(f"it declares {total} bytes in blocks of {step}")
    out, at = bytearray(), 12
    while len(out) < total:
        length = int.from_bytes(raw[at : at + 4], "big")
        part = raw[at + 4 : at + 4 + length]
        if not part or len(part) < length:
            raise ValueError("it ends too soon")
        expected = min(step, total - len(out))
        try:
            out += part if length == expected else block.decompress(part, uncompressed_size=expected)
        except block.LZ4BlockError as error:
            raise ValueError(str(error)) from error
        at += 4 + length
    return bytes(out)


def _optional(file: Hdf5File, module: str, name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise MissingExtra(
            package, "jld2", f"reading {file.path}, whose arrays are compressed with {name},"
        ) from None
