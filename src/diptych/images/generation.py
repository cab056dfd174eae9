"""Pictures from a prompt: the generators there are, and making a picture again from its own record."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import GenerationError, ImageError, OutputError, UsageError
from diptych.files import keep, sole_writer
from diptych.images import files
from diptych.images.foreign_records import ForeignRecord, foreign_record
from diptych.images.generator import Generator
from diptych.images.picture import LARGEST_SEED, Picture, Record
from diptych.journal import Journal, keeping, there_already, versions
from diptych.options import GenerationOptions
from diptych.outcome import Outcome
from diptych.progress import Progress, silent

__all__ = [
    "GENERATORS",
    "check_prompt",
    "generate",
    "generate_files",
    "generator_named",
    "made_again",
    "paint",
    "painted",
    "prompt_of",
    "remarks_on",
]

_LARGEST_COUNT = 1000
_SMALLEST_SIDE, _LARGEST_SIDE = 16, 8192
_LONGEST_PROMPT = 10_000
_DEFAULTS = GenerationOptions()
_NAMES = re.compile(r"generated_image_\d+\.png")


def _scenes(name: str) -> Generator | None:
    if name != "scenes":
        return None
    from diptych.images import scenes

    return scenes.SOURCE


def _tiny(name: str) -> Generator | None:
    if name != "tiny":
        return None
    from diptych.images.tiny import FOLDER, Tiny

    return Tiny(FOLDER)


def _diffusion(name: str) -> Generator | None:
    # A model id is owner/name; anything else that names a place is a folder.
    if not (re.fullmatch(r"[\w.-]+/[\w.-]+", name) or os.sep in name or os.path.lexists(name)):
        return None
    from diptych.images.diffusion import Diffusion

    return Diffusion(name)


GENERATORS: tuple[tuple[str, str, Callable[[str], Generator | None]], ...] = (
    ("scenes", "landscapes painted from a caption, offline and at once", _scenes),
    ("tiny", "the diffusion model in the box, which knows the painter's landscapes", _tiny),
    ("OWNER/NAME or a folder", "any text-to-image model of the diffusers library", _diffusion),
)
"""What `generator=` may be, what that is, and a function that gives the generator, or None for another name."""

_IN_THE_BOX = ("scenes", "tiny")


def generator_named(name: str) -> Generator:
    """The generator that `generator=` names; raises `UsageError` where there is none."""
    for _, _, answer in GENERATORS:
        if (found := answer(name)) is not None:
            return found
    known = "; ".join(f"{called}: {what}" for called, what, _ in GENERATORS)
    raise UsageError(f"there is no generator {name[:100]!r}; choose one of: {known}")


def generate(
    prompt: str,
    count: int = GenerationOptions.count,
    seed: int = GenerationOptions.seed,
    *,
    generator: str = GenerationOptions.generator,
    width: int | None = None,
    height: int | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> list[NDArray[np.uint8]]:
    """Makes pictures from a prompt, the same for the same arguments.

    With `out`, what an earlier, interrupted call has finished is not made again.

    Args:
        prompt: What to draw, in words.
        count: How many pictures, 1 to 1000.
        seed: 0 to 2**63 - 1.
        generator: "scenes", the painter that needs nothing else; "tiny", the diffusion model in the box;
            or a diffusers model by id or folder.
        width: Pixels, 16 to 8192; by default what suits the generator.
        height: As `width`.
        out: A folder to write the pictures to as well, as generated_image_1.png, ..., each with the record
            of how it was made. It is made where it is missing.
        overwrite: Whether to delete the pictures of other arguments that `out` holds.
        progress: Told after each picture, or each denoising step.
        **options: The generator's own, such as steps, guidance, negative_prompt and device.

    Returns:
        The pictures, uint8 (H, W, 3).

    Raises:
        UsageError: An argument is out of range, or the generator does not take an option.
        GenerationError: The generator cannot run here.
        OutputError: A picture cannot be written; or `out` holds pictures of other arguments, and `overwrite` is
            False.
    """
    asked = GenerationOptions(count, seed, generator, width, height, options)
    if out is None:
        return [picture.pixels for picture in paint(prompt, asked, on_progress=progress)]
    with _journal(prompt, asked, Path(out), overwrite) as journal:
        pictures = [picture.pixels for picture in painted(prompt, asked, journal, progress)]
        journal.record(status="done")
    return pictures


def generate_files(
    prompt: str | None,
    options: GenerationOptions = _DEFAULTS,
    *,
    out: str | Path,
    like: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Makes pictures from a prompt, or one picture again, as PNG files that carry how they were made.

    What an earlier, interrupted call with the same prompt and options has finished is not made again; only `count` may
    differ.

    Args:
        prompt: What to draw, or None with `like`.
        options: What decides the pictures.
        out: The folder for generated_image_1.png, ... and the record run.json, made where it is missing.
        like: A picture file to make again instead, from the record in it.
        overwrite: Whether to delete the pictures of another prompt or other options that `out` holds.
        progress: Told after each picture, or each denoising step.

    Returns:
        The files; `remarks` tells how many were there already.

    Raises:
        UsageError: Neither or both of `prompt` and `like` are given, or an option is out of range.
        OutputError: `out` holds pictures of another prompt or other options, and `overwrite` is False; a picture cannot
            be written; or another process is writing to `out`.
        GenerationError: The generator cannot run here.
    """
    if (prompt is None) == (like is None):
        raise UsageError("give either a prompt or --like PICTURE")
    if like is not None:
        return _again(like, options.generator, Path(out), overwrite)
    with _journal(prompt or "", options, Path(out), overwrite) as journal:
        written, remarks = [], []
        for picture in painted(prompt or "", options, journal, progress):
            written.append(journal.out / f"{picture.name}.png")
            remarks += remarks_on(picture)
        journal.record(status="done")
    there = there_already(len(journal.found), options.count)
    return Outcome(paths=tuple(written), remarks=(*there, *dict.fromkeys(remarks)))


