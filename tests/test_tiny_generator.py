"""The training of the tiny generator, on networks of a minute: scenes, tokens, resuming, the pipeline's folder."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diptych
from diptych.errors import GenerationError, UsageError
from diptych.images.generation import made_again
from diptych.images.scenes import understand
from diptych.images.scenes.rng import RandomStream
from diptych.images.tiny import FOLDER, Tiny, unknown

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from tiny_diffusion import (
    autoencoder,
    benchmark,
    checkers,
    denoiser,
    export,
    latents,
    muon,
    prompts,
    tokens,
    training,
    world,
)
from tiny_diffusion.paintings import Paintings

SEEDS = st.integers(0, 2**40)
SMALL_AUTOENCODER = {"channels": (8, 8, 8)}
SMALL_DENOISER = {"channels": (16, 32), "attention": (False, True)}
COUNT = 40


class Killed(BaseException):
    pass


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokens.build(tokens.words())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """All stages gone through once, with few pictures and fewer steps."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "HELD_OUT", 8)
        patch.setattr(denoiser, "HELD_OUT", 24)
        paintings = Paintings(folder / "paintings.u8")
        paintings.grow(COUNT)
        autoencoder.fit(plan(folder / "autoencoder"), paintings.read(), SMALL_AUTOENCODER)
        vae = autoencoder.load(folder / "autoencoder")
        latents.encode(vae, paintings, folder / "latents.f16", COUNT, "cpu")
        latents.tokenise(tokenizer, folder / "tokens.u16", COUNT, 1)
        latents.find_objects(paintings, folder / "objects.u8", COUNT, 1)
        denoiser.fit(plan(folder / "denoiser"), latents.read(folder), tokenizer, SMALL_DENOISER)
    export.save(export.pipeline(vae, denoiser.load(folder / "denoiser"), tokenizer), folder / "pipeline")
    return folder


def plan(folder: Path, **more: Any) -> training.Plan:
    return replace(training.Plan(folder, 4, 1e-3, 4, save_every=2, warm_up=2), **more)


# ---- what is taught


@given(SEEDS)
def test_no_scene_of_the_training_is_held_out(seed: int) -> None:
    assert not world.held_out(world.draw(seed))


def test_what_is_held_out_is_painted_without_that_rule() -> None:
    free = [world.draw(seed, free=True) for seed in range(300)]
    assert 0.2 < np.mean([world.held_out(scene) for scene in free]) < 0.6


@settings(max_examples=200)
@given(SEEDS, st.integers(0, 99))
def test_captions_say_what_the_scene_shows(seed: int, number: int) -> None:
    scene = world.draw(seed, free=True)
    read = understand(world.caption(scene, RandomStream("caption", number), said=1.0))
    assert read.ignored == ()
    assert read.subject == scene.subject
    if scene.subject != "space":
        assert read.time == scene.time
    if scene.luminary != "none":
        assert (read.luminary, read.luminary_colour, read.luminary_side) == (
            scene.luminary,
            scene.luminary_colour,
            scene.luminary_side,
        )
    told = sorted((t.name, t.colour, t.side) for t in read.objects or ())
    assert told == sorted((t.name, t.colour, t.side) for t in scene.objects or ())


def test_known_words_are_one_token_and_unknown_ones_are_not(tokenizer: Any) -> None:
    for word in tokens.words():
        assert len(tokenizer.tokenize(word)) == 1, word
    assert len(tokenizer.tokenize("dinosaur")) > 1


def test_no_caption_is_cut_short(tokenizer: Any) -> None:
    captions = [
        world.caption(world.draw(seed), RandomStream("length", seed), said=1.0) for seed in range(300)
    ]
    assert latents.ids(tokenizer, captions)[:, -1].tolist() == [tokenizer.pad_token_id] * 300


# ---- going on after a kill


def test_paintings_go_on_after_half_a_picture(tmp_path: Path) -> None:
    whole, broken = Paintings(tmp_path / "whole"), Paintings(tmp_path / "broken")
    whole.grow(5)
    broken.grow(2)
    with broken.path.open("ab") as file:
        file.write(b"half a picture")
    broken.grow(5)
    assert len(broken) == 5
    np.testing.assert_array_equal(whole.read(), broken.read())


