"""Filters that have names: their parameters, and the public library each is taken from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias, get_args

import numpy as np

from diptych.errors import UsageError
from diptych.filters.target import Function, Target
from diptych.model.layers import NUMPY_PAD, Array, PadMode

__all__ = ["NamedFilter", "Parameter", "choice", "nearest", "odd", "real", "whole", "widened"]

_EDGES = tuple(mode for mode in get_args(PadMode) if mode != "constant")
ParameterValue: TypeAlias = "int | float | str"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a named filter.

    Attributes:
        default: The value without a mention.
        least: The smallest value.
        most: The largest value.
        step: 1 for whole numbers, 2 for odd numbers, 0 for any.
        choices: The allowed words or numbers; empty for a range.
    """

    default: ParameterValue
    least: float = 0
    most: float = 0
    step: int = 0
    choices: tuple[ParameterValue, ...] = ()

    def read(self, filter_name: str, name: str, text: str) -> ParameterValue:
        """The value that `text` stands for. Raises `UsageError` where it is not in the range."""
        if self.choices:
            for value in self.choices:
                if str(value) == text:
                    return value
            raise UsageError(
                f"{name} of the filter {filter_name!r} must be one of {', '.join(map(str, self.choices))}, "
                f"not {text[:40]!r}"
            )
        try:
            value = int(text) if self.step else float(text)
        except ValueError:
            value = float("nan")
        if not self.least <= value <= self.most or (self.step and (value - self.least) % self.step):
            kind = {0: "a number", 1: "a whole number", 2: "an odd number"}[self.step]
            raise UsageError(
                f"{name} of the filter {filter_name!r} must be {kind} from {self.least:g} to {self.most:.10g}, "
                f"not {text[:40]!r}"
            )
        return value


def real(default: float, least: float, most: float) -> Parameter:
    """Any number from `least` to `most`."""
    return Parameter(default, least, most)


def whole(default: int, least: int, most: int) -> Parameter:
    """A whole number from `least` to `most`."""
    return Parameter(default, least, most, 1)


def odd(default: int, most: int, least: int = 3) -> Parameter:
    """An odd number from `least` to `most`, the side of a window with a centre."""
    return Parameter(default, least, most, 2)


def choice(*values: ParameterValue) -> Parameter:
    """One of `values`; the first is the default."""
    return Parameter(values[0], choices=values)


@dataclass(frozen=True)
class NamedFilter:
    """A row of the table of named filters.

    Attributes:
        function: From a uint8 picture and the parameters to levels in 0..255, unrounded where possible.
        summary: A short description.
        reference: The same filter in a public library, with {parameter} placeholders.
        channels: The numbers of input and output channels.
        parameters: By name.
        radius: How far an output depends on the input, in pixels: a number, or a function of the parameters;
            None where the influence only fades with distance.
        padding_mode: How the library extends a picture beyond its border.
        per_channel: The channels are treated alike, each alone.
        rounded: The library gives whole levels.
        staged: The filter has several stages, which would each extend the picture. Instead it is extended once, by
            the whole radius.
    """

    function: Callable[..., Array]
    summary: str
    reference: str
    channels: tuple[int, int] = (3, 3)
    parameters: Mapping[str, Parameter] = field(default_factory=lambda: MappingProxyType({}))
    radius: int | Callable[..., int] | None = 0
    padding_mode: PadMode = "replicate"
    per_channel: bool = False
    rounded: bool = False
    staged: bool = False

    def target(self, name: str, given: Mapping[str, str]) -> Target:
        """The filter with these parameters, and the others at their defaults.

        Filters with a radius also have the parameter `edge`, the padding mode.

        Args:
            name: The filter's name.
            given: Parameters as text.

        Raises:
            UsageError: There is no such parameter, or its value is out of range.
        """
        known = dict(self.parameters)
        if self.radius != 0 and self.radius is not None:
            known["edge"] = Parameter(self.padding_mode, choices=_EDGES)
        for key in given:
            if key not in known:
                raise UsageError(_no_such_parameter(name, key, known))
        values = {key: rule.default for key, rule in known.items()}
        values |= {key: known[key].read(name, key, text) for key, text in given.items()}
        padding_mode: Any = values.pop("edge", self.padding_mode)
        radius = self.radius(**values) if callable(self.radius) else self.radius
        function: Function = partial(self.function, **values)
        reference = self.reference.format(**values)
        if radius and (self.staged or padding_mode != self.padding_mode):
            function = widened(function, radius, padding_mode)
            reference += (
                f", of the picture extended by {radius} pixels ({padding_mode}), which are cut off again"
            )
        written = ",".join(f"{key}={given[key]}" for key in known if key in given)
        return Target(
            name=f"{name}:{written}" if written else name,
            function=function,
            reference=reference,
            channels=self.channels,
            edge=padding_mode,
            radius=radius,
            per_channel=self.per_channel,
            rounded=self.rounded,
        )


def widened(function: Function, radius: int, padding_mode: PadMode) -> Function:
    """`function` of the picture extended by `radius` pixels, which are cut off afterwards."""

    def of_the_extended_picture(image: Array) -> Array:
        sides = ((radius, radius), (radius, radius), (0, 0))[: image.ndim]
        result: Array = function(np.pad(image, sides, mode=NUMPY_PAD[padding_mode]))
        return result[radius : radius + image.shape[0], radius : radius + image.shape[1]]

    return of_the_extended_picture


def nearest(word: str, known: Iterable[str], most: int = 1) -> str:
    """A hint such as "did you mean 'sobel'?" for a misspelt word; empty without similar words."""
    near = difflib.get_close_matches(word, list(known), n=most, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def _no_such_parameter(name: str, key: str, known: Mapping[str, Parameter]) -> str:
    if not known:
        return f"the filter {name!r} takes no parameters, got {key[:40]!r}"
    said = f"the filter {name!r} has no parameter {key[:40]!r}, only {', '.join(known)}"
    return "; ".join(filter(None, (said, nearest(key, known))))
