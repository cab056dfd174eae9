"""The readers that are fuzzed: for each, what it is given, and how that is damaged."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import diptych
from diptych import formats, journal, loading
from diptych.datasets.tiny_imagenet import TinyImageNet
from diptych.engines import batches
from diptych.errors import DiptychError, FormatError
from diptych.files import IN_USE
from diptych.images import files, generation, streams
from diptych.images.opening import pixel_limit
from diptych.model.document import from_document, to_document
from diptych.model.entry import likely_input
from diptych.model.model import Model
from fuzz import seeds, shapes
from fuzz.shapes import Shape

__all__ = ["OURS", "SETTINGS", "TARGETS", "Target", "trained_a_little"]

SETTINGS = {"verb": "fuzz", "seed": 1}
OURS = re.compile(r"picture_\d+\.png")
_MOST_PIXELS = 2**18  # of a picture that is read, or that a recipe makes
_MOST_VALUES = 2**18  # of a layer's output
_FREE = 16  # what a free size of an input is made


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        name: Its name, and that of its folder in the corpus.
        suffix: The suffix of its files.
        read: Reads the file; returns a few words on what was read, or raises a `DiptychError`.
        shapes: How its files may be damaged, besides byte by byte.
    """

    name: str
    suffix: str
    read: Callable[[Path], str]
    shapes: tuple[Shape, ...] = ()

    @property
    def corpus(self) -> list[bytes]:
        """The inputs that once made it fail."""
        folder = Path(__file__).parent / "corpus" / self.name
        return [path.read_bytes() for path in sorted(folder.glob("*"))]

    @functools.cached_property
    def seeds(self) -> list[bytes]:
        """The good files that the damage begins with."""
        return seeds.SEEDS[self.name]()


# ---- Models ---------------------------------------------------------------------------------------------


def read_model(path: Path) -> str:
    """Reads a model, and does with it what `inspect` and `predict` do."""
    return _used(formats.read(path))


def read_state_dict(path: Path) -> str:
    """Fills a module, and a model, with the weights in a file of `torch.save`."""
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    model = diptych.from_torch(module)
    try:
        into_module = _used(formats.read(path, architecture=module))
    except DiptychError as error:
        into_module = str(error)
    return _used(formats.read(path, architecture=model)) + into_module


def read_document(path: Path) -> str:
    """Reads the JSON of a model of every layer, each time with all the arrays that it names."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError("the readers of files answer for what is not JSON") from error
    return _used(from_document(document, _Arrays(document)))


@functools.cache
def _arrays_of() -> dict[str, dict[str, Any]]:
    return {model.name: to_document(model)[1] for model in seeds.models()}


class _Arrays(dict[str, Any]):
    """The arrays of the model whose name a document has."""

    def __init__(self, document: Any) -> None:
        name = document.get("name") if isinstance(document, dict) else None
        super().__init__(_arrays_of().get(name, {}) if isinstance(name, str) else {})


def _used(model: Model) -> str:
    with _fewer_values():
        diptych.inspect(model)
        shape = likely_input(model)
        said = "no input"
        if shape is not None:
            sizes = [_FREE if size is None else size for size in shape]
            said = "large input"
            if np.prod(sizes, dtype=float) <= _MOST_VALUES:
                said = f"{diptych.predict(model, np.ones((1, *sizes), np.float32), engine='numpy').ndim} axes"
    kinds = sorted({type(layer).__name__ for _, layer in model.walk()})
    return f"{' '.join(kinds)}: {said}"


class _fewer_values:  # noqa: N801 - used as a function
    """Lowers the engines' limit on the values of a layer, so that each input takes little time."""

    def __enter__(self) -> None:
        self._before, batches._MOST_VALUES = batches._MOST_VALUES, _MOST_VALUES

    def __exit__(self, *_: object) -> None:
        batches._MOST_VALUES = self._before


# ---- What other verbs read ------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> str:
    """Resumes a training, for one step, as far as it can."""
    trained = trained_a_little(path, 1, once=True)
    return f"{len(trained.history)} evaluations, {trained.stopped.split(' ', 1)[0]}"


