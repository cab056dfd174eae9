"""The Open Inference Protocol v2 at /v2, with Triton's extensions.

Those are binary tensors, statistics, the model repository, the model configuration and classification; see
https://github.com/kserve/open-inference-protocol and the folder docs/protocol of triton-inference-server/server.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from diptych import __version__
from diptych.engines.batches import processors
from diptych.images import files
from diptych.model.layers import Array
from diptych.options import ServeOptions
from diptych.predictions import classifies
from diptych.preparing import stacked
from diptych.serving.answers import JSON, Answer, Paths, Refusal, json_answer, json_bytes, refusal_of
from diptych.serving.limits import Room, Share, body_of
from diptych.serving.repository import Repository
from diptych.serving.served import IMAGE, INPUT, OUTPUT, Served
from diptych.serving.tensors import BYTES, Asked, Request, Tensor, json_of, packed_bytes, parsed

__all__ = ["Protocol"]

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
)
_HEADER_LENGTH = b"inference-header-content-length"
_BINARY = (b"content-type", b"application/octet-stream")
_ALL = (Asked(OUTPUT),)
_MOST_DOCUMENT = 2**20  # bytes of a body that is no inference
_PICTURE = Path("the picture")  # what messages call one


class Protocol:
    """Answers the requests under /v2.

    Args:
        repository: The models.
        options: Of the server.
        room: Where the bytes of requests are counted.
        reading: Its threads read pictures.
        paths: What is cut from messages.
    """

    def __init__(
        self, repository: Repository, options: ServeOptions, room: Room, reading: Executor, paths: Paths
    ) -> None:
        self._repository, self._options, self._room = repository, options, room
        self._reading, self._paths = reading, paths
        self.ready = False

    async def __call__(self, method: str, path: str, headers: Mapping[bytes, bytes], receive: Any) -> Answer:
        """The answer to a request.

        Args:
            method: Of HTTP.
            path: The whole one, such as /v2/models/scenes/infer.
            headers: Names in lower case.
            receive: Of ASGI.

        Raises:
            Refusal: It cannot be answered.
        """
        parts = path.rstrip("/").split("/")[2:]
        match parts:
            case ["models", name, "infer"]:
                return await self._post(method, partial(self._infer, name, None, headers, receive))
            case ["models", name, "versions", version, "infer"]:
                return await self._post(method, partial(self._infer, name, version, headers, receive))
            case ["repository", "models", name, "load" | "unload" as verb]:
                return await self._post(method, partial(self._change, name, verb, headers, receive))
            case ["repository", "index"]:
                return await self._post(method, partial(self._index, headers, receive))
        answer = self._told(parts)
        if answer is None:
            raise Refusal(
                404, f"there is no {path[:200]} here; the protocol's addresses begin with /v2/models/NAME"
            )
        if method not in ("GET", "HEAD"):
            raise Refusal(405, f"{path[:200]} is asked with GET, not {method}", ((b"allow", b"GET, HEAD"),))
        return answer

    @staticmethod
    async def _post(method: str, work: Any) -> Answer:
        if method != "POST":
            raise Refusal(405, f"this address is asked with POST, not {method}", ((b"allow", b"POST"),))
        answer: Answer = await work()
        return answer

    # ---- What is only told ------------------------------------------------------------------------------------

    def _told(self, parts: list[str]) -> Answer | None:
        match parts:
            case []:
                return json_answer(
                    {"name": "diptych", "version": __version__, "extensions": list(EXTENSIONS)}
                )
            case ["health", "live"]:
                return json_answer({"live": True})
            case ["health", "ready"]:
                return json_answer({"ready": self.ready, "live": True}, 200 if self.ready else 503)
            case ["models", "stats"]:
                return self._statistics(self._repository.all())
            case ["models", name, *rest]:
                return self._of_model(name, rest)
        return None

    def _of_model(self, name: str, rest: list[str]) -> Answer | None:
        version = None
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = rest[1], rest[2:]
        if len(rest) > 1 or rest[:1] not in ([], ["ready"], ["stats"], ["config"]):
            return None
        served = self._repository.find(name, version)
        match rest:
            case ["ready"]:
                return json_answer({"name": name, "ready": True})
            case ["config"]:
                most = self._options.max_batch if served.may_join(served.input_shape) else 0
                return json_answer(served.configuration(most))
            case ["stats"]:
                every = self._repository.all() if version is None else [served]
                return self._statistics([each for each in every if each.name == name])
        return json_answer(served.metadata(self._repository.versions(name)))

    @staticmethod
    def _statistics(models: list[Served]) -> Answer:
        return json_answer({"model_stats": [m.statistics.to_document(m.name, m.version) for m in models]})

    # ---- The repository ---------------------------------------------------------------------------------------

    async def _document(self, headers: Mapping[bytes, bytes], receive: Any) -> dict[str, Any]:
        with self._room.share() as share:
            body = await body_of(receive, headers, share, _MOST_DOCUMENT, self._options.timeout)
            return json_of(body) if body.strip() else {}

    async def _index(self, headers: Mapping[bytes, bytes], receive: Any) -> Answer:
        only_ready = (await self._document(headers, receive)).get("ready", False)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, self._repository.index)
        return json_answer([each for each in found if not only_ready or each["state"] == "READY"])

    async def _change(self, name: str, verb: str, headers: Mapping[bytes, bytes], receive: Any) -> Answer:
        parameters = (await self._document(headers, receive)).get("parameters") or {}
        known = {"unload_dependents"} if verb == "unload" else set()
        unknown = sorted(parameters.keys() - known) if isinstance(parameters, dict) else ["parameters"]
        if unknown:
            raise Refusal(
                400,
                f"{verb} takes no parameter {unknown[0][:80]!r}: a model is read from where the server knows it",
            )
        await (self._repository.load(name) if verb == "load" else self._repository.unload(name))
        return json_answer({})

    # ---- Inference --------------------------------------------------------------------------------------------

    async def _infer(
        self, name: str, version: str | None, headers: Mapping[bytes, bytes], receive: Any
    ) -> Answer:
        began = perf_counter()
        served = self._repository.find(name, version)
        try:
            with self._room.share() as share:
                answer = await self._answered(served, headers, receive, share, began)
        except asyncio.CancelledError:
            served.statistics.failed("CANCELED", perf_counter() - began)
            raise
        except Exception as error:
            known = refusal_of(error, self._paths)
            served.statistics.failed(known.reason if known else "BACKEND", perf_counter() - began)
            raise
        return answer

    async def _answered(
        self, served: Served, headers: Mapping[bytes, bytes], receive: Any, share: Share, began: float
    ) -> Answer:
        options = self._options
        body = await body_of(receive, headers, share, options.max_bytes, options.timeout)
        length = headers.get(_HEADER_LENGTH)
        if length is not None:
            length = length.strip(b" \t").lstrip(b"0") or b"0"
        with served.admitted():
            start = perf_counter()
            request = _raw(served, body) if length == b"0" else parsed(body, length)
            asked = _checked_outputs(served, request)
            limit = min(request.timeout or options.timeout, options.timeout)
            try:
                async with asyncio.timeout(limit - (start - began)):
                    x = await self._batch(served, request, share)
                    read = perf_counter()
                    output, waited, computed = await served.batch(x)
            except TimeoutError as error:
                raise Refusal(
                    504,
                    f"the request was not answered within {_seconds(limit)}; send less, or try again",
                    reason="REJECTED",
                ) from error
            got = perf_counter()
            answer = _written(served, request, asked, output)
            served.statistics.answered(began, read - start, waited, computed, perf_counter() - got)
            return answer

    async def _batch(self, served: Served, request: Request, share: Share) -> Array:
        """What the model is given."""
        (tensor,) = request.inputs if len(request.inputs) == 1 else (None,)
        if tensor is None:
            names = ", ".join(each.name[:80] for each in request.inputs)
            raise Refusal(
                400, f"{served.name} takes one input, {_inputs(served)}, and the request has several: {names}"
            )
        if tensor.name == INPUT and tensor.numbers is not None:
            with np.errstate(over="ignore"):
                x = np.ascontiguousarray(tensor.numbers, np.float32)
            share.take(served.check(x) + (0 if x is tensor.numbers else x.nbytes))
            return x
        if tensor.name == INPUT:
            raise Refusal(
                400, f"the input {INPUT} of {served.name} has numbers, not {BYTES}; {_inputs(served)}"
            )
        if tensor.name != IMAGE:
            raise Refusal(400, f"{served.name} has no input {tensor.name[:80]!r}; it takes {_inputs(served)}")
        if not served.takes_pictures:
            raise Refusal(
                400,
                f"{served.name} carries no recipe, so it takes no encoded pictures: send numbers as the input {INPUT}, "
                "or serve it with --preprocessing",
            )
        return await self._prepared(served, tensor, share)

    async def _prepared(self, served: Served, tensor: Tensor, share: Share) -> Array:
        if tensor.datatype != BYTES:
            raise Refusal(400, f"the input {IMAGE} has encoded pictures, {BYTES}, not {tensor.datatype}")
        if not tensor.elements:
            raise Refusal(400, f"the input {IMAGE} has no pictures; send one or more")
        loop = asyncio.get_running_loop()
        read = partial(read_picture, served, most_pixels=self._options.max_pixels)
        items, size = list[Array](), 0
        for each in tensor.elements:
            items.append(await loop.run_in_executor(self._reading, read, each))
            size += items[-1].nbytes
            if size > largest_item(self._options):
                raise Refusal(
                    413, f"the {len(tensor.elements)} pictures are too many for one request; send fewer"
                )
            share.take(items[-1].nbytes)
        x: Array = stacked(items)
        share.take(served.check(x))
        return x


def largest_item(options: ServeOptions) -> int:
    """The bytes of the largest picture that is taken, in colour, as a model gets it."""
    return 12 * options.max_pixels


def read_picture(served: Served, content: bytes, *, most_pixels: int) -> Array:
    """An encoded picture as the model takes it, (C, H, W), by its recipe."""
    if not content:
        raise Refusal(400, "the picture is empty (0 bytes); send its whole file")
    assert served.model.preprocessing is not None
    pixels, _ = files.decode(_PICTURE, most_pixels, content)
    item: Array = served.model.preprocessing.apply(pixels)
    return item


def reading_threads() -> int:
    """How many pictures are read at once."""
    return max(1, processors())


def _inputs(served: Served) -> str:
    numbers = f"{INPUT}, numbers of the shape {served.takes}"
    return f"{numbers}, or {IMAGE}, encoded pictures as BYTES" if served.takes_pictures else numbers


def _raw(served: Served, body: bytes) -> Request:
    """A body without a document: a picture where the model has a recipe, else the numbers of one sample."""
    if served.takes_pictures:
        return Request((Tensor(IMAGE, BYTES, (1,), elements=(body,)),))
    shape = (1, *served.input_shape)
    if -1 in shape:
        raise Refusal(
            400,
            f"a body without a document is for a model of one size, and {served.name} takes {served.takes}",
        )
    size = 4 * math.prod(shape)
    if len(body) != size:
        raise Refusal(
            400,
            f"a body without a document is one sample, {list(shape)} as FP32, {size:,} bytes, not {len(body):,}",
        )
    return Request((Tensor(INPUT, "FP32", shape, np.frombuffer(body, "<f4").reshape(shape)),))


def _checked_outputs(served: Served, request: Request) -> tuple[Asked, ...]:
    if request.outputs is None:
        return (Asked(OUTPUT, request.binary),) if request.binary else _ALL
    unknown = next((each.name for each in request.outputs if each.name != OUTPUT), None)
    if unknown is not None:
        raise Refusal(400, f"{served.name} has no output {unknown[:80]!r}; it gives {OUTPUT}")
    if len(request.outputs) > 1:
        raise Refusal(400, f"the output {OUTPUT} is asked for {len(request.outputs)} times; ask once")
    return request.outputs


def _written(served: Served, request: Request, asked: tuple[Asked, ...], output: Array) -> Answer:
    """The response, in JSON or with binary tensors behind it."""
    described, parts = [], []
    for each in asked:
        entry: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(output.shape)}
        if each.classes:
            elements = _classified(served, output, each.classes)
            entry |= {"datatype": BYTES, "shape": [len(output), len(elements) // len(output)]}
            content = (
                packed_bytes([text.encode(errors="backslashreplace") for text in elements])
                if each.binary
                else b""
            )
            values: list[Any] = elements
        else:
            content = output.tobytes() if each.binary else b""
            values = [] if each.binary else _finite(served, output).ravel().tolist()
        if each.binary:
            entry["parameters"] = {"binary_data_size": len(content)}
            parts.append(content)
        else:
            entry["data"] = values
        described.append(entry)
    document = {"model_name": served.name, "model_version": served.version, "outputs": described}
    if request.id is not None:
        document["id"] = request.id
    text = json_bytes(document)
    if not any(each.binary for each in asked):
        return Answer(200, text, (JSON,))
    return Answer(200, b"".join([text, *parts]), (_BINARY, (_HEADER_LENGTH, str(len(text)).encode())))


def _seconds(limit: float) -> str:
    return f"{limit:g} s" if limit >= 0.001 else f"{limit * 1e6:g} microseconds"


def _finite(served: Served, output: Array) -> Array:
    if not np.isfinite(output).all():
        raise Refusal(
            400,
            f"{served.name} gives NaN or infinite values for this input, which JSON cannot hold: a layer overflows; "
            "ask for binary data to see them",
            reason="BACKEND",
        )
    return output


def _classified(served: Served, output: Array, most: int) -> list[str]:
    """The largest values of each sample, as Triton words them: "0.53:3:coast"."""
    classes = served.model.classes
    if not classifies(output.shape[1:], served.model):
        raise Refusal(
            400,
            f"{served.name} gives {list(output.shape[1:])} for a sample, which is not one value for a class",
        )
    flat = output.reshape(len(output), -1)
    orders = np.argsort(-flat, axis=1, kind="stable")[:, :most]
    return [
        f"{row[i]:f}:{i}{'' if classes is None else f':{classes[i]}'}"
        for row, order in zip(flat, orders, strict=True)
        for i in order
    ]
