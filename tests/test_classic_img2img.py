"""The training interface of the Img2Img project: its example, its promises, and where its model goes on to."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import diptych
from diptych import filters
from diptych.datasets.photographs import photograph
from diptych.errors import ImageError, ModelError, ShapeError, UsageError
from diptych.filters import img2img, metrics
from diptych.images import files

# The usage example of the project's README as it stands there, but for the quote mark after its last line.
EXAMPLE = """
import torch
from model import create_img2img_model
from utils import load_filtered_dataset

# Create the model
num_input_channels = 3  # RGB color image
num_output_channels = 1  # Filtered image
model = create_img2img_model(num_input_channels, num_output_channels)

# Load the training and validation datasets
train_dataset, val_dataset = load_filtered_dataset()

# Train the model
train_model(model, train_dataset, val_dataset, save_best=True, save_path='best_model.pth')
"""
OURS = "from diptych.filters import create_img2img_model, load_filtered_dataset, train_model"


@pytest.fixture(scope="module")
def sobel():
    return filters.load_filtered_dataset(count=48)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return filters.create_img2img_model(3, 1)


@pytest.mark.slow
def test_the_example_runs_with_its_import_lines_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(img2img, "COUNT", 8)
    torch.manual_seed(0)
    changed = re.sub(r"^from (model|utils) import .*\n", "", EXAMPLE, flags=re.M).replace(
        "import torch\n", f"import torch\n{OURS}\n"
    )
    assert len(changed.splitlines()) == len(EXAMPLE.splitlines()) - 1
    names: dict[str, object] = {}
    exec(compile(changed, "example", "exec"), names)
    kept = torch.load(tmp_path / "best_model.pth", weights_only=True)
    assert sum(weight.numel() for weight in kept.values()) == 48
    state = names["model"].state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(kept[name], state[name]) for name in state)


def test_the_network_has_48_weights_and_a_kernel_of_any_odd_size(model):
    assert [sum(p.numel() for p in layer.parameters()) for layer in model] == [28, 0, 10, 0, 10]
    wide = filters.create_img2img_model(1, 3, kernel_size=5)
    assert wide(torch.rand(2, 1, 9, 11)).shape == (2, 3, 9, 11)
    with pytest.raises(UsageError, match="odd number"):
        filters.create_img2img_model(3, 1, kernel_size=4)
    with pytest.raises(UsageError, match="at least one channel"):
        filters.create_img2img_model(0, 1)


@pytest.mark.parametrize("seed", range(12))
def test_no_start_is_dead(seed):
    torch.manual_seed(seed)
    network = filters.create_img2img_model(3, 1)
    picture = torch.from_numpy(photograph("coffee").transpose(2, 0, 1)[None].copy()).float() / 255
    network(picture).std().backward()
    first = network[0].weight.grad
    assert first is not None
    assert first.abs().sum() > 0


def test_data_are_what_the_filter_makes_of_each_picture(sobel):
    train, validation = sobel
    assert (len(train), len(validation)) == (48, 6)
    picture, expected = train[5]
    assert (picture.shape, expected.shape) == ((3, 64, 64), (1, 64, 64))
    assert (picture.dtype, expected.dtype) == (torch.float32, torch.float32)
    assert 0 <= float(picture.min()) < float(picture.max()) <= 1
    levels = metrics.to_levels(picture.numpy().transpose(1, 2, 0))
    np.testing.assert_allclose(filters.resolve("sobel")(levels), expected[0].numpy(), atol=1e-7)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_squares_and_no_photograph_is_in_both(sobel):
    again, _ = filters.load_filtered_dataset(count=48)
    other, _ = filters.load_filtered_dataset(count=48, seed=1)
    assert torch.equal(again[7][0], sobel[0][7][0])
    assert not torch.equal(other[7][0], sobel[0][7][0])
    from diptych.filters import data

    gathered = data.gather(None, channels=3)
    sources = {"train": gathered.train, "held out": tuple(gathered.held_out.values())}
    for name, dataset in zip(sources, sobel, strict=True):
        square = metrics.to_levels(dataset[0][0].numpy().transpose(1, 2, 0))
        assert [where for where, pictures in sources.items() if _is_in(square, pictures)] == [name]


def _is_in(square, pictures):
    for picture in pictures:
        rows, columns = np.nonzero((picture[:-63, :-63] == square[0, 0]).all(axis=2))
        for top, left in zip(rows, columns, strict=True):
            if np.array_equal(picture[top : top + 64, left : left + 64], square):
                return True
    return False


@pytest.mark.parametrize(("name", "out"), [("random:seed=3", 1), ("gaussian:sigma=1", 3)])
def test_any_filter_by_name(name, out):
    train, _ = filters.load_filtered_dataset(name, size=32, count=2)
    assert train[0][1].shape == (out, 32, 32)


def test_pictures_of_a_folder(tmp_path):
    for name in ("chelsea", "coffee", "astronaut"):
        files.write_png(tmp_path / f"{name}.png", photograph(name)[:64, :64])
    train, validation = filters.load_filtered_dataset("sobel", tmp_path, count=8)
    assert (len(train), len(validation)) == (8, 1)
    whole = [photograph(name)[:64, :64] for name in ("chelsea", "coffee", "astronaut")]
    assert any(np.array_equal(metrics.to_levels(train[0][0].numpy().transpose(1, 2, 0)), p) for p in whole)
    with pytest.raises(UsageError, match="has 65 x 65 pixels; choose a smaller size"):
        filters.load_filtered_dataset("sobel", tmp_path, size=65)
    with pytest.raises(ImageError, match="nowhere"):
        filters.load_filtered_dataset("sobel", tmp_path / "nowhere")


def test_tiny_imagenet_has_a_validation_part_of_its_own(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for split, name, level in (("train/n01", "a", 40), ("train/n01", "b", 50), ("val", "c", 200)):
        (root / split / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(root / split / "images" / f"{name}.JPEG")
    (root / "wnids.txt").write_text("n01\n")
    (root / "words.txt").write_text("n01\tgoldfish\n")
    (root / "val" / "val_annotations.txt").write_text("c.JPEG\tn01\t0\t0\t63\t63\n")
    train, validation = filters.load_filtered_dataset("identity", tmp_path, count=2)
    assert sorted(round(float(train[i][0].mean()) * 255) for i in range(2)) == [40, 50]
    assert round(float(validation[0][0].mean()) * 255) == 200


# ---- Training -----------------------------------------------------------------------------------------


def test_training_lowers_both_losses_and_keeps_the_best(sobel, model, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "best.pth"
    steps = []
    train, validation = filters.train_model(
        model, *sobel, max_epochs=12, batch_size=16, learning_rate=0.01, save_best=True, save_path=path,
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert len(train) == len(validation) == len(steps)
    assert min(validation) < validation[0]
    assert min(train) < train[0]
    kept = filters.create_img2img_model(3, 1)
    kept.load_state_dict(torch.load(path, weights_only=True))
    for network in (model, kept):
        losses = [
            float(nn.functional.l1_loss(network(x[None]), y[None]).detach())
            for x, y in (sobel[1][i] for i in range(6))
        ]
        assert np.mean(losses) == pytest.approx(min(validation), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_default_example_shows_edges_and_beats_a_constant(seed):
    """From PyTorch's own start most trainings end in a constant, nearly black."""
    torch.manual_seed(seed)
    network = filters.create_img2img_model(3, 1)
    train, validation = filters.load_filtered_dataset(count=256)
    _, losses = filters.train_model(network, train, validation, max_epochs=10, batch_size=16)
    with torch.no_grad():
        given = network(torch.stack([picture for picture, _ in validation]))
    expected = torch.stack([target for _, target in validation])
    assert min(losses) < float((expected - expected.median()).abs().mean())
    assert float(torch.corrcoef(torch.stack([given.ravel(), expected.ravel()]))[0, 1]) > 0.4


