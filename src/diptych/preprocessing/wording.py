"""Each step in plain words."""

from __future__ import annotations

from diptych.preprocessing.levels import Invert, Light, LowPass, Standardise
from diptych.preprocessing.steps import CentreCrop, Colour, Grey, Normalise, RecipeStep, Resize, Scale

__all__ = ["sentence"]

_GREY = {
    "julia": "rounded to 8 bits as Julia's Gray does",
    "pillow": "rounded to 8 bits as Pillow's convert('L') does",
    "opencv": "rounded to 8 bits as OpenCV's cvtColor does",
    "float": "not rounded",
}
_KERNEL = {
    "imresize": "Julia's imresize (bilinear, not antialiased)",
    "pillow-bilinear": "Pillow's bilinear (antialiased)",
    "pillow-bicubic": "Pillow's bicubic (antialiased)",
    "pillow-lanczos": "Pillow's Lanczos (antialiased)",
    "opencv-linear": "OpenCV's linear (not antialiased)",
    "opencv-area": "OpenCV's area mean (antialiased)",
    "opencv-cubic": "OpenCV's cubic (not antialiased)",
    "nearest": "the nearest pixel (not antialiased)",
}
_FIT = {
    "stretch": "stretched to fit",
    "crop": "scaled to cover, the centre kept",
    "pad": "scaled to fit inside, on a ground of level {fill}",
    "cover": "scaled to cover it, sizes rounded down, nothing cut off",
    "cover-rounded": "scaled to cover it, sizes rounded to the nearest, nothing cut off",
    "contain": "scaled to fit inside, sizes rounded to the nearest, no ground added",
}


def sentence(step: RecipeStep) -> str:
    """One line, such as "resize to 32 x 32 with Pillow's bilinear (antialiased), ..."."""
    if isinstance(step, Grey):
        return f"grey: 0.299 R + 0.587 G + 0.114 B, {_GREY[step.weights]}"
    if isinstance(step, Colour):
        return "colour: a grey picture becomes three equal channels"
    if isinstance(step, Resize):
        rounding = "rounded to 8 bits" if step.round else "not rounded"
        fit = _FIT[step.fit].format(fill=step.fill)
        size = f"{step.height} x {step.width} (height x width)"
        return f"resize to {size} with {_KERNEL[step.kernel]}, {fit}, {rounding}"
    if isinstance(step, Invert):
        return "invert: dark becomes light"
    if isinstance(step, Standardise):
        count = "n - 1" if step.corrected else "n"
        return f"standardise: each picture's own mean and std (by {count}), {step.epsilon:g} added to the std"
    if isinstance(step, LowPass):
        return f"low-pass: smoothed for a resize to {step.height} x {step.width}, as Julia's documentation advises"
    if isinstance(step, Light):
        return f"light: from {'sRGB to linear' if step.to == 'linear' else 'linear to sRGB'}"
    if isinstance(step, CentreCrop):
        ground = ", ".join(map(str, step.fill))
        return (
            f"centre crop: {step.height} x {step.width} (height x width) from the middle; "
            f"a ground of level {ground} where the picture is smaller"
        )
    if isinstance(step, Scale):
        return "scale: divide by 255, to 0-1"
    if isinstance(step, Normalise):
        return f"normalise: subtract the mean {_list(step.mean)}, divide by the std {_list(step.std)}"
    if step.order == "wh":
        return "spatial order: columns first (C, W, H), as Julia code that feeds rows as W"
    return "spatial order: rows first (C, H, W)"


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
