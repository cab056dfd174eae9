"""The page in the browser: the files of a folder in the package, where it was built."""

from __future__ import annotations

import mimetypes
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from diptych.serving.answers import Answer, Refusal

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
_PLAIN = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Diptych</title>
<link rel="stylesheet" href="/api/docs.css">
<h1>Diptych serves models here</h1>
<p>This installation has no page for the browser. Programs ask at
<a href="/v2">/v2</a> (Open Inference Protocol), <a href="/api/docs">/api</a> (the verbs of Diptych) and
<a href="/metrics">/metrics</a> (Prometheus).</p></html>
"""


class Site:
    """The static files at /.

    Args:
        folder: Where they lie; by default `site` in the package.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = Path(str(files("diptych") / "site")) if folder is None else folder
        self._files = self._listed()

    def _listed(self) -> dict[str, Path]:
        """The files by their addresses, so that no request reaches any other."""
        if not (self._folder / "index.html").is_file():
            return {}
        found = {
            f"/{path.relative_to(self._folder).as_posix()}": path
            for path in sorted(self._folder.rglob("*"))
            if path.is_file()
        }
        for address, path in list(found.items()):
            if path.name == "index.html":
                found[address.removesuffix("index.html")] = path
        return found

    def answer(self, method: str, path: str, known: bytes | None) -> Answer:
        """The file at an address.

        Args:
            method: Of HTTP.
            path: The address.
            known: The header If-None-Match.

        Raises:
            Refusal: There is none.
        """
        if not self._files and path == "/":
            found, tag, kind = _PLAIN.encode(), b'"plain"', "text/html; charset=utf-8"
        elif path in self._files:
            file = self._files[path]
            found, tag = _content(file)
            kind = (
                _TYPES.get(file.suffix.lower())
                or mimetypes.guess_type(file.name)[0]
                or "application/octet-stream"
            )
        else:
            raise Refusal(
                404, f"there is nothing at {path[:200]!r}; the protocol is at /v2, the verbs are at /api/docs"
            )
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


@cache
def _content(file: Path) -> tuple[bytes, bytes]:
    """A file and its tag."""
    content = file.read_bytes()
    return content, b'"' + sha256(content).hexdigest()[:32].encode() + b'"'
