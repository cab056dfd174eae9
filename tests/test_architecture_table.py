"""The architecture table: aligned, adding up, and right about what a value can see."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from diptych import engines
from diptych.errors import ShapeError
from diptych.model import architectures
from diptych.model.layers import (
    Activation,
    AdaptiveMeanPool,
    BatchNorm,
    Chain,
    Connection,
    Conv,
    ConvTranspose,
    Dense,
    GlobalMeanPool,
    InstanceNorm,
    Layer,
    MeanPool,
    Parallel,
    Reshape,
    SkipConnection,
    Softmax,
    Upsample,
)
from diptych.model.model import Model, Source
from diptych.model.summary import summarise
from layer_cases import TABLE, case

THREE_CONV = """\
Model: three-conv-224
State: untrained: the weights are seeded initial values, so its predictions mean nothing

path  layer                     output shape        parameters  multiply-adds  receptive field
----  ------------------------  ------------------  ----------  -------------  ---------------
      input                     1 x 1 x 224 x 224
0     Conv 3x3, 1 -> 16, relu   1 x 16 x 222 x 222         160      7,096,896  3 x 3
1     MaxPool 2x2               1 x 16 x 111 x 111           -              -  4 x 4
2     Conv 3x3, 16 -> 32, relu  1 x 32 x 109 x 109       4,640     54,747,648  8 x 8
3     MaxPool 2x2               1 x 32 x 54 x 54             -              -  10 x 10
4     Conv 3x3, 32 -> 64, relu  1 x 64 x 52 x 52        18,496     49,840,128  18 x 18
5     MaxPool 2x2               1 x 64 x 26 x 26             -              -  22 x 22
6     Flatten                   1 x 43264                    -              -  22 x 22
7     Dense 43264 -> 128, relu  1 x 128              5,537,920      5,537,792  global
8     Dense 128 -> 10           1 x 10                   1,290          1,280  global
9     softmax                   1 x 10                       -              -  global
----  ------------------------  ------------------  ----------  -------------  ---------------
      total                                          5,562,506    117,223,744
