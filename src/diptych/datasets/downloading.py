"""Large files from the web: resumed where they broke off, checked, and never half there under their name."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from diptych.errors import OutputError, UsageError, reason
from diptych.files import sha256 as sha256_of
from diptych.progress import Progress, silent

__all__ = ["download", "local"]

_BLOCK = 2**18
_SCHEMES = ("http", "https")
_PATIENCE = 30.0  # seconds without a byte
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def local(place: str | os.PathLike[str], progress: Progress = silent) -> Path:
    """A path as it is; an address http(s)://server/file is downloaded into the current folder first.

    The address may end in #sha256= and 64 hexadecimal digits, the file's checksum. Raises what `download` does.
    """
    address, mark, sha256 = str(place).partition("#sha256=")
    if not isinstance(place, str) or "://" not in address:
        return Path(place)
    return download(address, Path(), sha256 if mark else None, progress)


def download(
    url: str, folder: str | os.PathLike[str], sha256: str | None = None, progress: Progress = silent
) -> Path:
    """The file at `url`, in `folder` under the name that the address ends in; its path.

    A file that is there is not fetched again, if its `sha256` (hexadecimal), where one is given, is right.
    What arrives is kept in NAME.part, with the server's mark of its version beside it, until it is whole; a
    broken transfer is taken up there the next time, if the server can (HTTP Range) and its file is the same.
    `progress` gets bytes done, bytes in all (0 if the server does not say), and the name.

    Raises `UsageError` for an address that is not http(s) or a sum that is none, `OutputError` for a transfer
    that fails (what came stays, to be resumed) or whose checksum is wrong (it is deleted).
    """
    parts = urllib.parse.urlsplit(url)
    name = Path(urllib.parse.unquote(parts.path)).name
    if parts.scheme not in _SCHEMES or not name or name in (".", ".."):
        raise UsageError(f"a download needs an address http(s)://server/file, not {url[:100]!r}")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"a SHA-256 is 64 hexadecimal digits, not {sha256[:100]!r}; copy it again")
    target = Path(folder) / name
    if target.is_file() and (sha256 is None or sha256_of(target) == sha256.lower()):
        return target
    partial, mark = target.with_name(f"{name}.part"), target.with_name(f"{name}.part.version")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, partial, mark, progress)
        _check(partial, mark, sha256, url)
        os.replace(partial, target)  # noqa: PTH105 - atomic on every platform
        mark.unlink(missing_ok=True)
    except _BROKEN as error:
        if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500:
            raise OutputError(
                f"{url} could not be downloaded: the server answered {error.code} {error.reason}; check the address"
            ) from error
        why = reason(getattr(error, "reason", error))
        raise OutputError(
            f"{url} could not be downloaded whole ({why}); what came is kept: try again to go on from there"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}; choose another place") from error
    return target


def _fetch(url: str, partial: Path, mark: Path, progress: Progress) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    version = mark.read_text() if mark.exists() else ""
    headers = {"User-Agent": "diptych", "Accept-Encoding": "identity"}
    if done and version:
        # If-Range: a server that has another version by now sends it from its beginning.
        headers |= {"Range": f"bytes={done}-", "If-Range": version}
    request = urllib.request.Request(url, headers=headers)
    try:
        answer: Any = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:
            raise
        partial.unlink()  # nothing comes after what we have: it was whole, or is of another version
        mark.unlink(missing_ok=True)
        return _fetch(url, partial, mark, progress)
    with answer:
        resumed = answer.status == 206 and _starts_at(answer.headers.get("Content-Range", "")) == done
        done = done if resumed else 0
        length = answer.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() else 0
        etag = answer.headers.get("ETag", "")
        mark.write_text(
            etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        )
        with partial.open("ab" if resumed else "wb") as stream:
            while block := answer.read(_BLOCK):
                stream.write(block)
                done += len(block)
                progress(done, total, partial.stem)
    if done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")
    return None


def _starts_at(content_range: str) -> int:
    start = content_range.removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdecimal() else -1


def _check(partial: Path, mark: Path, sha256: str | None, url: str) -> None:
    if sha256 is None:
        return
    found = sha256_of(partial)
    if found != sha256.lower():
        partial.unlink()
        mark.unlink(missing_ok=True)
        raise OutputError(
            f"what {url} sent has the SHA-256 {found}, not {sha256}; it was deleted: check the address and the sum"
        )
