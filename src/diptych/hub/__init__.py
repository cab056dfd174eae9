"""Models by name: timm, torchvision, the Hugging Face Hub and its cache, folders in its layout, and addresses.

| name | what it is |
|---|---|
| `timm/NAME` | a model of timm with its pretrained weights, such as timm/resnet18.a1_in1k |
| `torchvision/NAME[:WEIGHTS]` | a model of torchvision, such as torchvision/resnet18:IMAGENET1K_V1 |
| `hf-hub:OWNER/NAME[@REVISION]` | a repository of the Hugging Face Hub, with a config.json of timm |
| `local-dir:FOLDER`, or the folder | the same files in a folder |
| `PACKAGE.MODULE:NAME` | a network that the user's own code builds, such as mypackage.networks:build |
| `https://SERVER/FILE#sha256=...` | a model file, downloaded once and checked |

timm and torchvision build the network, from code that is installed here; weights are read without running code in them.
Files come from the cache where it has them, and otherwise from the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych import formats
from diptych.errors import UsageError
from diptych.extras import imported
from diptych.files import is_file, is_folder
from diptych.hub import addresses
from diptych.model.model import Model

__all__ = ["is_name", "is_network", "read"]


_OF_MODULE = re.compile(r"[A-Za-z_]\w+(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_name(model: str | Path) -> bool:
    """Whether this names a model, and is not the path of a file: a folder with a config.json is a name, too."""
    text = str(model)
    if text.startswith(("hf-hub:", "local-dir:")) or addresses.is_address(text):
        return True
    if (text.startswith(("timm/", "torchvision/")) or _OF_MODULE.fullmatch(text)) and not os.path.lexists(
        text
    ):
        return True
    return is_folder(text) and is_file(Path(text) / "config.json")


def is_network(model: str | Path) -> bool:
    """Whether this names a network that is built here, whose weights may be those of another file."""
    return is_name(model) and not addresses.is_address(str(model))


def read(
    model: str | Path, options: Mapping[str, Any] | None = None, *, weights: bool | Path = True
) -> Model:
    """The model of a name, with its recipe and class names where they are known.

    Args:
        model: A name, for which `is_name` holds.
        options: For an address those of `formats.read`; for other names "output", which of several outputs of the
            network is taken: a key or an index.
        weights: Whether the pretrained weights are read, or those of a file instead, which have the names of the
            network's own state_dict. If False, they are initial ones.

    Raises:
        UsageError: There is no such name, or an option is not for names.
        FormatError: What the name stands for is damaged, incomplete or holds pickled code.
        OutputError: It is not in the cache and cannot be downloaded.
        UnsupportedLayer: No layer can express an operation of the network.
    """
    name, given = str(model), dict(options or {})
    if addresses.is_address(name):
        return formats.read(addresses.downloaded(name), **given)
    output = given.pop("output", None)
    if given:
        raise UsageError(f"{next(iter(given))} is for reading a file, but {name} is the name of a network")
    if isinstance(output, str) and output.isdigit():
        output = int(output)
    if name.startswith("torchvision/") and not is_folder(name):
        return _model(imported("diptych.hub.of_torchvision").read(name, output, weights))
    if _OF_MODULE.fullmatch(name):
        return _model(imported("diptych.hub.of_modules").read(name, output, weights))
    networks = imported("diptych.hub.of_timm")
    if name.startswith("hf-hub:"):
        return _model(networks.read_repository(name, output, weights))
    if name.startswith("timm/") and not is_folder(name):
        return _model(networks.read_named(name, output, weights))
    return _model(networks.read_folder(name.removeprefix("local-dir:"), output, weights))


def _model(found: Any) -> Model:
    assert isinstance(found, Model)
    return found
