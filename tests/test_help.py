"""What the help says works: every command has examples that it takes, and `doctor` says what is missing."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from typing import Any

import click
import pytest
import typer

import diptych
from diptych.cli import app
from diptych.cli.examples import EXAMPLES, JOBS

ROOT: Any = typer.main.get_command(app)
LINES = [line for line in JOBS.splitlines() if line.startswith("diptych ")]
LINES += [line for lines in EXAMPLES.values() for line in lines if line.startswith("diptych ")]


def names() -> list[str]:
    found = []
    for name, command in ROOT.commands.items():
        found += [f"{name} {inner}" for inner in command.commands] if hasattr(command, "commands") else [name]
    return found


@pytest.mark.parametrize("line", LINES)
def test_every_example_is_taken(line: str) -> None:
    words, command, name = shlex.split(line)[1:], ROOT, "diptych"
    while hasattr(command, "commands"):
        name, command = words[0], command.commands[words.pop(0)]
    made = command.make_context(name, words)  # raises where an option or argument is wrong
    assert made.command is command


@pytest.mark.parametrize("name", names())
def test_every_command_has_examples_in_its_help(name: str) -> None:
    command = ROOT
    for word in name.split():
        command = command.commands[word]
    text = command.get_help(click.Context(command, info_name=f"diptych {name}"))
    assert f"diptych {name}" in text.partition("Examples:")[2]


def test_the_bare_command_names_five_jobs(diptych_command: Any) -> None:
    shown = diptych_command()
    text = shown.out + shown.err
    assert text.count("\n  diptych ") == 5
    assert "--install-completion" in text


def test_doctor_says_what_is_there_and_what_is_missing(diptych_command: Any, monkeypatch: Any) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "ray":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    shown = diptych_command("doctor")
    assert shown.status == 0
    assert f"Diptych {diptych.__version__}" in shown.out
    assert "onnxruntime: ready" in shown.out
    (line,) = [line for line in shown.out.splitlines() if line.strip().startswith("ray: ")]
    assert "pip install" in line
    assert "[ray]" in line
    document = json.loads(diptych_command("doctor", "--json").out)
    assert {"diptych", "python", "machine", "packages", "engines", "devices", "julia", "caches"} == set(
        document
    )


def test_the_page_is_opened_at_the_end(diptych_command: Any, monkeypatch: Any, tmp_path: Any) -> None:
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    done = diptych_command("run", "the sea", "--count", 1, "--static", "--open", "--out", tmp_path / "out")
    assert done.status == 0
    assert opened == [(tmp_path / "out" / "report.html").as_uri()]
