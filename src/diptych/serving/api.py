"""The verbs of Diptych at /api. Each route is a call of the function of the same name.

Pictures and model files are the bodies of requests, as they are. Long work answers when it is done; where a client
accepts text/event-stream, it tells its progress in events, and its id, by which it can be cancelled.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from diptych import __version__
from diptych.files import encoded, npy
from diptych.images import files
from diptych.images.picture import Picture
from diptych.loading import load
from diptych.options import ExplainMethod, ScaleRule
from diptych.predicting import trace
from diptych.predictions import Predictions, classifies
from diptych.progress import Progress
from diptych.serving.answering import EVENTS, answered
from diptych.serving.answers import TEMPORARY, Refusal, refusal_of
from diptych.serving.documents import About, Classified, Document, Failed, JobReport, ModelFacts
from diptych.serving.jobs import Result
from diptych.serving.limits import body_of
from diptych.serving.pages import documentation, style
from diptych.serving.served import Served

if TYPE_CHECKING:
    from diptych.serving.application import Application

__all__ = ["make_api"]

_PICTURE = Path("the picture")  # what messages call one
_NPY = "application/x-npy"
_MOST_HEADER = 4000  # characters
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,12}")
_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}
        },
    }
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": Failed, "description": what}
    for status, what in {
        400: "The request, the picture or the model is not as it must be.",
        401: "The token is missing or wrong.",
        403: "This is not allowed here.",
        404: "There is no such model, layer or work.",
        408: "The body did not arrive in time.",
        409: "The work was cancelled.",
        413: "The body, or the picture in it, is too large.",
        415: "The body is packed in a way that is not known.",
        503: "Too much waits already; the header Retry-After says when to ask again.",
        504: "It took too long.",
    }.items()
}

router = APIRouter(prefix="/api", responses=_REFUSED)


# ---- What a request brings ------------------------------------------------------------------------------------


def _application(request: Request) -> Application:
    found: Application = request.app.state.application
    return found


Server = Annotated[Any, Depends(_application)]


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The body, counted as long as the request lasts."""
    application, headers = _application(request), dict(request.headers.raw)
    options = application.options
    with application.room.share() as share:
        yield await body_of(request.receive, headers, share, options.max_bytes, options.timeout)


Body = Annotated[bytes, Depends(_body)]


def _model(
    request: Request,
    name: Annotated[str, InPath(max_length=200, description="Of a model that is served.")],
    version: Annotated[
        str | None, Query(max_length=20, description="Its version; default: the highest.")
    ] = None,
) -> Served:
    found: Served = _application(request).repository.find(name, version)
    return found


Model = Annotated[Any, Depends(_model)]
Layer = Annotated[str, Query(max_length=200, description='The path of a layer, such as "0" or "3.1".')]
Identity = Annotated[str, InPath(max_length=80, description="Of long work, from the event started.")]
Other = Annotated[
    str,
    Query(
        alias="with", max_length=200, description="The name of a model that is served.", examples=["scenes"]
    ),
]
FileName = Annotated[
    str,
    Query(
        max_length=200,
        description="What the file is called; its ending tells the format.",
        examples=["mine.bson"],
    ),
]


def _decoded(content: bytes, application: Any) -> tuple[Any, tuple[str, ...]]:
    if not content:
        raise Refusal(400, "the picture is empty (0 bytes): the body of the request is the whole file")
    return files.decode(_PICTURE, application.options.max_pixels, content)


def _picture(content: bytes, application: Any, model: Served) -> Picture:
    _check_recipe(model)
    pixels, remarks = _decoded(content, application)
    return Picture(np.asarray(pixels), "picture", remarks)


def _check_recipe(model: Served) -> None:
    if not model.takes_pictures:
        raise Refusal(
            400, f"{model.name} carries no recipe, so it takes no pictures; whoever serves it can give it one with "
            "--preprocessing"
        )  # fmt: skip


