"""A stand-in for the command `julia predict.jl --check`: the project's code, run by the tests' interpreter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from julia_builtins import BASE, program
from julia_interpreter import functions_of

BASE.update(
    {
        "get": lambda values, key, default: values.get(key, default),
        "println": lambda *parts: print(*parts, sep=""),
        "keys": list,
        "isempty": lambda values: not len(values),
    }
)


def main(script: str, option: str) -> int:
    assert option == "--check"
    folder = Path(script).parent
    julia: Any = program(*(folder / f"{name}.jl" for name in ("arrays", "layers", "model", "about")))
    functions_of((folder / "predict.jl").read_text())(julia)
    # The interpreter has no index that counts through a whole array.
    julia.names["furthest_apart"] = lambda y, wanted: (
        np.float64(np.abs(y - wanted).max()),
        np.float64(np.abs(wanted).max()),
    )
    return 0 if julia.get("check")(julia.get("build_model")()) == 0 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
