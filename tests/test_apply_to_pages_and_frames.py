"""Filters on pictures with transparency, on every page of a TIFF, and on every frame of an animation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from diptych.errors import ImageError
from diptych.filters import apply, apply_file, apply_folder
from diptych.model.layers import Array, Chain, Conv
from diptych.model.model import Model

RANDOM = np.random.default_rng(3)


@pytest.fixture
def negative() -> Model:
    """255 - x, for each channel."""
    weight = np.full((3, 1, 1, 1), -1, np.float32)
    layers = Chain((Conv(weight, np.ones(3, np.float32), groups=3),))
    notes = {"filter": {"per_channel": True}}
    return Model(layers, input_shape=(3, None, None), name="negative", trained=True, notes=notes)


@pytest.fixture
def luma() -> Model:
    weight = np.array([0.299, 0.587, 0.114], np.float32).reshape(1, 3, 1, 1)
    return Model(Chain((Conv(weight),)), input_shape=(3, None, None), name="luma", trained=True)


def noise(*shape: int, dtype: type = np.uint8) -> Array:
    return RANDOM.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_transparency_is_kept(suffix: str, negative: Model, luma: Model, tmp_path: Path) -> None:
    rgba = noise(20, 31, 4)
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(source, rgba, photometric="rgb", extrasamples=["unassalpha"])
    else:
        Image.fromarray(rgba).save(source, lossless=True, exact=True)
    with Image.open(source) as image:
        stored = np.asarray(image.convert("RGBA"))
    apply_file(negative, source, target)
    with Image.open(target) as image:
        given = np.asarray(image)
    np.testing.assert_array_equal(given[..., 3], stored[..., 3])
    opaque = stored[..., 3] > 0  # WebP may change what cannot be seen
    np.testing.assert_array_equal(given[opaque][:, :3], 255 - stored[opaque][:, :3])
    apply_file(luma, source, target)
    with Image.open(target) as image:
        grey = np.asarray(image.convert("LA"))
    np.testing.assert_array_equal(grey[..., 1], stored[..., 3])
    np.testing.assert_array_equal(grey[opaque][:, 0], apply(luma, stored[..., :3].copy())[opaque])


def test_where_a_file_cannot_be_transparent_the_ground_is_white_and_that_is_said(
    negative: Model, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((9, 9, 4), np.uint8)).save(tmp_path / "clear.png")
    done = apply_file(negative, tmp_path / "clear.png", tmp_path / "out.jpg")
    assert "transparency over white" in done.remarks
    with Image.open(tmp_path / "out.jpg") as image:
        assert np.asarray(image).max() <= 1


def test_an_opaque_picture_stays_without_alpha(negative: Model, tmp_path: Path) -> None:
    Image.fromarray(np.dstack([noise(9, 9, 3), np.full((9, 9), 255, np.uint8)])).save(tmp_path / "in.png")
    apply_file(negative, tmp_path / "in.png", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.mode == "RGB"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_page_of_a_tiff(dtype: type, negative: Model, tmp_path: Path) -> None:
    peak = np.iinfo(dtype).max
    pages = [noise(12, 15, 3, dtype=dtype), noise(7, 9, dtype=dtype), noise(30, 4, 3, dtype=dtype)]
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        for page in pages:
            file.write(page, photometric="rgb" if page.ndim == 3 else "minisblack")
    done = apply_file(negative, tmp_path / "in.tif", tmp_path / "out.tif")
    assert "3 pictures" in done.remarks
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        given = [page.asarray() for page in file.pages]
    assert len(given) == 3
    for one, page in zip(given, pages, strict=True):
        np.testing.assert_array_equal(one, peak - page)


@pytest.mark.parametrize(
    ("before", "after"), [("gif", "gif"), ("gif", "webp"), ("webp", "webp"), ("gif", "png"), ("png", "gif")]
)
def test_every_frame_of_an_animation(before: str, after: str, negative: Model, tmp_path: Path) -> None:
    levels, times = (0, 90, 180), [40, 120, 200]
    frames = [Image.fromarray(np.full((16, 24, 3), level, np.uint8)) for level in levels]
    source, target = tmp_path / f"in.{before}", tmp_path / f"out.{after}"
    frames[0].save(source, save_all=True, append_images=frames[1:], duration=times, loop=3, lossless=True)
    apply_file(negative, source, target)
    with Image.open(target) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
        assert image.info["loop"] == 3
        for number, level in enumerate(levels):
            image.seek(number)
            given = np.asarray(image.convert("RGB"))
            assert image.info["duration"] == pytest.approx(times[number], abs=1)
            np.testing.assert_array_equal(given, 255 - np.full_like(given, level))


def test_a_colour_profile_stays_with_the_colours_that_it_is_for(negative: Model, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise(9, 9, 4)).save(tmp_path / "in.png", icc_profile=profile)
    apply_file(negative, tmp_path / "in.png", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["icc_profile"] == profile


def test_a_folder_of_them(negative: Model, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (0, 200)]
    (tmp_path / "in").mkdir()
    frames[0].save(tmp_path / "in" / "moving.gif", save_all=True, append_images=frames[1:], duration=50)
    Image.fromarray(noise(8, 8, 4)).save(tmp_path / "in" / "clear.png")
    done = apply_folder(negative, tmp_path / "in", tmp_path / "out")
    assert not done.failures
    with Image.open(tmp_path / "out" / "moving.png") as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    with Image.open(tmp_path / "out" / "clear.png") as image:
        assert image.mode == "RGBA"


def test_a_damaged_page_leaves_no_file(negative: Model, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        for _ in range(2):
            file.write(noise(40, 40, 3), photometric="rgb", compression="zlib")
    content = bytearray((tmp_path / "in.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "in.tif") as file:
        begin = file.pages[1].dataoffsets[0]
    content[begin : begin + 30] = bytes(30)
    (tmp_path / "in.tif").write_bytes(content)
    with pytest.raises(ImageError, match=r"page 2 of .*in\.tif is damaged"):
        apply_file(negative, tmp_path / "in.tif", tmp_path / "out.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_sixteen_bits_with_transparency_become_eight_and_that_is_said(
    negative: Model, tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 4), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "in.png"), pixels)
    applied = apply_file(negative, tmp_path / "in.png", tmp_path / "out.png")
    assert "16 bits a channel were read as 8, because the picture has transparency" in applied.remarks
    cv2.imwrite(str(tmp_path / "opaque.png"), pixels[..., :3])
    assert not apply_file(negative, tmp_path / "opaque.png", tmp_path / "out.png").remarks
