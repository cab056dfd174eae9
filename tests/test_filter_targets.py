"""A filter by name, from a function or from pairs; what is said of it is true; the impossible is refused."""

from __future__ import annotations

import io
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from diptych.datasets.photographs import photograph
from diptych.errors import ImageError, UsageError
from diptych.filters.target import Target
from diptych.filters.targets import FILTERS, NAMES, resolve
from diptych.filters.targets.named import widened
from diptych.filters.targets.pairs import Pairs
from diptych.filters.targets.probing import detect_padding_mode, probe

HEAVY = (
    *("bilateral", "tv", "nlm", "edge_preserving", "detail_enhance"),
    *("stylise", "pencil", "clahe", "local_tone", "l0"),
)
UNLEARNABLE = ("auto_levels", "equalise", "noise")
LOCAL = [
    *(name for name, named in FILTERS.items() if named.radius is not None),
    *(
        "sobel:ksize=5",
        "sobel:ksize=7",
        "sobel_x:ksize=5",
        "gaussian:sigma=2.4",
        "median:size=5",
        "box:size=9",
    ),
    *(
        "erosion:size=5,shape=cross",
        "opening:size=5,shape=cross",
        "motion:size=7,angle=45",
        "random:seed=3,size=7",
    ),
    *("gaussian:edge=wrap", "median:edge=reflect", "sobel:edge=zero", "top_hat:size=5,edge=wrap"),
]


def picture(height: int = 40, width: int = 37, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def levels(target: Target, image: np.ndarray) -> np.ndarray:
    return target(image) * 255


# By name


def test_there_are_enough_filters_and_each_says_what_it_does_and_where_it_comes_from():
    assert len(NAMES) >= 36
    assert set(HEAVY) | set(UNLEARNABLE) <= set(NAMES)
    for name, summary in NAMES.items():
        reference = resolve(name).reference
        assert summary
        assert "\n" not in summary
        assert reference
        assert "{" not in reference


@pytest.mark.parametrize("name", LOCAL)
def test_shape_radius_edge_and_channels_are_as_stated(name):
    target = resolve(name)
    image = picture()
    result = target(image)
    assert result.dtype == np.float32
    assert result.shape == (image.shape if target.channels[1] == 3 else image.shape[:2])
    assert 0 <= result.min() <= result.max() <= 1
    np.testing.assert_array_equal(result, target(image))
    _only_within_radius(target, image)
    if target.radius:
        extended = widened(target, target.radius + 2, target.edge)(image)
        np.testing.assert_allclose(extended, result, atol=1e-6)
    if target.rounded:
        assert np.abs(result * 255 - np.rint(result * 255)).max() < 1e-4


def _only_within_radius(target: Target, image: np.ndarray) -> None:
    row, column, radius = 19, 18, target.radius
    assert radius is not None
    before, felt = levels(target, image), 0
    for value in (0, 255):
        changed = image.copy()
        changed[row, column] = value
        difference = np.abs(levels(target, changed) - before)
        rows, columns = np.nonzero(difference.reshape(*image.shape[:2], -1).max(axis=2) > 1e-4)
        felt = max(felt, np.abs(rows - row).max(initial=0), np.abs(columns - column).max(initial=0))
    assert felt <= radius


@pytest.mark.parametrize(
    "name",
    ["sobel", "sobel:ksize=7", "gaussian", "box:size=5", "unsharp:sigma=2", "erosion", "emboss", "motion"],
)
def test_the_radius_is_no_larger_than_it_must_be(name):
    target = resolve(name)
    found = probe(_as_function(target), [photograph("astronaut")])
    assert found.radius == target.radius
    assert found.target.edge == target.edge
    assert found.target.per_channel == target.per_channel


def _as_function(target: Target) -> Target:
    return resolve(target.__call__)


@pytest.mark.parametrize(
    "name", [n for n in FILTERS if FILTERS[n].channels == (3, 3) and n not in UNLEARNABLE]
)
def test_channels_are_alike_and_apart_exactly_where_so_stated(name):
    target = resolve(name)
    image = photograph("chelsea")[100:148, 150:213].copy()
    image[..., 2] = np.random.default_rng(1).permutation(image[..., 2])
    asked = levels(target, image)
    order = [2, 0, 1]
    permuted = (
        np.abs(levels(target, np.ascontiguousarray(image[..., order])) - asked[..., order]).max() < 1e-3
    )
    other = image.copy()
    other[..., 0] = image[::-1, ::-1, 0]
    apart = np.abs(levels(target, other) - asked)[..., 1:].max() < 1e-3
    assert target.per_channel == bool(permuted and apart)
    if target.per_channel:
        np.testing.assert_allclose(levels(target, image[..., 1]), asked[..., 1], atol=1e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNLEARNABLE])
