"""The verb `train`: a classifier for the user's own pictures, from one folder for each class."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych import formats
from diptych.errors import ImageError, ModelError, OutputError, UsageError
from diptych.extras import imported
from diptych.files import as_text, check_place, keep, replacing, sole_writer
from diptych.formats import safetensors
from diptych.images import files
from diptych.loading import ModelLike, Recipe, load, recipe_of
from diptych.model.layers import Array
from diptych.model.model import Model
from diptych.predicting import compiled_for
from diptych.preprocessing import Preprocessing, named
from diptych.progress import Progress, silent
from diptych.training.pictures import Folders, Split, found, split

__all__ = ["Taught", "train"]

_PARTS = ".training"
_CHUNK = 256  # pictures whose features are kept in one file
_BATCH = 32
_MOST_BYTES = 4 * 2**30  # of prepared pictures in memory
_ONE_THREAD = 3 * 32 * 32  # values of an input up to which one thread trains
_LEAST_STEPS = 300  # of few pictures, which are then gone through more often
_PATIENCE = 8  # evaluations without improvement


@dataclass(frozen=True)
class Taught:
    """A trained classifier and how well it does on pictures that it has never seen.

    Attributes:
        path: Its file.
        classes: The names of its classes.
        accuracy: The share of the pictures to judge on that it gets right, 0 to 1.
        confusion: How many of each class (rows) are taken for each class (columns).
        counts: Pictures to learn from, to choose by, and to judge on.
        majority: The accuracy of always naming the most frequent class, to compare with.
        stopped: Why the training ended, in words.
        failures: A sentence for each picture that could not be read.
        remarks: Sentences to show beside the result.
    """

    path: Path
    classes: tuple[str, ...]
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    counts: tuple[int, int, int]
    majority: float
    stopped: str
    failures: tuple[str, ...]
    remarks: tuple[str, ...]

    def to_document(self) -> dict[str, Any]:
        """The result as a JSON object."""
        learning, choosing, judging = self.counts
        return {
            "file": as_text(self.path),
            "classes": list(self.classes),
            "accuracy": round(self.accuracy, 4),
            "most_frequent_class": round(self.majority, 4),
            "confusion": [list(row) for row in self.confusion],
            "pictures": {"learning": learning, "choosing": choosing, "judging": judging},
            "stopped": self.stopped,
            "failures": list(self.failures),
            "remarks": list(self.remarks),
        }

    def text(self) -> str:
        """The accuracy, and the confusion matrix as a table."""
        width = max(len(name) for name in (*self.classes, "as"))
        numbers = [max(len(name), 4) for name in self.classes]
        head = (
            " " * width
            + "  "
            + "  ".join(name.rjust(n) for name, n in zip(self.classes, numbers, strict=True))
        )
        rows = [
            name.ljust(width)
            + "  "
            + "  ".join(str(count).rjust(n) for count, n in zip(row, numbers, strict=True))
            for name, row in zip(self.classes, self.confusion, strict=True)
        ]
        return "\n".join([
            f"{self.accuracy:.1%} of {self.counts[2]} held-out pictures right (the most frequent class alone: "
            f"{self.majority:.1%}); {self.stopped}",
            "rows: the class; columns: what it was taken for",
            head, *rows,
        ])  # fmt: skip


def train(
    folder: str | Path,
    out: str | Path,
    *,
    backbone: ModelLike | None = None,
    preprocessing: Recipe | None = None,
    size: int = 64,
    epochs: int = 40,
    seed: int = 0,
    overwrite: bool = False,
    engine: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
) -> Taught:
    """Trains a classifier for pictures.

    Without a backbone it is a small CNN. With one, the network of that name or file stays as it is, and a linear layer
    behind it is trained. A training that was interrupted goes on when it is called again with the same arguments.

    Args:
        folder: One folder in it for each class.
        out: The model file to write, in any format.
        backbone: A classifier, its file or its name, whose layers before the last linear one are used.
        preprocessing: The recipe; by default the backbone's own, or "colour-SIZE".
        size: For the small CNN: the side of its input in pixels, at least 16.
        epochs: How often the pictures are gone through, at most; few pictures are for 300 steps all the same.
        seed: Of the split, the initial weights and the order of pictures.
        overwrite: Whether to replace `out` where it exists, and to begin again where another training was interrupted.
        engine: The engine for the backbone.
        device: Its device.
        progress: Told how far it is.

    Returns:
        The accuracy on pictures that were held out; the file's notes hold it, too.

    Raises:
        ImageError: The folder does not hold pictures for two classes or more, or too few can be read.
        UsageError: An option is out of range, or the backbone has no linear layer at its end.
        OutputError: The file cannot be written, or another training was interrupted there.
        MissingExtra: PyTorch is not installed.
    """
    target = Path(out)
    _check(target, size, epochs, seed, overwrite)
    networks: Any = imported("diptych.training.networks")
    pictures = found(folder)
    keep(pictures.paths, [target])
    source = None if backbone is None else load(backbone)
    frozen = None if source is None else networks.frozen_part(source)
    recipe = recipe_of(
        preprocessing
        if preprocessing is not None
        else source
        if source is not None
        else named(f"colour-{size}")
    )
    if frozen is None and (recipe.size != (size, size) or recipe.channels != 3):
        raise UsageError(
            f"the small CNN takes colour pictures of {size} x {size}; give a recipe for these, or another --size"
        )
    parts = split(pictures.labels, pictures.hashes, seed)
    settings = {
        "pictures": pictures.identity,
        "backbone": None if frozen is None else safetensors.digest(frozen),
        "recipe": recipe.to_document(),
        "size": size,
        "epochs": epochs,
        "seed": seed,
    }
    place = target.with_name(target.name + _PARTS)
    with sole_writer(place):
        _begin(place, settings, overwrite)
        work = _Work(pictures, parts, recipe, place, progress, engine, device)
        model, stopped = work.small(networks, size, epochs, seed) if frozen is None else work.frozen(
            networks, frozen, epochs, seed
        )  # fmt: skip
        taught = _judged(
            model,
            work,
            target,
            stopped,
            {**settings, "backbone": source.name if source is not None else None},
        )
    shutil.rmtree(place, ignore_errors=True)
    return taught


def _check(target: Path, size: int, epochs: int, seed: int, overwrite: bool) -> None:
    for name, value, least, most in (
        ("size", size, 16, 1024),
        ("epochs", epochs, 1, 10_000),
        ("seed", seed, 0, 2**63 - 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UsageError(f"{name} is a whole number from {least} to {most}, not {value!r}")
    formats.written_as(target)
    check_place(target)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another --out, or pass --overwrite to replace it")


def _begin(place: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Notes what is trained, or checks that it is what was interrupted here."""
    note = place / "training.json"
    text = json.dumps(settings, sort_keys=True)
    if note.exists():
        if note.read_text("utf-8") == text:
            return
        if not overwrite:
            raise OutputError(
                f"{place} holds a training of other pictures or settings that was interrupted; finish it with these, "
                "delete the folder, or pass --overwrite"
            )
        for file in place.iterdir():
            if file.suffix in (".npz", ".pt", ".json"):
                file.unlink()
    with replacing(note) as temporary:
        temporary.write_text(text, "utf-8")


