"""How long work is answered: when it is done, or as server-sent events."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from diptych.serving.answers import json_bytes, refusal_of
from diptych.serving.jobs import Job, Work, watched

__all__ = ["EVENTS", "answered"]

EVENTS = "text/event-stream"


async def answered(request: Request, work: Work) -> Response:
    """The result of long work, or its events where the client asks for them.

    Args:
        request: The request, whose body is read.
        work: What is to be done.
    """
    application = request.app.state.application
    job = application.jobs.start(work)
    if EVENTS in request.headers.get("accept", ""):
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(_events(application, job), media_type=EVENTS, headers=headers)
    leaving = asyncio.create_task(_left(request))
    leaving.add_done_callback(lambda _: job.cancel())
    try:
        result = await job.future
    finally:
        leaving.cancel()
    return Response(result.content, media_type=result.kind, headers=dict(result.headers))


async def _left(request: Request) -> None:
    """Returns once the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(application: Any, job: Job) -> AsyncIterator[bytes]:
    """Progress, and at the end the result or the error, as server-sent events."""
    try:
        async for name, document in watched(job):
            yield _event(name, json_bytes(document)) if name else b": still at work\n\n"
        try:
            result = await job.future
        except Exception as error:
            refusal = refusal_of(error, application.paths) or application.fault(error, "POST", "events")
            yield _event("error", json_bytes({"error": refusal.message, "status": refusal.status}))
            return
        if result.kind == "application/json":
            yield _event("result", result.content)
        else:
            content = base64.b64encode(result.content).decode()
            yield _event(
                "result", json_bytes({"type": result.kind, "base64": content, **dict(result.headers)})
            )
    finally:
        job.cancel()  # the client hung up, or it is done


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
