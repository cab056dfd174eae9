"""The page that `diptych serve` has at /."""

import pytest

from little_server import serving


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/site.css", "text/css; charset=utf-8"),
        ("/main.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/contents.json", "application/json"),
    ],
)
def test_files_have_their_types_and_a_strict_policy(server, path, kind):
    answer = server.ask("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self' 'wasm-unsafe-eval';" in policy
    assert "unsafe-inline" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert server.ask("HEAD", path).body == b""
    assert server.ask("GET", path, If_None_Match=answer.headers["etag"]).status == 304
    assert server.ask("POST", path, b"").status == 405


@pytest.mark.parametrize(
    "path", ["/__init__.py", "/files.py", "/pages/main.js", "/../site.py", "/%2e%2e/site.py", "//"]
)
def test_nothing_else_is_served(server, path):
    assert server.ask("GET", path).status == 404


def test_it_knows_the_models_of_the_server_unless_they_need_a_token(server):
    assert server.ask("GET", "/contents.json").json["server"] == {"models": ["scenes"], "uploads": False}
    with serving("--allow-uploads", DIPTYCH_TOKEN="geheim") as other:
        assert other.ask("GET", "/contents.json").json["server"] == {"models": [], "uploads": False}
