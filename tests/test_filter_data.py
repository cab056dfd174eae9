"""The pictures that filters are learned from, and those kept apart for evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diptych.datasets import folders, synthetic
from diptych.errors import ImageError, UsageError
from diptych.filters import evaluate
from diptych.filters.data import HELD_OUT, Data, gather
from diptych.filters.targets import resolve
from diptych.model import layers as L
from diptych.model.model import Model
from tiny_imagenet_files import content, pack


def digest(picture: np.ndarray) -> bytes:
    return picture.tobytes()


@pytest.fixture(scope="module")
def colour() -> Data:
    return gather(channels=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bundled_photographs(channels, colour):
    data = gather(channels=channels)
    assert tuple(data.held_out) == HELD_OUT
    for picture in (*data.train, *data.held_out.values()):
        assert picture.dtype == np.uint8
        assert picture.ndim == 2 if channels == 1 else picture.shape[2] == 3
    assert not {digest(p) for p in data.train} & {digest(p) for p in data.held_out.values()}
    if channels == 3:
        assert [digest(p) for p in colour.train] == [digest(p) for p in data.train]
        assert any(p.min() == 0 and p.max() == 255 for p in data.train[-8:])


def test_the_pictures_before_of_pairs_keep_their_names_and_the_smaller_of_two_is_held_out():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (30, 20, 3), dtype=np.uint8)
    pairs = resolve((image, 255 - image))
    for seed in range(4):
        data = gather(pairs.before, channels=pairs.channels[0], seed=seed)
        assert list(data.held_out) == ["picture 0 (rest)"]
        np.testing.assert_allclose(pairs(data.train[0]) * 255, 255 - data.train[0], atol=1e-4)


@given(count=st.integers(2, 12), seed=st.integers(0, 2**32 - 1), channels=st.sampled_from([1, 3]))
@settings(deadline=None)
def test_a_fifth_of_the_pictures_given_is_held_out(count, seed, channels):
    pictures = [np.full((2, 3, 3) if index % 2 else (2, 3), index, np.uint8) for index in range(count)]
    data = gather(pictures, channels=channels, seed=seed)
    assert len(data.held_out) == max(1, round(count / 5))
    seen = sorted(int(p.flat[0]) for p in (*data.train, *data.held_out.values()))
    assert seen == list(range(count))
    assert all(name == f"picture {picture.flat[0]}" for name, picture in data.held_out.items())
    for picture in (*data.train, *data.held_out.values()):
        assert picture.shape == ((2, 3) if channels == 1 else (2, 3, 3))


def test_a_folder_and_folders_inside_it(tmp_path):
    for name in ("a/picture10.png", "a/picture2.JPG", "b.png", ".hidden/x.png", "a/.y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    found = [path.relative_to(tmp_path).as_posix() for path in folders.nested(tmp_path, (".png", ".jpg"))]
    assert found == ["b.png", "a/picture2.JPG", "a/picture10.png"]
    data = gather(tmp_path, channels=1)
    assert (len(data.train), len(data.held_out)) == (2, 1)
    assert data.train[0].shape == (8, 8)
    assert len(gather([tmp_path / "b.png", str(tmp_path / "a/picture2.JPG")], channels=3).train) == 1


def test_pictures_of_the_same_name_are_all_kept(tmp_path):
    for index in range(10):
        (tmp_path / str(index)).mkdir()
        Image.new("L", (4, 4), index).save(tmp_path / str(index) / "x.png")
    assert list(gather(tmp_path, channels=1).held_out) == ["x", "x (2)"]


def test_tiny_imagenet(tmp_path):
    data = gather(pack(tmp_path / "tiny.zip", content()), channels=3)
    assert len(data.train) + len(data.held_out) == 12
    assert all(picture.shape == (64, 64, 3) for picture in data.train)


def test_too_few_or_none_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="at least two pictures"):
        gather([np.zeros((4, 4), np.uint8)], channels=1)
    with pytest.raises(ImageError, match="holds no pictures"):
        gather(tmp_path, channels=3)
    with pytest.raises(ImageError, match="there is no picture"):
        gather(tmp_path / "nothing", channels=3)
    with pytest.raises(ImageError, match="picture 1 must be uint8"):
        gather([np.zeros((4, 4), np.uint8), np.zeros((4, 4))], channels=3)
    with pytest.raises(UsageError, match="not int"):
        gather(3, channels=3)


@given(size=st.integers(1, 70), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_made_pictures_are_the_same_for_a_seed(size, seed):
    first, second = synthetic.synthetic(5, size, seed), synthetic.synthetic(5, size, seed)
    for one, other in zip(first, second, strict=True):
        assert one.shape == (size, size, 3)
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)


def test_made_pictures_are_what_they_say():
    generator = np.random.default_rng(0)
    leaves = synthetic.dead_leaves(128, generator)
    flat = np.mean(np.all(leaves[:, 1:] == leaves[:, :-1], axis=2))
    assert flat > 0.6
    power = np.abs(np.fft.fft2(synthetic.pink_noise(256, generator)[..., 0] - 128.0)) ** 2
    low, high = power[4:8, 0].mean(), power[32:64, 0].mean()
    assert 20 < low / high < 200  # 1/f: 64 in theory
    extremes = synthetic.extremes(128, generator)
    assert np.mean((extremes == 0) | (extremes == 255)) > 0.5
    assert len(np.unique(synthetic.white_noise(128, generator))) == 256


def test_a_model_is_evaluated_on_the_whole_of_a_lone_pair():
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    model = Model(L.Chain((L.Conv(-np.eye(3, dtype=np.float32)[..., None, None], np.ones(3, np.float32)),)))
    evaluation = evaluate(model, (image, 255 - image), engine="numpy")
    assert [picture.name for picture in evaluation.pictures] == ["picture 0"]
    assert evaluation.whole.largest == 0


@pytest.mark.parametrize("shape", [(6, 8, 3), (6, 8)])
def test_one_array_is_one_picture(shape):
    with pytest.raises(UsageError, match=r"at least two pictures, .* got 1"):
        gather(np.zeros(shape, np.uint8), channels=3)


def test_a_truncated_zip_is_not_taken_for_a_picture(tmp_path):
    whole = pack(tmp_path / "made.zip", content()).read_bytes()
    (tmp_path / "broken.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"broken\.zip cannot be opened as an archive: it is truncated"):
        gather(tmp_path / "broken.zip", channels=3)
