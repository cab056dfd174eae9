"""What several tests need: the command line run in this process, and a few real photographs on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# Two cores, shared: a slow example is not a failure.
settings.register_profile("diptych", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("diptych")


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


@pytest.fixture
def diptych_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`diptych ...` as a user runs it, without the cost of a new process."""
    from diptych.__main__ import main

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(int(end.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real photographs: colour JPEG and PNG, and a grey one."""
    from diptych.datasets import photographs

    folder = tmp_path_factory.mktemp("photographs")
    for name, suffix in (("astronaut", "jpg"), ("coffee", "png"), ("camera", "png")):
        Image.fromarray(photographs.photograph(name)).save(folder / f"{name}.{suffix}")
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would ask a model hub is told that there is none, so that no test waits for one."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small networks are slower on several threads of PyTorch than on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small_figures() -> Iterator[None]:
    """Figures of a fifth of the pixels a side, where what is drawn is not the point: a run takes 2/3 the time."""
    from diptych.report import figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure, "_DPI", 30)
        yield
