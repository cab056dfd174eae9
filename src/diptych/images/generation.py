"""Pictures from a prompt: the sources there are, and making a picture again from its own record."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ImageError, OutputError, UsageError
from diptych.files import keep, made_folder
from diptych.images import files
from diptych.images.picture import LARGEST_SEED, Picture
from diptych.images.source import Source
from diptych.outcome import Outcome
from diptych.progress import Progress, silent

__all__ = ["SOURCES", "generate", "generate_files", "made_again", "paint", "remarks_on", "source"]

_LARGEST_COUNT = 1000
_SMALLEST_SIDE, _LARGEST_SIDE = 16, 8192
_LONGEST_PROMPT = 10_000


def _scenes(generator: str) -> Source | None:
    if generator != "scenes":
        return None
    from diptych.images import scenes

    return scenes.SOURCE


def _tiny(generator: str) -> Source | None:
    if generator != "tiny":
        return None
    from diptych.images.tiny import FOLDER, Tiny

    return Tiny(FOLDER)


def _diffusion(generator: str) -> Source | None:
    # A model id is owner/name; anything else that names a place is a folder.
    if not (re.fullmatch(r"[\w.-]+/[\w.-]+", generator) or os.sep in generator or Path(generator).exists()):
        return None
    from diptych.images.diffusion import Diffusion

    return Diffusion(generator)


SOURCES: tuple[tuple[str, str, Callable[[str], Source | None]], ...] = (
    ("scenes", "landscapes painted from a caption, offline and at once", _scenes),
    ("tiny", "the diffusion model in the box, which knows the painter's landscapes", _tiny),
    ("OWNER/NAME or a folder", "any text-to-image model of the diffusers library", _diffusion),
)
"""What `generator=` may be, what that is, and who answers for it; the first that answers is taken."""


def source(generator: str) -> Source:
    """The source that `generator` names; raises `UsageError` when there is none."""
    for _, _, answer in SOURCES:
        if (found := answer(generator)) is not None:
            return found
    known = "; ".join(f"{name}: {what}" for name, what, _ in SOURCES)
    raise UsageError(f"there is no generator {generator!r}; choose one of: {known}")


def generate(
    prompt: str,
    count: int = 3,
    seed: int = 0,
    *,
    generator: str = "scenes",
    width: int | None = None,
    height: int | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[NDArray[np.uint8]]:
    """Text to image: `count` pictures as uint8 arrays (H, W, 3), the same for the same arguments.

    `generator` is "scenes", the painter that needs nothing, "tiny", the diffusion model in the box, or a
    diffusers model by id or folder; these take `options` such as steps, guidance, negative_prompt and device.
    With `out` the pictures are also written there as generated_image_1.png, ..., each carrying how it was made.
    Raises what `paint` raises.
    """
    made = []
    for picture in paint(prompt, count, seed, generator, width, height, 0, progress, **options):
        if out is not None:
            files.write_png(Path(out) / f"{picture.name}.png", picture.pixels, picture.record)
        made.append(picture.pixels)
    return made


def generate_files(
    prompt: str | None,
    *,
    out: str | Path,
    like: str | Path | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Outcome:
    """Text to image, into PNG files named generated_image_1.png, ... that carry how they were made.

    With `like` the picture of that file is made again instead. `options` are `paint`'s.
    """
    if (prompt is None) == (like is None):
        raise UsageError("give either a prompt or --like PICTURE")
    if like is not None:
        pictures: Iterable[Picture] = [made_again(like)]
    else:
        pictures = paint(prompt or "", on_progress=progress, **options)
        _check_free(Path(out), prompt or "", options)
    written, remarks = [], []
    for picture in pictures:
        path = Path(out) / f"{picture.name}.png"
        keep([like] if like is not None else [], [path])
        made_folder(out)
        files.write_png(path, picture.pixels, picture.record)
        written.append(path)
        remarks += remarks_on(picture)
    return Outcome(paths=tuple(written), remarks=tuple(dict.fromkeys(remarks)))


def remarks_on(picture: Picture) -> list[str]:
    """What the user should know about how a picture came to be: words not understood, choices of reading."""
    said = [f"{picture.name}: {note}" for note in picture.notes]
    if picture.record is not None and picture.record.ignored:
        said.append(f"words not understood and left out: {', '.join(picture.record.ignored)}")
    return said


def paint(
    prompt: str,
    count: int = 3,
    seed: int = 0,
    generator: str = "scenes",
    width: int | None = None,
    height: int | None = None,
    start: int = 0,
    on_progress: Progress | None = None,
    **options: Any,
) -> Iterator[Picture]:
    """Pictures made from `prompt`: generated_image_1, generated_image_2, ... each with its record.

    `start` leaves out that many at the beginning, as when an interrupted run goes on.

    `count` is 1 to 1000, `seed` 0 to 2**63 - 1, `width` and `height` 16 to 8192 pixels (None: what suits the
    generator); `options` are the generator's own. The same arguments give the same pictures, and picture
    number 2 is the same whether two or ten are asked for. Raises `UsageError` at once for arguments that
    cannot be, `GenerationError` while painting.
    """
    _check_prompt(prompt)
    _check_whole("count", count, 1, _LARGEST_COUNT)
    _check_whole("seed", seed, 0, LARGEST_SEED)
    for name, side in (("width", width), ("height", height)):
        if side is not None:
            _check_whole(name, side, _SMALLEST_SIDE, _LARGEST_SIDE)
    return source(generator).generate(
        prompt,
        count=count,
        seed=seed,
        width=width,
        height=height,
        start=start,
        on_progress=on_progress,
        **options,
    )


def made_again(path: str | os.PathLike[str], on_progress: Progress | None = None, **options: Any) -> Picture:
    """The picture in a PNG file that Diptych wrote, made again from the record in it.

    Bit for bit the same for `scenes` of the same version; for diffusion on the same machine with the same
    libraries. `options` go before those in the record. A note says when the version is another one. Raises
    `ImageError` when there is no record.
    """
    original = files.read(path)
    record = original.record
    if record is None:
        damage = [note for note in original.notes if "record" in note]
        raise ImageError(
            f"{path} cannot be made again: "
            + (damage[0] if damage else "it holds no record of how it was made; only PNG files by Diptych do")
        )
    maker = source(record.generator)
    recorded = {key: record.settings[key] for key in maker.options if key in record.settings}
    for key in maker.unsafe_options:
        recorded.pop(key, None)
    (made,) = maker.generate(
        record.prompt,
        count=1,
        seed=record.seed,
        width=record.width,
        height=record.height,
        start=record.index,
        on_progress=on_progress,
        **{**recorded, **options},
    )
    if record.version == maker.version:
        return made
    note = f"made by {record.generator} ({record.version}) and again by ({maker.version}): it may differ"
    return replace(made, notes=(*made.notes, note))


def _check_free(out: Path, prompt: str, options: Mapping[str, Any]) -> None:
    """Raises `OutputError` where a picture of another prompt or seed has the name that one would get."""
    asked = (prompt, options.get("seed", 0), options.get("generator", "scenes"))
    for number in range(1, options.get("count", 3) + 1):
        path = out / f"generated_image_{number}.png"
        if not path.exists():
            continue
        try:
            record = files.read(path).record
        except ImageError:
            record = None
        if record is None or (record.prompt, record.seed, record.generator) != asked:
            raise OutputError(
                f"{path} is there already, and another picture; choose another --out, or move it"
            )


def _check_prompt(prompt: object) -> None:
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("the prompt is empty; say in a few words what the picture should show")
    if len(prompt) > _LONGEST_PROMPT:
        raise UsageError(f"the prompt has {len(prompt):,} characters; {_LONGEST_PROMPT:,} are the most")
    if "\0" in prompt or any("\ud800" <= sign <= "\udfff" for sign in prompt):
        raise UsageError("the prompt holds characters that are not text; write it again by hand")


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        shown = value if not isinstance(value, int) or abs(value) < 10**20 else "a far larger number"
        raise UsageError(f"{name} must be a whole number from {least} to {most}, not {shown!r}")
