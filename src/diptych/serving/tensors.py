"""Tensors as the Open Inference Protocol v2 sends them: as JSON, and as bytes by Triton's extension.

A request with binary tensors is a JSON document of as many bytes as its header Inference-Header-Content-Length says,
and then the bytes of each tensor that has `binary_data_size` among its parameters, in the order of the document
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import base64
import binascii
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from diptych.serving.answers import Refusal

__all__ = ["BYTES", "NUMBERS", "Asked", "Request", "Tensor", "packed_bytes", "parsed"]

NUMBERS = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "BF16": "<u2",  # the upper half of a float32
}
"""The datatypes of numbers, and how NumPy calls them."""
BYTES = "BYTES"

_MOST_AXES = 8
_MOST_NAMED = 200  # characters of a name in a message
_WORDS = {"b": "truth values, true and false", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input of a request.

    Attributes:
        name: Of the input.
        datatype: A key of `NUMBERS`, or "BYTES".
        shape: As the request has it.
        numbers: The values, of that shape; None for BYTES.
        elements: The elements of BYTES, in row-major order.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    numbers: NDArray[Any] | None = None
    elements: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """An output that a request asks for.

    Attributes:
        name: Of the output.
        binary: Whether as bytes.
        classes: How many classes, as Triton's classification extension gives them; 0 for the values themselves.
    """

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A request for inference.

    Attributes:
        inputs: Its tensors.
        outputs: What it asks for; None for all outputs.
        id: To be repeated in the answer, or None.
        binary: Whether outputs are sent as bytes where nothing else is asked for.
        timeout: The most seconds that it may take, or None.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Asked, ...] | None = None
    id: str | None = None
    binary: bool = False
    timeout: float | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


def parsed(body: bytes, header_length: bytes | None) -> Request:
    """A request for inference.

    Args:
        body: The body, unpacked.
        header_length: The header Inference-Header-Content-Length, where there is one.

    Raises:
        Refusal: It is not what the protocol describes.
    """
    length = len(body)
    if header_length is not None:
        if not header_length.isdigit() or len(header_length) > 15 or int(header_length) > len(body):
            raise _wrong(
                "the header Inference-Header-Content-Length is the number of bytes of JSON at the start of the body, "
                f"at most {len(body):,}, not {_shown(header_length.decode('latin-1'))}"
            )
        length = int(header_length)
    document = json_of(memoryview(body)[:length])
    parameters = _parameters(document, "the request")
    _check_parameters(parameters)
    rest = _Rest(body, length)
    given = document.get("inputs")
    if not isinstance(given, list) or not given:
        raise _wrong('a request has "inputs", a list of one or more tensors, such as ' + _EXAMPLE)
    inputs = tuple(_tensor(each, rest) for each in given)
    rest.check_used()
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise _wrong(f'the "id" of a request is a string, not {_shown(identity)}')
    asked = document.get("outputs")
    if asked is not None and not isinstance(asked, list):
        raise _wrong('"outputs" is a list of the outputs that are asked for, such as [{"name": "output"}]')
    binary = _flag(parameters, "binary_data_output")
    outputs = tuple(_asked(each, binary) for each in asked) if asked else None
    return Request(inputs, outputs, identity, binary, _timeout(parameters), parameters)


_EXAMPLE = '{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.2, 0.3]}]}'


def json_of(text: bytes | memoryview) -> dict[str, Any]:
    """A JSON object. Raises `Refusal` where the text is none."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        advice = (
            "; a body with binary tensors needs the header Inference-Header-Content-Length"
            if bytes(text[:1]) == b"{"
            else ""
        )
        raise _wrong(f"the body is not JSON: {str(error)[:_MOST_NAMED]}{advice}") from error
    if not isinstance(document, dict):
        raise _wrong(f"the body is a JSON object, not {_shown(document)}")
    return document


