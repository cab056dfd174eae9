"""A model by name: from timm, torchvision, the Hugging Face Hub, its cache, a folder, or an address.

Tests of networks need timm and torchvision, and are skipped where these are not installed.
"""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych import formats, hub
from diptych.errors import FormatError, MissingExtra, OutputError, UsageError
from diptych.loading import load, recipe_of
from diptych.model import architectures
from diptych.predicting import predict_files
from diptych.preprocessing import CentreCrop, Resize
from tests.hub_server import COMMIT, cached
from tests.hub_server import hub as served

huggingface_hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("huggingface_hub.constants")
torch = pytest.importorskip("torch")
TIMM = importlib.util.find_spec("timm") is not None
needs_timm = pytest.mark.skipif(not TIMM, reason="timm and torchvision are not installed")
without_timm = pytest.mark.skipif(TIMM, reason="timm is installed")

CONFIG = {
    "architecture": "resnet18",
    "num_classes": 4,
    "model_args": {"channels": [8, 8, 8, 8]},
    "label_names": ["tabby, tabby cat", "dog", "dog", "owl"],
    "pretrained_cfg": {
        "tag": "mine",
        "input_size": [3, 64, 64],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "num_classes": 4,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
    },
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that is not there."""
    home = tmp_path / "home"
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    at(monkeypatch, "http://127.0.0.1:9")
    return home / "hub"


def at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def network() -> Any:
    import timm

    torch.manual_seed(0)
    settings = {key: CONFIG[key] for key in ("num_classes",)} | CONFIG["model_args"]  # type: ignore[operator]
    module = timm.create_model("resnet18", pretrained=False, **settings).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return module


def files_of(module: Any) -> dict[str, bytes]:
    from safetensors.torch import save

    return {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": save(module.state_dict())}


def folder_of(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


def batch() -> Any:
    return np.random.default_rng(0).random((3, 3, 64, 64), np.float32)


def check(model: Any, module: Any) -> None:
    with torch.no_grad():
        expected = module(torch.from_numpy(batch())).numpy()
    np.testing.assert_allclose(diptych.predict(model, batch()), expected, atol=1e-5)
    assert model.classes == ("tabby, tabby cat", "dog (1)", "dog (2)", "owl")
    assert model.preprocessing.size == (64, 64)
    assert Resize(67, 67, "pillow-bicubic", "cover") in model.preprocessing.steps
    assert model.notes["license"] == "apache-2.0"
    assert (model.trained, model.name, model.source.framework) == (True, "resnet18.mine", "timm")


# ---- What is a name ----------------------------------------------------------------------------------------


def test_names_are_told_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "timm/resnet18",
        "torchvision/resnet18",
        "hf-hub:a/b",
        "local-dir:x",
        "https://a/b#sha256=0",
    ):
        assert hub.is_name(name)
    for name in ("model.onnx", "timm.onnx", "resnet18", "scenes"):
        assert not hub.is_name(name)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "mine.onnx").touch()
    assert not hub.is_name("timm/mine.onnx")
    (tmp_path / "snapshot").mkdir()
    assert not hub.is_name("snapshot")
    (tmp_path / "snapshot" / "config.json").touch()
    assert hub.is_name(tmp_path / "snapshot")


def test_a_bare_name_is_answered_with_the_forms_that_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"no model called 'resnet18'.*timm/NAME, torchvision/NAME or hf-hub:"
    ):
        load("resnet18")


# ---- Folders and repositories ------------------------------------------------------------------------------


@needs_timm
@pytest.mark.parametrize("form", ["{}", "local-dir:{}"])
def test_a_folder(form: str, tmp_path: Path) -> None:
    module = network()
    folder = folder_of(tmp_path / "snapshot", files_of(module))
    check(load(form.format(folder)), module)


@needs_timm
def test_a_folder_without_classes_gives_features(tmp_path: Path) -> None:
    import timm

    module = timm.create_model("resnet18", pretrained=False, num_classes=0).eval()
    files = files_of(module)
    settings: dict[str, Any] = {k: v for k, v in CONFIG.items() if k not in ("label_names", "model_args")}
    settings |= {"num_classes": 0, "pretrained_cfg": {**settings["pretrained_cfg"], "num_classes": 0}}
    settings["pretrained_cfg"].pop("label_names", None)
    files["config.json"] = json.dumps(settings).encode()
    model = load(str(folder_of(tmp_path / "snapshot", files)))
    with torch.no_grad():
        expected = module(torch.from_numpy(batch())).numpy()
    np.testing.assert_allclose(diptych.predict(model, batch()), expected, atol=1e-5)
    assert model.gives_features
    assert "Classes: none, its output is features" in diptych.inspect(model).text()
    diptych.convert(model, tmp_path / "m.safetensors")
    assert diptych.read(tmp_path / "m.safetensors").gives_features
    Image.fromarray(np.zeros((70, 70, 3), np.uint8)).save(tmp_path / "p.png")
    with pytest.raises(UsageError, match=r"gives features and has no classes.*--columns output"):
        predict_files(model, [tmp_path / "p.png"])
    diptych.predict(model, [tmp_path / "p.png"], out=tmp_path / "t.csv", columns=["output"])
    assert "output" in (tmp_path / "t.csv").read_text().splitlines()[0]


@needs_timm
def test_a_folder_of_older_files(tmp_path: Path) -> None:
    """Everything on one level, "labels", and weights as PyTorch saves them."""
    module = network()
    folder = tmp_path / "old"
    folder.mkdir()
    flat = {**CONFIG["pretrained_cfg"], "architecture": "resnet18", "labels": CONFIG["label_names"]}  # type: ignore[dict-item]
    flat["num_classes"] = 4
    import timm

    torch.manual_seed(0)
    module = timm.create_model("resnet18", pretrained=False, num_classes=4).eval()
    (folder / "config.json").write_text(json.dumps(flat))
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, folder / "pytorch_model.bin")
    check(load(folder), module)


@needs_timm
@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_repository_in_the_cache_needs_no_network(revision: str, cache: Path) -> None:
    module = network()
    cached(cache, "me/net", files_of(module))
    check(load(f"hf-hub:me/net{revision}"), module)


@needs_timm
def test_a_repository_is_downloaded_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = network()
    files = {f"me/net/{name}": content for name, content in files_of(module).items()}
    with served(files) as (address, asked):
        at(monkeypatch, address)
        check(load("hf-hub:me/net"), module)
        assert {path.partition("/resolve/main/")[2] for path in asked} >= {"config.json"}
        asked.clear()
        check(load("hf-hub:me/net"), module)
        assert asked == []
    assert (cache / "models--me--net" / "snapshots" / COMMIT / "model.safetensors").is_file()


@needs_timm
def test_an_architecture_by_name_takes_weights_from_a_file(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = timm.create_model("mobilenetv2_050", pretrained=False, num_classes=7).eval()
    save_file(module.state_dict(), tmp_path / "mine.safetensors")
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}}, tmp_path / "mine.pth"
    )
    x = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    for name in ("mine.pth", "mine.safetensors"):
        model = diptych.load_model(tmp_path / name, architecture="timm/mobilenetv2_050")
        np.testing.assert_allclose(diptych.predict(model, x), expected, atol=1e-5 * np.abs(expected).max())
        assert model.classes is None
        again = diptych.read(tmp_path / name, architecture="timm/mobilenetv2_050")
        np.testing.assert_array_equal(diptych.predict(again, x), diptych.predict(model, x))
    torch.save({"conv.weight": torch.ones(2, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(FormatError, match=r"other\.pth are not those of timm/mobilenetv2_050"):
        diptych.load_model(tmp_path / "other.pth", architecture="timm/mobilenetv2_050")


# ---- Every verb --------------------------------------------------------------------------------------------


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "diptych", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
        check=False,
    )


@needs_timm
@pytest.mark.slow
def test_every_verb_takes_a_name(tmp_path: Path) -> None:
    from PIL import Image

    name = f"local-dir:{folder_of(tmp_path / 'snapshot', files_of(network()))}"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (80, 90, 3), np.uint8)).save(tmp_path / "a.png")
    shown = command("predict", name, tmp_path / "a.png", "--softmax", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["classes"][0] == "tabby, tabby cat"
    for arguments in (
        ("inspect", name),
        ("convert", name, tmp_path / "out.onnx"),
        ("compare", name, tmp_path / "out.onnx"),
        ("features", name, tmp_path / "a.png", "-o", tmp_path / "maps"),
        ("preprocess", tmp_path / "a.png", "--preprocessing", name, "-o", tmp_path / "inputs"),
        ("run", "--images", tmp_path / "a.png", "--model", name, "-o", tmp_path / "run", "--maps", "0"),
        ("predict", name, tmp_path / "a.png", "--out", tmp_path / "table.jsonl"),
    ):
        if arguments[-1] == tmp_path / "table.jsonl" and importlib.util.find_spec("pyarrow") is None:
            continue
        done = command(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert np.load(tmp_path / "inputs" / "a.npy").shape[-2:] == (64, 64)


@needs_timm
def test_the_recipe_of_a_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "snapshot", files_of(network()))
    recipe = recipe_of(f"local-dir:{folder}")
    assert CentreCrop(64, 64) in recipe.steps


# ---- timm and torchvision ----------------------------------------------------------------------------------


@needs_timm
def test_timms_name_with_weights_in_the_cache(cache: Path) -> None:
    import timm
    from safetensors.torch import save

    torch.manual_seed(0)
    module = timm.create_model("resnet18", pretrained=False).eval()
    cached(cache, "timm/resnet18.a1_in1k", {"model.safetensors": save(module.state_dict())})
    for name in ("timm/resnet18.a1_in1k", "timm/resnet18"):
        model = load(name)
        x = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
        with torch.no_grad():
            np.testing.assert_allclose(
                diptych.predict(model, x), module(torch.from_numpy(x)).numpy(), atol=1e-5
            )
        assert model.preprocessing is not None
        assert Resize(235, 235, "pillow-bicubic", "cover") in model.preprocessing.steps
        assert model.classes is not None
        assert (model.classes[0], model.classes[134], len(model.classes)) == ("tench", "crane bird", 1000)


@needs_timm
def test_torchvisions_name_with_weights_in_the_cache() -> None:
    import torchvision

    torch.manual_seed(0)
    module = torchvision.models.mobilenet_v3_small().eval()
    enumeration = torchvision.models.MobileNet_V3_Small_Weights
    weights = enumeration.IMAGENET1K_V1
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    place.parent.mkdir(parents=True)
    torch.save(module.state_dict(), place)
    with pytest.raises(FormatError, match="is damaged or cut off: its SHA-256 begins with"):
        load("torchvision/mobilenet_v3_small")
    renamed = place.with_name("mobilenet_v3_small.pth")  # a name without a checksum
    place.rename(renamed)
    changed = type(weights.value)(
        url=f"https://x/{renamed.name}", transforms=weights.transforms, meta=weights.meta
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_value_", changed)
        model = load("torchvision/mobilenet_v3_small:IMAGENET1K_V1")
    x = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(diptych.predict(model, x), module(torch.from_numpy(x)).numpy(), atol=1e-5)
    assert model.name == "mobilenet_v3_small:IMAGENET1K_V1"
    assert model.preprocessing is not None
    assert Resize(256, 256, "pillow-bilinear", "cover") in model.preprocessing.steps
    assert model.classes is not None
    assert model.classes[1] == "goldfish"


# ---- Addresses ---------------------------------------------------------------------------------------------


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()

    def handler(*arguments: Any) -> _Files:
        return _Files(*arguments, directory=str(folder))

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", folder
    running.shutdown()
    running.server_close()
    thread.join()


def test_an_address_is_downloaded_once_and_checked(server: tuple[str, Path], cache: Path) -> None:
    address, folder = server
    model = architectures.named("small-cnn-32", seed=4)
    formats.write(model, folder / "net.safetensors")
    sum_ = hashlib.sha256((folder / "net.safetensors").read_bytes()).hexdigest()
    name = f"{address}/net.safetensors#sha256={sum_}"
    x = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    expected = diptych.predict(model, x)
    np.testing.assert_array_equal(diptych.predict(name, x), expected)
    (folder / "net.safetensors").unlink()
    np.testing.assert_array_equal(diptych.predict(name, x), expected)
    assert (cache.parent / "diptych" / sum_ / "net.safetensors").is_file()


def test_an_address_as_architecture_gives_its_layers_and_not_its_weights(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = server
    mine, theirs = (architectures.named("small-cnn-32", seed=seed) for seed in (1, 2))
    formats.write(theirs, folder / "net.safetensors")
    sum_ = hashlib.sha256((folder / "net.safetensors").read_bytes()).hexdigest()
    state = {name: torch.tensor(array) for name, array in mine.weights().items()}
    torch.save(state, tmp_path / "mine.pth")
    name = f"{address}/net.safetensors#sha256={sum_}"
    x = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    for model in (
        diptych.load_model(tmp_path / "mine.pth", architecture=name),
        diptych.read(tmp_path / "mine.pth", architecture=name),
    ):
        np.testing.assert_allclose(diptych.predict(model, x), diptych.predict(mine, x), atol=1e-6)


def test_an_address_that_is_wrong_is_said(
    server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    (folder / "net.onnx").write_bytes(b"other bytes")
    with pytest.raises(OutputError, match=r"has the SHA-256 [0-9a-f]{64}, not 0+; it was deleted"):
        load(f"{address}/net.onnx#sha256={'0' * 64}")
    assert not (cache.parent / "diptych").exists()  # no empty folder stays
    assert not [path for path in cache.parent.rglob("*") if path.is_file()]
    with pytest.raises(UsageError, match="a model by address needs its checksum"):
        load(f"{address}/net.onnx")
    with pytest.raises(UsageError, match="64 hexadecimal digits, not 'abc'"):
        load(f"{address}/net.onnx#sha256=abc")
    with pytest.raises(UsageError, match=r"64 hexadecimal digits, not '\.\./\.\./x'"):
        load(f"{address}/net.onnx#sha256=../../x")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OutputError, match="not in the cache, and HF_HUB_OFFLINE forbids"):
        load(f"{address}/net.onnx#sha256={'0' * 64}")


# ---- Bad input ---------------------------------------------------------------------------------------------


def test_a_licence_that_must_be_accepted_is_said(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    with served({"me/gated/config.json": b"{}"}, gated=frozenset({"me/gated"})) as (address, _):
        at(monkeypatch, address)
        with pytest.raises(
            UsageError, match=r"licence of me/gated must be accepted first: open https.*hf auth login"
        ):
            load("hf-hub:me/gated")


def test_a_repository_or_revision_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with served({"me/net/config.json": b"{}"}) as (address, _):
        at(monkeypatch, address)
        with pytest.raises(UsageError, match="there is no public repository me/ent"):
            load("hf-hub:me/ent")
        with pytest.raises(UsageError, match="me/net has no revision 'v9'"):
            load("hf-hub:me/net@v9")
    with served({"me/net/other.txt": b"{}"}) as (address, _):
        at(monkeypatch, address)
        with pytest.raises(FormatError, match=r"hf-hub:me/net has no config\.json"):
            load("hf-hub:me/net")


@pytest.mark.parametrize(
    "name", ["hf-hub:", "hf-hub:a/b/c", "hf-hub:../x", "hf-hub:a/b@", "hf-hub:a b/c", "hf-hub:a/b@../x"]
)
def test_what_is_no_repository_is_said(name: str) -> None:
    with pytest.raises(UsageError, match="a repository of the Hugging Face Hub is hf-hub:OWNER/NAME"):
        load(name)


def test_no_network_and_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        OutputError, match=r"config.json of me/net is not in the cache and could not be downloaded"
    ):
        load("hf-hub:me/net")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OutputError, match=r"not in the cache, and HF_HUB_OFFLINE forbids to download it"):
        load("hf-hub:me/net")


def test_a_truncated_download_leaves_nothing_under_the_name(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.dumps(CONFIG).encode() * 50
    with served({"me/net/config.json": content}, truncated=True) as (address, _):
        at(monkeypatch, address)
        with pytest.raises(OutputError, match=r"config\.json of me/net"):
            load("hf-hub:me/net")
    assert not list(cache.rglob("snapshots/*/config.json"))


def test_a_config_without_weights(tmp_path: Path, cache: Path) -> None:
    folder = folder_of(tmp_path / "f", {"config.json": json.dumps(CONFIG).encode()})
    with pytest.raises(FormatError, match=r"has a config\.json but no weights"):
        load(folder)
    (folder / "a.safetensors").touch()
    (folder / "b.safetensors").touch()
    with pytest.raises(FormatError, match=r"it has a\.safetensors, b\.safetensors: rename one"):
        load(folder)
    with pytest.raises(FormatError, match="there is no folder"):
        load("local-dir:nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"has no config\.json"):
        load(f"local-dir:{tmp_path / 'empty'}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "names no architecture of timm"),
        (b"{}", "names no architecture of timm"),
        (b'{"architecture": 3}', "names no architecture of timm"),
        (b'{"architecture": "x", "pretrained_cfg": []}', "names no architecture of timm"),
        (b'{"model_type": "vit", "architectures": ["ViT"]}', "is a model of transformers .vit., not of timm"),
    ],
)
def test_a_config_of_something_else(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=said):
        load(folder_of(tmp_path / "f", {"config.json": content, "model.safetensors": b""}))


class _Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path(os.environ["DIPTYCH_TEST_BOMB"]),))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_that_would_run_code_is_not_opened(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIPTYCH_TEST_BOMB", str(tmp_path / "ran"))
    folder = folder_of(tmp_path / "f", {"config.json": json.dumps(CONFIG).encode()})
    if zipped:
        with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(_Bomb(), protocol=2))
            archive.writestr("archive/version", "3")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(), protocol=2))
    with pytest.raises(FormatError, match=r"holds pickled Python objects|is damaged or cut off"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_cut_off(tmp_path: Path) -> None:
    from safetensors.torch import save

    whole = save({"a": torch.ones(100)})
    folder = folder_of(
        tmp_path / "f", {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": whole[:-8]}
    )
    with pytest.raises(FormatError, match=r"model\.safetensors is damaged or cut off"):
        load(folder)


@without_timm
def test_what_is_missing_is_said_with_the_line_that_installs_it(tmp_path: Path) -> None:
    from safetensors.torch import save

    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": save({"a": torch.ones(1)})}
    folder = folder_of(tmp_path / "f", files)
    for name in ("timm/resnet18", "torchvision/resnet18", folder):
        with pytest.raises(MissingExtra, match=r"pip install .*\[hub\]'"):
            load(name)


@needs_timm
def test_networks_of_other_inputs_are_said() -> None:
    for name, kind in (
        ("r3d_18", "Video"),
        ("fasterrcnn_resnet50_fpn", "ObjectDetection"),
        ("raft_small", "OpticalFlow"),
    ):
        with pytest.raises(
            UsageError, match=f"does not take one picture and give one array .its preset is {kind}"
        ):
            load(f"torchvision/{name}")


@needs_timm
def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean timm/resnet18 "):
        load("timm/resnt18")
    with pytest.raises(UsageError, match=r"did you mean timm/resnet18.*a1_in1k"):
        load("timm/resnet18.a1_in2k")
    with pytest.raises(UsageError, match="did you mean torchvision/resnet18 "):
        load("torchvision/resnt18")
    with pytest.raises(UsageError, match="has no weights 'V7'; it has IMAGENET1K_V1, IMAGENET1K_V2"):
        load("torchvision/resnet50:V7")
    with pytest.raises(UsageError, match="key is for reading a file"):
        diptych.load_model("timm/resnet18", key="x")


@needs_timm
def test_settings_and_weights_that_do_not_fit(tmp_path: Path) -> None:
    files = files_of(network())
    for changes, said in (
        ({"architecture": "nonet"}, "cannot be built with timm"),
        ({"num_classes": 7}, "its weights do not fit the network"),
        ({"model_args": {"channels": [9, 8, 8, 8]}}, "its weights do not fit the network"),
        ({"model_args": {"nonsense": 1}}, "cannot be built"),
        ({"model_args": {"channels": [8000, 8000, 8000, 8000]}}, "describe .* weights, but its file holds"),
    ):
        config = json.dumps(CONFIG | changes).encode()
        folder = folder_of(tmp_path / str(abs(hash(said + str(changes)))), files | {"config.json": config})
        with pytest.raises(FormatError, match=said):
            load(folder)
