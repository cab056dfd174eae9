"""PACKAGE.MODULE:NAME: a network that the user's own Python code builds; naming it asks for that code to be run."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diptych.errors import DiptychError, ModelError, UsageError, reason
from diptych.hub.weights import into, state_of
from diptych.model.model import Model, Source
from diptych.modules import from_torch

__all__ = ["read"]

_SIDES = (224, 32, 64, 28)  # that are tried where the code of a network depends on sizes


def read(name: str, output: str | int | None = None, weights: bool | Path = True) -> Model:
    """The network, with the weights that it is built with, or those of a file.

    Args:
        name: "package.module:name", of a `torch.nn.Module`, or of what gives one or a `Model` when it is called without
            arguments. Modules are found in the working directory, too.
        output: Which of several outputs is taken.
        weights: The file whose weights it gets, if it is a path.

    Raises:
        UsageError: There is no such module or name, it gives something else, or its code fails.
        UnsupportedLayer: No layer can express an operation of the network.
    """
    made = _built(name)
    if isinstance(made, Model):
        if isinstance(weights, Path):
            raise UsageError(
                f"{name} gives a model of Diptych, and its weights are not those of a state_dict"
            )
        return made
    if isinstance(weights, Path):
        into(made, state_of(weights), name, weights)
    model = _read(made.eval(), output)
    kept = model.source.warnings
    source = Source("Python", "pytorch", torch.__version__, kept)
    return model.with_(name=name, trained=True if isinstance(weights, Path) else None, source=source)


def _built(name: str) -> Any:
    place, _, wanted = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:  # noqa: PTH109
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` does
    try:
        module = importlib.import_module(place)
    except DiptychError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise UsageError(
            f"the module {place} cannot be imported: {reason(error)}; check its name and its code"
        ) from error
    if not hasattr(module, wanted):
        raise UsageError(
            f"the module {place} has nothing called {wanted}; name a network, or a function that builds one"
        )
    found = getattr(module, wanted)
    if not isinstance(found, nn.Module | Model) and callable(found):
        try:
            found = found()
        except DiptychError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise UsageError(f"{name} fails when it is called without arguments: {reason(error)}") from error
    if not isinstance(found, nn.Module | Model):
        raise UsageError(
            f"{name} gives a {type(found).__name__}, where a torch.nn.Module or a Model is expected"
        )
    return found


def _read(network: nn.Module, output: str | int | None) -> Model:
    """Read with its own `example_input_array`, without an example, or with one of a usual size."""
    own = getattr(network, "example_input_array", None)
    if isinstance(own, torch.Tensor):
        return from_torch(network, own, output, whole=True)
    try:
        return from_torch(network, None, output, whole=True)
    except ModelError as error:
        first = error
    channels = next((part.in_channels for part in network.modules() if isinstance(part, nn.Conv2d)), 0)
    for side in _SIDES if channels else ():
        try:
            with torch.no_grad():
                example = torch.rand((1, channels, side, side), generator=torch.Generator().manual_seed(0))
                network(example)
        except Exception:
            continue
        return from_torch(network, example, output, whole=True)
    raise ModelError(
        f"{str(first).partition(', give from_torch')[0].partition(': give from_torch')[0]}; give the network an "
        "attribute example_input_array with a batch, as Lightning calls it"
    ) from first