def test_any_size_from_one_pixel(name):
    photographic = name in ("pencil", "stylise", "detail_enhance", "edge_preserving")
    sizes = [(5, 7)] if photographic else [(1, 1), (1, 9), (5, 2)]
    for height, width in sizes:
        result = resolve(name)(picture(height, width))
        assert result.shape[:2] == (height, width)
        assert np.isfinite(result).all()


def test_sobel_is_scikit_images_magnitude_of_rec601_luma():
    from skimage import filters

    image = photograph("coffee")
    expected = filters.sobel((image / 255) @ [0.299, 0.587, 0.114])
    np.testing.assert_allclose(resolve("sobel")(image), expected, atol=2e-7)


def test_references_that_others_compute():
    import cv2
    from skimage import exposure, filters

    image = photograph("coffee")[:80, :90]
    grey = (image / 255) @ [0.299, 0.587, 0.114]
    expected = {
        "dog": 0.5 + 2 * filters.difference_of_gaussians(grey, 1, 1.6, mode="nearest", truncate=3),
        "sobel_l1": np.clip(np.abs(filters.sobel_h(grey)) + np.abs(filters.sobel_v(grey)), 0, 1),
        "sobel_x": 0.5 + filters.sobel_v(grey) / 2,
        "sobel_y": 0.5 + filters.sobel_h(grey) / 2,
        "gamma": exposure.adjust_gamma(image / 255, 0.5),
        "s_curve": exposure.adjust_sigmoid(image / 255, 0.5, 8),
        "solarise": np.asarray(ImageOps.solarize(Image.fromarray(image), 128)) / 255,
        "threshold": cv2.threshold(image, 127, 255, cv2.THRESH_BINARY)[1] / 255,
        "grey": cv2.cvtColor((image / 255).astype(np.float32), cv2.COLOR_RGB2GRAY),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(resolve(name)(image), values, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("size", [(80, 90), (3, 2), (1, 1)])
def test_references_of_scipy_are_met_at_every_border(size):
    """They are computed by OpenCV, which is loaded in a tenth of the time."""
    from scipy import ndimage

    image = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    colour, grey = image.astype(float), image @ [0.299, 0.587, 0.114]
    near = {"mode": "nearest"}
    cross = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], float)[..., None]
    expected = {
        "box:size=15": ndimage.uniform_filter(colour, 15, axes=(0, 1), **near),
        "gaussian:sigma=2.3": ndimage.gaussian_filter(colour, 2.3, truncate=3, axes=(0, 1), **near),
        "laplacian": 127.5 + ndimage.laplace(grey, **near) / 2,
        "sharpen": ndimage.correlate(colour, cross, **near),
        "motion:size=15,angle=45": ndimage.correlate(colour, np.eye(15)[::-1, :, None] / 15, **near),
    }
    for name, levels in expected.items():
        given = resolve(name).function(image)
        np.testing.assert_allclose(given, levels, atol=1e-10, err_msg=name)


def test_random_kernels_follow_their_seed():
    image = picture()
    three = resolve("random:seed=3")(image)
    np.testing.assert_array_equal(three, resolve("random:seed=3")(image))
    assert np.abs(three - resolve("random:seed=4")(image)).max() > 0.01


