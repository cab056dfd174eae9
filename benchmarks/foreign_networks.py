"""Networks that nobody here wrote: how many are read right, refused (and why), or wrong.

    python benchmarks/foreign_networks.py torchvision            # every classifier and segmentation network
    python benchmarks/foreign_networks.py timm -n 60             # one of each family, or so many
    python benchmarks/foreign_networks.py timm convnext_tiny vit_tiny_patch16_224
    python benchmarks/foreign_networks.py onnx                   # the node tests of the package onnx

timm and torchvision need an environment of their own, with the dependencies of Diptych and `PYTHONPATH=src`:

    pip install torch torchvision timm onnx onnxruntime safetensors opencv-python-headless simplejpeg matplotlib \
        jinja2 typer rich tifffile

Weights are random, and the statistics of batch normalisations those of random batches, so that outputs depend on the
input. Right means: on two other samples at most 1e-4 of the largest output from what the module gives in float64, or
at most three times as far as PyTorch's own float32, which deep random networks spread. `--formats` also writes each
network that was read as .onnx, .bson and a Julia project, reads these again, and counts; `--results FILE` keeps
every outcome, and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import diptych
from diptych.errors import DiptychError

TOLERANCE = 1e-4
SECONDS = 900  # for one network
FORMATS = (".onnx", "project", ".bson")
MOST = 350_000_000  # parameters of a network
INTERPRETER = Path(__file__).resolve().parents[1] / "tests" / "interpreted_julia.py"


class Tally:
    """Outcomes by kind, and reasons of refusals.

    Args:
        kept: A file with a line of JSON for each network, from which what was tried before is taken.
    """

    def __init__(self, kept: Path | None = None) -> None:
        self.outcomes: Counter[str] = Counter()
        self.reasons: dict[str, list[str]] = defaultdict(list)
        self.formats: dict[str, Counter[str]] = defaultdict(Counter)
        self.tried: set[str] = set()
        self.kept = kept
        if kept is not None and kept.exists():
            for line in kept.read_text("utf-8").splitlines():
                self._count(json.loads(line))

    def add(self, name: str, outcome: str, detail: str = "", formats: dict[str, str] | None = None) -> None:
        """Counts one network, keeps it in the file, and prints a line."""
        row = {"name": name, "outcome": outcome, "detail": detail[:400], "formats": formats or {}}
        self._count(row)
        if self.kept is not None:
            with self.kept.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        print(f"{name:44s} {outcome:8s} {detail[:150]}", flush=True)
        for kind, what in (formats or {}).items():
            if what not in ("right", "written"):
                print(f"    {kind}: {what[:300]}", flush=True)

    def _count(self, row: dict[str, Any]) -> None:
        self.tried.add(row["name"])
        self.outcomes[row["outcome"]] += 1
        if row["outcome"] in ("refused", "crash"):
            self.reasons[_general(row["detail"])].append(row["name"])
        for kind, what in row["formats"].items():
            short = what if what in ("right", "written") else what.partition(":")[0]
            self.formats[kind][short] += 1
            if what not in ("right", "written"):
                self.reasons[f"{kind} {_general(what)}"].append(row["name"])

    def show(self) -> None:
        """Prints the counts, and the reasons by how often they occur."""
        total = sum(self.outcomes.values())
        print(
            "\n"
            + ", ".join(f"{kind} {count}" for kind, count in self.outcomes.most_common())
            + f" of {total}"
        )
        read = self.outcomes["right"]
        for kind, counts in self.formats.items():
            shown = ", ".join(f"{what} {count}" for what, count in counts.most_common())
            share = (counts["right"] + counts["written"]) / max(read, 1)
            print(f"{kind}: {shown} of {read} that were read right ({share:.1%})")
        for reason, names in sorted(self.reasons.items(), key=lambda item: -len(item[1])):
            print(f"{len(names):4d}  {reason[:110]}   {', '.join(names[:6])}")


def _general(detail: str) -> str:
    """A reason without the names and sizes that make it one of its own."""
    text = re.sub(r"the layer \S+ \((\S+)\)", r"\1", detail)
    return re.sub(r"\d+", "#", text)


# ---- torchvision and timm -----------------------------------------------------------------------------


def torchvision_names() -> list[str]:
    import torchvision.models as models

    return sorted(models.list_models(module=models)) + sorted(models.list_models(module=models.segmentation))


SMALL = ("atto", "femto", "pico", "nano", "xxs", "xs", "tiny", "mini", "_t", "small", "_s", "_0", "_xx")
LARGE = re.compile(r"large|huge|giant|xlarge|xxl|so400m|_\d+b_|_m36|_\d{3}m|base|_b\d")


def timm_names(count: int) -> list[str]:
    """The smallest network of each family."""
    import timm

    def order(name: str) -> tuple[bool, int, int, str]:
        small = next((place for place, word in enumerate(SMALL) if word in name), len(SMALL))
        return bool(LARGE.search(name)), small, len(name), name

    families: dict[str, str] = {}
    for name in sorted(timm.list_models(), key=order):
        module = timm.models._registry._model_to_module[name]
        families.setdefault(f"{module}:{re.split(r'[_0-9]', name)[0]}", name)
    chosen = sorted(name for name in families.values() if not re.search(r"_\d+b_|_\d{3}m", name))
    return chosen[:count] if count else chosen


def sized(module: Any, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The shape with `size` rows and columns, if that is less and the module takes it."""
    import torch

    smaller = (shape[0], size, size)
    if not size or size >= shape[1]:
        return shape
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *smaller))
    except Exception:  # the module's own
        return shape
    return smaller


