"""The training interface of the Img2Img project: a small network is trained on a filter in plain PyTorch.

`create_img2img_model`, `load_filtered_dataset` and `train_model` take and return PyTorch's own objects. A trained
module becomes a Diptych model by `diptych.from_torch`, for `filters.apply` and every file format.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from diptych.datasets.downloading import local
from diptych.datasets.tiny_imagenet import TinyImageNet, is_tiny_imagenet
from diptych.errors import ModelError, ShapeError, UsageError
from diptych.files import check_writable, replacing
from diptych.filters import data, metrics, targets
from diptych.filters.evaluating import HIGHEST_PSNR
from diptych.filters.planes import REC601, picture_of, planes_of
from diptych.filters.target import Target
from diptych.images import files
from diptych.model.layers import Array
from diptych.progress import Progress, silent

__all__ = [
    "FilteredPictures",
    "Metrics",
    "apply_filter",
    "compute_metrics",
    "create_img2img_model",
    "load_filtered_dataset",
    "plot_losses",
    "preview_predictions",
    "train_model",
]

COUNT = 2048  # pictures for training; an eighth as many are for validation


# ---- The model ----------------------------------------------------------------------------------------


def create_img2img_model(
    num_input_channels: int = 3,
    num_output_channels: int = 1,
    kernel_size: int = 3,
    *,
    initialisation: str = "edges",
) -> nn.Sequential:
    """Creates three convolutions with ReLUs between them.

    The numbers of channels are `num_input_channels` -> 1 -> 1 -> `num_output_channels`.

    With 3 input channels, 1 output channel and 3 x 3 kernels it has 28 + 10 + 10 = 48 weights. The picture keeps its
    size; it is padded with zeros.

    Training only works from a good start: a single channel between two ReLUs easily passes nothing on, and the network
    then becomes a constant. So the weights start as an edge detector with a little noise from PyTorch's global
    generator: the luma, each pixel minus the mean of those around it, and the mean of what is above zero.

    Args:
        num_input_channels: 3 for RGB, 1 for grey.
        num_output_channels: 3 for RGB, 1 for grey.
        kernel_size: An odd number.
        initialisation: "edges", or "torch" for PyTorch's own initial weights, as in the Img2Img project.

    Returns:
        The network, for batches (N, C, H, W).

    Raises:
        UsageError: The kernel size is even, there is no channel, or the initialisation is unknown.
    """
    if num_input_channels < 1 or num_output_channels < 1:
        raise UsageError(
            f"a network needs at least one channel in and out, got {num_input_channels} and {num_output_channels}"
        )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UsageError(f"kernel_size must be an odd number such as 3, got {kernel_size}")
    if initialisation not in ("edges", "torch"):
        raise UsageError(f'initialisation must be "edges" or "torch", not {initialisation!r}')

    def convolution(inputs: int, outputs: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)

    convolutions = (
        convolution(num_input_channels, 1),
        convolution(1, 1),
        convolution(1, num_output_channels),
    )
    if initialisation == "edges":
        _detect_edges(*convolutions)
    first, second, third = convolutions
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)


_NOISE = 0.02  # the standard deviation of the noise on initial weights
_CONTRAST = 2.0  # about what the Sobel filter gives for an edge of one level


@torch.no_grad()
def _detect_edges(first: nn.Conv2d, second: nn.Conv2d, third: nn.Conv2d) -> None:
    """Sets the weights to an edge detector; see `create_img2img_model`."""
    channels, side = first.in_channels, first.kernel_size[0]
    for layer in (first, second, third):
        layer.weight.normal_(0, _NOISE)
        assert layer.bias is not None
        layer.bias.zero_()
    luma = torch.tensor(REC601) if channels == 3 else torch.full((channels,), 1 / channels)
    first.weight[0, :, side // 2, side // 2] += luma
    around = max(side**2 - 1, 1)
    second.weight -= 1 / around
    second.weight[0, 0, side // 2, side // 2] += 1 + 1 / around
    third.weight += _CONTRAST / side**2


# ---- Data ---------------------------------------------------------------------------------------------


class FilteredPictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures with the filter's results: float32 (C, H, W) and (C', H, W), both in 0..1.

    Args:
        pictures: Uint8 of one size, (H, W, 3) or (H, W).
        target: The filter.
    """

    def __init__(self, pictures: Sequence[Array], target: Target) -> None:
        """Applies the filter to all pictures."""
        self._inputs = torch.from_numpy(np.stack([planes_of(picture) for picture in pictures]))
        self._targets = torch.from_numpy(np.stack([planes_of(target(picture)) for picture in pictures]))

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._inputs[index].float() / 255, self._targets[index]


