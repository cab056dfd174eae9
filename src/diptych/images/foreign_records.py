"""What other programs tell of how a picture was made: AUTOMATIC1111's web UI and those like it, and ComfyUI."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ForeignRecord", "foreign_record"]

_LONGEST = 4_000_000  # characters of an entry; a workflow of ComfyUI has some tens of thousands
_PAIR = re.compile(r'\s*([A-Za-z][\w +/-]*?):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d+)\s*[x×]\s*(\d+)")


@dataclass(frozen=True)
class ForeignRecord:
    """The settings that Diptych has too, and those that it has not.

    Attributes:
        tool: The program.
        prompt: What the picture shows.
        model: The name of the model, or "".
        seed: The seed, or None.
        size: (width, height) in pixels, or None.
        settings: steps, guidance and negative_prompt, where they are told.
        left_out: The names of what has no counterpart, such as the sampler.
    """

    tool: str
    prompt: str
    model: str = ""
    seed: int | None = None
    size: tuple[int, int] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def foreign_record(path: str | Path) -> ForeignRecord | None:
    """The record of another program in a PNG file, or None where there is none that can be read."""
    from PIL import Image, PngImagePlugin

    try:
        with Image.open(path) as image:
            if not isinstance(image, PngImagePlugin.PngImageFile):
                return None
            texts = {str(key): str(value) for key, value in image.text.items()}
    except (OSError, ValueError, SyntaxError):
        return None
    if len(texts.get("parameters", "")) in range(1, _LONGEST):
        return _of_parameters(texts["parameters"])
    if len(texts.get("prompt", "")) in range(1, _LONGEST):
        return _of_comfyui(texts["prompt"])
    return None


def _of_parameters(text: str) -> ForeignRecord | None:
    """The prompt, "Negative prompt: ...", and a line of "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, ..."."""
    head, _, last = text.strip().rpartition("\n")
    if "Steps:" not in last:
        head, last = text.strip(), ""
    prompt, _, negative = head.partition("Negative prompt:")
    facts = {name.strip(): _plain(value) for name, value in _PAIR.findall(last)}
    if not prompt.strip():
        return None
    settings: dict[str, Any] = {}
    for key, name, kind in (("steps", "Steps", int), ("guidance", "CFG scale", float)):
        number = _number(facts.pop(name, None), kind)
        if number is not None:
            settings[key] = number
    if negative.strip():
        settings["negative_prompt"] = negative.strip()
    size = _SIZE.fullmatch(facts.pop("Size", "").strip())
    seed = _number(facts.pop("Seed", None), int)
    model = facts.pop("Model", "")
    return ForeignRecord(
        "AUTOMATIC1111", prompt.strip(), model, seed, (int(size[1]), int(size[2])) if size else None, settings,
        tuple(facts),
    )  # fmt: skip


def _of_comfyui(text: str) -> ForeignRecord | None:
    """The graph of nodes: the first sampler, the texts that lead to it, the empty latent and the checkpoint."""
    try:
        graph = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(graph, dict):
        return None
    nodes = {
        key: node
        for key, node in graph.items()
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }
    samplers = (node["inputs"] for node in nodes.values() if "Sampler" in str(node.get("class_type")))
    own = next((inputs for inputs in samplers if "positive" in inputs), None)
    if own is None:
        return None
    prompt = _text_behind(nodes, own.get("positive"))
    if not prompt:
        return None
    negative = _text_behind(nodes, own.get("negative"))
    settings: dict[str, Any] = {}
    for key, name, kind in (("steps", "steps", int), ("guidance", "cfg", float)):
        number = _number(own.get(name), kind)
        if number is not None:
            settings[key] = number
    if negative:
        settings["negative_prompt"] = negative
    sides = [
        (node["inputs"].get("width"), node["inputs"].get("height"))
        for node in nodes.values()
        if "EmptyLatent" in str(node.get("class_type"))
    ]
    size = next(((w, h) for w, h in sides if isinstance(w, int) and isinstance(h, int)), None)
    models = [str(node["inputs"]["ckpt_name"]) for node in nodes.values() if "ckpt_name" in node["inputs"]]
    seed = _number(own.get("seed", own.get("noise_seed")), int)
    left = [name for name in ("sampler_name", "scheduler", "denoise") if name in own]
    left += sorted(
        {str(node.get("class_type")) for node in nodes.values() if "Lora" in str(node.get("class_type"))}
    )
    return ForeignRecord("ComfyUI", prompt, models[0] if models else "", seed, size, settings, tuple(left))


def _text_behind(nodes: Mapping[str, Any], link: Any) -> str:
    """The text of the node that a link names, or of one before it."""
    for _ in range(20):
        if not (isinstance(link, list) and link and str(link[0]) in nodes):
            return ""
        inputs = nodes[str(link[0])]["inputs"]
        if isinstance(inputs.get("text"), str):
            return str(inputs["text"]).strip()
        link = inputs.get("text") or inputs.get("conditioning") or inputs.get("positive")
    return ""


def _plain(value: str) -> str:
    if not value.startswith('"'):
        return value.strip()
    try:
        return str(json.loads(value))
    except ValueError:
        return value.strip('"')


def _number(value: Any, kind: type[int] | type[float]) -> Any:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < 2**63 else None
