"""Files that real Flux wrote: how many are read with its numbers, refused, and written anew for Flux 0.16.

    python benchmarks/golden_files.py tests/golden
    python benchmarks/golden_files.py FOLDER     # with flux-VERSION/NAME.bson, NAME_input.npy and NAME_output.npy
    python benchmarks/golden_files.py FOLDER --results benchmarks/golden_files.json
    python benchmarks/golden_files.py --show     # the sentences of docs/benchmarks.md and the table of docs/exchange.md

docs/benchmarks.md and docs/exchange.md hold the counts of a folder with 203 such files of Flux 0.11.6, 0.12.1 and
0.13.4, of which `tests/golden` has the smaller ones. Equal means within 1e-5 of the largest output, for 16-bit numbers
within their rounding; the files written anew are read again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import diptych
from diptych.errors import DiptychError

Counts = dict[str, dict[str, int]]
KEPT = Path(__file__).with_suffix(".json")
VERSIONS = ("0.11.6", "0.12.1", "0.13.4")
OUTCOMES = ("read", "WRONG", "refused", "written", "differs", "not written")
SIXTEEN_BITS = {"f16": 2e-3, "f16_dense": 1e-3, "f16_conv": 1e-3, "bf16": 2e-2}


def batch(path: Path) -> Any:
    """An array with its axes reversed, a single vector as a batch of one."""
    turned = np.ascontiguousarray(np.load(path).transpose())
    return turned[np.newaxis] if turned.ndim == 1 else turned


def distance(model: Any, given: Any, expected: Any) -> float:
    """How far the outputs are apart, as a share of the largest."""
    result = diptych.predict(model, given.astype(np.float32), engine="numpy")
    if result.shape != expected.shape:
        return float("inf")
    wanted = expected.astype(np.float64)
    return float(np.abs(result - wanted).max() / max(float(np.abs(wanted).max()), 1e-30))


def outcomes(file: Path, version: str) -> list[str]:
    """What became of one file."""
    given, expected = (batch(file.with_name(f"{file.stem}_{part}.npy")) for part in ("input", "output"))
    tolerance = SIXTEEN_BITS.get(file.stem, 1e-5)
    try:
        model = diptych.load_model(file, written_by=version)
    except DiptychError as error:
        print(f"{version}/{file.stem}: {error}", flush=True)
        return ["refused"]
    if not distance(model, given, expected) <= tolerance:
        return ["WRONG"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            diptych.convert(model, Path(folder) / "new.bson")
        except DiptychError as error:
            print(f"{version}/{file.stem}: {error}", flush=True)
            return ["read", "not written"]
        again = distance(diptych.read(Path(folder) / "new.bson"), given, expected)
    if again > tolerance:
        print(f"{version}/{file.stem}: written anew it differs by {again:.1e}", flush=True)
    return ["read", "written" if again <= tolerance else "differs"]


def sentences(counts: Counts) -> list[str]:
    """What docs/benchmarks.md says of the counts, without its line ends."""
    row = counts["all"]
    return [
        f"Of {row['files']} `.bson` files that Flux 0.11.6 to 0.13.4 wrote, Diptych reads {row['read']} with the right "
        f"numbers and none with wrong ones",
        f"writes {row['written']} anew for Flux 0.16 with the same numbers; {row['differs']} more differ by less than",
    ]


def table(counts: Counts) -> list[str]:
    """The rows of the table in docs/exchange.md."""
    columns = ("files", "read", "refused", "written", "differs", "not written")
    return [
        f"| {'all' if name == 'all' else f'Flux {name}'} | {' | '.join(str(row[each]) for each in columns)} |"
        for name, row in counts.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument(
        "--results", type=Path, help="the file to keep the counts in, as those of the docs are"
    )
    parser.add_argument("--show", action="store_true", help="print what the docs state")
    warnings.simplefilter("ignore")
    arguments = parser.parse_args()
    if arguments.show or arguments.folder is None:
        print("\n".join([*sentences(json.loads(KEPT.read_text())), "", *table(json.loads(KEPT.read_text()))]))
        return
    folder = arguments.folder
    rows: dict[str, Counter[str]] = {version: Counter() for version in VERSIONS}
    for version, row in rows.items():
        for file in sorted((folder / f"flux-{version}").glob("*.bson")):
            if all(file.with_name(f"{file.stem}_{part}.npy").exists() for part in ("input", "output")):
                row.update(["files", *outcomes(file, version)])
    rows["all"] = sum(rows.values(), Counter())
    print(f"\n{'':8s}{'files':>12s}" + "".join(f"{name:>12s}" for name in OUTCOMES))
    for name, row in rows.items():
        print(f"{name:8s}{row['files']:12d}" + "".join(f"{row[each]:12d}" for each in OUTCOMES))
    if arguments.results is not None:
        counts = {name: {each: row[each] for each in ("files", *OUTCOMES)} for name, row in rows.items()}
        arguments.results.write_text(json.dumps(counts, indent=1) + "\n")
    sys.exit(1 if rows["all"]["WRONG"] else 0)


if __name__ == "__main__":
    main()