def load_filtered_dataset(
    filter: Any = "sobel",  # noqa: A002 - the name in the Img2Img project
    path: str | Path | None = None,
    size: int = 64,
    count: int | None = None,
    seed: int = 0,
) -> tuple[FilteredPictures, FilteredPictures]:
    """Loads pictures with their filtered versions, for training and for validation.

    Args:
        filter: A name with parameters ("gaussian:sigma=2", "random:seed=3"), or whatever `targets.resolve` takes.
        path: Tiny ImageNet's folder, archive or address, or any folder of pictures; by default the photographs
            that come with scikit-image.
        size: The side of the squares in pixels.
        count: The number of squares for training, 2048 by default; an eighth as many are for validation.
        seed: From which the random squares are drawn.

    Returns:
        The data sets for training and for validation, which share no photograph.

    Raises:
        UsageError: There are no pictures of that size, or the filter does not exist.
        ImageError: A picture cannot be read.
    """
    target = targets.resolve(filter)
    number = COUNT if count is None else count
    if number < 1 or size < 1:
        raise UsageError(f"count and size must be at least 1, got {number} and {size}")
    gathered = _gathered(path, target.channels[0], number, seed)
    random = np.random.default_rng(seed)
    train = _squares(gathered.train, size, number, random)
    held_out = _squares(tuple(gathered.held_out.values()), size, math.ceil(number / 8), random)
    return FilteredPictures(train, target), FilteredPictures(held_out, target)


def _gathered(path: str | Path | None, channels: int, count: int, seed: int) -> data.Data:
    path = path if path is None else local(path)
    if path is None or not is_tiny_imagenet(path):
        return data.gather(path, channels=channels, seed=seed)
    pictures = TinyImageNet(path)
    train = pictures.examples("train", count)
    held_out = pictures.examples("val", math.ceil(count / 8))
    return data.Data(
        tuple(data.with_channels(example.pixels, channels) for example in train),
        {example.name: data.with_channels(example.pixels, channels) for example in held_out},
    )


def _squares(pictures: Sequence[Array], size: int, count: int, random: np.random.Generator) -> list[Array]:
    """Random squares in random order; the number from a picture is in proportion to the places in it."""
    places = np.array([math.prod(max(side - size + 1, 0) for side in p.shape[:2]) for p in pictures], float)
    if not places.any():
        raise UsageError(
            f"none of the {len(pictures)} pictures has {size} x {size} pixels; choose a smaller size"
        )
    evenly = (np.arange(count) + 0.5) / count
    chosen = np.searchsorted(np.cumsum(places) / places.sum(), evenly)
    squares = []
    for number in random.permutation(chosen):
        top, left = (random.integers(0, side - size + 1) for side in pictures[number].shape[:2])
        squares.append(pictures[number][top : top + size, left : left + size])
    return squares


# ---- Training -----------------------------------------------------------------------------------------


