"""Models to PyTorch and back: modules that train, modules that others wrote, and .pt files."""

from __future__ import annotations

import contextlib
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import diptych.engines.torch as engine
from diptych import engines, formats
from diptych.errors import FormatError, ModelError, UnsupportedLayer, UsageError
from diptych.formats.torch import from_torch, to_torch
from diptych.model.document import to_document
from diptych.model.layers import Activation, Chain, ConvTranspose, Dense, InstanceNorm
from diptych.model.model import Model
from distances import apart
from layer_cases import TABLE, Weights, case
from torch_zoo import ZOO, network, pictures

pytestmark = pytest.mark.usefixtures("one_thread")


def outputs(model: Model, batch: np.ndarray) -> np.ndarray:
    return engine.compile(model, "cpu")(batch)


# ---- Model -> module ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_the_module_gives_what_the_engine_gives(name: str):
    model, batch = case(name)
    expected = outputs(model, batch)
    for known in (model, model.with_(input_shape=None)):
        module = to_torch(known)
        assert not module.training
        with torch.no_grad():
            assert apart(module(torch.tensor(batch)).numpy(), expected) <= 1e-6


def test_children_are_named_as_layers_are_in_a_trace():
    model, _ = case("nested")
    module = to_torch(model)
    names = {name.removesuffix(".weight") for name in module.state_dict() if name.endswith(".weight")}
    assert names == {"0.0.0"}
    assert [name for name, _ in to_torch(case("classifier")[0]).named_children()] == list("01234567")
    assert "kernel_size=(2, 3)" in repr(to_torch(case("classifier")[0]))
    assert set(to_torch(model).state_dict()) == set(module.state_dict())


def test_layers_that_pytorch_has_are_its_own():
    for name, kind in {
        "conv": nn.Conv2d,
        "conv-relu": nn.Conv2d,
        "dense": nn.Linear,
        "batchnorm-3d": nn.BatchNorm3d,
        "layernorm": nn.LayerNorm,
        "transpose-output-padding": nn.ConvTranspose2d,
        "activation-swish": nn.SiLU,
        "adaptive-mean-pytorch": nn.AdaptiveAvgPool2d,
        "pad-reflect": nn.ReflectionPad2d,
    }.items():
        module = to_torch(case(name)[0])[0]
        assert isinstance(module, kind)
        assert type(module) is kind or name == "conv-relu"


def test_tied_weights_are_one_parameter():
    module = to_torch(case("tied")[0])
    assert module[0] is module[2]
    assert module[3].weight is module[0].weight
    assert len(list(module.parameters())) == 2


def test_the_module_trains_with_dropout_and_batch_statistics():
    model, batch = case("classifier")
    module = to_torch(model).train()
    mean, x = module[1].running_mean.clone(), torch.tensor(batch)
    assert not torch.equal(module(x), module(x))
    assert not torch.equal(module[1].running_mean, mean)
    before = model.layers.layers[0].weight.copy()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    target = torch.tensor([0, 2])
    module.eval()
    losses = []
    for _ in range(20):
        loss = F.nll_loss(torch.log(module(x)), target)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] / 2
    assert all(p.grad is not None for p in module.parameters())
    assert np.array_equal(model.layers.layers[0].weight, before)


# ---- Module -> model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_what_was_made_a_module_is_read_back(name: str):
    model, batch = case(name)
    back = from_torch(to_torch(model), example=batch)
    assert apart(outputs(back, batch), outputs(model, batch)) <= 1e-6
    assert back.name == model.name


@pytest.mark.parametrize("name", ZOO)
def test_networks_as_people_write_them_go_through(name: str):
    module = network(name)
    first, second = pictures(name)
    for example in (first, second):
        model = from_torch(module, example=example)
        for batch in (first, second):
            if name == "branching" and batch is not example:
                continue  # its code takes another way
            with torch.no_grad():
                assert apart(outputs(model, batch.numpy()), module(batch).numpy()) <= 1e-5
    assert model.input_shape == second.shape[1:]


