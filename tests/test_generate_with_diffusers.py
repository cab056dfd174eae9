"""A user generates pictures with a diffusers model: here a tiny one with random weights, built at once."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.errors import DiptychError, GenerationError, MissingExtra, UsageError
from diptych.images import files, generation
from diptych.images.picture import Picture
from diptych.options import GenerationOptions

pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")

import little_pipelines
from diptych.images import diffusion, pretrained

PROMPT = "a red sun over the sea"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusion")
    with pretrained.quietly():
        little_pipelines.save_pipeline(folder / "model", folder / "scratch")
    return folder / "model"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("the tests have no network")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


def paint(model: Path, **arguments: Any) -> list[Picture]:
    asked = {"count": 1, "steps": 2, "device": "cpu", **arguments}
    return list(begin(model, **asked))


def begin(model: Path, on_progress: Any = None, **options: Any) -> Iterator[Picture]:
    names = {"count", "seed", "width", "height"} & options.keys()
    settings = {name: value for name, value in options.items() if name not in names}
    given = {name: options[name] for name in names}
    asked = GenerationOptions(generator=str(model), **given, settings=settings)
    return generation.paint(PROMPT, asked, on_progress=on_progress)


@pytest.fixture(scope="module")
def pair(model: Path) -> list[Picture]:
    return paint(model, count=2, seed=3)


@pytest.mark.slow
def test_every_picture_has_its_own_seed_and_stands_alone(model: Path, pair: list[Picture]) -> None:
    assert [picture.name for picture in pair] == ["generated_image_1", "generated_image_2"]
    assert pair[0].pixels.shape == (64, 64, 3)
    assert not np.array_equal(pair[0].pixels, pair[1].pixels)
    (alone,) = paint(model, seed=3)
    (second,) = paint(model, seed=4)
    assert np.array_equal(alone.pixels, pair[0].pixels)
    assert np.array_equal(second.pixels, pair[1].pixels)


def test_it_is_what_diffusers_itself_makes(model: Path, pair: list[Picture]) -> None:
    import torch

    with pretrained.quietly():
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_pretrained(model)
        pipeline.set_progress_bar_config(disable=True)
        image = pipeline(PROMPT, num_inference_steps=2, generator=torch.Generator().manual_seed(4)).images[0]
    assert np.array_equal(np.asarray(image), pair[1].pixels)


def test_the_record_holds_everything_and_makes_the_picture_again(
    model: Path, pair: list[Picture], tmp_path: Path
) -> None:
    record = pair[1].record
    assert record is not None
    assert (record.prompt, record.seed, record.index, record.generator) == (PROMPT, 3, 1, str(model))
    assert (record.width, record.height) == (64, 64)
    assert record.version.startswith("diffusers ")
    assert ", torch " in record.version
    assert record.settings == {
        "steps": 2,
        "guidance": 7.5,
        "sampler": "DDIMScheduler",
        "dtype": "float32",
        "device": "cpu",
        "image_seed": 4,
    }
    files.write_png(tmp_path / "a.png", pair[1].pixels, record)
    with pytest.raises(UsageError, match="if you trust it, name it too: --generator"):
        generation.made_again(tmp_path / "a.png")
    again = generation.made_again(tmp_path / "a.png", generator=str(model))
    assert np.array_equal(again.pixels, pair[1].pixels)
    assert (again.record, again.name, again.remarks) == (record, "generated_image_2", ())


def test_settings_reach_the_model(model: Path, pair: list[Picture]) -> None:
    seen = [pair[0].pixels.tobytes()]
    for changed in ({"steps": 3}, {"guidance": 1.0}, {"negative_prompt": "the city"}):
        (picture,) = paint(model, seed=3, **changed)
        assert picture.record is not None
        assert picture.record.settings.items() >= changed.items()
        seen.append(picture.pixels.tobytes())
    assert len(set(seen)) == 4
    (wide,) = paint(model, width=32, height=16)
    assert wide.pixels.shape == (16, 32, 3)


def test_progress_is_told_step_by_step(model: Path) -> None:
    told: list[tuple[int, int, str]] = []
    paint(model, count=2, steps=3, on_progress=lambda *now: told.append(now))
    assert told == [(i + 1, 6, f"generated_image_{i // 3 + 1}") for i in range(6)]


def test_nothing_is_printed_and_the_libraries_are_left_as_they_were(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("transformers", "diffusers", "huggingface_hub")
    before = [logging.getLogger(name).level for name in names]
    paint(model)
    assert capfd.readouterr() == ("", "")
    assert [logging.getLogger(name).level for name in names] == before


def test_options_that_cannot_be_are_refused_before_the_model_is_loaded(model: Path) -> None:
    for wrong, says in (
        ({"steps": 0}, "steps must be a whole number from 1 to 1000, not 0"),
        ({"steps": 2.5}, "not 2.5"),
        ({"guidance": -1}, "guidance must be a number from 0 to 100, not -1"),
        ({"guidance": float("nan")}, "not nan"),
        ({"negative_prompt": 3}, "negative_prompt must be text, not 3"),
        ({"device": "tpu"}, "there is no device 'tpu'; choose one of auto, cuda, mps, cpu"),
        ({"allow_pickle": "no"}, "allow_pickle must be True or False, not 'no'"),
        ({"width": 60}, "width and height must be multiples of 8 for a diffusion model, not 60"),
        ({"stepz": 3}, "takes no option 'stepz'; it takes steps, guidance, negative_prompt"),
    ):
        with pytest.raises(UsageError) as caught:
            begin(model, **wrong)
        assert says in str(caught.value)


@pytest.mark.parametrize("error", ["torch", "cpu", "python"])
def test_out_of_memory_says_what_to_do(model: Path, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    import torch

    raised = {
        "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
        "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        "python": MemoryError(),
    }[error]

    def exhausted(*_: object, **__: object) -> None:
        raise raised

    with pretrained.quietly():
        from diffusers import StableDiffusionPipeline
    monkeypatch.setattr(StableDiffusionPipeline, "decode_latents", exhausted)
    monkeypatch.setattr(StableDiffusionPipeline, "prepare_latents", exhausted)
    with pytest.raises(GenerationError, match=r"not enough memory .* smaller width .* device cpu"):
        paint(model)


def test_a_failure_of_the_model_is_one_sentence(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("first line\nsecond line")

    with pretrained.quietly():
        from diffusers import StableDiffusionPipeline
    monkeypatch.setattr(StableDiffusionPipeline, "prepare_latents", broken)
    with pytest.raises(GenerationError, match=r"failed while making a picture \(first line second line\)"):
        paint(model)


def test_a_device_that_is_not_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(GenerationError, match="no cuda device that torch can use; choose cpu or auto"):
        paint(model, device="cuda")


def test_a_black_picture_is_explained(model: Path) -> None:
    black = np.zeros((4, 4, 3), np.uint8)

    class Output:
        nsfw_content_detected: list[bool] | None = None

    assert "half precision overflowed" in diffusion._remarks(Output(), black)[0]
    Output.nsfw_content_detected = [True]
    assert "safety checker blacked it out" in diffusion._remarks(Output(), black)[0]
    Output.nsfw_content_detected = [False]
    assert diffusion._remarks(Output(), black + 1) == ()


def refusal(model: object, **options: Any) -> str:
    with pytest.raises(GenerationError) as caught:
        paint(Path(str(model)), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_cannot_be_fetched() -> None:
    says = (
        "is not on this machine and the hub cannot be reached; download it on a machine that has a connection"
    )
    assert says in refusal("nobody/no-such-model")


def hub_error(name: str) -> Exception:
    """An error of the hub's client, without the answer of a server that its constructors ask for."""
    from huggingface_hub import errors

    kind = getattr(errors, name)
    return kind.__new__(kind, "what the hub said")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("GatedRepoError", "is gated; accept its licence on its page, then run: hf auth login"),
        ("RepositoryNotFoundError", "there is no public model owner/name; check the name"),
        ("RevisionNotFoundError", "has no such revision"),
        ("RemoteEntryNotFoundError", "holds no model_index.json, so it is not a diffusers model"),
        ("LocalEntryNotFoundError", "could not be downloaded completely; try again"),
    ],
)
def test_what_the_hub_refuses(monkeypatch: pytest.MonkeyPatch, error: str, says: str) -> None:
    import huggingface_hub

    def refused(*_: object, **__: object) -> None:
        raise hub_error(error)

    monkeypatch.setattr(pretrained, "online", lambda: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)
    assert says in refusal("owner/name")


