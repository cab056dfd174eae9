"""Networks that are found by fitting and training: how good, how soon done, and the same after a kill."""

from __future__ import annotations

import copy
import math
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import diptych
from diptych.errors import FormatError
from diptych.filters.data import Data
from diptych.filters.learning import dilated, local_histograms, relu
from diptych.filters.learning.folding import folded
from diptych.filters.learning.initialisation import Samples, maps
from diptych.filters.learning.loop import Ending, charbonnier, threads, train
from diptych.filters.learning.pruning import merged, pruned, refitted
from diptych.filters.learning.schedule import Cosine, gain_per_doubling
from diptych.filters.learning.shallow import Shallow, fit_by_levenberg_marquardt
from diptych.filters.learning.task import Candidate, Task
from diptych.filters.target import Target
from diptych.model.layers import Chain, PadMode
from diptych.model.model import Model
from diptych.progress import Progress, silent

LUMA = np.array([0.299, 0.587, 0.114])


def smooth_picture(seed: int, size: int = 96) -> np.ndarray:
    """Shapes and texture, uint8 (H, W, 3), with edges in all directions."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    picture = np.full((size, size, 3), 90.0)
    for _ in range(40):
        row, column, radius = random.uniform(0, size), random.uniform(0, size), random.uniform(3, 20)
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        picture[inside] = random.uniform(0, 255, 3)
    return np.clip(picture + random.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def data(size: int) -> Data:
    held_out = {"one": smooth_picture(10, size), "two": smooth_picture(11, size)}
    return Data(tuple(smooth_picture(seed, size) for seed in range(6)), held_out)


DATA = data(96)
SMALL = data(48)  # where it does not matter how good a network becomes


def gradients(image: np.ndarray, rows: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    from scipy import ndimage

    kernel, grey = np.array(rows), image @ LUMA if image.ndim == 3 else image.astype(float)
    return tuple(ndimage.correlate(grey, k, mode="nearest") for k in (kernel, kernel.T))  # type: ignore[return-value]


SOBEL = [[-0.25, 0, 0.25], [-0.5, 0, 0.5], [-0.25, 0, 0.25]]
FREE = [[-0.3, 0.1, 0.2], [-0.5, 0.05, 0.45], [-0.2, -0.05, 0.25]]


def length(rows: list[list[float]], name: str = "length") -> Target:
    return Target(name, lambda image: np.hypot(*gradients(image, rows)) / math.sqrt(2), name, radius=1)


def psnrs(candidate: Candidate | None, task: Task) -> list[float]:
    """On the whole held-out pictures, by the NumPy engine."""
    assert candidate is not None
    model = Model(candidate.layers, input_shape=(task.channels[0], None, None))
    return [
        -10
        * math.log10(
            np.mean((diptych.predict(model, pair.inputs[None], engine="numpy")[0] - pair.target) ** 2)
        )
        for pair in task.held_out
    ]


def weights(candidate: Candidate | None) -> int:
    assert candidate is not None
    return candidate.weights


# ---- Small ReLU networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [SOBEL, FREE], ids=["sobel", "kernels without a name"])
def test_48_weights_are_enough_for_the_length_of_any_two_gradients(rows: list[list[float]]) -> None:
    task = Task(length(rows), DATA, weights=48)
    candidate = relu.fit(task)
    assert weights(candidate) <= 48
    assert min(psnrs(candidate, task)) > 90


def test_without_a_budget_the_smallest_that_meets_the_goal_is_taken() -> None:
    low, high = (relu.fit(Task(length(SOBEL), DATA, goal=goal)) for goal in (50, 80))
    assert weights(low) < weights(high) < 48
    assert min(psnrs(high, Task(length(SOBEL), DATA))) > 75


@pytest.mark.parametrize("budget", [20, 22, 30, 33, 36, 42])
def test_a_budget_of_weights_is_kept(budget: int) -> None:
    candidate = relu.fit(Task(length(SOBEL), DATA, weights=budget))
    assert candidate is None or weights(candidate) <= budget


def test_the_sum_of_absolute_gradients_is_found_exactly() -> None:
    def both(image: np.ndarray) -> np.ndarray:
        across, down = gradients(image, SOBEL)
        return (np.abs(across) + np.abs(down)) / 2

    task = Task(Target("sum", both, "sum", radius=1), DATA)
    assert min(psnrs(relu.fit(task), task)) > 100


def test_channels_treated_apart_become_groups() -> None:
    def apart(image: np.ndarray) -> np.ndarray:
        return np.stack([np.abs(gradients(image[..., c], SOBEL)[0]) for c in range(3)], axis=-1)

    task = Task(Target("apart", apart, "apart", (3, 3), radius=1, per_channel=True), DATA)
    candidate = relu.fit(task)
    assert min(psnrs(candidate, task)) > 90


def test_what_looks_too_far_or_at_one_pixel_is_left_to_others() -> None:
    assert relu.fit(Task(Target("far", lambda x: x[..., 0], "", radius=12), DATA)) is None
    assert relu.fit(Task(Target("near", lambda x: x[..., 0], "", radius=0), DATA)) is None


def test_colours_mixed_with_clipping_are_found() -> None:
    def saturated(image: np.ndarray) -> np.ndarray:
        grey = (image @ LUMA)[..., None]
        return grey + 1.5 * (image - grey)

    task = Task(Target("saturated", saturated, "", (3, 3), radius=0), DATA, goal=70)
    candidate = relu.fit(task)
    assert min(psnrs(candidate, task)) > 70
    assert weights(candidate) < 40


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (relu.fit(Task(length(FREE), DATA, weights=40, seed=3)) for _ in range(2))
    assert first is not None
    assert second is not None
    for a, b in zip(
        Model(first.layers).weights().values(), Model(second.layers).weights().values(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_layers_compute_what_the_fitted_network_computes() -> None:
    random = np.random.default_rng(0)
    task = Task(length(SOBEL), DATA)
    samples = Samples.of(task, 1, 500)
    mix, front = maps(samples)
    networks = [
        folded(samples, mix, front, 3, clamped=True),
        Shallow(random.normal(size=(5, 2)), random.normal(size=(1, 5)), mix, front),
        Shallow(random.normal(size=(5, 27)), random.normal(size=(2, 5)), None, None, np.ones(5), np.ones(2)),
        Shallow(random.normal(size=(5, 9)), random.normal(size=(1, 5)), mix, None, np.ones(5), clamped=True),
    ]
    windows, _ = task.windows(1, 50)
    for network in networks:
        model = Model(network.layers(1, "replicate"), input_shape=(3, None, None))
        assert model.parameters == network.weights
        result = diptych.predict(model, windows, engine="numpy")[:, :, 1, 1]
        np.testing.assert_allclose(result, network(windows.reshape(50, 3, 9).astype(float)), atol=1e-5)


@pytest.mark.parametrize("clamped", [False, True])
def test_the_jacobian_is_that_of_finite_differences(clamped: bool) -> None:
    random = np.random.default_rng(1)
    network = Shallow(
        random.normal(size=(4, 2)), random.normal(size=(2, 4)), random.normal(size=3), random.normal(size=(2, 9)),
        random.normal(size=4), random.normal(size=2), clamped,
    )  # fmt: skip
    windows, expected, shares = random.normal(size=(40, 3, 9)), random.random((40, 2)), random.random((40, 1))
    _, gradient, _ = network.normal_equations(windows, expected, shares)
    vector, step = network.vector(), 1e-6

    def half(values: np.ndarray) -> float:
        return float((shares * (network.with_vector(values)(windows) - expected) ** 2).sum() / 2)

    found = [(half(vector + step * e) - half(vector - step * e)) / (2 * step) for e in np.eye(len(vector))]
    np.testing.assert_allclose(gradient, found, rtol=1e-4, atol=1e-5)


def test_units_that_do_nothing_or_the_same_go() -> None:
    random = np.random.default_rng(2)
    bank = random.normal(size=(3, 9))
    wide = Shallow(
        np.concatenate([bank, 2 * bank[:1], np.zeros((1, 9))]), np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    )
    windows = random.normal(size=(200, 1, 9))
    narrow = merged(wide, windows)
    assert len(narrow.bank) == 3
    np.testing.assert_allclose(narrow(windows), wide(windows), atol=1e-9)


def test_a_wide_network_is_pruned_to_what_is_needed() -> None:
    random = np.random.default_rng(3)
    windows = random.normal(size=(400, 1, 9))
    kernel = random.normal(size=9)
    expected = np.abs(windows[:, 0] @ kernel)[:, None]
    wide = Shallow(np.concatenate([[kernel, -kernel], random.normal(size=(4, 9))]), np.zeros((1, 6)))

    def good(network: Shallow) -> bool:
        return float(np.mean((network(windows) - expected) ** 2)) < 1e-9

    def polish(network: Shallow) -> Shallow:
        return fit_by_levenberg_marquardt(network, windows, expected, np.ones_like(expected), steps=5)[0]

    small = pruned(refitted(wide, windows, expected), windows, expected, good, polish)
    assert len(small.bank) == 2
    assert good(small)


# ---- Schedules and endings ----------------------------------------------------------------------------


@given(peak=st.floats(1e-6, 1), steps=st.integers(2, 5000), warm_up=st.integers(0, 500))
def test_the_rate_rises_to_its_peak_and_falls_to_its_last(peak: float, steps: int, warm_up: int) -> None:
    schedule = Cosine(peak, warm_up, 0.1)
    rates = [schedule(step, steps + warm_up) for step in range(steps + warm_up + 1)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(peak)
    assert top == warm_up
    assert all(a <= b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
    assert rates[-1] == pytest.approx(0.1 * peak)


@given(slope=st.floats(-2, 2), start=st.integers(1, 50), points=st.integers(12, 40))
@settings(deadline=None)
def test_the_gain_per_doubling_is_the_slope_by_the_logarithm(slope: float, start: int, points: int) -> None:
    history = [(step, 30 + slope * math.log2(step)) for step in range(start, start * (points + 1), start)]
    assert gain_per_doubling(history) == pytest.approx(slope, abs=1e-6)
    assert gain_per_doubling(history[:3]) == math.inf


def line(step: int) -> tuple[Tensor, Tensor]:
    x = torch.linspace(0, 1, 8).reshape(8, 1) + step % 3
    return x, 2 * x


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def flat(_: nn.Module) -> float:
    return 1.0


ENDINGS = {
    "all 400 steps were taken": Ending(),
    "10 evaluations without improvement, after 110 steps": Ending(patience=10),
    "twice the steps would gain 0.00 dB, after 270 steps": Ending(gain=0.05),
    "the goal of 0.5 dB was met after 10 steps": Ending(goal=0.5),
    "the time was up after 1 of 400 steps": Ending(deadline=0.0),
}


@pytest.mark.parametrize("stopped", ENDINGS)
def test_a_training_says_why_it_ended(stopped: str) -> None:
    trained = train(
        fresh(), line, flat, steps=400, schedule=Cosine(0.01), evaluate_every=10, ending=ENDINGS[stopped]
    )
    assert trained.stopped == stopped


def test_the_best_weights_are_kept() -> None:
    module, seen = fresh(), []

    def worse_after_the_third(net: nn.Module) -> float:
        seen.append(next(net.parameters()).detach().clone())
        return -abs(len(seen) - 3.0)

    trained = train(module, line, worse_after_the_third, steps=60, schedule=Cosine(0.1), evaluate_every=10)
    assert trained.best_step == 30
    assert torch.equal(next(module.parameters()), seen[2])
    assert not torch.equal(seen[-1], seen[2])


def test_the_number_of_threads_is_restored() -> None:
    def breaks() -> None:
        with threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError

    before = torch.get_num_threads()
    with pytest.raises(KeyError):
        breaks()
    assert torch.get_num_threads() == before


def test_charbonnier_is_the_absolute_error_where_that_is_large() -> None:
    assert charbonnier(torch.full((4,), 3.0), torch.zeros(4)).item() == pytest.approx(3.0)
    assert charbonnier(torch.zeros(4), torch.zeros(4)).item() == pytest.approx(1e-3)


# ---- Dilated networks ---------------------------------------------------------------------------------


def darker(image: np.ndarray) -> np.ndarray:
    return 0.5 * image


@pytest.mark.parametrize(
    ("channels", "most", "width"), [((3, 3), 10_000, 16), ((3, 1), 10_000, 16), ((3, 3), 50, 0)]
)
def test_as_wide_as_the_weights_allow(channels: tuple[int, int], most: int, width: int) -> None:
    assert dilated.width_within(most, channels) == width

    def size(width: int) -> int:
        return weights(Candidate(dilated.DilatedNet(channels, width).layers("wrap"), ""))

    if width:
        assert size(width) <= most < size(width + 1)


def test_nothing_is_tried_where_the_weights_have_no_place() -> None:
    assert dilated.fit(Task(Target("darker", darker, "", (3, 3)), DATA, weights=50)) is None


@pytest.mark.parametrize("edge", ["zero", "reflect", "symmetric", "replicate", "wrap"])
@pytest.mark.parametrize("channels", [(3, 3), (3, 1), (1, 1)])
def test_a_dilated_network_is_the_same_as_layers(edge: PadMode, channels: tuple[int, int]) -> None:
    net = dilated.DilatedNet(channels, 4)
    net.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for part in (net.change, net.gain):
            part.weight.normal_(0, 0.2)
    planes = np.random.default_rng(0).random((channels[0], 60, 64), dtype=np.float32)
    seen = local_histograms.completed(planes, local_histograms.means(planes, edge))
    inside = net(torch.from_numpy(seen[None])).clamp(0, 1).detach().numpy()
    model = Model(net.layers(edge), input_shape=(channels[0], None, None))
    found = diptych.predict(model, planes[None], engine="numpy")
    halo = net.halo
    # The means are kept in float16.
    np.testing.assert_allclose(found[:, :, halo:-halo, halo:-halo], inside, atol=2e-3)


def test_local_histograms_are_the_same_as_their_layers() -> None:
    planes = np.random.default_rng(0).random((3, 40, 37), dtype=np.float32)
    model = Model(local_histograms.layers(3, "replicate"), input_shape=(3, None, None))
    found = diptych.predict(model, planes[None], engine="numpy")[0]
    expected = local_histograms.completed(planes, local_histograms.means(planes, "replicate"))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_array_equal(found[-3:], planes)
    assert len(found) == local_histograms.COUNT + 3
    assert weights(Candidate(Chain((model.layers,)), "")) == local_histograms.weights(3)


def test_a_training_that_does_harm_is_undone() -> None:
    with threads(1):
        training = dilated.Training(Task(Target("darker", darker, "", (3, 3)), SMALL))
        net = training.network(4)
        start, begun = copy.deepcopy(net.state_dict()), training.evaluate(net)
        with torch.no_grad():
            net.convs[0].weight.zero_()
            net.around.weight.zero_()
            net.factor.weight.zero_()
        training.keep_best(net, start)
    assert training.evaluate(net) >= begun


@pytest.mark.slow
def test_what_the_last_layer_can_do_needs_no_training() -> None:
    def lit(image: np.ndarray) -> np.ndarray:
        return image * (0.3 + 0.6 * (image @ LUMA / 255)[..., None])

    training = dilated.Training(Task(Target("lit", lit, "", (3, 3)), DATA))
    with threads(1):
        assert training.evaluate(training.network(4)) > 40


@pytest.mark.slow
def test_training_beats_where_it_starts() -> None:
    task = Task(Target("length", lambda x: np.hypot(*gradients(x, FREE)), "", (3, 1)), DATA)
    with threads(1):
        training = dilated.Training(task)
        net = training.network(4)
        start = copy.deepcopy(net.state_dict())
        begun = training.evaluate(net)
        trained = training.run(net, 60, None, Ending())
        assert trained.best > begun + 0.2
        assert training.evaluate(net) == pytest.approx(trained.best)
        training.keep_best(net, start)
        assert training.evaluate(net) >= trained.best


@pytest.mark.slow
def test_a_training_tells_how_it_went_and_ends_in_time() -> None:
    seen: list[str] = []
    task = Task(
        Target("darker", darker, "", (3, 3)), SMALL, weights=3000, deadline=time.monotonic() + 1,
        progress=lambda done, total, text: seen.append(text),
    )  # fmt: skip
    candidate = dilated.fit(task)
    assert candidate is not None
    assert candidate.method == "dilated"
    steps = int(candidate.curve[-1][0])
    assert candidate.remark.startswith(f"{steps} step{'s' * (steps > 1)} on ")
    assert "steps" in candidate.stopped
    assert weights(candidate) <= 3000
    assert seen[-1].endswith(" dB")
    assert candidate.curve


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_learn_by_training import trained_state

def progress(done, total, text):
    if done == 20:  # before this evaluation's state is written
        os.kill(os.getpid(), signal.SIGKILL)

trained_state(Path(sys.argv[2]), 30, progress)
"""


