"""`diptych serve` and clients that exist: the Open Inference Protocol v2, by tritonclient and by hand."""

import base64
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.model.layers import BatchNorm, Chain, Conv, Flatten
from diptych.model.model import Model
from diptych.preprocessing import named
from diptych.preprocessing.adjusting import adjusted
from little_models import classifier, numbers
from little_server import serving

triton = pytest.importorskip("tritonclient.http")
prometheus = pytest.importorskip("prometheus_client.parser")

PICTURE = Path(__file__).parent / "data" / "pictures" / "comfy_text_2MB.png"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of models: two versions of one, and two files."""
    folder = tmp_path_factory.mktemp("models")
    for version in ("1", "10"):
        (folder / "twice" / version).mkdir(parents=True)
    shape = {"input_shape": (3, 12, 16)}
    diptych.write(classifier().with_(**shape), folder / "twice" / "1" / "model.onnx")
    diptych.write(
        classifier().with_(**shape, classes=tuple("abcde")), folder / "twice" / "10" / "model.safetensors"
    )
    diptych.write(classifier().with_(**shape), folder / "bare.safetensors")
    free = Model(
        Chain((Conv(numbers(2, 3, 3, 3), numbers(2), padding=((1, 1), (1, 1))),)),
        preprocessing=named("colour-16"),
    )
    diptych.write(free, folder / "free.safetensors")
    (folder / "README.md").write_text("Not a model.")
    return folder


@pytest.fixture(scope="module")
def server(models):
    with serving("scenes", models, "--max-delay", 2) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=8) as client:
        yield client


@pytest.fixture(scope="module")
def jpeg():
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def given(x, datatype="FP32", binary=True, name="input"):
    tensor = triton.InferInput(name, list(x.shape), datatype)
    tensor.set_data_from_numpy(x, binary_data=binary)
    return tensor


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


# ---- tritonclient, unchanged ------------------------------------------------------------------------------


def test_tritonclient_finds_out_about_the_server_and_its_models(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scenes")
    assert client.is_model_ready("twice", "1")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("twice")
    assert metadata["versions"] == ["1", "10"]
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 12, 16]}]
    assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 5]}]
    assert client.get_model_metadata("free")["inputs"][0]["shape"] == [-1, 3, -1, -1]
    assert client.get_model_metadata("free")["outputs"][0]["shape"] == [-1, 2, -1, -1]
    assert client.get_model_config("scenes")["max_batch_size"] == 32
    names = {(each["name"], each["version"], each["state"]) for each in client.get_model_repository_index()}
    assert names == {
        (n, v, "READY")
        for n, v in (("scenes", "1"), ("twice", "1"), ("twice", "10"), ("bare", "1"), ("free", "1"))
    }


@pytest.mark.parametrize("asked", ["nothing", "json", "binary"])
@pytest.mark.parametrize("binary", [False, True])
def test_tritonclient_gets_the_bytes_of_predict(client, binary, asked):
    x = random(3, 3, 32, 32)
    outputs = (
        None if asked == "nothing" else [triton.InferRequestedOutput("output", binary_data=asked == "binary")]
    )
    result = client.infer("scenes", [given(x, binary=binary)], outputs=outputs, request_id="mine")
    assert result.as_numpy("output").tobytes() == diptych.predict("scenes", x).tobytes()
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_tritonclient_sends_packed_requests(client, compression):
    x = random(2, 3, 32, 32)
    result = client.infer(
        "scenes",
        [given(x)],
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert result.as_numpy("output").tobytes() == diptych.predict("scenes", x).tobytes()


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [("BOOL", bool), ("UINT8", "u1"), ("UINT16", "u2"), ("UINT32", "u4"), ("UINT64", "u8"), ("INT8", "i1"),
     ("INT16", "i2"), ("INT32", "i4"), ("INT64", "i8"), ("FP16", "f2"), ("FP32", "f4"), ("FP64", "f8")],
)  # fmt: skip
def test_every_datatype_that_the_model_takes(client, datatype, dtype):
    x = (random(2, 3, 32, 32) * 2).astype(dtype)
    expected = diptych.predict("scenes", x.astype(np.float32)).tobytes()
    for binary in (True, False) if datatype != "FP16" else (True,):
        assert client.infer("scenes", [given(x, datatype, binary)]).as_numpy("output").tobytes() == expected


def test_bf16(server):
    x = random(1, 3, 32, 32).view(np.uint32) >> 16
    tensor = {"name": "input", "datatype": "BF16", "shape": [1, 3, 32, 32]}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 2 * x.size}}]}).encode()
    answer = server.ask(
        "POST",
        "/v2/models/scenes/infer",
        head + x.astype("<u2").tobytes(),
        Inference_Header_Content_Length=str(len(head)),
    )
    expected = diptych.predict("scenes", (x << 16).view(np.float32))
    assert np.float32(answer.json["outputs"][0]["data"]).tobytes() == expected.tobytes()


def test_encoded_pictures(client, server, jpeg, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    expected = diptych.predict("scenes", [tmp_path / "a.jpg", PICTURE])
    pictures = np.array([jpeg, PICTURE.read_bytes()], object)
    result = client.infer("scenes", [given(pictures, "BYTES", name="image")])
    assert result.as_numpy("output").tobytes() == expected.tobytes()
    texts = [base64.b64encode(each).decode() for each in pictures]
    answer = server.infer("scenes", {"name": "image", "datatype": "BYTES", "shape": [2], "data": texts})
    assert np.float32(answer.json["outputs"][0]["data"]).tobytes() == expected.tobytes()
    alone = server.ask("POST", "/v2/models/scenes/infer", jpeg, Inference_Header_Content_Length="0")
    assert np.float32(alone.json["outputs"][0]["data"]).tobytes() == expected[0].tobytes()


def test_an_answer_is_that_of_the_command(server, jpeg, tmp_path, diptych_command):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    said = json.loads(diptych_command("predict", "scenes", tmp_path / "a.jpg", "--json").out)
    answer = server.ask("POST", "/v2/models/scenes/infer", jpeg, Inference_Header_Content_Length="0")
    assert answer.json["outputs"][0]["data"] == list(said["predictions"][0]["probabilities"].values())


@pytest.mark.slow
def test_batches_of_many_clients_have_the_bytes_of_single_ones(client, server):
    xs = [random(1 + i % 3, 3, 32, 32, seed=i) for i in range(60)]
    before = client.get_inference_statistics("scenes")["model_stats"][0]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda x: client_infer(server.port, x), xs))
    for x, answer in zip(xs, answers, strict=True):
        assert answer.tobytes() == diptych.predict("scenes", x).tobytes()
    after = client.get_inference_statistics("scenes")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == sum(map(len, xs))
    assert after["execution_count"] - before["execution_count"] < len(xs)  # some were joined


def client_infer(port, x):
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        return client.infer("scenes", [given(x)]).as_numpy("output")


def test_classification(client):
    x = random(2, 3, 32, 32)
    (shown,) = client.infer(
        "scenes", [given(x)], outputs=[triton.InferRequestedOutput("output", class_count=2)]
    ).as_numpy("output")[:1]
    expected = diptych.predict("scenes", x)[0]
    best = int(expected.argmax())
    assert shown[0].decode() == f"{expected[best]:f}:{best}:{diptych.load_model('scenes').classes[best]}"
    assert len(shown) == 2


def test_versions_and_sizes(client):
    x = random(1, 3, 12, 16)
    for version in ("", "1", "10"):
        result = client.infer("twice", [given(x)], model_version=version)
        assert result.get_response()["model_version"] == (version or "10")
        assert result.as_numpy("output").shape == (1, 5)
    for height, width in ((5, 7), (20, 9)):
        assert client.infer("free", [given(random(2, 3, height, width))]).as_numpy("output").shape == (
            2,
            2,
            height,
            width,
        )


def test_models_are_loaded_and_unloaded_without_dropping_a_request(models, client, server):
    x = random(1, 3, 12, 16)
    done = False

    def ask(_):
        count = 0
        while not done:
            answer = server.infer(
                "bare",
                {"name": "input", "datatype": "FP32", "shape": [1, 3, 12, 16], "data": x.ravel().tolist()},
            )
            assert answer.status == 200, answer.body
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, n) for n in range(4)]
        for _ in range(5):
            client.load_model("bare")
        done = True
        assert sum(each.result() for each in asking) > 10
    shutil.copy(models / "bare.safetensors", models / "new.safetensors")
    client.load_model("new")
    assert client.is_model_ready("new")
    client.unload_model("new")
    assert not client.is_model_ready("new")
    with pytest.raises(
        triton.InferenceServerException, match=r"the model new is not loaded: unloaded; load it again first"
    ):
        client.infer("new", [given(x)])
    (models / "new.safetensors").write_bytes(b"damaged")
    with pytest.raises(triton.InferenceServerException, match=r"new\.safetensors") as caught:
        client.load_model("new")
    assert str(models) not in str(caught.value)
    (models / "new.safetensors").unlink()
    with pytest.raises(triton.InferenceServerException, match="there is no model 'new' to be loaded"):
        client.load_model("new")


def test_the_example_in_the_documentation(server, jpeg, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "serving.md").read_text()
    code = page.split("```python\n")[1].split("```")[0].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert re.search(r"b'0\.\d{6}:\d:\w+'", done.stdout)


# ---- By hand ----------------------------------------------------------------------------------------------


def test_nested_and_flat_data(server):
    x = random(2, 3, 12, 16)
    flat, nested = (
        server.infer(
            "bare", {"name": "input", "datatype": "FP32", "shape": [2, 3, 12, 16], "data": data}
        ).json
        for data in (x.ravel().tolist(), x.tolist())
    )
    assert flat == nested
    assert flat["outputs"][0]["shape"] == [2, 5]
    assert "id" not in flat


def test_chunked_and_packed_bodies(server):
    x = random(1, 3, 12, 16)
    body = json.dumps(
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 12, 16], "data": x.tolist()}]}
    ).encode()
    path = "/v2/models/bare/infer"
    plain = server.ask("POST", path, body)
    bare = zlib.compressobj(wbits=-15)
    for packed, name in (
        (gzip.compress(body), "gzip"),
        (zlib.compress(body), "deflate"),
        (bare.compress(body) + bare.flush(), "deflate"),
    ):
        assert server.ask("POST", path, packed, Content_Encoding=name).body == plain.body


def test_metrics_are_triton_s_and_prometheus_reads_them(server, client):
    before = _counts(server)
    client.infer("scenes", [given(random(2, 3, 32, 32))])
    assert (
        server.infer("scenes", {"name": "nothing", "datatype": "FP32", "shape": [1], "data": [1]}).status
        == 400
    )
    after = _counts(server)
    changes = {name: after[name] - before[name] for name in after}
    assert changes["nv_inference_request_success"] == changes["nv_inference_exec_count"] == 1
    assert changes["nv_inference_count"] == 2
    assert changes["nv_inference_request_failure"] == 1
    assert changes["nv_inference_request_duration_us"] > changes["nv_inference_compute_infer_duration_us"] > 0
    assert changes["nv_inference_queue_duration_us"] >= 2000  # --max-delay
    assert after["process_resident_memory_bytes"] > 2**20


def _counts(server):
    found = {}
    for family in prometheus.text_string_to_metric_families(server.ask("GET", "/metrics").body.decode()):
        for sample in family.samples:
            if sample.labels.get("model", "scenes") == "scenes":
                name = sample.name.removesuffix("_total")  # which this library appends
                found[name] = found.get(name, 0) + sample.value
    return found


def test_the_log_is_json(server):
    server.ask("GET", "/v2/models/never-there")
    (line,) = server.logged(path="/v2/models/never-there")
    assert (line["status"], line["level"], line["event"], line["method"]) == (
        404,
        "warning",
        "request",
        "GET",
    )
    assert "there is no model 'never-there'" in line["error"]


@pytest.mark.slow
def test_the_log_says_what_is_not_served_and_what_was_guessed(server):
    (skipped,) = [each for each in server.logged(event="model") if "README.md" in each.get("remark", "")]
    assert "which is neither a model file nor a folder of versions" in skipped["remark"]
    with serving("small-cnn-32") as other:
        assert other.logged(event="model", remark="its weights are not trained")
        assert other.logged(event="started", models=["small-cnn-32/1"])


def test_a_recipe_of_the_command_line(jpeg, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    recipe = ("--preprocessing", "colour-32", "--mean", "0.5")
    with serving("mine=scenes", *recipe) as server:
        answer = server.ask("POST", "/v2/models/mine/infer", jpeg, Inference_Header_Content_Length="0")
    with serving("mine=scenes", "--mean", "0.5") as server:
        same = server.ask("POST", "/v2/models/mine/infer", jpeg, Inference_Header_Content_Length="0")
    expected = diptych.predict(
        "scenes", tmp_path / "a.jpg", preprocessing=adjusted(named("colour-32"), mean=(0.5,))
    )
    assert np.float32(answer.json["outputs"][0]["data"]).tobytes() == expected.tobytes()
    assert same.status == 200


@pytest.mark.slow
def test_a_model_that_mixes_the_samples_of_a_batch_is_never_joined(tmp_path):
    norm = BatchNorm(numbers(3), numbers(3), None, None)
    model = Model(Chain((norm, Flatten())), input_shape=(3, 4, 4))
    x = [random(2, 3, 4, 4, seed=seed) for seed in range(24)]
    diptych.write(model, tmp_path / "mixing.safetensors")
    with serving(tmp_path / "mixing.safetensors", "--max-delay", 20) as server, ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda each: server.infer(
                    "mixing",
                    {"name": "input", "datatype": "FP32", "shape": [2, 3, 4, 4], "data": each.tolist()},
                ),
                x,
            )
        )
        for each, answer in zip(x, answers, strict=True):
            values = np.float32(answer.json["outputs"][0]["data"])
            assert values.tobytes() == diptych.predict(model, each).tobytes()
        stats = server.ask("GET", "/v2/models/mixing/stats").json["model_stats"][0]
        assert stats["execution_count"] == 24