def grid() -> Iterator[nn.Module]:
    """Layers of PyTorch over (N, 6, 9, 14) or less: uneven kernels, even sizes, strides, dilation, groups."""
    for kernel, stride, padding, dilation, groups in (
        (3, 1, 1, 1, 1),
        ((2, 5), 2, (1, 0), 1, 1),
        (4, (2, 1), "valid", 1, 2),
        ((4, 3), 1, "same", 1, 3),
        ((2, 3), 1, "same", (3, 2), 1),
        ((3, 2), (1, 2), 2, (2, 3), 6),
    ):
        modes = ("zeros", "reflect", "replicate", "circular")
        for mode in modes if groups == 1 else ("zeros",):
            yield nn.Conv2d(6, 12, kernel, stride, padding, dilation, groups, groups != 3, mode)
    yield nn.ConvTranspose2d(6, 4, (3, 2), (2, 3), (1, 0), (1, 0), 2, True, (1, 2))
    yield nn.ConvTranspose2d(6, 4, (2, 4), 2, padding=1, bias=False, dilation=(3, 1))
    yield nn.Sequential(nn.Flatten(2), nn.Conv1d(6, 4, 5, 2, 3, 2, 2), nn.BatchNorm1d(4), nn.MaxPool1d(3))
    yield nn.Sequential(nn.Flatten(2), nn.ConvTranspose1d(6, 4, 4, 3, 1), nn.AvgPool1d(4, 2, 1))
    yield nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv3d(2, 4, (2, 3, 1), (1, 2, 1)), nn.BatchNorm3d(4))
    yield nn.Sequential(nn.Unflatten(1, (2, 3)), nn.MaxPool3d((2, 2, 3), (1, 2, 2)), nn.AdaptiveAvgPool3d(1))
    for kernel, stride, padding in ((2, None, 0), ((3, 2), (2, 1), (1, 0)), ((4, 3), 3, (2, 1))):
        yield nn.MaxPool2d(kernel, stride, padding)
        yield nn.AvgPool2d(kernel, stride, padding)
        yield nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)
    yield nn.MaxPool2d((3, 2), ceil_mode=True)
    yield from (nn.AdaptiveAvgPool2d((4, 5)), nn.AdaptiveAvgPool2d((None, 3)), nn.AdaptiveMaxPool2d((2, 7)))
    yield from (nn.BatchNorm2d(6, 0.1), nn.BatchNorm2d(6, affine=False))
    yield from (
        nn.BatchNorm2d(6, track_running_stats=False),
        nn.GroupNorm(3, 6),
        nn.GroupNorm(2, 6, 0.1, False),
    )
    yield from (nn.InstanceNorm2d(6), nn.InstanceNorm2d(6, 0.1, affine=True, track_running_stats=True))
    yield from (
        nn.LayerNorm(14),
        nn.LayerNorm((9, 14), 0.1),
        nn.LayerNorm((6, 9, 14), elementwise_affine=False),
    )
    yield from (nn.Linear(14, 5), nn.Linear(14, 3, bias=False), nn.Flatten(), nn.Flatten(2), nn.Identity())
    yield from (
        nn.ZeroPad2d((1, 2, 0, 3)),
        nn.ReflectionPad2d((1, 2, 3, 0)),
        nn.ReplicationPad2d((0, 2, 1, 3)),
    )
    yield from (nn.CircularPad2d((1, 2, 3, 0)), nn.ConstantPad2d((1, 0, 2, 1), 0.0))
    yield from (nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=(3, 2), mode="bilinear"))
    yield from (nn.Upsample((20, 15)), nn.Upsample((20, 15), mode="bilinear", align_corners=True))
    yield from (nn.Sequential(nn.Conv2d(6, 8, 1), nn.PixelShuffle(2)), nn.Softmax(dim=2), nn.LogSoftmax(-1))
    yield from (nn.Softmax2d(), nn.Dropout(0.3), nn.Dropout2d(0.2), nn.PReLU(), nn.RReLU(0.1, 0.3))
    yield from (nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.3), nn.ELU(0.5), nn.CELU(2.0), nn.SELU(), nn.GELU())
    yield from (
        nn.GELU("tanh"),
        nn.Sigmoid(),
        nn.Hardsigmoid(),
        nn.LogSigmoid(),
        nn.Tanh(),
        nn.Hardtanh(-2, 0.5),
    )
    yield from (nn.Tanhshrink(), nn.Softshrink(0.3), nn.Softplus(), nn.Softsign(), nn.SiLU(), nn.Hardswish())
    yield from (nn.Mish(), nn.Threshold(0.2, 0.0))


