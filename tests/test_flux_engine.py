"""The engine "flux": its protocol, with a stand-in for Julia.

The real thing is an engine like the others: see test_every_layer_on_every_engine.py.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import diptych
from diptych import engines
from diptych.engines import julia_process
from diptych.errors import ModelError, ShapeError, UnsupportedLayer, UsageError
from diptych.model.layers import Chain, Conv, Dense, Flatten
from diptych.model.model import Model

FAKE = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('fake_julia.py')))}"
BATCH = np.linspace(0, 1, 2 * 1 * 5 * 4, dtype=np.float32).reshape(2, 1, 5, 4)


def small_model() -> Model:
    kernel = np.arange(2 * 1 * 2 * 3, dtype=np.float32).reshape(2, 1, 2, 3)
    weight = np.linspace(-1, 1, 3 * 16, dtype=np.float32).reshape(3, 16)
    return Model(Chain((Conv(kernel), Flatten(), Dense(weight))), input_shape=(1, 5, 4), name="small")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Model]]:
    """A function that sets the stand-in up to behave in one way, and gives the model that it computes."""
    monkeypatch.setattr(julia_process, "_running", {})
    monkeypatch.setenv("DIPTYCH_JULIA", FAKE)

    def ready(kind: str = "") -> Model:
        model = small_model()
        diptych.write(model, tmp_path / "model.safetensors")
        monkeypatch.setenv("FAKE_JULIA_MODEL", str(tmp_path / "model.safetensors"))
        monkeypatch.setenv("FAKE_JULIA", kind)
        return model

    yield ready
    for running in julia_process._running.values():
        running.end(grace=5)


class TestTheProtocol:
    @pytest.mark.parametrize("kind", ["", "noise"])
    def test_predictions_and_traces_come_back(self, fake: Callable[[str], Model], kind: str) -> None:
        model = fake(kind)
        expected = diptych.trace(model, BATCH, engine="numpy")
        compiled = engines.compile(model, "flux")
        trace = compiled.trace(BATCH)
        assert (compiled.engine, compiled.device) == ("flux", "cpu")
        assert list(trace) == list(expected)
        assert all(np.array_equal(trace[path], expected[path]) for path in expected)
        assert np.array_equal(compiled(BATCH), expected.output)
        assert np.array_equal(trace.input, BATCH)

    def test_one_process_serves_all_models(self, fake: Callable[[str], Model]) -> None:
        model = fake("")
        first, second = engines.compile(model, "flux"), engines.compile(model, "flux")
        first(BATCH)
        second(BATCH)
        assert len(julia_process._running) == 1

    def test_what_a_model_left_on_disk_goes_with_it(self, fake: Callable[[str], Model]) -> None:
        compiled = engines.compile(fake(""), "flux")
        folder: Path = compiled._folder  # type: ignore[attr-defined]
        assert (folder / "weights" / "2.weight.npy").is_file()
        del compiled
        assert not folder.exists()

    def test_a_batch_that_does_not_fit_is_refused_before_julia_sees_it(
        self, fake: Callable[[str], Model]
    ) -> None:
        compiled = engines.compile(fake("crash"), "flux")
        with pytest.raises(ShapeError, match="takes 1 channels on axis 1, got 3"):
            compiled(np.zeros((1, 3, 5, 4), np.float32))

    def test_julias_reason_becomes_one_sentence(self, fake: Callable[[str], Model]) -> None:
        compiled = engines.compile(fake("refuse"), "flux")
        with pytest.raises(
            ModelError, match=r"^Flux 0.16.9 could not run the model: DimensionMismatch: .*== 3$"
        ):
            compiled(BATCH)

    def test_a_crash_is_told_and_survived(
        self, fake: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compiled = engines.compile(fake("crash"), "flux")
        with pytest.raises(
            ModelError, match=r"Julia ended with status 70 \(run\): ERROR: .*OutOfMemoryError"
        ):
            compiled(BATCH)
        monkeypatch.setenv("FAKE_JULIA", "")
        assert compiled(BATCH).shape == (2, 3)

    @pytest.mark.slow
    def test_a_hang_is_ended_after_the_time_limit(
        self, fake: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compiled = engines.compile(fake("hang"), "flux")
        monkeypatch.setenv("DIPTYCH_JULIA_TIMEOUT", "0.5")
        with pytest.raises(ModelError, match=r"did not answer within 0.5 seconds \(run\) and was stopped"):
            compiled(BATCH)
        (running,) = julia_process._running.values()
        assert not running.alive

    def test_a_julia_without_flux_is_told(self, fake: Callable[[str], Model]) -> None:
        with pytest.raises(ModelError, match=r"Julia ended with status 1 .*Package Flux not found"):
            engines.compile(fake("silent"), "flux")


class TestFindingJulia:
    def test_the_command_is_split_as_a_shell_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DIPTYCH_JULIA", f"{shlex.quote(sys.executable)} --project='a folder' -t 2")
        assert julia_process.julia_command() == [sys.executable, "--project=a folder", "-t", "2"]

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            ("julia 'unclosed", "is not a command"),
            ("/no/such/julia --x", "'/no/such/julia', which cannot be run"),
        ],
    )
    def test_a_wrong_command_is_told(self, monkeypatch: pytest.MonkeyPatch, command: str, said: str) -> None:
        monkeypatch.setenv("DIPTYCH_JULIA", command)
        with pytest.raises(UsageError, match=said):
            engines.compile(small_model(), "flux")

    def test_where_there_is_none_the_message_says_how_to_get_one(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("DIPTYCH_JULIA", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "juliapkg", None)
        with pytest.raises(UsageError, match=r"set DIPTYCH_JULIA .* pip install .*\[julia\]'"):
            engines.compile(small_model(), "flux")

    @pytest.mark.parametrize("limit", ["soon", "0", "-1", "nan", "inf"])
    def test_a_wrong_time_limit_is_told(
        self, fake: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch, limit: str
    ) -> None:
        model = fake("")
        monkeypatch.setenv("DIPTYCH_JULIA_TIMEOUT", limit)
        with pytest.raises(UsageError, match="DIPTYCH_JULIA_TIMEOUT must be a number of seconds above 0"):
            engines.compile(model, "flux")

    def test_auto_never_takes_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DIPTYCH_JULIA", "/no/such/julia")
        assert engines.compile(small_model(), "auto").engine != "flux"
        assert "flux" in engines.ENGINES

    def test_another_device_is_refused(self) -> None:
        with pytest.raises(UsageError, match="does not run on 'cuda'"):
            engines.compile(small_model(), "flux", "cuda")


def test_a_layer_that_flux_lacks_is_refused_by_name(fake: Callable[[str], Model]) -> None:
    fake("")
    model = Model(Chain((Conv(np.ones((1, 1, 1, 1, 1, 1), np.float32)),)))
    with pytest.raises(UnsupportedLayer, match=r"0 \(Conv\).*1 to 3 spatial axes, and this layer has 4"):
        engines.compile(model, "flux")
