"""`diptych list` shows what can be named: in the box, in the cache, and known to timm and torchvision."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import diptych
from diptych.errors import MissingExtra
from diptych.loading import TRAINED
from diptych.model import architectures
from tests.hub_server import cached

TIMM = importlib.util.find_spec("timm") is not None
CONFIG = {"architecture": "resnet18", "pretrained_cfg": {"license": "cc-by-4.0"}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path / "hub"


def test_what_is_in_the_box(diptych_command: Any) -> None:
    names = [entry.name for entry in diptych.list_models()]
    assert names == [*TRAINED, *architectures.NAMES]
    shown = diptych_command("list")
    assert shown.status == 0
    for name in names:
        assert name in shown.out
    assert "diptych list timm/" in shown.err
    document = json.loads(diptych_command("list", "--json").out)
    assert document["models"][0] == {
        "name": "scenes",
        "where": "box",
        "bytes": TRAINED["scenes"].stat().st_size,
        "licence": "MIT",
        "about": "a trained classifier of ten landscape subjects",
    }


def test_what_is_in_the_cache(cache: Path, diptych_command: Any) -> None:
    cached(cache, "me/net", {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"x" * 123_456})
    cached(cache, "timm/resnet18.a1_in1k", {"model.safetensors": b"x" * 7})
    cached(cache, "them/transformer", {"config.json": b'{"model_type": "vit"}', "model.safetensors": b"x"})
    cached(cache, "them/damaged", {"config.json": b"{", "model.safetensors": b"x"})
    cached(cache, "them/data", {"README.md": b"x"})
    kept = cache.parent / "diptych" / ("ab" * 32) / "net.onnx"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"12345")
    (kept.parent / "other.onnx.part").write_bytes(b"1")
    found = {entry.name: entry for entry in diptych.list_models() if entry.where == "cache"}
    assert set(found) == {"hf-hub:me/net", "timm/resnet18.a1_in1k", str(kept)}
    own = found["hf-hub:me/net"]
    assert (own.size, own.licence, own.about) == (123_456, "cc-by-4.0", "resnet18")
    assert found[str(kept)].size == 5
    assert "0.1 MB" in diptych_command("list", "hf-hub:*").out
    assert [entry.name for entry in diptych.list_models("hf-hub:me/*")] == ["hf-hub:me/net"]


def test_what_is_not_there_is_said(diptych_command: Any) -> None:
    shown = diptych_command("list", "nothing*")
    assert shown.status == 2
    assert "no model is called 'nothing*'" in shown.err


@pytest.mark.skipif(TIMM, reason="timm is installed")
def test_what_is_not_installed_is_said() -> None:
    for pattern in ("timm/", "torchvision/resnet*"):
        with pytest.raises(MissingExtra, match=r"pip install .*\[hub\]'"):
            diptych.list_models(pattern)


@pytest.mark.skipif(not TIMM, reason="timm and torchvision are not installed")
def test_what_timm_and_torchvision_know(cache: Path) -> None:
    every = diptych.list_models("timm/")
    assert len(every) > 1500
    found = {entry.name: entry for entry in diptych.list_models("timm/resnet18.*")}
    assert found["timm/resnet18.a1_in1k"].licence == "apache-2.0"
    assert found["timm/resnet18.a1_in1k"].about == "224 x 224, 1000 classes"
    vision = {entry.name: entry for entry in diptych.list_models("torchvision/resnet50:*")}
    assert set(vision) == {"torchvision/resnet50:IMAGENET1K_V1", "torchvision/resnet50:IMAGENET1K_V2"}
    own = vision["torchvision/resnet50:IMAGENET1K_V2"]
    assert own.size is not None
    assert 9e7 < own.size < 1.2e8
    assert "acc@1 80.858" in own.about
    cached(cache, "timm/resnet18.a1_in1k", {"model.safetensors": b"x" * 7})
    names = [entry.name for entry in diptych.list_models("timm/resnet18.*")]
    assert names.count("timm/resnet18.a1_in1k") == 1
