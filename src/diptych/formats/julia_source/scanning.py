"""What a statement contains, without evaluating it: names that it assigns, layers that it makes.

Answers are kept, since a loop asks for the same statements again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tree_sitter import Node

from diptych.formats.julia_source.constructors import CONSTRUCTORS
from diptych.formats.julia_source.syntax import parts, text_of

__all__ = ["Scanner", "in_layers"]

_Found = TypeVar("_Found")


class Scanner:
    """Answers about the statements of one file."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, int], Any] = {}

    def _once(self, question: Callable[[Node], _Found], node: Node) -> _Found:
        key = (question.__name__, node.id, node.start_byte, node.end_byte)
        if key not in self._known:
            self._known[key] = question(node)
        found: _Found = self._known[key]
        return found

    def makes_layers(self, node: Node) -> bool:
        """Whether the constructor of a layer is called in a piece of source."""
        return self._once(_makes_layers, node)

    def assigned(self, node: Node) -> list[str]:
        """The names that a statement and those inside it assign."""
        return self._once(_assigned, node)

    def grown(self, node: Node) -> list[str]:
        """The vectors that a statement adds to."""
        return self._once(_grown, node)

    def returns(self, node: Node) -> bool:
        """Whether a statement may end the function that it is in."""
        return self._once(_returns, node)


_LAYERS = frozenset(CONSTRUCTORS) - {"Zeros", "SamePad", "Scale", "Recur"}


def _makes_layers(node: Node) -> bool:
    """Whether the constructor of a layer is called in a piece of source."""
    stack = [node]
    while stack:
        item = stack.pop()
        if _is_constructor_call(item):
            return True
        stack.extend(item.named_children)
    return False


def _is_constructor_call(node: Node) -> bool:
    """Whether a node is a call such as `Dense(…)` or `Flux.Dense(…)`."""
    if node.type not in ("call_expression", "broadcast_call_expression") or not node.named_children:
        return False
    return text_of(node.named_children[0]).rsplit(".", 1)[-1] in _LAYERS


def in_layers(node: Node | None) -> bool:
    """Whether a piece of source lies inside the call of such a constructor, or contains one."""
    if node is None or _makes_layers(node):
        return node is not None
    while node is not None and node.type not in (
        "function_definition",
        "source_file",
        "arrow_function_expression",
    ):
        if _is_constructor_call(node):
            return True
        node = node.parent
    return False


_NESTED = ("function_definition", "arrow_function_expression", "do_clause", "comprehension_expression")


def _assigned(node: Node) -> list[str]:
    """The names that a statement and those inside it assign."""
    found: list[str] = []
    stack = [node]
    while stack:
        item = stack.pop()
        if item.type in ("assignment", "compound_assignment_expression"):
            target = parts(item)[0]
            names = parts(target) if target.type in ("open_tuple", "tuple_expression") else [target]
            found += [text_of(n) for n in names if n.type == "identifier"]
            if target.type == "typed_expression":
                found.append(text_of(parts(target)[0]))
        if item is node or item.type not in _NESTED:
            stack.extend(item.named_children)
    return list(dict.fromkeys(found))


def _grown(node: Node) -> list[str]:
    """The vectors that a statement adds to."""
    found: list[str] = []
    stack = [node]
    while stack:
        item = stack.pop()
        if item.type == "call_expression" and text_of(parts(item)[0]).endswith("!"):
            lists = parts(parts(item)[-1])
            found += [text_of(n) for n in lists[:1] if n.type == "identifier"]
        stack.extend(item.named_children)
    return found


def _returns(node: Node) -> bool:
    stack = [node]
    while stack:
        item = stack.pop()
        if item.type == "return_statement":
            return True
        if item.type not in _NESTED:
            stack.extend(item.named_children)
    return False
