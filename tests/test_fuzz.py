"""The inputs that once made a reader fail, and the good files that fuzzing begins with, are read or refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from fuzz.mutating import Mutator
from fuzz.running import attempt
from fuzz.targets import TARGETS, Target

pytestmark = pytest.mark.usefixtures("one_thread")
CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


@pytest.mark.parametrize(
    ("name", "file"), [(path.parent.name, path.name) for path in sorted(CORPUS.glob("*/*"))]
)
def test_what_once_failed_is_read_or_refused_in_a_sentence(tmp_path: Path, name: str, file: str) -> None:
    target = TARGETS[name]
    path = Path(shutil.copyfile(CORPUS / name / file, tmp_path / f"input{target.suffix}"))
    _, said, fault = attempt(target, path)
    assert fault is None, fault.trace
    assert said


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_read_and_damaged_ones_refused(tmp_path: Path, name: str) -> None:
    target, path = TARGETS[name], tmp_path / f"input{TARGETS[name].suffix}"
    good = target.seeds[:: 1 + len(target.seeds) // 12]
    read = sum(_read(target, path, content) for content in good)
    assert 4 * read >= len(good)  # some hold other values than models, such as states
    mutator, damaged = Mutator(0), 0
    for content in good:
        damaged += not _read(target, path, mutator.bytes(content[: len(content) // 2]))
    assert damaged or name == "unfinished"  # where the lines that are not whole are left out


def _read(target: Target, path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    read, _, fault = attempt(target, path)
    assert fault is None, fault.trace
    return read


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_seed_damages_alike(name: str) -> None:
    content = TARGETS[name].seeds[0]
    for damage in (Mutator.bytes, *TARGETS[name].shapes[:1]):
        first, second = ([damage(m, content, content) for _ in range(5)] for m in (Mutator(7), Mutator(7)))
        assert first == second
        assert any(changed != content for changed in first)


def test_what_must_not_be_is_noticed(tmp_path: Path) -> None:
    def breaks(path: Path) -> str:
        raise KeyError(path.name)

    _, _, fault = attempt(Target("broken", ".txt", breaks), tmp_path / "a.txt")
    assert fault is not None
    assert "KeyError" in fault.what
    assert "test_fuzz.py" in fault.trace