def test_l0_flattens_and_keeps_steps():
    image = np.full((32, 32, 3), 60, np.uint8)
    image[:, 16:] = 200
    rough = np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    result = levels(resolve("l0"), rough)
    assert result[:, 2:14].std() < 1.5
    assert result[:, 18:30].mean() - result[:, 2:14].mean() > 120


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gausian", "did you mean 'gaussian'"),
        ("gausian", "`diptych filter list`"),
        ("zzz", "no filter is called 'zzz'; `diptych filter list` shows all names"),
        ("gaussian:sgma=2", "did you mean 'sigma'"),
        ("gaussian:sigma=big", "must be a number from 0.3 to 20, not 'big'"),
        ("gaussian:sigma=nan", "must be a number from 0.3 to 20"),
        ("sobel:ksize=4", "an odd number from 3 to 7"),
        ("sobel:5", "must be written as sobel:name=value"),
        ("invert:a=1", "takes no parameters"),
        ("erosion:shape=star", "one of box, cross"),
        ("sobel:edge=round", "one of zero, reflect, symmetric, replicate, wrap"),
        ("no_such_module_anywhere:f", "no module 'no_such_module_anywhere'"),
        ("math:no_such", "has no function 'no_such'"),
        ("math:floot", "has no function 'floot'; did you mean 'floor'?"),
        ("math:pi", "is float, not a function"),
        ("my/filters.py:blur", "filters:blur"),
    ],
)
def test_a_name_that_means_nothing_is_one_sentence(text, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        resolve(text)


def test_names_are_forgiving_about_case_and_dashes():
    assert resolve("Top-Hat: size=5").name == "top_hat:size=5"


# By function


def test_a_module_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_own_filters.py").write_text("def negative(image):\n    return 255 - image\n")
    (tmp_path / "my_broken_filters.py").write_text("1 / 0\n")
    (tmp_path / "my_needy_filters.py").write_text("import no_such_package_at_all\n")
    monkeypatch.chdir(tmp_path)
    target = resolve("my_own_filters:negative")
    assert (target.channels, target.rounded, target.name) == ((3, 3), True, "my_own_filters:negative")
    np.testing.assert_allclose(levels(target, picture()), 255 - picture(), atol=1e-4)
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        resolve("my_broken_filters:f")
    with pytest.raises(UsageError, match="needs 'no_such_package_at_all'"):
        resolve("my_needy_filters:f")


def test_what_a_function_prints_is_not_the_answer_of_the_program(capsys):
    def chatty(image):
        print("at work")
        return 255 - image

    assert resolve(chatty)(picture()).shape == picture().shape
    shown = capsys.readouterr()
    assert (shown.out, "at work" in shown.err) == ("", True)


def _mutates(image):
    image[:] = 0
    return image


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (
            lambda x: 1 / 0,
            "raised ZeroDivisionError on a uint8 picture of shape (61, 83, 3): division by zero",
        ),
        (lambda x: x[::2, ::2], "returned shape (31, 42, 3)"),
        (lambda x: x.transpose(2, 0, 1), "returned shape (3, 61, 83)"),
        (lambda x: np.dstack([x, x[..., :1]]), "returned shape (61, 83, 4)"),
        (lambda x: sys.exit(3), "raised SystemExit on a uint8 picture of shape (61, 83, 3): 3"),
        (lambda x: np.zeros(x.shape) / 0.0, "NaN or infinite"),
        (lambda x: None, "NoneType instead of an array"),
        (lambda x: np.full(x.shape, np.nan), "NaN or infinite"),
        (lambda x: x.astype(float), "floats from 0 to 255; floats must be from 0 to 1 (divide by 255)"),
        (lambda x: x / 255 - 0.5, "numpy.clip"),
        (lambda x: x > 9, "not bool; return 255 * mask"),
        (lambda x: x.astype(int), "not int64"),
        (_mutates, "image.copy()"),
    ],
)
def test_a_function_that_keeps_to_no_contract_is_refused(function, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        resolve(function)


def test_a_function_of_grey_pictures():
    def blur(image):
        height, width = image.shape
        return image.reshape(height, width) / 255

    target = resolve(blur)
    assert target.channels == (1, 1)
    found = probe(target, [photograph("camera")])
    assert "grey pictures only" in found.remarks[0]


def _vignette(image):
    rows, columns = (np.linspace(-1, 1, side) for side in image.shape[:2])
    return (image * (1 - 0.3 * np.hypot(rows[:, None], columns))[..., None]).astype(np.uint8)


@pytest.mark.parametrize("mode", ["reflect", "mirror"])
def test_scipys_reflect_is_told_from_the_edge_of_that_name(mode):
    from scipy import ndimage

    kernel = np.random.default_rng(0).random((7, 7))
    found = probe(
        resolve(lambda image: _by_channel(ndimage.correlate, image / 255, kernel / kernel.sum(), mode))
    )
    assert not any("the edge is none of" in remark for remark in found.remarks)
    assert found.target.edge == ("symmetric" if mode == "reflect" else "reflect")


def test_an_edge_of_another_kind_is_told():
    ramp = resolve(lambda image: np.pad(image, ((4, 4), (4, 4), (0, 0)), "linear_ramp")[8:, 8:])
    said = "the edge is none of replicate, reflect, symmetric, zero, wrap"
    assert any(said in remark for remark in probe(ramp).remarks)


def _by_channel(function, image, kernel, mode):
    return np.dstack([function(image[..., channel], kernel, mode=mode) for channel in range(image.shape[2])])


def _overlay(image):
    return np.clip(image * 0.9 / 255 + np.linspace(0, 0.1, image.shape[1])[None, :, None], 0, 1)


def _tilt_shift(image):
    from scipy import ndimage

    weight = np.linspace(0, 1, image.shape[0])[:, None, None]
    return (weight * image + (1 - weight) * ndimage.uniform_filter(image, (5, 5, 1))) / 255


def _grey_world(image):
    means = image.reshape(-1, 3).mean(axis=0)
    return np.clip(image * (means.mean() / np.maximum(means, 1)) * 128 / max(means.mean(), 1), 0, 255).astype(
        np.uint8
    )


def _dither(image):
    return np.where(
        image
        > np.tile(np.arange(0, 256, 16).reshape(4, 4), (99, 99))[: image.shape[0], : image.shape[1], None],
        255,
        0,
    ).astype(np.uint8)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("auto_levels", "the whole picture"),
        ("equalise", "the whole picture"),
        ("noise", "random"),
        (_grey_world, "the whole picture"),
        (_vignette, "the place in the picture"),
        (_overlay, "the place in the picture"),
        (_tilt_shift, "the place in the picture"),
        (_dither, "the place in the picture"),
    ],
)
def test_what_no_local_network_can_do_is_refused(target, reason):
    with pytest.raises(UsageError, match=reason):
        probe(resolve(target), [photograph("astronaut")])


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_the_heavy_filters_are_not_refused(name):
    found = probe(resolve(name), [photograph("astronaut")])
    assert found.target.name == name
    assert found.far < 4
    if name == "clahe":
        return  # its tiles follow the size of the picture: a larger one has others
    image = photograph("coffee")[:64, :64]
    stated, (best, error) = resolve(name).edge, detect_padding_mode(resolve(name), image, 24)
    asked = resolve(name)(image)
    off = 255 * np.abs(widened(resolve(name), 24, stated)(image) - asked).mean()
    assert stated == best or off < error + 0.5