def _again(like: str | Path, generator: str, out: Path, overwrite: bool) -> Outcome:
    """Makes one picture again, from the record in it."""
    picture = made_again(like, generator=generator)
    path = out / f"{picture.name}.png"
    keep([like], [path])
    with sole_writer(out):
        if not overwrite:
            _check_free(path, picture)
        files.write_png(path, picture.pixels, picture.record)
    return Outcome(paths=(path,), remarks=tuple(remarks_on(picture)))


def _journal(
    prompt: str, options: GenerationOptions, out: Path, overwrite: bool
) -> AbstractContextManager[Journal]:
    """The journal of the folder `out`; raises `UsageError` for what cannot be painted, before anything is written."""
    paint(prompt, options)
    asked = options.to_document()
    count = asked.pop("count")
    settings = {"verb": "generate", "diptych": versions().get("diptych"), "prompt": prompt, **asked}
    wanted = [f"generated_image_{number}.png" for number in range(1, count + 1)]
    return keeping(out, settings, _NAMES, wanted=wanted, overwrite=overwrite)


def painted(
    prompt: str, options: GenerationOptions, journal: Journal, on_progress: Progress | None = None
) -> Iterator[Picture]:
    """Makes the pictures of a prompt as `paint` does, and writes them; those that are finished are read back.

    Args:
        prompt: What to draw, in words.
        options: What decides the pictures.
        journal: The record of the folder, which writes the files.
        on_progress: Told after each picture, or each denoising step.

    Yields:
        The pictures, each when its file is there.

    Raises:
        GenerationError: The generator fails while it works.
        OutputError: A picture cannot be written.
    """
    finished = 0
    while finished < options.count and journal.finished(f"generated_image_{finished + 1}.png"):
        finished += 1
        name = f"generated_image_{finished}.png"
        journal.found.append(name)
        yield files.read(journal.out / name)
    if finished < options.count:
        left = replace(options, count=options.count - finished)
        for picture in paint(prompt, left, start=finished, on_progress=on_progress):
            write = partial(files.write_png, array=picture.pixels, record=picture.record)
            journal.make(f"{picture.name}.png", write)
            yield picture


