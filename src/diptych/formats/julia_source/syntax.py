"""Julia's syntax tree, from the grammar of tree-sitter."""

from __future__ import annotations

import re
from functools import cache

from tree_sitter import Language, Node, Parser
from tree_sitter_julia import language

__all__ = ["first_line", "has_mistake", "operator_of", "parse", "parts", "short", "text_of"]


@cache
def _parser() -> Parser:
    return Parser(Language(language()))


# The grammar takes `2^(n)` for 2 times a call of ^; with a space after the operator it does not.
_OPERATOR = re.compile(r"(?<=[0-9])( *\.?[*/÷^%\\]|\.?[-+])\(")


def parse(text: str) -> Node:
    """The root of the tree; its named children are the statements."""
    return _parser().parse(_OPERATOR.sub(r"\1 (", text).encode()).root_node


def text_of(node: Node) -> str:
    """The source of a node."""
    return (node.text or b"").decode()


def short(node: Node, most: int = 80) -> str:
    """The source of a node on one line, cut at `most` characters."""
    text = " ".join((node.text or b"")[: 8 * most].decode(errors="ignore").split())
    return text if len(text) <= most else text[: most - 1] + "…"


def parts(node: Node) -> list[Node]:
    """The named children without comments."""
    return [child for child in node.named_children if child.type not in ("line_comment", "block_comment")]


def operator_of(node: Node) -> str:
    """The operator of a binary, unary or compound expression."""
    return next((text_of(c) for c in node.children if c.type == "operator"), "")


def has_mistake(node: Node) -> bool:
    """Whether a part of the node could not be parsed."""
    return node.has_error


def first_line(node: Node) -> int:
    """The row of a node, counted from 0."""
    return int(node.start_point[0])