@pytest.mark.parametrize("mode", ["zero", "reflect", "symmetric", "replicate", "wrap"])
def test_the_border_of_a_function_is_found_out(mode):
    blur = widened(resolve("box:size=5"), 2, mode)
    assert detect_padding_mode(resolve(blur), photograph("coffee")[:64, :64], 2)[0] == mode


# By pairs


def eight_bit(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return [photograph("astronaut")[:192, :160], photograph("coffee")[:192, :160]]


def test_pairs_in_folders_files_and_arrays(tmp_path, photographs):
    sobel = resolve("sobel")
    for side in ("before/deep", "after/deep"):
        (tmp_path / side).mkdir(parents=True)
    for index, image in enumerate(photographs):
        Image.fromarray(image).save(tmp_path / f"before/deep/{index}.png")
        Image.fromarray(eight_bit(sobel(image))).save(tmp_path / f"after/deep/{index}.tif")
    target = resolve((tmp_path / "before", tmp_path / "after"))
    assert isinstance(target, Pairs)
    assert target.channels == (3, 1)
    assert list(target.before) == ["deep/0", "deep/1"]
    np.testing.assert_allclose(target(photographs[1]), eight_bit(sobel(photographs[1])) / 255, atol=1e-6)
    assert probe(target).remarks == ()
    one = resolve((str(tmp_path / "before/deep/0.png"), str(tmp_path / "after/deep/1.tif")))
    assert [part.shape[:2] for part in one.before.values()] == [(152, 160), (40, 160)]
    assert len(resolve([(photographs[0], photographs[1]), (photographs[1], photographs[1])]).before) == 2
    with pytest.raises(UsageError, match="whole pictures of these pairs"):
        target(photographs[0][:9])


def test_pairs_that_are_none(tmp_path, photographs):
    image = photographs[0]
    for side, names in (("a", ("1", "2")), ("b", ("1", "3")), ("c", ("1",))):
        (tmp_path / side).mkdir()
        for name in names:
            Image.fromarray(image).save(tmp_path / side / f"{name}.png")
    Image.fromarray(image).save(tmp_path / "c/1.bmp")
    with pytest.raises(UsageError, match="no partner of the same name after the filter: 2"):
        resolve((tmp_path / "a", tmp_path / "b"))
    with pytest.raises(UsageError, match="have the same name"):
        resolve((tmp_path / "a", tmp_path / "c"))
    with pytest.raises(UsageError, match="160 x 192 pixels before and 160 x 100 after"):
        resolve(([image], [image[:100]]))
    with pytest.raises(UsageError, match="1 pictures before the filter and 2 after"):
        resolve(([image], [image, image]))
    with pytest.raises(ImageError, match="must be uint8"):
        resolve(([image / 255], [image]))
    with pytest.raises(ImageError, match="there is no picture"):
        resolve((tmp_path / "nothing", tmp_path / "a"))
    with pytest.raises(UsageError, match="not int"):
        resolve(7)


@given(down=st.integers(-9, 9), across=st.integers(-9, 9))
@settings(max_examples=12, deadline=None)
def test_misaligned_pairs_are_refused_with_the_shift(down, across):
    image = photograph("coffee")[:200, :200]
    blurred = eight_bit(resolve("gaussian")(image))
    moved = np.roll(blurred, (down, across), (0, 1))
    target = resolve(([image], [moved]))
    if max(abs(down), abs(across)) < 2:
        assert not any("1 pixels" in remark for remark in probe(target).remarks)
        return
    with pytest.raises(UsageError, match="misaligned") as refused:
        probe(target)
    for pixels, name in ((down, "down" if down > 0 else "up"), (across, "right" if across > 0 else "left")):
        many = "pixel" if abs(pixels) == 1 else "pixels"
        assert not pixels or re.search(rf"{abs(pixels)} {many} (to the )?{name}", str(refused.value))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gaussian:sigma=2,sigma=3", "has the parameter sigma twice in 'sigma=2,sigma=3'; give it once"),
        (
            "gaussian:",
            "parameters of the filter 'gaussian' must be written as gaussian:name=value,name=value, not ''",
        ),
        ("random:seed=-1", "from 0 to 2147483647, not '-1'"),
    ],
)
def test_parameters_are_given_once_or_not_at_all(name, message):
    with pytest.raises(UsageError, match=message):
        resolve(name)


