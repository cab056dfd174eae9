"""The weights in a file of another program, as `load_state_dict` takes them; nothing in the file is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor, nn

from diptych.errors import FormatError, reason
from diptych.formats.filling import plain_names
from diptych.formats.torch.loading import load

__all__ = ["into", "state_of"]

# Where training programs put the weights, those of an average first.
_PLACES = ("state_dict_ema", "model_ema", "state_dict", "model", "module")


def state_of(path: Path) -> dict[str, Any]:
    """The tensors by name.

    Args:
        path: A .safetensors file, or one that `torch.save` wrote.

    Raises:
        FormatError: The file is damaged or cut off, holds pickled code, or holds no weights.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            state: Any = load_file(path)
        except (safetensors.SafetensorError, ValueError) as error:
            raise FormatError(
                f"{path} is damaged or cut off ({reason(error)}): delete it, and download it again"
            ) from error
        except OSError as error:
            raise FormatError(f"cannot read {path}: {reason(error)}") from error
    else:
        state = load(path)
        for place in _PLACES:
            if isinstance(state, Mapping) and isinstance(state.get(place), Mapping):
                state = state[place]
                break
    if (
        not isinstance(state, Mapping)
        or not state
        or not any(isinstance(value, Tensor) for value in state.values())
    ):
        raise FormatError(f"{path} holds no weights: it must hold a state_dict, names and tensors")
    names = [str(name) for name in state]
    return dict(zip(plain_names(names), state.values(), strict=True))


def into(network: nn.Module, state: dict[str, Any], name: str, file: Path) -> None:
    """Puts weights into the module of a network.

    Raises:
        FormatError: They are not those of the network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise FormatError(f"the weights in {file} are not those of {name}: {reason(error, 300)}") from error