GRID = list(grid())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("index", range(len(GRID)), ids=[str(m)[:60] for m in GRID])
def test_every_layer_of_pytorch_over_a_grid_of_arguments(index: int):
    generator = torch.Generator().manual_seed(index)
    module = GRID[index].eval()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
        for name, tensor in module.named_buffers():
            if name.endswith("running_var"):
                tensor.abs_().add_(0.2)
        batch = torch.randn((2, 6, 9, 14), generator=generator)
        expected = module(batch).numpy()
    model = from_torch(module, example=batch)
    assert apart(outputs(model, batch.numpy()), expected) <= 1e-5
    with torch.no_grad():
        assert apart(to_torch(model)(batch).numpy(), expected) <= 1e-5


class Code(nn.Module):
    """A module whose forward is the function it is given."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> object:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.cummax(x, 1).values, r"cummax.*there is no layer for it"),
        (lambda x: x[1:], r"getitem.*along the batch axis"),
        (lambda x: x.permute(1, 0, 2, 3), "output: its batch is not the first axis"),
        (lambda x: x.mean((0, 1), keepdim=True), "mean over the batch axis mixes samples"),
        (lambda x: x.reshape(-1), "output: its batch is not the first axis"),
        (lambda x: torch.cat([x, x], 0), "cat.*along the batch axis"),
        (lambda x: (x, x), "^a Diptych model cannot express the output: the module returns 2 values"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1)), "pads the batch"),
        (lambda x: x.sum((2, 3)) @ x.sum((2, 3)).t(), "mixes samples or has no layer"),
        (lambda x: x + torch.ones(2, 1, 1, 1), "number for each sample"),
    ],
)
def test_what_has_no_layer_is_refused_by_name(function: Callable[..., object], message: str):
    with pytest.raises(UnsupportedLayer, match=message):
        from_torch(Code(function), example=torch.randn(2, 4, 7, 10))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x * torch.sigmoid(x), "swish"),
        (lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3))), "gelu_tanh"),
        (lambda x: x * F.relu6(x + 3) / 6, "hardswish"),
        (lambda x: x * torch.tanh(F.softplus(x)), "mish"),
        (lambda x: torch.maximum(x, 0.2 * x), "leakyrelu"),
        (lambda x: x * x, "abs2"),
    ],
)
def test_an_activation_written_out_is_known_again(function: Callable[..., object], name: str):
    (layer,) = from_torch(Code(function), example=torch.randn(2, 4, 7, 10)).layers.layers
    assert isinstance(layer, Activation)
    assert layer.name == name


def test_arithmetic_with_constants_becomes_a_scale():
    mean = torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    module = Code(lambda x: (1 - (x * 2 - 1) / 3 - mean) * (1 / mean))
    batch = torch.rand(2, 3, 5, 4)
    model = from_torch(module, example=batch)
    assert apart(outputs(model, batch.numpy()), module(batch).numpy()) <= 1e-6
    assert len(model.layers.layers) <= 3


def test_without_an_example_what_needs_no_size_goes_through():
    module = network("vgg11-bn")
    model = from_torch(module)
    assert model.input_shape is None
    batch = pictures("vgg11-bn")[0]
    with torch.no_grad():
        assert apart(outputs(model, batch.numpy()), module(batch).numpy()) <= 1e-5
    with pytest.raises(ModelError, match="example=batch"):
        from_torch(network("unet-bilinear"))
    with pytest.raises(ModelError, match="example=batch"):
        from_torch(network("branching"))


def test_shared_modules_and_parameters_stay_shared():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    other = nn.Conv2d(4, 4, 3, padding=1)
    other.weight = conv.weight
    model = from_torch(nn.Sequential(conv, nn.ReLU(), conv, other), example=np.zeros((1, 4, 5, 6)))
    first, _, third, fourth = model.layers.layers
    assert first is third
    assert fourth.weight is first.weight
    assert not np.shares_memory(first.weight, conv.weight.detach().numpy())


def test_the_module_is_read_in_evaluation_mode_and_left_as_it_was():
    module = network("mobilenet").train()
    module.stem.eval()
    batch = pictures("mobilenet")[0]
    model = from_torch(module, example=batch)
    assert module.training
    assert not module.stem.training
    with torch.no_grad():
        assert apart(outputs(model, batch.numpy()), module.eval()(batch).numpy()) <= 1e-5


def test_a_module_that_does_not_do_what_its_code_says_is_caught():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    module[0].register_forward_hook(lambda m, given, result: result * 1.001)
    with pytest.raises(ModelError, match="gives other numbers than the module"):
        from_torch(module, example=torch.randn(1, 3, 6, 5))
    with pytest.raises(ModelError, match="does not take the example"):
        from_torch(nn.Sequential(nn.Linear(7, 3)), example=torch.randn(1, 3, 6, 5))
    with pytest.raises(UsageError, match=r"takes a torch.nn.Module"):
        from_torch({"weight": torch.zeros(3)})


def test_a_network_keeps_what_travels_with_the_model():
    model = case("classifier")[0].with_(classes=("a", "b", "c"), notes={"accuracy": 0.5}, trained=True)
    module = to_torch(model)
    with torch.no_grad():
        module[6].bias.add_(1)
    back = from_torch(module)
    assert (back.classes, back.notes, back.trained) == (model.classes, model.notes, True)
    assert np.array_equal(back.layers.layers[6].bias, model.layers.layers[6].bias + 1)


# ---- Files --------------------------------------------------------------------------------------------


def same(a: Model, b: Model) -> bool:
    (first, arrays), (second, others) = to_document(a), to_document(b)
    equal = all(np.array_equal(v, others[k]) and v.dtype == others[k].dtype for k, v in arrays.items())
    return first == second and arrays.keys() == others.keys() and equal


@pytest.mark.parametrize(
    "name", ["classifier", "tied", "nested", "batchnorm-of-the-batch", "activation-clamp"]
)
def test_a_pt_file_gives_the_same_model_back(name: str, tmp_path: Path):
    model, _ = case(name)
    path = tmp_path / "model.pt"
    formats.write(model, path)
    assert same(formats.read(path), model)
    content = torch.load(path, weights_only=True)
    assert set(content) == {"diptych", "state"}
    formats.write(model, tmp_path / "again.pth")
    assert (tmp_path / "again.pth").read_bytes() == path.read_bytes()


def test_float16_weights_stay_float16(tmp_path: Path):
    model = Model(Chain((Dense(np.float16([[1, 2]]), np.float64([3])),)))
    formats.write(model, tmp_path / "model.pt")
    back = formats.read(tmp_path / "model.pt").layers.layers[0]
    assert (back.weight.dtype, back.bias.dtype) == (np.float16, np.float64)


def test_a_state_dict_fills_an_architecture(tmp_path: Path):
    model, batch = case("classifier")
    path = tmp_path / "weights.pt"
    trained = to_torch(model)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(0.5)
    torch.save({"epoch": 3, "model_state_dict": trained.state_dict()}, path)
    expected = trained(torch.tensor(batch)).detach().numpy()
    for architecture in (model, to_torch(model), from_torch(to_torch(model), batch)):
        assert apart(outputs(formats.read(path, architecture=architecture), batch), expected) <= 1e-6
    with pytest.raises(FormatError, match="holds 11 weights but no architecture"):
        formats.read(path)
    with pytest.raises(
        FormatError,
        match=r"sizes in the file, in its order: >>3×4×2×3 and 3<<, .* architecture: >>16×3×3×3 and 16<<",
    ):
        formats.read(path, architecture="small-cnn-32")
    with pytest.raises(FormatError, match="does not fit Linear"):
        formats.read(path, architecture=nn.Linear(3, 4))
    with pytest.raises(
        FormatError, match=r"6×36 and 6, >>3×6 and 3<<; in the architecture: 3×4×2×3 and 3, .*6×36 and 6;"
    ):
        formats.read(path, architecture=model.with_(layers=Chain(model.layers.layers[:5]), input_shape=None))
    with pytest.raises(UsageError, match="no architecture is called"):
        formats.read(path, architecture="nothing")


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_pickled_modules_and_strange_content_are_refused_in_a_sentence(tmp_path: Path):
    path = tmp_path / "file.pt"
    with pytest.raises(FormatError, match=r"pickled Python objects.*save module.state_dict\(\)"):
        formats.read(saved(nn.Linear(2, 3), path))
    for content in ([1, 2], {"a": 3}, {"state_dict": {}}, torch.zeros(3)):
        with pytest.raises(FormatError, match="holds no state_dict"):
            formats.read(saved(content, path))
    document, arrays = to_document(case("classifier")[0])
    text, state = json.dumps(document), {k: torch.tensor(v) for k, v in arrays.items()}
    huge = torch.zeros(1).expand(100_000, 100_000)
    for changed, message in (
        ({"diptych": "{", "state": state}, "not JSON"),
        ({"diptych": text, "state": {}}, "damaged or was edited"),
        ({"diptych": text, "state": 3}, "damaged or was edited"),
        ({"diptych": text, "state": state | {"0.weight": huge}}, "not stored in full"),
        ({"diptych": text, "state": state | {"0.weight": torch.zeros(3, dtype=torch.int8)}}, "not a weight"),
        ({"diptych": text, "state": state | {"0.weight": "text"}}, "not a weight"),
    ):
        with pytest.raises(FormatError, match=message):
            formats.read(saved(changed, path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(FormatError, match="compressed archive"):
        formats.read(path)


def test_a_damaged_pt_file_is_refused_or_read(tmp_path: Path):
    path = tmp_path / "model.pt"
    formats.write(case("classifier")[0], path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for cut in range(0, len(whole), len(whole) // 25):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError):
            formats.read(path)
    for _ in range(150):
        changed = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            changed[place] = random.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(FormatError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            formats.read(path)


def test_every_flipped_byte_of_a_part_is_found_by_its_checksum(tmp_path: Path):
    path = tmp_path / "model.pt"
    formats.write(case("classifier")[0], path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    for name, content in parts.items():
        if len(content) < 40:  # short ones may stand elsewhere too
            continue
        path.write_bytes(whole.replace(content, content[:-20] + bytes([content[-20] ^ 1]) + content[-19:], 1))
        with pytest.raises(FormatError, match=f"checksum of '{name}'"):
            formats.read(path)


def test_a_file_that_pytorch_wrote_without_checksums_is_read(tmp_path: Path):
    model = case("classifier")[0]
    torch.serialization.set_crc32_options(False)
    try:
        formats.write(model, tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert formats.read(tmp_path / "model.pt").weights().keys() == model.weights().keys()


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(3, 2)

    def forward(self, x):
        y = self.dense(x)
        return y if y.sum() > 0 else -y


def test_a_refused_module_prints_nothing(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(ModelError, match=r"neither torch.fx nor torch.export can trace Branching"):
        from_torch(Branching(), np.ones((2, 3), np.float32))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_float_types_go_through(kind: torch.dtype):
    module = nn.Sequential(nn.Conv2d(3, 4, (2, 3)), nn.ReLU()).to(kind)
    batch = torch.randn(2, 3, 6, 5)
    model = from_torch(module, example=batch)
    with torch.no_grad():
        assert apart(outputs(model, batch.numpy()), module.float()(batch).numpy()) <= 1e-6
    kept = np.float32 if kind == torch.bfloat16 else kind
    assert str(model.layers.layers[0].weight.dtype) == str(kept).removeprefix("torch.") or kept is np.float32


def test_a_norm_that_takes_its_mean_twice_is_known_again():
    def norm(x: torch.Tensor) -> torch.Tensor:
        spread = ((x - x.mean((2, 3), keepdim=True)) ** 2).mean((2, 3), keepdim=True)
        return (x - x.mean((2, 3), keepdim=True)) / torch.sqrt(spread + 1e-3)

    batch = torch.randn(2, 4, 7, 10)
    model = from_torch(Code(norm), example=batch)
    (layer,) = model.layers.layers
    assert isinstance(layer, InstanceNorm)
    assert apart(outputs(model, batch.numpy()), norm(batch).numpy()) <= 1e-5


def test_operations_written_twice_stay_apart_where_they_can():
    def twice(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.relu(x)) + (x + torch.sin(torch.relu(x)))

    batch = torch.randn(2, 4, 7, 10)
    assert apart(outputs(from_torch(Code(twice), example=batch), batch.numpy()), twice(batch).numpy()) <= 1e-6


def test_a_transposed_convolution_with_all_its_options_and_an_activation():
    w = Weights(5)
    for padding in (((1, 1), (0, 0)), ((2, 0), (0, 1))):
        options = {"stride": (2, 3), "padding": padding, "output_padding": (1, 2), "groups": 2}
        layer = ConvTranspose(w(4, 3, 3, 2), w(6), **options, activation=Activation("tanh"))
        model, batch = Model(Chain((layer,))), w(2, 4, 5, 7)
        module = to_torch(model)
        with torch.no_grad():
            assert apart(module(torch.tensor(batch)).numpy(), outputs(model, batch)) <= 1e-6
        assert apart(outputs(from_torch(module, example=batch), batch), outputs(model, batch)) <= 1e-6


class QuickGelu(nn.Module):
    """CLIP's activation, as transformers' `QuickGELUActivation` computes it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".pt"])