"""


def test_the_table_of_the_known_network() -> None:
    text = summarise(architectures.named("three-conv-224")).text()
    assert text.startswith(THREE_CONV)


def test_what_belongs_to_the_model_follows_the_table() -> None:
    source = Source(format="bson", framework="Flux", version="0.13.4", warnings=("test mode was off",))
    model = architectures.named("small-cnn-32", classes=["cat", "dog"]).with_(trained=True, source=source)
    tail = summarise(model).text().split("\n\n")[-1].splitlines()
    assert model.preprocessing is not None
    steps = model.preprocessing.describe()
    assert tail == [
        "Preprocessing:",
        *[f"  {i}. {step}" for i, step in enumerate(steps, start=1)],
        "Classes (2): cat, dog",
        "Source: bson Flux 0.13.4",
        "Warning: test mode was off",
    ]
    assert "State: trained\n" in summarise(model).text()


def test_a_bare_model_says_what_is_not_recorded() -> None:
    text = summarise(Model(Chain((Activation("relu"),)))).text()
    for sentence in (
        "Model: unnamed",
        "State: not recorded whether it is trained",
        "Classes: not recorded",
        "Source: not recorded",
        "Preprocessing:\n  not recorded",
    ):
        assert sentence in text


def test_a_long_list_of_classes_is_cut_and_counted() -> None:
    model = architectures.named("small-cnn-32", classes=[f"c{i}" for i in range(30)])
    assert ", c19, and 10 more\n" in summarise(model).text()
    assert len(summarise(model).to_document()["classes"]) == 30


@pytest.mark.parametrize("name", TABLE)
def test_every_layer_has_a_row_that_adds_up(name: str) -> None:
    model, batch = case(name)
    summary = summarise(model, batch.shape)
    trace = engines.compile(model, "numpy").trace(batch)
    assert {row.path: row.output_shape for row in summary.rows} == {p: a.shape for p, a in trace.items()}
    assert summary.parameters == model.parameters
    lines = summary.text().splitlines()[3:]
    table = lines[: lines.index("")]
    assert len(table) == len(summary.rows) + 5
    assert len({line.index("receptive") for line in table if "receptive" in line}) == 1
    json.dumps(summary.to_document(), allow_nan=False)
    summary.text().encode("ascii")


def test_without_a_shape_weights_and_receptive_fields_are_still_known() -> None:
    model = Model(Chain((Conv(np.zeros((4, 3, 3, 3), np.float32)), Conv(np.zeros((4, 4, 3, 5), np.float32)))))
    for unknown in (model, model.with_(input_shape=(3, None, None))):
        summary = summarise(unknown)
        assert [row.output_shape for row in summary.rows] == [None, None]
        assert [row.receptive_field for row in summary.rows] == [(3, 3), (5, 7)]
        assert (summary.parameters, summary.multiply_adds) == (108 + 240, None)
        assert summary.text().count("?") == 6


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="takes 1 channels on axis 1, got 3"):
        summarise(architectures.named("three-conv-224"), (1, 3, 224, 224))


def test_multiply_adds_by_hand() -> None:
    zeros = np.zeros
    layers = (
        Conv(zeros((6, 2, 3, 2), np.float32), groups=2, stride=(2, 2)),  # (6, 4, 5): 120 values of 2·3·2
        ConvTranspose(zeros((6, 3, 2, 2), np.float32), stride=(2, 2)),  # 120 values, each times 3·2·2
        Dense(zeros((5, 10), np.float32)),  # 3·8 rows of 10·5
    )
    rows = summarise(Model(Chain(layers)), (1, 4, 9, 10)).rows
    assert [row.multiply_adds for row in rows] == [120 * 12, 120 * 12, 24 * 50]
    twice = summarise(Model(Chain(layers)), (2, 4, 9, 10))
    assert twice.multiply_adds == 2 * (2 * 120 * 12 + 24 * 50)


def test_shared_weights_count_once_and_say_whose_they_are() -> None:
    rows = summarise(case("tied")[0]).rows
    assert [row.parameters for row in rows] == [148, 0, 0, 0]
    assert [row.layer.endswith("(weights of 0)") for row in rows] == [False, False, True, True]


LABELS = {
    "conv-even-kernel-same": "Conv 4x2, 4 -> 5, padding 2+1 x 1+0",
    "conv-dilated": "Conv 3x2, 4 -> 5, stride 1x2, padding 2x1, dilation 2x3",
    "conv-depthwise": "Conv 3x2, 4 -> 8, groups 4",
    "conv-leakyrelu": "Conv 3x3, 4 -> 5, leakyrelu(0.2)",
    "conv-without-bias": "Conv 3x3, 4 -> 5, no bias",
    "transpose-groups": "ConvTranspose 3x2, 4 -> 6, stride 2, groups 2",
    "transpose-output-padding": "ConvTranspose 3x2, 4 -> 3, stride 2x3, padding 1x0, output padding 1x2",
    "batchnorm-epsilon": "BatchNorm 4, epsilon 0.1",
    "batchnorm-of-the-batch": "BatchNorm 4, statistics of the batch",
    "groupnorm-tracked": "GroupNorm 2 groups, tracked statistics",
    "instancenorm-tracked": "InstanceNorm 4, tracked statistics",
    "layernorm-std-plus-eps": "LayerNorm 4x7x10, divided by std + eps, epsilon 0.1",
    "maxpool-overlapping": "MaxPool 3x2, stride 2x1",
    "meanpool-padding-not-counted": "MeanPool 3x3, stride 2, padding 1, padding not counted",
    "adaptive-mean-flux": "AdaptiveMeanPool to 3x4, Flux's windows",
    "pad-reflect": "Pad reflect, 1+2 x 0+3",
    "upsample-nearest-fraction": "Upsample 1.5x2, nearest",
    "upsample-linear-corners-to-one": "Upsample to 1x13, linear, corners aligned",
    "logsoftmax-rows": "logsoftmax, axis 2",
    "reshape-free-axis": "Reshape 2x?x5",
    "skip-concatenate-rows": "SkipConnection concatenate along axis 2",
    "activation-hardtanh-parameters": "hardtanh(-0.5, 2)",
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_names_what_differs_from_the_default(name: str) -> None:
    assert case(name)[0].layers.layers[0].label == LABELS[name]


# ---- Receptive fields, against what the network really does ----------------------------------------------


def seen(layers: Chain, size: int) -> int:
    """How wide the stretch of a 1-D input of `size` is that some one output value depends on."""
    deltas = np.eye(size, dtype=np.float32)[:, None, :]
    output = engines.compile(Model(layers), "numpy")(deltas).reshape(size, -1)  # (input position, output)
    reached = [np.flatnonzero(column) for column in output.T if column.any()]
    return max(int(positions[-1] - positions[0]) + 1 for positions in reached)


def claimed(layers: Chain, size: int) -> object:
    rows = {row.path: row for row in summarise(Model(layers), (1, 1, size)).rows}
    return rows[str(len(layers.layers) - 1)].receptive_field


def ones(kernel: int) -> np.ndarray:
    return np.ones((1, 1, kernel), np.float32)


SHRINKING = st.lists(
    st.one_of(
        st.builds(
            lambda k, s, d: Conv(ones(k), stride=(s,), dilation=(d,)),
            st.integers(1, 4),
            st.integers(1, 2),
            st.integers(1, 2),
        ),
        st.builds(lambda k, s: MeanPool((k,), (s,)), st.integers(1, 3), st.integers(1, 3)),
    ),
    min_size=1,
    max_size=2,
)


@given(SHRINKING)
def test_the_field_is_exactly_what_convolutions_and_pools_reach(layers: list[Layer]) -> None:
    chain = Chain(tuple(layers))
    assert (seen(chain, 90),) == claimed(chain, 90)


ENLARGING = st.one_of(
    st.builds(lambda k, s: ConvTranspose(ones(k), stride=(s,)), st.integers(1, 5), st.integers(1, 3)),
    st.builds(lambda s: Upsample((s,)), st.integers(2, 3)),
    st.builds(lambda s: Upsample((s,), mode="linear"), st.integers(2, 3)),
    st.builds(lambda m: Upsample(size=(m,), mode="linear", align_corners=True), st.integers(20, 99)),
    st.builds(lambda m: AdaptiveMeanPool((m,)), st.integers(9, 40)),
)


@given(SHRINKING, ENLARGING, SHRINKING)
def test_the_field_after_enlarging_is_never_too_small_and_hardly_too_large(
    before: list[Layer], enlarge: Layer, after: list[Layer]
) -> None:
    """It is that of the luckiest position, which strides may never meet: hence the allowance of two steps."""
    chain, size = Chain((*before, enlarge, *after)), 300
    try:
        claim = claimed(chain, size)
    except ShapeError:
        reject()  # shrunk to nothing
    assert isinstance(claim, tuple)
    step = math.prod(getattr(layer, "stride", (1,))[0] for layer in before)
    reached = seen(chain, size)
    assert reached <= claim[0]
    assert isinstance(enlarge, AdaptiveMeanPool) or min(claim[0], size - 3 * step) <= reached + 2 * step


RELU = Activation("relu")
SKIP = SkipConnection(Conv(ones(5), padding=((2, 2),)))
BRANCHES = Parallel(Connection("concatenate"), (Conv(ones(3), padding=((1, 1),)), SKIP, RELU))
STATISTICS = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ((RELU,), (1,)),
        ((SKIP,), (5,)),
        ((SKIP, SKIP), (9,)),
        ((BRANCHES,), (5,)),
        ((BatchNorm(None, None, STATISTICS, STATISTICS),), (1,)),
        ((BatchNorm(),), "global"),
        ((InstanceNorm(),), "global"),
        ((SkipConnection(GlobalMeanPool(), Connection("multiply")),), "global"),
        ((Softmax(),), (1,)),
        ((Softmax(axis=2),), "global"),
        ((Dense(np.ones((3, 20), np.float32)), RELU), "global"),
        ((Reshape((2, 10)), RELU), None),
    ],
)
def test_the_field_of_other_layers(layers: tuple[Layer, ...], field: object) -> None:
    assert claimed(Chain(layers), 20) == field
