"""What makes the page of a filter alive: the network as an ONNX graph that takes pixels, and the runtime for it."""

from __future__ import annotations

from dataclasses import dataclass

from diptych.engines.tiled import prepare, with_explicit_padding
from diptych.errors import ModelError
from diptych.formats.onnx import to_living
from diptych.model.layers import Chain
from diptych.model.model import Model
from diptych.preprocessing import Colour, Grey, Preprocessing, Scale
from diptych.report.living import MOST_MODEL_BYTES, MOST_PIXELS
from diptych.report.packing import Packed, Scripts, as_json, pack, runtime

__all__ = ["LivingFilter", "filter_graph", "living_filter"]

_SCRIPTS = Scripts(("onnxruntime.js", "common.js", "filtering.js", "filter.js"))


@dataclass(frozen=True)
class LivingFilter:
    """The parts of a living page of a filter.

    Attributes:
        facts: What the page's script must know, as JSON.
        model: The graph.
        runtime: ONNX Runtime's WebAssembly.
        scripts: ONNX Runtime's JavaScript, and the page's own.
    """

    facts: str
    model: Packed
    runtime: Packed
    scripts: Scripts = _SCRIPTS


def living_filter(model: Model) -> LivingFilter | str:
    """The living parts for a filter, or a sentence on why its page is static."""
    try:
        graph, facts = filter_graph(model)
    except ModelError as error:
        return f"The page is static, because the filter cannot run in a browser: {error}."
    packed = pack(graph)
    if packed.size > MOST_MODEL_BYTES:
        return f"The page is static: the filter takes {packed.size / 1e6:.0f} MB."
    return LivingFilter(as_json(facts), packed, runtime())


def filter_graph(model: Model) -> tuple[bytes, dict[str, object]]:
    """The ONNX graph of a filter, from pixels to levels, and how a page applies it in strips of rows.

    Args:
        model: A filter: local layers with stride 1 that keep the picture's size.

    Returns:
        The graph: "pixels", uint8 (1, H, W, 3), to "output", float32 (1, C, H, W). And facts for the page: the rows
        "above" and "below" that a row depends on, "least" (height, width), whether it "wraps" round, what an output
        is "times" to be a level of 255, "mostPixels".

    Raises:
        ModelError: The model is not a filter, or has no ONNX graph.
    """
    prepared = prepare(with_explicit_padding(model, None), 255)
    channels = prepared.channels[0] or 3
    own = model.preprocessing.steps if model.preprocessing is not None else ()
    grey = next((step for step in own if isinstance(step, Grey)), Grey("float"))
    scale = () if prepared.divisor == 1 else (Scale(),)
    recipe = Preprocessing(((grey if channels == 1 else Colour()), *scale))
    inner = prepared.layers if isinstance(prepared.layers, Chain) else Chain((prepared.layers,))
    whole = model.with_(layers=inner, preprocessing=recipe, input_shape=(channels, None, None))
    graph, layers = to_living(whole, every_layer=False)
    halo = prepared.halo
    facts = {
        "above": halo.top,
        "below": halo.bottom,
        "least": list(prepared.least),
        "mostPixels": MOST_PIXELS,
        "output": layers[-1][0],
        "times": prepared.divisor,
        "wraps": prepared.wraps,
    }
    return graph, facts
