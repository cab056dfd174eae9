"""How many of a folder of Flux files, with inputs and outputs that real Flux computed, are read right.

    python benchmarks/flux_habits.py FOLDER
    python benchmarks/flux_habits.py FOLDER --write 0.16

The folder's `index.json` lists cases with the `files` NAME.bson or NAME.jld2, NAME_input.npy and NAME_output.npy, in
Julia's shape, and NAME_arch.bson where the file holds weights alone. Right means at most 1e-5 of the largest output.
`--write` also writes each model that was read for a version of Flux, as .bson, .jld2 and a Julia project, and counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import diptych
from diptych.errors import DiptychError

TOLERANCE = 1e-5


def _batch(array: Any) -> Any:
    turned = np.ascontiguousarray(array.transpose())
    return turned[np.newaxis] if turned.ndim == 1 else turned


def _model(folder: Path, case: dict[str, Any]) -> Any:
    name = case["name"]
    file = next(
        folder / f for f in case["files"] if f.endswith((".bson", ".jld2")) and not f.endswith("_arch.bson")
    )
    architecture = folder / f"{name}_arch.bson"
    return diptych.load_model(
        file, architecture=architecture if architecture.exists() else None, key=case.get("key")
    )


def _verdict(model: Any, folder: Path, name: str) -> tuple[str, str]:
    given, wanted = (_batch(np.load(folder / f"{name}_{part}.npy")) for part in ("input", "output"))
    ours = model.layers(given.astype(np.float32))
    if ours.shape != wanted.shape:
        return "wrong", f"{ours.shape} instead of {wanted.shape}"
    error = float(np.abs(ours - wanted.astype(np.float64)).max() / max(np.abs(wanted).max(), 1e-30))
    return ("right", "") if error <= TOLERANCE else ("wrong", f"off by {error:.1e}")


def main() -> None:
    """Reads every case, prints what is not right, and the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", metavar="VERSION", help="write each model for this version of Flux")
    options = parser.parse_args()
    cases = json.loads((options.folder / "index.json").read_text())["cases"]
    counts: Counter[str] = Counter()
    for case in cases:
        name = case["name"]
        try:
            model = _model(options.folder, case)
        except DiptychError as error:
            verdict, detail = "refused", str(error)
        else:
            verdict, detail = _verdict(model, options.folder, name)
            if options.write:
                _write(model, name, options.write, counts)
        counts[verdict] += 1
        if verdict != "right":
            print(f"{name:40s} {verdict:8s} {detail[:300]}")
    print(", ".join(f"{word} {count}" for word, count in sorted(counts.items())), f"of {len(cases)}")


def _write(model: Any, name: str, version: str, counts: Counter[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for target in ("x.bson", "x.jld2", "project/"):
            try:
                diptych.convert(model, f"{folder}/{target}", flux_version=version)
                counts[f"written as {target}"] += 1
            except DiptychError as error:
                print(f"{name:40s} not written as {target}: {str(error)[:200]}")


if __name__ == "__main__":
    main()
