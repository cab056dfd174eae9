"""Files of repositories of the Hugging Face Hub: from the cache if it has them, otherwise downloaded into it."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diptych.errors import OutputError, UsageError, reason
from diptych.extras import imported
from diptych.hub.cache import offline
from diptych.images.pretrained import online

__all__ = ["fetched", "parts"]

_ID = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")
_LONGEST_ID = 96  # characters, by the hub's rules
_ELSEWHERE = "where there is a connection, or name a folder that holds the files"


def parts(name: str) -> tuple[str, str | None]:
    """The repository and the revision of hf-hub:OWNER/NAME@REVISION.

    Raises:
        UsageError: It is not a name of this form.
    """
    repository, at, revision = name.removeprefix("hf-hub:").partition("@")
    good = _ID.fullmatch(repository) and len(repository) <= _LONGEST_ID and (not at or revision)
    if not good or ".." in repository or ".." in revision or "@" in revision:
        raise UsageError(
            f"a repository of the Hugging Face Hub is hf-hub:OWNER/NAME or hf-hub:OWNER/NAME@REVISION, "
            f"not {name[:120]!r}"
        )
    return repository, revision or None


def fetched(repository: str, file: str, revision: str | None = None) -> Path | None:
    """One file of a repository, in the cache.

    Args:
        repository: OWNER/NAME.
        file: Its name in the repository.
        revision: A branch, tag or commit; the main branch by default.

    Returns:
        The path in the cache, or None if the repository has no such file.

    Raises:
        UsageError: There is no such repository or revision, or its licence is not accepted yet.
        OutputError: The file is not in the cache and cannot be downloaded whole.
        MissingExtra: huggingface_hub is not installed.
    """
    hub = imported("huggingface_hub")
    cached = hub.try_to_load_from_cache(repository, file, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    if cached is not None:  # the cache knows that the repository does not have it
        return None
    if not online():  # the hub's client would try for half a minute
        raise _unreachable(repository, file, "it is offline" if offline() else "the hub does not answer")
    try:
        with _quietly():
            return Path(
                hub.hf_hub_download(
                    repository, file, revision=revision, etag_timeout=10, library_name="diptych"
                )
            )
    except Exception as error:  # the hub's client raises its own errors, the network's and those of the disk
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & {"RemoteEntryNotFoundError"} or (
            "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds
        ):
            return None
        raise _explained(repository, revision, file, error, kinds) from error


def _explained(
    repository: str, revision: str | None, file: str, error: Exception, kinds: set[str]
) -> Exception:
    page = f"https://huggingface.co/{repository}"
    if "GatedRepoError" in kinds:
        return UsageError(
            f"the licence of {repository} must be accepted first: open {page}, accept it, then run: hf auth login"
        )
    if "RevisionNotFoundError" in kinds:
        return UsageError(
            f"{repository} has no revision {revision!r}; those it has are listed at {page}/tree/main"
        )
    if "RepositoryNotFoundError" in kinds:
        return UsageError(
            f"there is no public repository {repository} on the Hugging Face Hub; check the name, or for a private "
            "one run: hf auth login"
        )
    cause: Any = error.__cause__ if "LocalEntryNotFoundError" in kinds and error.__cause__ else error
    broken = "consistency" in str(error).lower() or "incomplete" in str(error).lower()
    if broken:
        return OutputError(
            f"{file} of {repository} came only in part ({reason(error)}); nothing was kept under its name: try again"
        )
    return _unreachable(repository, file, reason(cause))


def _unreachable(repository: str, file: str, why: str) -> OutputError:
    if offline():
        return OutputError(
            f"{file} of {repository} is not in the cache, and HF_HUB_OFFLINE forbids to download it: unset it "
            f"{_ELSEWHERE}"
        )
    return OutputError(
        f"{file} of {repository} is not in the cache and could not be downloaded ({why}): try again {_ELSEWHERE}"
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the client's warnings and log lines off the terminal while the block runs."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
