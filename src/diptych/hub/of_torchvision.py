"""torchvision/NAME[:WEIGHTS]: networks that torchvision builds, with the weights in the cache of torch.hub."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from diptych.datasets import class_names
from diptych.errors import DiptychError, FormatError, ModelError, UsageError, reason
from diptych.extras import imported
from diptych.hub import recipes
from diptych.hub.files_of_torch import torch_file
from diptych.hub.weights import into, state_of
from diptych.model.model import Model, Source
from diptych.modules import from_torch

__all__ = ["read"]

_USUAL = (224, 224)
_PRESETS = ("ImageClassification", "SemanticSegmentation")


def read(name: str, output: str | int | None = None, weights: bool | Path = True) -> Model:
    """The network, with the weights named after the colon, or torchvision's default ones.

    Raises:
        UsageError: torchvision has no such network or weights; the nearest names are offered.
        OutputError: The weights are not in the cache and cannot be downloaded.
        FormatError: They are damaged or hold pickled code.
        UnsupportedLayer: No layer can express an operation of the network.
    """
    models = imported("torchvision.models")
    wanted, colon, tag = name.removeprefix("torchvision/").partition(":")
    known = models.list_models()
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(f'torchvision/{one}' for one in near)}" if near else ""
        raise UsageError(
            f"torchvision has no network called {wanted[:80]!r}{hint}; diptych list torchvision/ shows all"
        )
    chosen = _weights(models, wanted, tag if colon else None)
    kind = type(chosen.transforms()).__name__
    if kind not in _PRESETS:
        raise UsageError(
            f"torchvision/{wanted} does not take one picture and give one array (its preset is {kind}): networks for "
            "classification and semantic segmentation are read by name, others by diptych.from_torch"
        )
    if weights is True:
        _check_file(chosen)
    preset = chosen.transforms()
    network = _network(models, wanted, chosen if weights is True else None)
    if isinstance(weights, Path):
        into(network, state_of(weights), name, weights)
    remarks: list[str] = []
    try:
        recipe = recipes.of_torchvision(preset)
    except ModelError as error:
        recipe = None
        remarks.append(f"the model has no recipe: {error}")
    size = recipe.size if recipe is not None else None
    example = torch.rand((1, 3, *(size or _USUAL)), generator=torch.Generator().manual_seed(0))
    if output is None and kind == "SemanticSegmentation":
        output = "out"
    model = from_torch(network, example, output, whole=True)
    version = imported("torchvision").__version__
    source = Source("torchvision", "torchvision", str(version), (*model.source.warnings, *remarks))
    notes = {key: chosen.meta[key] for key in ("recipe", "license") if isinstance(chosen.meta.get(key), str)}
    made = model.with_(
        name=f"{wanted}:{chosen.name}",
        preprocessing=recipe,
        source=source,
        trained=weights is not False,
        notes=notes,
    )
    return class_names.named(made, chosen.meta.get("categories"))


def _weights(models: Any, wanted: str, tag: str | None) -> Any:
    """A member of the enumeration of weights."""
    known = models.get_model_weights(wanted)
    short = None if tag is None else tag.rpartition(".")[2]
    if short is None:
        return known.DEFAULT
    if short not in known.__members__:
        names = ", ".join(member.name for member in known)
        raise UsageError(f"torchvision/{wanted} has no weights {tag[:60] if tag else tag!r}; it has {names}")
    return known[short]


def _check_file(weights: Any) -> None:
    """Downloads the weights where they are missing, and checks that they are whole and hold no code."""
    path = torch_file(weights.url, Path(weights.url).name)
    sum_ = re.search(r"-([0-9a-f]{8,})\.", path.name)  # torchvision's names end in the first digits
    if sum_:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if not found.startswith(sum_[1]):
            raise FormatError(
                f"{path} is damaged or cut off: its SHA-256 begins with {found[:8]}, not {sum_[1]}; delete it, and it "
                "is downloaded again"
            )
    state_of(path)


def _network(models: Any, name: str, weights: Any) -> Any:
    options: dict[str, Any] = {}
    if weights is None:
        taken = inspect.signature(models.get_model_builder(name)).parameters
        options |= {"weights_backbone": None} if "weights_backbone" in taken else {}
        options |= {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return models.get_model(name, weights=weights, **options)
    except (DiptychError, MemoryError):
        raise
    except Exception as error:
        raise FormatError(f"torchvision/{name} cannot be built: {reason(error, 300)}") from error