@contextmanager
def _stored(application: Any, content: bytes, name: str) -> Iterator[Path]:
    """A model file that a visitor has sent, as long as the block lasts."""
    if not application.options.allow_uploads:
        raise Refusal(
            403, "this server takes no model files; whoever runs it can allow that with --allow-uploads"
        )
    suffix = Path(name).suffix.lower()
    if not _SUFFIX.fullmatch(suffix):
        raise Refusal(400, "the name of a model file ends in its format, such as mine.bson or mine.onnx")
    if not content:
        raise Refusal(400, "the model file is empty (0 bytes): the body of the request is the whole file")
    with TemporaryDirectory(prefix=TEMPORARY) as folder:
        path = Path(folder, f"model{suffix}")
        path.write_bytes(content)
        yield path


def _named(path: Path, name: str) -> Any:
    """The model in a file that a visitor has sent, which is not to be called by the path that it has here."""
    model = load(path)
    return model if model.name else model.with_(name=_NOT_IN_NAMES.sub("-", Path(name).stem)[:80])


def _header(remarks: list[str]) -> str:
    """Remarks as a JSON list that a header can hold."""
    text = json.dumps(remarks)
    while len(text) > _MOST_HEADER:
        remarks = [*remarks[:-2], "further remarks do not fit here"]
        text = json.dumps(remarks)
    return text


# ---- The routes ---------------------------------------------------------------------------------------------------


