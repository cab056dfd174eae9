"""Networks that timm builds: by their names, from a repository of the hub, and from a folder in its layout."""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diptych.datasets import class_names
from diptych.errors import DiptychError, FormatError, ModelError, OutputError, UsageError, reason
from diptych.extras import imported
from diptych.files import is_file, is_folder, opened
from diptych.hub import recipes
from diptych.hub.files_of_torch import torch_file
from diptych.hub.huggingface import fetched, parts
from diptych.hub.weights import into, state_of
from diptych.model.model import Model, Source
from diptych.modules import from_torch

__all__ = ["CONFIG", "WEIGHTS", "read_folder", "read_named", "read_repository"]

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The names of weights in a repository, the one that cannot hold code first."""

_LARGEST_SIZE = 4096
_LARGEST_CONFIG = 2**24  # bytes: 21,843 class names with their descriptions take two million


def read_named(name: str, output: str | int | None = None, weights: bool | Path = True) -> Model:
    """timm/NAME, with the weights of the tag after the dot, or of timm's default tag.

    Raises:
        UsageError: timm has no such network, tag or weights; the nearest names are offered.
        OutputError: The weights are not in the cache and cannot be downloaded.
        FormatError: They are damaged or hold pickled code.
        UnsupportedLayer: No layer can express an operation of the network.
    """
    timm = imported("timm")
    wanted = name.removeprefix("timm/")
    architecture = wanted.partition(".")[0]
    if not timm.is_model(architecture):
        raise UsageError(_unknown(wanted, [*timm.list_models(), *timm.list_pretrained()]))
    tagged = timm.list_pretrained(f"{architecture}.*")
    if wanted != architecture and wanted not in tagged:
        raise UsageError(_unknown(wanted, tagged))
    config = timm.get_pretrained_cfg(wanted).to_dict()
    if config.get("tag"):
        wanted = f"{architecture}.{config['tag']}"
    if isinstance(weights, Path):
        network = _filled(timm, wanted, config, weights)
    else:
        network = _network(timm, wanted, _pretrained_state(wanted, config) if weights else None)
    return _model(timm, network, config, wanted, output, weights is not False)


def read_repository(name: str, output: str | int | None = None, weights: bool | Path = True) -> Model:
    """hf-hub:OWNER/NAME[@REVISION]: a repository whose config.json is timm's.

    Raises:
        UsageError: There is no such repository, or its licence must be accepted first.
        OutputError: A file is not in the cache and cannot be downloaded.
        FormatError: A file is damaged, is missing, or is one of another library.
        UnsupportedLayer: No layer can express an operation of the network.
    """
    repository, revision = parts(name)
    config = fetched(repository, CONFIG, revision)
    if config is None:
        raise FormatError(f"{name} has no {CONFIG}, which says what network its weights belong to")
    settings = _checked_config(config, name)
    imported("timm")  # before large files are downloaded
    commit = config.parent.name if config.parent.parent.name == "snapshots" else revision
    if isinstance(weights, Path):
        return _of_files(settings, config.parent, state_of(weights), name, output)
    found = next((path for file in WEIGHTS if (path := fetched(repository, file, commit))), None)
    if found is None and weights:
        raise FormatError(f"{name} has a {CONFIG} but no weights ({' or '.join(WEIGHTS)})")
    state = state_of(found) if found is not None and weights else None
    return _of_files(settings, config.parent, state, name, output)


def read_folder(folder: str, output: str | int | None = None, weights: bool | Path = True) -> Model:
    """A folder with timm's config.json and weights, as a repository of the hub has them.

    Raises:
        FormatError: A file is damaged, is missing, or is one of another library.
        UnsupportedLayer: No layer can express an operation of the network.
    """
    place = Path(folder)
    if not is_folder(place):
        raise FormatError(f"there is no folder {place}; local-dir: is followed by a folder with a {CONFIG}")
    config = place / CONFIG
    if not is_file(config):
        raise FormatError(
            f"the folder {place} has no {CONFIG}, which says what network its weights belong to"
        )
    settings = _checked_config(config, str(place))
    if isinstance(weights, Path):
        return _of_files(settings, place, state_of(weights), str(place), output)
    found = next((place / file for file in WEIGHTS if is_file(place / file)), None)
    others = [path for kind in ("*.safetensors", "*.pth", "*.bin") for path in sorted(place.glob(kind))]
    if found is None and len(others) == 1:
        found = others[0]
    if found is None and weights:
        several = f"; it has {', '.join(path.name for path in others[:4])}: rename one" if others else ""
        raise FormatError(
            f"the folder {place} has a {CONFIG} but no weights ({' or '.join(WEIGHTS)}){several}"
        )
    state = state_of(found) if found is not None and weights else None
    return _of_files(settings, place, state, str(place), output)


# ---- Building ------------------------------------------------------------------------------------------


def _of_files(
    settings: dict[str, Any], folder: Path, state: dict[str, Any] | None, name: str, output: str | int | None
) -> Model:
    timm = imported("timm")
    network = _network(timm, f"local-dir:{folder}", state, name)
    own = dict(settings.get("pretrained_cfg") or settings)
    own |= {
        key: settings[key]
        for key in ("num_classes", "label_names", "label_descriptions", "license")
        if key in settings
    }
    own.setdefault("label_names", own.get("labels"))
    own["input_size"] = getattr(network, "pretrained_cfg", own).get("input_size")
    title = str(settings["architecture"])
    tag = own.get("tag")
    return _model(timm, network, own, f"{title}.{tag}" if tag else title, output, state is not None)


def _network(timm: Any, name: str, state: dict[str, Any] | None, shown: str = "") -> Any:
    """The module that timm builds, with the weights where there are some."""
    shown = shown or f"timm/{name}"
    overlay = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": state, "source": ""}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if state is not None:
                _check_size(timm, name, state, shown)
            return timm.create_model(name, pretrained=state is not None, **overlay)
    except (DiptychError, MemoryError):
        raise
    except Exception as error:  # what settings and weights that do not fit make timm and PyTorch raise
        why = "its weights do not fit the network" if state is not None else "its settings are not timm's"
        raise FormatError(
            f"{shown} cannot be built with timm {timm.__version__}: {why} ({reason(error, 300)})"
        ) from error


def _check_size(timm: Any, name: str, state: dict[str, Any], shown: str) -> None:
    """Refuses settings of a network far larger than the weights that the file has for it."""
    try:
        with torch.device("meta"):
            network = timm.create_model(name, pretrained=False)
    except Exception:  # not every network can be made without memory; making it tells what is wrong
        return
    numbers = sum(parameter.numel() for parameter in network.parameters())
    stored = sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor))
    if numbers > 4 * stored + 2**24:
        raise FormatError(
            f"the settings of {shown} describe {numbers:,} weights, but its file holds {stored:,}; download both again"
        )


def _filled(timm: Any, name: str, config: Mapping[str, Any], file: Path) -> Any:
    """The network with the weights of a user's file, which may end in other classes."""
    state = state_of(file)
    options: dict[str, Any] = {}
    head = state.get(f"{config.get('classifier')}.weight")
    if isinstance(head, torch.Tensor) and len(head) != config.get("num_classes"):
        options["num_classes"] = len(head)
    network = timm.create_model(name, pretrained=False, **options)
    into(network, state, f"timm/{name}", file)
    return network


