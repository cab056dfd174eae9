"""The verb `verify`: a certificate is checked again, from the file alone."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from diptych.certifying.certificates import (
    FILE,
    KEY,
    SAMPLES,
    TOLERANCE,
    difference_of,
    engine_of,
    input_of,
    relative,
    sample,
    sealed,
    settings_digest,
    weights_digest,
)
from diptych.engines.julia_process import julia_command
from diptych.errors import FormatError, ModelError, UsageError, reason
from diptych.extras import imported
from diptych.files import as_text, is_file, is_folder, opened
from diptych.files import sha256 as sha256_of
from diptych.formats import julia_project
from diptych.loading import ModelLike, load
from diptych.model.model import Model
from diptych.options import ReadOptions
from diptych.predicting import compiled_for

__all__ = ["Checked", "Verification", "verify"]

_LARGEST = 2**26  # bytes of a certificate, and numbers of its input
_JULIA_LIMIT = 1800  # seconds: the first `using Flux` of an installation compiles it
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Checked:
    """One layer of a certificate.

    Attributes:
        path: The layer.
        written: How far what was written was from the source, of the layer's largest value; None where the source
            has no such layer.
        now: How far the layer is from what the certificate says, likewise; None where it was not computed.
    """

    path: str
    written: float | None
    now: float | None


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        file: The file or Julia project.
        certificate: The certificate, as it is in the file.
        problems: One sentence for each thing that is not as it was certified; none where the file passes.
        layers: Every layer that was certified.
        ran: The engine that computed the layers again, with its version; "" where none did.
        remarks: What to know beside the result.
    """

    file: str
    certificate: Mapping[str, Any]
    problems: tuple[str, ...]
    layers: tuple[Checked, ...]
    ran: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything is as it was certified."""
        return not self.problems

    @property
    def largest(self) -> float | None:
        """The largest difference that was found now, of a layer's largest value; None where none was computed."""
        return max((layer.now for layer in self.layers if layer.now is not None), default=None)

    def to_document(self) -> dict[str, Any]:
        """The result as values that JSON can hold."""
        return {
            "file": self.file,
            "passed": self.passed,
            "problems": list(self.problems),
            "largest_difference": {
                "written": self.certificate["largest_difference"],
                "now": _finite(self.largest),
            },
            "tolerance": self.certificate["tolerance"],
            "engine": self.ran,
            "layers": [
                {"path": layer.path, "written": _finite(layer.written), "now": _finite(layer.now)}
                for layer in self.layers
            ],
            "certificate": {
                key: self.certificate[key] for key in ("diptych", "format", "input", "reference", "written")
            },
            "remarks": list(self.remarks),
        }

    def text(self) -> str:
        """The result in a few lines, with the layers that differ most."""
        certificate = self.certificate
        lines = [f"{self.file}: {'pass' if self.passed else 'FAIL'}"]
        lines += [f"  {problem}" for problem in self.problems]
        if not certificate["left_out"]:
            shape = " x ".join(map(str, certificate["input"]["shape"]))
            engines = [
                f"{each['engine']} {each['version']}"
                for each in (certificate["reference"], certificate["written"])
            ]
            lines.append(
                f"certified by Diptych {certificate['diptych']} as {certificate['format']}: {len(self.layers)} layers, "
                f"input {shape}, {engines[0]} beside {engines[1]}: the largest difference is "
                f"{_figure(certificate['largest_difference'])} of a layer's largest value"
            )
        if self.ran:
            worst = sorted(self.layers, key=lambda layer: -(layer.now or 0.0))[:3]
            shown = ", ".join(f"layer {layer.path} {_figure(layer.now)}" for layer in worst)
            lines.append(
                f"now on {self.ran}: {_figure(self.largest)} from what it says (tolerance {TOLERANCE:g}); {shown}"
            )
        return "\n".join(lines)


