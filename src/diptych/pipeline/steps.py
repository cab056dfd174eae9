"""The steps of a run, in order: make or read the pictures, predict, plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from diptych.errors import ImageError, UsageError
from diptych.explaining import explain_item
from diptych.files import as_text, escaped, json_text, replacing
from diptych.images import files, generation
from diptych.images.arguments import as_picture, unique_names
from diptych.images.pattern import colour_bars, preview
from diptych.images.picture import Picture
from diptych.journal import Journal
from diptych.model.layers import Array
from diptych.model.summary import summarise
from diptych.pipeline.request import Request
from diptych.predicting import CHUNK, compiled_for
from diptych.predictions import Predictions
from diptych.preparing import in_order, none_readable, write_array
from diptych.progress import Progress
from diptych.report.content import Figure, LayerFigure, Skipped
from diptych.report.features import feature_plots

__all__ = ["Plots", "Seen", "batch_of", "explain_all", "plot", "predict", "see"]


@dataclass(frozen=True)
class Seen:
    """One picture and what the model sees of it.

    Attributes:
        picture: The picture, or a preview of it where it was read from a file.
        size: The (width, height) of the whole picture.
        original: The picture's file in the folder of the run.
        shown: The file that shows what the model sees.
        item: The model's input, float32 (C, H, W).
    """

    picture: Picture
    size: tuple[int, int]
    original: Path
    shown: Path
    item: Array


def see(request: Request, journal: Journal, skipped: list[Skipped], progress: Progress) -> list[Seen]:
    """Makes or reads the pictures, and writes each with what the model sees of it.

    Args:
        request: What was asked for.
        journal: The record of the run, which writes the files.
        skipped: Gets the pictures that cannot be used.
        progress: Told after each picture.

    Raises:
        ImageError: None of the pictures can be used.
    """
    generated = request.prompt is not None
    seen: list[Seen] = []
    for made, item, size in _pictures(request, journal, skipped, progress):
        number = len(seen) + 1
        name = f"generated_image_{number}" if generated else as_text(made.name)
        stem = f"generated_image_{number}" if generated else f"loaded_image_{number}"
        original = journal.out / f"{stem}.png"
        if request.images is not None:  # those of a prompt are written as soon as they are made
            journal.make(original.name, partial(files.write_png, array=made.pixels, record=made.record))
        journal.make(f"preprocessed_image_{number}.npy", partial(write_array, array=item))
        shown = journal.make(
            f"preprocessed_image_{number}.png", partial(files.write_png, array=request.recipe.display(item))
        )
        seen.append(Seen(replace(made, name=name), size, original, shown, item))
    if not seen:
        raise none_readable([one.reason for one in skipped])
    names = unique_names([one.picture.name for one in seen])
    return [
        replace(one, picture=replace(one.picture, name=name)) for one, name in zip(seen, names, strict=True)
    ]


Ready: TypeAlias = tuple[Picture, Array, tuple[int, int]]
"""A picture (a preview, if it was read from a file), the model's input, and its full (width, height)."""


def _pictures(
    request: Request, journal: Journal, skipped: list[Skipped], progress: Progress
) -> Iterator[Ready]:
    apply = request.recipe.apply
    if request.images is None:
        prompt = request.prompt or ""
        for made in generation.painted(prompt, request.options.generation, journal, progress):
            yield made, apply(made.pixels), (made.width, made.height)
        return
    total = len(request.images)

    def read(image: Path | Picture) -> tuple[Path | Picture, Ready | None, ImageError | None]:
        try:
            whole = as_picture(image)
        except ImageError as error:
            return image, None, error
        # The pixels of many photographs would fill the memory; the report only needs a preview.
        kept = replace(whole, pixels=preview(whole.pixels))
        return image, (kept, apply(whole.pixels), (whole.width, whole.height)), None

    for done, (image, ready, error) in enumerate(in_order(read, iter(request.images)), 1):
        progress(done, total, "reading pictures")
        if ready is not None:
            yield ready
            continue
        name = as_text(image.name if isinstance(image, Picture) else image.stem)
        skipped.append(Skipped(name, as_text(str(error))))
        if request.options.on_error == "test-pattern":
            bars = colour_bars(f"{name} (test pattern)", as_text(str(error)))
            yield bars, apply(bars.pixels), (bars.width, bars.height)


def batch_of(seen: list[Seen]) -> Array:
    """The inputs of all pictures as one batch; raises `UsageError` if their shapes differ."""
    shapes = {one.item.shape for one in seen}
    if len(shapes) > 1:
        raise UsageError(
            f"the recipe gives {len(shapes)} different shapes, {', '.join(map(str, sorted(shapes)[:3]))}; "
            "choose one that resizes, and converts to grey or to colour"
        )
    return np.stack([one.item for one in seen])


