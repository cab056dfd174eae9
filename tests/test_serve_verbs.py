"""`diptych serve` answers by the verbs at /api: pictures, model files, progress, and what schemathesis thinks of."""

import asyncio
import base64
import http.client
import io
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.model.layers import Chain, Conv, Dense, Flatten
from diptych.model.model import Model
from diptych.preprocessing import named
from diptych.serving.answers import Refusal
from diptych.serving.jobs import Jobs
from little_models import numbers
from little_server import serving

PICTURES = Path(__file__).parent / "data" / "pictures"
PICTURE = PICTURES / "comfy_text_2MB.png"
SCENES = Path(diptych.__file__).parent / "trained" / "scenes.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    layers = (
        Conv(numbers(8, 3, 5, 5), numbers(8), padding=((2, 2), (2, 2))),
        Flatten(),
        Dense(numbers(4, 8 * 64 * 64), numbers(4)),
    )
    model = Model(Chain(layers), named("colour-64"), input_shape=(3, 64, 64), name="larger")
    diptych.write(model, folder / "larger.safetensors")
    diptych.write(model.with_(preprocessing=None), folder / "bare.safetensors")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving("scenes", folder, "--allow-uploads", "--max-pixels", 1_000_000) as server:
        yield server


@pytest.fixture(scope="module")
def picture():
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def post(server, path, body, **headers):
    return server.ask("POST", f"/api/{path}", body, **headers)


def events(answer):
    """The events of a stream, each a name and a document."""
    blocks = answer.body.decode().split("\n\n")
    pairs = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks if block]
    return [(pair["event"], json.loads(pair["data"])) for pair in pairs]


def test_about_the_server_and_its_models(server, diptych_command):
    about = server.ask("GET", "/api").json
    assert about["version"] == diptych.__version__
    assert about["uploads"] is True
    assert about["max_pixels"] == 1_000_000
    assert about["models"] == server.ask("GET", "/api/models").json
    assert [(each["name"], each["takes_pictures"]) for each in about["models"]] == [
        ("bare", False), ("larger", True), ("scenes", True)]  # fmt: skip
    assert server.ask("GET", "/api/models/scenes").json == json.loads(
        diptych_command("inspect", "scenes", "--json").out
    )


def test_predict_is_the_command(server, diptych_command):
    said = json.loads(diptych_command("predict", "scenes", PICTURE, "--json").out)
    answer = post(server, "models/scenes/predict", PICTURE.read_bytes()).json
    assert said.pop("failures") == []
    assert said["predictions"][0].pop("image") == str(PICTURE)
    assert answer["predictions"][0].pop("image") == "picture"
    assert answer == said


def test_features_are_those_of_trace(server, picture, tmp_path):
    (tmp_path / "picture.png").write_bytes(picture)
    drawn = post(server, "models/scenes/features?layer=0", picture)
    assert drawn.headers["content-type"] == "image/png"
    (plot,) = diptych.features("scenes", tmp_path / "picture.png", out=tmp_path / "maps", layers="0")
    assert drawn.body == plot.read_bytes()
    array = np.load(io.BytesIO(post(server, "models/scenes/features?layer=0&format=npy", picture).body))
    assert array.tobytes() == diptych.trace("scenes", tmp_path / "picture.png")["0"].tobytes()


@pytest.mark.slow
def test_explain_in_every_form(server, picture, tmp_path):
    (tmp_path / "picture.png").write_bytes(picture)
    expected = diptych.explain("scenes", tmp_path / "picture.png", method="occlusion")
    answer = post(server, "models/scenes/explain", picture)
    assert answer.json == {**expected.to_document(), "remarks": list(expected.remarks)}
    heat = np.load(io.BytesIO(post(server, "models/scenes/explain?format=npy", picture).body))
    assert np.array_equal(heat, expected.heat)
    png = post(server, "models/scenes/explain?format=png", picture)
    assert Image.open(io.BytesIO(png.body)).size == (448, 448)
    *progress, (last, result) = events(
        post(server, "models/scenes/explain", picture, Accept="text/event-stream")
    )
    assert progress[0][0] == "started"
    assert {name for name, _ in progress[1:]} <= {"progress"}
    assert (last, result) == ("result", answer.json)
    *_, (last, result) = events(
        post(server, "models/scenes/explain?format=npy", picture, Accept="text/event-stream")
    )
    assert np.array_equal(np.load(io.BytesIO(base64.b64decode(result["base64"]))), heat)
    *_, (last, result) = events(
        post(server, "models/scenes/explain?target=no", picture, Accept="text/event-stream")
    )
    assert (last, result["status"]) == ("error", 400)
    assert "there is no class 'no'" in result["error"]


