"""What the server answers: bodies with a status, and refusals in one sentence."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from diptych.errors import DiptychError, MissingExtra, TooManyPixels, out_of_memory

__all__ = ["Answer", "Paths", "Refusal", "json_answer", "json_bytes", "refusal_of", "retry_after"]

Headers = Sequence[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
TEMPORARY = "diptych-upload-"
"""How the names of folders begin that hold what visitors have sent."""
_TEMPORARY = re.compile(rf"{TEMPORARY}[a-z0-9_]+/")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    body: bytes
    headers: Headers = (JSON,)


class Refusal(Exception):
    """A request that gets an error: one sentence, and the status that says it to a program.

    Args:
        status: The status of HTTP.
        message: What was expected, what came, and what to do next.
        headers: Further headers, such as Retry-After.
        reason: What the metrics count it as, in Triton's words: REJECTED, CANCELED, BACKEND or OTHER.
    """

    def __init__(self, status: int, message: str, headers: Headers = (), reason: str = "OTHER") -> None:
        super().__init__(message)
        self.status, self.message, self.headers, self.reason = status, message, headers, reason

    def answer(self) -> Answer:
        """The refusal as a response, `{"error": ...}`, as the Open Inference Protocol has it."""
        return json_answer({"error": self.message}, self.status, self.headers)


def json_answer(document: Any, status: int = 200, headers: Headers = ()) -> Answer:
    """A JSON document as a response."""
    return Answer(status, json_bytes(document), (JSON, *headers))


def json_bytes(document: Any) -> bytes:
    """A document as JSON. Numbers that JSON cannot hold become null, and what is no text in a name is escaped."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return json.dumps(document, default=str).encode()


def retry_after(seconds: int) -> Headers:
    """The header that says when to ask again."""
    return ((b"retry-after", str(seconds).encode()),)


class Paths:
    """Where the server's files lie, which no message to a client names.

    Args:
        folders: Folders of models, beside those that every system has.
    """

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        known = {*folders, Path(tempfile.gettempdir()), Path.cwd(), Path.home(), Path(__file__).parents[2]}
        texts = {str(path) for folder in known for path in (folder, folder.resolve())} - {".", "/"}
        own = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))
        # Names of other things begin with a slash, too, such as those of ONNX's nodes.
        tops = "|".join(re.escape(path.name) for path in Path("/").iterdir())
        self._known = re.compile(rf"(?<![\w.:/\\-])(?:{own})/")
        self._others = re.compile(rf"(?<![\w.:/\\-])/(?:{tops})/(?:[^\s/'\",;:()]+/)*")

    def hidden(self, text: str) -> str:
        """The text with every path cut to the name at its end."""
        return _TEMPORARY.sub("", self._others.sub("", self._known.sub("", text)))


def refusal_of(error: BaseException, paths: Paths) -> Refusal | None:
    """The refusal that an error of Diptych becomes; None for a fault of the server."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TooManyPixels):
        return Refusal(
            413,
            f"the picture claims {error.width} x {error.height} pixels, more than the {error.limit:,} that this server "
            "takes; make it smaller",
        )
    if out_of_memory(error):
        return Refusal(413, "there is not enough memory for this request; send less, or a smaller picture")
    if isinstance(error, MissingExtra):
        needs = str(error).partition("; install")[0]
        return Refusal(400, f"{needs}, which this server does not have; ask whoever runs it to install it")
    if isinstance(error, DiptychError):
        return Refusal(400, paths.hidden(str(error)), reason="BACKEND")
    return None
