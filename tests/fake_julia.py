"""Speaks the protocol of engines/flux_server.jl in place of Julia, computing with our reference engine.

The model comes from the file that FAKE_JULIA_MODEL names. FAKE_JULIA makes it misbehave: "crash", "hang",
"refuse" (an error for each request), "noise" (prints beside the protocol), "silent" (ends before it is ready).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from diptych import engines, formats


def answer(*words: str) -> None:
    print("\t".join(("diptych", *words)), flush=True)


def misbehave(kind: str) -> None:
    if kind == "crash":
        print("ERROR: LoadError: OutOfMemoryError()", file=sys.stderr, flush=True)
        os._exit(70)
    if kind == "hang":
        time.sleep(60)


def obey(words: list[str]) -> None:
    if words[0] == "load":
        assert (Path(words[2]) / "model.jl").is_file()
        return
    if words[0] == "drop":
        return
    compiled = engines.compile(formats.read(os.environ["FAKE_JULIA_MODEL"]), "numpy")
    batch = np.load(words[2])
    if words[0] == "run":
        np.save(words[3], compiled(batch))
    else:
        for path, array in compiled.trace(batch).items():
            np.save(Path(words[3], f"{path}.npy"), array)


def main() -> None:
    assert sys.argv[-1].endswith("flux_server.jl")
    kind = os.environ.get("FAKE_JULIA", "")
    if kind == "silent":
        sys.exit("ERROR: ArgumentError: Package Flux not found in current path")
    answer("ready", "1.10.4", "0.16.9")
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")
        if kind == "noise":
            print("[ Info: precompiling something", flush=True)
        if words[0] in ("run", "trace"):
            misbehave(kind)
            if kind == "refuse":
                answer("error", "DimensionMismatch: layer Dense(3 => 2) expects size(input, 1) == 3")
                continue
        obey(words)
        answer("ok")


if __name__ == "__main__":
    main()
