"""The photographs that the package scikit-image contains.

Only files that are in its wheel are listed, since scikit-image downloads the others.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import UsageError
from diptych.extras import imported

__all__ = ["NAMES", "photograph", "photographs"]

# name -> (file in the package, function of skimage.data, description)
_PHOTOGRAPHS: Mapping[str, tuple[str, str, str]] = {
    "astronaut": (
        "astronaut.png",
        "astronaut",
        "portrait of the astronaut Eileen Collins, colour, 512 x 512",
    ),
    "brick": ("brick.png", "brick", "a brick wall, grey, 512 x 512"),
    "camera": ("camera.png", "camera", "a man at a camera on a tripod, grey, 512 x 512"),
    "cell": ("cell.png", "cell", "a cell under the microscope, grey, 660 x 550"),
    "chelsea": ("chelsea.png", "chelsea", "a cat's face, colour, 300 x 451"),
    "clock": ("clock_motion.png", "clock", "a clock, blurred by motion, grey, 300 x 400"),
    "coffee": ("coffee.png", "coffee", "a cup of coffee on a table, colour, 400 x 600"),
    "coins": ("coins.png", "coins", "Greek coins on a dark ground, grey, 303 x 384"),
    "grass": ("grass.png", "grass", "grass from above, grey, 512 x 512"),
    "gravel": ("gravel.png", "gravel", "gravel from above, grey, 512 x 512"),
    "hubble": (
        "hubble_deep_field.jpg",
        "hubble_deep_field",
        "the Hubble eXtreme Deep Field, colour, 872 x 1000",
    ),
    "immunohistochemistry": (
        "ihc.png",
        "immunohistochemistry",
        "stained tissue under the microscope, colour, 512 x 512",
    ),
    "microaneurysms": ("microaneurysms.png", "microaneurysms", "a detail of a retina, grey, 102 x 102"),
    "moon": ("moon.png", "moon", "the surface of the Moon, grey, 512 x 512"),
    "motorcycle": (
        "motorcycle_left.png",
        "stereo_motorcycle",
        "a motorcycle in a workshop, colour, 500 x 741",
    ),
    "page": ("page.png", "page", "a printed page, unevenly lit, grey, 191 x 384"),
    "retina": ("retina.jpg", "retina", "the back of an eye, colour, 1411 x 1411"),
    "rocket": ("rocket.jpg", "rocket", "a rocket at its launch, colour, 427 x 640"),
    "text": ("text.png", "text", "a page of text, photographed at an angle, grey, 172 x 448"),
}

NAMES: Mapping[str, str] = {name: text for name, (_, _, text) in _PHOTOGRAPHS.items()}


def photograph(name: str) -> NDArray[np.uint8]:
    """One photograph of the package scikit-image.

    Args:
        name: One of `NAMES`.

    Returns:
        uint8 (H, W, 3), or (H, W) for a grey photograph.

    Raises:
        UsageError: The name is unknown.
    """
    if name not in _PHOTOGRAPHS:
        near = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}; " if near else ""
        raise UsageError(f"no photograph is called {str(name)[:60]!r}: {hint}known are {', '.join(NAMES)}")
    file, function, _ = _PHOTOGRAPHS[name]
    package = find_spec("skimage")  # importing the package takes longer than reading a picture
    path = Path(package.origin if package and package.origin else "").parent / "data" / file
    return _read(path) if path.is_file() else _by_scikit_image(function)


def _read(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as opened:
        return np.asarray(opened if opened.mode in ("L", "RGB") else opened.convert("RGB"))


def _by_scikit_image(function: str) -> NDArray[np.uint8]:
    data = imported("skimage.data")
    picture: Any = getattr(data, function)()
    if isinstance(picture, tuple):  # a stereo pair and its disparity, of which the left picture is taken
        picture = picture[0]
    return np.ascontiguousarray(picture, dtype=np.uint8)


def photographs() -> dict[str, NDArray[np.uint8]]:
    """All photographs by name, as `photograph` gives them; about 13 MB."""
    return {name: photograph(name) for name in NAMES}
