"""Comparing files that need something to be read: weights alone, several models; and which of two is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from diptych.errors import FormatError, ModelError, ShapeError, UsageError
from diptych.model.layers import Conv
from little_models import changed, classifier, compare, model, numbers, seeing, weight


@pytest.fixture
def weights_alone(tmp_path: Path) -> tuple[Path, Path]:
    """A whole model, and the same weights in a file that holds nothing else."""
    whole, alone = tmp_path / "a.safetensors", tmp_path / "b.jld2"
    diptych.write(seeing(), whole)
    diptych.write(seeing(), alone)
    return whole, alone


def test_weights_alone_are_filled_into_the_architecture(weights_alone: tuple[Path, Path]) -> None:
    whole, alone = weights_alone
    assert diptych.compare(whole, alone, architecture=whole).agrees
    assert diptych.compare(alone, whole, architecture=(whole, None)).agrees
    assert diptych.compare(alone, alone, architecture=seeing()).agrees
    with pytest.raises(FormatError):
        diptych.compare(whole, alone, architecture=model(Conv(numbers(5, 3, 3, 3))))


def test_the_command_takes_it_once_or_for_each(
    weights_alone: tuple[Path, Path], diptych_command: Any
) -> None:
    whole, alone = weights_alone
    refused = diptych_command("compare", whole, alone)
    assert refused.status == 1
    assert "--architecture" in refused.err
    assert diptych_command("compare", whole, alone, "--architecture", whole).status == 0
    twice = ("--architecture", "", "--architecture", whole)
    assert diptych_command("compare", whole, alone, *twice).status == 0
    assert diptych_command("compare", whole, alone, *twice, "--architecture", whole).status == 2


def test_the_key_chooses_one_of_several_models(tmp_path: Path, diptych_command: Any) -> None:
    bson = tmp_path / "trained.bson"
    diptych.write(seeing(), bson)
    assert diptych_command("compare", bson, bson, "--key", "model").status == 0
    wrong = diptych_command("compare", bson, bson, "--key", "model", "--key", "discriminator")
    assert wrong.status == 1
    assert "discriminator" in wrong.err
    assert diptych.compare(bson, bson, key=("model", None)).agrees


def test_what_neither_model_takes_is_refused() -> None:
    for option in ("architecture", "written_by", "key"):
        with pytest.raises(UsageError, match=option):
            diptych.compare(seeing(), seeing(), **{option: "0.13.4"})
    with pytest.raises(UsageError, match="pair"):
        diptych.compare(seeing(), seeing(), key=("a", "b", "c"))


def test_a_message_says_which_model_cannot_take_its_input() -> None:
    for pair, side in (((seeing(3), seeing(1)), "B"), ((seeing(1), seeing(3)), "A")):
        with pytest.raises(ShapeError, match=rf"model {side} .* 2 x 3 x 9 x 9"):
            compare(*pair, np.ones((2, 3, 9, 9), np.float32))
    broken = weight(classifier(), 1).copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match=r"model B .little.: .*1.weight"):
        compare(classifier(), changed(classifier(), 1, weight=broken))
