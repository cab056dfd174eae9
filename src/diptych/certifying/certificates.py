"""Making a certificate: the source on the reference engine beside what was written, layer by layer, on one input.

    {"version": 1, "diptych": "0.1.0", "format": "BSON (Flux)",
     "source": {"format": "timm", "framework": "timm", "version": "1.0"},
     "input": {"shape": [1, 3, 224, 224], "seed": 0, "sha256": "..."},
     "reference": {"engine": "numpy", "version": "2.4"}, "written": {"engine": "onnxruntime", "version": "1.31"},
     "layers": [{"path": "0", "shape": [...], "largest": 3.1, "difference": 2e-07, "alone": false,
                "sample": [...]}, ...],
     "graph": 2e-07, "largest_difference": 1e-07, "tolerance": 0.0001, "left_out": "",
     "weights": "sha256", "settings": "sha256", "seal": "sha256"}

"difference" is the largest |reference - written| of a layer's output (null if it is not finite, or if the layer is
"alone": the source has none that is like it), "largest" its largest value, and "sample" its mean and some of its
values, by which `verify` knows the numbers again. "graph" is the difference of an ONNX file's own graph. "weights" and
"settings" (recipe, class names, input shape) are hashes of what the file holds, and "seal" of the certificate.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from diptych.comparing.alignment import align, measure, same_kinds
from diptych.comparing.runs import Run
from diptych.errors import ModelError
from diptych.extras import imported
from diptych.files import sha256 as sha256_of
from diptych.formats import julia_project
from diptych.model.entry import sample_shape
from diptych.model.layers import Array
from diptych.model.layers.whole import WholeGraph, whole_graph
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes
from diptych.model.summary import summarise
from diptych.predicting import compiled_for

__all__ = [
    "FILE",
    "KEY",
    "MOST_MEMORY",
    "SAMPLES",
    "TOLERANCE",
    "certificate_of",
    "difference_of",
    "engine_of",
    "input_of",
    "project_certificate",
    "relative",
    "rounded",
    "sample",
    "sealed",
    "settings_digest",
    "weights_digest",
]

KEY = "certificate"
"""The name of the certificate among a model's notes."""
FILE = "certificate.json"
"""Its name in a Julia project."""
TOLERANCE = 1e-4
"""The largest difference of a layer, of its largest value, with which the numbers are the same."""
SAMPLES = 8
MOST_MEMORY = 2**30
"""Bytes of weights, and of activations, with which a file is certified."""

_MOST_WORK = 2e10  # multiply-adds: a few seconds on the reference engine
_MOST_PAIRED = 400  # layers, where the written ones are of other kinds: pairing them takes the square of it


def certificate_of(
    source: Model, written: Model, format_name: str, file: Path | None = None
) -> dict[str, Any]:
    """The certificate for a file.

    Args:
        source: The model that was converted.
        written: The model as it is read from what was written.
        format_name: The format, as messages name it.
        file: An .onnx file without the recipe inside, whose own graph is run, too.
    """
    return sealed({**_figures(source, written, 1, file), "format": format_name, **_digests(written)})


def project_certificate(source: Model, folder: Path, batch: int) -> dict[str, Any]:
    """The certificate for a Julia project, whose files it names with their SHA-256.

    Flux is not run: the figures are those of two engines here, and `verify` runs the project where there is Julia.

    Args:
        source: The model that was converted.
        folder: The project.
        batch: The number of samples in the project's own example.
    """
    files = {name: sha256_of(folder / name) for name in julia_project.files_in(folder) if name != FILE}
    return sealed({**_figures(source, source, batch, None), "format": "Julia project", "files": files})


def _figures(source: Model, written: Model, batch: int, file: Path | None) -> dict[str, Any]:
    origin = {key: getattr(source.source, key) for key in ("format", "framework", "version")}
    document: dict[str, Any] = {
        "version": 1,
        "diptych": metadata.version("diptych"),
        "source": origin,
        "tolerance": TOLERANCE,
    }
    nothing: dict[str, Any] = {"input": None, "layers": [], "graph": None, "largest_difference": None}
    try:
        shape = (batch, *sample_shape(written))
        why = _too_much(written, shape)
    except ModelError as error:
        why = str(error)
    if why:
        return {**document, **nothing, "reference": None, "written": None, "left_out": why}
    given = input_of(shape, 0)
    reference = Run("source", source, "numpy", given)
    result = Run("written", written, "auto", given)
    layers = _layers(reference, result)
    graph = None
    if file is not None:
        own = imported("diptych.engines.onnxruntime").run_file(file, given)
        graph = rounded(measure(reference.outputs()[-1].value, own).absolute)
    largest = max((difference_of(layer) or 0.0 for layer in layers), default=0.0)
    return {
        **document,
        "input": {"shape": list(shape), "seed": 0, "sha256": hashlib.sha256(given.tobytes()).hexdigest()},
        "reference": engine_of("numpy"),
        "written": engine_of(compiled_for(written).engine),
        "layers": layers,
        "graph": graph,
        "largest_difference": rounded(largest),
        "left_out": "",
    }


