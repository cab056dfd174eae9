"""Values as Julia's files hold them, BSON or JLD2: when two are the same, and what is inside one."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.formats.julia import JuliaDict, JuliaStruct, JuliaType
from diptych.formats.julia.elements import element_type


def same(a: Any, b: Any) -> bool:
    """Equal in type, shape and bits, at every depth; NaN equals itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        equal = a.shape == b.shape and a.dtype == b.dtype
        return equal and a.tobytes() == b.tobytes() and str(element_type(a)) == str(element_type(b))
    if isinstance(a, (list, tuple)):
        return (
            len(a) == len(b) and all(map(same, a, b)) and getattr(a, "names", ()) == getattr(b, "names", ())
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, JuliaStruct):
        return str(a.type) == str(b.type) and a.names == b.names and same(a.fields, b.fields)
    if isinstance(a, JuliaType):
        return str(a) == str(b)
    return bool(a == b) or (a != a and b != b)


def found(value: Any, kind: type) -> list[Any]:
    """Every object of a kind inside a value, once."""
    stack, seen, hits = [value], set(), []
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, kind):
            hits.append(item)
        if isinstance(item, JuliaStruct):
            stack += item.fields
        elif isinstance(item, JuliaDict):
            stack += [item.stored_keys, item.stored_values]
        elif isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, (list, tuple)):
            stack += item
    return hits
