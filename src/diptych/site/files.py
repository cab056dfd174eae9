"""The files of the site by address: its pages and scripts, and what Python makes for it when it is first asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from diptych.axes import flip_kernel
from diptych.files import encoded, made_folder, replacing
from diptych.formats.flux.layouts import LAYOUTS, PARAMETERS
from diptych.formats.onnx import to_living
from diptych.images.generation import generate
from diptych.loading import load_model
from diptych.model.layers import Activation, Chain, Conv
from diptych.model.model import Model
from diptych.preprocessing import NAMES, Preprocessing, named
from diptych.progress import Progress, silent
from diptych.report.grid import colours
from diptych.report.living import MOST_PIXELS
from diptych.report.living_filter import filter_graph

__all__ = ["site_files", "write_site"]

_HERE = Path(__file__).parent
_LIVE = _HERE.parent / "report" / "live"
_SHARED = ("onnxruntime.js", "onnxruntime.wasm.gz", "common.js", "filtering.js")
_MODELS = {
    "scenes": "scenes",
    "scenes-not-flipped": "scenes, kernels not flipped: what a careless conversion from Flux gives",
}
_PROMPTS = (
    "a lighthouse by the sea at dusk",
    "a snowy mountain under a full moon",
    "a red house in a green meadow",
    "a futuristic city at sunset",
    "a desert with cactuses at noon",
    "a forest in autumn with a river",
)
_SIZE = 384

_FILTERS = {
    "emboss": "a relief, lit from one corner",
    "gaussian": "a Gaussian blur of σ 2",
    "gradient": "the morphological gradient",
    "invert": "the negative",
    "median": "the median of 3 × 3 pixels",
    "motion": "motion blur",
    "posterise": "a few levels of light",
    "sepia": "a sepia tone",
    "sobel": "the gradient magnitude",
    "unsharp": "unsharp mask",
}


@cache
def site_files() -> Mapping[str, Callable[[], bytes]]:
    """Every file of the site: its address, relative to the site's, and what gives its bytes, each computed once."""
    found: dict[str, Callable[[], bytes]] = {}
    pages = _HERE / "pages"
    for path in sorted(p for p in pages.rglob("*") if p.is_file()):
        found[path.relative_to(pages).as_posix()] = path.read_bytes
    for name in _SHARED:
        found[f"shared/{name}"] = (_LIVE / name).read_bytes
    found["shared/report.css"] = (_LIVE.parent / "report.css").read_bytes
    found["contents.json"] = _contents
    for name in _MODELS:
        found[f"models/{name}.onnx"] = _lazily(lambda each: _classifier(each)[0], name)
    for name in NAMES:
        found[f"recipes/{name}.onnx"] = _lazily(_recipe, name)
    for name in _FILTERS:
        found[f"filters/{name}.onnx"] = _lazily(lambda each: _filter(each)[0], name)
    for number in range(len(_PROMPTS)):
        found[f"pictures/{number}.png"] = _lazily(_picture, number)
    return found


def write_site(folder: str | Path, progress: Progress = silent) -> None:
    """Writes every file of the site to a folder, from which any web server can publish it.

    Args:
        folder: The folder; it is made where it does not exist.
        progress: Called with the files done, all files, and a file's name.

    Raises:
        OutputError: A file cannot be written.
    """
    files = site_files()
    for number, (name, made) in enumerate(files.items()):
        progress(number, len(files), name)
        place = Path(folder, name)
        made_folder(place.parent)
        with replacing(place) as temporary:
            temporary.write_bytes(made())
    progress(len(files), len(files), "")


def _lazily(make: Callable[[Any], bytes], argument: Any) -> Callable[[], bytes]:
    return lambda: make(argument)


@cache
def _contents() -> bytes:
    """What the scripts must know."""
    content = {
        "mostPixels": MOST_PIXELS,
        "viridis": colours().reshape(-1).tolist(),
        "magma": colours("magma").reshape(-1).tolist(),
        "models": [_described(name, words) for name, words in _MODELS.items()],
        "recipes": [
            {
                "name": name,
                "file": f"recipes/{name}.onnx",
                "channels": named(name).channels,
                "size": named(name).size,
            }
            for name in NAMES
        ],
        "filters": [
            {"name": name, "words": words, "file": f"filters/{name}.onnx", "facts": _filter(name)[1]}
            for name, words in _FILTERS.items()
        ],
        "pictures": [
            {"file": f"pictures/{number}.png", "words": words} for number, words in enumerate(_PROMPTS)
        ],
        "parameters": {name: [fields for _, fields in layouts] for name, layouts in PARAMETERS.items()},
        "structs": {name: [fields for _, fields in layouts] for name, layouts in LAYOUTS.items()},
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _described(name: str, words: str) -> dict[str, Any]:
    layers = _classifier(name)[1]
    return {
        "name": name,
        "words": words,
        "file": f"models/{name}.onnx",
        "classes": load_model("scenes").classes,
        "output": layers[-1][0],
        "probabilities": True,
        "layers": layers,
    }


@cache
def _classifier(name: str) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    model = load_model("scenes")
    if name != "scenes":
        kept = (
            replace(x, weight=flip_kernel(x.weight)) if isinstance(x, Conv) else x
            for x in model.layers.layers
        )
        model = model.with_(layers=Chain(tuple(kept)))
    return to_living(model)


@cache
def _recipe(name: str) -> bytes:
    recipe: Preprocessing = named(name)
    height, width = recipe.size or (None, None)
    shape = (recipe.channels or 3, height, width)
    return to_living(Model(Chain((Activation("identity"),)), recipe, None, shape, True, name))[0]


@cache
def _filter(name: str) -> tuple[bytes, dict[str, object]]:
    return filter_graph(load_model(_HERE / "filters" / f"{name}.safetensors"))


@cache
def _picture(number: int) -> bytes:
    from PIL import Image

    pixels = generate(_PROMPTS[number], width=_SIZE, height=_SIZE, seed=number)[0]
    return encoded(Image.fromarray(pixels), format="PNG", optimize=True)