def _too_much(model: Model, shape: tuple[int, ...]) -> str:
    """Why the layers of a model are not run for a certificate; empty where they are."""
    if whole_graph(model.layers) is not None:
        return "it is a graph that is run as a whole, and written as it is"
    weights = sum(array.nbytes for array in model.weights().values())
    if weights > MOST_MEMORY:
        return f"its weights take {weights / 2**30:.1f} GiB"
    activations = 4 * sum(math.prod(shape) for shape in layer_shapes(model, shape).values())
    if activations > MOST_MEMORY:
        return f"the outputs of its layers take {activations / 2**30:.1f} GiB"
    work = summarise(model, shape).multiply_adds or 0
    if work > _MOST_WORK:
        return f"one input takes {work / 1e9:.0f} billion multiply-adds"
    return ""


def _layers(reference: Run, result: Run) -> list[dict[str, Any]]:
    """One entry for each layer of what was written."""
    few = max(len(reference.layers), len(result.layers)) <= _MOST_PAIRED
    if same_kinds(reference, result) or few:
        rows = align(reference, result, TOLERANCE, inputs=False).rows
        pairs = [(row.b, None if row.lone else row.a) for row in rows if row.lone != "a"]
    else:
        outputs = result.outputs()
        pairs = [(output, None) for output in outputs[:-1]] + [(outputs[-1], reference.outputs()[-1])]
    found = []
    for written, source in pairs:
        value = written.value if source is None else source.value
        difference = None if source is None else measure(source.value, written.value).absolute
        found.append(
            {
                "path": written.path,
                "shape": list(written.value.shape),
                "largest": rounded(float(np.max(np.abs(value), initial=0.0))),
                "difference": None if difference is None else rounded(difference),
                "alone": source is None,
                "sample": sample(written.value),
            }
        )
    return found


def sample(value: Array) -> list[float | None]:
    """The mean of an array, and some values spread over it; None stands for NaN and infinities."""
    flat = value.reshape(-1)
    step = max(1, flat.size // (SAMPLES - 1))
    with np.errstate(invalid="ignore", over="ignore"):
        chosen = [flat.mean(dtype=np.float64), *flat[step // 2 :: step][: SAMPLES - 1]]
    return [float(f"{v:.9g}") if math.isfinite(v) else None for v in chosen]


def difference_of(layer: Mapping[str, Any]) -> float | None:
    """The difference of a layer when it was written, of its largest value; None where it is alone."""
    if layer["alone"]:
        return None
    if layer["difference"] is None or layer["largest"] is None:
        return math.inf
    return relative(float(layer["difference"]), float(layer["largest"]))


def relative(difference: float, largest: float) -> float:
    """A difference as a part of the layer's largest value."""
    if difference == 0:
        return 0.0
    return difference / largest if largest else math.inf


def rounded(value: float) -> float | None:
    """Three digits of a number, or None where it is not finite, which JSON cannot hold."""
    return float(f"{value:.3g}") if math.isfinite(value) else None


def input_of(shape: Sequence[int], seed: int) -> Array:
    """The input of a certificate: random numbers, float32 in 0-1, the same on every machine."""
    return np.random.Generator(np.random.PCG64(seed)).random(tuple(shape), np.float32)


def engine_of(name: str) -> dict[str, str]:
    """An engine with the version of what computes."""
    try:
        version = metadata.version("numpy" if name == "numpy" else name)
    except metadata.PackageNotFoundError:
        version = ""
    return {"engine": name, "version": version}


# ---- Hashes ----------------------------------------------------------------------------------------------


def _digests(model: Model) -> dict[str, str]:
    return {"weights": weights_digest(model), "settings": settings_digest(model)}


def weights_digest(model: Model) -> str:
    """The SHA-256 of every layer's kind and weights, in the order of the layers."""
    found = hashlib.sha256()
    for path, layer in model.walk():
        found.update(f"{path} {type(layer).__name__}\n".encode())
        whole = {"content": layer.content} if isinstance(layer, WholeGraph) else {}
        for name, array in {**layer.arrays, **whole}.items():
            little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
            found.update(f"{name} {little.dtype.str} {array.shape}\n".encode())
            found.update(little.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def settings_digest(model: Model) -> str:
    """The SHA-256 of the recipe, the class names and the input shape."""
    recipe = None if model.preprocessing is None else model.preprocessing.to_document()
    shape = None if model.input_shape is None else [None if n is None else int(n) for n in model.input_shape]
    return _hash({"recipe": recipe, "classes": list(model.classes or ()), "shape": shape})


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate with the hash of everything else in it."""
    plain = {key: value for key, value in document.items() if key != "seal"}
    return {**plain, "seal": _hash(plain)}


def _hash(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
