"""A user names files and folders of pictures, and writes pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.errors import DiptychError, ImageError, OutputError
from diptych.images import files
from little_pictures import COLOUR, GREY


def test_a_folder_is_sorted_as_people_count(tmp_path: Path) -> None:
    inside = ["p10.png", "p2.PNG", "P1.jpg", "a.tiff", "p02.png"]
    for name in [*inside, "notes.txt", ".hidden.png"]:
        (tmp_path / name).touch()
    (tmp_path / "deeper.png").mkdir()
    (tmp_path / "deeper.png" / "b.png").touch()
    found = [path.name for path in files.find(tmp_path)]
    assert found == ["a.tiff", "P1.jpg", "p02.png", "p2.PNG", "p10.png"]


def test_files_and_folders_keep_their_order_and_come_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "odd.dat"):
        (tmp_path / name).touch()
    asked = [
        tmp_path / "odd.dat",
        tmp_path / "b.png",
        tmp_path,
        str(tmp_path / ".." / tmp_path.name / "a.png"),
    ]
    assert [path.name for path in files.find(asked)] == ["odd.dat", "b.png", "a.png"]


def test_nothing_to_find(tmp_path: Path) -> None:
    for asked, says in (
        (tmp_path, "holds no pictures"),
        (tmp_path / "gone", "there is no picture or folder"),
        ([], "no pictures were named"),
    ):
        with pytest.raises(ImageError, match=says):
            files.find(asked)


def test_write_and_read_again(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for number, array in enumerate((COLOUR, GREY, COLOUR[::-1, ::-1])):
        path = tmp_path / "deep" / f"{number}.png"
        files.write_png(path, array)
        first = path.read_bytes()
        files.write_png(path, array)
        assert path.read_bytes() == first
        assert np.array_equal(files.read(path).pixels, array)
    assert [path.name for path in files.find(tmp_path / "deep")] == ["0.png", "1.png", "2.png"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for array in (COLOUR / 255, np.zeros((2, 2, 4), np.uint8), np.zeros((0, 3), np.uint8), [[1]]):
        with pytest.raises(ImageError, match="must be uint8"):
            files.write_png(tmp_path / "a.png", array)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        files.write_png(tmp_path / "file" / "a.png", GREY)
    assert {path.name for path in tmp_path.iterdir()} == {"file"}
    assert issubclass(ImageError, DiptychError)


def test_a_link_to_itself_does_not_stop_the_other_pictures_of_a_folder(tmp_path, diptych_command):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "good.png")
    (tmp_path / "self.png").symlink_to("self.png")
    assert [path.name for path in files.find(tmp_path)] == ["good.png", "self.png"]
    for command in (["predict", "scenes", tmp_path], ["preprocess", tmp_path, "-o", tmp_path / "out"]):
        done = diptych_command(*command)
        assert done.status == 1
        assert "self.png cannot be opened" in done.err
        assert "good" in done.out
