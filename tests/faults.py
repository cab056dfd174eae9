"""Lets every step of writing fail, or kills the process there, and prints what was found wrong, as JSON.

`python faults.py GROUP` does so for the writers of a group. A process of its own forks for each fault, because limits
and kills end the process that they strike. Steps are the calls of the operating system that Python makes (renames,
flushes, locks), and for the bytes themselves, also those that libraries write, a limit on the size of files
(RLIMIT_FSIZE): with its signal ignored a write fails as on a full disk, and without it the process dies there.
"""

from __future__ import annotations

import builtins
import errno
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import diptych
from diptych import preparing
from diptych.errors import DiptychError
from diptych.files import IN_USE, TEMPORARY
from diptych.filters import img2img
from diptych.filters.applying import apply_folder
from diptych.filters.learning import checkpoint
from diptych.filters.previewing import preview
from diptych.images import files, generation, streams
from diptych.images.rows import Kept
from diptych.options import GenerationOptions
from diptych.report import figure, templates
from little_models import seeing

Write = Callable[[Path, int], object]
"""Writes into a folder; the number makes the content another one."""

CALLS = ("replace", "fsync", "write", "ftruncate", "chmod", "open")
LIMITS = 9  # sizes at which writing fails, and at which the process dies
KILLED, REFUSED, DONE, FOREIGN = 9, 3, 0, 4


def picture(number: int) -> Any:
    return np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def model(number: int) -> Any:
    plain = seeing()
    return plain.with_(name=f"model {number}")


def rows(name: str, folder: Path, number: int, kept: Kept | None = None) -> None:
    pixels = picture(number)
    streams.write(folder / name, pixels.shape, pixels.dtype, iter([pixels[:20], pixels[20:]]), kept)


def plot(folder: Path, number: int) -> None:
    from diptych.report.curves import loss_figure

    figure.save(loss_figure([1.0, number], [1.0, number]), folder / "a.png")


def convert(folder: Path, number: int) -> None:
    diptych.convert("small-cnn-32", folder / "project", classes=[f"{number}{i}" for i in range(10)])


FORMATS: dict[str, Write] = {
    suffix: lambda folder, number, suffix=suffix: diptych.write(model(number), folder / f"m{suffix}")
    for suffix in (".safetensors", ".pt", ".onnx", ".bson", ".jld2")
} | {"julia": convert}
PICTURES: dict[str, Write] = {
    "png": lambda folder, number: files.write_png(folder / "a.png", picture(number)),
    **{f"rows{suffix}": partial(rows, f"a{suffix}") for suffix in streams.WRITABLE},
    "rows of a compressed tif": partial(rows, "a.tif", kept=Kept(compressed=True)),
    "npy": lambda folder, number: preparing.write_array(folder / "a.npy", picture(number)),
    "checkpoint": lambda folder, number: checkpoint.save(
        folder / "a.ck", {"w": torch.ones(999) * number}, ""
    ),
    "state": lambda folder, number: img2img._save({"w": torch.ones(999) * number}, folder / "a.pt"),
    "plot": plot,
    "page": lambda folder, number: templates.write_page(folder / "a.html", f"{number}" * 9999),
}
FOLDERS: dict[str, Write] = {
    "preprocess": lambda folder, _: preparing.preprocess_files([PLACES["inputs"]], "colour-32", out=folder),
    "generate": lambda folder, _: generation.generate_files(
        "an island", GenerationOptions(count=3, width=32, height=32), out=folder
    ),
    "apply": lambda folder, _: apply_folder(PLACES["filter"], PLACES["inputs"], folder, engine="numpy"),
    "features": lambda folder, _: diptych.features(
        seeing(), picture(1), out=folder, layers="0", preprocessing="colour-32", engine="numpy"
    ),
}
FOLDERS["table"] = lambda folder, _: diptych.predict(
    seeing(), PLACES["inputs"], preprocessing="colour-32", out=folder, columns=["output"], shard_size=1, workers=1,
    engine="numpy",
)  # fmt: skip
RUNS: dict[str, Write] = {
    "run": lambda folder, _: diptych.run(
        "an island", out=folder, count=2, width=32, height=32, maps="0", engine="numpy"
    ),
    "preview": lambda folder, _: preview(
        PLACES["filter"], [PLACES["inputs"] / "1.png"], out=folder, engine="numpy"
    ),
}
RESUMES = ("preprocess", "generate", "run", "table")
GROUPS = {"formats": FORMATS, "pictures": PICTURES, "folders": FOLDERS, "runs": RUNS}
VARYING = ("run.json", "report.html", "manifest.json")  # they hold times, or how far the work is
PLACES: dict[str, Path] = {}


