"""Tiny ImageNet from a folder or an archive, fetched by address; hostile archives and broken transfers."""

from __future__ import annotations

import hashlib
import http.server
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.datasets.downloading import download, local
from diptych.datasets.tiny_imagenet import TinyImageNet, is_tiny_imagenet
from diptych.errors import ImageError, OutputError, UsageError
from tiny_imagenet_files import CLASSES, content, jpeg, pack


@pytest.fixture(params=["folder", "holder", "x.zip", "x.tar", "x.tar.gz"])
def place(request, tmp_path: Path) -> Path:
    if "." in request.param:
        return pack(tmp_path / request.param, content())
    root = tmp_path / "data" / "tiny-imagenet-200"
    for name, data in content().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root if request.param == "folder" else root.parent


def test_pictures_and_labels(place):
    assert is_tiny_imagenet(place)
    data = TinyImageNet(place)
    assert data.classes == CLASSES
    train = list(data.examples("train"))
    assert len(train) == 12
    for example in train:
        assert example.pixels.shape == (64, 64, 3)
        assert example.pixels.dtype == np.uint8
        assert CLASSES[example.label] == example.name.split("_")[0]
    colour = next(example for example in train if example.name == "n03000003_3.JPEG")
    assert abs(int(colour.pixels[0, 0, 0]) - 123) <= 1
    assert [example.label for example in data.examples("val")] == [2, 1, 0]
    assert {example.label for example in data.examples("train", most=3)} == {0, 1, 2}


