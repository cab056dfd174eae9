"""Weights of files that hold no architecture, put into one: by name where the names agree, else in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diptych.errors import FormatError
from diptych.model.document import from_document, to_document
from diptych.model.layers import Array
from diptych.model.model import Model, Source

__all__ = ["filled", "plain_names"]

# What wrappers put in front of every name, such as DataParallel and Lightning.
_PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.", "ema_model.", "ema.")


def plain_names(names: Sequence[str]) -> list[str]:
    """The names without the prefixes that all of them have from a wrapper."""
    found = list(names)
    while True:
        prefix = next((p for p in _PREFIXES if found and all(name.startswith(p) for name in found)), None)
        if prefix is None:
            return found
        found = [name.removeprefix(prefix) for name in found]


def filled(
    path: Path, given: Mapping[str, Array], model: Model, source: Source, by_alphabet: bool = False
) -> Model:
    """The model with the weights of a file.

    Args:
        path: The file, for messages.
        given: Its arrays by name, in order; shared ones once.
        model: The architecture.
        source: Where the weights come from.
        by_alphabet: Whether the file has lost their order, as safetensors do.

    Raises:
        FormatError: The numbers of weights or their shapes differ.
    """
    document, arrays = to_document(model)
    expected = list(arrays.items())
    names = plain_names(list(given))
    found = dict(zip(names, given.values(), strict=True))
    whose = model.name or "given"
    pairs = (
        [(name, found[name]) for name, _ in expected]
        if found.keys() == arrays.keys()
        else list(found.items())
    )
    by_module = sorted(pairs, key=lambda pair: _in_a_module(pair[0]))
    if by_alphabet and found.keys() != arrays.keys() and _fits(expected, by_module):
        pairs = by_module
    for (place, array), (name, value) in zip(expected, pairs, strict=False):
        if array.shape != value.shape:
            raise FormatError(
                f"{path} does not fit the architecture {whose}: its weight {place} has the shape "
                f"{array.shape}, the file has {name!r} of shape {value.shape} in this place"
            )
    if len(expected) != len(pairs):
        more = pairs[len(expected)][0] if len(pairs) > len(expected) else expected[len(pairs)][0]
        which = "the file has more, such as" if len(pairs) > len(expected) else "the file lacks one for"
        raise FormatError(
            f"{path} holds {len(pairs)} weights and the architecture {whose} {len(expected)}: {which} {more!r}"
        )
    weights = {place: value for (place, _), (_, value) in zip(expected, pairs, strict=True)}
    return from_document(document, weights).with_(source=source, trained=None)


_ROLES = ("weight", "bias", "running_mean", "running_var")


def _fits(expected: Sequence[tuple[str, Array]], pairs: Sequence[tuple[str, Array]]) -> bool:
    return [array.shape for _, array in expected] == [array.shape for _, array in pairs]


def _in_a_module(name: str) -> tuple[list[tuple[int, str]], int]:
    """A key that sorts "2.weight" before "10.weight", and a module's weights as PyTorch registers them."""
    module, _, role = name.rpartition(".")
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in module.split(".")]
    return parts, _ROLES.index(role) if role in _ROLES else len(_ROLES)
