"""Where memory runs out: one sentence that says so, the old file or the new, and nothing left."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import diptych
from diptych.errors import FormatError, ImageError, out_of_memory
from diptych.files import encoded, replacing
from diptych.formats.safetensors import _pieces
from diptych.images import files
from little_pictures import COLOUR

HERE = Path(__file__).parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lets allocations fail, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs a C compiler and glibc")
    path = tmp_path_factory.mktemp("library") / "allocations.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wl,-z,defs", "-o", path, HERE / "allocations.c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:  # as with musl
        pytest.skip(f"needs glibc: {done.stderr}")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("group", ["formats", "pictures", "verbs"])
def test_every_allocation_may_fail(group: str, library: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(library), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / "allocations.py", library, group, "2"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr


@linux
@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [50_000, 80_000, 130_000, 180_000])
def test_a_limit_on_memory_is_one_sentence(kilobytes: int, tmp_path: Path) -> None:
    files.write_png(tmp_path / "a.png", COLOUR)
    done = subprocess.run(
        ["sh", "-c", f"ulimit -v {kilobytes}; exec '{sys.executable}' -m diptych predict scenes a.png"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "memory" in done.stderr.lower()


NATIVE = [
    MemoryError(),
    RuntimeError("std::bad_alloc"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
    RuntimeError("Failed to allocate memory for requested buffer of size 100"),
    ImportError("libx.so: failed to map segment from shared object"),
    ValueError("Memory allocation error: Unspecified: Allocating 120015 bytes failed"),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", NATIVE)
def test_a_lack_of_memory_is_told_in_every_library_s_words(error: Exception) -> None:
    assert out_of_memory(error)
    damaged = FormatError("m.pt is damaged or cut off")
    damaged.__cause__ = error
    assert out_of_memory(damaged)


def test_a_name_that_speaks_of_memory_is_not_taken_for_a_lack_of_it() -> None:
    assert not out_of_memory(FormatError("out of memory.pt is damaged or cut off"))
    assert not out_of_memory(ValueError("damaged"))


def test_errors_that_came_of_each_other_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert not out_of_memory(first)


@pytest.mark.parametrize("error", NATIVE)
def test_what_is_called_damage_for_lack_of_memory_is_told_as_that(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diptych_command
) -> None:
    from diptych import formats

    def read(*arguments: object, **options: object) -> None:
        raise FormatError("m.pt is damaged or cut off") from error

    monkeypatch.setattr(formats, "read", read)
    diptych.write(diptych.load_model("small-cnn-32"), tmp_path / "m.pt")
    told = diptych_command("inspect", tmp_path / "m.pt", "--json")
    assert told.status == 1
    assert "there is not enough memory" in told.err
    assert json.loads(told.out)["kind"] == "MemoryError"


def test_a_decoder_that_does_not_say_why_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.webp")

    def load(self: object) -> None:
        raise OSError("could not create decoder object")

    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", load)
    with pytest.raises(ImageError, match="truncated or damaged"):
        files.read(tmp_path / "a.webp")
    monkeypatch.setattr("diptych.files._SPARE", 2**62)
    with pytest.raises(ImageError, match="needs more memory than there is"):
        files.read(tmp_path / "a.webp")


def test_a_picture_does_not_lie_on_its_side_for_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(tmp_path / "a.webp", exif=exif)
    assert files.read(tmp_path / "a.webp").pixels.shape == (COLOUR.shape[1], COLOUR.shape[0], 3)

    def without_memory(self: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "getexif", without_memory)
    with pytest.raises(ImageError, match="needs more memory"):
        files.read(tmp_path / "a.webp")


@pytest.mark.parametrize(
    "error", [OSError("codec configuration error when writing image file"), ValueError("encoding error 8")]
)
def test_an_encoder_without_memory_is_not_taken_for_a_full_disk(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: object, stream: io.BytesIO, **options: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "save", save)

    def write() -> None:
        with replacing(tmp_path / "a.png") as place:
            place.write_bytes(encoded(Image.fromarray(COLOUR), format="PNG"))

    with pytest.raises(MemoryError):
        write()
    assert not list(tmp_path.iterdir())


def test_safetensors_are_written_as_the_library_writes_them() -> None:
    """Which puts a file of its own beside that, where nobody finds it when the process is killed."""
    arrays = {
        "b": np.ones((2, 3), np.float32),
        "a": np.zeros((), np.float64),
        'ä"\n\x01\x7f': np.ones(3, np.float16),
        "empty": np.ones((0, 3), np.float32),
        "10": np.ones(1, np.float32),
        "9": np.ones(1, np.float32),
    }
    metadata = {"diptych": 'x\u2028é\\"/\x1f\x08'}
    assert b"".join(map(bytes, _pieces(arrays, metadata))) == safetensors.numpy.save(arrays, metadata)
