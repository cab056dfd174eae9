"""Names of classes: of well-known data sets, and from a user's list or file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from diptych.errors import FormatError, UsageError, reason
from diptych.files import is_file, opened
from diptych.model.model import Model
from diptych.model.validity import output_features

__all__ = ["NAMES", "chosen", "different", "named", "of"]

NAMES = ("imagenet-1k", "cifar-10", "cifar-100")
"""The data sets whose class names are in the box."""

_LARGEST = 2**24  # bytes of a file of names
_MOST = 1_000_000
_SUFFIXES = (".txt", ".json", ".csv", ".names", ".labels", ".lst")


def of(name: str) -> tuple[str, ...]:
    """The names of a data set of `NAMES`, in the order of a model's outputs."""
    text = (resources.files("diptych.datasets") / "names" / f"{name}.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


def chosen(given: str | Path | Iterable[str]) -> tuple[str, ...]:
    """The class names that a user means.

    Args:
        given: A list of names; the name of a data set of `NAMES`; a file with one name a line, or with JSON: a list
            of names, or an object from numbers to names (or lists of names, of which the last is taken, as Keras
            writes [synset, name]), or from names to numbers; or names separated by commas.

    Raises:
        FormatError: The file holds no names.
        UsageError: There is no such file, or names are empty or occur twice.
    """
    if not isinstance(given, str | Path):
        return _checked(given)
    if given in NAMES:
        return of(str(given))
    path = Path(given)
    if is_file(path):
        return _checked(_of_file(path))
    if isinstance(given, Path) or path.suffix.lower() in _SUFFIXES:
        raise UsageError(
            f"there is no file {path} with class names; name a file with one a line or with JSON, one of "
            f"{', '.join(NAMES)}, or the names separated by commas"
        )
    return _checked(given.split(","))


def named(model: Model, classes: Iterable[str] | None) -> Model:
    """The model with class names that its author gives: made different, and left out if they are not as many.

    Args:
        model: A model.
        classes: A name for each output, or None.
    """
    if classes is None:
        return model
    names, outputs = different(classes), output_features(model)
    if outputs is not None and outputs != len(names):
        remark = f"it comes with {len(names)} class names, but has {outputs} outputs; they were left out"
        return model.with_(source=replace(model.source, warnings=(*model.source.warnings, remark)))
    return model.with_(classes=names)


def different(names: Iterable[str]) -> tuple[str, ...]:
    """The names, where those that occur several times have their number behind them."""
    given = [str(name).strip() for name in names]
    count = Counter(given)
    return tuple(
        name if count[name] == 1 and name else f"{name} ({i})".strip() for i, name in enumerate(given)
    )


def _checked(names: Iterable[Any]) -> tuple[str, ...]:
    result = tuple(str(name).strip() for name in names)
    twice = next((name for name, count in Counter(result).items() if count > 1), None)
    if not result or not all(result):
        raise UsageError("class names must be different and not empty; separate them by commas")
    if twice is not None:
        raise UsageError(
            f"class names must be different and not empty, but {twice[:60]!r} occurs twice; change one of them"
        )
    return result


def _of_file(path: Path) -> list[str]:
    try:
        with opened(path) as stream:
            content = stream.read(_LARGEST + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise FormatError(f"cannot read {path}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path} is not text in UTF-8; a file of class names has one a line, or JSON"
        ) from error
    if len(content) > _LARGEST or "\0" in text:
        raise FormatError(f"{path} is not a list of class names: it is too large, or not text")
    if text.lstrip()[:1] in ("[", "{"):
        return _of_json(path, text)
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _of_json(path: Path, text: str) -> list[str]:
    wrong = FormatError(
        f"{path} is JSON, but not a list of class names, nor an object from the numbers 0, 1, 2, ... to names"
    )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} looks like JSON, but is damaged or cut off ({reason(error)})") from error
    if isinstance(value, dict) and isinstance(value.get("id2label"), dict):
        value = value["id2label"]
    if isinstance(value, dict):
        if value and all(isinstance(number, int) for number in value.values()):
            value = {str(number): name for name, number in value.items()}
        if len(value) > _MOST or set(value) != {str(i) for i in range(len(value))}:
            raise wrong
        value = [value[str(i)] for i in range(len(value))]
    names = [entry[-1] if isinstance(entry, list) and entry else entry for entry in value]
    if not all(isinstance(name, str) for name in names):
        raise wrong
    return names