def test_folders_that_are_no_model(model: Path, tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / "gone" / "model")
    (tmp_path / "empty").mkdir()
    assert "holds no model_index.json, so it is not a diffusers model" in refusal(tmp_path / "empty")
    (tmp_path / "model.safetensors").touch()
    assert "is a file, but a diffusers model is a folder" in refusal(tmp_path / "model.safetensors")
    for content, says in (("{", "is damaged"), ("[]", "names no pipeline"), ("{}", "names no pipeline")):
        (tmp_path / "empty" / "model_index.json").write_text(content)
        assert says in refusal(tmp_path / "empty")
    shutil.copytree(model, tmp_path / "half", ignore=lambda *_: ["unet"])
    assert "cannot be loaded" in refusal(tmp_path / "half", allow_pickle=True)
    truncated = tmp_path / "truncated"
    shutil.copytree(model, truncated)
    weights = truncated / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    assert str(truncated) in refusal(truncated)


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        ("DDPMPipeline", "is a DDPMPipeline, which cannot make pictures from a prompt alone; name another"),
        ("StableDiffusionInstructPix2PixPipeline", "`image` input cannot be undefined"),
    ],
)
def test_a_model_that_is_not_text_to_image(model: Path, tmp_path: Path, pipeline: str, says: str) -> None:
    shutil.copytree(model, tmp_path / "other")
    index = json.loads((model / "model_index.json").read_text())
    index["_class_name"] = pipeline
    (tmp_path / "other" / "model_index.json").write_text(json.dumps(index))
    assert says in refusal(tmp_path / "other")


def test_pickle_weights_are_read_only_where_that_is_asked_for(
    model: Path, pair: list[Picture], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(model, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert "pickle files can run code when they are read: pass allow_pickle=True" in refusal(folder)
    (picture,) = paint(folder, seed=3, allow_pickle=True)
    assert np.array_equal(picture.pixels, pair[0].pixels)
    assert picture.record is not None
    assert "allow_pickle" not in picture.record.settings
    asking = replace(picture.record, settings={**picture.record.settings, "allow_pickle": True})
    files.write_png(tmp_path / "a.png", picture.pixels, asking)  # as a hostile file would
    with pytest.raises(GenerationError, match="allow_pickle"):
        generation.made_again(tmp_path / "a.png", generator=str(folder))
    assert np.array_equal(
        generation.made_again(tmp_path / "a.png", generator=str(folder), allow_pickle=True).pixels,
        picture.pixels,
    )


def test_weights_saved_in_half_precision_only(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(model, folder)
    for weights in folder.glob("*/*.safetensors"):
        weights.rename(weights.with_name(weights.name.replace(".safetensors", ".fp16.safetensors")))
    (picture,) = paint(folder, seed=3)
    assert picture.record is not None
    assert picture.record.settings["dtype"] == "float32"


def test_without_the_extra_the_install_line_is_given(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[diffusion\]'"):
        begin(model)
    assert issubclass(MissingExtra, DiptychError)
