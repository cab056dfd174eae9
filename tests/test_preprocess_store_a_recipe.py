"""A user stores a recipe with a model and reads it back; a stranger's document cannot do harm."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diptych.errors import ModelError, ShapeError, UsageError
from diptych.preprocessing import KERNELS, NAMES, Preprocessing, named
from diptych.preprocessing.steps import Colour, Grey, Normalise, Resize, Scale, SpatialOrder

numbers = st.floats(-10, 10, width=32)
positive = st.floats(0.0078125, 10, width=32)
fits = st.sampled_from(["stretch", "crop", "pad"])
sides = st.integers(1, 1024)


def resizes(rounded):
    return st.builds(
        Resize, sides, sides, st.sampled_from(list(KERNELS)), fits, st.just(rounded), st.integers(0, 255)
    )


def normalises():
    one = st.builds(Normalise, st.tuples(numbers), st.tuples(positive))
    three = st.builds(Normalise, st.tuples(*[numbers] * 3), st.tuples(*[positive] * 3))
    return st.one_of(one, three)


@st.composite
def recipes(draw):
    eight_bit = st.one_of(
        st.builds(Grey, st.sampled_from(["julia", "pillow", "opencv"])), st.builds(Colour), resizes(True)
    )
    floats = st.one_of(st.just(Grey("float")), st.builds(Colour), resizes(False))
    steps = draw(st.lists(eight_bit, max_size=4)) + draw(st.lists(floats, max_size=2))
    if draw(st.booleans()):
        steps += [Scale(), *draw(st.lists(floats, max_size=2))]
        if draw(st.booleans()):
            steps += [Colour(), draw(normalises())]
    steps += draw(st.lists(st.builds(SpatialOrder, st.sampled_from(["hw", "wh"])), max_size=1))
    return Preprocessing(tuple(steps), name=draw(st.sampled_from(["", "mine"])))


@pytest.mark.slow
@given(recipes())
@settings(max_examples=200, deadline=None)
def test_any_recipe_survives_json(recipe):
    back = Preprocessing.from_document(json.loads(json.dumps(recipe.to_document(), allow_nan=False)))
    assert back == recipe
    assert back.name == recipe.name
    assert hash(back) == hash(recipe)
    assert back.describe() == recipe.describe()
    assert (back.size, back.channels) == (recipe.size, recipe.channels)


def test_a_document_reads_plainly_and_may_leave_out_defaults():
    document = named("grey-224-normalised").to_document()
    assert document == {
        "version": 1,
        "name": "grey-224-normalised",
        "steps": [
            {"step": "grey", "weights": "pillow"},
            {
                "step": "resize",
                "height": 224,
                "width": 224,
                "kernel": "pillow-bilinear",
                "fit": "stretch",
                "round": True,
                "fill": 0,
            },
            {"step": "scale"},
            {"step": "normalise", "mean": [0.5], "std": [0.5]},
        ],
    }
    short = {"version": 1, "steps": [{"step": "resize", "height": 8, "width": 9}, {"step": "scale"}]}
    assert Preprocessing.from_document(short) == Preprocessing((Resize(8, 9), Scale()))


def test_recipes_are_equal_by_what_they_do():
    assert Preprocessing((Scale(),), name="a") == Preprocessing([Scale()], name="b")
    assert Preprocessing((Grey("julia"), Resize(8, 8))) != Preprocessing((Resize(8, 8), Grey("julia")))
    assert Normalise([0.5], [1]) == Normalise((0.5,), (1.0,))
    assert len({named(name) for name in NAMES}) == len(NAMES)


def steps(*items):
    return {"version": 1, "steps": list(items)}


SIZE = {"step": "resize", "height": 8, "width": 8}
DEEP = json.loads("[" * 500 + "]" * 500)
HOSTILE = [
    (None, "a recipe must be an object"),
    ([], "not list"),
    ("grey-224", "not str"),
    ({}, "lacks version, steps"),
    ({"version": 2, "steps": []}, "update Diptych"),
    ({"version": True, "steps": []}, "update Diptych"),
    ({"version": 1, "steps": {}}, "not dict"),
    ({"version": 1, "steps": [{"step": "scale"}] * 100_000}, "at most 32"),
    ({"version": 1, "steps": [], "name": 7}, "must be a string"),
    ({"version": 1, "steps": [], "name": "x" * 101}, "printable"),
    ({"version": 1, "steps": [], "name": "\x1b[2J"}, "printable"),
    ({"version": 1, "steps": [], "__class__": "os.system"}, "unknown setting '__class__'"),
    (steps(None), "step 1 of the recipe must be one of grey, colour"),
    (steps({"step": "eval"}), "must be one of grey"),
    (steps({"step": ["grey"]}), "must be one of grey"),
    (
        steps({"step": "grey", "weights": "luma"}),
        "step 1 of the recipe: Grey expects weights to be one of julia",
    ),
    (steps({"step": "grey", "weights": ["julia"]}), "but got a list of 1"),
    (steps({"step": "grey", "weights": "j" * 10_000}), "\\.\\.\\.'"),
    (steps({"step": "scale", "by": 255}), "scale, has the unknown setting"),
    (steps({"step": "resize", "height": 8}), "lacks width"),
    (steps(SIZE | {"height": 10**9}), "height to be a whole number from 1 to 16384, but got 1000000000"),
    (steps(SIZE | {"height": 10**5000}), "more than 18 digits"),
    (steps(SIZE | {"height": 16384, "width": 16384}), "at most 67108864 pixels"),
    (steps(SIZE | {"width": 0}), "from 1 to 16384, but got 0"),
    (steps(SIZE | {"width": -3}), "but got -3"),
    (steps(SIZE | {"width": 8.0}), "but got 8.0"),
    (steps(SIZE | {"width": True}), "but got True"),
    (steps(SIZE | {"width": "8"}), "but got '8'"),
    (steps(SIZE | {"width": None}), "but got None"),
    (steps(SIZE | {"kernel": "bilinear"}), "kernel to be one of imresize"),
    (steps(SIZE | {"fit": DEEP}), "fit to be one of stretch, crop, pad"),
    (steps(SIZE | {"round": 1}), "round to be true or false"),
    (steps(SIZE | {"fill": 256}), "fill to be a whole number from 0 to 255"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": [0.5]}), "step 2 .* lacks std"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": [math.nan], "std": [1]}), "finite"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": [0], "std": [math.inf]}), "finite"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": [0], "std": [0]}), "std to be at least 1e-06"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": [10**400], "std": [1]}), "finite"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": [0, 0], "std": [1, 1]}), "one or three"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": [0] * 10**6, "std": [1]}), "a list of 1000000"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": "0.5", "std": [1]}), "but got '0.5'"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": [[0]], "std": [1]}), "one or three"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": [0, 0, 0], "std": [1]}), "but got 3 and 1"),
    (steps({"step": "scale"}, {"step": "normalise", "mean": {"a": 1}, "std": [1]}), "a dict of 1"),
    (steps({"step": "spatial-order", "order": "chw"}), "order to be one of hw, wh"),
    (steps({"step": "scale"}, {"step": "scale"}), "divides by 255 twice"),
    (steps({"step": "normalise", "mean": [0], "std": [1]}), "no Scale comes before"),
]


@pytest.mark.parametrize(("document", "words"), HOSTILE, ids=[str(i) for i in range(len(HOSTILE))])
def test_a_document_that_is_not_a_recipe_is_refused_in_one_sentence(document, words):
    with pytest.raises(ModelError, match=words) as caught:
        Preprocessing.from_document(document)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
step_like = st.dictionaries(
    st.sampled_from(["height", "width", "kernel", "fit", "round", "fill", "weights", "mean", "std", "order"]),
    json_values,
    max_size=5,
)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.sampled_from(["grey", "resize", "scale", "normalise", "spatial-order"]), step_like),
        max_size=4,
    )
)
@settings(max_examples=200, deadline=None)
def test_documents_near_a_recipe_are_read_or_refused(items):
    try:
        recipe = Preprocessing.from_document(steps(*[{"step": name, **rest} for name, rest in items]))
    except ModelError:
        return
    assert Preprocessing.from_document(recipe.to_document()) == recipe


ORDERS = [
    ((Scale(), Grey("julia"), Scale()), r"Grey\('julia'\) rounds 8-bit pixels"),
    ((Scale(), Scale()), "two Scale steps divides by 255 twice"),
    ((Scale(), Resize(8, 8)), "write round=False"),
    ((Resize(8, 8, round=False), Resize(4, 4)), "write round=False"),
    ((Grey("float"), Resize(4, 4)), "write round=False"),
    ((Resize(8, 8, round=False), Grey("opencv")), r"write Grey\('float'\)"),
    ((Normalise((0.5,), (0.5,)), Scale()), r"put Scale\(\) before Normalise"),
    (
        (Scale(), Normalise((0.5,), (0.5,)), Normalise((0.5,), (0.5,))),
        "only SpatialOrder may follow Normalise",
    ),
    ((Scale(), Normalise((0.5,), (0.5,)), Colour()), "but Colour does; move it"),
    ((SpatialOrder("wh"), Scale()), "SpatialOrder must be the last step, but Scale follows"),
    ((SpatialOrder("wh"), SpatialOrder("wh")), "SpatialOrder must be the last step"),
    ((Grey("julia"), Scale(), Normalise((0, 0, 0), (1, 1, 1))), "give one mean and one std"),
    (("scale",), "one of these is a str"),
    ((Scale,), "one of these is a type"),
    ((Colour(),) * 33, "at most 32 steps"),
]


@pytest.mark.parametrize(("wrong", "words"), ORDERS)
def test_an_order_that_computes_nonsense_is_refused(wrong, words):
    with pytest.raises(ModelError, match=words):
        Preprocessing(wrong)


PICTURES = [
    (np.zeros((4, 4, 4), np.uint8), ShapeError, "4 x 4 x 4; lay alpha over white first"),
    (np.zeros((4, 4, 1), np.uint8), ShapeError, "this one is 4 x 4 x 1"),
    (np.zeros((3, 4, 4), np.uint8), ShapeError, "this one is 3 x 4 x 4"),
    (np.zeros((0, 4, 3), np.uint8), ShapeError, "this one is 0 x 4 x 3"),
    (np.zeros(4, np.uint8), ShapeError, "this one is 4$"),
    (np.zeros((4, 4), np.float32), ModelError, "but this one is float32; pass the picture as it was read"),
    (np.zeros((4, 4), bool), ModelError, "but this one is bool"),
    ([[1, 2]], ModelError, "this is a list"),
    (Image.new("RGBA", (4, 4)), ModelError, "mode L or RGB, but this one is RGBA"),
    ("cat.png", ModelError, "this is a str"),
]


@pytest.mark.parametrize(("picture", "error", "words"), PICTURES)
def test_what_is_not_a_picture_is_refused(picture, error, words):
    with pytest.raises(error, match=words):
        named("colour-32").apply(picture)


def test_a_grey_picture_for_three_means_says_what_to_add():
    recipe = Preprocessing((Scale(), Normalise((0, 0, 0), (1, 1, 1))))
    with pytest.raises(ShapeError, match=r"the picture is grey; put Colour\(\) before it"):
        recipe.apply(np.zeros((4, 4), np.uint8))


def test_a_needle_of_a_picture_does_not_fill_the_memory():
    needle = np.zeros((1, 65000), np.uint8)
    recipe = Preprocessing((Resize(4000, 4000, "imresize", "crop"), Scale()))
    with pytest.raises(ShapeError, match="less elongated than 1 x 65000"):
        recipe.apply(needle)


def test_a_batch_names_the_picture_that_does_not_fit():
    grey, colour = np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)
    recipe = Preprocessing((Scale(),))
    assert recipe.apply_batch(iter([colour, colour])).shape == (2, 3, 4, 4)
    with pytest.raises(ShapeError, match=r"^picture 2 comes out of the recipe as 1 x 4 x 4"):
        recipe.apply_batch([colour, grey])
    with pytest.raises(ShapeError, match=r"^b\.png comes out"):
        recipe.apply_batch([colour, grey], names=["a.png", "b.png"])
    with pytest.raises(ModelError, match=r"^a\.png: a picture is a uint8 array"):
        recipe.apply_batch([colour.astype(float)], names=["a.png"])
    with pytest.raises(ShapeError, match="at least one picture"):
        recipe.apply_batch([])


def test_display_refuses_what_is_not_one_input():
    with pytest.raises(
        ShapeError, match=r"display expects one input of shape \(1 or 3, H, W\), but got 2 x 3 x 4 x 4"
    ):
        named("colour-32").display(np.zeros((2, 3, 4, 4), np.float32))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"'gray-224': did you mean 'grey-224'; known are colour-32"):
        named("gray-224")


def test_a_recipe_cannot_be_changed():
    recipe = named("colour-32")
    with pytest.raises(AttributeError):
        recipe.steps = ()
    with pytest.raises(AttributeError):
        recipe.steps[1].height = 3


def test_a_recipe_without_scale_says_that_it_is_not_scaled():
    assert Preprocessing((Colour(),)).describe()[-1] == "not scaled: the values stay in 0-255"
    assert Preprocessing(()).describe() == ["the pixels unchanged, 0-255 as float32"]
