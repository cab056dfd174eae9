"""Writes the pages of the reference that are made from the code: every command, and the Python interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diptych
from diptych import filters

_PARTS = (
    ("The verbs", ("run", "generate", "preprocess", "predict", "trace", "features", "explain", "compare", "convert",
                   "verify", "inspect", "train", "list_models")),
    ("Reading and writing", ("load_model", "read", "write", "from_torch", "to_torch")),
    ("Results", ("Model", "Trace", "Comparison", "Explanation", "Verification", "Taught")),
    ("Recipes, limits, errors", ("Preprocessing", "pixel_limit", "DiptychError")),
)  # fmt: skip


def write_reference(folder: Path) -> None:
    """Writes commands.md and python.md; files whose content is the same are left alone."""
    folder.mkdir(exist_ok=True)
    _write(folder / "commands.md", _commands())
    _write(folder / "python.md", _python())


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


# ---- Commands --------------------------------------------------------------------------------------------------


def _commands() -> str:
    import typer

    from diptych.cli import app

    root = typer.main.get_command(app)
    lines = ["# Commands", "", "Every command with its options, as `diptych COMMAND --help` prints them.", ""]
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        if inner is None:
            lines += _command(f"diptych {name}", command)
        else:
            for each, one in inner.items():
                lines += _command(f"diptych {name} {each}", one)
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> list[str]:
    import click

    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    text = command.get_help(context).replace("\x1b", "")
    return [f"## {name}", "", "```text", text.strip(), "```", ""]


# ---- Python ----------------------------------------------------------------------------------------------------


def _python() -> str:
    left = set(diptych.__all__) - {name for _, names in _PARTS for name in names}
    assert not left, f"give {left} a place in {Path(__file__).name}"
    lines = ["# Python", ""]
    for title, names in _PARTS:
        lines += [f"## {title}", ""]
        for name in names:
            lines += _documented(f"diptych.{name}", getattr(diptych, name))
    lines += ["## Filters", ""]
    for name in sorted(filters.__all__):
        if name[0].islower() or name in ("Learned", "LearningReport", "Target", "Applied"):
            lines += _documented(f"diptych.filters.{name}", getattr(filters, name))
    return "\n".join(lines) + "\n"


def _documented(name: str, thing: Any) -> list[str]:
    home = f"{thing.__module__}.{thing.__qualname__}"
    kind = "autoclass" if isinstance(thing, type) else "autofunction"
    options = ["   :members:"] if isinstance(thing, type) else []
    return [f"### {name}", "", "```{eval-rst}", f".. {kind}:: {home}", *options, "```", ""]
