"""Large files from the web: resumed where they broke off, checked, and never half there under their name."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from diptych.errors import OutputError, UsageError, reason
from diptych.files import is_file, is_folder, permitted, replacing
from diptych.files import sha256 as sha256_of
from diptych.locks import flush_folder, locked
from diptych.progress import Progress, silent

__all__ = ["download", "local"]

_BLOCK = 2**18
_SCHEMES = ("http", "https")
_LONGEST_NAME = 200  # bytes, which leaves room for ".part.version"
_LONGEST_MARK = 1000
_MOST_DIGITS = 18  # of a number of bytes
_PATIENCE = 30.0  # seconds without a byte
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ValueError)


def local(place: str | os.PathLike[str], progress: Progress = silent) -> Path:
    """The file that a path or an address names.

    Args:
        place: A path, which is returned as it is, or an address http(s)://server/file, which is downloaded into the
            current folder. It may end in #sha256= and 64 hexadecimal digits, the file's checksum.
        progress: As for `download`.

    Returns:
        The path of the file.

    Raises:
        UsageError: As for `download`.
        OutputError: As for `download`.
    """
    address, mark, sha256 = str(place).partition("#sha256=")
    if not isinstance(place, str) or "://" not in address:
        return Path(place)
    return download(address, Path(), sha256 if mark else None, progress)


def download(
    url: str, folder: str | os.PathLike[str], sha256: str | None = None, progress: Progress = silent
) -> Path:
    """Downloads a file, unless it is there already.

    What arrives is kept in NAME.part, with the server's mark of its version beside it, until it is whole; a broken
    transfer is taken up there the next time, if the server can (HTTP Range) and its file is the same. While a transfer
    runs, no other process writes to NAME.part.

    Args:
        url: The address, http(s)://server/file.
        folder: Where the file goes, under the name that the address ends in; made where it is missing.
        sha256: The checksum of the file, 64 hexadecimal digits.
        progress: Told the bytes done, the bytes in all (0 if the server does not say), and the name.

    Returns:
        The path of the file.

    Raises:
        UsageError: The address is not an http(s) address of a file, or the checksum is not one.
        OutputError: The transfer fails (what came stays, to be resumed), another process is at it, the file cannot be
            written, or the checksum is wrong (the file is deleted).
    """
    address, name = _address(url)
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"a SHA-256 is 64 hexadecimal digits, not {sha256[:100]!r}; copy it again")
    target = Path(folder) / name
    missing = [place for place in target.parents if not is_folder(place)]
    try:
        return _kept_or_downloaded(address, target, sha256, progress, url[:200])
    finally:
        for place in missing:  # where nothing came, no folder stays either
            with suppress(OSError):
                place.rmdir()


def _kept_or_downloaded(
    address: str, target: Path, sha256: str | None, progress: Progress, shown: str
) -> Path:
    """The file, downloaded unless it is there."""
    name = target.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if _is_there(target, sha256):
            return target
        handle = locked(target.with_name(f"{name}.part"))
        if handle is None:
            raise OutputError(f"{target} is being downloaded by another process; wait until it has finished")
        with os.fdopen(handle, "r+b", buffering=0) as partial:
            try:
                if not _is_there(target, sha256):  # else the other process has finished meanwhile
                    _complete(address, target, partial, sha256, progress)
            finally:
                _leave_nothing(target)
    except _BROKEN as error:
        if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500:
            raise OutputError(
                f"{shown} could not be downloaded: the server answered {error.code} {reason(error.reason)}; check the "
                "address"
            ) from error
        why = reason(getattr(error, "reason", error))
        kept = is_file(f"{target}.part")
        then = (
            "what came is kept: try again to go on from there" if kept else "check the address, and try again"
        )
        raise OutputError(f"{shown} could not be downloaded whole ({why}); {then}") from error
    except OSError as error:
        raise OutputError(f"cannot write {target}: {reason(error)}; choose another place") from error
    return target


def _address(url: str) -> tuple[str, str]:
    """The address in ASCII, and the file name that it ends in; raises `UsageError` where it is not one of a file."""
    wrong = UsageError(f"a download needs an address http(s)://server/file, not {url[:100]!r}")
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")
        _ = parts.port  # which raises where it is not a number
        # What people copy from a browser's address line may hold letters that HTTP has no place for.
        path, query = (
            urllib.parse.quote(part, safe="%/:=&?~+!$,;'@()*[]") for part in (parts.path, parts.query)
        )
        server = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
        address = urllib.parse.urlunsplit((parts.scheme, server, path, query, ""))
        name = Path(urllib.parse.unquote(parts.path, errors="strict")).name
    except ValueError as error:
        raise wrong from error
    readable = name.isprintable() and len(os.fsencode(name)) <= _LONGEST_NAME and "\\" not in name
    if parts.scheme not in _SCHEMES or not host or not readable or name in ("", ".", ".."):
        raise wrong
    if re.search(r"[\s\x00-\x1f\x7f]", server):
        raise wrong
    return address, name


def _is_there(target: Path, sha256: str | None) -> bool:
    return is_file(target) and (sha256 is None or sha256_of(target) == sha256.lower())


def _complete(address: str, target: Path, partial: FileIO, sha256: str | None, progress: Progress) -> None:
    """Fetches what is missing, checks it, and puts it in its place."""
    part, mark = Path(f"{target}.part"), Path(f"{target}.part.version")
    _fetch(address, partial, mark, target.name, progress)
    if sha256 is not None and (found := sha256_of(part)) != sha256.lower():
        part.unlink()
        mark.unlink(missing_ok=True)
        raise OutputError(
            f"what {address[:200]} sent has the SHA-256 {found}, not {sha256}; it was deleted: check the address and "
            "the sum"
        )
    part.chmod(permitted(0o666))
    os.fsync(partial.fileno())
    if os.name == "nt":  # an open file cannot be renamed there
        partial.close()
    os.replace(part, target)  # noqa: PTH105 - atomic on every platform
    flush_folder(target.parent)


def _leave_nothing(target: Path) -> None:
    """Removes NAME.part and its mark where nothing came."""
    part = Path(f"{target}.part")
    with suppress(OSError):  # an open file cannot be removed on Windows: it is taken up the next time
        if is_file(part) and not part.stat().st_size:
            part.unlink()
        if not is_file(part):
            Path(f"{part}.version").unlink(missing_ok=True)


def _fetch(
    address: str, partial: FileIO, mark: Path, name: str, progress: Progress, *, again: bool = True
) -> None:
    done, version = partial.seek(0, os.SEEK_END), _version(mark)
    headers = {"User-Agent": "diptych", "Accept-Encoding": "identity"}
    if done and version:
        # If-Range: a server that has another version by now sends it from its beginning.
        headers |= {"Range": f"bytes={done}-", "If-Range": version}
    request = urllib.request.Request(address, headers=headers)
    try:
        answer: Any = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not again:
            raise
        partial.truncate(0)  # nothing comes after what we have: it was whole, or is of another version
        mark.unlink(missing_ok=True)
        return _fetch(address, partial, mark, name, progress, again=False)
    with answer:
        if answer.status == 206 and _starts_at(answer.headers.get("Content-Range", "")) != done:
            mark.unlink(missing_ok=True)
            raise OutputError(
                f"{address[:200]} could not be downloaded: the server sent another part of the file than was asked "
                "for; try again, from its beginning"
            )
        if answer.status != 206:
            done = 0
        partial.truncate(done)
        partial.seek(done)
        total = done + _length(answer.headers.get("Content-Length", ""))
        with replacing(mark) as temporary:
            temporary.write_text(_mark_of(answer.headers), "latin-1", "replace")
        while block := answer.read(_BLOCK):
            view = memoryview(block)
            while view:
                view = view[partial.write(view) :]
            done += len(block)
            progress(done, total, name)
    if done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")
    return None


def _mark_of(headers: Any) -> str:
    """What tells one version of the file from another: a strong ETag, or else when it was changed."""
    etag = headers.get("ETag", "")
    return str(etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", ""))[
        :_LONGEST_MARK
    ]


def _version(mark: Path) -> str:
    """The mark of what came before; "" where there is none that a server could have sent."""
    if mark.is_symlink() or not is_file(mark):
        return ""
    with mark.open("rb") as stream:
        text = stream.read(_LONGEST_MARK + 1).decode("latin-1")
    return text if len(text) <= _LONGEST_MARK and re.fullmatch(r"[\x20-\x7e]*", text) else ""


def _length(header: str) -> int:
    """The bytes that a server says will come; 0 where it does not say."""
    if not re.fullmatch("[0-9]+", header):
        return 0
    if len(header) > _MOST_DIGITS:
        raise ConnectionError("the server says that more bytes come than there are anywhere")
    return int(header)


def _starts_at(content_range: str) -> int:
    found = re.match("bytes ([0-9]{1,18})-", content_range)
    return int(found[1]) if found else -1
