"""The page that `diptych serve` has at /."""

from importlib.resources import files

import pytest

from diptych.serving.answers import Refusal
from diptych.serving.site import Site
from little_server import serving


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    (folder / "parts").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>A page</title>")
    (folder / "parts" / "run.mjs").write_text("export const one = 1")
    (folder / "parts" / "run.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text("nobody's business")
    return Site(folder)


def test_files_have_their_types_and_a_strict_policy(site):
    for path, kind in (
        ("/", b"text/html; charset=utf-8"),
        ("/index.html", b"text/html; charset=utf-8"),
        ("/parts/run.mjs", b"text/javascript; charset=utf-8"),
        ("/parts/run.wasm", b"application/wasm"),
    ):
        answer = site.answer("GET", path, None)
        headers = dict(answer.headers)
        assert (answer.status, headers[b"content-type"]) == (200, kind)
        assert (
            b"default-src 'none'; script-src 'self' 'wasm-unsafe-eval';"
            in headers[b"content-security-policy"]
        )
        assert b"unsafe-inline" not in headers[b"content-security-policy"]
        assert site.answer("GET", path, headers[b"etag"]).status == 304


@pytest.mark.parametrize(
    "path", ["/secret.txt", "/../secret.txt", "/parts/../../secret.txt", "/parts", "//", "/none"]
)
def test_nothing_else_is_served(site, path):
    with pytest.raises(Refusal) as refused:
        site.answer("GET", path, None)
    assert refused.value.status == 404


def test_the_page_of_this_installation():
    built = (files("diptych") / "site" / "index.html").is_file()
    with serving() as server:
        page = server.ask("GET", "/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert built or "Diptych serves models here" in page.body.decode()
        assert server.ask("HEAD", "/").body == b""
        assert server.ask("GET", "/", If_None_Match=page.headers["etag"]).status == 304