def verify(
    file: str | Path, engine: str = "auto", architecture: ModelLike | None = None, run: bool = False
) -> Verification:
    """Checks the certificate of a converted file or Julia project again.

    The certificate itself, the weights and the recipe must be those that were certified, and every layer must give the
    numbers that the certificate says, on an input that is made again from its seed. Of a Julia project the files are
    checked; with `run`, its own code is run by Julia (DIPTYCH_JULIA, or `julia` on the path), layer by layer.

    Args:
        file: A file, or the folder of a Julia project, that `convert` wrote.
        engine: One of `engines.ENGINES`, or "auto"; not for Julia projects.
        architecture: The model whose weights a file holds, where it holds nothing else, as a .jld2 file does.
        run: Whether the code of a Julia project is run. Do so only with a project of your own.

    Returns:
        What was found: `passed`, and `problems` in words.

    Raises:
        FormatError: The file cannot be read, or carries no certificate.
        UsageError: There is no such engine, or `run` is not for this file, or there is no Julia.
    """
    path = Path(file)
    if is_folder(path):
        return _project(path, run)
    if run:
        raise UsageError(
            f"run is for Julia projects, which are folders; {path} is a file, which is run anyway"
        )
    model = load(path, ReadOptions(architecture))
    if KEY not in model.notes:
        raise FormatError(
            f"{path} carries no certificate: diptych convert {path} {path.stem}-certified{path.suffix} writes one"
        )
    certificate = _checked(model.notes[KEY], path)
    problems = _sealed(certificate)
    if weights_digest(model) != certificate.get("weights"):
        problems.append(f"the layers or weights are not those that were certified{_versions(certificate)}")
    if settings_digest(model) != certificate.get("settings"):
        problems.append("the recipe, class names or input shape are not those that were certified")
    if certificate["left_out"]:
        remark = f"the layers were not certified, only the weights and the recipe: {certificate['left_out']}"
        return Verification(as_text(path), certificate, tuple(problems), (), remarks=(remark,))
    layers, ran, differing = _run(model, certificate, path, engine)
    return Verification(as_text(path), certificate, (*problems, *differing), layers, ran)


def _run(
    model: Model, certificate: Mapping[str, Any], path: Path, engine: str
) -> tuple[tuple[Checked, ...], str, list[str]]:
    given = input_of(certificate["input"]["shape"], certificate["input"]["seed"])
    if hashlib.sha256(given.tobytes()).hexdigest() != certificate["input"]["sha256"]:
        return (
            _layers(certificate, {}),
            "",
            ["the input made from the seed is not the one that was certified"],
        )
    compiled = compiled_for(model.with_(), engine)
    try:
        trace = compiled.trace(given)
    except ModelError as error:
        return _layers(certificate, {}), "", [f"the model does not take the certified input: {error}"]
    now = {entry["path"]: _apart(entry, trace.get(entry["path"])) for entry in certificate["layers"]}
    problems = _differing(now)
    if certificate["graph"] is not None and certificate["layers"]:
        graph = _apart(
            certificate["layers"][-1], imported("diptych.engines.onnxruntime").run_file(path, given)
        )
        if graph > TOLERANCE:
            problems.append(f"the graph of the file gives other numbers: {_figure(graph)} apart")
    shown = engine_of(compiled.engine)
    return _layers(certificate, now), f"{shown['engine']} {shown['version']}".strip(), problems


def _apart(entry: Mapping[str, Any], value: Any) -> float:
    """How far a layer's output is from the sample in the certificate, of its largest value."""
    if value is None or list(value.shape) != entry["shape"]:
        return math.inf
    pairs = list(zip(entry["sample"], sample(value), strict=False))
    if any((a is None) != (b is None) for a, b in pairs) or len(pairs) != len(entry["sample"]):
        return math.inf
    known = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    return relative(max(known, default=0.0), entry["largest"] or 0.0)