def _model(
    timm: Any,
    network: nn.Module,
    config: Mapping[str, Any],
    name: str,
    output: str | int | None,
    trained: bool,
) -> Model:
    remarks: list[str] = []
    try:
        recipe = recipes.of_timm(config)
    except ModelError as error:
        recipe = None
        remarks.append(f"the model has no recipe: {error}")
    example = torch.rand((1, *_input_size(config, name)), generator=torch.Generator().manual_seed(0))
    model = from_torch(network, example, output, whole=True)
    classes = _classes(timm, config, name)
    source = Source("timm", "timm", str(timm.__version__), (*model.source.warnings, *remarks))
    notes = {key: config[key] for key in ("license", "origin_url", "paper_ids") if config.get(key)}
    if config.get("num_classes") == 0:
        notes["output"] = "features"
    made = model.with_(name=name, preprocessing=recipe, source=source, notes=notes, trained=trained)
    return class_names.named(made, classes)


def _input_size(config: Mapping[str, Any], name: str) -> tuple[int, ...]:
    size = config.get("input_size") or (3, 224, 224)
    whole = isinstance(size, list | tuple) and len(size) == 3
    if not whole or not all(isinstance(n, int) and 1 <= n <= _LARGEST_SIZE for n in size):
        raise FormatError(
            f"{name} records the input size {str(size)[:60]}; it must be channels, height and width"
        )
    return tuple(size)


def _classes(timm: Any, config: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """The names of the outputs: the config's own, else those of the part of ImageNet that they number."""
    own = config.get("label_names")
    if isinstance(own, list | tuple) and own:
        described = config.get("label_descriptions")
        described = described if isinstance(described, Mapping) else {}
        return tuple(str(described.get(label, label)) for label in own)
    count = config.get("num_classes")
    if count == 1000:
        return class_names.of("imagenet-1k") if "in1k" in name or "imagenet" in name else None
    subset = imported("timm.data").infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return None
    info = imported("timm.data").ImageNetInfo(subset)
    return tuple(
        f"{info.index_to_description(i).split(', ')[0]} ({info.index_to_label_name(i)})"
        for i in range(info.num_classes())
    )


# ---- Files ---------------------------------------------------------------------------------------------


def _checked_config(path: Path, name: str) -> dict[str, Any]:
    """The content of a config.json of timm. Raises `FormatError` for any other."""
    try:
        with opened(path) as stream:
            settings = json.loads(stream.read(_LARGEST_CONFIG))
    except OSError as error:
        raise FormatError(f"cannot read {path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: it is damaged or cut off; download it again") from error
    if isinstance(settings, dict) and isinstance(settings.get("architecture"), str):
        inner = settings.get("pretrained_cfg", {})
        if isinstance(inner, dict):
            return settings
    if isinstance(settings, dict) and isinstance(settings.get("model_type"), str):
        kind = settings["model_type"]
        raise FormatError(
            f"{name} is a model of transformers ({kind[:40]}), not of timm: load it there and give the module to "
            "diptych.from_torch(module, example=...), then diptych.write it"
        )
    raise FormatError(f'{path} names no architecture of timm; it must have the entry "architecture"')


def _pretrained_state(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a configuration in timm: from the hub, else from the address that it names."""
    repository, url = config.get("hf_hub_id"), config.get("url")
    if repository:
        repository, _, revision = str(repository).partition("@")
        own = config.get("hf_hub_filename")
        for file in (own,) if own else WEIGHTS:
            path = fetched(repository, file, revision or None)
            if path is not None:
                return state_of(path)
        if not url:
            raise OutputError(f"{repository} has no weights under the names that timm uses; check its page")
    if not url:
        raise UsageError(
            f"timm has no weights for {name}: name one that has some (diptych list timm/), or use it as an "
            f"--architecture timm/{name} for weights in a file"
        )
    address, file = (url, Path(url).name) if isinstance(url, str) else url
    return state_of(torch_file(address, file))


def _unknown(wanted: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wanted, dict.fromkeys(known), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(f'timm/{name}' for name in near)}" if near else ""
    return f"timm has no network called {wanted[:80]!r}{hint}; diptych list timm/ shows all"