def predict(
    request: Request, journal: Journal, batch: Array, names: list[str], progress: Progress
) -> Predictions | None:
    """Runs the model and writes its outputs: tables for a classifier, arrays for any other model.

    Args:
        request: What was asked for.
        journal: The record of the run, which writes the files.
        batch: float32 (N, C, H, W).
        names: The names of the pictures.
        progress: Told after each forward pass.

    Returns:
        The predictions, or None where the output is not (N, classes), or is features.
    """
    compiled = compiled_for(request.model, request.options.engine, request.options.device)
    outputs = []
    for start in range(0, len(batch), CHUNK):
        outputs.append(compiled(batch[start : start + CHUNK]))
        progress(min(start + CHUNK, len(batch)), len(batch), "predicting")
    output = np.concatenate(outputs)
    if output.ndim != 2 or request.model.gives_features:
        for number, one in enumerate(output, 1):
            journal.make(f"output_{number}.npy", partial(write_array, array=one))
        return None
    predictions = Predictions.of(request.model, output, names)
    document = json_text(predictions.to_document(), indent=2)
    journal.make("predictions.json", partial(_write_text, text=document + "\n"))
    journal.make("predictions.csv", partial(_write_text, text=predictions.to_csv()))
    return predictions


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


@dataclass(frozen=True)
class Plots:
    """The plots of the first picture: views of the input, and the outputs of the layers."""

    inputs: tuple[Figure, ...]
    layers: tuple[LayerFigure, ...]


def plot(request: Request, journal: Journal, batch: Array, first: Seen, progress: Progress) -> Plots:
    """Draws the first picture's input and the output of each chosen layer, and writes the architecture.

    Args:
        request: What was asked for.
        journal: The record of the run, which writes the files.
        batch: float32 (N, C, H, W).
        first: The first picture.
        progress: Told after each plot.
    """
    trace = compiled_for(request.model, request.options.engine, request.options.device).trace(batch[:1])
    summary = summarise(request.model, batch[:1].shape)
    journal.make("model_architecture.txt", partial(_write_text, text=escaped(summary.text())))
    inputs = _plot_input(request, journal, first, progress)
    layers = feature_plots(
        trace, request.model, journal.make, request.layers, request.options.scale, progress
    )
    return Plots(inputs, tuple(layers))


def _plot_input(request: Request, journal: Journal, first: Seen, progress: Progress) -> tuple[Figure, ...]:
    from diptych.report import plots

    recipe, item = request.recipe, first.item
    seen = recipe.display(item)
    grey = recipe.upright(item).mean(axis=0)
    name = first.picture.name
    drawings: list[tuple[str, str, str, Callable[[Path], object]]] = [
        (
            "loaded_image_verification.png",
            "Loaded, and what the model sees",
            f"Two panels: {name} as it was loaded, and after the recipe, {seen.shape[1]} by {seen.shape[0]} pixels",
            partial(
                plots.loaded_image_verification,
                original=first.picture.pixels,
                preprocessed=seen,
                recipe=recipe.describe(),
                batch_item=item,
                original_size=first.size[::-1],
            ),
        ),
        (
            "input_image_visualizations.png",
            "Four views of the input",
            f"What the model sees of {name}, with the same values as a heat map, as contours and as a surface",
            partial(plots.input_image_visualizations, picture=seen, grey=grey),
        ),
        (
            "input_heatmap.png",
            "Heat map",
            f"The input values of {name} in colour",
            partial(plots.input_heatmap, grey=grey),
        ),
        (
            "input_contour.png",
            "Contours",
            f"Lines of equal input value of {name}",
            partial(plots.input_contour, grey=grey),
        ),
        (
            "input_surface.png",
            "Surface",
            f"The input values of {name} as heights",
            partial(plots.input_surface, grey=grey),
        ),
    ]
    figures = []
    for done, (file, title, alt, draw) in enumerate(drawings, 1):
        figures.append(Figure(journal.make(file, draw), title, alt))
        progress(done, len(drawings), "plotting the input")
    return tuple(figures)


def explain_all(
    request: Request, journal: Journal, seen: list[Seen], progress: Progress
) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """Draws what the answer for each picture stands on, where that was asked for.

    Args:
        request: What was asked for.
        journal: The record of the run, which writes the files.
        seen: The pictures.
        progress: Told after each picture.

    Returns:
        A figure for each picture, and sentences about those whose map says nothing.
    """
    method = request.options.explain
    if method is None:
        return (), ()
    from diptych.report.explanation import MEANINGS, draw_explanation

    figures, remarks = [], []
    for number, one in enumerate(seen, 1):
        name = one.picture.name
        found = explain_item(
            request.model, one.item, request.recipe, name,
            method=method, engine=request.options.engine, device=request.options.device,
        )  # fmt: skip
        path = journal.make(f"explanation_{number}.png", partial(draw_explanation, explanation=found))
        alt = f"Three panels: what the model saw of {name}, the map of {method}, and one over the other"
        said = " ".join(f"{each[0].upper()}{each[1:]}." for each in found.remarks)
        caption = f"By {method}; {MEANINGS[method]}. {said}".strip()
        figures.append(Figure(path, "What the answer stands on", alt, caption))
        remarks += [f"{name}: {each}" for each in found.remarks]
        progress(number, len(seen), "explaining")
    return tuple(figures), tuple(remarks)
