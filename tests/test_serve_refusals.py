"""What `diptych serve` says to requests that are wrong, come from strangers, are too many or too large."""

import asyncio
import contextlib
import gzip
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.errors import MissingExtra
from diptych.extras import imported
from diptych.model.layers import Activation, Chain, Conv
from diptych.model.model import Model
from diptych.options import ServeOptions
from diptych.serving import repository
from diptych.serving.answers import Paths, Refusal, refusal_of
from diptych.serving.application import Application
from diptych.serving.limits import Room
from diptych.serving.logs import Log
from little_models import numbers
from little_server import serving

INFER = "/v2/models/scenes/infer"
RIGHT = {"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [0.5] * 3072}


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A model without a recipe that takes a good while for a large input."""
    folder = tmp_path_factory.mktemp("slow")
    convs = [Conv(numbers(24, n, 5, 5), numbers(24), padding=((2, 2), (2, 2))) for n in (3, 24, 24)]
    diptych.write(Model(Chain(tuple(convs))), folder / "slow.safetensors")
    overflowing = Conv(np.full((2, 3, 1, 1), 3e38, np.float32), numbers(2), activation=Activation("relu"))
    diptych.write(Model(Chain((overflowing,))), folder / "overflowing.safetensors")
    return folder


@pytest.fixture(scope="module")
def server(slow):
    with serving("scenes", slow, "--max-bytes", 2_000_000, "--max-pixels", 1_000_000) as server:
        yield server


def png(width, height, mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, "PNG")
    return stream.getvalue()


def binary(document, *contents):
    head = json.dumps(document).encode()
    return head + b"".join(contents), str(len(head))


# ---- Wrong requests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "x"}, "scenes has no input 'x'; it takes input, numbers of the shape [N, 3, 32, 32], or image"),
        ({"datatype": "FP8"}, "the input input has the datatype FP8; there are BOOL, UINT8"),
        ({"datatype": "BYTES"}, "encoded pictures as base64 text"),
        ({"datatype": "BYTES", "data": ["QQ=="] * 3072}, "the input input of scenes has numbers, not BYTES"),
        ({"shape": [1, 3, 32, 31]}, "the input input has the shape [1, 3, 32, 31], but its data has 3,072 values"),
        ({"shape": [3, 1024]}, "scenes takes [N, 3, 32, 32], not [3, 1024]: "),
        ({"shape": [1, 1, 32, 96]}, "scenes takes [N, 3, 32, 32], not [1, 1, 32, 96]: "),
        ({"data": [[[[[[[[[1]]]]]]]]]}, "is a list, or equally long lists of numbers"),
        ({"data": {"a": 1}}, "is a list of numbers"),
        ({"data": [10**400]}, "the body is not JSON"),
        ({"data": ["x" * 100_000, *["y"] * 300_000]}, "is a list of numbers"),
        ({"shape": [-1, 3, 32, 32]}, "the shape of the input input is a list of whole numbers"),
        ({"shape": "many"}, "not many"),
        ({"shape": [0, 3, 32, 32], "data": []}, "send one sample or more"),
        ({"data": [[0.5], [0.5, 1]]}, "is a list, or equally long lists of numbers"),
        ({"data": ["a"] * 3072}, "of datatype FP32 is a list of numbers"),
        ({"data": None}, "is a list of numbers"),
        ({"datatype": "UINT8", "data": [300] * 3072}, "is beyond UINT8, 0 to 255"),
        ({"datatype": "INT32", "data": [0.5] * 3072}, "is a list of whole numbers"),
        ({"datatype": "BOOL", "data": [1] * 3072}, "is a list of truth values, true and false"),
        ({"datatype": "FP16"}, "is sent as binary data alone"),
        ({"datatype": "FP64", "data": [1e300] * 3072}, "holds 3072 NaN or infinite values"),
        ({"parameters": {"binary_data_size": 4}}, "has both data and binary_data_size"),
        ({"parameters": {"shared_memory_region": "x"}}, "lies in shared memory, which this server does not offer"),
        ({"parameters": []}, 'the "parameters" of the input input are an object'),
    ],
)  # fmt: skip
def test_a_wrong_input(server, changes, said):
    answer = server.infer("scenes", {**RIGHT, **changes})
    assert answer.status == 400
    assert said in answer.error


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "the body is a JSON object, not []"),
        (b'{"inputs": [NaN]}', "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        ({}, 'a request has "inputs"'),
        ({"inputs": [1]}, "an input is an object"),
        ({"inputs": [RIGHT, RIGHT]}, "scenes takes one input"),
        ({"inputs": [RIGHT], "id": 7}, 'the "id" of a request is a string, not 7'),
        ({"inputs": [RIGHT], "outputs": [{"name": "x"}]}, "scenes has no output 'x'; it gives output"),
        ({"inputs": [RIGHT], "outputs": [{"name": "output"}] * 2}, "is asked for 2 times; ask once"),
        ({"inputs": [RIGHT], "outputs": {}}, '"outputs" is a list'),
        ({"inputs": [RIGHT], "parameters": {"sequence_id": 3}}, "keeps no state between requests"),
        ({"inputs": [RIGHT], "parameters": {"timeout": "soon"}}, "a whole number of microseconds, not soon"),
        (
            {"inputs": [RIGHT], "outputs": [{"name": "output", "parameters": {"classification": "all"}}]},
            "not all",
        ),
    ],
)
def test_a_wrong_document(server, document, said):
    answer = server.ask("POST", INFER, document)
    assert answer.status == 400
    assert said in answer.error


ODD = [None, True, -1, 2**31, 2**64 - 1, 1e308, "", "x", "\0", "é" * 300, "image", "BYTES", "BOOL", [], [[]], {}, ["a"],
       [None], [[[]]], {"a": 1}, ["QQ=="], [True] * 3072, [1] * 3072]  # fmt: skip


def changed(chance, value, depth=0):
    """A document with something odd at one place."""
    if not value or not isinstance(value, dict | list) or chance.random() < 0.1 * depth:
        return chance.choice(ODD)
    value = dict(value) if isinstance(value, dict) else list(value)
    place = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
    value[place] = changed(chance, value[place], depth + 1)
    return value


def test_odd_documents_are_never_a_fault_of_the_server(server):
    chance = random.Random(0)
    right = {"id": "a", "inputs": [{**RIGHT, "parameters": {}}], "parameters": {"binary_data_output": False},
             "outputs": [{"name": "output", "parameters": {"binary_data": False, "classification": 1}}]}  # fmt: skip
    for _ in range(500):
        document = changed(chance, changed(chance, right))
        path = chance.choice([INFER, INFER, "/v2/repository/index", "/v2/repository/models/scenes/load"])
        answer = server.ask("POST", path, document)
        assert answer.status in (200, 400), document
        assert answer.status == 200 or answer.error
    assert not server.faults()


def test_wrong_binary_data(server):
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32]}

    def ask(tensor, *contents, length=None, outputs=()):
        body, header = binary({"inputs": [tensor]}, *contents)
        return server.ask("POST", INFER, body, Inference_Header_Content_Length=length or header)

    sized = {**tensor, "parameters": {"binary_data_size": 12288}}
    assert ask(sized, bytes(12288)).status == 200
    assert "has a binary_data_size of 12288, but 12,287 bytes are left" in ask(sized, bytes(12287)).error
    assert "1 bytes of the body belong to no input" in ask(sized, bytes(12289)).error
    short = {**tensor, "parameters": {"binary_data_size": 4}}
    assert "has 12,288 bytes, not 4" in ask(short, bytes(4)).error
    assert "at most" in ask(sized, bytes(12288), length="99999").error
    assert "at most" in ask(sized, bytes(12288), length="-1").error
    assert (
        "holds 3072 NaN or infinite values of 3072"
        in ask(sized, np.full(3072, np.nan, "<f4").tobytes()).error
    )
    pictures = {"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 6}}
    assert "is cut off" in ask(pictures, b"\xff\xff\xff\xff12").error
    assert "has 2 elements by its shape, and 1 in its bytes" in ask(pictures, b"\x02\0\0\0ab").error
    nothing = {**pictures, "shape": [0], "parameters": {"binary_data_size": 0}}
    assert "has no pictures" in ask(nothing).error


def test_wrong_addresses_and_verbs(server):
    for method, path, status in (
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/scenes/versions/2", 404),
        ("GET", "/v2/models/scenes/versions/..", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("GET", "/v2/models/scenes/trace/setting", 404),
        ("GET", "/elsewhere", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
        ("DELETE", "/", 405),
        ("POST", "/v2/repository/models/..%2f..%2fetc/load", 404),
        ("POST", "/v2/repository/models/none/unload", 404),
    ):
        answer = server.ask(method, path)
        assert answer.status == status, path
        assert answer.error
    refused = server.ask("POST", "/v2/repository/models/scenes/load", {"parameters": {"config": "{}"}})
    assert "load takes no parameter 'config'" in refused.error


def test_pictures_that_cannot_be_read(server, tmp_path):
    def ask(content, model="scenes", **headers):
        return server.ask(
            "POST", f"/v2/models/{model}/infer", content, Inference_Header_Content_Length="0", **headers
        )

    assert ask(png(20, 20)).status == 200
    assert "the picture is empty" in ask(b"").error
    assert "the picture is not a picture that can be read" in ask(b"plain text, no picture").error
    assert "the picture begins as a PNG picture but is truncated or damaged" in ask(png(20, 20)[:60]).error
    large = ask(png(1001, 1000))
    assert large.status == 413
    assert large.error == (
        "the picture claims 1001 x 1000 pixels, more than the 1,000,000 that this server takes; make it smaller"
    )
    assert (
        "slow carries no recipe"
        in server.infer("slow", {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["QQ=="]}).error
    )
    several = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["not base64!"]}
    assert "encoded pictures as base64 text" in server.infer("scenes", several).error


def test_bodies_that_are_too_large(server):
    answer = server.ask("POST", INFER, bytes(2_000_001))
    assert answer.status == 413
    assert "this server takes at most 2,000,000; send less" in answer.error
    bomb = server.ask("POST", INFER, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")
    assert bomb.status == 413
    assert "is not gzip" in server.ask("POST", INFER, b"{}", Content_Encoding="gzip").error
    assert "cut off" in server.ask("POST", INFER, gzip.compress(b"{}")[:-3], Content_Encoding="gzip").error
    unknown = server.ask("POST", INFER, b"{}", Content_Encoding="br")
    assert unknown.status == 415
    assert "gzip or deflate, not 'br'" in unknown.error
    huge = server.infer(
        "slow", {"name": "input", "datatype": "UINT8", "shape": [60, 3, 100, 100], "data": [1] * 1_800_000}
    )
    assert huge.status == 413


def test_a_model_that_overflows(server):
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 1, 1], "data": [10, 10, 10]}
    answer = server.infer("overflowing", tensor)
    assert answer.status == 400
    assert "gives NaN or infinite values for this input, which JSON cannot hold" in answer.error
    assert server.infer("overflowing", tensor, parameters={"binary_data_output": True}).status == 200


def test_a_time_limit(server):
    slow = {"name": "input", "datatype": "UINT8", "shape": [1, 3, 400, 400], "data": [1] * 480_000}
    answer = server.infer("slow", slow, parameters={"timeout": 20_000})
    assert answer.status == 504
    assert answer.error == "the request was not answered within 0.02 s; send less, or try again"


@pytest.mark.slow
def test_too_many_requests(slow):
    tensor = {"name": "input", "datatype": "UINT8", "shape": [1, 3, 300, 300], "data": [1] * 270_000}
    with serving(slow, "--max-queue", 2) as server, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.infer("slow", tensor), range(6)))
        refused = [each for each in answers if each.status == 503]
        assert {each.status for each in answers} == {200, 503}
        assert refused[0].headers["retry-after"] == "1"
        assert (
            "2 requests wait for slow already, as many as this server lets wait; try again"
            in refused[0].error
        )
        metrics = server.ask("GET", "/metrics").body.decode()
        assert (
            f'nv_inference_request_failure{{model="slow",version="1",reason="REJECTED"}} {len(refused)}'
            in metrics
        )
        assert 'nv_inference_pending_request_count{model="slow",version="1"} 0' in metrics


# ---- Strangers ----------------------------------------------------------------------------------------------


def test_other_sites_and_other_names(server):
    same = server.ask("GET", "/v2", Origin=server.address, Host=f"127.0.0.1:{server.port}")
    assert same.status == 200
    assert "access-control-allow-origin" not in same.headers
    for headers, said in (
        ({"Origin": "https://evil.example"}, "pages of https://evil.example may not ask this server"),
        ({"Origin": "null"}, "pages of null may not ask"),
        ({"Host": "evil.example"}, "this server is not called 'evil.example'"),
        ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, "this server is not called"),
        ({"Sec_Fetch_Site": "cross-site"}, "a page of another site may not ask"),
    ):
        answer = server.ask("POST", INFER, {"inputs": [RIGHT]}, **headers)
        assert answer.status == 403
        assert said in answer.error
    preflight = server.ask(
        "OPTIONS", INFER, Origin="https://evil.example", Access_Control_Request_Method="POST"
    )
    assert preflight.status == 403


@pytest.mark.slow
def test_a_token_and_an_origin_that_may_ask(slow):
    with serving("--allow-origin", "https://good.example", DIPTYCH_TOKEN="geheim") as server:
        for path in ("/v2", "/v2/models/scenes", "/metrics", "/api", "/api/models"):
            answer = server.ask("GET", path)
            assert answer.status == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "Authorization: Bearer TOKEN" in answer.error
            assert server.ask("GET", path, Authorization="Bearer falsch").status == 401
            assert server.ask("GET", path, Authorization="Bearer geheim", Host="any.example").status == 200
        assert server.ask("GET", "/v2/health/ready").json == {"ready": True, "live": True}
        assert server.ask("GET", "/").status == 200
        good = server.ask("GET", "/v2", Authorization="Bearer geheim", Origin="https://good.example")
        assert good.headers["access-control-allow-origin"] == "https://good.example"
        preflight = server.ask(
            "OPTIONS", INFER, Origin="https://good.example", Access_Control_Request_Method="POST"
        )
        assert preflight.status == 204
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        assert server.end() == 0
        assert "geheim" not in "".join(server.log)


# ---- Starting and ending ------------------------------------------------------------------------------------


def test_what_stops_it_from_starting(diptych_command, server, tmp_path, slow):
    taken = diptych_command("serve", "--port", server.port)
    assert taken.status == 2
    assert f"port {server.port} of 127.0.0.1 cannot be had (Address already in use)" in taken.err
    assert diptych_command("serve", "--host", "0.0.0.0").err.startswith(
        "diptych: 0.0.0.0 can be reached from other machines, so a token is needed: set the environment variable "
        "DIPTYCH_TOKEN"
    )
    assert (
        "no address 'nowhere.invalid'"
        in diptych_command("serve", "--host", "nowhere.invalid", "--token", "x").err
    )
    assert "there is no file and no model called 'none'" in diptych_command("serve", "none", "--port", 0).err
    assert "two models are called scenes" in diptych_command("serve", "scenes", "scenes", "--port", 0).err
    assert "name one" in diptych_command("serve", slow, "--preprocessing", "colour-32", "--port", 0).err
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    broken = diptych_command("serve", tmp_path / "broken.onnx", "--port", 0)
    assert broken.status == 1
    assert "broken.onnx" in broken.err


@pytest.mark.slow
def test_a_broken_model_in_a_folder_does_not_stop_the_others(slow, tmp_path):
    for file in slow.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with serving(tmp_path) as server:
        states = {each["name"]: each for each in server.ask("POST", "/v2/repository/index").json}
        assert states["slow"]["state"] == "READY"
        assert states["broken"]["state"] == "UNAVAILABLE"
        assert "broken.onnx" in states["broken"]["reason"]
        assert str(tmp_path) not in json.dumps(states)
        assert "the model broken is not loaded: " in server.ask("POST", "/v2/models/broken/infer", {}).error
        assert server.logged(event="model")[0]["error"].startswith("broken is not served: ")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_what_it_took(slow, number):
    tensor = {"name": "input", "datatype": "UINT8", "shape": [1, 3, 250, 250], "data": [1] * 187_500}
    with serving(slow) as server, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(server.infer, "slow", tensor) for _ in range(4)]
        taken = 0
        while taken < 4:
            found = re.findall(
                rb'nv_inference_(?:pending_request_count|request_success)\{model="slow",version="1"\} (\d+)',
                server.ask("GET", "/metrics").body,
            )
            taken = sum(map(int, found))
        assert server.end(number) == 0
        assert [each.result().status for each in asking] == [200] * 4
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/v2")


def test_unloading_lets_a_model_finish_what_it_took(slow):
    tensor = {"name": "input", "datatype": "UINT8", "shape": [1, 3, 250, 250], "data": [1] * 187_500}
    with serving(slow) as server, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(server.infer, "slow", tensor)
        pending = b'nv_inference_pending_request_count{model="slow",version="1"} 1'
        while not asking.done() and pending not in server.ask("GET", "/metrics").body:
            pass
        assert server.ask("POST", "/v2/repository/models/slow/unload", {}).status == 200
        assert server.infer("slow", tensor).status == 404
        assert asking.result().status == 200


def test_clients_that_hang_up(server):
    body = json.dumps({"inputs": [RIGHT]}).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for sent in (b"", b"POST", head, head + body[:100], head + body):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(sent)
    for garbage in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 600_000,
    ):
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
            contextlib.suppress(ConnectionError),  # where what it sent was not read to its end
        ):
            connection.sendall(garbage)
            answer = received(connection)
            assert answer.startswith(b"HTTP/1.1 400"), answer
            assert b'{"error":' in answer
    assert server.infer("scenes", RIGHT).status == 200
    assert not server.faults()


def received(connection):
    """What comes, up to the end of a document or of the connection."""
    answer = b""
    while not answer.endswith(b"}") and (part := connection.recv(4096)):
        answer += part
    return answer


@pytest.mark.slow
def test_bodies_that_never_arrive_or_never_end():
    with serving("--timeout", 0.5, "--max-bytes", 5000) as server:
        head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(f"{head}Content-Length: 100\r\n\r\nabc".encode())
            answer = received(connection)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"the body did not arrive within 0.5 s; send it again" in answer
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(
                f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"1000\r\n" + bytes(4096) + b"\r\n"
            )
            connection.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")
            answer = received(connection)
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"this server takes at most 5,000; send less" in answer


def test_there_is_room_for_so_many_bytes_at_once():
    room = Room(10)
    with room.share() as one, room.share() as other:
        one.take(6)
        with pytest.raises(
            Refusal, match=r"holds 6 bytes for other requests and has no room for 5 more"
        ) as refused:
            other.take(5)
        assert (refused.value.status, dict(refused.value.headers)) == (503, {b"retry-after": b"1"})
        other.take(4)
    assert room.taken == 0


def test_a_model_that_is_being_loaded(slow, monkeypatch):
    read, going_on = repository.load, threading.Event()

    def slowly(*arguments):
        going_on.wait(20)
        return read(*arguments)

    async def ask():
        application = Application([str(slow)], ServeOptions(), Log(io.StringIO()))
        models = application.repository
        monkeypatch.setattr(repository, "load", slowly)
        first = asyncio.create_task(models.load("slow"))
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal, match="the model slow is being loaded; try again") as refused:
            models.find("slow")
        assert (refused.value.status, dict(refused.value.headers)) == (503, {b"retry-after": b"1"})
        going_on.set()
        await first
        before = models.find("slow")
        going_on.clear()
        again = asyncio.create_task(models.load("slow"))
        await asyncio.sleep(0.05)
        assert models.find("slow") is before  # which answers until the new one is ready
        going_on.set()
        await again
        assert models.find("slow") is not before
        assert application.close()

    asyncio.run(ask())


def test_a_missing_package_is_named(tmp_path):
    script = "import sys; sys.modules['uvicorn'] = None\nfrom diptych.__main__ import main\nmain(['serve'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(
        "diptych: the server needs the package 'uvicorn'; install it with: pip install "
    )
    assert done.stderr.endswith("[web]'\n")


def test_a_package_that_the_server_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra) as missing:
        imported("torch")
    refused = refusal_of(missing.value, Paths())
    assert refused.message == (
        "what PyTorch reads, writes, runs or trains needs the package 'torch', which this server does not have; ask "
        "whoever runs it to install it"
    )


def test_help_imports_no_framework(tmp_path):
    script = (
        "import sys\nfrom diptych.cli import app\ntry:\n    app(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "frameworks = ('fastapi', 'starlette', 'uvicorn', 'orjson', 'numpy')\n"
        "print('found:', [name for name in frameworks if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert "found: []" in done.stdout
    assert re.search(r"diptych serve models/ --port 9000", done.stdout)
