"""Small files that claim giant pictures: refused, or read within the memory that the documentation states."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.errors import ImageError
from diptych.images import files, streams
from little_pictures import png
from tiff_files import tiff

DATA = Path(__file__).parent / "data" / "pictures"
SIDE = 14_000  # 196 million pixels, below the limit


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def jpeg(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", 11) + frame + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0\xff\xd9"


def claiming(width: int, height: int, compression: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: height, 279: 8}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return (
        b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(entries)) + directory + bytes(4)
    )


PROFILE = zlib.compress(bytes(200_000_000), 9)
BOMBS = {
    "png": png(SIDE, SIDE, 8, 2, b"\0"),
    "png 16": png(SIDE, SIDE, 16, 6, b"\0"),
    "png text": png(1, 1, 8, 0, b"\0\0", (b"zTXt", b"a\0\0" + PROFILE)),
    "png international text": png(1, 1, 8, 0, b"\0\0", (b"iTXt", b"a\0\1\0\0\0" + PROFILE)),
    "png profile": png(1, 1, 8, 2, b"\0\0\0\0", (b"iCCP", b"a\0\0" + PROFILE)),
    "jpeg": jpeg(SIDE, SIDE),
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0),
    "gif": b"GIF89a"
    + struct.pack("<HHBBB", SIDE, SIDE, 0, 0, 0)
    + b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
    "webp": b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + struct.pack("<I", SIDE - 1)[:3] * 2 + bytes(8),
    "sparse": (DATA / "sparse.tif").read_bytes(),
    "sparse rows": (DATA / "sparse_1mrow.tif").read_bytes(),
    **{f"tiff {number}": claiming(SIDE, SIDE, number) for number in (1, 5, 8, 32773, 34925, 50000)},
    "tiff fax": claiming(SIDE, SIDE, 4),
}
CHILD = """
import resource, sys
from diptych.errors import ImageError
from diptych.images import files, streams
import cv2, simplejpeg, tifffile
files.read(sys.argv[1])
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for reader in (files.read, streams.open):
    try:
        source = reader(sys.argv[2])
        print("read")
    except ImageError as error:
        print("refused", error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) >> 10)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_takes_little_memory(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    (tmp_path / "bomb").write_bytes(BOMBS[kind])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "small.png"), str(tmp_path / "bomb")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    # 20 bytes a claimed pixel are 3.9 GB; only WebP and GIF may hold so much in so few bytes.
    assert int(lines[-1]) < (4_000 if kind in ("webp", "gif") else 900 if kind == "tiff fax" else 250)
    assert kind.startswith("png ") or kind == "gif" or lines[0].startswith("refused")


def test_a_sparse_tiff_of_honest_size_is_read(tmp_path: Path) -> None:
    content = bytearray(tiff(np.ones((64, 64, 1), np.uint8), 8, tile=(32, 32)))
    at = content.index(struct.pack("<HHI", 325, 4, 4))
    place = struct.unpack_from("<I", content, at + 8)[0]
    content[place : place + 4] = bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    pixels = files.read(tmp_path / "a.tif").pixels
    assert not pixels[:32, :32].any()
    assert pixels.sum() == 255 * 0 + 3 * 32 * 32


@pytest.mark.parametrize("reader", [files.read, streams.open])
def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path, reader: object) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", Path("/dev/zero")):
        with pytest.raises(ImageError, match="is not an ordinary file"):
            reader(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["predict", "scenes"], ["preprocess"], ["run", "--images"], ["compare", "scenes", "scenes", "--images"]],
)
def test_a_pipe_in_every_verb(tmp_path: Path, arguments: list[str]) -> None:
    os.mkfifo(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-m", "diptych", *arguments, str(tmp_path / "a.png")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "is not an ordinary file" in done.stderr
    assert "Traceback" not in done.stderr


def damaged_tiffs() -> dict[str, bytes]:
    contents = {}
    for codec in ("tiff_lzw", "zstd", "jpeg", "group4", "packbits"):
        stream = io.BytesIO()
        noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8))
        (noise.convert("1") if codec == "group4" else noise).save(stream, "TIFF", compression=codec)
        content = bytearray(stream.getvalue())
        content[200:1500] = bytes(byte ^ 0x5A for byte in content[200:1500])
        contents[codec] = bytes(content)
    return contents


DAMAGED = damaged_tiffs()


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGED)
def test_native_libraries_print_nothing(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.tif").write_bytes(DAMAGED[kind])
    done = subprocess.run(
        [sys.executable, "-m", "diptych", "predict", "scenes", "a.tif"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line]
    assert all(line.startswith(("diptych: ", "remark: ", "a.tif")) for line in lines), lines
    assert done.returncode in (0, 1)
    assert kind in ("group4", "zstd") or done.returncode == 1  # these two hold no checksum
