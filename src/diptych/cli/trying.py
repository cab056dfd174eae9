"""`diptych predict MODEL FOLDER --try-recipes`, and the same of `compare` for both models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from diptych.cli.terminal import Terminal
from diptych.errors import UsageError

__all__ = ["TryRecipes", "only_ranked", "show_tried", "show_tried_of_both"]

_SHOWN = 10

TryRecipes = Annotated[
    bool,
    typer.Option(
        "--try-recipes",
        help="Rank the recipes by the pictures that get the class, by name or number from 0, of their folder.",
    ),
]


def only_ranked(**options: object) -> None:
    """Raises `UsageError` where an option was given that ranking recipes does not use."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                f"--{name} does not go with --try-recipes, which ranks recipes and writes nothing"
            )


def show_tried(terminal: Terminal, model: Any, images: list[Path] | None, engine: str, device: str) -> None:
    """Prints the recipes, the best first, and ends the command."""
    tried, lines, document = _tried(model, images, engine, device)
    lines.append(
        "to use one: its document in --json, recipes[N].recipe, saved as recipe.json, with --preprocessing"
    )
    terminal.result({"recipes": document}, "\n".join(lines))
    same = [each for each in tried[1:] if each.right == tried[0].right]
    if same:
        terminal.remark(
            f"{len(same)} other recipes get as many right; more pictures tell more, and the likelihood decides here"
        )
    raise typer.Exit


def show_tried_of_both(
    terminal: Terminal, models: tuple[Any, Any], images: list[Path] | None, engines: tuple[str, str]
) -> None:
    """Prints the recipes of two models, the best first, and ends the command: 0 where both have the same best one."""
    lines, document, best = [], {}, []
    for letter, model, engine in zip("ab", models, engines, strict=True):
        tried, shown, documents = _tried(model, images, engine, "auto")
        lines += [f"{letter.upper()}:", *(f"  {line}" for line in shown)]
        document[letter] = documents
        best.append(tried[0])
    same = best[0].recipe.steps == best[1].recipe.steps
    lines.append(
        f"both models are right most often with {best[0].name}"
        if same
        else f"A is right most often with {best[0].name}, B with {best[1].name}: they expect different inputs"
    )
    terminal.result({"recipes": document, "same": same}, "\n".join(lines))
    raise typer.Exit(0 if same else 1)


def _tried(
    model: Any, images: list[Path] | None, engine: str, device: str
) -> tuple[list[Any], list[str], list[dict[str, Any]]]:
    """The recipes, the best first, with a line for the first of them and a document for each."""
    from diptych.trying import try_recipes

    if images is None or len(images) != 1:
        raise UsageError("--try-recipes takes one folder, with a folder of pictures for each class")
    tried = try_recipes(model, images[0], engine=engine, device=device)
    lines = [
        f"{each.right} of {each.total} right, likelihood {each.likelihood:.3f}: {each.name}"
        for each in tried[:_SHOWN]
    ]
    if len(tried) > _SHOWN:
        lines.append(f"... and {len(tried) - _SHOWN} more with --json")
    return tried, lines, [{**asdict(each), "recipe": each.recipe.to_document()} for each in tried]
