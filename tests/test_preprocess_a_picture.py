"""A user prepares a picture: the pixels are Julia's, Pillow's and OpenCV's own."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from diptych.preprocessing import KERNELS, NAMES, Preprocessing, named
from diptych.preprocessing.grey import grey_float, grey_julia, grey_opencv, grey_pillow
from diptych.preprocessing.resize import imresize, nearest
from diptych.preprocessing.steps import FITS, CentreCrop, Colour, Grey, Normalise, Resize, Scale, SpatialOrder

GOLDEN = Path(__file__).parent / "golden" / "imresize"
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
PILLOW["lanczos"] = Image.Resampling.LANCZOS
OPENCV = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "cubic": cv2.INTER_CUBIC}


def golden_picture(name):
    return np.asarray(Image.open(GOLDEN / f"img_{name}.png"))


def golden(name):
    array = np.load(GOLDEN / f"{name}.npy")
    return array if array.ndim == 3 else array[None]


def noise(height, width, channels=3, seed=0):
    shape = (height, width, 3) if channels == 3 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


SMALL = [(name, size) for name in ("small", "gray", "tiny") for size in ((16, 20), (64, 48))]


# -- Julia -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["photo", "small", "gray", "tiny"])
def test_grey_is_julias(name):
    ours = Preprocessing((Grey("julia"),)).apply(golden_picture(name))
    np.testing.assert_array_equal(ours, golden(f"img_{name}_gray_u8"))


@pytest.mark.parametrize(("name", "size"), [("photo", (224, 224)), *SMALL])
def test_grey_then_imresize_is_julias_exactly(name, size):
    width, height = size
    recipe = Preprocessing((Grey("julia"), Resize(height, width, "imresize"), Scale()))
    ours = recipe.apply(golden_picture(name))
    np.testing.assert_array_equal(ours, golden(f"img_{name}_gray_resize{width}x{height}_f32"))


@pytest.mark.parametrize(("name", "size"), SMALL)
def test_imresize_then_grey_is_julias_exactly(name, size):
    width, height = size
    recipe = Preprocessing((Resize(height, width, "imresize"), Grey("julia"), Scale()))
    ours = recipe.apply(golden_picture(name))
    np.testing.assert_array_equal(ours, golden(f"img_{name}_rgbresize_gray_{width}x{height}"))


@pytest.mark.parametrize(("name", "size"), [case for case in SMALL if case[0] != "gray"])
def test_imresize_in_colour_is_julias_exactly(name, size):
    width, height = size
    ours = Preprocessing((Resize(height, width, "imresize"), Scale())).apply(golden_picture(name))
    np.testing.assert_array_equal(ours, golden(f"img_{name}_channelview_{width}x{height}"))


@pytest.mark.parametrize(("name", "size"), SMALL)
def test_imresize_of_floats_is_julias(name, size):
    width, height = size
    recipe = Preprocessing((Grey("julia"), Scale(), Resize(height, width, "imresize", round=False)))
    ours = recipe.apply(golden_picture(name))
    np.testing.assert_allclose(ours, golden(f"img_{name}_f32_resize{width}x{height}"), rtol=0, atol=1e-6)


def test_the_named_julia_recipe_is_the_golden_one():
    ours = named("julia-grey-224").apply(golden_picture("photo"))
    np.testing.assert_array_equal(ours, golden("img_photo_gray_resize224x224_f32"))
    turned = named("julia-grey-224-wh").apply(golden_picture("photo"))
    np.testing.assert_array_equal(turned, ours.transpose(0, 2, 1))


def test_the_two_julia_orders_differ():
    """Rounding at two different points is why the order of steps is part of a recipe."""
    picture = golden_picture("photo")
    first, second = named("julia-grey-224").apply(picture), named("julia-resize-then-grey-224").apply(picture)
    assert 0 < np.abs(first - second).max() < 2.1 / 255


def test_imresize_of_published_examples():
    """From the package's own tests: one pixel of [1 0; 0 0] enlarged, and halves."""
    picture = np.array([[1, 0], [0, 0]], np.float32)
    assert imresize(picture, 4, 4)[1, 1] == np.float32(0.75**2)
    np.testing.assert_array_equal(imresize(np.array([[1.0, 0.0]], np.float32), 1, 1), [[0.5]])


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (2, 5), (5, 2), (480, 32), (7, 13)])
def test_imresize_against_the_formula_in_a_loop(n, m):
    line = noise(1, n, 1).astype(np.float32)
    for i in range(1, m + 1):
        x = min(max(n / m * i + 0.5 - 0.5 * n / m, 1), n)
        low = min(int(x), max(n - 1, 1))
        weight = x - low
        expected = (1 - weight) * line[0, low - 1] + weight * line[0, min(low, n - 1)]
        assert imresize(line, 1, m)[0, i - 1] == pytest.approx(expected, rel=1e-7)
        assert imresize(line.T.copy(), m, 1)[i - 1, 0] == pytest.approx(expected, rel=1e-7)