@pytest.mark.slow
@pytest.mark.parametrize("part", ["autoencoder", "denoiser"])
def test_training_goes_on_to_the_bit(
    folder: Path, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(autoencoder, "HELD_OUT", 8)
    monkeypatch.setattr(denoiser, "HELD_OUT", 24)
    module, name = {"autoencoder": (autoencoder, "loss"), "denoiser": (denoiser, "error")}[part]
    counted, original = iter(range(100)), getattr(module, name)

    def killed_once(*of: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():  # the test on held-out lessons
            return original(*of)
        if next(counted) == 3:
            raise Killed
        return original(*of)

    def fit() -> None:
        if part == "autoencoder":
            autoencoder.fit(plan(tmp_path), Paintings(folder / "paintings.u8").read(), SMALL_AUTOENCODER)
        else:
            denoiser.fit(plan(tmp_path), latents.read(folder), tokenizer, SMALL_DENOISER)

    monkeypatch.setattr(module, name, killed_once)
    with pytest.raises(Killed):
        fit()
    (tmp_path / "checkpoint.pt.part").write_bytes(b"half a checkpoint")
    fit()
    straight, resumed = (
        torch.load(place / "checkpoint.pt", weights_only=True) for place in (folder / part, tmp_path)
    )
    assert straight["step"] == resumed["step"] == 4
    for kind in ("network", "average"):
        for key, weights in straight[kind].items():
            assert torch.equal(weights, resumed[kind][key]), key
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4]


def test_objects_are_where_the_painting_changes_without_them(folder: Path) -> None:
    lessons = latents.read(folder)
    assert lessons.objects.shape == (COUNT, 16, 16)
    for seed in range(COUNT):
        columns = np.flatnonzero(lessons.objects[seed].any(0))
        sides = {thing.side for thing in world.draw(seed).objects or ()}
        assert (len(columns) > 0) == bool(sides)
        if sides == {"left"}:
            assert columns[0] < 8
        if sides == {"right"}:
            assert columns[-1] >= 8


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 30), (2, 30, 6)])
def test_muon_moves_along_the_nearest_orthogonal_matrix(shape: tuple[int, int, int]) -> None:
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(given, full_matrices=False)
    found = torch.linalg.svdvals(muon.orthogonal(given))
    assert float(found[s > 0.01 * s.max()].min()) > 0.6
    assert float(found.max()) < 1.3
    assert float((muon.orthogonal(given) * (u @ v)).sum((1, 2)).min()) > 0.8 * min(shape[1:])


def test_muon_takes_the_matrices_and_leaves_the_rest_to_adamw() -> None:
    network = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Conv1d(4, 4, 3), torch.nn.Linear(4, 1))
    shapes = [
        sorted(tuple(p.shape) for p in optimiser.param_groups[0]["params"])
        for optimiser in muon.both(network, 0.1, 0.0, apart=("2.",))
    ]
    assert shapes == [[(4, 4, 3)], [(1,), (1, 4), (4,), (5, 4)]]


def test_a_finished_run_learns_no_more(folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoiser, "HELD_OUT", 24)
    before = (folder / "denoiser" / "checkpoint.pt").read_bytes()
    denoiser.fit(plan(folder / "denoiser"), latents.read(folder), tokenizer, SMALL_DENOISER)
    assert (folder / "denoiser" / "checkpoint.pt").read_bytes() == before


def test_the_rate_warms_up_and_cools_down() -> None:
    schedule = training.Plan(Path(), 100, 1.0, warm_up=10, cooling=0.2)
    assert [round(schedule.rate_at(step), 3) for step in (0, 9, 50, 79, 90, 99)] == [0.1, 1, 1, 1, 0.5, 0.05]


def test_learning_lowers_the_loss(tmp_path: Path) -> None:
    network = torch.nn.Linear(4, 1)
    target = torch.arange(4.0)

    def loss_of(step: int, rng: torch.Generator) -> torch.Tensor:
        x = torch.randn(32, 4, generator=rng)
        return (network(x)[:, 0] - x @ target).square().mean()

    training.train(plan(tmp_path, steps=200, rate=0.1, save_every=100), network, loss_of, {})
    first, last = (json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert last < first / 20


# ---- the pipeline


def test_the_log_tells_whether_sides_are_heard(folder: Path) -> None:
    line = json.loads((folder / "denoiser" / "log.jsonl").read_text().splitlines()[-1])
    assert {"step", "loss", "images/s", "loss at 0.9", "swap at 0.9"} <= set(line)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with NumPy 2
def test_stock_diffusers_loads_and_draws(folder: Path) -> None:
    from diffusers import AutoPipelineForText2Image

    made = AutoPipelineForText2Image.from_pretrained(folder / "pipeline")
    made.set_progress_bar_config(disable=True)
    texts = ["a red sun over the sea", "a city at night", "space"]
    together = export.pictures(made, texts, [5, 6, 7], steps=2)
    alone = export.pictures(made, texts[1:2], [6], steps=2)[0]
    assert together[1].shape == (64, 64, 3)
    assert np.abs(together[1].astype(int) - alone).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).max() > 1


def test_diptych_draws_with_it_like_with_any_model(folder: Path) -> None:
    drawn = diptych.generate("a red sun over the sea", 2, 3, generator=str(folder / "pipeline"), steps=2)
    assert [picture.shape for picture in drawn] == [(64, 64, 3)] * 2


def test_tiny_enlarges_and_names_the_words_it_does_not_know(folder: Path) -> None:
    tiny = Tiny(folder / "pipeline")
    made = list(tiny.generate("a red Dinosaur over the sea, x", count=2, seed=3, width=96, steps=2))
    assert [picture.pixels.shape for picture in made] == [(96, 96, 3)] * 2
    record = made[1].record
    assert record is not None
    assert (record.generator, record.index, record.width, record.ignored) == (
        "tiny",
        1,
        96,
        ("dinosaur", "x"),
    )
    (again,) = tiny.generate("a red Dinosaur over the sea, x", count=1, start=1, seed=3, width=96, steps=2)
    np.testing.assert_array_equal(again.pixels, made[1].pixels)