class Inverting:
    def __call__(self, image):
        return 255 - image

    def by(self, level, image):
        return level - image


def test_what_can_be_called_is_called_by_its_name():
    assert resolve(Inverting()).name == "the object of class Inverting"
    assert resolve(partial(Inverting().by, 255)).name == "the function Inverting.by"


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "jpeg", quality=quality)
    return np.asarray(Image.open(stream))


def test_compression_noise_and_pairs_that_have_nothing_in_common(tmp_path, photographs):
    generator = np.random.default_rng(0)
    noisy = [np.clip(p + generator.normal(0, 12, p.shape), 0, 255).astype(np.uint8) for p in photographs]
    assert "contain noise of about" in probe(resolve((photographs, noisy))).remarks[0]
    assert "lossy" in probe(resolve((photographs, [_jpeg(p, 35) for p in photographs]))).remarks[0]
    with pytest.raises(UsageError, match="compressed so strongly"):
        probe(resolve((photographs, [_jpeg(p, 6) for p in photographs])))
    with pytest.raises(UsageError, match="unrelated to those before it"):
        probe(
            resolve((photographs, [generator.integers(0, 256, p.shape, dtype=np.uint8) for p in photographs]))
        )
    Image.fromarray(photographs[0]).save(tmp_path / "x.png")
    Image.fromarray(photographs[0]).save(tmp_path / "x.jpg", quality=95)
    assert "lossy" in probe(resolve((tmp_path / "x.png", Path(tmp_path / "x.jpg")))).remarks[0]


@pytest.mark.parametrize(
    "name", ["sobel", "sobel_x", "median:size=5", "threshold", "erosion:size=7", "local_tone"]
)
def test_honest_pairs_get_no_remark(name, photographs):
    target = resolve(name)
    assert probe(resolve((photographs, [eight_bit(target(p)) for p in photographs]))).remarks == ()