def trained_state(state_file: Path, steps: int, progress: Progress = silent) -> dict[str, Tensor]:
    task = Task(Target("darker", darker, "", (3, 3)), SMALL, seed=5, progress=progress)
    with threads(1):
        training = dilated.Training(task)
        net = training.network(4)
        training.run(net, steps, state_file, Ending())
    return net.state_dict()


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    state_file = tmp_path / "state"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(state_file)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    # Another number of steps, as another machine's speed would give: the one in the file counts.
    resumed = trained_state(state_file, 50)
    whole = trained_state(tmp_path / "other", 30)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not list(tmp_path.glob(".writing-*"))


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    module = fresh()
    train(
        module, line, flat, steps=20, schedule=Cosine(0.1), evaluate_every=10, state_file=state, identity="a"
    )
    with pytest.raises(FormatError, match="another filter, size, seed or set of pictures; delete it"):
        train(fresh(), line, flat, steps=20, schedule=Cosine(0.1), state_file=state, identity="b")
    state.write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match="not the checkpoint of a training, or it is damaged"):
        train(fresh(), line, flat, steps=20, schedule=Cosine(0.1), state_file=state, identity="a")


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    def once(step: int) -> tuple[Tensor, Tensor]:
        steps.append(step)
        return line(step)

    steps: list[int] = []
    results = [
        train(
            fresh(),
            once,
            flat,
            steps=20,
            schedule=Cosine(0.1),
            evaluate_every=10,
            state_file=tmp_path / "state",
        )
        for _ in range(2)
    ]
    assert steps == list(range(20))
    assert results[0] == results[1]