def test_the_start_of_the_original_is_pytorch_s_own():
    torch.manual_seed(5)
    network = filters.create_img2img_model(3, 1, initialisation="torch")
    torch.manual_seed(5)
    expected = nn.Conv2d(3, 1, 3, padding=1)
    assert torch.equal(network[0].weight, expected.weight)
    with pytest.raises(UsageError, match=r'initialisation must be "edges" or "torch", not .zeros.'):
        filters.create_img2img_model(3, 1, initialisation="zeros")


@pytest.mark.parametrize(("inputs", "outputs", "size"), [(1, 1, 1), (1, 3, 5), (3, 3, 3), (2, 1, 3)])
def test_a_network_of_any_shape_starts(inputs, outputs, size):
    network = filters.create_img2img_model(inputs, outputs, size)
    assert network(torch.rand(1, inputs, 9, 11)).std() > 0


def test_it_stops_where_nothing_improves(model):
    still = TensorDataset(torch.zeros(4, 3, 8, 8), model(torch.zeros(1, 3, 8, 8)).detach().repeat(4, 1, 1, 1))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model[4].bias.requires_grad_(True)
    train, validation = filters.train_model(model, still, still, early_stopping_patience=3, max_epochs=50)
    assert len(validation) == int(np.argmin(validation)) + 1 + 3 or len(set(validation)) == 1
    assert len(train) < 50


