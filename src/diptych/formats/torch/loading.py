"""Opening what `torch.save` wrote, without running code and within the memory that the file accounts for."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from diptych.errors import FormatError, reason

__all__ = ["load"]

_MOST_PICKLE = 64 * 2**20  # bytes of data.pkl: names and shapes, while the weights are files of their own


def load(path: Path) -> Any:
    """What a file of `torch.save` holds: dictionaries, lists, numbers, texts and tensors on the CPU.

    Nothing in the file is executed (`weights_only=True`), every checksum is verified, and nothing that is
    compressed or that asks for more memory than the file has bytes is opened.

    Args:
        path: A zip archive as PyTorch has written it since version 1.6, or a sequence of pickles as before.

    Returns:
        The object that was saved.

    Raises:
        FormatError: The file cannot be read, is damaged, holds pickled code, or is another kind of file.
    """
    if path.exists() and not path.is_file():
        raise FormatError(f"{path} is not a regular file; name a file that torch.save wrote")
    if _is_zipped(path):
        _check_archive(path)
    else:
        _check_pickles(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)|global ([\w.]+)", str(error))
        raise _holds_code(path, found[1] or found[2] if found else "") from error
    except OSError as error:
        raise FormatError(f"cannot read {path}: {reason(error)}") from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged pickle or archive makes PyTorch raise
        if "TorchScript" in str(error):
            raise FormatError(
                f"{path} is a TorchScript archive: load it with torch.jit.load and save its state_dict()"
            ) from error
        raise FormatError(f"{path} is damaged or cut off: PyTorch cannot open it") from error


def _holds_code(path: Path, name: str) -> FormatError:
    what = f" ({name[:80]})" if name else ""
    return FormatError(
        f"{path} holds pickled Python objects{what}, which are code and are never opened: where it was made, "
        "save module.state_dict() instead, or use diptych.from_torch(module)"
    )


def _is_zipped(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(2) == b"PK"
    except OSError as error:
        raise FormatError(f"cannot read {path}: {reason(error)}") from error


_PICKLES = 5  # in a file of PyTorch before 1.6: a number, its version, the system, the object, the keys of its storages


def _check_pickles(path: Path) -> None:
    """Refuses a file from before PyTorch 1.6 that asks for more memory than it has bytes.

    PyTorch allocates a storage of the length that the pickle names before it reads the numbers behind the pickles.
    """
    size = path.stat().st_size
    numbers, last = 0, 0
    try:
        with path.open("rb") as stream:
            for _ in range(_PICKLES):
                start = stream.tell()
                for operation, argument, _ in pickletools.genops(stream):
                    if operation.name == "BINPERSID":
                        numbers += last
                    elif isinstance(argument, int) and "INT" in operation.name:
                        last = argument
                stop = stream.tell()
                stream.seek(start)
                _check_pickle(path, stream.read(stop - start))
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(f"cannot read {path}: {reason(error)}") from error
    except Exception as error:  # pickletools raises ValueError, struct.error and others for damage
        raise FormatError(f"{path} is damaged or cut off: it is not what PyTorch before 1.6 wrote") from error
    if not 0 <= numbers <= size:
        raise FormatError(
            f"{path} is damaged or cut off: its pickle speaks of {numbers:,} numbers, the file has {size:,} bytes"
        )


def _check_archive(path: Path) -> None:
    """Refuses an archive that is compressed, that holds more than the file has bytes, or that is damaged.

    PyTorch writes its archives uncompressed. It can be told to write no checksums, which are all zero then.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if compressed or sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise FormatError(
                    f"{path} is a compressed archive, which torch.save does not write; save it again"
                )
            damaged = archive.testzip() if any(entry.CRC for entry in entries) else None
        if damaged is not None:
            raise FormatError(f"{path} is damaged: the checksum of {damaged!r} in it is wrong; copy it again")
        for entry in entries:
            if entry.filename.rpartition("/")[2] == "data.pkl":
                _check_pickle(path, _stored(path, entry))
    except OSError as error:
        raise FormatError(f"cannot read {path}: {reason(error)}") from error
    except FormatError:
        raise
    except Exception as error:  # zipfile raises EOFError, struct.error, RuntimeError and others for damage
        raise FormatError(f"{path} is damaged or cut off: it is not a whole zip archive") from error


def _stored(path: Path, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of an uncompressed entry, whose checksum may be missing."""
    if entry.file_size > _MOST_PICKLE:
        raise ValueError(f"{entry.filename} has {entry.file_size:,} bytes")
    with path.open("rb") as stream:
        stream.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", stream.read(4))
        stream.seek(name + extra, io.SEEK_CUR)
        return stream.read(entry.file_size)


def _check_pickle(path: Path, content: bytes) -> None:
    """Refuses `bytearray`, the one function that PyTorch lets a pickle call with any amount of memory."""
    operations = [(operation.name, argument) for operation, argument, _ in pickletools.genops(content)]
    names = [str(argument).rpartition(" ")[2] for name, argument in operations if name == "GLOBAL"]
    if any(name == "STACK_GLOBAL" for name, _ in operations):  # its name is one of the texts
        names += [argument for _, argument in operations if isinstance(argument, str)]
    if "bytearray" in names:
        raise _holds_code(path, "bytearray")
