"""Functions, closures and structs, from their syntax."""

from __future__ import annotations

from tree_sitter import Node

from diptych.formats.julia import JuliaType
from diptych.formats.julia_source.syntax import first_line, parts, text_of
from diptych.formats.julia_source.values import Method, NotUnderstood, OwnType, Scope, WrittenFunction

__all__ = ["closure", "method_of", "own_type", "written"]


def method_of(node: Node, scope: Scope) -> Method | None:
    """The method that `function f(x) … end` or `f(x) = …` defines; None for another node."""
    if node.type == "function_definition":
        inside = parts(node)
        if not inside or inside[0].type != "signature":
            return None
        return _method(_call_of(inside[0]), inside[1:], node, scope)
    if node.type in ("assignment", "let_binding"):
        inside = parts(node)
        left = _call_of(inside[0])
        if left is not None and left.type in ("call_expression",):
            return _method(left, inside[-1:], node, scope)
    return None


def _call_of(node: Node) -> Node | None:
    """The call, or the list of arguments, inside a signature with `where` and a return type."""
    while node.type in ("signature", "where_expression", "typed_expression"):
        inside = parts(node)
        if not inside:
            return None
        node = inside[0]
    return (
        node if node.type in ("call_expression", "argument_list", "tuple_expression", "identifier") else None
    )


def _method(left: Node | None, body: list[Node], node: Node, scope: Scope) -> Method | None:
    if left is None:
        return None
    if left.type != "call_expression":
        parameters, keywords = _parameters(left)
        return Method("", parameters, keywords, body, node, scope)
    callee, lists = parts(left)[0], parts(left)[-1]
    if lists.type != "argument_list":
        return None
    parameters, keywords = _parameters(lists)
    name, owner = _callee(callee)
    return Method(name, parameters, keywords, body, node, scope, owner)


def _callee(node: Node) -> tuple[str, str]:
    """The name of the function, or of the struct with the name of its instance for `(m::VAE)(x)`."""
    if node.type == "parenthesized_expression" and parts(node)[0].type == "typed_expression":
        inside = parts(parts(node)[0])
        name = text_of(inside[-1]).split("{")[0]
        return name, text_of(inside[0]) if len(inside) > 1 else "_"
    return text_of(node).split("{")[0], ""


def _parameters(
    lists: Node,
) -> tuple[list[tuple[str, Node | None, Node | None, bool]], list[tuple[str, Node | None, bool]]]:
    positional: list[tuple[str, Node | None, Node | None, bool]] = []
    keywords: list[tuple[str, Node | None, bool]] = []
    after = False
    if lists.type == "identifier":
        return [(text_of(lists), None, None, False)], []
    for child in lists.children:
        if child.type == ";":
            after = True
        if not child.is_named or child.type.endswith("comment"):
            continue
        name, kind, default, splat = _parameter(child)
        if after:
            keywords.append((name, default, splat))
        else:
            positional.append((name, kind, default, splat))
    return positional, keywords


def _parameter(node: Node) -> tuple[str, Node | None, Node | None, bool]:
    default, splat, kind = None, False, None
    if node.type in ("named_argument", "named_field", "assignment"):
        default = parts(node)[-1]
        node = parts(node)[0]
    if node.type == "splat_expression":
        splat, node = True, parts(node)[0]
    if node.type == "typed_expression":
        inside = parts(node)
        kind = inside[-1]
        node = inside[0]
        if len(inside) == 1:
            return "_", kind, default, splat
    if node.type in ("tuple_expression", "open_tuple"):
        return ",".join(text_of(child) for child in parts(node)), kind, default, splat
    return text_of(node), kind, default, splat


def closure(node: Node, scope: Scope) -> WrittenFunction:
    """The function that `x -> …`, `do x … end` or `function (x) … end` makes."""
    inside = parts(node)
    if node.type == "do_clause":
        lists = inside[0] if inside and inside[0].type == "argument_list" else None
        parameters, keywords = _parameters(lists) if lists is not None else ([], [])
        body = inside[1:] if lists is not None else inside
    elif node.type == "function_definition":
        method = method_of(node, scope)
        if method is None:
            raise NotUnderstood("this function is not read", node)
        return written([method], "", node)
    elif inside[0].type == "typed_expression":
        parameters, keywords = [_parameter(inside[0])], []
        body = inside[1:]
    else:
        parameters, keywords = _parameters(inside[0])
        body = inside[1:]
    return written([Method("", parameters, keywords, body, node, scope)], "", node)


def written(methods: list[Method], name: str, node: Node) -> WrittenFunction:
    """A function of the source as a value."""
    kind = JuliaType(("Main", f"#{name or first_line(node) + 1}"))
    return WrittenFunction(kind, [], (), methods=methods, name=name, node=node)


def own_type(node: Node, scope: Scope, keywords: bool) -> OwnType | None:
    """The struct that a definition makes."""
    inside = parts(node)
    head = next((c for c in inside if c.type == "type_head"), None)
    if head is None:
        return None
    words = text_of(head).split("<:")
    made = OwnType(words[0].split("{")[0].strip(), [], node, scope, keywords)
    made.supertype = words[1].split("{")[0].strip() if len(words) > 1 else ""
    for child in inside:
        default = None
        if child.type == "type_head":
            continue
        if child.type in ("assignment", "function_definition"):
            method = method_of(child, scope)
            if method is not None:
                made.inner.append(method)
                continue
        if child.type == "assignment":
            child, default = parts(child)[0], parts(child)[-1]
        if child.type == "const_statement":
            child = parts(child)[0]
        if child.type == "typed_expression":
            made.fields.append((text_of(parts(child)[0]), parts(child)[-1], default))
        elif child.type == "identifier":
            made.fields.append((text_of(child), None, default))
    return made