def trained_a_little(path: Path, steps: int, *, once: bool = False) -> Any:
    """Trains a small network, which keeps its state in `path`; `once` stops after one step, of however many."""
    import torch

    from diptych.filters.learning.loop import Ending, train
    from diptych.filters.learning.schedule import Cosine

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3), torch.nn.BatchNorm2d(1))
    inputs = torch.linspace(0, 1, 50).reshape(2, 1, 5, 5)
    return train(
        module,
        lambda step: (inputs + step % 3, inputs[..., 1:4, 1:4]),
        lambda net: -float(net(inputs).abs().mean()),
        steps=10 * steps,
        schedule=Cosine(0.01),
        evaluate_every=steps,
        averaging=0.9,
        ending=Ending(deadline=0.0) if once else Ending(patience=1),
        state_file=path,
        identity="fuzz",
    )


def read_run_json(path: Path) -> str:
    """Goes on with the work that a run.json records, and overwrites it."""
    return _continued(path, journal.NAME)


def read_unfinished(path: Path) -> str:
    """Goes on with the work of a killed process."""
    return _continued(path, IN_USE)


def _continued(path: Path, name: str) -> str:
    said = ""
    for overwrite in (True, False):
        folder = path.with_name(f"{path.stem}.folder")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if name != journal.NAME:
            (folder / journal.NAME).write_bytes(seeds.SEEDS["run-json"]()[0])
        shutil.copyfile(path, folder / name)
        with journal.keeping(folder, SETTINGS, OURS, overwrite=overwrite) as run:
            run.make("picture_1.png", lambda file: file.write_bytes(b"pixels"))
            said += f" {len(run.files)} {len(run.found)} {len(run.timings)} {run.command[:1]}"
        json.loads((folder / journal.NAME).read_bytes())
    return said


def read_recipe(path: Path) -> str:
    """Reads a recipe and prepares pictures with it."""
    recipe = loading.recipe_of(path)
    size = recipe.size
    if size is not None and size[0] * size[1] > _MOST_PIXELS:
        return "large"
    picture = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)
    return f"{recipe.apply(picture).ndim} {recipe.apply(picture[..., 0]).ndim} {len(recipe.steps)}"


def read_record(path: Path) -> str:
    """Makes the picture again from the record in it, as `generate --like` does."""
    with pixel_limit(_MOST_PIXELS):
        record = files.read(path).record
        if record is not None and record.width * record.height > 64 * 64:
            return "large"
        return f"{generation.made_again(path).pixels.ndim}"


def read_tiny_imagenet(path: Path) -> str:
    """Reads both splits of Tiny ImageNet."""
    data = TinyImageNet(path)
    found = [len(list(data.examples(split, most))) for split in ("train", "val") for most in (None, 1)]
    return f"{len(data.classes)} {found}"


def read_picture(path: Path) -> str:
    """Decodes a picture."""
    with pixel_limit(_MOST_PIXELS):
        picture = files.read(path)
    return f"{picture.pixels.ndim} {picture.remarks}"


def read_rows(path: Path) -> str:
    """Reads a picture a few rows at a time, and a row twice."""
    with pixel_limit(_MOST_PIXELS), closing(streams.open(path)) as source:
        for top in range(0, source.height, max(1, source.height // 3)):
            band = source.rows(top, min(top + 5, source.height))
        again = source.rows(0, 1)
        return f"{band.ndim} {again.dtype} {source.remarks}"


_LIST = (
    Target("bson", ".bson", read_model, (shapes.bson,)),
    Target("jld2", ".jld2", read_model, (shapes.hdf5,)),
    Target("safetensors", ".safetensors", read_model, (shapes.safetensors,)),
    Target("onnx", ".onnx", read_model, (shapes.onnx,)),
    Target("pt", ".pt", read_model, (shapes.zipped, shapes.torch_values)),
    Target("state-dict", ".pt", read_state_dict, (shapes.zipped, shapes.torch_values)),
    Target("julia-source", ".jl", read_model),
    Target("document", ".json", read_document, (shapes.json_text,)),
    Target("checkpoint", ".pt", read_checkpoint, (shapes.zipped, shapes.torch_values)),
    Target("run-json", ".json", read_run_json, (shapes.json_text,)),
    Target("unfinished", ".json", read_unfinished, (shapes.json_lines,)),
    Target("recipe", ".json", read_recipe, (shapes.json_text,)),
    Target("record", ".png", read_record, (shapes.png,)),
    Target("tiny-imagenet", ".archive", read_tiny_imagenet, (shapes.tar, shapes.zipped)),
    Target("pictures", ".picture", read_picture, (shapes.png,)),
    Target("pictures-by-rows", ".picture", read_rows, (shapes.png,)),
    Target("tiff", ".tif", read_picture),
)

TARGETS = {target.name: target for target in _LIST}
"""Every target, by name."""
