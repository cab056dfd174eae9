"""Reading the body of a request within bounds of bytes and memory."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from diptych.serving.answers import Refusal, retry_after
from diptych.serving.asgi import Receive

__all__ = ["Room", "Share", "body_of"]

_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_RAW_DEFLATE = -zlib.MAX_WBITS


class Room:
    """How many bytes of requests are held at once, by all of them together.

    Args:
        most: The most bytes.
    """

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one request holds, given back at the end of the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self.taken -= share.bytes


class Share:
    """What one request holds.

    Attributes:
        bytes: How much that is.
    """

    def __init__(self, room: Room) -> None:
        self._room, self.bytes = room, 0

    def take(self, count: int) -> None:
        """Takes as many bytes more. Raises `Refusal` where there is no room for them now."""
        if self._room.taken + count > self._room.most:
            raise Refusal(
                503,
                f"the server holds {self._room.taken:,} bytes for other requests and has no room for {count:,} more; "
                "try again",
                retry_after(1),
                "REJECTED",
            )
        self._room.taken += count
        self.bytes += count


async def body_of(
    receive: Receive, headers: Mapping[bytes, bytes], share: Share, most: int, seconds: float
) -> bytes:
    """The body of a request, unpacked where it is gzip or deflate.

    Args:
        receive: Of ASGI.
        headers: The request's.
        share: Where the bytes are counted.
        most: The most bytes, packed and unpacked.
        seconds: How long it may take to arrive.

    Raises:
        Refusal: There are more bytes, the packing is unknown or damaged, the client hung up, or took too long.
    """
    packing = headers.get(b"content-encoding", b"").strip().lower()
    if packing and packing != b"identity" and packing not in _WINDOWS:
        raise Refusal(
            415,
            f"a body is plain, gzip or deflate, not {packing[:40].decode('latin-1')!r}",
            ((b"accept-encoding", b"gzip, deflate"),),
        )
    length = headers.get(b"content-length")
    if length is not None:
        _check(int(length), most)
    parts, received = list[bytes](), 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(
                        499, "the client hung up before its request was complete", reason="CANCELED"
                    )
                part = message.get("body", b"")
                received += len(part)
                _check(received, most)
                share.take(len(part))  # as they come: what is only announced takes no room from others
                parts.append(part)
                if not message.get("more_body", False):
                    break
    except TimeoutError as error:
        raise Refusal(408, f"the body did not arrive within {seconds:g} s; send it again") from error
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    return body if packing in (b"", b"identity") else _unpacked(body, packing, share, most)


def _check(count: int, most: int) -> None:
    if count > most:
        raise Refusal(
            413, f"the body has {count:,} bytes or more, and this server takes at most {most:,}; send less"
        )


def _unpacked(body: bytes, packing: bytes, share: Share, most: int) -> bytes:
    """What a body holds; "deflate" is a zlib stream by its standard, and a bare one from some programs."""
    window = _WINDOWS[packing]
    if packing == b"deflate" and (len(body) < 2 or body[0] & 15 != 8 or int.from_bytes(body[:2]) % 31):
        window = _RAW_DEFLATE
    unpacking = zlib.decompressobj(window)
    try:
        content = unpacking.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(
            400, f"the body is not {packing.decode()}, as its header says; send it again"
        ) from error
    _check(len(content), most)
    if not unpacking.eof or unpacking.unused_data:
        raise Refusal(
            400, f"the body is a {packing.decode()} stream that is cut off or goes on; send it again"
        )
    share.take(len(content))
    return content
