"""BSON.jl documents: made by hand, and compared in structure, key order and unreferenced backrefs aside."""

from __future__ import annotations

from typing import Any

import numpy as np


def datatype(*path: str) -> dict[str, Any]:
    return {"tag": "datatype", "name": list(path), "params": []}


def array_document(kind: dict[str, Any], size: list[int], data: Any) -> dict[str, Any]:
    return {"tag": "array", "type": kind, "size": size, "data": data}


def difference(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Where two documents differ once their backrefs are followed; "" where they are the same.

    Cycles end where a pair of containers has been compared before. Paths may carry a leading "Main";
    integer parameters of a type may be a list or an array document.
    """
    backrefs = [document.get("_backrefs", []) for document in (first, second)]
    stack: list[tuple[Any, Any, str]] = [
        (*({k: v for k, v in document.items() if k != "_backrefs"} for document in (first, second)), "")
    ]
    seen: set[tuple[int, int]] = set()
    kept: list[Any] = []  # ids in `seen` must not be used again
    while stack:
        *pair, place = stack.pop()
        a, b = (_followed(value, refs) for value, refs in zip(pair, backrefs, strict=True))
        if isinstance(a, (dict, list)):
            if (id(a), id(b)) in seen:
                continue
            seen.add((id(a), id(b)))
            kept += [a, b]
        if isinstance(a, dict) and isinstance(b, dict):
            if a.keys() != b.keys():
                return f"{place}: keys {sorted(a)} and {sorted(b)}"
            stack.extend((_plain(a, key), _plain(b, key), f"{place}.{key}") for key in a)
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return f"{place}: {len(a)} and {len(b)} items"
            stack.extend((x, y, f"{place}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
        elif type(a) is not type(b) or (a != b and a == a):
            return f"{place}: {a!r:.60} and {b!r:.60}"
    return ""


def _followed(value: Any, backrefs: list[Any]) -> Any:
    while isinstance(value, dict) and value.get("tag") == "backref":
        value = backrefs[value["ref"] - 1]
    return value


def _plain(document: dict[str, Any], key: str) -> Any:
    value = document[key]
    if key in ("name", "path") and isinstance(value, list) and value[0] == "Main":
        return value[1:]
    if key == "params" and isinstance(value, dict):
        return np.frombuffer(value["data"], "<i8").tolist()
    if key == "size":
        return [int(number) for number in value]
    return value
