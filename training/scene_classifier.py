"""Trains the classifier in the box: which of the ten subjects a 32 x 32 picture shows.

    python training/scene_classifier.py            # writes src/diptych/trained/scenes.safetensors

Data: scenes painted on the spot from seeds, split by seed, so no held-out scene was ever seen. The network is
`architectures.named("small-cnn-32")`, its recipe "colour-32". Everything is seeded; on one machine the result
is the same file again. AdamW, one-cycle schedule, label smoothing 0.05, mirrored pictures.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

import diptych
from diptych.images import scenes
from diptych.loading import TRAINED
from diptych.model.architectures import named
from diptych.model.layers import Chain, Conv, Dense, Flatten, Layer, MaxPool, Softmax
from diptych.model.model import Model
from diptych.preprocessing import Preprocessing

HELD_OUT_SEEDS = 1_000_000_000  # training seeds start at 0: the two never meet
BLOCK = 250
console = Console(stderr=True)


def painted(
    recipe: Preprocessing, first: int, count: int, size: int, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """`count` scenes with seeds from `first`, painted at `size` pixels: inputs (N, 3, 32, 32) and labels (N,)."""
    starts = range(first, first + count, BLOCK)
    with ProcessPoolExecutor(workers) as pool:
        parts = pool.map(
            _block, [(recipe, start, min(BLOCK, first + count - start), size) for start in starts]
        )
        done = list(track(parts, f"painting at {size} px", total=len(starts), console=console))
    return np.concatenate([x for x, _ in done]), np.concatenate([y for _, y in done])


def _block(task: tuple[Preprocessing, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    recipe, start, count, size = task
    samples = [scenes.sample(seed, size) for seed in range(start, start + count)]
    return recipe.apply_batch([s.image for s in samples]), np.array([s.label for s in samples])


def module_of(model: Model) -> nn.Sequential:
    """The model's layers as a trainable module; the softmax is left to the loss."""
    return nn.Sequential(*[part for layer in model.layers.layers for part in _modules(layer)])


def _modules(layer: Layer) -> list[nn.Module]:
    """PyTorch's modules for the few kinds of layer that the architecture has."""
    if isinstance(layer, Conv):
        out, inside, size, _ = layer.weight.shape
        module: nn.Module = nn.Conv2d(inside, out, size, padding=layer.padding[0][0])
    elif isinstance(layer, Dense):
        module = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    elif isinstance(layer, MaxPool):
        return [nn.MaxPool2d(layer.kernel, layer.stride)]
    else:
        return {Flatten: [nn.Flatten()], Softmax: []}[type(layer)]
    module.weight.data, module.bias.data = torch.tensor(layer.weight), torch.tensor(layer.bias)
    return [module, nn.ReLU()] if layer.activation else [module]


def weights_into(model: Model, module: nn.Sequential) -> Model:
    """The model with the module's weights."""
    trained = iter([part for part in module if isinstance(part, nn.Conv2d | nn.Linear)])

    def filled(layer: Layer) -> Layer:
        if not isinstance(layer, Conv | Dense):
            return layer
        part = next(trained)
        return replace(layer, weight=part.weight.detach().numpy(), bias=part.bias.detach().numpy())

    return model.with_(layers=Chain(tuple(filled(layer) for layer in model.layers.layers)))


def train(module: nn.Sequential, inputs: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int) -> None:
    """Fits the module in place."""
    generator, batch = torch.Generator().manual_seed(seed), 256
    steps = -(-len(inputs) // batch)
    optimiser = torch.optim.AdamW(module.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        module.train()
        total = 0.0
        for chosen in torch.randperm(len(inputs), generator=generator).split(batch):
            x = inputs[chosen]
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
            loss = loss_of(module(x), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(x)
        console.print(f"epoch {epoch + 1:2d} of {epochs}  loss {total / len(inputs):.4f}")


def judged(model: Model, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, list[list[int]]]:
    """Accuracy, and the confusion matrix: rows are the truth, columns the prediction."""
    said = diptych.predict(model, inputs).argmax(axis=1)
    confusion = np.zeros((len(scenes.CLASSES),) * 2, int)
    np.add.at(confusion, (labels, said), 1)
    return float((said == labels).mean()), confusion.tolist()


def main() -> None:
    """Paints, trains, judges on held-out scenes and writes the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=TRAINED["scenes"])
    parser.add_argument("--scenes", type=int, default=24_000, help="scenes to learn from")
    parser.add_argument("--held-out", type=int, default=5_000, help="scenes to judge on")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()

    start = time.perf_counter()
    torch.manual_seed(options.seed)
    model = named("small-cnn-32", seed=options.seed, classes=scenes.CLASSES)
    recipe = model.preprocessing
    inputs, labels = painted(recipe, 0, options.scenes, 64, options.workers)
    # Most pictures that users make are larger than 64 pixels; some of these keep the network honest about it.
    larger, larger_labels = painted(recipe, options.scenes, options.scenes // 15, 256, options.workers)
    module = module_of(model)
    train(
        module,
        torch.tensor(np.concatenate([inputs, larger])),
        torch.tensor(np.concatenate([labels, larger_labels])),
        options.epochs,
        options.seed,
    )
    module.eval()
    model = weights_into(model, module)
    accuracy, confusion = judged(
        model, *painted(recipe, HELD_OUT_SEEDS, options.held_out, 64, options.workers)
    )
    at_256, _ = judged(
        model, *painted(recipe, 2 * HELD_OUT_SEEDS, options.held_out // 10, 256, options.workers)
    )
    console.print(
        f"held-out accuracy {accuracy:.4f} at 64 px, {at_256:.4f} at 256 px, {time.perf_counter() - start:.0f} s"
    )
    notes = {
        "task": "which of ten subjects a painted scene shows",
        "accuracy": round(accuracy, 4),
        "accuracy at 256 pixels": round(at_256, 4),
        "confusion matrix (rows: truth)": confusion,
        "held-out scenes": options.held_out,
        "training scenes": len(inputs) + len(larger),
        "painter": scenes.VERSION,
        "epochs": options.epochs,
        "seed": options.seed,
        "script": "training/scene_classifier.py",
    }
    diptych.write(model.with_(name="scenes", trained=True, notes=notes), options.out)
    console.print(f"wrote {options.out}, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
