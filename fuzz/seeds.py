"""The good files that the damage begins with: the smallest there are of every kind."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
_TESTS = ROOT / "tests"
_SIDE = 12  # pixels


def _golden(suffix: str, most: int) -> list[bytes]:
    """Files that Julia wrote: of each length in steps of 32 bytes, one."""
    files = {path.stat().st_size // 32: path for path in sorted(_TESTS.glob(f"golden/**/*{suffix}"))}
    return [path.read_bytes() for size, path in sorted(files.items()) if size * 32 < most]


def bson() -> list[bytes]:
    """Models of several versions of Flux."""
    return _golden(".bson", 9000)


def jld2() -> list[bytes]:
    """Models and other values of several versions of JLD2, and HDF5 files."""
    return _golden(".jld2", 17_500)


def julia_source() -> list[bytes]:
    """The expressions that built the golden models, and scripts in the idioms of public ones."""
    sources = json.loads((_TESTS / "golden" / "sources.json").read_bytes())
    scripts = [path.read_bytes() for path in sorted((_TESTS / "data" / "julia_source").glob("*.jl"))]
    return [f"model = {text}".encode() for text in list(sources.values())[::7]] + scripts


def models() -> Iterable[Any]:
    """A model of every layer, and one with everything else that a model carries."""
    if str(_TESTS) not in sys.path:
        sys.path.append(str(_TESTS))
    from diptych.model.layers import Chain, Conv, Dense, Flatten, MaxPool, Softmax
    from diptych.model.model import Model
    from diptych.preprocessing import named
    from layer_cases import cases

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((4, 1, 3, 3), (2, 64))]
    layers = (
        Conv(weights[0], padding=((1, 1), (1, 1))),
        MaxPool((2, 2)),
        Flatten(),
        Dense(weights[1]),
        Softmax(),
    )
    recipe, notes = named("grey-8"), {"accuracy": 0.5, "more": {"a": [1, None]}}
    yield Model(Chain(layers), recipe, ("cat", "dog"), (1, 8, 8), True, "little", notes=notes)
    for _, model, _ in cases():
        yield model


def _written(suffix: str, every: int = 1) -> list[bytes]:
    from diptych import formats
    from diptych.errors import DiptychError

    found = []
    with TemporaryDirectory() as folder:
        path = Path(folder, f"model{suffix}")
        for model in list(models())[::every]:
            try:
                formats.write(model, path)
            except DiptychError:  # not every format has every layer
                continue
            found.append(path.read_bytes())
    return [content for content in found if len(content) < 9000]


def safetensors() -> list[bytes]:
    """A model of every layer."""
    return _written(".safetensors")


def onnx() -> list[bytes]:
    """A model of every layer, and the same graphs as another program's: without our document."""
    import onnx as library

    own = _written(".onnx", 2)
    foreign = []
    for content in own:
        model = library.load_from_string(content)
        del model.metadata_props[:]
        foreign.append(model.SerializeToString())
    return own + foreign


def torch_files() -> list[bytes]:
    """Our files, and what other programs save."""
    import torch

    stream = io.BytesIO()
    torch.save({"epoch": 3, "state_dict": torch.nn.Linear(2, 2).state_dict()}, stream)
    return [*_written(".pt", 4), stream.getvalue()]


def state_dicts() -> list[bytes]:
    """Weights for the architecture of `targets.read_state_dict`."""
    import torch

    contents = []
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).state_dict()
    for value in (state, {"state_dict": state, "epoch": 3}):
        stream = io.BytesIO()
        torch.save(value, stream)
        contents.append(stream.getvalue())
    return contents


def documents() -> list[bytes]:
    """The JSON of models; `targets.read_document` gives the arrays."""
    from diptych.model.document import to_document

    return [json.dumps(to_document(model)[0]).encode() for model in models()]


def checkpoints() -> list[bytes]:
    """The state of a training that has not ended."""
    from fuzz.targets import trained_a_little

    with TemporaryDirectory() as folder:
        path = Path(folder, "state")
        return [path.read_bytes() for steps in (1, 4) if trained_a_little(path, steps) is not None]


@functools.cache
def records() -> list[bytes]:
    """The run.json of finished work, and of work that was killed."""
    from diptych import journal
    from fuzz.targets import OURS, SETTINGS

    with TemporaryDirectory() as folder:
        with journal.keeping(folder, SETTINGS, OURS) as run:
            killed = Path(folder, journal.NAME).read_bytes()
            for name in ("picture_1.png", "picture_2.png"):
                run.make(name, lambda path: path.write_bytes(b"pixels"), source="0" * 64)
            with run.timed("painting"):
                pass
        return [killed, Path(folder, journal.NAME).read_bytes()]


def unfinished() -> list[bytes]:
    """The lines of files that a killed process had finished."""
    lines = [json.dumps([f"picture_{number}.png", "0" * 64, "1" * 64 * (number % 2)]) for number in range(3)]
    return ["".join(f"{line}\n" for line in lines).encode(), b""]


def recipes() -> list[bytes]:
    """The JSON of every recipe by name."""
    from diptych import preprocessing

    steps = [preprocessing.named(name) for name in preprocessing.NAMES]
    return [json.dumps(recipe.to_document()).encode() for recipe in steps]


def _pixels() -> Any:
    row, column = np.mgrid[:_SIDE, : _SIDE + 3]
    return np.stack([row * 20, column * 16, (row + column) * 9], -1).astype(np.uint8)


