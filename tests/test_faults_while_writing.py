"""Whatever fails or ends while something is written: the old content is there or the new, and nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.errors import OutputError
from diptych.files import (
    IN_USE,
    TEMPORARY,
    as_text,
    check_writable,
    replacing,
    replacing_folder,
    sole_writer,
    sweep,
)
from diptych.images import files
from diptych.locks import locked, unlock
from diptych.preparing import preprocess_files
from little_pictures import COLOUR

unix = pytest.mark.skipif(os.name == "nt", reason="forks, and limits the size of files")
SCRIPT = Path(__file__).with_name("faults.py")


@unix
@pytest.mark.slow
@pytest.mark.parametrize(("group", "most"), [("formats", 3), ("pictures", 4), ("folders", 6), ("runs", 2)])
def test_every_fault_leaves_the_old_or_the_new(group: str, most: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT, group, str(most)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr


def python(code: str, *arguments: object, wait: bool = True) -> subprocess.Popen[str]:
    """A process that runs `code`; a line on its standard output shows that it is where it should be."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if wait:
        assert process.stdout.readline() == "ready\n"
    return process


WRITING = """
import sys, time
from pathlib import Path
from diptych.files import replacing, replacing_folder
how = replacing if sys.argv[2] == "file" else replacing_folder
with how(Path(sys.argv[1])) as place:
    (place if sys.argv[2] == "file" else place / "x").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(TEMPORARY)]


@unix
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_stays(kind, tmp_path):
    process = python(WRITING, tmp_path / "a.txt", kind)
    try:
        sweep(tmp_path, always=True)
        assert len(unfinished(tmp_path)) == 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(unfinished(tmp_path)) == 1
    sweep(tmp_path, always=True)
    assert not unfinished(tmp_path)


def test_a_sweep_leaves_what_others_have_put_there(tmp_path):
    (tmp_path / ".hidden").write_text("mine")
    (tmp_path / f"{TEMPORARY}link").symlink_to(tmp_path / ".hidden")
    sweep(tmp_path, always=True)
    assert (tmp_path / ".hidden").read_text() == "mine"


def test_a_file_is_flushed_before_it_takes_its_place_and_its_folder_after(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (done.append(name), real(*a))[1])
    files.write_png(tmp_path / "a.png", COLOUR)
    assert done == (["fsync", "replace", "fsync"] if os.name != "nt" else ["fsync", "replace"])


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError("20 requested and 7 written")]
)
def test_a_write_that_fails_is_one_sentence(error, tmp_path):
    def fail() -> None:
        with replacing(tmp_path / "a.txt"):
            raise error

    with pytest.raises(OutputError, match=r"cannot write .*a\.txt: .*; make room, or choose another place"):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_mistake_of_the_program_is_not_taken_for_a_full_disk(tmp_path):
    def fail() -> None:
        with replacing(tmp_path / "a.txt"):
            raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_exchanged_is_put_back(tmp_path, monkeypatch):
    from diptych import locks

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    monkeypatch.setattr(locks, "_exchanged", lambda new, old: False)
    real, calls = os.replace, []

    def failing(source: object, target: object) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(source, target)

    def write() -> None:
        with replacing_folder(tmp_path / "a") as place:
            (place / "new").write_text("new")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OutputError, match="No space left"):
        write()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    write()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@unix
def test_what_is_finished_is_told_where_the_record_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in "ab":
        files.write_png(tmp_path / "in" / f"{name}.png", COLOUR)
    real, out = os.replace, tmp_path / "out"

    def full(source: object, target: object) -> None:
        if Path(str(target)).name == "run.json" and (out / "a.npy").exists():
            raise OSError(27, "File too large")
        real(source, target)

    with monkeypatch.context() as limited:
        limited.setattr(os, "replace", full)
        with pytest.raises(OutputError, match=r"run\.json: File too large; .* noted in .*diptych-writing"):
            preprocess_files([tmp_path / "in"], "colour-32", out=out)
    assert (out / IN_USE).stat().st_size
    before = (out / "a.npy").stat().st_mtime_ns
    preprocess_files([tmp_path / "in"], "colour-32", out=out)
    assert (out / "a.npy").stat().st_mtime_ns == before
    assert not (out / IN_USE).exists()


# One writer


def test_a_second_writer_of_a_folder_is_refused_with_one_sentence(tmp_path):
    files.write_png(tmp_path / "1.png", COLOUR)
    out = tmp_path / "out"
    diptych.convert("small-cnn-32", tmp_path / "m.safetensors")
    calls = (
        lambda: diptych.run("an island", out=out, count=1),
        lambda: diptych.generate("an island", out=out),
        lambda: preprocess_files([tmp_path / "1.png"], "colour-32", out=out),
        lambda: diptych.features("scenes", tmp_path / "1.png", out=out),
    )
    with sole_writer(out):
        for call in calls:
            with pytest.raises(OutputError, match=f"another command is writing to {out}; wait"):
                call()
    assert not list(out.iterdir())
    calls[2]()
    assert IN_USE not in {path.name for path in out.iterdir()}


@unix
def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path):
    code = """
import sys, time
from diptych.files import sole_writer
with sole_writer(sys.argv[1]):
    print("ready", flush=True)
    time.sleep(600)
