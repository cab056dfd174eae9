"""Damaging the parts of a file while what surrounds them stays whole: lengths, checksums, compression.

Each function takes a `Mutator`, a content and another one, and gives a damaged content. It raises anything where the
content is not of its kind, which the caller answers by damaging the bytes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from fuzz.mutating import Mutator

__all__ = [
    "Shape",
    "bson",
    "hdf5",
    "json_lines",
    "json_text",
    "onnx",
    "png",
    "safetensors",
    "tar",
    "torch_values",
    "zipped",
]

Shape: TypeAlias = Callable[[Mutator, bytes, bytes], bytes]


def json_text(m: Mutator, content: bytes, _: bytes = b"") -> bytes:
    """A JSON document with other values."""
    return _dumped(m.tree(json.loads(content)))


def json_lines(m: Mutator, content: bytes, _: bytes = b"") -> bytes:
    """Lines of JSON, one with other values."""
    lines = content.splitlines()
    number = m.random.randrange(len(lines))
    lines[number] = json_text(m, lines[number])
    return b"\n".join(lines) + b"\n"


def _dumped(value: Any) -> bytes:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20_000))  # for values nested thousands of levels deep
    try:
        return _encoded(value)
    finally:
        sys.setrecursionlimit(limit)


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _document(m: Mutator, text: str) -> str:
    return _dumped(m.tree(json.loads(text))).decode()


def safetensors(m: Mutator, content: bytes, _: bytes = b"") -> bytes:
    """Another header, or another model document in it."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    if m.chance(0.7):
        header["__metadata__"]["diptych"] = _document(m, header["__metadata__"]["diptych"])
    else:
        header = m.tree(header)
    text = _dumped(header)
    return len(text).to_bytes(8, "little") + text + data


def png(m: Mutator, content: bytes, other: bytes = b"") -> bytes:
    """Other chunks, with right lengths and checksums."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        chunks.append([kind, content[at + 8 : at + 8 + length]])
        at += 12 + length
    number = m.random.randrange(len(chunks))
    kind, body = chunks[number]
    choice = m.random.randrange(8)
    if choice == 0:
        chunks.insert(m.random.randrange(len(chunks)), [kind, body])
    elif choice == 1:
        del chunks[number]
    elif choice == 2:
        chunks[number][0] = m.random.choice(
            (b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL")
        )
    elif kind == b"tEXt" and body.startswith(b"diptych\0"):
        chunks[number][1] = b"diptych\0" + json_text(m, body[8:])
    elif kind == b"IDAT" and m.chance(0.7):
        chunks[number][1] = zlib.compress(m.bytes(zlib.decompress(body)))
    else:
        chunks[number][1] = m.bytes(body, other)
    return content[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def zipped(m: Mutator, content: bytes, other: bytes = b"") -> bytes:
    """A zip archive with other members, and right checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        compression = archive.infolist()[0].compress_type
        members = [[entry.filename, archive.read(entry)] for entry in archive.infolist()]
    lists = [one for one in members if one[0].endswith((".pkl", ".txt"))]
    member = m.random.choice(lists if lists and m.chance(0.6) else members)
    if m.chance(0.8):
        member[1] = m.bytes(member[1], other)
    elif m.chance(0.5):
        member[0] = m.bytes(member[0].encode()).decode("utf-8", "replace").replace("\0", "")[:60_000]
    else:
        members.remove(member)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return stream.getvalue()