class _Rest:
    """The bytes behind the JSON document."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body, self._start = body, start

    def take(self, name: str, size: Any) -> memoryview:
        left = len(self._body) - self._start
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
            raise _wrong(
                f"the input {name} has a binary_data_size of {_shown(size)}, but {left:,} bytes are left in the body; "
                "the header Inference-Header-Content-Length says where they begin"
            )
        part = memoryview(self._body)[self._start : self._start + size]
        self._start += size
        return part

    def check_used(self) -> None:
        left = len(self._body) - self._start
        if left:
            raise _wrong(f"{left:,} bytes of the body belong to no input: give each one its binary_data_size")


def _tensor(given: Any, rest: _Rest) -> Tensor:
    if isinstance(given, dict) and not isinstance(given.get("name"), str):
        raise _wrong(f'the "name" of an input is text, not {_shown(given.get("name"))}')
    if not isinstance(given, dict):
        raise _wrong(
            f'an input is an object with "name", "datatype", "shape" and "data", not {_shown(given)}'
        )
    name, datatype, shape = _shown(given["name"]), given.get("datatype"), given.get("shape")
    if not isinstance(datatype, str) or datatype not in (BYTES, *NUMBERS):
        raise _wrong(
            f"the input {name} has the datatype {_shown(datatype)}; there are {', '.join(NUMBERS)}, {BYTES}"
        )
    sizes = _shape(name, shape)
    parameters = _parameters(given, f"the input {name}")
    if any(key.startswith("shared_memory") for key in parameters):
        raise _wrong(
            f"the input {name} lies in shared memory, which this server does not offer: send its values"
        )
    if "binary_data_size" in parameters:
        if "data" in given:
            raise _wrong(f"the input {name} has both data and binary_data_size: send one of them")
        content = rest.take(name, parameters["binary_data_size"])
        return _from_bytes(given["name"], datatype, sizes, content)
    if "data" not in given:
        raise _wrong(f'the input {name} has no "data", and no binary_data_size among its parameters')
    return _from_json(given["name"], datatype, sizes, given["data"])


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    whole = isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in shape)
    if not whole or len(shape) > _MOST_AXES or any(not 0 <= n < 2**31 for n in shape):
        raise _wrong(
            f"the shape of the input {name} is a list of whole numbers, such as [1, 3], not {_shown(shape)}"
        )
    return tuple(shape)


def _from_bytes(name: str, datatype: str, shape: tuple[int, ...], content: memoryview) -> Tensor:
    count = math.prod(shape)
    if datatype == BYTES:
        return Tensor(name, datatype, shape, elements=_elements(name, content, count))
    dtype = np.dtype(NUMBERS[datatype])
    if len(content) != count * dtype.itemsize:
        raise _wrong(
            f"the input {_shown(name)} of shape {list(shape)} and datatype {datatype} has {count * dtype.itemsize:,} "
            f"bytes, not {len(content):,}"
        )
    if datatype == "BOOL":
        return Tensor(name, datatype, shape, (np.frombuffer(content, np.uint8) != 0).reshape(shape))
    return Tensor(name, datatype, shape, _widened(np.frombuffer(content, dtype), datatype).reshape(shape))


def _widened(values: NDArray[Any], datatype: str) -> NDArray[Any]:
    if datatype != "BF16":
        return values
    return (values.astype(np.uint32) << 16).view(np.float32)


def _elements(name: str, content: memoryview, count: int) -> tuple[bytes, ...]:
    """The elements of BYTES: each is its length, 4 bytes, the lowest first, and then its bytes."""
    found, start = list[bytes](), 0
    while start < len(content) and len(found) <= count:
        end = start + 4 + int.from_bytes(content[start : start + 4], "little")
        if start + 4 > len(content) or end > len(content):
            raise _wrong(
                f"the input {_shown(name)} is cut off: an element is its length in 4 bytes, and its bytes"
            )
        found.append(bytes(content[start + 4 : end]))
        start = end
    if len(found) != count:
        raise _wrong(
            f"the input {_shown(name)} has {count} elements by its shape, and {len(found)} in its bytes"
        )
    return tuple(found)


def _from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
    if datatype == BYTES:
        return Tensor(name, datatype, shape, elements=_texts(name, shape, data))
    if datatype in ("FP16", "BF16"):
        raise _wrong(
            f"the input {_shown(name)} has the datatype {datatype}, which is sent as binary data alone"
        )
    wanted = np.dtype(NUMBERS[datatype])
    flat, sizes = _flattened(name, data)
    values = _numbers(name, datatype, wanted, flat)
    if values.size != math.prod(shape) or (len(sizes) > 1 and sizes != shape):
        has = f"the shape {list(sizes)}" if len(sizes) > 1 else f"{values.size:,} values"
        raise _wrong(f"the input {_shown(name)} has the shape {list(shape)}, but its data has {has}")
    if wanted.kind in "iu" and values.size:
        limits = np.iinfo(wanted)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise _wrong(
                f"the data of the input {_shown(name)} is beyond {datatype}, {limits.min} to {limits.max}"
            )
    with np.errstate(over="ignore"):
        return Tensor(name, datatype, shape, values.astype(wanted).reshape(shape))


def _numbers(name: str, datatype: str, wanted: np.dtype[Any], flat: list[Any]) -> NDArray[Any]:
    """The numbers of a list. `numpy.array` would take text, too, and memory for the longest at each place."""
    try:
        if wanted.kind == "b":
            if not set(map(type, flat)) <= {bool}:
                raise TypeError
            return np.array(flat, bool)
        code = {"f": "d", "i": "q", "u": "Q" if datatype == "UINT64" else "q"}[wanted.kind]
        return np.frombuffer(array(code, flat), code)
    except (TypeError, OverflowError) as error:
        raise _wrong(
            f"the data of the input {_shown(name)} of datatype {datatype} is a list of {_WORDS[wanted.kind]}"
        ) from error


def _flattened(name: str, data: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The elements of a list of lists, in row-major order, and its shape."""
    flat, sizes = data if isinstance(data, list) else [data], list[int]()
    count = 1
    while flat and isinstance(flat[0], list):
        sizes.append(len(flat) // count)
        length = len(flat[0])
        equal = all(isinstance(each, list) and len(each) == length for each in flat)
        if not equal or len(sizes) >= _MOST_AXES:
            raise _wrong(f"the data of the input {_shown(name)} is a list, or equally long lists of numbers")
        count = len(flat)
        flat = list(chain.from_iterable(flat))
    return flat, (*sizes, len(flat) // count)


def _texts(name: str, shape: tuple[int, ...], data: Any) -> tuple[bytes, ...]:
    flat, _ = _flattened(name, data)
    if len(flat) != math.prod(shape):
        raise _wrong(
            f"the input {_shown(name)} has {math.prod(shape)} elements by its shape, and {len(flat)} in its data"
        )
    try:
        return tuple(base64.b64decode(text, validate=True) for text in flat)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _wrong(
            f"the data of the input {_shown(name)} is encoded pictures as base64 text without line breaks; "
            "send raw bytes as binary data"
        ) from error


def _asked(given: Any, binary: bool) -> Asked:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise _wrong(f'an output that is asked for is an object with "name", not {_shown(given)}')
    name, parameters = given["name"], _parameters(given, f"the output {_shown(given['name'])}")
    if any(key.startswith("shared_memory") for key in parameters):
        raise _wrong(
            f"the output {_shown(name)} is asked for in shared memory, which this server does not offer"
        )
    classes = parameters.get("classification", 0)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
        raise _wrong(f"classification is the number of classes that are asked for, not {_shown(classes)}")
    return Asked(name, _flag(parameters, "binary_data") if "binary_data" in parameters else binary, classes)


def _parameters(given: dict[str, Any], whose: str) -> dict[str, Any]:
    parameters = given.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise _wrong(f'the "parameters" of {whose} are an object, not {_shown(parameters)}')
    return parameters


def _check_parameters(parameters: dict[str, Any]) -> None:
    if parameters.get("sequence_id"):
        raise _wrong("the model keeps no state between requests: leave sequence_id out")


def _flag(parameters: dict[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise _wrong(f"{name} is true or false, not {_shown(value)}")
    return value


def _timeout(parameters: dict[str, Any]) -> float | None:
    value = parameters.get("timeout")
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(f"timeout is a whole number of microseconds, not {_shown(value)}")
    return value / 1e6


def packed_bytes(elements: Sequence[bytes]) -> bytes:
    """The elements of BYTES as they are sent."""
    return b"".join(part for each in elements for part in (len(each).to_bytes(4, "little"), each))


def _shown(value: Any) -> str:
    """A value of a request in a message: as in JSON, not long, and on one line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        if len(value) > _MOST_AXES or any(isinstance(each, list | dict) for each in value):
            return "a long list" if len(value) > _MOST_AXES else "a list of lists or objects"
        return f"[{', '.join(map(_shown, value))}]"
    text = " ".join(value.split()) if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _MOST_NAMED else f"{text[:_MOST_NAMED]} ..."


def _wrong(message: str) -> Refusal:
    return Refusal(400, message)
