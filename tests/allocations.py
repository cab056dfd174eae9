"""Lets one large allocation after the other fail, in each command, and prints what was found wrong, as JSON.

`LD_PRELOAD=SHIM python allocations.py SHIM GROUP MOST` does so for at most MOST allocations of each command of a group;
SHIM is made of `allocations.c`. Everything is imported once, and a process of its own forks for each fault: once the
allocation fails alone, and once all that follow it fail too, as where memory is used up. What NumPy needs below
`SMALLEST` it does not check itself, and the process would end.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import diptych
from diptych import __main__
from diptych.files import IN_USE
from diptych.images import files
from faults import content, left

SMALLEST = 160 * 1024  # bytes
PATIENCE = 60  # seconds for one command
RESULT = "result"

RECIPE = ("--preprocessing", "colour-32", "--engine", "numpy")
MODELS = ("safetensors", "pt", "onnx", "bson", "jld2")
PICTURES = ("png", "jpg", "tif", "webp", "gif", "bmp", "avif", "jp2", "lzw.tif", "jpeg.tif", "deflate.tif")
Commands = dict[str, tuple[str, ...]]
GROUPS: dict[str, Commands] = {
    "formats": {
        **{f"predict .{one}": ("predict", f"model.{one}", "1.png", *RECIPE) for one in MODELS[:-1]},
        "predict .jld2": ("predict", "model.jld2", "1.png", *RECIPE, "--architecture", "small-cnn-32"),
        **{f"convert to .{one}": ("convert", "model.bson", f"{RESULT}.{one}") for one in MODELS},
        "convert to Julia": ("convert", "model.bson", RESULT),
        "inspect": ("inspect", "model.bson"),
        "compare": ("compare", "model.onnx", "model.pt"),
    },
    "pictures": {
        **{f"predict with .{one}": ("predict", "scenes", f"picture.{one}") for one in PICTURES},
        **{
            f"apply to .{one}": ("filter", "apply", "filter.pt", "1.png", f"{RESULT}.{one}")
            for one in ("png", "tif", "jpg", "webp", "bmp")
        },
        "apply to a folder": ("filter", "apply", "filter.pt", "in", RESULT),
    },
    "verbs": {
        "predict with onnxruntime": ("predict", "scenes", "in", "--engine", "onnxruntime"),
        "predict with torch": ("predict", "scenes", "in", "--engine", "torch", "--json"),
        "preprocess": ("preprocess", "in", "--preprocessing", "imagenet-224", "-o", RESULT),
        "generate": ("generate", "an island", "-n", "2", "-o", RESULT),
        "features": ("features", "scenes", "1.png", "-o", RESULT, "--layers", "0"),
        "run": ("run", "an island", "-n", "1", "--maps", "0", "-o", RESULT),
        "preview": ("filter", "preview", "filter.pt", "--images", "1.png", "--engine", "numpy", "-o", RESULT),
        "learn": ("filter", "learn", "invert", "-o", f"{RESULT}/learned.pt"),
    },
}
VARYING = ("run.json", "report.html", "learned.pt")  # they hold times
UNTOLD = ("could not create a primitive",)  # how oneDNN says that memory is short
ENDED = ("convert to .onnx", "learn")  # protobuf and OpenCV's blur do not check what they allocate


class Allocations:
    """The library that lets allocations fail."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.allocations_fail.argtypes = (ctypes.c_size_t, ctypes.c_long, ctypes.c_int)
        self._library.allocations_seen.restype = ctypes.c_long

    def fail(self, number: int, onwards: bool) -> None:
        self._library.allocations_fail(SMALLEST, number, onwards)

    def seen(self) -> int:
        """How many there were, after which none fails any more."""
        seen = int(self._library.allocations_seen())
        self._library.allocations_fail(2**62, 0, 0)
        return seen