_PACKINGS: tuple[tuple[bytes, Callable[[bytes], bytes], Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", gzip.decompress, lambda data: gzip.compress(data, 1, mtime=0)),
    (b"BZh", bz2.decompress, bz2.compress),
    (b"\xfd7zXZ\0", lzma.decompress, lambda data: lzma.compress(data, preset=0)),
)


def tar(m: Mutator, content: bytes, other: bytes = b"") -> bytes:
    """A tar archive, compressed or not, with other headers whose checksums are right, or other members."""
    unpack, pack = next(
        ((unpack, pack) for magic, unpack, pack in _PACKINGS if content.startswith(magic)), (bytes, bytes)
    )
    data = bytearray(unpack(content))
    heads = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    at = m.random.choice(heads)
    if m.chance(0.7):
        data[at : at + 512] = m.bytes(bytes(data[at : at + 512]), same_length=True)
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    elif m.chance(0.5):
        data[at + 512 : at + 1024] = m.bytes(bytes(data[at + 512 : at + 1024]), same_length=True)
    else:
        data = bytearray(m.bytes(bytes(data), other))
    return pack(bytes(data))


def torch_values(m: Mutator, content: bytes, _: bytes = b"") -> bytes:
    """Other values and tensors in a file of `torch.save`; another model document, where there is one."""
    import torch

    def leaf(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        kinds = (torch.float16, torch.float64, torch.int64, torch.complex64, torch.bool, torch.bfloat16)
        return m.random.choice(
            (
                lambda: value.to(m.random.choice(kinds)),
                lambda: value.reshape(-1),
                lambda: value[None],
                lambda: value.reshape(-1)[:1].expand(m.random.choice((1, 7, 10**6, 10**12))),
                lambda: torch.zeros(m.random.choice(((), (0,), (3, 0), (2, 2)))),
                lambda: (
                    torch.full_like(value, m.random.choice((torch.nan, torch.inf, 0.0, -1.0, 1e30)))
                    if value.is_floating_point()
                    else value.flip(0)
                ),
                value.to_sparse,
                lambda: value.requires_grad_() if value.is_floating_point() else value,
            )
        )()

    state = torch.load(io.BytesIO(content), weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("diptych"), str) and m.chance(0.6):
        state["diptych"] = _document(m, state["diptych"])
    else:
        state = m.tree(state, leaf)
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def bson(m: Mutator, content: bytes, _: bytes = b"") -> bytes:
    """A BSON document with other values, and right lengths."""
    from diptych.formats.bson.wire import parse, serialise

    def leaf(value: Any) -> Any:
        return m.bytes(bytes(value)) if isinstance(value, bytes | memoryview) else value

    def storable(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key).replace("\0", ""): storable(one) for key, one in value.items()}
        if isinstance(value, list):
            return [storable(one) for one in value]
        whole = isinstance(value, int) and not isinstance(value, np.int32 | bool)
        return (value + 2**63) % 2**64 - 2**63 if whole else value

    changed = storable(m.tree(parse(content), leaf))
    return serialise(changed if isinstance(changed, dict) else {"model": changed})


def onnx(m: Mutator, content: bytes, _: bytes = b"") -> bytes:
    """An ONNX graph with other fields, and right lengths."""
    import onnx as library

    model = library.load_from_string(content)
    for _step in range(m.random.randint(1, 3)):
        message, field, value = m.random.choice(list(_fields(model)))
        _change_field(m, message, field, value)
    return bytes(model.SerializeToString())


def _fields(message: Any) -> Iterator[tuple[Any, Any, Any]]:
    for field, value in message.ListFields():
        yield message, field, value
        if field.type == field.TYPE_MESSAGE:
            for one in value if _repeated(value) else [value]:
                yield from _fields(one)


def _repeated(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)


def _change_field(m: Mutator, message: Any, field: Any, value: Any) -> None:
    if m.chance(0.1):
        message.ClearField(field.name)
        return
    if _repeated(value):
        if not len(value):
            return
        index = m.random.randrange(len(value))
        if m.chance(0.3):
            del value[index]
        elif m.chance(0.3) or field.type == field.TYPE_MESSAGE:
            one = value[m.random.randrange(len(value))]
            value.extend([one] * m.random.choice((1, 1, 2, 20)))
        else:
            value[index] = _scalar(m, field, value[index])
    elif field.type != field.TYPE_MESSAGE:
        if field.name == "value" and message.DESCRIPTOR.name == "StringStringEntryProto" and m.chance(0.8):
            message.value = _document(m, value)
        else:
            setattr(message, field.name, _scalar(m, field, value))


def _scalar(m: Mutator, field: Any, value: Any) -> Any:
    if isinstance(value, str):
        return m.random.choice(
            (m.bytes(value.encode()).decode("utf-8", "replace"), "", "Identity", "Reshape", "Conv", "Loop")
        )
    if isinstance(value, bytes):
        return m.bytes(value)
    if isinstance(value, float):
        return m.random.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), value * 2))
    if field.type == field.TYPE_ENUM:
        return m.random.choice(field.enum_type.values).number
    bits = 31 if field.type == field.TYPE_INT32 else 63
    edges = (0, 1, -1, 2, 3, 7, 16, 1000, 2**20, 2**bits - 1, value + 1, value * 2)
    return m.random.choice(edges) % 2**bits


def hdf5(m: Mutator, content: bytes, other: bytes = b"") -> bytes:
    """An HDF5 file with other bytes of the same number, and right checksums over them."""
    from diptych.formats.hdf5 import lookup3

    sums = list(_checked(content, lookup3))
    result = bytearray(content)
    if sums and m.chance(0.8):
        start, end = m.random.choice(sums)
        # The messages begin after the signature and the version.
        result[start + 5 : end] = m.bytes(content[start + 5 : end], other, same_length=True)
    else:
        result[:] = m.bytes(content, other, same_length=True)
    for start, end in sums:
        result[end : end + 4] = struct.pack("<I", lookup3(bytes(result[start:end])))
    return bytes(result)


def _checked(content: bytes, lookup3: Callable[[bytes], int]) -> Iterator[tuple[int, int]]:
    """Where the parts with a checksum begin and end."""
    candidates = []
    for signature in (b"\x89HDF", b"OHDR", b"FAHD", b"FADB", b"FRHP", b"BTHD", b"FHIB", b"FHDB"):
        at = content.find(signature)
        while at >= 0:
            candidates.append(at)
            at = content.find(signature, at + 1)
    for at in candidates:
        if content[at : at + 4] == b"OHDR":
            flags = content[at + 5]
            first = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            ends = [first + width + int.from_bytes(content[first : first + width], "little")]
        else:
            ends = list(range(at + 12, min(at + 400, len(content) - 3)))
        for end in ends:
            if content[end : end + 4] == struct.pack("<I", lookup3(content[at:end])):
                yield at, end
                break
