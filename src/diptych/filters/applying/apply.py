"""Apply a learned filter to arrays, picture files and folders of picture files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias, overload

import numpy as np

from diptych.engines.tiled import TiledFilter, prepare, with_explicit_padding
from diptych.errors import ImageError, ModelError, UsageError
from diptych.files import as_text, check_place, is_folder, keep, sole_writer
from diptych.filters.applying.choosing import ready
from diptych.filters.applying.fractions import scale_of
from diptych.filters.applying.frames import Frame, Frames, frames_in
from diptych.filters.applying.frames import write as write_frames
from diptych.filters.applying.tiles import MEMORY_BYTES, STRIP_BYTES, Adapted, filtered
from diptych.filters.learned import Learned, grey_weights, notes_of
from diptych.images import files, streams
from diptych.images.streams import PEAKS, StreamSource, Whole
from diptych.loading import load_model
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.progress import Progress, silent

__all__ = ["Applied", "FolderResult", "Work", "apply", "apply_file", "apply_folder", "output_name"]

_ROUNDING = 1e-6  # floats may exceed 0..1 by this much

FilterModel: TypeAlias = "Learned | Model | str | Path"


@dataclass(frozen=True)
class Applied:
    """A filtered picture that was written to a file.

    Attributes:
        path: The file that was written.
        engine: The engine that computed it.
        device: The device that the engine ran on.
        size: (height, width) in pixels.
        seconds: Wall time, reading and writing included.
        streamed: Whether the source was read in parts, so that it was never in memory as a whole.
        remarks: What had to be decided on the way, one sentence each.
    """

    path: str
    engine: str
    device: str
    size: tuple[int, int]
    seconds: float
    streamed: bool
    remarks: tuple[str, ...] = ()

    @property
    def megapixels_per_second(self) -> float:
        """The speed in millions of pixels a second, reading and writing included."""
        return self.size[0] * self.size[1] / 1e6 / self.seconds

    def to_document(self) -> dict[str, Any]:
        """All fields and the speed, as values that JSON can hold."""
        return asdict(self) | {"megapixels_per_second": self.megapixels_per_second}


@dataclass(frozen=True)
class FolderResult:
    """The outcome for a folder of pictures.

    Attributes:
        applied: The pictures that were filtered and written, in the order of their names.
        failures: One error message for each picture that could not be filtered.
        remarks: What was skipped in the folder.
    """

    applied: tuple[Applied, ...]
    failures: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@overload
def apply(
    learned: FilterModel,
    source: str | Path | Array,
    target: None = None,
    *,
    tile: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    edge: str | None = None,
    progress: Progress = silent,
    failures: list[str] | None = None,
) -> Array: ...


@overload
def apply(
    learned: FilterModel,
    source: str | Path,
    target: str | Path,
    *,
    tile: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    edge: str | None = None,
    progress: Progress = silent,
    failures: list[str] | None = None,
) -> Applied | list[Applied]: ...


def apply(
    learned: FilterModel,
    source: str | Path | Array,
    target: str | Path | None = None,
    *,
    tile: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    edge: str | None = None,
    progress: Progress = silent,
    failures: list[str] | None = None,
) -> Applied | list[Applied] | Array:
    """Filters a picture and returns the result as an array.

    A grey picture counts as three equal channels where the filter takes colour, and the result is grey
    where the filter treats the channels alike and apart.

    With a `target`, the call is passed on to `apply_file` or, where the source is a folder, to
    `apply_folder`. Prefer those two: each has one type of result.

    Args:
        learned: What `learn` returns, a model, or the path of a model file.
        source: An array of shape (H, W) or (H, W, 3), RGB, of at least one pixel: uint8, uint16, or floats
            in 0..1. Or the path of a picture file.
        target: The file or folder to write.
        tile: The side in pixels of the squares that are computed at once; None for strips as wide as the
            picture. Engines that compute in cells of 256 pixels round it up to whole cells. The result has
            the same bits for every value.
        engine: "halide", "onnxruntime", "openvino", "torch" or "numpy"; "auto" takes the fastest by
            measurement. Engines may differ in the last bit of a float.
        device: "auto", "cpu", "cuda" or "mps".
        edge: How pixels beyond the border are made: "zero", "reflect", "symmetric", "replicate" or "wrap"; None for the
            filter's own choice.
        progress: Called with the rows done, all rows, and the picture's name.
        failures: For folders: a list to which one message is appended for each picture that fails. Without
            it the first failure is raised once all pictures have been tried.

    Returns:
        The filtered picture, (H, W) or (H, W, 3), in the dtype of the source; float32 for all floats. With
        a `target`: an `Applied`, or a list of them for a folder.

    Raises:
        ImageError: The source is not a picture of a supported kind, or is too small for the filter.
        ModelError: The model is not a filter, that is, a local network that keeps the picture's size.
        OutputError: The target cannot be written.
        UsageError: An argument is of the wrong kind or out of range.
    """
    if isinstance(source, np.ndarray):
        if target is not None:
            raise UsageError(
                "an array is filtered into an array and nothing is written; leave the target out, or give a "
                "picture file as the source"
            )
        return Work.of(learned, tile, engine, device, edge, progress).array(_in_memory(source), "array")
    if not isinstance(source, str | Path):
        raise UsageError(f"the source must be a file, a folder or an array, not {type(source).__name__}")
    path = Path(source)
    if is_folder(path):
        if target is None:
            raise UsageError(f"{path} is a folder; name a folder for its filtered pictures as the target")
        result = apply_folder(
            learned, path, target, tile=tile, engine=engine, device=device, edge=edge, progress=progress
        )
        return _applied_or_raise(result, failures)
    if target is not None:
        return apply_file(
            learned, path, target, tile=tile, engine=engine, device=device, edge=edge, progress=progress
        )
    work = Work.of(learned, tile, engine, device, edge, progress)
    opened = streams.open(path)
    try:
        return work.array(opened, path.name, file=True)
    finally:
        opened.close()


def apply_file(
    learned: FilterModel,
    source: str | Path,
    target: str | Path,
    *,
    tile: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    edge: str | None = None,
    progress: Progress = silent,
) -> Applied:
    """Filters a picture file of any size and writes the result to a file.

    TIFF files are read and written, and PNG files written, in memory that does not grow with the height of
    the picture. TIFF files of floats hold 0..1; 0..255 is accepted, with a remark. Nothing half-written is
    left behind.

    Args:
        learned: What `learn` returns, a model, or the path of a model file.
        source: The picture file.
        target: The file to write, in the format of its suffix and with the bit depth of the source; or an
            existing folder, in which the file keeps its name.
        tile: See `apply`.
        engine: See `apply`.
        device: See `apply`.
        edge: See `apply`.
        progress: See `apply`.

    Returns:
        What was written, by which engine, and how long it took.

    Raises:
        ImageError: The source cannot be read, holds NaN or floats on another scale, or is too small.
        ModelError: The model is not a filter.
        OutputError: The target cannot be written, or is the source.
        UsageError: An argument is out of range, or the source is a folder.
    """
    given: object = source
    if not isinstance(given, str | Path):
        raise UsageError(
            "apply_file takes a picture file; an array is filtered by filters.apply(learned, array)"
        )
    work = Work.of(learned, tile, engine, device, edge, progress)
    path, place = Path(source), Path(target)
    if is_folder(path):
        raise UsageError(f"{path} is a folder; apply_folder filters all of its pictures")
    return work.file(path, place / output_name(path) if is_folder(place) else place)


def apply_folder(
    learned: FilterModel,
    folder: str | Path,
    target: str | Path,
    *,
    tile: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    edge: str | None = None,
    progress: Progress = silent,
) -> FolderResult:
    """Filters every picture of a folder into files of the same names in another folder.

    All pictures are tried; one that fails does not stop the others.

    Args:
        learned: What `learn` returns, a model, or the path of a model file.
        folder: The folder of pictures.
        target: The folder to write to; it is made where it does not exist. Kinds of pictures that cannot be
            written become PNG files.
        tile: See `apply`.
        engine: See `apply`.
        device: See `apply`.
        edge: See `apply`.
        progress: See `apply`.

    Returns:
        The pictures that were written, and one message for each that failed.

    Raises:
        ImageError: The folder holds no pictures.
        ModelError: The model is not a filter.
        OutputError: The target cannot be written, another process is writing to it, or a source would be replaced.
        UsageError: An argument is out of range, `folder` is not a folder, or two pictures would be written
            to one file.
    """
    work, folder = Work.of(learned, tile, engine, device, edge, progress), Path(folder)
    if not is_folder(folder):
        raise UsageError(f"{folder} is not a folder; apply_file filters a single picture")
    found = files.search(folder)
    pairs = [(path, Path(target, output_name(path))) for path in found.paths]
    places = [place for _, place in pairs]
    twice = next((place for place, count in Counter(places).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"two pictures of {folder} would both become {twice}; rename one")
    keep([path for path, _ in pairs], places)
    applied, failures = [], []
    with sole_writer(target):
        for path, place in pairs:
            try:
                applied.append(work.file(path, place))
            except ImageError as error:
                failures.append(as_text(str(error)))
    return FolderResult(tuple(applied), tuple(failures), found.remarks)


def _applied_or_raise(result: FolderResult, failures: list[str] | None) -> list[Applied]:
    """The pictures that were written; failures go to the list, or the first is raised without one."""
    if failures is not None:
        failures += result.failures
    elif result.failures:
        count, total = len(result.failures), len(result.applied) + len(result.failures)
        rest = f" (and {count - 1} more of {total} pictures failed)" if count > 1 else ""
        raise ImageError(f"{result.failures[0]}{rest}")
    return list(result.applied)


def output_name(path: Path) -> str:
    """The file name of a filtered picture: the same, as PNG where its kind cannot be written."""
    return path.name if path.suffix.lower() in streams.WRITABLE else f"{path.stem}.png"


def _in_memory(array: Array) -> Whole:
    """An array as a source of rows; raises `ImageError` where it is not a picture."""
    pixels = array.astype(np.float32) if array.dtype == np.float64 else array
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if native.dtype not in PEAKS:
        raise ImageError(
            f"a picture must be uint8, uint16 or floats in 0..1, got {array.dtype}; convert it first"
        )
    if native.ndim not in (2, 3) or 0 in native.shape or native.shape[2:] not in ((), (1,), (3,)):
        raise ImageError(
            f"a picture must be (H, W) or (H, W, 3) with at least one pixel, got {array.shape}; "
            "transpose or crop it first"
        )
    if native.dtype.kind == "f":
        lowest, highest = float(native.min()), float(native.max())
        if not -_ROUNDING <= lowest <= highest <= 1 + _ROUNDING:  # also false for NaN
            raise ImageError(
                f"a picture of floats must lie in 0..1, got {lowest:.4g} to {highest:.4g}; "
                "divide by 255 if it goes up to 255, and replace NaN"
            )
    return Whole(native)


@dataclass(frozen=True)
class Work:
    """The arguments that all pictures of a call share."""

    model: Model
    tile: int | None
    engine: str
    device: str
    edge: str | None
    progress: Progress

    @classmethod
    def of(
        cls,
        learned: FilterModel,
        tile: int | None,
        engine: str,
        device: str,
        edge: str | None,
        progress: Progress,
    ) -> Work:
        """The arguments, with the model loaded; raises `UsageError` where one is out of range."""
        if tile is not None and (
            isinstance(tile, bool) or not isinstance(tile, int | np.integer) or tile < 1
        ):
            raise UsageError(f"tile must be a whole number of pixels of at least 1, got {tile!r}")
        model = load_model(learned.model if isinstance(learned, Learned) else learned)
        return cls(model, tile, engine, device, edge, progress)

    def array(self, source: StreamSource, what: str, file: bool = False) -> Array:
        """The filtered picture in memory."""
        full = self._scale(source, what)[0] if file else 1
        strip = MEMORY_BYTES if isinstance(source, Whole) else STRIP_BYTES
        _, shape, rows, _ = self._begin(source, what, full=full, strip=strip)
        result, done = None, 0
        for part in rows:
            if part.shape == shape and part.flags.owndata:
                result = part
                break
            if result is None:
                result = np.empty(shape, source.dtype)
            result[done : done + len(part)] = part
            done += len(part)
        assert result is not None
        return result if shape[2] > 1 else result[..., 0]

    def file(self, path: Path, target: Path) -> Applied:
        """The filtered picture in a file."""
        keep([path], [target])
        check_place(target)
        start = perf_counter()
        several = frames_in(path, target)
        if several is not None:
            return self._several(path, target, several, start)
        source = streams.open(path)
        try:
            full, scaled = self._scale(source, str(path))
            tiled_filter, shape, rows, remarks = self._begin(source, path.name, target, full)
            kept = source.kept
            if shape[2] != source.channels:  # an ICC profile is for grey or for colour
                kept = replace(kept, icc_profile=None)
            streams.write(target, shape, source.dtype, rows, kept)
        except MemoryError as error:
            raise ImageError(
                f"{path} needs more memory than there is; give a smaller tile, or save it as .tif first"
            ) from error
        finally:
            source.close()
        return Applied(
            path=as_text(target),
            engine=tiled_filter.engine,
            device=tiled_filter.device,
            size=shape[:2],
            seconds=perf_counter() - start,
            streamed=source.streams,
            remarks=(*source.remarks, *scaled, *remarks),
        )

    def _several(self, path: Path, target: Path, several: Frames, start: float) -> Applied:
        """The filtered pages or frames, or the filtered colours with their transparency, in a file."""
        engines: list[tuple[str, str, tuple[int, int]]] = []

        def filtered_frames() -> Iterator[Frame]:
            for number, frame in enumerate(several.frames, 1):
                name = path.name if several.count == 1 else f"{path.name}, picture {number}"
                source = Whole(frame.colour)
                full = self._scale(source, name)[0]
                tiled_filter, shape, rows, _ = self._begin(source, name, full=full)
                pixels = np.concatenate(list(rows))
                engines.append((tiled_filter.engine, tiled_filter.device, shape[:2]))
                yield replace(frame, colour=pixels if shape[2] > 1 else pixels[..., 0])

        remarks = write_frames(target, replace(several, frames=filtered_frames()))
        engine, device, size = engines[0]
        count = (f"{several.count} pictures",) if several.count > 1 else ()
        return Applied(
            path=as_text(target),
            engine=engine,
            device=device,
            size=size,
            seconds=perf_counter() - start,
            streamed=False,
            remarks=(*count, *several.remarks, *remarks),
        )

    def _scale(self, source: StreamSource, name: str) -> tuple[int, tuple[str, ...]]:
        return scale_of(source, name) if source.dtype.kind == "f" else (1, ())

    def _begin(
        self,
        source: StreamSource,
        what: str,
        target: Path | None = None,
        full: int = 1,
        strip: int = STRIP_BYTES,
    ) -> tuple[TiledFilter, tuple[int, int, int], Iterator[Array], tuple[str, ...]]:
        """The compiled filter, the shape of the result, its rows as they are computed, and remarks."""
        peak = PEAKS[source.dtype]
        name = self.model.name or "the filter"
        prepared = prepare(with_explicit_padding(self.model, self.edge), peak)
        taken, given = prepared.channels
        least = prepared.least
        if source.height < least[0] or source.width < least[1]:
            raise ImageError(
                f"{name} needs pictures of at least {least[1]} x {least[0]} pixels, "
                f"got {source.width} x {source.height} in {what}; take a larger one"
            )
        takes = taken or source.channels
        if takes not in (1, 3):
            raise ModelError(
                f"{name} takes {takes} channels, and pictures are read with 1 or 3; give another model"
            )
        gives = given or takes
        if source.channels < takes and gives == takes and notes_of(self.model).get("per_channel"):
            gives = 1
        shape = (source.height, source.width, gives)
        if target is not None:
            streams.check(target, shape, source.dtype)
        adapted = Adapted(source, takes, grey_weights(self.model), full)
        tiled_filter = ready(self.model, self.engine, self.device, peak, self.edge, adapted)
        rows = filtered(tiled_filter, adapted, self.tile, self.progress, what, strip)
        remarks = {
            (1, 3): ("grey taken as three equal channels",),
            (3, 1): ("colour taken as grey (Rec.601)",),
        }.get((source.channels, takes), ())
        own = (part if part.shape[2] == gives else part[..., :gives] for part in rows)
        parts = own if full == 1 else (full * part for part in own)
        return tiled_filter, shape, parts, remarks
