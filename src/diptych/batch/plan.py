"""The plan of a job: what decides every byte of its parts, kept in the manifest of its folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.batch.inputs import Input
from diptych.errors import OutputError, reason
from diptych.files import as_text, is_file, replacing
from diptych.journal import difference, versions

__all__ = ["MANIFEST", "Plan", "changes", "read_manifest", "write_manifest"]

MANIFEST = "manifest.json"
_LARGEST = 2**31  # bytes of a manifest that is read
_MOST_NAMED = 3


@dataclass(frozen=True)
class Plan:
    """What a job computes.

    Attributes:
        settings: Everything beside the pictures that decides the results, as a JSON object.
        inputs: The pictures, in order.
        shard_size: How many pictures a part has at most. Parts are as equal as they can be, so that processes that
            work side by side end together.
    """

    settings: Mapping[str, Any]
    inputs: tuple[Input, ...]
    shard_size: int
    id: str = field(init=False)
    """A SHA-256 of the settings and of the pictures' names; every part carries it."""

    def __post_init__(self) -> None:
        names = [[one.name, one.archive, one.offset, one.inside] for one in self.inputs]
        text = json.dumps([self.settings, self.shard_size, names], sort_keys=True)
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest())

    @property
    def shards(self) -> int:
        """How many parts the job has."""
        return -(-len(self.inputs) // self.shard_size)

    def of_shard(self, number: int) -> tuple[Input, ...]:
        """The pictures of a part, 0 to `shards` - 1."""
        first, end = (n * len(self.inputs) // self.shards for n in (number, number + 1))
        return self.inputs[first:end]


def write_manifest(folder: Path, plan: Plan, facts: Mapping[str, Any]) -> None:
    """Writes manifest.json: the plan, and facts about the job that decide nothing.

    Raises:
        OutputError: It cannot be written.
    """
    head = {"settings": plan.settings, "shard_size": plan.shard_size, "id": plan.id, **facts}
    lines = json.dumps(head, indent=1)[:-2]
    inputs = ",\n".join(
        json.dumps([one.name, one.size, one.modified, one.archive, one.offset, one.inside])
        for one in plan.inputs
    )
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(f'{lines},\n "inputs": [\n{inputs}\n]\n}}\n', "utf-8")


def read_manifest(folder: Path) -> tuple[Plan, dict[str, Any]] | None:
    """Reads manifest.json.

    Returns:
        The plan and the other facts; None where there is no such file.

    Raises:
        OutputError: It cannot be read, or is not as it was written.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    try:
        if not is_file(path) or path.stat().st_size > _LARGEST:
            raise ValueError("not an ordinary file")
        document = json.loads(path.read_bytes())
        inputs = tuple(Input(*one) for one in document.pop("inputs"))
        plan = Plan(document.pop("settings"), inputs, document.pop("shard_size"))
        whole = all(_well_formed(one) for one in inputs) and document.pop("id") == plan.id
        if not whole or not _counts(document, plan):
            raise ValueError("it was edited")
    except OSError as error:
        raise OutputError(f"cannot read {path}: {reason(error)}; choose another --out") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ZeroDivisionError) as error:
        raise OutputError(
            f"{path} is not the manifest of a job as it was written; put the original back, choose another --out, "
            "or pass --overwrite to begin again"
        ) from error
    return plan, document


def _well_formed(one: Input) -> bool:
    numbers = (one.size, one.modified, one.offset)
    texts = (one.name, one.inside, *([] if one.archive is None else [one.archive]))
    return all(type(n) is int for n in numbers) and all(isinstance(text, str) for text in texts)


def _counts(document: Mapping[str, Any], plan: Plan) -> bool:
    """Whether what the manifest of a finished job says of its parts can be true of the plan."""
    if document.get("status") != "done":
        return True
    parts = document["parts"]
    sizes = [len(plan.of_shard(number)) for number in range(plan.shards)]
    return [part["rows"] for part in parts] == sizes and all(
        type(part["failed"]) is int and 0 <= part["failed"] <= size
        for part, size in zip(parts, sizes, strict=True)
    )


def difference_of(before: Plan, now: Plan) -> str | None:
    """What the two plans were asked to do differently, in words; None if nothing."""
    if before.settings == now.settings and before.shard_size == now.shard_size:
        return None
    return difference({**before.settings, "shard_size": before.shard_size},
                      {**now.settings, "shard_size": now.shard_size})  # fmt: skip


def changes(before: Sequence[Input], now: Sequence[Input], known: Mapping[str, str]) -> list[str]:
    """Sentences about what has changed since a job was planned.

    Args:
        before: The pictures of the plan.
        now: The pictures that the same arguments stand for now.
        known: The versions of packages that the job was begun with.
    """
    then, here = {one.name: one for one in before}, {one.name: one for one in now}
    gone = [name for name in then if name not in here or here[name].size < 0 <= then[name].size]
    new = [name for name in here if name not in then]
    changed = [
        name
        for name, one in then.items()
        if name in here
        and name not in gone
        and (one.size, one.modified) != (here[name].size, here[name].modified)
    ]
    said = []
    if gone:
        said.append(f"{_named(gone)} not there any more; rows that are not made yet get an error")
    if new:
        said.append(
            f"{_named(new)} not in the job, because it was planned before; choose another --out to take all"
        )
    if changed:
        said.append(
            f"{_named(changed)} changed since the job was planned; parts that are finished keep what was there: "
            "delete them to have them made again"
        )
    other = [
        name for name, version in versions().items() if name != "platform" and known.get(name) != version
    ]
    if known and other:
        name = other[0]
        said.append(
            f"the job was begun with {name} {known.get(name, '(none)')} and goes on with {versions()[name]}: "
            "rows may differ in the last digits"
        )
    return said


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(as_text(name) for name in names[:_MOST_NAMED])
    if len(names) == 1:
        return f"1 picture ({shown}) is"
    rest = ", ..." if len(names) > _MOST_NAMED else ""
    return f"{len(names)} pictures ({shown}{rest}) are"