def module_of(source: str, name: str) -> tuple[Any, tuple[int, ...], Any]:
    """The module, the shape of its input, and which output is meant."""
    import torch

    torch.manual_seed(0)
    if source == "timm":
        import timm

        module = timm.create_model(name, pretrained=False)
        size = module.default_cfg.get("input_size", (3, 224, 224))
        return module, tuple(size), None
    import torchvision.models as models

    more: dict[str, Any] = (
        {"weights_backbone": None, "aux_loss": None} if "resnet" in name or "mobilenet" in name else {}
    )
    segmentation = name in models.list_models(module=models.segmentation)
    if not segmentation:
        more = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    module = models.get_model(name, weights=None, **more)
    return module, (3, 299, 299) if name == "inception_v3" else (3, 224, 224), "out" if segmentation else None


def calibrated(module: Any, shape: tuple[int, ...]) -> Any:
    """The module with statistics of random batches, in evaluation mode."""
    import torch

    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    for weight in module.parameters():
        if (
            weight.is_floating_point() and float(weight.abs().max()) < 1e-3
        ):  # such as a head that begins at zero
            torch.nn.init.normal_(weight, std=0.05)
    module.eval()
    if norms:
        for norm in norms:
            norm.train()
        with torch.no_grad():
            module(torch.randn(4, *shape))
    return module.eval()


Row = tuple[str, str, dict[str, str]]


def try_network(tally: Tally, source: str, name: str, formats: bool, size: int, seconds: int) -> None:
    """Tries one network in a process of its own, so that its memory is free afterwards."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        waiting = pool.apply_async(tried, (source, name, formats, size, seconds))
        try:
            tally.add(name, *waiting.get(SECONDS))
        except multiprocessing.TimeoutError:  # or killed for its memory
            tally.add(name, "slow", f"no answer in {SECONDS} s")


def tried(source: str, name: str, formats: bool, size: int, seconds: int) -> Row:
    """What became of a network: the outcome, details, and what of each format."""
    import torch

    warnings.simplefilter("ignore")
    try:
        module, shape, output = module_of(source, name)
        if (count := sum(p.numel() for p in module.parameters())) > MOST:
            return "too large", f"{count:,} parameters", {}
        shape = sized(module, shape, size)
        module = calibrated(module, shape)
    except Exception as error:
        return "not made", str(error)[:100], {}
    start = time.process_time()
    try:
        model = diptych.from_torch(module, example=torch.randn(2, *shape), output=output)
        x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(7))
        result = diptych.predict(model, x.numpy())
        gap, own = distances(module, x, output, result)
    except DiptychError as error:
        return "refused", str(error).removeprefix("a Diptych model cannot express "), {}
    except Exception as error:
        return "crash", f"{type(error).__name__}: {error}", {}
    spent = time.process_time() - start
    right = gap <= max(TOLERANCE, 3 * own)
    found = {kind: written(model, kind, x.numpy(), result, seconds) for kind in FORMATS if formats and right}
    return "right" if right else "WRONG", f"{gap:.1e}, PyTorch {own:.1e}, {spent:.0f} s", found


def written(model: Any, kind: str, x: Any, expected: Any, seconds: int) -> str:
    """Whether a format holds the model, and gives its numbers when it is read again: "right", or why not.

    A Julia project is checked by its own `predict.jl --check`, in the tests' interpreter of Julia, if `seconds` is not
    0; else it is "written".
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / (f"m{kind}" if kind[0] == "." else kind)
        try:
            diptych.convert(model, target)
            if kind == "project":
                return checked(target, seconds) if seconds else "written"
            gap = distance(diptych.predict(diptych.read(target), x), expected)
        except DiptychError as error:
            return f"refused: {error}"
        except Exception as error:
            return f"crash: {type(error).__name__}: {error}"
    return "right" if gap <= TOLERANCE else f"WRONG: {gap:.1e}"


