"""`apply`: a learned filter on pictures in memory, in files and in folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from diptych.engines.tiled import TiledFilter, prepare, with_explicit_padding
from diptych.errors import ImageError, ModelError, UsageError
from diptych.files import check_place, keep, made_folder
from diptych.filters.applying.choosing import ready
from diptych.filters.applying.fractions import scale_of
from diptych.filters.applying.tiles import Adapted, filtered
from diptych.filters.learned import Learned, grey_weights, notes_of
from diptych.images import files, streams
from diptych.images.streams import PEAKS, Source, Whole
from diptych.inference import load_model
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.progress import Progress, silent

__all__ = ["Applied", "apply"]

_BEYOND = 1e-6  # what rounding may leave outside of 0..1

Filter: TypeAlias = "Learned | Model | str | Path"


@dataclass(frozen=True)
class Applied:
    """A filtered picture in a file: how it was made, and how fast.

    `size` is (height, width). `streamed`: the picture was never whole in memory while it was read.
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
        """Reading and writing included."""
        return self.size[0] * self.size[1] / 1e6 / self.seconds

    def to_document(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return asdict(self) | {"megapixels_per_second": self.megapixels_per_second}


def apply(
    learned: Filter,
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
    """Filters a picture of any size from 1 pixel on.

    `source`: a file, a folder of pictures, or an array, uint8, uint16 or floats in 0..1, (H, W) or
    (H, W, 3) in RGB. With `target` a file is written, in the format of its suffix and with the depth of the
    source; for a folder, one file for each of its pictures. Without it the filtered array is given back:
    (H, W) or (H, W, 3), in the source's dtype (float32 for floats).

    TIFF files are read and written, and PNG files written, in memory that does not grow with the height of
    the picture. `tile`: pixels a side worked on at once, None for strips of the whole width; engines that
    compute in cells of 256 pixels round it up to these. The result is the same bits for every tile. Where
    the engine is named it is the same in every run; "auto" takes the fastest by measurement, and engines
    differ in the last bit. `edge` replaces what the filter takes pixels beyond the border to be: zero,
    reflect, replicate or wrap.

    Files of fractions on the scale 0-255 are taken as such, with a remark; NaN and other scales are refused.
    Of a folder all pictures are tried: `failures` takes a sentence for each that could not be filtered, and
    without it `ImageError` is raised after the others are done.

    A grey picture is three equal channels to a filter of colours, and comes out grey where the filter
    treats channels apart. Raises `ImageError`, `OutputError`, `UsageError`, and `ModelError` for a model that
    is no filter; nothing half-written is left.
    """
    if tile is not None and (isinstance(tile, bool) or not isinstance(tile, int | np.integer) or tile < 1):
        raise UsageError(f"a tile is a whole number of pixels from 1 on, got {tile!r}")
    work = _Work(_model(learned), tile, engine, device, edge, progress)
    if isinstance(source, np.ndarray):
        if target is not None:
            raise UsageError("an array is filtered into an array; to write a file, name a file to read")
        return work.array(_in_memory(source), "array")
    if not isinstance(source, str | Path):
        raise UsageError(f"a picture is a file, a folder or an array, not {type(source).__name__}")
    path = Path(source)
    if path.is_dir():
        return _folder(work, path, target, failures)
    if target is None:
        opened = streams.open(path)
        try:
            return work.array(opened, path.name, file=True)
        finally:
            opened.close()
    place = Path(target)
    return work.file(path, place / _named(path) if place.is_dir() else place)


def _model(learned: Filter) -> Model:
    return load_model(learned.model if isinstance(learned, Learned) else learned)


def _named(path: Path) -> str:
    """The name of the filtered picture in a folder: the same, as PNG where its kind is not written."""
    return path.name if path.suffix.lower() in streams.WRITABLE else f"{path.stem}.png"


def _folder(
    work: _Work, folder: Path, target: str | Path | None, failures: list[str] | None
) -> list[Applied]:
    if target is None:
        raise UsageError(f"{folder} is a folder; name a folder for its filtered pictures")
    pairs = [(path, Path(target, _named(path))) for path in files.find(folder)]
    written = [place for _, place in pairs]
    twice = next((place for place, count in Counter(written).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"two pictures of {folder} would both become {twice}; rename one")
    keep([path for path, _ in pairs], written)
    made_folder(target)
    done, failed = [], []
    for path, place in pairs:
        try:
            done.append(work.file(path, place))
        except ImageError as error:
            failed.append(str(error))
    if failures is not None:
        failures += failed
    elif failed:
        rest = f" (and {len(failed) - 1} more of {len(pairs)} pictures failed)" if len(failed) > 1 else ""
        raise ImageError(f"{failed[0]}{rest}")
    return done


def _in_memory(array: Array) -> Whole:
    pixels = array.astype(np.float32) if array.dtype == np.float64 else array
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if native.dtype not in PEAKS:
        raise ImageError(f"a picture is uint8, uint16 or floats in 0..1, got {array.dtype}; convert it first")
    if native.ndim not in (2, 3) or 0 in native.shape or native.shape[2:] not in ((), (1,), (3,)):
        raise ImageError(f"a picture is (H, W) or (H, W, 3) with at least one pixel, got {array.shape}")
    if native.dtype.kind == "f":
        lowest, highest = float(native.min()), float(native.max())
        if not -_BEYOND <= lowest <= highest <= 1 + _BEYOND:  # NaN too
            raise ImageError(
                f"a picture of floats holds 0..1, and this array goes from {lowest:.4g} to {highest:.4g}; "
                "divide by 255 what goes up to 255, and replace NaN"
            )
    return Whole(native)


@dataclass(frozen=True)
class _Work:
    """What is the same for every picture of a call."""

    model: Model
    tile: int | None
    engine: str
    device: str
    edge: str | None
    progress: Progress

    def array(self, source: Source, what: str, file: bool = False) -> Array:
        full = self._scale(source, what)[0] if file else 1
        _, shape, rows, _ = self._begin(source, what, full=full)
        result, done = np.empty(shape, source.dtype), 0
        for part in rows:
            result[done : done + len(part)] = part
            done += len(part)
        return result if shape[2] > 1 else result[..., 0]

    def file(self, path: Path, target: Path) -> Applied:
        keep([path], [target])
        check_place(target)
        start = perf_counter()
        source = streams.open(path)
        try:
            full, scaled = self._scale(source, str(path))
            tiled_filter, shape, rows, remarks = self._begin(source, path.name, target, full)
            kept = source.kept
            if shape[2] != source.channels:  # a profile is for grey or for colour
                kept = replace(kept, icc_profile=None)
            streams.write(target, shape, source.dtype, rows, kept)
        except MemoryError as error:
            raise ImageError(
                f"{path} needs more memory than there is; give a smaller tile, or save it as .tif first"
            ) from error
        finally:
            source.close()
        return Applied(
            path=str(target),
            engine=tiled_filter.engine,
            device=tiled_filter.device,
            size=shape[:2],
            seconds=perf_counter() - start,
            streamed=source.streams,
            remarks=(*source.remarks, *scaled, *remarks),
        )

    def _scale(self, source: Source, name: str) -> tuple[int, tuple[str, ...]]:
        return scale_of(source, name) if source.dtype.kind == "f" else (1, ())

    def _begin(
        self, source: Source, what: str, target: Path | None = None, full: int = 1
    ) -> tuple[TiledFilter, tuple[int, int, int], Iterator[Array], tuple[str, ...]]:
        """The filter, the shape of its result, the rows to come, and what had to be decided."""
        peak = PEAKS[source.dtype]
        prepared = prepare(with_explicit_padding(self.model, self.edge), peak)
        taken, given = prepared.channels
        least = prepared.least
        if source.height < least[0] or source.width < least[1]:
            raise ImageError(
                f"{self.model.name or 'the filter'} needs pictures of at least {least[1]} x {least[0]} pixels, "
                f"got {source.width} x {source.height} in {what}; take a larger one"
            )
        takes = taken or source.channels
        if takes not in (1, 3):
            raise ModelError(
                f"{self.model.name or 'the filter'} takes {takes} channels, and pictures are read with 1 or 3"
            )
        gives = given or takes
        if source.channels < takes and gives == takes and notes_of(self.model).get("per_channel"):
            gives = 1
        shape = (source.height, source.width, gives)
        if target is not None:
            streams.check(target, shape, source.dtype)
        adapted = Adapted(source, takes, grey_weights(self.model), full)
        tiled_filter = ready(self.model, self.engine, self.device, peak, self.edge, adapted)
        rows = filtered(tiled_filter, adapted, self.tile, self.progress, what)
        remarks = {
            (1, 3): ("grey taken as three equal channels",),
            (3, 1): ("colour taken as grey (Rec.601)",),
        }.get((source.channels, takes), ())
        parts = (part[..., :gives] if full == 1 else full * part[..., :gives] for part in rows)
        return tiled_filter, shape, parts, remarks
