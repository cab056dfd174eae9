"""Every exception Diptych raises on purpose.

    DiptychError
    ├── UsageError             a name, option or combination that does not exist        (exit status 2)
    │   └── MissingExtra       an optional package is needed: the message is its install line
    ├── ImageError             a picture that cannot be read, or is not one
    │   └── TooManyPixels      a picture whose header claims more pixels than the limit
    ├── FormatError            a model file that is not what it says it is
    │   └── WeightsAlone       a file of weights without the model they belong to
    ├── ModelError             weights, classes or settings that contradict each other
    │   ├── ShapeError         an array whose shape the model or a step cannot take
    │   └── UnsupportedLayer   a layer that this engine or format cannot express
    ├── GenerationError        a text-to-image model that cannot be had or cannot run
    └── OutputError            a file or folder that cannot, or must not, be written

A message is one sentence that says what was expected, what came, where, and what to do next. Where memory runs out,
Python's own `MemoryError` is raised, or an `ImageError` that says so of one picture.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_LONGEST = 2000  # characters of a message
_OUT_OF_MEMORY = re.compile(
    r"bad_?alloc|out ?of ?memory|memory allocation|insufficient memory|failed to map segment"
    r"|failed to serialize proto|could not be made C-contiguous"
    r"|(cannot|can't|failed to|unable to|could not) (allocate|alloc)\b",
    re.IGNORECASE,
)
_OF_PYTHON = re.compile(
    r"int\(\)|float\(\)|unpack requires|to unpack|operand|argument|bytes-like|array|dimension|reshape|buffer|codec"
    r"|object|out of range|\bb['\"]"
)
_LINE_ENDS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


class DiptychError(Exception):
    """The base of the tree: `except DiptychError` catches whatever Diptych raises on purpose.

    A message may quote names from a file, which hold anything: it is made one line, and of a very long one the middle
    is left out, so that what to do next is still there.
    """

    def __init__(self, message: str = "") -> None:
        line = _LINE_ENDS.sub(" ", str(message))
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST * 2 // 3]} [...] {line[-_LONGEST // 4 :]}"
        super().__init__(line)


class UsageError(DiptychError):
    """The call itself is wrong: an unknown name, an option out of range."""


class MissingExtra(UsageError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}; install it with: {install_command(extra)}"
        )


def install_command(extra: str) -> str:
    """The command that installs an extra from where this Diptych was installed: a clone, an address, or PyPI.

    Args:
        extra: Such as "torch".
    """
    import json
    import shlex
    from importlib import metadata
    from urllib.request import url2pathname

    try:
        text = metadata.distribution("diptych").read_text("direct_url.json")
        origin = json.loads(text or "{}")
        url, versioned = str(origin.get("url", "")), origin.get("vcs_info", {}).get("vcs")
        editable = bool(origin.get("dir_info", {}).get("editable"))
    except (metadata.PackageNotFoundError, OSError, ValueError, AttributeError):
        url, versioned, editable = "", None, False
    place = Path(url2pathname(url.removeprefix("file://"))) if url.startswith("file:") else None
    if versioned:
        wanted = f"diptych[{extra}] @ {versioned}+{url}"
    elif place is not None and (place / "pyproject.toml").is_file():
        return f"pip install {'-e ' if editable else ''}{shlex.quote(f'{place}[{extra}]')}"
    elif url and (place is None or place.is_file()):
        wanted = f"diptych[{extra}] @ {url}"
    else:
        wanted = f"diptych[{extra}]"
    return f"pip install {shlex.quote(wanted)}"


class ImageError(DiptychError):
    """A picture that cannot be read."""


class TooManyPixels(ImageError):
    """A picture whose header claims more pixels than the limit.

    Attributes:
        width: What the header claims, in pixels.
        height: As `width`.
        limit: The most pixels.
    """

    def __init__(self, message: str, width: int = 0, height: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.width, self.height, self.limit = width, height, limit


class FormatError(DiptychError):
    """A model file that is damaged, or of another kind than its name says."""


class WeightsAlone(FormatError):
    """A file that holds weights, and not how its layers compute.

    Attributes:
        arrays: The name and sizes of each array, in the order of the file's framework.
        layers: The layers that these sizes tell of, as Flux writes them; "" where they tell of none.
    """

    def __init__(
        self, message: str, arrays: Sequence[tuple[str, tuple[int, ...]]] = (), layers: str = ""
    ) -> None:
        super().__init__(message)
        self.arrays, self.layers = tuple(arrays), layers


class ModelError(DiptychError):
    """A model whose parts contradict each other."""


class ShapeError(ModelError):
    """An array of a shape that the receiver cannot take."""


class UnsupportedLayer(ModelError):
    """A layer, or another part of a model, that an engine or a format cannot express.

    Args:
        name: The path and kind of the layer, such as "3.1 (Conv)", or its name in a foreign graph.
        where: The engine or format.
        reason: Why.
        what: What has that name; the name may then be empty.
    """

    def __init__(self, name: str, where: str, reason: str, what: str = "the layer") -> None:
        super().__init__(f"{where} cannot express {what}{f' {name}' if name else ''}: {reason}")


class GenerationError(DiptychError):
    """A text-to-image model that cannot be loaded or cannot run here."""


class OutputError(DiptychError):
    """A file or folder that cannot be written, or that belongs to something else."""


def reason(error: object, most: int = 160) -> str:
    """What somebody else's error says, on one line of at most `most` characters; its kind where that is nothing."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())[:most] or type(error).__name__


def damage(error: object) -> str:
    """What a library says of a damaged file, or that its parts do not fit where those are words for programmers."""
    speaks = isinstance(error, OSError | SyntaxError) or type(error) is ValueError
    own = type(error).__module__ not in ("builtins", "struct")
    if isinstance(error, str) or ((speaks or own) and not _OF_PYTHON.search(str(error))):
        return reason(error)
    return "its parts do not fit together"


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, tells that memory ran out.

    Native libraries have words of their own for it, and whatever reads a file may have taken it for damage.
    """
    for each in causes(error):
        foreign = not isinstance(each, DiptychError)  # ours may quote a name from a file
        if isinstance(each, MemoryError) or (foreign and _OUT_OF_MEMORY.search(str(each))):
            return True
    return False


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came of, as a traceback shows them; each once, for they may form a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
