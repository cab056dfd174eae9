"""Pictures of an explanation: what the model saw, the map, and the map over what it saw."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diptych.explaining import Explanation
from diptych.files import json_text, keep, replacing, sole_writer
from diptych.images.files import write_png
from diptych.model.layers import Array
from diptych.preparing import write_array
from diptych.report.figure import headline, new_figure, save
from diptych.report.grid import colours, number
from diptych.report.paper import MUTED

__all__ = ["MEANINGS", "draw_explanation", "heat_picture", "overlay_picture", "write_explanation"]

MEANINGS = {
    "grad-cam": "bright: where the layer's maps raise the score",
    "occlusion": "red: covering this lowers the answer; blue: it raises it",
    "smooth-gradients": "bright: pixels that change the score most",
}

_SIDE = 448  # pixels of an overlay's longer side, at least
_STRENGTH = 0.75  # how much of the picture the brightest colour hides


def overlay_picture(explanation: Explanation) -> NDArray[np.uint8]:
    """The map in colour over what the model saw: the stronger, the less of the picture shines through.

    Returns:
        uint8 (H, W, 3), enlarged by a whole factor to at least 448 pixels on the longer side.
    """
    seen = (
        explanation.seen if explanation.seen.ndim == 3 else np.repeat(explanation.seen[..., np.newaxis], 3, 2)
    )
    size = _size(explanation)
    picture = np.asarray(Image.fromarray(seen).resize(size, Image.Resampling.BICUBIC), np.float64)
    values = _enlarged(_relative(explanation), size)
    cover = _STRENGTH * np.abs(values)[..., np.newaxis]
    mixed: NDArray[np.uint8] = np.rint(picture * (1 - cover) + _coloured(explanation, values) * cover).astype(
        np.uint8
    )
    return mixed


def heat_picture(explanation: Explanation) -> NDArray[np.uint8]:
    """The map alone in colour, uint8 (H, W, 3), of the size of `overlay_picture`."""
    return _coloured(explanation, _enlarged(_relative(explanation), _size(explanation)))


def draw_explanation(path: str | Path, explanation: Explanation) -> None:
    """Draws what the model saw, the map with its scale, and the map over what the model saw.

    Args:
        path: The PNG file to write.
        explanation: What `explain` returns.
    """
    e = explanation
    name = {"grad-cam": "Grad-CAM", "occlusion": "Occlusion", "smooth-gradients": "Smooth gradients"}[
        e.method
    ]
    at = f" of layer {e.layer}" if e.layer is not None else ""
    largest = float(np.abs(e.heat).max())
    with new_figure(9.0, 4.3) as figure:
        against = "" if e.label == e.predicted else f" (predicted: {e.predicted})"
        headline(
            figure,
            f"{name}{at}: what “{e.label}” stands on",
            f"{e.image} · {e.kind} {number(e.value)}{against} · {MEANINGS[e.method]}",
        )
        for x, title, pixels in (
            (0.06, "What the model saw", e.seen),
            (0.345, "The map", heat_picture(e)),
            (0.63, "Over what it saw", overlay_picture(e)),
        ):
            axes = figure.add_axes((x, 0.13, 0.27, 0.62))
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
            axes.set_anchor("N")
            axes.set(xticks=[], yticks=[], title=title)
            axes.spines[:].set_visible(False)
        if largest > 0:
            bar = figure.add_axes((0.918, 0.23, 0.014, 0.5))
            low = -1.0 if e.method == "occlusion" else 0.0
            steps = np.linspace(1, low, 256)[:, np.newaxis]
            bar.imshow(_coloured(e, steps), aspect="auto", extent=(0, 1, low * largest, largest))
            bar.set(xticks=[])
            bar.yaxis.tick_right()
            ticks = np.linspace(low * largest, largest, 3)
            bar.set_yticks(ticks, labels=[number(tick, 2) for tick in ticks])
            bar.tick_params(length=0)
            bar.spines[:].set_visible(False)
        figure.text(0.06, 0.06, _belief(e), color=MUTED)
        save(figure, path)


def write_explanation(
    folder: str | Path, explanation: Explanation, sources: Iterable[Path] = ()
) -> list[Path]:
    """Writes the figure, its parts, and the numbers.

    Args:
        folder: The folder, made where it is missing.
        explanation: What `explain` returns.
        sources: Pictures that must not be replaced.

    Returns:
        explanation.png, overlay.png, heat_map.png, heat_map.npy (float32, (H, W)) and explanation.json.

    Raises:
        OutputError: One of them cannot be written, or would replace a source.
    """
    names = ("explanation.png", "overlay.png", "heat_map.png", "heat_map.npy", "explanation.json")
    written = [Path(folder, name) for name in names]
    figure, overlay, heat, values, document = written
    with sole_writer(folder):
        keep(sources, written)
        draw_explanation(figure, explanation)
        write_png(overlay, overlay_picture(explanation))
        write_png(heat, heat_picture(explanation))
        write_array(values, explanation.heat)
        with replacing(document) as temporary:
            temporary.write_text(json_text(explanation.to_document(), indent=2) + "\n", "utf-8")
    return written


def _belief(explanation: Explanation) -> str:
    if explanation.remarks or explanation.randomised is None:
        return explanation.remarks[0][0].upper() + explanation.remarks[0][1:]
    return (
        f"Checked: with randomised weights the map is another one (rank correlation {explanation.randomised:.2f}; "
        "1 would be the same)"
    )


def _size(explanation: Explanation) -> tuple[int, int]:
    height, width = explanation.heat.shape
    factor = -(-_SIDE // max(height, width))
    return width * factor, height * factor


def _relative(explanation: Explanation) -> Array:
    """The map divided by its largest absolute value: -1 to 1."""
    largest = float(np.abs(explanation.heat).max())
    return np.divide(explanation.heat, largest or 1.0)


def _enlarged(values: Array, size: tuple[int, int]) -> Array:
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR)).clip(-1, 1)


def _coloured(explanation: Explanation, values: Array) -> NDArray[np.uint8]:
    signed = explanation.method == "occlusion"
    index = np.rint((values + 1) * 127.5 if signed else values * 255).astype(int)
    return np.take(colours("RdBu_r" if signed else "inferno"), index, axis=0)