def train_model(
    model: nn.Module,
    train_dataset: Dataset[Any],
    val_dataset: Dataset[Any],
    max_epochs: int = 100,
    early_stopping_patience: int = 5,
    batch_size: int = 128,
    learning_rate: float = 0.001,
    save_best: bool = False,
    save_path: str | Path | None = None,
    *,
    progress: Progress = silent,
) -> tuple[list[float], list[float]]:
    """Trains `model` in place, and leaves the weights with the smallest validation loss in it.

    The loss is L1. The optimiser is Adam, whose learning rate falls along half a cosine to 0 at `max_epochs`. Batches
    are shuffled by PyTorch's global generator.

    Args:
        model: The network.
        train_dataset: Pairs of tensors, float32 in 0..1.
        val_dataset: The same.
        max_epochs: The largest number of epochs.
        early_stopping_patience: Epochs without a smaller validation loss after which training stops.
        batch_size: Pairs in a batch.
        learning_rate: The initial learning rate.
        save_best: Whether to save the best weights at each improvement.
        save_path: The file for them, a `state_dict` that `torch.load(save_path, weights_only=True)` reads.
        progress: Called with the epochs done, all epochs, and a line of text.

    Returns:
        The training losses and the validation losses, one for each epoch.

    Raises:
        UsageError: A data set is empty, a setting is out of range, or `save_best` is set without `save_path`.
        ShapeError: The model's result has another shape than the data set's.
        ModelError: The loss becomes infinite or NaN.
        OutputError: `save_path` cannot be written.
    """
    _check_settings(max_epochs, early_stopping_patience, batch_size, learning_rate)
    if save_best and save_path is None:
        raise UsageError("save_best needs a file to save to; give save_path, such as 'best_model.pth'")
    if save_best and save_path is not None:
        check_writable(save_path)
    batches = _batches(train_dataset, batch_size, "train_dataset", shuffle=True)
    validation = _batches(val_dataset, batch_size, "val_dataset", shuffle=False)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max_epochs)
    train_losses: list[float] = []
    val_losses: list[float] = []
    best: Mapping[str, Tensor] = copy.deepcopy(model.state_dict())
    for epoch in range(1, max_epochs + 1):
        train_losses.append(_train_epoch(model, batches, optimiser, epoch))
        schedule.step()
        val_losses.append(_validate(model, validation, epoch))
        progress(epoch, max_epochs, f"validation loss {val_losses[-1]:.5f}")
        if val_losses[-1] < min(val_losses[:-1], default=math.inf):
            best = copy.deepcopy(model.state_dict())
            if save_best and save_path is not None:
                _save(best, save_path)
        elif epoch - 1 - int(np.argmin(val_losses)) >= early_stopping_patience:
            break
    model.load_state_dict(best)
    return train_losses, val_losses


def _check_settings(max_epochs: int, patience: int, batch_size: int, learning_rate: float) -> None:
    least_one = {"max_epochs": max_epochs, "early_stopping_patience": patience, "batch_size": batch_size}
    for name, value in least_one.items():
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    if not 0 < learning_rate < math.inf:
        raise UsageError(f"learning_rate must be a number above 0, such as 0.001, got {learning_rate}")


def _batches(dataset: Dataset[Any], size: int, name: str, *, shuffle: bool) -> DataLoader[Any]:
    if not len(dataset):  # type: ignore[arg-type]
        raise UsageError(f"{name} is empty; load_filtered_dataset() returns data sets with pictures")
    return DataLoader(dataset, batch_size=size, shuffle=shuffle)