def test_a_large_imresize_in_blocks_is_the_same_as_its_parts():
    picture = noise(40, 30)
    large = imresize(picture, 1500, 700)
    alone = imresize(picture.transpose(1, 0, 2).copy(), 700, 1500).transpose(1, 0, 2)
    # Transposed the blocks lie otherwise; only exact halves may fall to the other side.
    assert np.abs(large.astype(int) - alone).max() <= 1
    assert np.mean(large != alone) < 1e-3


# -- grey --------------------------------------------------------------------------------------------------


def colours():
    """A million random colours and every edge of the cube."""
    edge = np.stack(np.meshgrid([0, 1, 127, 128, 254, 255], range(256), [0, 1, 127, 128, 254, 255]), -1)
    edges = np.concatenate([edge.reshape(-1, 3)[:, order] for order in ([0, 1, 2], [1, 0, 2], [0, 2, 1])])
    some = np.random.default_rng(1).integers(0, 256, (1_000_000, 3))
    return np.concatenate([edges, some]).astype(np.uint8)[None]


def test_grey_is_each_librarys_own():
    picture = colours()
    red, green, blue = np.moveaxis(picture.astype(np.int64), -1, 0)
    thousandths = (299 * red + 587 * green + 114 * blue).astype(np.float32)
    julia = np.rint(np.float32(0.001) * thousandths)
    np.testing.assert_array_equal(grey_julia(picture), julia)
    pillow = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    np.testing.assert_array_equal(grey_pillow(picture), pillow)
    opencv = (9798 * red + 19235 * green + 3735 * blue + 0x4000) >> 15
    np.testing.assert_array_equal(grey_opencv(picture), opencv)
    np.testing.assert_array_equal(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), opencv)