def test_a_split_that_there_is_not(place):
    with pytest.raises(UsageError, match="train and val"):
        list(TinyImageNet(place).examples("test"))  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_a_truncated_archive_is_one_sentence(tmp_path, suffix):
    generator = np.random.default_rng(0)
    files = content() | {"train/n01000001/images/noise.JPEG": generator.bytes(9000)}
    whole = pack(tmp_path / f"whole{suffix}", files).read_bytes()
    for length in (200, 512, 5 * 512, len(whole) // 2, len(whole.rstrip(b"\0")) - 1):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(whole[:length])
        with pytest.raises(ImageError) as refused:
            list(TinyImageNet(cut).examples())
        assert "\n" not in str(refused.value)
        assert str(cut) in str(refused.value)


def test_other_things_than_tiny_imagenet(tmp_path):
    with pytest.raises(ImageError, match="there is no folder or archive"):
        TinyImageNet(tmp_path / "nothing").classes  # noqa: B018
    assert not is_tiny_imagenet(tmp_path)
    with pytest.raises(ImageError, match=r"no wnids\.txt"):
        TinyImageNet(tmp_path).classes  # noqa: B018
    (tmp_path / "x.zip").write_bytes(b"not an archive at all")
    with pytest.raises(ImageError, match="truncated or damaged"):
        TinyImageNet(tmp_path / "x.zip").classes  # noqa: B018
    files = content() | {"train/n09999999/images/n09999999_0.JPEG": jpeg(1, "RGB")}
    with pytest.raises(ImageError, match="no class that"):
        list(TinyImageNet(pack(tmp_path / "y.zip", files)).examples())
    with pytest.raises(ImageError, match="damaged picture"):
        list(
            TinyImageNet(pack(tmp_path / "z.zip", content() | {"val/images/val_0.JPEG": b"?"})).examples(
                "val"
            )
        )
    files = {name: data for name, data in content().items() if "annotations" not in name}
    with pytest.raises(ImageError, match=r"no val/val_annotations\.txt"):
        list(TinyImageNet(pack(tmp_path / "w.zip", files)).examples("val"))


def test_a_hostile_archive_writes_nothing_and_claims_in_vain(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    traversal = content() | {
        "../../escaped.txt": b"out",
        "train/n01000001/images/../../../../escaped.JPEG": b"out",
    }
    with pytest.raises(ImageError):  # the second is a damaged picture, and nothing else
        list(TinyImageNet(pack(inside / "a.zip", traversal)).examples())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "inside"]
    bomb = content() | {"train/n01000001/images/bomb.JPEG": bytes(17 * 2**20)}
    for suffix in (".zip", ".tar.gz"):
        with pytest.raises(ImageError, match="more than"):
            list(TinyImageNet(pack(inside / f"b{suffix}", bomb)).examples())
    lying = pack(inside / "c.zip", bomb).read_bytes()
    claim, lie = (17 * 2**20).to_bytes(4, "little"), (500).to_bytes(4, "little")
    (inside / "c.zip").write_bytes(lying.replace(claim, lie))
    with pytest.raises(ImageError):
        list(TinyImageNet(inside / "c.zip").examples())
    stream = io.BytesIO()
    Image.new("1", (5000, 5000)).save(stream, "png")
    files = content() | {"train/n01000001/images/vast.JPEG": stream.getvalue()}
    with pytest.raises(ImageError, match="claims 5000 x 5000"):
        list(TinyImageNet(pack(inside / "d.zip", files)).examples())


def test_links_in_an_archive_are_not_followed(tmp_path):
    secret = tmp_path / "secret.JPEG"
    secret.write_bytes(jpeg(9, "RGB"))
    path = pack(tmp_path / "x.tar", content())
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("tiny-imagenet-200/train/n01000001/images/link.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    assert all(example.name != "link.JPEG" for example in TinyImageNet(path).examples())


# Downloads

BODY = np.random.default_rng(0).bytes(300_000)
SUM = hashlib.sha256(BODY).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `body`; `ranges`: whether it can resume; `breaks`: how many answers break off half way."""

    ranges, breaks, version, log, body = True, 0, '"one"', [], BODY

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        type(self).log.append(asked)
        if self.path.startswith("/nothing"):
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if not (self.ranges and asked and self.headers.get("If-Range") == self.version):
            start = 0
        if start >= len(self.body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(self.body) - start))
        self.send_header("ETag", self.version)
        self.end_headers()
        end = len(self.body)
        if type(self).breaks > 0:
            type(self).breaks -= 1
            end = start + (len(self.body) - start) // 2
        self.wfile.write(self.body[start:end])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(**settings: object) -> Iterator[tuple[str, type[Server]]]:
    handler = type("Handler", (Server,), {**settings, "log": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_checked_and_not_done_twice(tmp_path):
    told: list[tuple[int, int, str]] = []
    with serving() as (address, handler):
        url = f"{address}/data/x%20y.zip?token=1"
        path = download(url, tmp_path / "new", SUM.upper(), lambda *step: told.append(step))
        assert path == tmp_path / "new" / "x y.zip"
        assert path.read_bytes() == BODY
        assert told[-1] == (len(BODY), len(BODY), "x y.zip")
        assert download(url, tmp_path / "new", SUM) == path
        assert len(handler.log) == 1
    assert files_in(tmp_path / "new") == ["x y.zip"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(tmp_path, ranges):
    with serving(ranges=ranges, breaks=2) as (address, handler):
        for _ in range(2):
            with pytest.raises(OutputError, match="could not be downloaded whole"):
                download(f"{address}/x.zip", tmp_path, SUM)
            assert "x.zip" not in files_in(tmp_path)
        assert download(f"{address}/x.zip", tmp_path, SUM).read_bytes() == BODY
        second = 225_000 if ranges else 150_000
        assert handler.log == [None, "bytes=150000-", f"bytes={second}-"]
    assert files_in(tmp_path) == ["x.zip"]


def test_a_filter_is_learned_from_an_address(tmp_path, monkeypatch, diptych_command):
    monkeypatch.chdir(tmp_path)
    body = pack(tmp_path / "made.zip", content()).read_bytes()
    with serving(body=body) as (address, handler):
        place = f"{address}/tiny-imagenet-200.zip#sha256="
        learn = ["filter", "learn", "invert", "-o", "invert.safetensors", "--images"]
        wrong = diptych_command(*learn, place + "0" * 64)
        assert wrong.status != 0
        assert "has the SHA-256" in wrong.err
        assert files_in(tmp_path) == ["made.zip"]
        for _ in range(2):
            done = diptych_command(*learn, place + hashlib.sha256(body).hexdigest())
            assert done.status == 0
        assert len(handler.log) == 2
    assert files_in(tmp_path) == ["invert.safetensors", "made.zip", "tiny-imagenet-200.zip"]
    judged_by = diptych.read(tmp_path / "invert.safetensors").notes["filter"]["scores"]["pictures"]
    assert all(picture["name"].startswith("n0") for picture in judged_by)


def test_another_version_is_not_glued_to_the_old_one(tmp_path):
    with serving() as (address, _):
        (tmp_path / "x.zip.part").write_bytes(b"of an older version")
        (tmp_path / "x.zip.part.version").write_text('"zero"')
        assert download(f"{address}/x.zip", tmp_path).read_bytes() == BODY


def test_a_part_that_is_too_long_is_begun_anew(tmp_path):
    with serving() as (address, _):
        (tmp_path / "x.zip.part").write_bytes(BODY + b"more")
        (tmp_path / "x.zip.part.version").write_text('"one"')
        assert download(f"{address}/x.zip", tmp_path, SUM).read_bytes() == BODY


def test_downloads_that_fail_are_one_sentence(tmp_path):
    with serving() as (address, _):
        with pytest.raises(OutputError, match="has the SHA-256"):
            download(f"{address}/x.zip", tmp_path, "0" * 64)
        with pytest.raises(OutputError, match="the server answered 404 Not Found; check the address"):
            download(f"{address}/nothing.zip", tmp_path)
        with pytest.raises(UsageError, match="64 hexadecimal digits, not 'abc'"):
            local(f"{address}/x.zip#sha256=abc")
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match="cannot write"):
            download(f"{address}/x.zip", tmp_path / "file")
    assert files_in(tmp_path) == ["file"]
    with pytest.raises(OutputError, match="could not be downloaded"):
        download(f"{address}/x.zip", tmp_path)
    with pytest.raises(UsageError, match=r"http\(s\)"):
        local("ftp://server/x.zip")
    for url in ("file:///etc/passwd", "http://server/", "x.zip"):
        with pytest.raises(UsageError, match="http"):
            download(url, tmp_path)


def raw_server(head: bytes, times: int = 2) -> str:
    """The address of a server that gives the same answer whatever it is asked."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(10)

    def answer() -> None:
        with server, suppress(TimeoutError):
            for _ in range(times):
                connection, _ = server.accept()
                with connection:
                    connection.recv(2**16)
                    connection.sendall(head + b"\r\nContent-Type: x\r\nConnection: close\r\n\r\n0123456789")

    threading.Thread(target=answer, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}/x.zip"


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000, "more bytes come than there are anywhere"),
        (b"HTTP/1.1 206 OK\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5", "another part of the file"),
        (b"HTTP/1.1 206 OK\r\nContent-Range: nonsense", "another part of the file"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::1/x", "could not be downloaded"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd", "could not be downloaded"),
        (b"HTTP/1.1 416 No\r\nContent-Length: 0", "the server answered 416 No; check the address"),
        (b"nonsense", "could not be downloaded"),
    ],
)
def test_what_hostile_servers_send_is_a_sentence_and_leaves_nothing(head, sentence, tmp_path):
    with pytest.raises(OutputError, match=sentence):
        download(raw_server(head), tmp_path)
    assert files_in(tmp_path) == []