@pytest.mark.slow
def test_long_work_is_watched_and_cancelled(server, picture):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    path = "/api/models/larger/explain?patch=1"
    connection.request("POST", path, picture, {"Accept": "text/event-stream"})
    stream = connection.getresponse()
    assert stream.getheader("content-type").startswith("text/event-stream")
    assert stream.readline() == b"event: started\n"
    identity = json.loads(stream.readline().partition(b": ")[2])["id"]
    job = server.ask("GET", f"/api/jobs/{identity}").json
    assert job["id"] == identity
    assert server.ask("DELETE", f"/api/jobs/{identity}").status == 204
    rest = stream.read().decode()
    assert rest.endswith('event: error\ndata: {"error":"the work was cancelled","status":409}\n\n')
    connection.close()
    _gone(server, identity)
    connection.request("POST", path, picture, {"Accept": "text/event-stream"})
    stream = connection.getresponse()
    stream.readline()
    identity = json.loads(stream.readline().partition(b": ")[2])["id"]
    stream.close()
    connection.close()  # hanging up cancels, too
    _gone(server, identity)


def test_long_work_is_bounded():
    def endless(progress):
        while True:
            progress(0, 1, "going on")
            time.sleep(0.01)

    async def ask():
        jobs = Jobs(most=2, seconds=0.1)
        first, second = jobs.start(endless), jobs.start(endless)
        with pytest.raises(Refusal, match="2 pieces of long work wait already; try again") as refused:
            jobs.start(endless)
        assert (refused.value.status, dict(refused.value.headers)) == (503, {b"retry-after": b"5"})
        second.cancel()
        with pytest.raises(Refusal, match=r"took longer than the 0\.1 s that it may"):
            await first.future
        with pytest.raises(Refusal, match="was cancelled"):
            await second.future
        assert jobs.close()

    asyncio.run(ask())


def _gone(server, identity):
    """Waits until the work has stopped, which is at its next step."""
    until = time.monotonic() + 20
    while (answer := server.ask("GET", f"/api/jobs/{identity}")).status != 404:
        assert answer.json["done"] <= 1
        assert time.monotonic() < until
        time.sleep(0.01)


def test_compare_two_served_models(server, picture):
    answer = post(server, "models/scenes/compare?with=larger", picture)
    assert answer.json["agrees"] is False
    assert (answer.json["a"]["model"], answer.json["b"]["model"]) == ("scenes", "larger")
    assert "there is no model 'none'" in post(server, "models/scenes/compare?with=none", picture).error