def test_the_three_greys_differ_by_at_most_one_level_and_seldom():
    picture = colours()
    greys = [grey(picture).astype(int) for grey in (grey_julia, grey_pillow, grey_opencv)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        difference = np.abs(greys[i] - greys[j])
        assert difference.max() == 1
        assert 0 < difference.mean() < 0.003


def test_grey_after_scale_is_not_rounded():
    picture = noise(9, 11)
    ours = Preprocessing((Scale(), Grey("float"))).apply(picture)[0]
    exact = picture @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(ours, exact, atol=1e-7)
    assert grey_float(np.ones((1, 1, 3), np.float32))[0, 0] == 1


@pytest.mark.parametrize("weights", ["julia", "pillow", "opencv", "float"])
def test_a_grey_picture_stays_as_it_is(weights):
    picture = noise(7, 5, 1)
    np.testing.assert_array_equal(Preprocessing((Grey(weights),)).apply(picture)[0], picture)


# -- Pillow, OpenCV, nearest -------------------------------------------------------------------------------

SHAPES = [(37, 53, 32, 24), (5, 9, 40, 31), (1, 1, 6, 7), (64, 3, 10, 10)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PILLOW)
def test_pillow_kernels_are_pillows_bytes(name, channels, shape):
    h, w, height, width = shape
    picture = noise(h, w, channels)
    expected = np.asarray(Image.fromarray(picture).resize((width, height), PILLOW[name])).reshape(
        height, width, -1
    )
    ours = Preprocessing((Resize(height, width, f"pillow-{name}"),)).apply(picture)
    np.testing.assert_array_equal(ours, expected.transpose(2, 0, 1))
    plane = picture.reshape(h, w, -1)[..., -1].astype(np.float32)
    expected = np.asarray(Image.fromarray(plane).resize((width, height), PILLOW[name]))
    ours = Preprocessing((Resize(height, width, f"pillow-{name}", round=False),)).apply(picture)
    np.testing.assert_array_equal(ours[-1], expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPENCV)
def test_opencv_kernels_are_opencvs_values(name, channels, shape):
    h, w, height, width = shape
    picture = noise(h, w, channels)
    for steps, source in (
        ((Resize(height, width, f"opencv-{name}"),), picture),
        ((Resize(height, width, f"opencv-{name}", round=False),), picture.astype(np.float32)),
        (
            (Scale(), Resize(height, width, f"opencv-{name}", round=False)),
            picture.astype(np.float32) / np.float32(255),
        ),
    ):
        expected = cv2.resize(source, (width, height), interpolation=OPENCV[name]).reshape(height, width, -1)
        np.testing.assert_array_equal(Preprocessing(steps).apply(picture), expected.transpose(2, 0, 1))


def test_nearest_takes_the_pixel_under_the_centre():
    np.testing.assert_array_equal(nearest(np.arange(6)[None], 1, 3), [[1, 3, 5]])
    np.testing.assert_array_equal(nearest(np.arange(3)[None], 1, 7), [[0, 0, 1, 1, 1, 2, 2]])
    picture = noise(31, 17)
    expected = np.asarray(Image.fromarray(picture).resize((8, 64), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(nearest(picture, 64, 8), expected)


# -- crop and pad ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 50, 20, 20), (50, 30, 20, 20), (20, 20, 9, 9), (33, 47, 10, 24)])
def test_crop_keeps_the_centre_as_torchvision_does(shape):
    h, w, height, width = shape
    picture = noise(h, w)
    scale = max(height / h, width / w)
    scaled = (max(height, int(h * scale + 1e-9)), max(width, int(w * scale + 1e-9)))
    whole = np.asarray(Image.fromarray(picture).resize(scaled[::-1], PILLOW["bilinear"]))
    top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
    ours = Preprocessing((Resize(height, width, "pillow-bilinear", "crop"),)).apply(picture)
    np.testing.assert_array_equal(ours, whole[top : top + height, left : left + width].transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(30, 50, 20, 20), (50, 30, 20, 20), (20, 20, 9, 9), (33, 47, 10, 24)])
def test_pad_is_pillows_pad(shape):
    h, w, height, width = shape
    picture = noise(h, w)
    expected = ImageOps.pad(Image.fromarray(picture), (width, height), PILLOW["bilinear"], color=(9, 9, 9))
    ours = Preprocessing((Resize(height, width, "pillow-bilinear", "pad", fill=9),)).apply(picture)
    np.testing.assert_array_equal(ours, np.asarray(expected).transpose(2, 0, 1))


def test_a_thin_picture_does_not_vanish_in_its_padding():
    ours = Preprocessing((Resize(8, 8, "imresize", "pad", fill=9),)).apply(np.full((1, 64), 200, np.uint8))[0]
    np.testing.assert_array_equal(np.count_nonzero(ours == 200, axis=0), [1] * 8)


def test_padding_after_scale_is_in_the_same_scale():
    picture = np.full((10, 20), 255, np.uint8)
    ours = Preprocessing((Scale(), Resize(20, 20, "imresize", "pad", round=False, fill=51))).apply(picture)
    assert set(np.unique(ours)) == {np.float32(0.2), np.float32(1)}


# -- scale, mean and std, order, channels -------------------------------------------------------------------


def test_scale_is_float32_division_by_255():
    levels = np.arange(256, dtype=np.uint8)[None]
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    np.testing.assert_array_equal(Preprocessing((Scale(),)).apply(levels)[0, 0], expected)


def test_normalise_subtracts_and_divides_channel_by_channel():
    picture = noise(4, 6)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = Preprocessing((Scale(), Normalise(mean, std))).apply(picture)
    plain = picture.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    for channel in range(3):
        expected = (plain[channel] - np.float32(mean[channel])) / np.float32(std[channel])
        np.testing.assert_array_equal(ours[channel], expected)
    half = named("grey-224-normalised").apply(picture)
    assert -1 <= half.min() < half.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_spatial_order_transposes(channels):
    picture = noise(5, 8, channels)
    plain = Preprocessing((Scale(),)).apply(picture)
    turned = Preprocessing((Scale(), SpatialOrder("wh"))).apply(picture)
    np.testing.assert_array_equal(turned, plain.transpose(0, 2, 1))
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(Preprocessing((Scale(), SpatialOrder("hw"))).apply(picture), plain)


def test_colour_repeats_grey_and_keeps_colour():
    grey, colour = noise(3, 4, 1), noise(3, 4)
    recipe = Preprocessing((Colour(),))
    np.testing.assert_array_equal(recipe.apply(grey), np.stack([grey] * 3))
    np.testing.assert_array_equal(recipe.apply(colour), colour.transpose(2, 0, 1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_to_the_same_size_changes_nothing_and_copies(kernel, channels):
    picture = noise(12, 9, channels)
    before = picture.copy()
    result = KERNELS[kernel](picture, 12, 9)
    np.testing.assert_array_equal(result, picture)
    assert not np.shares_memory(result, picture)
    ours = Preprocessing((Resize(12, 9, kernel),)).apply(picture)
    assert not np.shares_memory(ours, picture)
    np.testing.assert_array_equal(picture, before)


@given(
    height=st.integers(1, 64),
    width=st.integers(1, 64),
    channels=st.sampled_from([1, 3]),
    kernel=st.sampled_from(list(KERNELS)),
    fit=st.sampled_from(FITS),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@settings(max_examples=150, deadline=None)
def test_any_picture_comes_out_whole(height, width, channels, kernel, fit, target):
    picture = noise(height, width, channels, seed=height * 64 + width)
    recipe = Preprocessing((Resize(*target, kernel, fit), Scale()))
    result = recipe.apply(picture)
    assert result.shape == (channels, *target)
    assert recipe.size == target
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.min() >= 0
    assert result.max() <= 1
    np.testing.assert_array_equal(result, recipe.apply(picture))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_named_recipes_do_what_they_say(name, channels):
    recipe = named(name)
    result = recipe.apply(noise(40, 61, channels))
    assert result.shape == (recipe.channels, *recipe.size)
    assert recipe.name == name
    assert str(recipe.size[0]) in name
    assert len(recipe.describe()) == len(recipe.steps)
    np.testing.assert_array_equal(result[None], recipe.apply_batch([noise(40, 61, channels)]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "recipe",
    [
        *map(named, NAMES),
        Preprocessing(()),
        Preprocessing((Grey("pillow"), Resize(9, 8, "pillow-lanczos"), Colour(), Scale())),
        Preprocessing((Resize(9, 8, "pillow-bicubic"), Grey("pillow"), Resize(5, 5, "pillow-bilinear"))),
        Preprocessing((Resize(9, 8, "pillow-bicubic", round=False), Scale())),
        Preprocessing((Resize(9, 8, "pillow-bicubic", "pad", fill=3), Scale())),
        Preprocessing((Resize(9, 8, "pillow-bicubic", "cover"), CentreCrop(8, 7), Scale())),
        Preprocessing((Resize(9, 8, "pillow-bilinear", "contain"), CentreCrop(12, 7, (5,)))),
    ],
)
def test_a_pillow_picture_gives_the_same_as_its_array(recipe, channels):
    picture = noise(23, 31, channels)
    np.testing.assert_array_equal(recipe.apply(Image.fromarray(picture)), recipe.apply(picture))


def test_pictures_in_other_memory_layouts_give_the_same():
    picture = noise(20, 30)
    for view in (picture[::-1, ::-2], picture.transpose(1, 0, 2), np.asfortranarray(picture)):
        for name in NAMES:
            np.testing.assert_array_equal(named(name).apply(view), named(name).apply(view.copy("C")))


# -- back to a picture --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "steps",
    [
        (),
        (Scale(),),
        (Scale(), SpatialOrder("wh")),
        (Scale(), Normalise((0.5,), (0.5,))),
        (Scale(), Normalise((0.2,), (0.01,)), SpatialOrder("wh")),
    ],
)
def test_display_gives_the_picture_back(steps, channels):
    picture = noise(6, 11, channels)
    recipe = Preprocessing(steps)
    shown = recipe.display(recipe.apply(picture))
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, picture)


def test_display_undoes_a_mean_for_each_channel_and_clips():
    picture = noise(6, 11)
    recipe = Preprocessing((Scale(), Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))))
    np.testing.assert_array_equal(recipe.display(recipe.apply(picture)), picture)
    odd = np.array([[[np.nan, np.inf, -np.inf, 0.5]]], np.float32)
    np.testing.assert_array_equal(Preprocessing((Scale(),)).display(odd), [[0, 255, 0, 128]])
