"""What the verbs take as images: the same pictures, whichever way they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych.errors import ImageError, ShapeError, UsageError
from diptych.images import files
from diptych.images.arguments import as_batch, as_picture, each_image, is_batch, unique_names
from diptych.images.picture import Picture

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2, 10):
        files.write_png(tmp_path / f"picture{number}.png", GREY + np.uint8(number))
    return tmp_path


def names(images: object) -> list[str]:
    return [image.name for image in each_image(images)]  # type: ignore[arg-type]


def test_a_folder_stands_for_its_pictures_alone_and_among_others(folder: Path) -> None:
    inside = ["picture1.png", "picture2.png", "picture10.png"]
    assert names(folder) == names(str(folder)) == inside
    assert names([folder, GREY]) == [*inside, "image_2"]


def test_arrays_are_named_by_their_place() -> None:
    assert names(GREY) == ["image"]
    assert names([GREY, Picture(GREY, "own"), GREY]) == ["image_1", "own", "image_3"]
    assert names(np.stack([GREY, GREY])[..., None].repeat(3, -1)) == ["image_1", "image_2"]
    assert names(iter([GREY])) == ["image_1"]


@pytest.mark.parametrize("images", [7, None, [7]])
def test_what_is_no_image_is_wrong_usage(images: object) -> None:
    with pytest.raises(UsageError, match=r"(images are|an image is)"):
        list(each_image(images))  # type: ignore[arg-type]


def test_no_images_and_no_such_files() -> None:
    with pytest.raises(UsageError, match="there are no images"):
        list(each_image([]))
    with pytest.raises(ImageError, match="there is no picture or folder"):
        list(each_image(["gone.png"]))
    with pytest.raises(ImageError, match="must be uint8"):
        as_picture(GREY.astype(np.int16))


def test_every_verb_answers_alike(tmp_path: Path) -> None:
    calls = [
        lambda images: diptych.predict("scenes", images),
        lambda images: diptych.preprocess(images, "colour-32"),
        lambda images: diptych.compare("scenes", "scenes", images),
        lambda images: diptych.run(images=images, out=tmp_path / "out"),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="images are paths, arrays or Pictures, not int"):
            call(7)
        with pytest.raises(UsageError, match="there are no images"):
            call([])
    assert not (tmp_path / "out").exists()


def test_a_float_array_is_a_batch() -> None:
    assert is_batch(np.zeros((1, 3, 4, 4)))
    assert not is_batch(GREY)
    assert as_batch(np.zeros((1, 3, 4, 4))).dtype == np.float32
    for empty in (np.zeros((0, 3, 4, 4)), np.zeros(())):
        with pytest.raises(ShapeError, match="a batch is"):
            as_batch(empty)


def test_equal_names_get_numbers() -> None:
    assert unique_names(["a", "a", "b", "a_2"]) == ["a", "a_2", "b", "a_2_2"]
