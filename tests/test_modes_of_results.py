"""Results can be read by whom the umask says, whatever writes them: temporary files are made for their owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych import preparing
from diptych.errors import OutputError
from diptych.files import replacing
from diptych.filters.learning import checkpoint
from diptych.formats import FORMATS
from diptych.images import files, generation, streams
from diptych.options import GenerationOptions
from little_models import seeing
from little_pictures import COLOUR

pytestmark = pytest.mark.usefixtures("small_figures")

UMASKS = (0o022, 0o027, 0o002, 0o077)


@pytest.fixture(params=UMASKS, ids=[f"{mask:03o}" for mask in UMASKS])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_the_umask_says(folder: Path, mask: int) -> int:
    """The number of files inside; each, and each folder, must have the mode that `mask` leaves."""
    found = sorted(folder.rglob("*"))
    modes = {str(path): oct(mode(path)) for path in found}
    assert modes == {str(path): oct((0o777 if path.is_dir() else 0o666) & ~mask) for path in found}
    return sum(path.is_file() for path in found)


def rows(name: str) -> Callable[[Path], object]:
    return lambda folder: streams.write(folder / name, COLOUR.shape, COLOUR.dtype, [COLOUR])


def preprocessed(folder: Path) -> None:
    files.write_png(folder / "a.png", COLOUR)
    preparing.preprocess_files([folder / "a.png"], "colour-32", out=folder / "inputs")


WRITERS: dict[str, Callable[[Path], object]] = {
    **{
        suffix: lambda folder, suffix=suffix: diptych.write(seeing(), folder / f"model{suffix}")
        for kind in FORMATS
        for suffix in kind.suffixes
        if kind.can_write
    },
    "julia-project": lambda folder: diptych.convert("small-cnn-32", folder / "project"),
    "png": lambda folder: files.write_png(folder / "a.png", COLOUR),
    "png-by-rows": rows("a.png"),
    "tiff-by-rows": rows("a.tif"),
    "jpeg-by-rows": rows("a.jpg"),
    "npy": lambda folder: preparing.write_array(folder / "a.npy", np.zeros((2, 3), np.float32)),
    "npy-png-and-json": preprocessed,
    "generated": lambda folder: generation.generate_files(
        "an island", GenerationOptions(count=1), out=folder / "new" / "images"
    ),
    "checkpoint": lambda folder: checkpoint.save(folder / "a.pt", {}, "who"),
    "run": lambda folder: diptych.run("an island", out=folder / "new" / "run", count=1, maps="0"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_result_has_the_mode_of_the_umask(name: str, mask: int, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    assert as_the_umask_says(tmp_path, mask) >= 1


@pytest.mark.parametrize("before", [0o600, 0o644, 0o666, 0o444])
def test_a_replaced_file_has_the_mode_of_a_new_one(before: int, mask: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    files.write_png(path, COLOUR)
    path.chmod(before)
    files.write_png(path, COLOUR[::-1])
    assert np.array_equal(files.read(path).pixels, COLOUR[::-1])
    assert as_the_umask_says(tmp_path, mask) == 1


def test_a_replaced_project_has_the_mode_of_a_new_one(mask: int, tmp_path: Path) -> None:
    diptych.convert("small-cnn-32", tmp_path / "project")
    (tmp_path / "project").chmod(0o700)
    diptych.convert("small-cnn-32", tmp_path / "project")
    assert as_the_umask_says(tmp_path, mask) > 1


def test_a_file_that_could_not_be_replaced_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("mine")
    path.chmod(0o640)

    def half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "the disk is full")

    with pytest.raises(OutputError, match="disk is full"):
        half()
    assert (path.read_text(), mode(path)) == ("mine", 0o640)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_the_umask_is_left_as_it_was(mask: int, tmp_path: Path) -> None:
    files.write_png(tmp_path / "a.png", COLOUR)
    assert os.umask(mask) == mask