"""
    process = python(code, tmp_path)
    try:
        with pytest.raises(OutputError, match="another command is writing"), sole_writer(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert [path.name for path in tmp_path.iterdir()] == [IN_USE]
    with sole_writer(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_is_taken_by_one_of_many(tmp_path):
    """Also while the file of the lock is removed and made again."""
    inside, most, taken = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, taken
        end = time.monotonic() + 1
        while time.monotonic() < end:
            handle = locked(tmp_path / "lock")
            if handle is None:
                continue
            with guard:
                inside, taken = inside + 1, taken + 1
                most = max(most, inside)
            with guard:
                inside -= 1
            (tmp_path / "lock").unlink()
            unlock(handle)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken > 10


# Before long work


def test_a_place_is_tried_before_learning_begins(tmp_path, diptych_command):
    (tmp_path / "folder.safetensors").mkdir()
    long = tmp_path / f"{'x' * 300}.safetensors"
    for place, why in ((tmp_path / "folder.safetensors", "it is a folder"), (long, "File name too long")):
        with pytest.raises(OutputError, match=why):
            check_writable(place)
        refused = diptych_command("filter", "learn", "invert", "-o", place)
        assert refused.status == 1
        assert why in refused.err
    (tmp_path / "mine.pt").write_text("mine")
    check_writable(tmp_path / "mine.pt")
    assert (tmp_path / "mine.pt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.safetensors", "mine.pt"]


def test_what_was_learned_is_kept_where_the_disk_is_full_at_the_end(tmp_path, monkeypatch, diptych_command):
    from diptych import formats

    (tmp_path / "spare").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spare"))
    real = formats.write

    def full(model: object, path: Path, **options: object) -> object:
        if Path(path).parent == tmp_path:
            raise OutputError(
                f"cannot write {path}: No space left on device; make room, or choose another place"
            )
        return real(model, path, **options)

    monkeypatch.setattr(formats, "write", full)
    told = diptych_command("filter", "learn", "invert", "-o", tmp_path / "invert.safetensors")
    assert told.status == 1
    assert "No space left on device" in told.err
    kept = told.err.partition("what was learned is kept in ")[2].partition(": copy it from there")[0]
    assert diptych.read(kept).name


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "x" * 300 + ".pt"])
def test_an_input_that_cannot_be_looked_at_is_not_called_a_result(name, tmp_path, diptych_command):
    files.write_png(tmp_path / "a.png", COLOUR)
    diptych.convert("small-cnn-32", tmp_path / "m.pt")
    for words in (
        ("predict", "scenes", tmp_path / name),
        ("predict", tmp_path / name, tmp_path / "a.png"),
        ("convert", tmp_path / name, tmp_path / "x.pt"),
        ("inspect", tmp_path / name),
        ("preprocess", tmp_path / name, "-o", tmp_path / "out"),
        ("run", "--images", tmp_path / name, "-o", tmp_path / "out"),
        ("filter", "apply", tmp_path / name, tmp_path / "a.png", tmp_path / "b.png"),
        ("filter", "apply", tmp_path / "m.pt", tmp_path / name, tmp_path / "b.png"),
        ("filter", "learn", "invert", "--images", tmp_path / name, "-o", tmp_path / "x.pt"),
        ("compare", tmp_path / name, "scenes"),
    ):
        refused = diptych_command(*words)
        assert refused.status == 1, words[:2]
        assert "File name too long" in refused.err
        assert "cannot read" in refused.err or "cannot be opened" in refused.err
        assert "cannot write" not in refused.err


# Names that are not UTF-8


@unix
@pytest.mark.skipif(sys.platform == "darwin", reason="file names are always UTF-8 there")
def test_names_that_are_not_utf8_are_escaped(tmp_path, diptych_command):
    folder = tmp_path / "in"
    folder.mkdir()
    files.write_png(Path(os.fsdecode(os.fsencode(folder) + b"/x\xff.png")), COLOUR)
    Path(os.fsdecode(os.fsencode(folder) + b"/y\xfe.png")).write_bytes(b"bad")
    size = ("--maps", "0")
    for words in (
        ("run", "--images", folder, "-o", tmp_path / "run", *size),
        ("predict", "scenes", folder),
        ("preprocess", folder, "-o", tmp_path / "inputs"),
    ):
        told = diptych_command(*words, "--json")
        document = json.loads(told.out)
        assert told.status == 1
        assert r"y\xfe.png" in document["failures"][0]
        told.out.encode()
    assert (tmp_path / "run" / "predictions.csv").read_text("utf-8").splitlines()[1].startswith(r"x\xff,")
    assert r"\xff" in (tmp_path / "run" / "report.html").read_text("utf-8")
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert [one["name"] for one in record["settings"]["images"]] == [r"x\xff.png", r"y\xfe.png"]
    assert not record["command"] or as_text(record["command"]) == record["command"]
    expected = [r"x\xff.npy", r"x\xff.png", "recipe.json", "run.json"]
    assert sorted(path.name for path in (tmp_path / "inputs").iterdir()) == sorted(expected)
    assert np.load(tmp_path / "inputs" / r"x\xff.npy").shape == (3, 32, 32)