def test_words_that_tiny_does_not_know_change_nothing(folder: Path) -> None:
    tiny = Tiny(folder / "pipeline")
    (bare,) = tiny.generate("the sea, a red sun", count=1, seed=3, steps=2)
    (noisy,) = tiny.generate("zebra the sea, 😀 a red quxyzzy sun", count=1, seed=3, steps=2)
    np.testing.assert_array_equal(bare.pixels, noisy.pixels)
    assert noisy.record is not None
    assert noisy.record.prompt == "zebra the sea, 😀 a red quxyzzy sun"
    assert noisy.record.ignored == ("zebra", "quxyzzy")
    (refused,) = tiny.generate("the sea", count=1, seed=3, steps=2, negative_prompt="a zebra")
    assert refused.record is not None
    assert refused.record.ignored == ("zebra",)


def test_words_beyond_what_tiny_reads_are_named(folder: Path) -> None:
    prompt = "the sea with " + "clouds and " * 18 + "a red balloon"
    (picture,) = Tiny(folder / "pipeline").generate(prompt, count=1, seed=3, steps=2)
    assert picture.record is not None
    assert picture.record.ignored == ("and", "a", "red", "balloon")


def test_the_record_tells_one_set_of_weights_from_another(folder: Path) -> None:
    assert Tiny(folder / "pipeline").version != Tiny(FOLDER).version


def test_tiny_takes_eight_steps_by_itself(folder: Path) -> None:
    (picture,) = Tiny(folder / "pipeline").generate("the sea", count=1, seed=0, steps=None, guidance=None)
    assert picture.record is not None
    assert (picture.record.settings["steps"], picture.record.settings["guidance"]) == (8, 3.0)
    assert picture.pixels.shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"width": 64, "height": 96}, "squares"), ({"revision": "main"}, "takes no option 'revision'")],
)
def test_tiny_refuses_what_it_cannot_do(folder: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Tiny(folder / "pipeline").generate("the sea", count=1, seed=0, **arguments)


def test_tiny_without_its_vocabulary_says_so(tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match=r"tokenizer\.json does not hold the vocabulary of a tokenizer"):
        unknown("the sea", tmp_path)


def test_the_network_for_real_is_at_most_ten_megabytes(tokenizer: Any) -> None:
    parts = (
        autoencoder.build(**autoencoder.SETTINGS),
        denoiser.Denoiser(len(tokenizer), **denoiser.SETTINGS),
    )
    assert 2 * sum(p.numel() for part in parts for p in part.parameters()) < 10_000_000


# ---- the model in the box


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with NumPy 2
class TestTheModelInTheBox:
    def test_stock_diffusers_loads_it_and_says_what_it_is(self) -> None:
        from diffusers import AutoPipelineForText2Image

        made = AutoPipelineForText2Image.from_pretrained(FOLDER, local_files_only=True)
        parts = {
            name: type(getattr(made, name)).__name__ for name in ("vae", "unet", "text_encoder", "tokenizer")
        }
        assert parts == {
            "vae": "AutoencoderKL",
            "unet": "UNet2DConditionModel",
            "text_encoder": "CLIPTextModel",
            "tokenizer": "CLIPTokenizer",
        }

    def test_it_is_small_and_holds_nothing_that_could_run(self) -> None:
        files = [path for path in FOLDER.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= 10_000_000
        assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".md"}

    def test_its_card_says_what_one_must_know(self) -> None:
        card = (FOLDER / "README.md").read_text("utf-8")
        for section in ("## Data", "## Training", "## Scores", "## Limits", "## Licence"):
            assert section in card
        for category in prompts.CATEGORIES:
            assert f"| {category} |" in card

    @pytest.mark.slow
    def test_it_draws_most_of_what_it_is_asked(self) -> None:
        some = prompts.prompts(70)
        drawn = benchmark.pipeline(FOLDER, 8, 3.0)([p.text for p in some], range(len(some)))
        table = benchmark.scored(some, checkers.load().answers(drawn))
        assert table["seen"]["mean"]["score"] > 0.7
        assert table["seen"]["mean"]["shuffled"] < 0.4

    @pytest.mark.slow
    def test_generate_is_the_same_for_any_count_and_names_unknown_words(self, tmp_path: Path) -> None:
        prompt = "a red sun on the left over the sea with a dinosaur"
        two = diptych.generate(prompt, 2, 5, generator="tiny", out=tmp_path)
        one = diptych.generate(prompt, 1, 5, generator="tiny")
        np.testing.assert_array_equal(two[0], one[0])
        assert two[0].shape == (256, 256, 3)
        again = made_again(tmp_path / "generated_image_2.png")
        np.testing.assert_array_equal(again.pixels, two[1])
        assert again.record is not None
        assert again.record.ignored == ("dinosaur",)