@pytest.mark.slow
def test_uploaded_model_files(server, tmp_path):
    content = SCENES.read_bytes()
    assert post(server, "inspect?name=mine.safetensors", content).json["parameters"] > 0
    converted = post(server, "convert?name=mine.safetensors&to=bson", content)
    assert json.loads(converted.headers["diptych-remarks"]) is not None
    (tmp_path / "mine.bson").write_bytes(converted.body)
    x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    assert diptych.predict(tmp_path / "mine.bson", x) == pytest.approx(diptych.predict("scenes", x), abs=1e-6)
    compared = post(server, "compare?name=mine.bson&with=scenes", converted.body)
    assert compared.json["agrees"] is True
    assert "/tmp" not in compared.body.decode()


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("models/scenes/predict", b"", 400, "the picture is empty (0 bytes)"),
        (
            "models/scenes/predict",
            b"GIF89a",
            400,
            "the picture begins as a GIF picture but is truncated or damaged",
        ),
        ("models/bare/predict", PICTURE.read_bytes(), 400, "bare carries no recipe, so it takes no pictures"),
        ("models/bare/explain", PICTURE.read_bytes(), 400, "bare carries no recipe, so it takes no pictures"),
        ("models/none/predict", b"x", 404, "there is no model 'none'; ready are: bare, larger, scenes"),
        ("models/scenes/features", b"x", 400, "layer: Field required; /api/docs says what is expected"),
        (
            "models/scenes/features?layer=99",
            PICTURE.read_bytes(),
            404,
            "scenes has no layer '99'; name one of 0, 1",
        ),
        ("models/scenes/explain?method=guess", b"x", 400, "method: Input should be 'grad-cam'"),
        ("inspect?name=mine", b"x", 400, "the name of a model file ends in its format"),
        ("inspect?name=mine.bson", b"", 400, "the model file is empty"),
        ("inspect?name=mine.onnx", b"x", 400, "model.onnx"),
        ("inspect?name=../../etc/passwd.bson", b"x", 400, "model.bson"),
        ("convert?name=mine.bson&to=exe", b"x", 400, "to: Input should be 'safetensors'"),
        ("models/scenes/predict", bytes(40_000_000), 413, "send less"),
    ],
)
def test_what_is_refused(server, path, body, status, said):
    answer = post(server, path, body)
    assert (answer.status, said in answer.error) == (status, True), answer.error
    assert "/" not in answer.error.replace("/api/docs", "")


def test_model_files_are_refused_unless_they_are_allowed():
    with serving() as server:
        answer = post(server, "inspect?name=mine.safetensors", SCENES.read_bytes())
        assert (answer.status, "allow that with --allow-uploads" in answer.error) == (403, True)


def test_the_documentation(server):
    page = server.ask("GET", "/api/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "/api/models/{name}/explain" in page.body.decode()
    document = server.ask("GET", "/openapi.json").json
    assert document == server.ask("GET", "/api/openapi.json").json
    assert all(
        "422" not in each["responses"] for path in document["paths"].values() for each in path.values()
    )


@pytest.mark.slow
def test_hostile_uploads(server, picture):
    chance = random.Random(0)
    seeds = [picture, (PICTURES / "damaged_one_byte.png").read_bytes(), (PICTURES / "sparse.tif").read_bytes()[:50_000],
             SCENES.read_bytes()[:5000]]  # fmt: skip
    statuses = set()
    for number in range(240):
        content = bytearray(seeds[number % len(seeds)])
        for _ in range(chance.randint(1, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        suffix = ("bson", "safetensors", "onnx", "jld2", "pt", "jl")[number % 6]
        for path, headers in (
            ("/api/models/scenes/predict", {}),
            ("/v2/models/scenes/infer", {"Inference_Header_Content_Length": "0"}),
            (f"/api/inspect?name=x.{suffix}", {}),
        ):
            answer = server.ask("POST", path, bytes(content[: chance.randint(1, len(content))]), **headers)
            statuses.add(answer.status)
            if answer.status != 200:
                assert "/" not in answer.error
    assert statuses <= {200, 400, 413}
    assert server.ask("GET", "/v2/health/ready").status == 200
    assert not server.faults()


@pytest.mark.slow
def test_schemathesis_finds_nothing(server, tmp_path):
    pytest.importorskip("schemathesis")
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", "--no-color",
               f"{server.address}/openapi.json", "--phases", "examples,coverage,fuzzing", "--max-examples", "12",
               "--seed", "1", "--exclude-checks", "positive_data_acceptance"]  # fmt: skip # most bytes are no picture
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert not server.faults()


def test_a_verb_counts_as_a_request(server, picture):
    def counted():
        (stats,) = server.ask("GET", "/v2/models/scenes/stats").json["model_stats"]
        return stats["inference_stats"]["success"]["count"], stats["inference_count"]

    before = counted()
    assert post(server, "models/scenes/predict", picture).status == 200
    assert counted() == (before[0] + 1, before[1] + 1)
