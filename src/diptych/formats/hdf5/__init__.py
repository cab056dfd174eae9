"""The part of HDF5 that JLD2 files use, read without the HDF5 library.

Section numbers refer to the "HDF5 File Format Specification Version 3.0" (The HDF Group). Everything is read from one
memory map without copying. Addresses are relative to the superblock, as in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diptych.errors import FormatError
from diptych.formats.hdf5.mapped import NOWHERE, Cursor, MappedFile, lookup3
from diptych.formats.hdf5.messages import (
    Attribute,
    Dataspace,
    Datatype,
    Filter,
    Layout,
    read_attribute,
    read_dataspace,
    read_datatype,
    read_filters,
    read_layout,
    read_link,
    read_link_info,
    read_shared,
)

__all__ = ["Cursor", "Hdf5File", "Object", "lookup3"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass
class Object:
    """An object of the file (a group, a dataset or a committed type) with the messages of its header."""

    address: int
    datatype: Datatype | None = None
    dataspace: Dataspace | None = None
    layout: Layout | None = None
    filters: tuple[Filter, ...] = ()
    attributes: dict[str, Attribute] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    is_group: bool = False


class Hdf5File(MappedFile):
    """A mapped HDF5 file: its superblock (II.A), its objects by address (IV.A) and its global heaps (III.E).

    Args:
        path: The file.

    Raises:
        FormatError: Here and in every method, if the file is damaged or not supported, with the byte.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.start = self._find_superblock()
        self.base = self.start
        self.root = NOWHERE
        self._objects: dict[int, Object] = {}
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        # A hostile file may contain a million overlapping headers; a good file needs each byte once.
        self._header_budget = 4 * self.size + 65536
        self._read_superblock()

    # -- superblock

    def _find_superblock(self) -> int:
        """II.A: the signature stands at byte 0, 512, 1024, 2048 and so on, doubling."""
        at = 0
        while at + 8 <= self.size:
            if bytes(self.data[at : at + 8]) == SIGNATURE:
                return at
            at = max(512, 2 * at)
        raise FormatError(
            f"{self.path} is not an HDF5 file, or is cut short: there is no signature at byte 0, 512, 1024 or 2048; "
            "give a file that JLD2 wrote"
        )

    def _read_superblock(self) -> None:
        """II.A, versions 0 to 3."""
        at = self.start + 8
        version = self.uint(at, 1)
        if version in (2, 3):
            self._read_superblock_2(at)
        elif version in (0, 1):
            self._read_superblock_0(at, version)
        else:
            self.refuse(f"an HDF5 superblock of version {version}", at, "save the model again with JLD2")

    def _read_superblock_2(self, at: int) -> None:
        if (self.uint(at + 1, 1), self.uint(at + 2, 1)) != (8, 8):
            self.refuse("HDF5 offsets that are not of 8 bytes", at + 1, "save it again on a 64-bit machine")
        if self.uint(at + 36, 4) != lookup3(bytes(self.bytes(self.start, 44))):
            self.fail("the checksum of the superblock is wrong", at + 36)
        self._set_base(self.uint(at + 4, 8), at + 4)
        self.root = self.uint(at + 28, 8)

    def _read_superblock_0(self, at: int, version: int) -> None:
        if (self.uint(at + 5, 1), self.uint(at + 6, 1)) != (8, 8):
            self.refuse("HDF5 offsets that are not of 8 bytes", at + 5, "save it again on a 64-bit machine")
        addresses = at + 16 + (4 if version == 1 else 0)
        self._set_base(self.uint(addresses, 8), addresses)
        self.root = self.uint(addresses + 40, 8)

    def _set_base(self, base: int, at: int) -> None:
        # If a block was put in front of a file, its base is still 0: addresses count from the superblock.
        if base not in (0, self.start):
            self.fail(f"the superblock stands at byte {self.start} but says {base}", at)
        self.base = self.start

    # -- object headers

    def object(self, address: int) -> Object:
        """IV.A.1: the object whose header is at `address`."""
        known = self._objects.get(address)
        if known is None:
            known = self._objects[address] = Object(address)
            try:
                self._read_header(known)
            except BaseException:
                del self._objects[address]
                raise
        return known

    def _read_header(self, thing: Object) -> None:
        at = self.place(thing.address)
        if bytes(self.data[at : at + 4]) == b"OHDR":
            messages = self._messages_2(at)
        elif self.uint(at, 1) == 1:
            messages = self._messages_1(at)
        else:
            self.fail("no object header", at)
        for kind, flags, cursor in messages:
            self._read_message(thing, kind, flags, cursor)

    def _spend(self, count: int, at: int) -> None:
        self._header_budget -= count
        if self._header_budget < 0:
            self.fail("object headers lie over one another", at)

    def _messages_1(self, at: int) -> Iterator[tuple[int, int, Cursor]]:
        """IV.A.1.a, version 1: messages aligned to 8 bytes."""
        blocks = [(at + 16, self.uint(at + 8, 4))]
        seen = {at + 16}
        for start, length in blocks:
            self._spend(length, start)
            cursor = self.cursor(start, length)
            while cursor.left >= 8:
                kind, size, flags = cursor.uint(2), cursor.uint(2), cursor.uint(1)
                cursor.skip(3)
                body = cursor.part(size)
                if kind == 0x10:
                    start, length = self.place(body.uint(8)), body.uint(8)
                    if start in seen:
                        self.fail("an object header continues in itself", body.at)
                    seen.add(start)
                    blocks.append((start, length))
                else:
                    yield kind, flags, body

    def _messages_2(self, at: int) -> Iterator[tuple[int, int, Cursor]]:
        """IV.A.1.b, version 2: checksummed blocks, continued by message 0x10."""
        if self.uint(at + 4, 1) != 2:
            self.refuse(
                f"an object header of version {self.uint(at + 4, 1)}", at, "save the model again with JLD2"
            )
        flags = self.uint(at + 5, 1)
        first = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        length = self.uint(first, width)
        head = 6 if flags & 4 else 4
        blocks = [(at, first + width, length)]
        seen = {at}
        for begin, start, length in blocks:
            self._spend(length + 16, start)
            cursor = self.cursor(start, length)
            if self.uint(start + length, 4) != lookup3(bytes(self.bytes(begin, start + length - begin))):
                self.fail("the checksum of an object header is wrong", begin)
            while cursor.left >= head:
                kind, size, message_flags = cursor.uint(1), cursor.uint(2), cursor.uint(1)
                cursor.skip(head - 4)
                body = cursor.part(size)
                if kind == 0x10:
                    following, length = self.place(body.uint(8)), body.uint(8)
                    # JLD2 reserves room for a continuation as a message of length 0 or of type 0.
                    if following in seen or length < 8 or bytes(self.bytes(following, 4)) != b"OCHK":
                        self.fail("an object header continues nowhere or in itself", body.at)
                    seen.add(following)
                    blocks.append((following, following + 4, length - 8))
                else:
                    yield kind, message_flags, body

    def _read_message(self, thing: Object, kind: int, flags: int, c: Cursor) -> None:
        """Reads a message (IV.A.2) if it matters; others are skipped unless they are marked as required."""
        if kind == 0x01:
            thing.dataspace = read_dataspace(c)
        elif kind == 0x03:
            thing.datatype = read_shared(c) if flags & 2 else read_datatype(c)
        elif kind == 0x08:
            thing.layout = read_layout(c)
        elif kind == 0x0B:
            thing.filters = read_filters(c)
        elif kind == 0x0C:
            attribute = read_attribute(c)
            thing.attributes[attribute.name] = attribute
        elif kind == 0x06:
            name, address = read_link(c)
            thing.links[name] = address
            thing.is_group = True
        elif kind == 0x0A:
            thing.is_group = True
        elif kind == 0x02:
            read_link_info(c)
            thing.is_group = True
        elif kind == 0x11:
            self.refuse("an old-style HDF5 group (a symbol table)", c.at, "save the model again with JLD2")
        elif kind == 0x07:
            self.refuse("data kept in another file", c.at, "save the model again with JLD2 into one file")
        elif flags & 0x08:
            self.refuse(f"an HDF5 message of type {kind:#x}", c.at, "save the model again with JLD2")

    # -- global heap

    def heap_object(self, address: int, index: int) -> memoryview:
        """III.E: object `index` of the global heap collection at `address`."""
        heap = self._heaps.get(address)
        if heap is None:
            heap = self._heaps[address] = self._read_heap(address)
        if index not in heap:
            self.fail(f"the global heap has no object {index}", self.place(address))
        at, size = heap[index]
        return self.bytes(at, size)

    def _read_heap(self, address: int) -> dict[int, tuple[int, int]]:
        start = self.place(address)
        if bytes(self.bytes(start, 4)) != b"GCOL" or self.uint(start + 4, 1) != 1:
            self.fail("no global heap", start)
        # JLD2 counts the collection's size without its own 16 bytes, the specification with them.
        end = min(self.size, start + 16 + self.uint(start + 8, 8))
        self._spend(end - start, start)
        found: dict[int, tuple[int, int]] = {}
        at = start + 16
        while at + 16 <= end:
            index, size = self.uint(at, 2), self.uint(at + 8, 8)
            if index == 0:
                break
            found.setdefault(index, (at + 16, size))
            at += 16 + (size + 7) // 8 * 8
        return found
