"""A function that a user gives as a line of Julia, such as "flatten" or "x -> maxpool(x, (2, 2))"."""

from __future__ import annotations

from diptych.errors import UsageError
from diptych.formats.julia import JuliaStruct
from diptych.formats.julia_source.constructors import CONSTRUCTORS, layer_like
from diptych.formats.julia_source.evaluator import Evaluator
from diptych.formats.julia_source.expressions import HIGHER, RULES
from diptych.formats.julia_source.statements import Runner
from diptych.formats.julia_source.syntax import parse, parts
from diptych.formats.julia_source.values import NotUnderstood

__all__ = ["function_of"]


def function_of(text: str) -> JuliaStruct:
    """The function, as a layer of a file. Raises `UsageError` if it is not understood."""
    evaluator = Evaluator(CONSTRUCTORS, RULES, HIGHER)
    evaluator.where = lambda node: f"--function {text[:60]}"
    Runner(evaluator)
    root = parse(text)
    statements = parts(root)
    try:
        if len(statements) != 1 or root.has_error:
            raise NotUnderstood("this is not an expression of Julia")
        made: JuliaStruct = layer_like(evaluator.value(statements[0], evaluator.globals))
    except NotUnderstood as error:
        raise UsageError(
            f"the function {text[:60]!r} is not understood: {error.why}; give a function of Flux such as flatten, or a "
            "closure such as x -> maxpool(x, (2, 2))"
        ) from error
    return made