def _differing(now: Mapping[str, float]) -> list[str]:
    bad = [path for path, apart in now.items() if not apart <= TOLERANCE]
    if not bad:
        return []
    first = now[bad[0]]
    how = "another shape" if math.isinf(first) else f"{_figure(first)} of its largest value apart"
    return [f"{len(bad)} of {len(now)} layers give other numbers, the first is layer {bad[0]}: {how}"]


def _layers(certificate: Mapping[str, Any], now: Mapping[str, float | None]) -> tuple[Checked, ...]:
    return tuple(
        Checked(
            entry["path"],
            difference_of(entry),
            now.get(entry["path"]),
        )
        for entry in certificate["layers"]
    )


def _sealed(certificate: Mapping[str, Any]) -> list[str]:
    problems = []
    if sealed(certificate)["seal"] != certificate["seal"]:
        problems.append("the certificate was edited: its seal is of another text")
    largest = certificate["largest_difference"]
    if not certificate["left_out"] and not (largest is not None and largest <= TOLERANCE):
        problems.append(
            f"what was written differed from the source: {_figure(largest)} of a layer's largest value"
        )
    return problems


def _versions(certificate: Mapping[str, Any]) -> str:
    made, now = str(certificate["diptych"]), metadata.version("diptych")
    return "" if made == now else f", or Diptych {now} reads them differently than {made[:20]}"


# ---- Julia projects ----------------------------------------------------------------------------------------


def _project(folder: Path, run: bool) -> Verification:
    place = folder / FILE
    if not is_file(place):
        raise FormatError(
            f"the folder {folder} has no {FILE}: it is no Julia project that diptych convert certified"
        )
    try:
        with opened(place) as stream:
            certificate = _checked(json.loads(stream.read(_LARGEST)), place)
    except OSError as error:
        raise FormatError(f"cannot read {place}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{place} is not JSON: it is damaged or was edited") from error
    problems = _sealed(certificate)
    files = certificate.get("files")
    if not isinstance(files, dict) or not files or any(_outside(name) for name in files):
        raise FormatError(f"{place} is damaged or was edited: it does not name the files of the project")
    changed = [
        name for name, sum_ in files.items() if not is_file(folder / name) or sha256_of(folder / name) != sum_
    ]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        problems.append(f"{changed[0]}{more} changed or went missing since the project was certified")
    added = [
        name for name in julia_project.files_in(folder) if name not in {*files, FILE, julia_project.MARK}
    ]
    taken = _taken_by_julia(folder, added)
    if taken:
        problems.append(
            f"{_listed(taken)} {'was' if len(taken) == 1 else 'were'} added since the project was certified, and Julia "
            "would take it for part of the project"
        )
    others = [name for name in added if name not in taken]
    remarks = (
        [
            f"files that the certificate does not know, and that no code of the project includes: {_listed(others)}"
        ]
        if others
        else []
    )
    if not run:
        remarks.append(
            "the files were checked, but Flux was not run: --run (run=True) runs the project's own code in Julia"
        )
    elif changed or taken:
        remarks.append("Flux was not run, because files changed")
    if not run or changed or taken:
        return Verification(
            as_text(folder), certificate, tuple(problems), _layers(certificate, {}), remarks=tuple(remarks)
        )
    now, said = _in_julia(folder)
    problems += [said] if said else _differing(now)
    return Verification(
        as_text(folder),
        certificate,
        tuple(problems),
        _layers(certificate, now),
        "Flux in Julia" if now else "",
        remarks=tuple(remarks),
    )


# Which Julia prefers to Project.toml and Manifest.toml, or which change what packages do.
_READ_BY_JULIA = re.compile(
    r"JuliaProject\.toml|JuliaManifest(-v[\d.]+)?\.toml|(Julia)?LocalPreferences\.toml", re.I
)
_INCLUDE = re.compile(r'\binclude\(\s*(?:joinpath\(\s*@__DIR__\s*,\s*)?"([^"\n]+)"')