def _train_epoch(
    model: nn.Module, batches: DataLoader[Any], optimiser: torch.optim.Optimizer, epoch: int
) -> float:
    model.train()
    total, count = 0.0, 0
    for inputs, target in batches:
        loss = _loss(model, inputs, target, epoch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total, count = total + float(loss.detach()) * len(inputs), count + len(inputs)
    return total / count


@torch.no_grad()
def _validate(model: nn.Module, batches: DataLoader[Any], epoch: int) -> float:
    model.eval()
    total, count = 0.0, 0
    for inputs, target in batches:
        total += float(_loss(model, inputs, target, epoch)) * len(inputs)
        count += len(inputs)
    return total / count


def _loss(model: nn.Module, inputs: Tensor, target: Tensor, epoch: int) -> Tensor:
    device = _device(model)
    given = model(inputs.to(device))
    if given.shape != target.shape:
        raise ShapeError(
            f"the model makes {tuple(given.shape)} of a batch {tuple(inputs.shape)}, but the targets are "
            f"{tuple(target.shape)}; create the model with the data set's numbers of channels"
        )
    loss = nn.functional.l1_loss(given, target.to(device))
    if not torch.isfinite(loss):
        raise ModelError(
            f"the loss became {float(loss.detach())} in epoch {epoch}; lower learning_rate, "
            "or look for NaN in the data set"
        )
    return loss


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _save(weights: Mapping[str, Tensor], path: str | Path) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save(dict(weights), stream)


# ---- Using the model -----------------------------------------------------------------------------------


class Metrics(NamedTuple):
    """Means over the pictures of a data set.

    Attributes:
        psnr: PSNR in dB.
        ssim: Structural similarity.
    """

    psnr: float
    ssim: float


@torch.no_grad()
def _answers(model: nn.Module, inputs: Tensor) -> Array:
    """The model's result for a batch, float32 in 0..1."""
    was_training = model.training
    model.eval()
    given = model(inputs.to(_device(model))).clamp(0, 1).cpu().numpy()
    model.train(was_training)
    return np.asarray(given)


def apply_filter(path: str | Path, model: nn.Module) -> Array:
    """Filters the picture of a file, of any size.

    `filters.apply_file` does the same by tiles, and writes a file.

    Args:
        path: The picture file.
        model: A trained network.

    Returns:
        Uint8 (H, W), or (H, W, 3) for three output channels.

    Raises:
        ImageError: The file is not a picture.
    """
    convolution = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = 1 if convolution is not None and convolution.in_channels == 1 else 3
    picture = data.with_channels(files.read(path).pixels, channels)
    planes = torch.from_numpy(
        planes_of(picture).astype(np.float32)
    )  # a copy, because what was read may be read-only
    given = _answers(model, planes[None] / 255)[0]
    return metrics.to_levels(picture_of(given))


def _in_order(one: Any, other: Any) -> tuple[nn.Module, Dataset[Any]]:
    """The model and the data set, which may be given in either order."""
    model, dataset = (one, other) if isinstance(one, nn.Module) else (other, one)
    if not isinstance(model, nn.Module) or isinstance(dataset, nn.Module):
        raise UsageError(
            f"a model and a data set are expected, not {type(one).__name__} and {type(other).__name__}; "
            "give what create_img2img_model and load_filtered_dataset return"
        )
    return model, dataset


def compute_metrics(
    model: nn.Module | Dataset[Any], dataset: Dataset[Any] | nn.Module, batch_size: int = 128
) -> Metrics:
    """Computes PSNR and SSIM of a model on a data set, as means over its pictures.

    Results are clipped to 0..1 and not rounded. A picture without any error counts as 150 dB.

    Args:
        model: A trained network.
        dataset: Pairs of tensors, float32 in 0..1.
        batch_size: Pairs in a batch.

    The model and the data set may come in either order.

    Raises:
        UsageError: The data set is empty, or not one of both is given.
    """
    model, dataset = _in_order(model, dataset)
    psnrs, ssims = [], []
    for given, target in _pairs(model, dataset, batch_size):
        psnrs.append(min(metrics.psnr(given, target), HIGHEST_PSNR))
        ssims.append(metrics.ssim(given, target))
    return Metrics(float(np.mean(psnrs)), float(np.mean(ssims)))


def _pairs(model: nn.Module, dataset: Dataset[Any], batch_size: int) -> Iterator[tuple[Array, Array]]:
    for inputs, target in _batches(dataset, batch_size, "dataset", shuffle=False):
        for given, each in zip(_answers(model, inputs), target.numpy(), strict=True):
            yield picture_of(given), picture_of(each)


def preview_predictions(
    dataset: Dataset[Any] | nn.Module,
    model: nn.Module | Dataset[Any],
    count: int = 6,
    path: str | Path | None = None,
) -> Any:
    """Draws the first pictures of a data set: input, output, target, and the PSNR of each.

    Args:
        dataset: Pairs of tensors, float32 in 0..1.
        model: A trained network.
        count: The number of pictures.
        path: A PNG file to write; None writes nothing.

    The data set and the model may come in either order, as the Img2Img project says both.

    Returns:
        A matplotlib figure, which notebooks show.

    Raises:
        UsageError: There is no picture to show, or not one of both.
        OutputError: The file cannot be written.
    """
    from diptych.report.curves import pictures_figure
    from diptych.report.figure import save

    model, dataset = _in_order(dataset, model)
    rows, notes = [], []
    for index in range(min(count, len(dataset))):  # type: ignore[arg-type]
        inputs, target = dataset[index]
        given = picture_of(_answers(model, inputs[None])[0])
        pictures = (picture_of(inputs.numpy()), given, picture_of(target.numpy()))
        rows.append([metrics.to_levels(picture) for picture in pictures])
        notes.append(f"PSNR {metrics.psnr(given, pictures[2]):.2f} dB")
    if not rows:
        raise UsageError("there is nothing to preview: the data set is empty, or count is 0")
    figure = pictures_figure(rows, ("Input", "Output", "Target"), notes)
    if path is not None:
        save(figure, path)
    return figure


def plot_losses(
    train_losses: Sequence[float], val_losses: Sequence[float], path: str | Path | None = None
) -> Any:
    """Draws the losses that `train_model` returns over the epochs.

    Args:
        train_losses: One for each epoch.
        val_losses: One for each epoch.
        path: A PNG file to write; None writes nothing.

    Returns:
        A matplotlib figure, which notebooks show.

    Raises:
        ShapeError: There are no losses, or not equally many.
        OutputError: The file cannot be written.
    """
    from diptych.report.curves import loss_figure
    from diptych.report.figure import save

    figure = loss_figure(train_losses, val_losses)
    if path is not None:
        save(figure, path)
    return figure