def remarks_on(picture: Picture) -> list[str]:
    """Remarks on how a picture was made or read: words not understood, decisions in reading it."""
    remarks = [f"{picture.name}: {remark}" for remark in picture.remarks]
    if picture.record is not None and picture.record.ignored:
        remarks.append(_left_out(picture.record.prompt, picture.record.generator, picture.record.ignored))
    return remarks


def prompt_of(path: str | Path) -> str | None:
    """The prompt that a picture records, of Diptych or of another program; None where it records none."""
    record = files.read(path).record
    told = foreign_record(path) if record is None else record
    return None if told is None else told.prompt


def check_prompt(prompt: str, generator: str) -> None:
    """Raises `GenerationError` where the painter would leave words of the prompt out, before anything is painted."""
    from diptych.images.scenes.understanding import understand

    ignored = understand(prompt).ignored if generator == "scenes" else ()
    if ignored:
        raise GenerationError(
            f"{_left_out(prompt, generator, ignored)}; without --strict it is painted all the same"
        )


def _left_out(prompt: str, generator: str, words: Sequence[str]) -> str:
    """What is said of the words that a generator has left out, with the nearest ones that the painter knows."""
    listed = ", ".join(words)
    if generator != "scenes":
        return f"words not understood and left out: {listed}"
    from diptych.images.scenes.understanding import nearest, understand
    from diptych.images.scenes.vocabulary import CLASSES

    alike = [f"{near} for {word}" for word in words if (near := nearest(word)) and near != word]
    known = f"; it knows {', '.join(alike)}" if alike else ""
    if understand(prompt).understood:
        return f"words not understood and left out: {listed}{known}"
    return (
        f"NOTHING OF THE PROMPT WAS UNDERSTOOD, so the picture is any landscape: the painter does not know "
        f"{listed}{known}; it paints {', '.join(CLASSES)}, with times of the day, weather and things such as a boat or "
        "a castle"
    )


def paint(
    prompt: str,
    options: GenerationOptions = _DEFAULTS,
    *,
    start: int = 0,
    on_progress: Progress | None = None,
) -> Iterator[Picture]:
    """Makes pictures from a prompt one after the other: generated_image_1, generated_image_2, ...

    Picture number 2 is the same whether two or ten are asked for.

    Args:
        prompt: What to draw, in words.
        options: What decides the pictures.
        start: How many to leave out at the beginning, as when an interrupted run continues.
        on_progress: Told after each picture, or each denoising step.

    Yields:
        The pictures, each with its record.

    Raises:
        UsageError: An argument is out of range; at once, not when the first picture is asked for.
        GenerationError: The generator fails while it works.
    """
    _check_prompt(prompt)
    _check_whole("count", options.count, 1, _LARGEST_COUNT)
    _check_whole("seed", options.seed, 0, LARGEST_SEED)
    for name, side in (("width", options.width), ("height", options.height)):
        if side is not None:
            _check_whole(name, side, _SMALLEST_SIDE, _LARGEST_SIDE)
    return generator_named(options.generator).generate(
        prompt,
        count=options.count,
        seed=options.seed,
        width=options.width,
        height=options.height,
        start=start,
        on_progress=on_progress,
        **options.settings,
    )