def _taken_by_julia(folder: Path, added: Sequence[str]) -> list[str]:
    """Which of the added files Julia reads by their names, or the code of the project includes."""
    included: set[str] = set()
    waiting = ["predict.jl", "model.jl", "preprocess.jl"]
    while waiting:
        name = waiting.pop()
        if name in included or not is_file(folder / name):
            continue
        included.add(name)
        with opened(folder / name) as stream:
            text = stream.read(_LARGEST).decode("utf-8", "replace")
        waiting += [(Path(name).parent / found[1]).as_posix() for found in _INCLUDE.finditer(text)]
    return [name for name in added if name in included or _READ_BY_JULIA.fullmatch(name)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*map(as_text, names[:5]), *(["..."] if len(names) > 5 else [])])


def _in_julia(folder: Path) -> tuple[dict[str, float], str]:
    """What `predict.jl --check` says of every layer, and what is wrong if it does not run."""
    command = [*julia_command(), str((folder / "predict.jl").resolve()), "--check"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_JULIA_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"Julia cannot be run as {command[0]}: {reason(error)}") from error
    line = re.compile(r"^(agrees|DIFFERS) +layer (\S+) \(.*?\): (?:(\S+) apart, the largest value is (\S+))?")
    now: dict[str, float] = {}
    for text in done.stdout.splitlines():
        found = line.match(text)
        if found:
            now[found[2]] = relative(float(found[3]), float(found[4])) if found[3] else math.inf
    if not now:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        return {}, f"the project does not run in Julia, which says: {said[:200]}"
    return now, ""


def _outside(name: Any) -> bool:
    parts = Path(name).parts if isinstance(name, str) else ()
    return not parts or ".." in parts or Path(name).is_absolute()


# ---- The document ------------------------------------------------------------------------------------------


def _checked(document: Any, place: Path) -> dict[str, Any]:
    """The certificate, if every part that is used has the right form. Raises `FormatError`."""
    wrong = FormatError(f"the certificate in {place} is damaged or was edited: convert the source again")
    if not isinstance(document, dict):
        raise wrong
    if isinstance(document.get("version"), int) and document["version"] > 1:
        raise FormatError(
            f"the certificate in {place} has version {document['version']}, this Diptych reads 1; update Diptych"
        )
    known = ("diptych", "format", "left_out", "seal")
    good = document.get("version") == 1 and all(isinstance(document.get(key), str) for key in known)
    good = (
        good
        and {"graph", "largest_difference"} <= document.keys()
        and _number(document["largest_difference"])
    )
    good = good and _number(document["graph"]) and isinstance(document.get("tolerance"), float)
    layers = document.get("layers")
    if not good or not isinstance(layers, list) or not all(map(_is_layer, layers)):
        raise wrong
    found: dict[str, Any] = {"input": None, "reference": None, "written": None, **document}
    if not document["left_out"] and not (
        _is_input(found["input"]) and _is_engine(found["reference"]) and _is_engine(found["written"])
    ):
        raise wrong
    return found


def _is_engine(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"engine", "version"}
        and all(isinstance(text, str) for text in entry.values())
    )


def _is_layer(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("path"), str)
        and isinstance(entry.get("alone"), bool)
        and isinstance(entry.get("shape"), list)
        and {"largest", "difference"} <= entry.keys()
        and _number(entry["largest"])
        and _number(entry["difference"])
        and isinstance(entry.get("sample"), list)
        and len(entry["sample"]) <= 2 * SAMPLES
        and all(map(_number, entry["sample"]))
    )


def _is_input(entry: Any) -> bool:
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("seed"), int)
        or not 0 <= entry["seed"] < 2**63
    ):
        return False
    shape: Any = entry.get("shape")
    sizes = (
        isinstance(shape, list) and 0 < len(shape) <= 8 and all(isinstance(n, int) and n > 0 for n in shape)
    )
    return sizes and math.prod(shape) <= _LARGEST and bool(_HASH.fullmatch(str(entry.get("sha256"))))


def _number(value: Any) -> bool:
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _figure(value: float | None) -> str:
    return "a difference without bounds" if value is None or math.isinf(value) else f"{value:.2g}"
