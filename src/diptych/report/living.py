"""What makes a page alive: the model as an ONNX graph that begins with the recipe, and the runtime for it.

The page hands pixels to the graph, which prepares them exactly as in Python: the recipe is part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from diptych.errors import ModelError
from diptych.formats.onnx import to_living
from diptych.model.model import Model
from diptych.preprocessing import Preprocessing
from diptych.report.grid import colours
from diptych.report.packing import Packed, Scripts, as_json, pack, runtime

__all__ = ["MOST_MODEL_BYTES", "MOST_PIXELS", "Living", "living"]

_SCRIPTS = Scripts(("onnxruntime.js", "common.js", "page.js"))

MOST_MODEL_BYTES = 8_000_000
"""The largest compressed model in a page."""
MOST_PIXELS = 40_000_000
"""The largest picture that a page takes."""


@dataclass(frozen=True)
class Living:
    """The parts of a living page.

    Attributes:
        facts: What the page's script must know, as JSON.
        model: The graph.
        runtime: ONNX Runtime's WebAssembly.
        layers: (output's name, label) of every layer that can be looked at.
        scripts: ONNX Runtime's JavaScript, and the page's own.
    """

    facts: str
    model: Packed
    runtime: Packed
    layers: tuple[tuple[str, str], ...]
    scripts: Scripts = _SCRIPTS

    @property
    def size(self) -> int:
        """About how many bytes of a page this takes."""
        texts = (self.model.text, self.runtime.text, self.facts, *self.scripts.texts)
        return sum(map(len, texts))


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
    packed = pack(graph)
    if packed.size > MOST_MODEL_BYTES:
        return (
            f"the page is static: the model takes {packed.size / 1e6:.0f} MB, and a page holds one of up to "
            f"{MOST_MODEL_BYTES // 1_000_000} MB"
        )
    facts = {
        "classes": list(classes),
        "colours": colours().reshape(-1).tolist(),
        "mostPixels": MOST_PIXELS,
        "output": layers[-1][0],
        "probabilities": probabilities,
    }
    return Living(as_json(facts), packed, runtime(), layers)