def checked(project: Path, seconds: int) -> str:
    """What the check of a Julia project says."""
    command = [sys.executable, str(INTERPRETER), str(project / "predict.jl"), "--check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return "written"
    if done.returncode == 0:
        return "right"
    differing = [line for line in done.stdout.splitlines() if not line.startswith("agrees")]
    return f"not run: {done.stderr.strip()[-300:]}" if done.stderr else f"WRONG: {' '.join(differing)[:300]}"


def distances(module: Any, x: Any, output: Any, result: Any) -> tuple[float, float]:
    """How far a result, and PyTorch's in float32, are from PyTorch's in float64."""
    import torch

    with torch.no_grad():
        single = module(x)
        single = (single if output is None else single[output]).numpy()
        if distance(result, single) <= TOLERANCE / 10:
            return distance(result, single), 0.0
        try:
            double = module.double()(x.double())
        except RuntimeError:  # code that makes float32 tensors of its own
            return distance(result, single), 0.0
        double = (double if output is None else double[output]).numpy()
    return distance(result, double), distance(single, double)


def distance(actual: Any, expected: Any) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    return float(np.abs(actual - expected).max() / max(float(np.abs(expected).max()), 1e-12))


# ---- ONNX's node tests --------------------------------------------------------------------------------


def node_tests() -> Iterator[tuple[str, Any, Any, Any]]:
    """Those with one input and one output of floats: (name, model, input, output)."""
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        graph = case.model.graph
        if len(graph.input) != 1 or len(graph.output) != 1 or not case.data_sets:
            continue
        (inputs, outputs) = case.data_sets[0]
        if any(getattr(a, "dtype", None) != np.float32 for a in (*inputs, *outputs)):
            continue
        yield case.name, case.model, inputs[0], outputs[0]


def try_nodes(tally: Tally) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "node.onnx"
        for name, proto, given, expected in node_tests():
            path.write_bytes(proto.SerializeToString())
            try:
                result = diptych.predict(diptych.read(path), given)
            except DiptychError as error:
                tally.add(name, "refused", str(error).removeprefix("a Diptych model cannot express "))
            except Exception as error:
                tally.add(name, "crash", f"{type(error).__name__}: {error}")
            else:
                close = result.shape == expected.shape and np.allclose(
                    result, expected, rtol=1e-3, atol=1e-5, equal_nan=True
                )
                tally.add(name, "right" if close else "WRONG")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", choices=("torchvision", "timm", "onnx"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("-n", type=int, default=0, help="how many of timm's families; all by default")
    parser.add_argument(
        "--size", type=int, default=0, help="rows and columns of the input, where fewer will do"
    )
    parser.add_argument(
        "--check", type=int, default=0, help="seconds for running each Julia project in an interpreter"
    )
    parser.add_argument("--formats", action="store_true", help="also write what was read, and read it again")
    parser.add_argument(
        "--results", type=Path, help="a file of JSON lines to keep outcomes in, and to go on from"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    tally = Tally(arguments.results)
    if arguments.source == "onnx":
        try_nodes(tally)
    else:
        names = arguments.names or (
            timm_names(arguments.n) if arguments.source == "timm" else torchvision_names()
        )
        for name in names:
            if name not in tally.tried:
                try_network(tally, arguments.source, name, arguments.formats, arguments.size, arguments.check)
    tally.show()
    sys.exit(1 if tally.outcomes["WRONG"] else 0)


if __name__ == "__main__":
    main()
