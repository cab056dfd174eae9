"""A picture in memory, and the record that says how a made picture was made."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ImageError

__all__ = ["JSON", "LARGEST_SEED", "Picture", "Record"]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
LARGEST_SEED = 2**63 - 1  # what torch, JSON readers in other languages and a signed 64-bit field all take
_LARGEST_SIDE = 65535
_DEEPEST_SETTING = 8


@dataclass(frozen=True)
class Record:
    """Everything needed to make a picture again.

    Attributes:
        prompt: What it shows.
        seed: The seed, 0 to `LARGEST_SEED`.
        index: Its number among the pictures of the prompt, from 0.
        generator: "scenes", "tiny", or a diffusers model's id or folder.
        version: The version of the generator.
        width: Pixels.
        height: Pixels.
        settings: The generator's own options (steps, guidance, ...) as JSON values.
        ignored: The words of the prompt that the generator did not understand.
    """

    prompt: str
    seed: int
    index: int
    generator: str
    version: str
    width: int
    height: int
    settings: Mapping[str, JSON] = field(default_factory=dict, hash=False)
    ignored: tuple[str, ...] = ()

    def to_document(self) -> dict[str, JSON]:
        """Returns the record as a JSON object, which `from_document` reads."""
        return asdict(self) | {"settings": dict(self.settings), "ignored": list(self.ignored)}

    @staticmethod
    def from_document(document: object) -> Record:
        """Reads what `to_document` returns.

        Raises:
            ImageError: A field is missing or wrong; the message names the first.
        """
        if not isinstance(document, dict):
            raise ImageError(f"a picture's record must be a JSON object, not {type(document).__name__}")
        ignored = document.get("ignored", [])
        if not isinstance(ignored, list):
            raise _wrong("ignored", "a list of words", ignored)
        return Record(
            prompt=_text(document, "prompt"),
            seed=_whole(document, "seed", 0, LARGEST_SEED),
            index=_whole(document, "index", 0, 10**6),
            generator=_text(document, "generator"),
            version=_text(document, "version"),
            width=_whole(document, "width", 1, _LARGEST_SIDE),
            height=_whole(document, "height", 1, _LARGEST_SIDE),
            settings=_settings(document.get("settings", {})),
            ignored=tuple(_string("ignored", word) for word in ignored),
        )


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright sRGB picture.

    Attributes:
        pixels: Uint8, (H, W, 3) for colour or (H, W) for grey. May be read-only: copy it before drawing on it.
        name: The file's stem, or a name such as "generated_image_1".
        remarks: What reading had to decide, such as "transparency over white".
        record: How it was made, if a generator made it.
        path: The file that it was read from, or "".
    """

    pixels: NDArray[np.uint8]
    name: str
    remarks: tuple[str, ...] = ()
    record: Record | None = None
    path: str = ""

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.pixels), getattr(self.pixels, "dtype", None)
        if dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape:
            raise ImageError(
                f"the picture {self.name!r} must be uint8 of shape (H, W, 3) or (H, W), "
                f"not {dtype} of shape {shape}"
            )

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])


def _wrong(key: str, expected: str, value: object) -> ImageError:
    # A hostile record may hold a number of a million digits: show only what is short.
    small = isinstance(value, int) and -(10**20) < value < 10**20
    shown = "missing" if value is None else str(value) if small else type(value).__name__
    return ImageError(f"the picture's record is damaged: {key!r} must be {expected}, and is {shown}")


def _string(key: str, value: object) -> str:
    if not isinstance(value, str) or any(unicodedata.category(sign) == "Cs" for sign in value):
        raise _wrong(key, "text", value)
    return value


def _text(document: Mapping[str, Any], key: str) -> str:
    return _string(key, document.get(key))


def _whole(document: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(key, f"a whole number from {least} to {most}", value)
    return value


def _settings(value: object) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise _wrong("settings", "a JSON object", value)
    return {_string("settings", key): _json(item, 1) for key, item in value.items()}


def _json(value: object, depth: int) -> JSON:
    if depth > _DEEPEST_SETTING:
        raise _wrong("settings", f"nested at most {_DEEPEST_SETTING} deep", value)
    if isinstance(value, dict):
        return {_string("settings", key): _json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _string("settings", value)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise _wrong("settings", "made of JSON values", value)
