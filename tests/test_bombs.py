"""Small files that ask for a lot of memory: each is refused in a sentence, before the memory is taken."""

import io
import os
import subprocess
import sys
import tarfile
import time

import pytest
import torch

import diptych
from diptych.model.layers import Chain, Connection, Graph, Pad, Parallel, SkipConnection, Upsample
from diptych.model.model import Model

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the peak of a process is read as Linux says it"
)

PEAK = """
import resource, sys
from diptych.__main__ import main
try:
    main(sys.argv[1:])
finally:
    # On Linux this is in KiB.
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


def refused(*arguments, most=700):
    """Runs a command, which must fail with one sentence and stay below `most` MiB; returns the sentence."""
    resource = pytest.importorskip("resource")

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))

    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1, lines
    assert len(lines) == 2, lines
    assert int(lines[-1].removeprefix("peak ")) < most
    assert time.monotonic() - begin < 60
    return lines[0]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("picture")
    return diptych.generate("a house", out=folder) and next(folder.glob("*.png"))


RECIPE = diptych.load_model("scenes").preprocessing


def model(*layers):
    return Model(Chain(layers), input_shape=(3, 32, 32), preprocessing=RECIPE, name="bomb")


def test_branches_are_bounded_in_sum(tmp_path, picture):
    path = tmp_path / "bomb.safetensors"
    bombs = [
        model(Parallel(Connection("add"), tuple(Upsample((250, 250)) for _ in range(8)))),
        model(Upsample((250, 250)), nested(30)),
        model(waiting(8)),
    ]
    for bomb in bombs:
        diptych.write(bomb, path)
        said = refused("predict", path, picture)
        assert "the model would hold" in said
        assert "the limit is 4.0 GiB; use a smaller input" in said


def nested(depth):
    own = Pad(((0, 0), (0, 0)))  # each level keeps a value of its own
    return SkipConnection(Chain((own, nested(depth - 1)) if depth else (own,)), Connection("add"))


def waiting(count):
    """A graph whose large values wait for their turn, of which only small ones meet."""
    names = [f"large {n}" for n in range(count)], [f"small {n}" for n in range(count)]
    return Graph(
        (*[Upsample((250, 250))] * count, *[Upsample(size=(32, 32))] * count, Connection("add")),
        (*names[0], *names[1], "sum"),
        (*[("input",)] * count, *[(name,) for name in names[0]], tuple(names[1])),
        ("sum",),
    )


BOMBS = {
    "upsample": model(Upsample((60_000, 60_000))),
    "pad": model(Pad(((10_000, 10_000), (10_000, 10_000)))),
    "several": model(*[Upsample((4, 4))] * 6),
    "inside": model(SkipConnection(Chain((Upsample((2000, 2000)), Upsample(size=(32, 32)))))),
}


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnxruntime"])
@pytest.mark.parametrize("name", BOMBS)
def test_an_output_beyond_the_limit_is_not_computed(tmp_path, picture, name, engine):
    path = tmp_path / "bomb.safetensors"
    diptych.write(BOMBS[name], path)
    assert path.stat().st_size < 3000
    said = refused("predict", path, picture, "--engine", engine)
    assert "the limit is 1.0 GiB; use a smaller input" in said


def test_traces_are_bounded_in_sum(tmp_path, picture):
    path = tmp_path / "bomb.safetensors"
    diptych.write(model(Upsample((100, 100)), *[Pad(((0, 0), (0, 0)))] * 60), path)
    said = refused("features", path, picture, "-o", tmp_path / "out.png")
    assert "the outputs of all layers" in said


class Huge:
    def __reduce__(self):
        return bytearray, (3_000_000_000,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_cannot_ask_for_memory(tmp_path, protocol):
    path = tmp_path / "huge.pt"
    torch.save({"state": Huge()}, path, pickle_protocol=protocol)
    assert "bytearray" in refused("inspect", path)
    said = refused("filter", "learn", "sobel", "--checkpoint", path, "-o", tmp_path / "x.safetensors")
    assert "is not the checkpoint of a training" in said


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("kind", ["header", "member"])
def test_an_archive_cannot_unpack_without_bound(tmp_path, mode, kind):
    path = tmp_path / f"pictures.tar.{mode[2:]}"
    size = 1 << 29
    with tarfile.open(path, mode) as archive:
        entry = tarfile.TarInfo("a")
        entry.size = size
        entry.type = tarfile.XHDTYPE if kind == "header" else tarfile.REGTYPE
        archive.addfile(entry, _Zeros(size))
        archive.addfile(tarfile.TarInfo("b"), io.BytesIO())
    said = refused("filter", "learn", "sobel", "--images", path, "-o", tmp_path / "x.safetensors")
    assert ("a header in it claims" if kind == "header" else "it unpacks to more than") in said


class _Zeros(io.RawIOBase):
    def __init__(self, size):
        self.left = size

    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


@pytest.mark.parametrize("suffix", ["safetensors", "onnx", "pt", "bson", "jld2", "json", "png"])
def test_a_pipe_is_not_waited_for(tmp_path, suffix, picture):
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    arguments = {
        "json": ["predict", "scenes", picture, "--preprocessing", pipe],
        "png": ["predict", "scenes", pipe],
    }.get(suffix, ["inspect", pipe])
    said = refused(*arguments)
    assert str(pipe) in said


def test_a_pipe_as_a_checkpoint_is_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    said = refused("filter", "learn", "sobel", "--checkpoint", pipe, "-o", tmp_path / "x.safetensors")
    assert f"{pipe} is not the checkpoint of a training" in said
    assert not (tmp_path / "x.safetensors").exists()