def _also(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """What a route with long work may answer with."""
    content = {
        kind: {"schema": {"type": "string", "format": "binary"}}
        for kind in kinds
        if kind != "application/json"
    }
    document = {"application/json": {"schema": {"type": "object"}}} if "application/json" in kinds else {}
    events = {EVENTS: {"schema": {"type": "string", "description": "started, progress, and result or error"}}}
    return {200: {"description": "The result.", "content": {**document, **content, **events}}}


@router.get("")
async def about(server: Server) -> About:
    """The server: its version, models and limits."""
    options = server.options
    models = [ModelFacts(**each.facts()) for each in server.repository.all()]
    return About(
        version=__version__, models=models, uploads=options.allow_uploads, max_bytes=options.max_bytes,
        max_pixels=options.max_pixels,
    )  # fmt: skip


@router.get("/models")
async def models(server: Server) -> list[ModelFacts]:
    """Every version of every model that is ready."""
    return [ModelFacts(**each.facts()) for each in server.repository.all()]


@router.get("/models/{name}")
async def inspect(model: Model) -> Document:
    """The layers of a model, with their sizes: what `diptych inspect --json` prints."""
    from diptych.inspecting import inspect as inspected

    summary = await asyncio.get_running_loop().run_in_executor(None, inspected, model.model)
    return summary.to_document()


@router.post("/models/{name}/predict", openapi_extra=_FILE)
async def predict(server: Server, model: Model, body: Body) -> Classified:
    """What a classifier says of a picture: what `diptych predict --json` prints."""
    _check_recipe(model)
    loop = asyncio.get_running_loop()

    def prepare() -> tuple[Any, tuple[str, ...]]:
        pixels, remarks = _decoded(body, server)
        return model.model.preprocessing.apply(pixels)[np.newaxis], remarks

    with model.admitted(), server.room.share() as share:
        began = perf_counter()
        async with asyncio.timeout(server.options.timeout):
            x, remarks = await loop.run_in_executor(server.reading, prepare)
            read = perf_counter()
            share.take(x.nbytes + model.check(x))
            output, waited, computed = await model.batch(x)
            model.statistics.answered(began, read - began, waited, computed, 0.0)
    if not classifies(output.shape[1:], model.model):
        raise Refusal(
            400,
            f"{model.name} gives {list(output.shape[1:])} for a picture, which is not one value for each class; "
            f"/v2/models/{model.name}/infer gives all values",
        )
    document = Predictions.of(model.model, output, ["picture"]).to_document()
    return Classified(**document, remarks=list(remarks))


@router.post(
    "/models/{name}/features",
    openapi_extra=_FILE,
    response_class=Response,
    responses=_also("image/png", _NPY),
)
async def features(
    request: Request,
    server: Server,
    model: Model,
    body: Body,
    layer: Layer,
    scale: Annotated[
        ScaleRule, Query(description="One scale of colours for each map, or one for all.")
    ] = "per-map",
    form: Annotated[Literal["png", "npy"], Query(alias="format")] = "png",
) -> Response:
    """The output of a layer for a picture, drawn, or as numbers (N, ...) in a .npy file."""

    def work(progress: Progress) -> Result:
        from diptych.report.features import chosen_layers
        from diptych.report.features import features as drawn

        picture = _picture(body, server, model)
        known = chosen_layers(model.model, "all")
        if layer not in known:
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise Refusal(404, f"{model.name} has no layer {layer!r}; name one of {shown}")
        options = {"engine": server.options.engine, "device": server.options.device}
        if form == "npy":
            return Result(npy(trace(model.model, picture, **options)[layer]), _NPY)
        with TemporaryDirectory(prefix="diptych-") as folder:
            (path,) = drawn(
                model.model, picture, out=folder, layers=layer, scale=scale, progress=progress, **options
            )
            return Result(path.read_bytes(), "image/png")

    return await answered(request, work)


@router.post(
    "/models/{name}/explain",
    openapi_extra=_FILE,
    response_class=Response,
    responses=_also("application/json", "image/png", _NPY),
)
async def explain(
    request: Request,
    server: Server,
    model: Model,
    body: Body,
    method: Annotated[ExplainMethod, Query(description="How it is found out.")] = "occlusion",
    target: Annotated[str | None, Query(max_length=200, description="A class, by name or number.")] = None,
    layer: Annotated[str | None, Query(max_length=200, description="For grad-cam.")] = None,
    patch: Annotated[
        int | None, Query(ge=1, le=4096, description="For occlusion: the covered square's side.")
    ] = None,
    form: Annotated[Literal["json", "png", "npy"], Query(alias="format")] = "json",
) -> Response:
    """Which parts of a picture an answer stands on: facts, the map over the picture, or the map as numbers."""

    def work(progress: Progress) -> Result:
        from PIL import Image

        from diptych.explaining import explain as explained
        from diptych.report.explanation import overlay_picture

        found = explained(
            model.model, _picture(body, server, model), method=method, target=target, layer=layer, patch=patch,
            engine=server.options.engine, device=server.options.device, progress=progress,
        )  # fmt: skip
        if form == "npy":
            return Result(npy(found.heat), _NPY)
        if form == "png":
            return Result(encoded(Image.fromarray(overlay_picture(found)), format="PNG"), "image/png")
        return Result.of({**found.to_document(), "remarks": list(found.remarks)})

    return await answered(request, work)


@router.post("/inspect", openapi_extra=_FILE, response_class=Response, responses=_also("application/json"))
async def inspect_file(request: Request, server: Server, body: Body, name: FileName) -> Response:
    """The layers of a model file that is sent."""

    def work(progress: Progress) -> Result:
        from diptych.inspecting import inspect as inspected

        with _stored(server, body, name) as path:
            return Result.of(inspected(_named(path, name)).to_document())

    return await answered(request, work)


@router.post(
    "/convert", openapi_extra=_FILE, response_class=Response, responses=_also("application/octet-stream")
)
async def convert(
    request: Request,
    server: Server,
    body: Body,
    name: FileName,
    to: Literal["safetensors", "onnx", "pt", "bson", "jld2"],
) -> Response:
    """A model file that is sent, in another format. The header Diptych-Remarks has a JSON list of remarks."""

    def work(progress: Progress) -> Result:
        from diptych.converting import convert as converted

        with _stored(server, body, name) as path:
            done = converted(path, path.parent / f"converted.{to}")
            content = done.paths[0].read_bytes()
        headers = (
            ("Content-Disposition", f'attachment; filename="model.{to}"'),
            ("Diptych-Remarks", _header([server.paths.hidden(each) for each in done.remarks])),
        )
        return Result(content, "application/octet-stream", headers)

    return await answered(request, work)


@router.post("/compare", openapi_extra=_FILE, response_class=Response, responses=_also("application/json"))
async def compare_file(
    request: Request,
    server: Server,
    body: Body,
    name: FileName,
    other: Other,
) -> Response:
    """A model file that is sent, compared with a model that is served: what `diptych compare --json` prints."""
    served = server.repository.find(other)

    def work(progress: Progress) -> Result:
        from diptych.comparing import compare as compared

        with _stored(server, body, name) as path:
            return Result.of(compared(_named(path, name), served.model).to_document())

    return await answered(request, work)


@router.post(
    "/models/{name}/compare",
    openapi_extra=_FILE,
    response_class=Response,
    responses=_also("application/json"),
)
async def compare(
    request: Request,
    server: Server,
    model: Model,
    body: Body,
    other: Other,
) -> Response:
    """Two models on one picture, layer by layer: what `diptych compare --json` prints."""
    served = server.repository.find(other)

    def work(progress: Progress) -> Result:
        from diptych.comparing import compare as compared

        picture = _picture(body, server, model)
        return Result.of(compared(model.model, served.model, [picture]).to_document())

    return await answered(request, work)


@router.get("/jobs/{identity}")
async def job(server: Server, identity: Identity) -> JobReport:
    """How far long work has come."""
    return JobReport(**server.jobs.find(identity).report())


@router.delete("/jobs/{identity}", status_code=204, response_model=None)
async def cancel(server: Server, identity: Identity) -> None:
    """Cancels long work: at its next step, and at once where it still waits."""
    server.jobs.find(identity).cancel()


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The description for people."""
    return documentation(request.app.openapi())


@router.get("/docs.css", include_in_schema=False)
async def docs_style() -> Response:
    """How the description looks."""
    return Response(style(), media_type="text/css")


# ---- The application ------------------------------------------------------------------------------------------------


def make_api(application: Application) -> FastAPI:
    """The routes under /api as an ASGI application."""
    app = FastAPI(
        title="Diptych",
        version=__version__,
        summary="The verbs of Diptych, for the models of this server.",
        description=(__doc__ or "").partition("\n\n")[2].strip(),
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.application = application
    app.include_router(router)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(Exception, partial(_failed, application))
    app.openapi = partial(_description, app, app.openapi)  # type: ignore[method-assign]
    return app


def _description(app: FastAPI, made: Any) -> dict[str, Any]:
    """The description in OpenAPI; a request that does not fit it gets 400, not FastAPI's 422."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document: dict[str, Any] = made()
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    if application_token(app):
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def application_token(app: FastAPI) -> bool:
    """Whether requests need a token."""
    return app.state.application.options.token is not None


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = first["loc"][-1] if first["loc"] else "request"
    return _error(400, f"{str(where)[:80]}: {first['msg'][:300]}; /api/docs says what is expected")


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code != 405:
        return _error(error.status_code, f"there is nothing at {path!r}; /api/docs lists the addresses")
    routes = [route for route in router.routes if route.matches(request.scope)[0] != Match.NONE]
    verbs = sorted({verb for route in routes for verb in getattr(route, "methods", ())})
    return _error(
        405, f"{path} is asked with {' or '.join(verbs)}, not {request.method}", {"allow": ", ".join(verbs)}
    )


async def _failed(application: Application, request: Request, error: Exception) -> Response:
    known = refusal_of(error, application.paths)
    if known is None and isinstance(error, TimeoutError):
        known = Refusal(504, f"the request was not answered within {application.options.timeout:g} s")
    if known is None:
        known = application.fault(error, request.method, request.url.path)
    return _error(known.status, known.message, {k.decode(): v.decode() for k, v in known.headers})
