"""The page in the browser."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Any

import orjson

from diptych.serving.answers import Answer, Refusal
from diptych.site import site_files

__all__ = ["Site"]

_POLICY = (
    b"default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'self'; "
    b"img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self'; connect-src 'self' data: blob:; "
    b"manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".woff2": "font/woff2",
    ".onnx": "application/octet-stream",
}


class Site:
    """The files of `diptych.site` at /; what Python makes for it is made when it is first asked for.

    Args:
        server: What the page must know of the server, as "server" in contents.json.
    """

    def __init__(self, server: Callable[[], dict[str, Any]]) -> None:
        self._server = server

    def answer(self, method: str, path: str, known: bytes | None) -> Answer:
        """The file at an address.

        Args:
            method: Of HTTP.
            path: The address.
            known: The header If-None-Match.

        Raises:
            Refusal: There is none.
        """
        name = "index.html" if path == "/" else path.removeprefix("/")
        if name not in site_files():
            raise Refusal(
                404, f"there is nothing at {path[:200]!r}; the protocol is at /v2, the verbs are at /api/docs"
            )
        found, tag = _content(name) if name != "contents.json" else self._contents()
        suffix = name[name.rfind(".") :]
        kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        if method not in ("GET", "HEAD"):
            raise Refusal(405, f"{path[:200]} is asked with GET, not {method}", ((b"allow", b"GET, HEAD"),))
        headers = (
            (b"content-type", kind.encode()),
            (b"content-security-policy", _POLICY),
            (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cache-control", b"no-cache"),
            (b"etag", tag),
        )
        return Answer(304, b"", headers) if known == tag else Answer(200, found, headers)

    def _contents(self) -> tuple[bytes, bytes]:
        content = orjson.dumps({**orjson.loads(_content("contents.json")[0]), "server": self._server()})
        return content, _tag(content)


@cache
def _content(name: str) -> tuple[bytes, bytes]:
    """A file and its tag."""
    content = site_files()[name]()
    return content, _tag(content)


def _tag(content: bytes) -> bytes:
    return b'"' + sha256(content).hexdigest()[:32].encode() + b'"'
