"""PyTorch's launcher with two processes gives the result of one, for a filter network and the tiny generator's."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diptych

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT / "training"), str(ROOT / "tests"), *sys.path]),
    "OMP_NUM_THREADS": "1",
}

FILTER = """
import sys
import numpy as np
import torch
from diptych.filters.learning import distributed, loop
from diptych.filters.learning.dilated import DilatedNet, _rate, _root
from diptych.filters.learning.local_histograms import COUNT
from diptych.filters.learning.schedule import Cosine

with distributed.workers_serving():
    net = DilatedNet((1, 1), 8)
    net.initialise(torch.Generator().manual_seed(0))

    def batch(step):
        random = np.random.default_rng(step)
        inputs = torch.from_numpy(random.random((4, COUNT + 1, 40, 40), np.float32))
        side = 40 - 2 * net.halo
        return inputs, torch.from_numpy(random.random((4, 1, side, side), np.float32))

    trained = loop.train(net, batch, lambda module: 0.0, steps=20, schedule=_rate, loss=_root)
    flat = torch.cat([value.flatten() for value in net.state_dict().values()])
    np.save(sys.argv[1], np.append(flat.numpy(), trained.history[0][1]))
"""

GENERATOR = """
import sys
from pathlib import Path
import numpy as np
import torch
from tiny_diffusion import autoencoder, training

training.join()
plan = training.Plan(Path(sys.argv[1]), 4, 1e-3, batch=4, save_every=2)
pictures = np.random.default_rng(0).integers(0, 256, (autoencoder.HELD_OUT + 8, 32, 32, 3), dtype=np.uint8)
autoencoder.fit(plan, pictures)
"""


def started(code: str, folder: Path, name: str, *launcher: str) -> None:
    script = folder / "script.py"
    script.write_text(code)
    command = [sys.executable, *launcher, str(script), str(folder / name)]
    for _ in range(2):
        done = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
        )
        if "terminate called without an active exception" not in done.stderr:
            break  # that is PyTorch's store, which now and then aborts a busy machine's process when it ends
    assert done.returncode == 0, done.stderr


TWO = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d",
       "--rdzv-endpoint", "localhost:0")  # fmt: skip


@pytest.mark.slow
def test_a_filter_network(tmp_path):
    started(FILTER, tmp_path, "one.npy")
    started(FILTER, tmp_path, "two.npy", *TWO)
    one, two = np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy")
    assert len(one) > 1000
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_tiny_generator(tmp_path):
    import torch

    started(GENERATOR, tmp_path, "one")
    started(GENERATOR, tmp_path, "two", *TWO)
    one, two = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["average"] for name in ("one", "two")
    )
    for name, value in one.items():
        np.testing.assert_allclose(two[name].numpy(), value.numpy(), rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_the_command_writes_once(tmp_path):
    done = subprocess.run(
        [sys.executable, *TWO, "-m", "diptych", "filter", "learn", "invert", "-o", "invert.safetensors"],
        env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model: invert.safetensors") == 1
    model = diptych.read(tmp_path / "invert.safetensors")
    x = np.full((1, 3, 4, 4), 0.25, np.float32)
    assert np.allclose(diptych.predict(model, x), 0.75)
