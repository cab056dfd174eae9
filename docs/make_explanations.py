"""Makes the pictures of docs/explanation: `python docs/make_explanations.py [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from diptych.datasets.photographs import photograph
from diptych.preprocessing import Colour, Grey, Preprocessing, Resize

PAPER, INK = "#fdfcfa", "#23211d"


def main() -> None:
    """Draws all of them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images"
    folder.mkdir(exist_ok=True)
    for name, panels in figures().items():
        draw(folder / f"explain-{name}.png", panels)


def figures() -> dict[str, list[tuple[str, np.ndarray]]]:
    """The panels of each picture: a title, and uint8 (H, W, 3) or values from low to high (H, W)."""
    cat, cup = photograph("chelsea")[:300, 60:360], photograph("coffee")[:400, 100:500]
    kernel = np.float32([[1, 0, 0], [0, 0, 0], [0, 0, -1]])
    grey = Preprocessing((Grey("float"),)).apply(cup)[0].astype(np.float32)
    small = {
        title: Preprocessing((Colour(), Resize(32, 32, kind))).apply(cup) for title, kind in KINDS.items()
    }
    mean = np.float32(cup).mean(axis=2)
    once = np.float32(cup) / 255
    return {
        "axes": [("as photographed", cat), ("axes swapped", cat.transpose(1, 0, 2))],
        "flip": [("the picture", np.uint8(grey)), ("convolution", slid(grey, kernel[::-1, ::-1])),
                 ("correlation", slid(grey, kernel)), ("their difference", slid(grey, kernel[::-1, ::-1] - kernel))],
        "resize": [("400 × 400", cup), *((title, picture(values)) for title, values in small.items())],
        "grey": [("colour", cup), ("luma", np.uint8(np.rint(grey))), ("mean", np.uint8(np.rint(mean))),
                 ("mean − luma", mean - grey)],
        "scale": [("divided once", np.uint8(255 * once)), ("divided twice", np.uint8(once))],
    }  # fmt: skip


KINDS = {
    "Julia, imresize": "imresize",
    "Pillow, antialiased": "pillow-bilinear",
    "OpenCV, four neighbours": "opencv-linear",
}


def picture(planes: np.ndarray) -> np.ndarray:
    """(3, H, W) in levels as uint8 (H, W, 3)."""
    return np.uint8(np.clip(np.rint(planes.transpose(1, 2, 0)), 0, 255))


def slid(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A plane under a sliding kernel that is not turned."""
    windows = np.lib.stride_tricks.sliding_window_view(plane, kernel.shape)
    return np.einsum("yxab,ab->yx", windows, kernel)


def draw(path: Path, panels: list[tuple[str, np.ndarray]]) -> None:
    """Draws panels side by side."""
    figure = Figure(figsize=(3.1 * len(panels), 3.4), dpi=120, facecolor=PAPER)
    for place, (title, values) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        signed = values.dtype.kind == "f"
        most = float(np.abs(values).max()) if signed else None
        limits = (
            {"vmin": -most, "vmax": most, "cmap": "RdBu_r"}
            if signed and most
            else {"vmin": 0, "vmax": 255, "cmap": "gray"}
        )
        axes.imshow(values, interpolation="nearest", **limits)
        axes.set_title(title, color=INK, fontsize=11)
        axes.axis("off")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
