"""The engine openvino: every layer against the reference, and nothing sent or kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diptych import engines
from diptych.errors import MissingExtra, UnsupportedLayer
from diptych.model.layers import Activation, Chain
from diptych.model.model import Model
from distances import RELATIVE, apart
from layer_cases import TABLE, case

pytest.importorskip("openvino", reason="the extra openvino is not installed")

UNSUPPORTED = {"pad-wrap", "rnn-leakyrelu"}


@pytest.mark.parametrize("name", [name for name in TABLE if not name.startswith("activation")])
def test_agrees_with_the_reference(name: str) -> None:
    model, batch = case(name)
    if name in UNSUPPORTED:
        with pytest.raises(UnsupportedLayer):
            engines.compile(model, "openvino")
        return
    output = engines.compile(model, "openvino")(batch)
    assert output.dtype == np.float32
    assert output.flags.c_contiguous
    assert apart(output, engines.compile(model, "numpy")(batch)) <= RELATIVE


@pytest.mark.parametrize("name", ["classifier", "nested", "skip-subtract"])
def test_a_trace_holds_every_layer(name: str) -> None:
    model, batch = case(name)
    trace, expected = (engines.compile(model, engine).trace(batch) for engine in ("openvino", "numpy"))
    assert list(trace) == list(expected)
    assert all(apart(trace[path], expected[path]) <= RELATIVE for path in expected)


def test_answers_do_not_change_when_the_next_one_is_computed() -> None:
    model, batch = case("conv")
    compiled = engines.compile(model, "openvino")
    first = compiled(batch)
    kept = first.copy()
    compiled(-batch)
    assert np.array_equal(first, kept)


def test_sizes_may_change_from_call_to_call() -> None:
    compiled = engines.compile(Model(Chain((Activation("relu"),))), "openvino")
    for width in range(1, 9):
        batch = np.linspace(-1, 1, width, dtype=np.float32).reshape(1, 1, 1, width)
        assert np.array_equal(compiled(batch), np.maximum(batch, 0))


def test_without_the_package_the_install_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from diptych.engines import openvino

    openvino._package.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[openvino\]'"):
        engines.compile(case("conv")[0], "openvino")
    openvino._package.cache_clear()


SCRIPT = """
import sys
import numpy
from diptych import engines
from diptych.model.layers import Activation, Chain
from diptych.model.model import Model
engines.compile(Model(Chain((Activation("relu"),))), "openvino")(numpy.ones((1, 1, 2, 2), numpy.float32))
print([name for name in sys.modules if name.startswith("openvino_telemetry")])
"""


def test_nothing_is_reported_and_no_id_is_kept(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert not list(tmp_path.iterdir())
