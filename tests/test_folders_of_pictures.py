"""A user gives a folder: every kind of picture in it is read, and what is skipped is counted and named."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.__main__ import main
from diptych.errors import ImageError, UsageError, install_command
from diptych.images import files
from diptych.images.opening import most_pixels
from little_pictures import COLOUR

DATA = Path(__file__).parent / "data" / "pictures"
SKIPPED = "2 files were skipped, because the name does not end like a picture's: clip.mp4, notes.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    place.mkdir()
    big = Image.fromarray(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8)))
    for name, kind in (("a.png", "PNG"), ("b.jfif", "JPEG"), ("c.avif", "AVIF"), ("d.jp2", "JPEG2000")):
        big.save(place / name, kind)
    (place / "notes.txt").write_text("not a picture")
    (place / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    (place / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (place / "more").mkdir()
    return place


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, " ".join(shown.err.split())


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["predict", "preprocess", "run", "compare"])
def test_every_verb_names_what_it_skips(
    folder: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "predict": ["predict", "scenes", folder],
        "preprocess": ["preprocess", folder, "-o", tmp_path / "out"],
        "run": ["run", "--images", folder, "-o", tmp_path / "out", "--maps", "0"],
        "compare": ["compare", "scenes", "scenes", "--images", folder],
    }[verb]
    status, _, said = run(capsys, *arguments)
    assert status == 0
    assert SKIPPED in said
    assert said.count("skipped") == 1


@pytest.mark.slow
def test_filter_verbs_name_what_they_skip(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "invert.safetensors"
    status, _, said = run(
        capsys, "filter", "learn", "invert", "--images", folder, "-o", model, "--budget", "5"
    )
    assert status == 0
    assert SKIPPED in said
    status, _, said = run(capsys, "filter", "apply", model, folder, tmp_path / "out")
    assert status == 0
    assert SKIPPED in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png", "d.png"]
    for verb in ("evaluate", "preview"):
        more = ["-o", tmp_path / "page"] if verb == "preview" else []
        status, _, said = run(capsys, "filter", verb, model, "--images", folder, *more)
        assert SKIPPED in said


def test_only_a_few_skipped_files_are_named(folder: Path) -> None:
    for number in range(40):
        (folder / f"{number}.txt").touch()
    (remark,) = files.search(folder).remarks
    assert remark.startswith("42 files were skipped")
    assert "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 37 more; hidden files too: 1" in remark


def test_nothing_is_said_where_nothing_is_skipped(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    (tmp_path / ".DS_Store").touch()
    assert files.search(tmp_path).remarks == ()


def test_kinds_that_pillow_reads(tmp_path: Path) -> None:
    smooth = np.uint8(np.add.outer(np.arange(48), np.arange(64))[..., None] + [0, 60, 120])
    for kind, most in (("AVIF", 12), ("JPEG2000", 0)):
        Image.fromarray(smooth).save(tmp_path / "a", kind)
        picture = files.read(tmp_path / "a")
        assert np.abs(picture.pixels.astype(int) - smooth).max() <= most


def test_heic_by_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = np.uint8(np.add.outer(np.arange(64), np.arange(64))[..., None] + [0, 60, 120])
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.from_pillow(Image.fromarray(smooth)).save(stream, quality=90, exif=exif.tobytes())
    (tmp_path / "IMG_1.HEIC").write_bytes(stream.getvalue())
    picture = files.read(tmp_path / "IMG_1.HEIC")
    assert min(np.abs(picture.pixels - np.rot90(smooth, turns).astype(int)).max() for turns in (0, -1)) <= 12
    (tmp_path / "cut.heic").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    with pytest.raises(ImageError, match="truncated or damaged"):
        files.read(tmp_path / "cut.heic")


def test_heic_without_the_extra_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    status, _, said = run(capsys, "preprocess", tmp_path, "-o", tmp_path / "out")
    assert status == 1
    assert f"IMG_1.HEIC needs the package 'pillow-heif'; install it with: {install_command('heif')}" in said
    assert (tmp_path / "out" / "a.npy").exists()


def test_long_text_is_not_damage(tmp_path: Path) -> None:
    picture = files.read(DATA / "comfy_text_2MB.png")
    assert picture.pixels.shape == (106, 160, 3)
    assert picture.remarks == ()


def test_the_limit_of_pixels_in_every_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    arguments = ["preprocess", tmp_path / "a.png", "-o", tmp_path / "out"]
    status, _, said = run(capsys, *arguments, "--max-pixels", 34)
    assert status == 1
    assert "raise the limit if the file is trusted: --max-pixels 35 on the command line" in said
    assert run(capsys, *arguments, "--max-pixels", 35)[0] == 0
    status, _, said = run(capsys, *arguments, "--max-pixels", 0)
    assert status == 2
    assert "at least 1" in said
    for command in (
        *(["run"], ["generate"], ["preprocess"], ["predict"], ["features"], ["compare"]),
        *(["filter", name] for name in ("learn", "apply", "evaluate", "preview")),
    ):
        assert "--max-pixels" in run(capsys, *command, "--help")[1]


def test_the_limit_of_pixels_in_python(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    before = most_pixels()
    with (
        diptych.pixel_limit(34),
        pytest.raises(ImageError, match=r"`with diptych\.pixel_limit\(35\):` in Python"),
    ):
        diptych.preprocess(tmp_path, "colour-32")
    with diptych.pixel_limit(35):
        assert diptych.preprocess(tmp_path, "colour-32").shape == (1, 3, 32, 32)
    assert most_pixels() == before
    with pytest.raises(UsageError), diptych.pixel_limit(0):
        pass