def prepare() -> None:
    """The files that the commands read, in the working folder."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 250, 400, 3), dtype=np.uint8)
    Path("in").mkdir()
    for number, one in enumerate(pixels, 1):
        files.write_png(f"{number}.png", one)
        files.write_png(f"in/{number}.png", one)
    image = Image.fromarray(pixels[0])
    for one in PICTURES:
        compression = {"lzw.tif": "tiff_lzw", "jpeg.tif": "jpeg", "deflate.tif": "tiff_adobe_deflate"}.get(
            one
        )
        image.save(f"picture.{one}", **{"compression": compression} if compression else {})
    for one in MODELS:
        diptych.convert("small-cnn-32", f"model.{one}")
    diptych.write(diptych.filters.learn("invert").model, "filter.pt")


def command(words: tuple[str, ...]) -> int:
    """Runs a command here, and returns its exit status."""
    try:
        __main__.main(list(words))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def struck(
    allocations: Allocations, words: tuple[str, ...], number: int = 0, onwards: bool = False
) -> tuple[int, int, str, str]:
    """How a command ended in a process of its own: status, number of allocations, output, errors."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for target, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        allocations.fail(number, onwards)
        try:
            status = command(words)
        finally:
            seen = allocations.seen()
        sys.stdout.flush()
        sys.stderr.flush()
        Path("seen.txt").write_text(str(seen))
        os._exit(status)
    end = time.monotonic() + PATIENCE
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, 9)
        time.sleep(0.001)
    status = os.waitstatus_to_exitcode(ended[1])
    seen = int(Path("seen.txt").read_text() or 0) if status >= 0 else 0
    return status, seen, Path("out.txt").read_text(), Path("err.txt").read_text()


def results() -> dict[str, bytes]:
    """The files that a command has written."""
    found = {name: data for name, data in content(Path()).items() if name.startswith(RESULT)}
    return {name: data for name, data in found.items() if Path(name).name not in VARYING}


def restart(words: tuple[str, ...]) -> dict[str, bytes]:
    """Removes results, and puts an old file where the command writes one; returns what is there then."""
    for path in Path().glob(f"{RESULT}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for word in words:
        if word.startswith(f"{RESULT}."):
            Path(word).write_bytes(b"old")
        if word.startswith(f"{RESULT}/"):
            Path(RESULT).mkdir()
    return results()


def wrong(name: str, words: tuple[str, ...], allocations: Allocations, most: int) -> Iterator[str]:
    """Yields what is wrong with a command that lacks memory."""
    old = restart(words)
    status, seen, usual, said = struck(allocations, words)
    if status or not seen:
        yield f"{name}: ends with {status} after {seen} allocations: {said}"
        return
    new = results()
    writes = any(word.startswith(RESULT) for word in words)
    for number in sorted({1 + (2 * each + 1) * seen // (2 * most) for each in range(most)}):
        for onwards in (False, True):
            what = f"{name}, allocation {number} of {seen}{' and all later ones' if onwards else ''}"
            restart(words)
            status, _, out, said = struck(allocations, words, number, onwards)
            for path, data in results().items():
                if data not in (old.get(path), new.get(path)):
                    yield f"{what}: {path} is neither old nor new"
            if status < 0 and name in ENDED:
                continue
            if [one for one in left(Path()) if one != IN_USE]:
                yield f"{what}: {left(Path())} is left"
            if status == 0:
                if results() != new or (not writes and out != usual):
                    yield f"{what}: done, but not the same: {out}"
            elif status != 1 or not told(said, onwards):
                yield f"{what}: ends with {status}: {said}"


def told(said: str, onwards: bool) -> bool:
    """Whether a command has said what was amiss, in a sentence or one for each picture."""
    lines = said.splitlines()
    if (
        not 1 <= len(lines) <= 2
        or "unexpected" in said
        or not all(one.startswith("diptych: ") for one in lines)
    ):
        return False
    return not onwards or all("memory" in one or any(words in one for words in UNTOLD) for one in lines)


def main(library: str, group: str, most: int) -> None:
    allocations = Allocations(library)
    found = []
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        prepare()
        for words in GROUPS[group].values():  # imports what it needs
            restart(words)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                command(words)
        for name, words in GROUPS[group].items():
            found += wrong(name, words, allocations, most)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
