"""Diptych in a browser: every view gives what Python gives, and asks other places for nothing."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diptych
from accessibility import violations
from browser import TIMEOUT, chromium
from diptych import filters
from diptych.datasets.photographs import photograph
from diptych.formats import bson, jld2
from diptych.formats.julia import JuliaDict, JuliaStruct, NamedTuple
from diptych.model.layers import Chain, Conv, Dense, Flatten, GlobalMeanPool, Softmax
from diptych.model.model import Model
from diptych.preprocessing import named
from diptych.site import site_files, write_site
from little_models import numbers

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "deep" / "site"
    write_site(folder)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The site below another address than the root of a plain web server."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder.parents[1]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/deep/site/index.html"
        server.shutdown()


class Visit:
    """A page of the site, and everything that should not have been said or asked."""

    def __init__(self, browser: Any, address: str, state: str = "", **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.bad: list[str] = []
        self.page.on("console", lambda message: self.bad.append(message.text))
        self.page.on("pageerror", lambda error: self.bad.append(str(error)))
        home = address.rsplit("/", 1)[0]
        own = (home, "blob:", "data:")
        self.page.on(
            "request", lambda asked: None if asked.url.startswith(own) else self.bad.append(asked.url)
        )
        self.page.goto(f"{address}{state}", timeout=TIMEOUT)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            assert self.bad == []
        self.page.close()

    def choose(self, selector: str, path: Path) -> None:
        self.page.set_input_files(selector, str(path))

    def idle(self, view: str) -> None:
        """Waits until a view has done its work."""
        self.wait(f'#view-{view}[aria-busy="false"]')

    def wait(self, selector: str) -> None:
        self.page.wait_for_selector(selector, timeout=TIMEOUT)


def picture(folder: Path, name: str, pixels: Any) -> Path:
    Image.fromarray(pixels).save(folder / name)
    return folder / name


DRAWN = """(id) => {
    const canvas = document.getElementById(id), copy = new OffscreenCanvas(canvas.width, canvas.height);
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    return [canvas.height, canvas.width, Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)];
}"""


def drawn(visit: Visit, id: str) -> Any:  # noqa: A002
    height, width, values = visit.page.evaluate(DRAWN, id)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


# ---- Run ---------------------------------------------------------------------------------------------------


def test_a_picture_is_classified_as_in_python(browser: Any, address: str, tmp_path: Path) -> None:
    path = picture(tmp_path, "coffee.png", photograph("coffee"))
    with Visit(browser, address) as visit:
        visit.wait("#run-result:not([hidden])")
        visit.choose("#run-picture-file", path)
        visit.wait("text=600 × 400 pixels")
        found = visit.page.evaluate(
            "async () => Array.from(await diptych.classify(document.getElementById('run-picture-file').files[0]))"
        )
        assert np.abs(np.array(found) - diptych.predict("scenes", path)[0]).max() < 1e-6
        visit.page.select_option("#run-layer", "4")
        visit.page.locator("#run-channel").fill("5")
        assert "Layer 4, channel 5 of 64 (from 0): 8 × 8" in visit.page.inner_text("#run-map-said")
        assert "picture=own&layer=4&channel=5" in visit.page.url


def test_the_state_is_in_the_address(browser: Any, address: str) -> None:
    with Visit(browser, address, "#run?picture=2&model=scenes&layer=2&channel=7") as visit:
        visit.wait("#run-result:not([hidden])")
        visit.wait("text=Layer 2, channel 7 of 32 (from 0): 16 × 16")
        assert visit.page.locator('.thumb[aria-pressed="true"]').get_attribute("data-number") == "2"
        visit.page.go_back()
    with Visit(
        browser, address, "#run?picture=99&model=none&layer=none&channel=x"
    ) as visit:  # a careless hand
        visit.wait("#run-result:not([hidden])")


def little(recipe: str, channels: int, size: int, **options: Any) -> Model:
    layers = (Conv(numbers(4, channels, 3, 3)), GlobalMeanPool(), Flatten(), Dense(numbers(3, 4)), Softmax())
    return Model(
        Chain(layers), named(recipe), ("cat", "dog", "owl"), (channels, size, size), True, "little", **options
    )


@pytest.mark.parametrize("inside", [False, True], ids=["recipe in the page", "recipe inside"])
def test_a_model_of_ones_own_runs_with_a_recipe(
    browser: Any, address: str, tmp_path: Path, inside: bool
) -> None:
    model = little("julia-colour-32", 3, 32)
    diptych.write(model, tmp_path / "own.onnx", preprocessing_inside=inside)
    path = picture(tmp_path, "cat.png", photograph("chelsea"))
    expected = diptych.predict(model, path)[0]
    with Visit(browser, address) as visit:
        visit.wait("#run-result:not([hidden])")
        visit.choose("#run-picture-file", path)
        visit.choose("#run-file", tmp_path / "own.onnx")
        visit.wait("#run-bars th:has-text('owl')")
        if not inside:
            assert "julia-colour-32-wh" in visit.page.inner_text("#run-recipe").split()
            visit.page.select_option("#run-recipe", "julia-colour-32")
        text = f"{100 * expected.max():.1f} %"
        visit.wait(f"#run-bars tr:first-child td:has-text('{text}')")
        assert model.classes[int(expected.argmax())] in visit.page.inner_text("#run-bars tr:first-child th")
        assert visit.page.locator("#run-layer option").count() >= 4  # every value of the graph


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no graph"),
        (b"\x08\x07hello", "damaged, or no ONNX file"),
    ],
)
def test_what_is_no_onnx_file_is_said(
    browser: Any, address: str, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    (tmp_path / "a.png").write_bytes(content)
    with Visit(browser, address) as visit:
        visit.wait("#run-result:not([hidden])")
        visit.choose("#run-file", tmp_path / "a.onnx")
        visit.wait("#status.bad")
        assert said in visit.page.inner_text("#status")
        visit.choose("#run-picture-file", tmp_path / "a.png")
        visit.wait("#status:has-text('not a picture')")


def test_a_model_for_other_inputs_is_refused_with_advice(browser: Any, address: str, tmp_path: Path) -> None:
    diptych.write(Model(Chain((Dense(numbers(3, 7)),)), input_shape=(7,)), tmp_path / "row.onnx")
    odd = Model(Chain((Flatten(), Dense(numbers(3, 3 * 41 * 41)))), input_shape=(3, 41, 41))
    diptych.write(odd, tmp_path / "odd.onnx")
    with Visit(browser, address) as visit:
        visit.wait("#run-result:not([hidden])")
        for name, said in (("row", "this page gives pictures"), ("odd", "--preprocessing-inside")):
            visit.choose("#run-file", tmp_path / f"{name}.onnx")
            visit.wait(f"#status.bad:has-text('{said}')")
            assert f"{name}.onnx" in visit.page.inner_text("#status")


# ---- Compare -------------------------------------------------------------------------------------------------


def test_two_models_are_compared_layer_by_layer(browser: Any, address: str, tmp_path: Path) -> None:
    path = picture(tmp_path, "coffee.png", photograph("coffee"))
    diptych.write(diptych.load_model("scenes"), tmp_path / "same.onnx", preprocessing_inside=True)
    with Visit(browser, address, "#compare?layer=0&channel=3") as visit:
        visit.wait("#compare-result:not([hidden])")
        visit.choose("#compare-picture-file", path)
        visit.idle("compare")
        first = visit.page.locator("#compare-table tr").first.locator("td")
        assert float(first.nth(2).inner_text()) > 0.1  # kernels that are not flipped
        left = diptych.trace(
            "scenes", diptych.load_model("scenes").preprocessing.apply(photograph("coffee"))[None]
        )["0"]
        assert drawn(visit, "compare-left").shape[:2] == left.shape[2:]
        split = visit.page.locator("#compare-split")
        split.focus()
        before = visit.page.evaluate("document.getElementById('compare-left').style.clipPath")
        visit.page.keyboard.press("ArrowRight")
        assert visit.page.evaluate("document.getElementById('compare-left').style.clipPath") != before
        visit.choose("#compare-file", tmp_path / "same.onnx")
        visit.page.wait_for_timeout(100)
        visit.idle("compare")
        assert visit.page.input_value("#compare-b") == "same.onnx"
        rows = visit.page.locator("#compare-table tr")
        assert rows.count() >= 1
        assert float(rows.last.locator("td").nth(2).inner_text()) < 1e-6


# ---- Filter ----------------------------------------------------------------------------------------------------


def test_filters_give_what_apply_gives(browser: Any, address: str, tmp_path: Path) -> None:
    pixels = photograph("coffee")[:300, :401]
    path = picture(tmp_path, "coffee.png", pixels)
    names = [
        name.removeprefix("filters/").removesuffix(".onnx")
        for name in site_files()
        if name.startswith("filters/")
    ]
    place = Path(diptych.__file__).parent / "site" / "filters"
    with Visit(browser, address, "#filter") as visit:
        visit.wait("#filter-result:not([hidden])")
        visit.choose("#filter-picture-file", path)
        visit.wait("#filter-said:has-text('401 × 300')")
        for name in names:
            visit.page.select_option("#filter-name", name)
            visit.idle("filter")
            expected = filters.apply(place / f"{name}.safetensors", pixels)
            expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, 2)
            assert np.abs(drawn(visit, "filter-right").astype(int) - expected).max() <= 1, name
    assert len(names) == 10


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("posterise", "a curve of the levels of each channel: PSNR"),
        ("box:size=3", "a linear kernel of 5 × 5 pixels over all channels"),
        ("median:size=7", "Not learned"),
    ],
)
def test_a_filter_is_taught_from_a_pair(
    browser: Any, address: str, tmp_path: Path, name: str, said: str
) -> None:
    pixels = (
        photograph("coffee")[:200, :300]
        if "median" not in name
        else np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    )
    after = np.rint(255 * filters.resolve(name)(pixels)).astype(np.uint8)
    before, made = picture(tmp_path, "before.png", pixels), picture(tmp_path, "after.png", after)
    with Visit(browser, address, "#filter") as visit:
        visit.wait("#filter-result:not([hidden])")
        assert visit.page.locator("#teach").is_disabled()
        visit.choose("#teach-before", before)
        visit.choose("#teach-after", made)
        visit.page.click("#teach:enabled", timeout=TIMEOUT)
        visit.wait("#teach-said:has-text('PSNR')")
        assert said in visit.page.inner_text("#teach-said")
        if "box" in name:
            assert "Close: no visible difference" in visit.page.inner_text("#teach-said")
            visit.choose("#filter-picture-file", before)
            visit.wait("#filter-said:has-text('300 × 200')")
            assert np.abs(drawn(visit, "filter-right").astype(int) - after).max() <= 2
        smaller = picture(tmp_path, "smaller.png", pixels[:-1])
        visit.choose("#teach-after", smaller)
        visit.page.click("#teach:enabled", timeout=TIMEOUT)
        visit.wait("#teach-said.bad:has-text('must be equally large')")


# ---- Open a model -------------------------------------------------------------------------------------------------

OPENED = "async () => diptychOpen(document.getElementById('open-file-of-test').files[0])"


def arrays_in(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every array of numbers in the values that Python reads."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        yield value
    elif id(value) not in seen and isinstance(
        value, dict | list | tuple | JuliaStruct | JuliaDict | NamedTuple
    ):
        seen.add(id(value))
        inside = (
            value.values() if isinstance(value, dict)
            else value.fields if isinstance(value, JuliaStruct)
            else [*value.stored_keys, *value.stored_values] if isinstance(value, JuliaDict)
            else value.as_dict().values() if isinstance(value, NamedTuple)
            else value
        )  # fmt: skip
        for each in inside:
            yield from arrays_in(each, seen)


FILES = [
    path
    for version in ("flux-0.11.6", "flux-0.12.1", "flux-0.13.4", "flux-0.16.9")
    for path in sorted((GOLDEN / version).glob("*"))
    if path.suffix in (".bson", ".jld2")
]


def test_files_of_flux_hold_the_same_arrays_as_in_python(browser: Any, address: str) -> None:
    missing: dict[str, str] = {}
    with Visit(browser, address, "#open") as visit:
        visit.wait("#view-open:not([hidden])")
        visit.page.evaluate("""() => { const input = document.createElement("input"); input.type = "file";
            input.id = "open-file-of-test"; document.body.append(input); }""")
        for path in FILES:
            visit.choose("#open-file-of-test", path)
            found = visit.page.evaluate(OPENED)
            read = (bson.load if path.suffix == ".bson" else jld2.load)(path)
            mine = sorted(
                (list(a["shape"]), round(float(np.float64(a["values"]).sum()), 4))
                for a in found["arrays"]
                if a["shape"] and a["values"]
            )
            own = sorted(
                (list(a.shape), round(float(np.float64(a).sum()), 4))
                for a in arrays_in(read, set())
                if a.ndim and a.size
            )
            if {str(each) for each in mine} != {str(each) for each in own}:
                missing[path.name] = f"{len(mine)} of {len(own)}"
    assert len(FILES) > 250
    assert len(missing) <= 0.05 * len(FILES), missing


def test_an_architecture_is_shown_as_a_graph_and_a_table(browser: Any, address: str, tmp_path: Path) -> None:
    scenes = diptych.load_model("scenes")
    for suffix in ("bson", "jld2", "onnx", "safetensors"):
        diptych.write(scenes, tmp_path / f"model.{suffix}")
    with Visit(browser, address, "#open") as visit:
        for suffix, rows in (("bson", 10), ("jld2", None), ("onnx", None), ("safetensors", 10)):
            visit.choose("#open-file", tmp_path / f"model.{suffix}")
            visit.wait(f"#open-said:has-text('model.{suffix},')")
            shown = visit.page.inner_text("#open-facts")
            assert "156,074" in shown, (suffix, shown)
            assert (
                visit.page.locator("#open-graph rect").count() == visit.page.locator("#open-table tr").count()
            )
            if rows:
                assert visit.page.locator("#open-table tr").count() == rows
        visit.choose("#open-file", tmp_path / "model.bson")
        visit.wait("#open-said:has-text('model.bson,')")
        assert "Conv 3 × 3, 3 ⇒ 16, relu" in visit.page.inner_text("#open-table")
        assert "Dense 1024 ⇒ 128, relu" in visit.page.inner_text("#open-table")
        weight = scenes.layers.layers[0].weight
        said = visit.page.inner_text("#open-array-said")
        assert "3 × 3 × 3 × 16 (Julia's order of axes)" in said
        assert f"{float(weight.min()):.4g}".replace("-", "−") in said


@pytest.mark.parametrize("suffix", ["bson", "jld2", "safetensors", "onnx"])
def test_damaged_files_are_refused_in_a_sentence(
    browser: Any, address: str, tmp_path: Path, suffix: str
) -> None:
    good = tmp_path / f"good.{suffix}"
    diptych.write(diptych.load_model("scenes"), good)
    content = good.read_bytes()
    rng = np.random.default_rng(0)
    flipped = bytearray(content)
    for place in rng.integers(0, min(len(content), 3000), 40):
        flipped[place] ^= int(rng.integers(1, 256))
    bad = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "noise": rng.bytes(5000),
        "flipped": bytes(flipped),
    }
    with Visit(browser, address, "#open") as visit:
        for name, each in bad.items():
            (tmp_path / f"{name}.{suffix}").write_bytes(each)
            visit.choose("#open-file", tmp_path / f"{name}.{suffix}")
            visit.page.wait_for_timeout(400)
            words = visit.page.inner_text("#open-said")
            assert words.endswith(".") or name == "flipped", (name, words)
            assert "undefined" not in words
            if name in ("empty", "noise"):
                assert visit.page.locator("#open-result").is_hidden(), (name, words)


def test_a_jld2_file_tells_what_takes_no_bytes(browser: Any, address: str) -> None:
    path = GOLDEN / "flux-0.16.9" / "activations.jld2"
    with Visit(browser, address, "#open") as visit:
        visit.choose("#open-file", path)
        visit.wait("#open-said:has-text('activations.jld2,')")
        shown = visit.page.inner_text("#open-table")
        assert "Dense 6 ⇒ 4, relu6" in shown
        assert "Dense 6 ⇒ 4, swish" in shown


@pytest.mark.parametrize(
    "header", [b"null", b"[]", b'{"a": null}', b'{"a": {"dtype": "F32", "shape": ["x"]}}']
)
def test_a_header_of_another_kind_is_refused(
    browser: Any, address: str, tmp_path: Path, header: bytes
) -> None:
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with Visit(browser, address, "#open") as visit:
        visit.choose("#open-file", tmp_path / "a.safetensors")
        visit.wait("#open-said.bad:has-text('damaged')")
        assert visit.page.locator("#open-result").is_hidden()


@pytest.mark.parametrize("hash_", ["#__proto__", "#constructor?x=1", "#nothing"])
def test_what_is_no_view_is_the_first_one(browser: Any, address: str, hash_: str) -> None:
    with Visit(browser, address, hash_) as visit:
        visit.wait("#run-result:not([hidden])")
        assert visit.page.locator("header nav a[aria-current]").inner_text() == "Run"


def test_states_that_are_not_there_are_put_right_in_the_address(browser: Any, address: str) -> None:
    with Visit(browser, address, "#run?model=none&layer=99&channel=999") as visit:
        visit.wait("#run-result:not([hidden])")
        visit.idle("run")
        assert visit.page.url.endswith("#run?layer=0&channel=15&picture=0")


# ---- The whole site -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_every_view_is_accessible_and_fits(
    browser: Any, address: str, scheme: str, width: int, tmp_path: Path
) -> None:
    diptych.write(diptych.load_model("scenes"), tmp_path / "model.bson")
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    with Visit(browser, address, **options) as visit:
        visit.wait("#run-result:not([hidden])")
        for view in ("run", "compare", "filter", "gallery", "open"):
            visit.page.click(f'header nav a[href="#{view}"]')
            visit.wait(f"#view-{view}:not([hidden])")
            visit.page.wait_for_timeout(700)
            if view == "open":
                visit.choose("#open-file", tmp_path / "model.bson")
                visit.wait("#open-result:not([hidden])")
            assert violations(visit.page) == [], view
            assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view


def test_every_file_is_written_and_the_same_each_time(folder: Path) -> None:
    for name, made in site_files().items():
        assert (folder / name).read_bytes() == made()


def test_the_command_writes_the_site(diptych_command: Any, tmp_path: Path) -> None:
    done = diptych_command("site", tmp_path / "out")
    assert done.status == 0
    assert (tmp_path / "out" / "index.html").is_file()
    (tmp_path / "file").write_text("")
    refused = diptych_command("site", tmp_path / "file")
    assert refused.status == 1
    assert "file" in refused.err
