"""Finding, downloading and loading a diffusers model, quietly and with one clear error if it fails."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import socket
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diptych.errors import GenerationError, MissingExtra, reason
from diptych.files import is_file, is_folder

__all__ = ["load", "online", "quietly", "require"]

INDEX = "model_index.json"
_OFFLINE = "download it on a machine that has a connection and name its folder"


def require() -> None:
    """Raises `MissingExtra` unless diffusers and transformers are installed."""
    for package in ("diffusers", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "diffusion", "generating with a diffusers model")


def load(
    model: str, dtype_for: Callable[[dict[str, Any]], object], revision: str | None, allow_pickle: bool
) -> tuple[Any, str | None]:
    """Loads a text-to-image pipeline; code that a model brings along is never run.

    Args:
        model: A folder, or the id of a model in the local cache or on the Hugging Face Hub.
        dtype_for: Chooses the torch dtype, given the content of model_index.json.
        revision: The revision of a model on the hub.
        allow_pickle: Whether weights may be read from pickle files.

    Returns:
        The pipeline, and the commit of a model from the hub.

    Raises:
        GenerationError: The model cannot be found, downloaded or loaded.
    """
    path, local = _index(model, revision)
    index, commit = _parsed(path), None if Path(model).is_dir() else path.parent.name
    options: dict[str, Any] = {"revision": revision, "use_safetensors": None if allow_pickle else True}
    options = {key: value for key, value in options.items() if value is not None}
    if local:
        options["local_files_only"] = True
    failures: list[Exception] = []
    for variant in _variants(model):
        try:
            return _from_pretrained(model, dtype_for(index), {**options, **variant}), commit
        except Exception as error:  # missing, damaged and foreign files fail in many ways
            failures.append(error)
    if local and not Path(model).is_dir() and online():  # an earlier download was interrupted
        options.pop("local_files_only")
        try:
            return _from_pretrained(model, dtype_for(index), options), commit
        except Exception as error:
            failures.insert(0, error)
    raise _explained(model, failures[0], allow_pickle) from failures[0]


def _from_pretrained(model: str, dtype: object, options: dict[str, Any]) -> Any:
    from diffusers import AutoPipelineForText2Image, DiffusionPipeline

    # The keyword was renamed, and the old one warns.
    old = "torch_dtype (" in (DiffusionPipeline.from_pretrained.__doc__ or "")
    options = {("torch_dtype" if old else "dtype"): dtype, **options}
    try:
        return AutoPipelineForText2Image.from_pretrained(model, **options)
    except ValueError as error:
        if "AutoPipeline can't find" not in str(error):
            raise
        return DiffusionPipeline.from_pretrained(model, **options)


def _variants(model: str) -> tuple[dict[str, str], ...]:
    """The sets of weights to try: the default ones, then those saved in half precision."""
    if not Path(model).is_dir():
        return {}, {"variant": "fp16"}
    weights = list(Path(model).glob("*/*.safetensors"))
    half = bool(weights) and all(".fp16." in file.name for file in weights)
    return ({"variant": "fp16"},) if half else ({},)


_LONGEST_ID = 96  # characters, by the model hub's rules


def _index(model: str, revision: str | None) -> tuple[Path, bool]:
    """Where model_index.json is, and whether the model was already on this machine."""
    folder = Path(model)
    if is_file(folder):
        raise GenerationError(
            f"{model} is a file, but a diffusers model is a folder with {INDEX} in it; convert a single-file "
            "checkpoint with diffusers' from_single_file and save_pretrained"
        )
    if is_folder(folder):
        if not (folder / INDEX).is_file():
            raise GenerationError(
                f"the folder {model} holds no {INDEX}, so it is not a diffusers model; name another"
            )
        return folder / INDEX, True
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model) or len(model) > _LONGEST_ID:
        raise GenerationError(
            f"there is no folder {model}; name a folder that save_pretrained wrote, or an owner/name id"
        )
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(model, INDEX, revision=revision)
    if isinstance(cached, str):
        return Path(cached), True
    if not online():
        raise GenerationError(
            f"the model {model} is not on this machine and the hub cannot be reached; {_OFFLINE}"
        )
    try:
        return Path(hf_hub_download(model, INDEX, revision=revision, etag_timeout=5)), False
    except Exception as error:
        raise _explained(model, error, True) from error


def _parsed(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GenerationError(f"{path} is damaged ({reason(error)}); download the model again") from error
    if not isinstance(index, dict) or "_class_name" not in index:
        raise GenerationError(
            f"{path} names no pipeline, so its folder is not a diffusers model; name another"
        )
    return index


def online() -> bool:
    """Whether the hub answers; its own client would try for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    if address.scheme in urllib.request.getproxies():
        return True  # the proxy decides what can be reached
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True


def _explained(model: str, error: Exception, allow_pickle: bool) -> GenerationError:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if "GatedRepoError" in kinds:
        return GenerationError(
            f"the model {model} is gated; accept its licence on its page, then run: hf auth login"
        )
    if "RepositoryNotFoundError" in kinds:
        return GenerationError(
            f"there is no public model {model}; check the name, or for a private one run: hf auth login"
        )
    if "RevisionNotFoundError" in kinds:
        return GenerationError(f"the model {model} has no such revision; check its name on the model's page")
    if "LocalEntryNotFoundError" in kinds or "OfflineModeIsEnabled" in kinds or "ConnectError" in kinds:
        return GenerationError(
            f"the model {model} could not be downloaded completely; try again, or {_OFFLINE}"
        )
    if "EntryNotFoundError" in kinds:
        return GenerationError(
            f"the model {model} holds no {INDEX}, so it is not a diffusers model; name another one"
        )
    if not allow_pickle and ("safetensors" in text or "no file named" in text):
        return GenerationError(
            f"the model {model} holds no complete set of safetensors weights ({reason(error)}); pickle files "
            "can run code when they are read: pass allow_pickle=True if you trust its authors"
        )
    return GenerationError(
        f"the model {model} cannot be loaded ({reason(error)}); download it again or name another"
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps the libraries' warnings, log lines and progress bars off the terminal while the block runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        advice = os.environ.get("TRANSFORMERS_NO_ADVISORY_WARNINGS")
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
        import transformers.utils.logging as transformers_log

        levels = {
            name: logging.getLogger(name).level for name in ("transformers", "diffusers", "huggingface_hub")
        }
        bars = [(transformers_log, transformers_log.is_progress_bar_enabled())]
        transformers_log.set_verbosity(logging.CRITICAL)
        transformers_log.disable_progress_bar()
        import diffusers.utils.logging as diffusers_log

        bars.append((diffusers_log, diffusers_log.is_progress_bar_enabled()))
        diffusers_log.disable_progress_bar()
        try:
            for name in levels:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            for library, shown in bars:
                if shown:
                    library.enable_progress_bar()
            if advice is None:
                del os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"]