class Fault:
    """Strikes at one call of the operating system: `act` is what happens there."""

    def __init__(self, moment: int, act: Callable[[], None]) -> None:
        self.moment, self.act, self.calls = moment, act, 0

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, partial(self._call, getattr(os, name)))
        builtins.open, real = partial(self._opened, builtins.open), builtins.open
        import io

        io.open = partial(self._opened, real)

    def _call(self, real: Any, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.moment:
            self.act()
        return real(*arguments, **named)

    def _opened(self, real: Any, path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if any(sign in mode for sign in "wax+"):
            return self._call(real, path, mode, *arguments, **named)
        return real(path, mode, *arguments, **named)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def limited(size: int, kills: bool) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kills else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def forked(work: Callable[[], object]) -> int:
    """How the work ended in a process of its own."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        return KILLED if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    try:
        work()
        end = DONE
    except DiptychError:
        end = REFUSED
    except BaseException:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        traceback.print_exc()
        end = FOREIGN
    os._exit(end)


def content(folder: Path) -> dict[str, bytes]:
    """The files that a reader sees."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def left(folder: Path) -> list[str]:
    hidden = [path.name for path in folder.rglob(".*")]
    return [name for name in hidden if name.startswith(TEMPORARY) or name == IN_USE]


def faults(
    write: Callable[[Path], object], largest: int, most: int
) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Each fault, by name, as what writes into a folder with it."""

    def with_call(moment: int, act: Callable[[], None], folder: Path) -> None:
        Fault(moment, act).install()
        write(folder)

    def with_limit(size: int, kills: bool, folder: Path) -> None:
        limited(size, kills)
        write(folder)

    counted = Fault(0, full)
    with tempfile.TemporaryDirectory() as place:
        reader, writer = os.pipe()

        def count() -> None:
            counted.install()
            write(Path(place))
            os.write(writer, str(counted.calls).encode())

        assert forked(count) == DONE
        calls = int(os.read(reader, 20))
        os.close(reader)
        os.close(writer)
    step = max(1, calls // most)
    for moment in range(1, calls + 1, step):
        yield f"call {moment} fails", partial(with_call, moment, full)
        yield f"killed at call {moment}", partial(with_call, moment, lambda: os._exit(KILLED))
    points = min(LIMITS, most)
    for size in sorted({0, 1, largest - 1, *(largest * i // points for i in range(1, points))}):
        yield f"full at byte {size}", partial(with_limit, size, False)
        yield f"killed at byte {size}", partial(with_limit, size, True)


def tried(name: str, write: Write, most: int) -> Iterator[str]:
    """Yields what went wrong with a writer."""
    alone = name in FOLDERS or name in RUNS  # these begin with an empty folder, the others replace
    with tempfile.TemporaryDirectory() as place:
        states = []
        for number in (1, 2):
            folder = Path(place) / f"{number}"
            folder.mkdir()
            assert forked(partial(write, folder, number)) == DONE
            states.append(content(folder))
        old, new = ({}, states[1]) if alone else states
        largest = max(map(len, new.values()))
        struck = 0
        for what, faulty in faults(lambda folder: write(folder, 2), largest, most):
            folder = Path(place) / "struck"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            if not alone:
                forked(partial(write, folder, 1))
            end = forked(partial(faulty, folder))
            struck += end in (KILLED, REFUSED)
            if end == FOREIGN:
                yield f"{name}, {what}: another error than one of Diptych's"
            if end == REFUSED and [one for one in left(folder) if one != IN_USE]:
                yield f"{name}, {what}: {left(folder)} is left after an error"
            now = content(folder)
            if not alone and now.keys() != old.keys():
                yield f"{name}, {what}: there is {sorted(now)}"
            for file, data in now.items():
                if file not in VARYING and data not in (old.get(file), new.get(file)):
                    yield f"{name}, {what}: {file} is neither old nor new"
            if not alone and now not in (old, new):
                yield f"{name}, {what}: a mixture"
            stamps = {file: (folder / file).stat().st_mtime_ns for file in now if file not in VARYING}
            if forked(partial(write, folder, 2)) != DONE:
                yield f"{name}, {what}: the next call fails"
            if left(folder):
                yield f"{name}, {what}: {left(folder)} is left after the next call"
            after = content(folder)
            if (
                any(after.get(file) != new[file] for file in new if file not in VARYING)
                or after.keys() != new.keys()
            ):
                yield f"{name}, {what}: the next call does not make {sorted(new)}"
            if name in RESUMES:
                again = [
                    file for file, stamp in stamps.items() if (folder / file).stat().st_mtime_ns != stamp
                ]
                if again:
                    yield f"{name}, {what}: {again} is made again"
        if not struck:
            yield f"{name}: no fault struck"


def main(group: str, most: int) -> None:
    figure._DPI = 30
    with tempfile.TemporaryDirectory() as place:
        PLACES["inputs"] = Path(place) / "inputs"
        PLACES["inputs"].mkdir()
        for one in (1, 2):
            files.write_png(PLACES["inputs"] / f"{one}.png", picture(one))
        if group in ("folders", "runs"):
            PLACES["filter"] = Path(place) / "invert.safetensors"
            diptych.write(diptych.filters.learn("invert").model, PLACES["filter"])
        wrong = [one for name, write in GROUPS[group].items() for one in tried(name, write, most)]
    print(json.dumps(wrong))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