def begin(folder: Path) -> None:
    (folder / "x.zip.part").write_bytes(b"begun")
    (folder / "x.zip.part.version").write_text('"one"')


def test_a_server_that_always_answers_416_is_asked_twice(tmp_path):
    begin(tmp_path)
    with pytest.raises(OutputError, match="the server answered 416 No; check the address"):
        download(raw_server(b"HTTP/1.1 416 No\r\nContent-Length: 0"), tmp_path)
    assert files_in(tmp_path) == []


def test_another_part_than_was_asked_for_is_not_glued_on(tmp_path):
    begin(tmp_path)
    with pytest.raises(OutputError, match="another part of the file than was asked for; try again, from its"):
        download(raw_server(b'HTTP/1.1 206 OK\r\nETag: "one"\r\nContent-Range: bytes 2-11/12'), tmp_path)
    assert "x.zip" not in files_in(tmp_path)
    with serving() as (address, _):
        assert download(f"{address}/x.zip", tmp_path, SUM).read_bytes() == BODY


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1/x",
        "http://server/%00",
        "http://server/a%0ab",
        "http://server/%ff",
        "http://server/a%5cb",
        "http://server/..",
        f"http://{'a' * 300}/x",
        f"http://server/{'n' * 300}",
        "http://server:99999/x",
        "http://server:x/x",
        "http://a b/x",
        "http://server/\ud800",
        "http://\ud800/x",
    ],
    ids=ascii,
)
def test_addresses_of_no_file_are_refused(address, tmp_path):
    with pytest.raises(UsageError, match=r"needs an address http\(s\)://server/file, not"):
        download(address, tmp_path)
    assert files_in(tmp_path) == []


def test_letters_in_an_address_are_sent_as_http_has_them(tmp_path):
    with serving() as (address, _):
        assert download(f"{address}/été.zip", tmp_path, SUM).name == "été.zip"


def test_a_symbolic_link_is_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "x.zip.part").symlink_to(tmp_path / "victim")
    with serving() as (address, _):
        with pytest.raises(OutputError, match="there is a symbolic link of this name"):
            download(f"{address}/x.zip", tmp_path)
        (tmp_path / "x.zip.part").unlink()
        (tmp_path / "x.zip.part.version").symlink_to(tmp_path / "victim")
        assert download(f"{address}/x.zip", tmp_path).read_bytes() == BODY
    assert (tmp_path / "victim").read_text() == "mine"


def test_two_downloads_of_one_file_do_not_mix(tmp_path):
    """The second is refused while the first goes on, and finds the file when it has finished."""
    outcomes: list[object] = []
    begun, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        begun.set()
        go_on.wait(10)

    with serving() as (address, handler):
        url = f"{address}/x.zip"
        first = threading.Thread(target=lambda: outcomes.append(download(url, tmp_path, SUM, wait)))
        first.start()
        begun.wait(10)
        with pytest.raises(OutputError, match="is being downloaded by another process; wait"):
            download(url, tmp_path, SUM)
        go_on.set()
        first.join()
        assert download(url, tmp_path, SUM).read_bytes() == BODY
        assert len(handler.log) == 1
    assert outcomes == [tmp_path / "x.zip"]
    assert files_in(tmp_path) == ["x.zip"]