def test_the_learning_rate_falls_along_a_cosine_to_zero(sobel, model, monkeypatch):
    rates = []
    step = torch.optim.Adam.step

    def noted(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    filters.train_model(model, *sobel, max_epochs=4, learning_rate=0.002)
    np.testing.assert_allclose(
        rates, [0.001 * (1 + np.cos(np.pi * epoch / 4)) for epoch in range(4)], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"save_best": True}, "save_best needs a file"),
        ({"max_epochs": 0}, "max_epochs must be at least 1"),
        ({"early_stopping_patience": 0}, "early_stopping_patience must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate must be a number above 0"),
        ({"val_dataset": TensorDataset(torch.zeros(0, 3, 8, 8), torch.zeros(0, 1, 8, 8))}, "val_dataset is empty"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_sentence(changes, said, sobel, model):
    settings = {"train_dataset": sobel[0], "val_dataset": sobel[1]} | changes
    with pytest.raises(UsageError, match=said):
        filters.train_model(model, **settings)


def test_a_loss_that_is_no_number_is_said_and_nothing_is_written(model, tmp_path):
    broken = TensorDataset(torch.full((2, 3, 8, 8), torch.nan), torch.zeros(2, 1, 8, 8))
    with pytest.raises(ModelError, match="the loss became nan in epoch 1; lower learning_rate"):
        filters.train_model(model, broken, broken, save_best=True, save_path=tmp_path / "best.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_of_other_channels_is_refused(model):
    colour = TensorDataset(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    with pytest.raises(
        ShapeError, match=r"makes \(2, 1, 8, 8\) of a batch .* but the targets are \(2, 3, 8, 8\)"
    ):
        filters.train_model(model, colour, colour)


# ---- What has been learned ----------------------------------------------------------------------------


def test_metrics_are_means_over_the_pictures(sobel, model):
    found = filters.compute_metrics(model, sobel[1], batch_size=4)
    pairs = []
    for index in range(len(sobel[1])):
        picture, expected = sobel[1][index]
        pairs.append((model(picture[None])[0, 0].detach().clamp(0, 1).numpy(), expected[0].numpy()))
    assert found.psnr == pytest.approx(np.mean([metrics.psnr(a, b) for a, b in pairs]), rel=1e-5)
    assert found.ssim == pytest.approx(np.mean([metrics.ssim(a, b) for a, b in pairs]), abs=1e-5)


def test_a_picture_of_any_size_is_filtered_as_apply_does_it(model, tmp_path):
    picture = photograph("chelsea")[:37, :53]
    files.write_png(tmp_path / "cat.png", picture)
    given = filters.apply_filter(tmp_path / "cat.png", model)
    assert (given.shape, given.dtype) == ((37, 53), np.uint8)
    batch = picture.transpose(2, 0, 1)[None].astype(np.float32) / 255
    learned = diptych.from_torch(model, example=batch)
    applied = filters.apply(learned.with_(input_shape=(3, None, None)), picture, engine="torch")
    assert np.abs(applied.astype(int) - given).max() <= 1  # the order of additions may decide a tie
    with pytest.raises(ImageError):
        filters.apply_filter(tmp_path / "nothing.png", model)


def test_a_grey_picture_is_filtered_by_a_grey_model_without_a_warning(tmp_path):
    files.write_png(tmp_path / "grey.png", photograph("chelsea")[:37, :53, 0])
    given = filters.apply_filter(tmp_path / "grey.png", torch.nn.Conv2d(1, 1, 3, padding=1))
    assert given.shape == (37, 53)


def test_the_figures_can_be_kept(sobel, model, tmp_path):
    filters.preview_predictions(sobel[1], model, count=2, path=tmp_path / "grid.png")
    filters.plot_losses([0.3, 0.02, 0.01], [0.4, 0.03, 0.02], tmp_path / "losses.png")
    for name in ("grid.png", "losses.png"):
        with Image.open(tmp_path / name) as drawn:
            assert min(drawn.size) > 300
            assert len(np.unique(np.asarray(drawn.convert("L")))) > 30
    figure = filters.plot_losses([0.3, 0.2], [0.4, 0.5])
    assert [line.get_xydata()[0].tolist() for line in figure.axes[0].lines] == [[1, 0.3], [1, 0.4], [1, 0.4]]
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="nothing to preview"):
        filters.preview_predictions(sobel[1], model, count=0)
    with pytest.raises(ShapeError, match="got 1 and 0"):
        filters.plot_losses([0.1], [])


def test_model_and_data_set_come_in_either_order(sobel, model, tmp_path):
    for order, name in (((sobel[1], model), "a.png"), ((model, sobel[1]), "b.png")):
        filters.preview_predictions(*order, count=2, path=tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert filters.compute_metrics(sobel[1], model) == filters.compute_metrics(model, sobel[1])
    for wrong in ((model, model), (sobel[1], sobel[1]), (sobel[1], None)):
        with pytest.raises(UsageError, match="a model and a data set are expected"):
            filters.preview_predictions(*wrong)


def test_the_guide_shows_the_import_line():
    guide = (Path(__file__).parent.parent / "docs" / "filters.md").read_text()
    assert OURS in guide
