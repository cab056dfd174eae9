"""Python functions as filters.

A function takes uint8 and returns uint8 levels or floats in 0..1, of the same size.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UsageError
from diptych.filters.target import Target
from diptych.filters.targets.named import nearest
from diptych.model.layers import Array

__all__ = ["CheckedFunction", "described", "imported"]

_SLACK = 1e-3  # floats may exceed 0..1 by this much, for rounding errors
_TRIAL = (61, 83)  # odd and unequal, so that halved sizes and swapped axes are noticed


class Raised(UsageError):
    """The user's function raised an exception, whose message is part of this one."""


@dataclass(frozen=True)
class CheckedFunction:
    """A user's function whose results are checked. Its results are in levels.

    Raises `UsageError` where the result is not a picture of the same size, and where the function raises.
    """

    function: Callable[[Any], Any]
    name: str

    def __call__(self, image: Array) -> Array:
        """Uint8 levels, or float64 levels where the function returns floats."""
        given = np.array(image, order="C")
        try:
            with _quietly():
                answer = np.asarray(self.function(given))
        except (Exception, SystemExit) as error:
            reason = " ".join(str(error).split())[:200]
            raise Raised(
                f"{self.name} raised {type(error).__name__} on a uint8 picture of shape {image.shape}: "
                f"{reason or 'without a message'}"
            ) from error
        if not np.array_equal(given, image):
            raise UsageError(
                f"{self.name} changes the picture that is passed to it; let it work on a copy: image.copy()"
            )
        return self._levels(answer, image)

    def _levels(self, answer: Array, image: Array) -> Array:
        if answer.ndim == 3 and answer.shape[2] == 1:
            answer = answer[..., 0]
        height, width = image.shape[:2]
        if answer.shape not in ((height, width), (height, width, 3)):
            raise UsageError(
                f"{self.name} must return a picture of the same size, ({height}, {width}) or "
                f"({height}, {width}, 3), and returned {_shape_text(answer)}"
            )
        if answer.dtype == np.uint8:
            return answer
        if answer.dtype.kind != "f":
            hint = "255 * mask.astype(numpy.uint8)" if answer.dtype == bool else "result.astype(numpy.uint8)"
            raise UsageError(
                f"{self.name} must return uint8 (0 to 255) or floats (0 to 1), not {answer.dtype}; return {hint}"
            )
        return self._from_floats(answer)

    def _from_floats(self, answer: Array) -> Array:
        if not np.isfinite(answer).all():
            count = int((~np.isfinite(answer)).sum())
            raise UsageError(
                f"{self.name} returned {count} values that are NaN or infinite; it must return floats from 0 to 1"
            )
        low, high = float(answer.min()), float(answer.max())
        if low < -_SLACK or high > 1 + _SLACK:
            hint = "divide by 255" if 1.5 < high < 256 and low >= -1 else "use numpy.clip(result, 0, 1)"
            raise UsageError(
                f"{self.name} returned floats from {low:.4g} to {high:.4g}; floats must be from 0 to 1 ({hint}), "
                "uint8 from 0 to 255"
            )
        return answer.astype(np.float64) * 255


def described(function: Callable[[Any], Any], name: str = "") -> Target:
    """Makes a filter of a function, after a trial on a small picture.

    The trial uses a colour picture, and a grey one where the function raises on colour. The padding mode, the radius
    and whether channels are alike remain open; `probing.probe` finds them.

    Args:
        function: From uint8 (H, W, 3) or (H, W) to uint8 levels or floats in 0..1 of the same size.
        name: What to call it; by default the function's own name.

    Raises:
        UsageError: The function raises, or returns something else.
    """
    called = name or _name_of(function)
    checked = CheckedFunction(function, called)
    picture = np.random.default_rng(0).integers(0, 256, (*_TRIAL, 3), dtype=np.uint8)
    try:
        channels, answer = 3, checked(picture)
    except Raised as error:
        try:
            channels, answer = 1, checked(picture[..., 0])
        except Raised:
            raise error from None
    return Target(
        name=called,
        function=checked,
        reference=f"{called}, as it was when this was learned",
        channels=(channels, 1 if answer.ndim == 2 else 3),
        rounded=answer.dtype == np.uint8,
    )


def _name_of(function: Callable[[Any], Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None)
    return f"the function {name}" if name else f"the object of class {type(function).__qualname__}"


def imported(text: str) -> Target:
    """The filter "package.module:function"; the current folder is searched first, as by `python -m`."""
    module_name, _, attribute = text.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        stem = Path(module_name).stem
        raise UsageError(
            f"name a function by its module, without folder or .py: {stem}:{attribute}, not {text!r}"
        )
    module = _module(module_name, text)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = nearest(part, [name for name in dir(found) if not name.startswith("_")])
            raise UsageError(
                f"the module {module_name} has no function {attribute!r}; {hint or 'check the name'}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(
            f"{text} is {type(found).__name__}, not a function; name a function that takes a picture"
        )
    return described(found, text)


def _module(name: str, text: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()  # the file may have been written after an earlier search
        with _quietly():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no module {error.name!r} for the filter {text!r}, neither installed nor in {here}; "
                "check the name, or change to its folder"
            ) from error
        raise UsageError(
            f"the module {name} needs {error.name!r}, which is not installed; install it first"
        ) from error
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the module {name} cannot be imported: {type(error).__name__}: {reason}") from error
    finally:
        if added:
            sys.path.remove(here)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Runs a user's code: what it prints goes to stderr, as stdout is for the program's own output.

    Warnings are hidden. Invalid values, the usual reason, are found in the result and reported there.
    """
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _shape_text(answer: Array) -> str:
    if answer.ndim == 0:
        return f"{type(answer.item()).__name__} instead of an array"
    return f"shape {answer.shape}"