def test_quick_gelu_is_one_activation_everywhere(suffix: str, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), QuickGelu(), nn.Flatten()).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 5)).astype(np.float32) * 3
    model = from_torch(module, example=x)
    assert [layer.name for _, layer in model.walk() if isinstance(layer, Activation)] == ["quickgelu"]
    formats.write(model, tmp_path / f"m{suffix}")
    back = formats.read(tmp_path / f"m{suffix}")
    expected = module(torch.tensor(x)).detach().numpy()
    for name in ("numpy", "torch", "onnxruntime"):
        np.testing.assert_allclose(engines.compile(back, name)(x), expected, atol=1e-5)
    if suffix == ".onnx":  # and from the operations alone
        proto = onnx.load(tmp_path / "m.onnx")
        del proto.metadata_props[:]
        onnx.save(proto, tmp_path / "foreign.onnx")
        foreign = formats.read(tmp_path / "foreign.onnx")
        names = [layer.name for _, layer in foreign.walk() if isinstance(layer, Activation)]
        assert names == ["quickgelu"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_asks_for_memory_is_refused(tmp_path: Path, protocol: int):
    class Huge:
        def __reduce__(self):
            return bytearray, (3_000_000_000,)

    path = tmp_path / "huge.pt"
    torch.save({"state": Huge()}, path, pickle_protocol=protocol)
    with pytest.raises(FormatError, match="bytearray"):
        formats.read(path)
    torch.save({"bytearray": torch.zeros(2)}, path, pickle_protocol=2)
    with pytest.raises(FormatError, match="no architecture"):
        formats.read(path)