def drawn() -> list[bytes]:
    """Painted pictures, with the record of how they were made."""
    from diptych.images import files
    from diptych.images.generation import paint
    from diptych.options import GenerationOptions

    contents = []
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.png")
        for prompt in ("a house", "a red sun over the sea, été"):
            for picture in paint(prompt, GenerationOptions(count=1, width=16, height=16)):
                files.write_png(path, picture.pixels, picture.record)
            contents.append(path.read_bytes())
    return contents


def pictures() -> list[bytes]:
    """Every kind but TIFF, in several of its modes."""
    from PIL import Image, features

    picture = Image.fromarray(_pixels())
    exif = Image.Exif()
    exif[0x0112] = 6
    grey, palette = picture.convert("L"), picture.quantize(16)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    saved: list[tuple[Any, str, dict[str, Any]]] = [
        (picture, "PNG", {"exif": exif, "dpi": (72, 72)}),
        (palette, "PNG", {"transparency": 3}),
        (deep, "PNG", {}),
        (picture.convert("RGBA"), "PNG", {}),
        (grey.convert("1"), "PNG", {}),
        (picture, "PNG", {"save_all": True, "append_images": [picture.rotate(180)]}),
        (picture, "JPEG", {"exif": exif}),
        (picture, "JPEG", {"progressive": True, "subsampling": 0}),
        (grey, "JPEG", {}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "WEBP", {"lossless": True}),
        (picture.convert("RGBA"), "WEBP", {"exif": exif}),
        (picture, "WEBP", {"save_all": True, "append_images": [picture.rotate(180)]}),
        (picture, "BMP", {}),
        (palette, "BMP", {}),
        (palette, "GIF", {"transparency": 3}),
        (palette, "GIF", {"save_all": True, "append_images": [palette.rotate(180)]}),
        (picture, "JPEG2000", {}),
    ]
    if features.check("avif"):
        saved.append((picture, "AVIF", {}))
    contents = []
    for image, kind, options in saved:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        contents.append(stream.getvalue())
    return contents


def tiffs() -> list[bytes]:
    """Every compression, layout and kind of sample that is read by rows."""
    import tifffile

    colour, contents = _pixels(), []
    grey = colour[..., 0]
    written: list[tuple[Any, dict[str, Any]]] = [
        (colour, {"rowsperstrip": 5}),
        (colour, {"compression": "zlib", "tile": (16, 16), "predictor": True}),
        (colour, {"compression": "packbits", "planarconfig": "separate"}),
        (grey, {"compression": "lzw", "byteorder": ">"}),
        (grey.astype(np.uint16) * 257, {"rowsperstrip": 4}),
        (grey.astype(np.float32) / 255, {"predictor": True, "compression": "zlib"}),
        (grey > 99, {}),
        (colour, {"bigtiff": True, "resolution": (72, 72)}),
        (colour, {"compression": "jpeg", "tile": (16, 16)}),
        (colour, {"compression": "lzma"}),
        (np.dstack([colour, grey]), {"extrasamples": ["unassalpha"]}),
        (grey, {"photometric": "miniswhite"}),
    ]
    for array, options in written:
        stream = io.BytesIO()
        photometric = "rgb" if array.ndim == 3 else "minisblack"
        try:
            tifffile.imwrite(stream, array, **{"photometric": photometric, "metadata": None, **options})
        except (ImportError, KeyError, ValueError):  # a compression for which tifffile wants another package
            stream = _by_pillow(array, options.get("compression"))
        contents.append(stream.getvalue())
    return contents


def _by_pillow(array: Any, compression: str | None) -> io.BytesIO:
    from PIL import Image

    stream = io.BytesIO()
    known = {
        "lzw": "tiff_lzw",
        "packbits": "packbits",
        "zlib": "tiff_deflate",
        "lzma": "tiff_lzma",
        "jpeg": "jpeg",
    }
    Image.fromarray(array).save(stream, "TIFF", compression=known.get(compression or ""))
    return stream


def archives() -> list[bytes]:
    """Tiny ImageNet, smaller: in a zip, and in a tar as it is and compressed in three ways."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(_pixels()).save(stream, "JPEG")
    picture = stream.getvalue()
    files = {
        "wnids.txt": b"n01000001\nn02000002\n",
        "train/n01000001/images/a.JPEG": picture,
        "train/n02000002/images/b.JPEG": picture,
        "val/val_annotations.txt": b"val_0.JPEG\tn01000001\t0\t0\t63\t63\n",
        "val/images/val_0.JPEG": picture,
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"tiny-imagenet-200/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    plain = packed.getvalue()
    contents = [plain, gzip.compress(plain, mtime=0), bz2.compress(plain), lzma.compress(plain)]
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", compression) as zip_archive:
            for name, content in files.items():
                zip_archive.writestr(zipfile.ZipInfo(name), content, compression)
        contents.append(packed.getvalue())
    return contents


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "bson": bson,
    "jld2": jld2,
    "julia-source": julia_source,
    "safetensors": safetensors,
    "onnx": onnx,
    "pt": torch_files,
    "state-dict": state_dicts,
    "document": documents,
    "checkpoint": checkpoints,
    "run-json": records,
    "unfinished": unfinished,
    "recipe": recipes,
    "record": drawn,
    "tiny-imagenet": archives,
    "pictures": pictures,
    "pictures-by-rows": lambda: [*pictures(), *tiffs()],
    "tiff": tiffs,
}
