"""Flux's `@autosize (28, 28, 1, 32) Chain(Conv((3, 3), _ => 8), …)`, in which `_` is found by following the size."""

from __future__ import annotations

from typing import Any

from tree_sitter import Node

from diptych.formats.julia_source.evaluator import Evaluator
from diptych.formats.julia_source.syntax import parts, text_of
from diptych.formats.julia_source.values import COLON, NotUnderstood, Scope

__all__ = ["autosized"]

Size = tuple[int, ...]


def autosized(e: Evaluator, node: Node, scope: Scope) -> Any:
    """The layer that the arguments of the macro make.

    Args:
        e: The evaluator.
        node: The list of the two arguments, the size of the input and the layer.
        scope: The names around.
    """
    given = parts(node)
    if len(given) != 2:
        raise NotUnderstood("@autosize takes a size and a layer", node)
    size = e.known(e.value(given[0], scope), given[0])
    if not isinstance(size, tuple) or not all(isinstance(n, int) for n in size) or len(size) < 2:
        raise NotUnderstood("the size is not a tuple of whole numbers", given[0])
    return _sized(e, given[1], scope, size)


def _sized(e: Evaluator, node: Node, scope: Scope, size: Size) -> Any:
    """The value of an expression that makes a layer for an input of `size`."""
    inside = parts(node)
    name = text_of(inside[0]).rsplit(".", 1)[-1] if node.type == "call_expression" else ""
    if name not in ("Chain", "SkipConnection", "Parallel"):
        inner = Scope(scope)
        inner.names["_"] = size[0] if name == "LayerNorm" else size[-2]
        return e.value(node, inner)
    made, names = [], []
    for number, child in enumerate(parts(inside[-1])):
        named = child.type in ("named_argument", "named_field")
        names.append(text_of(parts(child)[0]) if named else "")
        piece = parts(child)[-1] if named else child
        joins = number == (1 if name == "SkipConnection" else 0) and name != "Chain"
        made.append(e.argument(piece, scope) if joins else _sized(e, piece, scope, size))
        if made[-1] is COLON:
            raise NotUnderstood("this is not a layer", piece)
        if name == "Chain":
            size = e.output_size(made[-1], size)
    function = e.name(name, node, scope)
    keywords = {key: value for key, value in zip(names, made, strict=True) if key}
    return e.call(function, [v for key, v in zip(names, made, strict=True) if not key], keywords, node)
