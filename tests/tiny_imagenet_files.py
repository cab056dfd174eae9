"""A very small Tiny ImageNet, in the layout of the true one."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from PIL import Image

CLASSES = ("n02000002", "n01000001", "n03000003")


def content() -> dict[str, bytes]:
    """A tiny Tiny ImageNet: 3 classes of 4 pictures, one of them grey, one CMYK; 3 to validate."""
    files = {"wnids.txt": "\n".join(CLASSES).encode(), "words.txt": b"n01000001\tgoldfish\n"}
    for label, name in enumerate(CLASSES):
        for index in range(4):
            mode = {1: "L", 2: "CMYK"}.get(index, "RGB") if label == 0 else "RGB"
            files[f"train/{name}/images/{name}_{index}.JPEG"] = jpeg(60 * label + index, mode)
        files[f"train/{name}/{name}_boxes.txt"] = b"0 0 0 0 0\n"
    annotations = [f"val_{index}.JPEG\t{CLASSES[2 - index]}\t0\t0\t63\t63" for index in range(3)]
    files["val/val_annotations.txt"] = "\n".join(annotations).encode()
    files |= {f"val/images/val_{index}.JPEG": jpeg(100 + index, "RGB") for index in range(3)}
    return files


def jpeg(level: int, mode: str) -> bytes:
    stream = io.BytesIO()
    picture = Image.new("RGB", (64, 64), (level, level, level))
    picture.paste((255 - level, level, 128), (32, 32, 64, 64))  # flat pictures teach nothing
    picture.convert(mode).save(stream, "jpeg")
    return stream.getvalue()


def pack(path: Path, files: dict[str, bytes], root: str = "tiny-imagenet-200/") -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(root + name, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive_tar:
        for name, data in files.items():
            member = tarfile.TarInfo(root + name)
            member.size = len(data)
            archive_tar.addfile(member, io.BytesIO(data))
    return path
