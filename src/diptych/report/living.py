"""What makes a page alive: the model as an ONNX graph that begins with the recipe, and the runtime for it.

The page hands pixels to the graph, which prepares them exactly as in Python: the recipe is part of it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from diptych.errors import ModelError
from diptych.formats.onnx import to_living
from diptych.model.model import Model
from diptych.preprocessing import Preprocessing
from diptych.report.grid import colours

__all__ = ["Living", "living"]

_PLACE = Path(__file__).parent / "live"
# 91 printable characters that mean nothing in HTML: two of them hold 13 bits.
_ALPHABET = "".join(chr(code) for code in range(33, 127) if chr(code) not in "<&'")
_LARGEST = 8_000_000  # bytes of the model in a page
_MOST_PIXELS = 40_000_000


@dataclass(frozen=True)
class Living:
    """The parts of a living page.

    Attributes:
        facts: What the page's script must know, as JSON.
        model: The graph, compressed, as text.
        model_bytes: How many bytes that text stands for.
        runtime: ONNX Runtime's WebAssembly, as text.
        runtime_bytes: How many bytes that text stands for.
        layers: (output's name, label) of every layer that can be looked at.
    """

    facts: str
    model: str
    model_bytes: int
    runtime: str
    runtime_bytes: int
    layers: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """About how many bytes of a page this takes."""
        return len(self.model) + len(self.runtime) + len(self.facts) + sum(map(len, self.scripts))

    @property
    def scripts(self) -> tuple[Markup, Markup]:
        """ONNX Runtime's JavaScript, and the page's own."""
        return Markup(_text("onnxruntime.js")), Markup(_text("page.js"))

    @property
    def policy(self) -> str:
        """The hashes of the scripts, for the page's content security policy."""
        digests = (hashlib.sha256(f"\n{script}\n".encode()).digest() for script in self.scripts)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def living(
    model: Model, recipe: Preprocessing, probabilities: bool, classes: tuple[str, ...]
) -> Living | str:
    """The living parts for a model, or a sentence on why its page is static.

    Args:
        model: A classifier.
        recipe: The recipe in use.
        probabilities: Whether its outputs are probabilities.
        classes: The names of its classes.
    """
    try:
        graph, layers = to_living(model.with_(preprocessing=recipe))
    except ModelError as error:
        return f"the page is static, because the model cannot run in a browser: {error}"
    packed = gzip.compress(graph, 9, mtime=0)
    if len(packed) > _LARGEST:
        return (
            f"the page is static: the model takes {len(packed) / 1e6:.0f} MB, and a page holds one of up to "
            f"{_LARGEST // 1_000_000} MB"
        )
    runtime, length = _runtime()
    facts = {
        "alphabet": _ALPHABET,
        "classes": list(classes),
        "colours": colours().reshape(-1).tolist(),
        "mostPixels": _MOST_PIXELS,
        "output": layers[-1][0],
        "probabilities": probabilities,
    }
    text = json.dumps(facts, ensure_ascii=True).replace("<", "\\u003c")
    return Living(text, _as_text(packed), len(packed), runtime, length, layers)


@cache
def _runtime() -> tuple[str, int]:
    content = (_PLACE / "onnxruntime.wasm.gz").read_bytes()
    return _as_text(content), len(content)


@cache
def _text(name: str) -> str:
    return (_PLACE / name).read_text("utf-8").strip()


def _as_text(content: bytes) -> str:
    """13 bits in two characters of 91, the lowest bits first: 6.5 bits in a byte, where base64 has 6."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    groups = np.pad(bits, (0, -len(bits) % 13)).reshape(-1, 13)
    numbers = groups.astype(np.int32) @ (1 << np.arange(13, dtype=np.int32))
    alphabet: Any = np.frombuffer(_ALPHABET.encode(), np.uint8)
    pairs = np.stack([alphabet[numbers % 91], alphabet[numbers // 91]], axis=1)
    return pairs.tobytes().decode("ascii")