class _Work:
    """The steps of a training."""

    def __init__(
        self,
        pictures: Folders,
        parts: Split,
        recipe: Preprocessing,
        place: Path,
        progress: Progress,
        engine: str,
        device: str,
    ) -> None:
        self.pictures, self.parts, self.recipe, self.place = pictures, parts, recipe, place
        self.progress, self.engine, self.device = progress, engine, device
        self.failures: dict[int, str] = {}

    def small(self, networks: Any, size: int, epochs: int, seed: int) -> tuple[Model, str]:
        """A small CNN, trained."""
        count = len(self.pictures.paths)
        if count * 3 * size * size * 4 > _MOST_BYTES:
            raise UsageError(
                f"{count:,} pictures of {size} x {size} take more than {_MOST_BYTES / 2**30:.0f} GiB; take a smaller "
                "--size, or a --backbone"
            )
        inputs = np.zeros((count, 3, size, size), np.float32)
        for index in range(count):
            self.progress(index + 1, count, "reading pictures")
            item = self.prepared(index)
            if item is not None:
                inputs[index] = item
        module = networks.SmallCnn(len(self.pictures.classes), seed)
        stopped = self._fitted(module, inputs, epochs, seed, _moved)
        model: Model = networks.with_softmax(module, size)
        return model, stopped

    def frozen(self, networks: Any, backbone: Model, epochs: int, seed: int) -> tuple[Model, str]:
        """A linear layer behind a network, trained on what the network makes of each picture."""
        features = self._features(backbone)
        readable = self._readable(self.parts.learning)
        head, mean, deviation = networks.head_of(features[readable], len(self.pictures.classes))
        scaled = ((features - mean) / deviation).astype(np.float32)
        stopped = self._fitted(head, scaled, epochs, seed, lambda batch, rng: batch)
        model: Model = networks.with_head(backbone, head, mean, deviation)
        return model, stopped

    def prepared(self, index: int) -> Array | None:
        """The input for a picture; None, with the reason in `failures`, where it cannot be read."""
        try:
            pixels, _ = files.decode(self.pictures.paths[index])
            return self.recipe.apply(pixels)
        except ImageError as error:
            self.failures[index] = as_text(str(error))
            return None

    def _features(self, backbone: Model) -> Array:
        """The backbone's output for every picture, (N, features); each chunk is kept once it is there."""
        compiled = compiled_for(backbone, self.engine, self.device)
        count, chunks = len(self.pictures.paths), list[Array]()
        for start in range(0, count, _CHUNK):
            path = self.place / f"features-{start}.npz"
            rows, failed = _kept(path)
            if rows is None:
                rows, failed = self._computed(compiled, range(start, min(start + _CHUNK, count)), count)
                with replacing(path) as temporary, temporary.open("wb") as stream:
                    np.savez(stream, rows=rows, failed=np.array(json.dumps(failed)))
            self.failures.update({int(index): said for index, said in failed.items()})
            self.progress(min(start + _CHUNK, count), count, "running the backbone")
            chunks.append(rows)
        width = max(chunk.shape[1] for chunk in chunks)
        return np.concatenate([chunk if chunk.shape[1] == width else np.zeros((len(chunk), width), np.float32)
                               for chunk in chunks])  # fmt: skip

    def _computed(
        self, compiled: Callable[[Array], Array], indices: range, count: int
    ) -> tuple[Array, dict[str, str]]:
        rows: dict[int, Array] = {}
        for index in indices:
            self.progress(index, count, "running the backbone")
            item = self.prepared(index)
            if item is not None:
                rows[index] = compiled(item[np.newaxis]).reshape(-1)
                if not np.isfinite(rows[index]).all():
                    raise ModelError(
                        f"the backbone gives NaN or infinite values for {self.pictures.paths[index]}"
                    )
        width = max((len(row) for row in rows.values()), default=1)
        table = np.zeros((len(indices), width), np.float32)
        for index, row in rows.items():
            table[index - indices.start] = row
        return table, {str(index): self.failures[index] for index in indices if index in self.failures}

    def _readable(self, indices: Array) -> Array:
        kept = np.array([index for index in indices if index not in self.failures], np.int64)
        if len(set(self.pictures.labels[kept])) < len(self.pictures.classes):
            first = next(iter(self.failures.values()))
            raise ImageError(f"too few pictures of a class can be read; the first that cannot: {first}")
        return kept

    def _fitted(
        self,
        module: Any,
        inputs: Array,
        epochs: int,
        seed: int,
        changed: Callable[[Array, np.random.Generator], Array],
    ) -> str:
        """Trains a module in place; returns why it ended."""
        import torch
        from torch.nn.functional import cross_entropy

        from diptych.filters.learning import checkpoint, loop
        from diptych.filters.learning.schedule import Cosine

        labels = self.pictures.labels
        learning, choosing = self._readable(self.parts.learning), self._readable(self.parts.choosing)
        size = min(_BATCH, len(learning))
        each = -(-len(learning) // size)
        steps = max(epochs * each, _LEAST_STEPS)

        def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            order = np.random.default_rng([seed, step // each]).permutation(learning)
            chosen = order[step % each * size :][:size]
            if len(chosen) == 1:  # batch norm needs two
                chosen = order[:2]
            batch = changed(inputs[chosen], np.random.default_rng([seed, step, 1]))
            return torch.from_numpy(batch), torch.from_numpy(labels[chosen])

        def evaluate(network: Any) -> float:
            losses = [
                float(
                    cross_entropy(
                        network(torch.from_numpy(inputs[part])),
                        torch.from_numpy(labels[part]),
                        reduction="sum",
                    )
                )
                for part in np.array_split(choosing, -(-len(choosing) // 256))
            ]
            return -sum(losses) / len(choosing)

        def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return cross_entropy(outputs, targets, label_smoothing=0.05)

        threads = 1 if inputs[0].size <= _ONE_THREAD else None  # more take longer to meet than to compute
        with loop.threads(threads):
            trained = loop.train(
                module, batches, evaluate, steps=steps, schedule=Cosine(3e-3, warm_up=10), loss=loss,
                evaluate_every=max(each, steps // 40), ending=loop.Ending(patience=_PATIENCE, gain=-math.inf),
                state_file=self.place / "state.pt",
                identity=checkpoint.fingerprint([seed, epochs, self.pictures.identity]),
                progress=self.progress,
                told=lambda best: f"training, loss {-best:.3f}",
            )  # fmt: skip
        return trained.stopped


def _kept(path: Path) -> tuple[Array | None, dict[str, str]]:
    """The features of a chunk that were kept; None where they were not, or are damaged."""
    try:
        with np.load(path) as file:
            return file["rows"], json.loads(str(file["failed"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None, {}


def _moved(batch: Array, rng: np.random.Generator) -> Array:
    """Mirrored at random, and moved by up to an eighth of the side."""
    side = batch.shape[-1]
    far = side // 8
    padded = np.pad(batch, ((0, 0), (0, 0), (far, far), (far, far)), mode="edge")
    result = np.empty_like(batch)
    for index, (mirrored, y, x) in enumerate(
        zip(rng.random(len(batch)) < 0.5, *rng.integers(0, 2 * far + 1, (2, len(batch))), strict=True)
    ):
        part = padded[index, :, y : y + side, x : x + side]
        result[index] = part[..., ::-1] if mirrored else part
    return result


def _judged(model: Model, work: _Work, target: Path, stopped: str, settings: dict[str, Any]) -> Taught:
    """Runs the finished model on the pictures that were held out, and writes it with the result."""
    pictures, classes = work.pictures, work.pictures.classes
    model = model.with_(classes=classes, preprocessing=work.recipe, trained=True, name=target.stem)
    compiled = compiled_for(model, work.engine, work.device)
    judging = [index for index in work.parts.judging if index not in work.failures]
    confusion = np.zeros((len(classes), len(classes)), int)
    for done, index in enumerate(judging, 1):
        item = work.prepared(int(index))
        if item is not None:
            confusion[pictures.labels[index], int(compiled(item[np.newaxis]).reshape(-1).argmax())] += 1
        work.progress(done, len(judging), "judging")
    total = int(confusion.sum())
    if not total:
        raise ImageError(
            f"none of the pictures to judge on can be read; the first: {next(iter(work.failures.values()))}"
        )
    accuracy, majority = float(np.trace(confusion) / total), float(confusion.sum(axis=1).max() / total)
    learning, choosing = (
        sum(i not in work.failures for i in part) for part in (work.parts.learning, work.parts.choosing)
    )
    remarks = list(pictures.remarks)
    if accuracy <= majority:
        remarks.append("it is no better than naming the most frequent class for every picture")
    taught = Taught(
        target, classes, accuracy, tuple(tuple(map(int, row)) for row in confusion), (learning, choosing, total),
        majority, stopped, tuple(work.failures[index] for index in sorted(work.failures)), tuple(remarks),
    )  # fmt: skip
    notes = {
        "accuracy": round(accuracy, 4),
        "confusion matrix (rows: truth)": [list(row) for row in taught.confusion],
        "pictures": {"learning": learning, "choosing": choosing, "judging": total},
        "training": {name: settings[name] for name in ("backbone", "size", "epochs", "seed", "pictures")},
    }
    model = model.with_(notes=notes)
    said = formats.write(model, target)
    return Taught(**{**vars(taught), "remarks": (*taught.remarks, *said)})