def made_again(
    path: str | os.PathLike[str],
    on_progress: Progress | None = None,
    *,
    generator: str | None = None,
    **options: Any,
) -> Picture:
    """Makes the picture in a PNG file again, from the record that Diptych wrote into it.

    It is the same bit for bit for `scenes` of the same version, and for diffusion on the same machine with
    the same libraries. A PNG of AUTOMATIC1111's web UI or ComfyUI gives its prompt, seed, size, steps, guidance and
    negative prompt to `generator`, as far as it tells them; that is another picture.

    Args:
        path: The PNG file.
        on_progress: Told after each denoising step.
        generator: The generator that the record names. It must be given where that is a model from elsewhere, because
            a picture from a stranger must not decide what is downloaded and loaded.
        **options: The generator's own options, instead of those in the record.

    Returns:
        The picture, with a remark if it is made by another version than the record names.

    Raises:
        ImageError: The file cannot be read, or holds no record.
        UsageError: The record names a model from elsewhere, and `generator` is another or None.
        GenerationError: The generator cannot run here.
    """
    original = files.read(path)
    record = original.record
    if record is None and (told := foreign_record(os.fspath(path))) is not None:
        return _made_like(told, generator or "scenes", on_progress, options)
    if record is None:
        damage = [remark for remark in original.remarks if "record" in remark]
        raise ImageError(
            f"{path} cannot be made again: "
            + (
                damage[0]
                if damage
                else "it holds no record of how it was made, as PNG files of Diptych, AUTOMATIC1111's web UI and "
                "ComfyUI do"
            )
        )
    if record.generator not in _IN_THE_BOX and record.generator != generator:
        name = shlex.quote(record.generator[:200])
        raise UsageError(
            f"{path} names a model from elsewhere as its generator; if you trust it, name it too: --generator {name}"
        )
    maker = generator_named(record.generator)
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
    remark = f"made by {record.generator} ({record.version}), now by ({maker.version}): it may differ"
    return replace(made, remarks=(*made.remarks, remark))


def _made_like(
    told: ForeignRecord, generator: str, on_progress: Progress | None, options: Mapping[str, Any]
) -> Picture:
    """A picture by the prompt and the settings that another program has recorded, with remarks on what differs."""
    maker = generator_named(generator)
    settings = {key: value for key, value in told.settings.items() if key in maker.options}
    left = [*told.left_out, *(key for key in told.settings if key not in maker.options)]
    width, height = told.size or (None, None)
    if generator == "tiny" and width != height:
        width, height, left = None, None, [*left, "size"]
    (made,) = maker.generate(
        told.prompt, count=1, seed=told.seed or 0, width=width, height=height, start=0, on_progress=on_progress,
        **{**settings, **options},
    )  # fmt: skip
    by = f" with {told.model}" if told.model else ""
    remarks = [
        f"{told.tool} made the picture{by}; this is {generator} by the same prompt, so it is another picture"
    ]
    if told.seed is None:
        remarks.append("no seed is told that can be used, so 0 was taken")
    if left:
        remarks.append(f"left out of what {told.tool} tells: {', '.join(dict.fromkeys(left))}")
    return replace(made, remarks=(*made.remarks, *remarks))


def _check_free(path: Path, made: Picture) -> None:
    """Raises `OutputError` where another picture has the name of one that was made again."""
    if not os.path.lexists(path):
        return
    try:
        record = files.read(path).record
    except ImageError:
        record = None
    asked = made.record
    if record is None or asked is None or _what(record) != _what(asked):
        raise OutputError(
            f"{path} already exists and is another picture; choose another --out, move it, or pass --overwrite"
        )


def _what(record: Record) -> tuple[object, ...]:
    return record.prompt, record.seed, record.index, record.generator


def _check_prompt(prompt: object) -> None:
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("the prompt is empty; say in a few words what the picture should show")
    if len(prompt) > _LONGEST_PROMPT:
        raise UsageError(
            f"the prompt has {len(prompt):,} characters; at most {_LONGEST_PROMPT:,} are allowed"
        )
    if "\0" in prompt or any("\ud800" <= sign <= "\udfff" for sign in prompt):
        raise UsageError("the prompt holds characters that are not text; type it again by hand")


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        shown = value if not isinstance(value, int) or abs(value) < 10**20 else "a far larger number"
        raise UsageError(f"{name} must be a whole number from {least} to {most}, not {shown!r}")
