"""The benchmark of generators: its prompts, its checkers, its arithmetic."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.images.scenes import understand

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from tiny_diffusion import benchmark, checkers, prompts, world


@pytest.fixture(scope="module")
def asked() -> list[prompts.Prompt]:
    return prompts.prompts()


# ---- the prompts


def test_a_thousand_prompts_of_seven_categories(asked: list[prompts.Prompt]) -> None:
    assert len(asked) == 1000
    assert set(Counter(p.category for p in asked).values()) == {142, 143}
    assert sum(p.held_out for p in asked) == 300
    assert all(sum(p.held_out for p in asked if p.category == c) > 40 for c in prompts.CATEGORIES)
    assert prompts.prompts(20) == asked[:20]


def test_the_painter_understands_each_prompt_as_it_is_meant(asked: list[prompts.Prompt]) -> None:
    for prompt in asked:
        read = understand(prompt.text)
        there = {thing.name: thing for thing in read.objects or ()}
        known = {
            "subject": read.subject,
            "time": read.time,
            "sun or moon": read.luminary,
            "sun or moon colour": read.luminary_colour,
            "sun or moon side": read.luminary_side,
            "clouds": "yes" if read.clouds else "no",
            "stars": "yes" if read.stars else "no",
            "birds": "yes" if read.birds else "no",
            **dict.fromkeys(there, "yes"),
            **{f"{name} side": thing.side for name, thing in there.items()},
            **{f"{name} colour": thing.colour for name, thing in there.items()},
        }
        assert read.ignored == ()
        assert [known[group] for group, _ in prompt.asks] == [wanted for _, wanted in prompt.asks], prompt


def test_prompts_are_held_out_as_marked(asked: list[prompts.Prompt]) -> None:
    for prompt in asked:
        read = understand(prompt.text)
        assert world.held_out(read) == prompt.held_out, prompt


def test_every_ask_is_a_question_of_the_checkers(asked: list[prompts.Prompt]) -> None:
    assert all(wanted in checkers.GROUPS[group] for prompt in asked for group, wanted in prompt.asks)


# ---- the checkers


def test_labels_leave_out_what_the_scene_does_not_decide() -> None:
    scene = next(s for s in map(world.draw, range(100)) if s.luminary == "none" and not s.objects)
    row = dict(zip(checkers.GROUPS, checkers.labels([scene])[0].tolist(), strict=True))
    assert row["subject"] == checkers.GROUPS["subject"].index(scene.subject)
    assert row["sun or moon"] == row["balloon"] == 0
    assert row["sun or moon side"] == row["balloon side"] == row["balloon colour"] == -1


def test_weights_survive_the_file_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = checkers.Checkers()
    checkers.save(network, tmp_path / "weights.safetensors")
    again = checkers.load(tmp_path / "weights.safetensors")
    pictures = np.stack([world.paint(seed, world.draw(seed)) for seed in range(3)])
    for ours, theirs in zip(network.answers(pictures), again.answers(pictures), strict=True):
        assert set(ours) == set(checkers.GROUPS)
        assert sum(ours[group] != theirs[group] for group in ours) <= 2


@pytest.mark.slow
def test_the_checkers_in_the_box_pass_what_the_painter_paints(asked: list[prompts.Prompt]) -> None:
    some = asked[:210]
    drawn = benchmark.painter([prompt.text for prompt in some], range(len(some)))
    answers = checkers.load().answers(drawn)
    asks = [
        answer[group] == wanted for p, answer in zip(some, answers, strict=True) for group, wanted in p.asks
    ]
    assert np.mean(asks) >= 0.99
    table = benchmark.scored(some, answers)
    assert table["seen"]["mean"]["shuffled"] < 0.3


# ---- the arithmetic


def _answers(asked: list[prompts.Prompt], right: bool) -> list[dict[str, str]]:
    usual = {group: classes[0] for group, classes in checkers.GROUPS.items()}
    wrong = dict.fromkeys(checkers.GROUPS, "something else")
    return [{**usual, **dict(p.asks)} if right else wrong for p in asked]


def test_all_right_scores_one_and_all_wrong_nothing(asked: list[prompts.Prompt]) -> None:
    table = benchmark.scored(asked, _answers(asked, True))
    for part in table.values():
        assert part["mean"]["score"] == 1
        assert part["mean"]["interval"] == (1, 1)
        assert part["mean"]["shuffled"] < 0.5
    assert benchmark.scored(asked, _answers(asked, False))["seen"]["mean"]["score"] == 0


def test_the_interval_covers_the_score_and_narrows_with_more_prompts(asked: list[prompts.Prompt]) -> None:
    good, bad = _answers(asked, True), _answers(asked, False)
    half = [good[i] if i % 2 else bad[i] for i in range(len(asked))]
    rows = benchmark.scored(asked, half)["seen"]
    for row in rows.values():
        assert row["interval"][0] < row["score"] < row["interval"][1]
    widths = {name: row["interval"][1] - row["interval"][0] for name, row in rows.items()}
    assert widths["mean"] < min(width for name, width in widths.items() if name != "mean")
    assert "| binding |" in benchmark.shown(benchmark.scored(asked, half))


def test_a_prompt_with_two_things_fails_when_one_is_missing() -> None:
    prompt = prompts.Prompt("", "two objects", False, (("boat", "yes"), ("ship", "yes")))
    assert benchmark._passes(prompt, {"boat": "yes", "ship": "yes"})
    assert not benchmark._passes(prompt, {"boat": "yes", "ship": "no"})


def test_shuffling_shows_every_prompt_another_picture_of_its_category(asked: list[prompts.Prompt]) -> None:
    others = benchmark._others(asked)
    assert sorted(others) == list(range(len(asked)))
    assert all(i != other for i, other in enumerate(others))
    assert all(asked[i].category == asked[other].category for i, other in enumerate(others))


@pytest.mark.slow
def test_paintings_cover_paintings_and_one_repeated_picture_covers_little() -> None:
    varied = benchmark.variety(_fresh, 60)
    assert varied["precision"] > 0.8
    assert varied["recall"] > 0.8
    assert benchmark.variety(_always_the_same, 60)["recall"] < 0.2


@pytest.mark.slow
def test_copies_of_training_pictures_are_found() -> None:
    known = np.stack([world.paint(seed, world.draw(seed)) for seed in range(100)])
    assert benchmark.copies(lambda texts, seeds: known[: len(texts)], 60, known)["near copies"] == 1
    assert benchmark.copies(_fresh, 60, known)["near copies"] < 0.2


def _fresh(texts, seeds):  # type: ignore[no-untyped-def]
    """Other paintings of the same distribution."""
    return np.stack([world.paint(9 * 10**9 + i, world.draw(9 * 10**9 + i, True)) for i in range(len(texts))])


def _always_the_same(texts, seeds):  # type: ignore[no-untyped-def]
    return np.repeat(world.paint(0, world.draw(0))[None], len(texts), 0)
