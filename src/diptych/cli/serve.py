"""The command `serve`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from diptych.cli.parameters import (
    MODEL_HELP,
    Architecture,
    Device,
    Engine,
    Key,
    Output,
    Quiet,
    Recipe,
    WrittenBy,
)
from diptych.options import ReadOptions, ServeOptions

__all__ = ["serve"]


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"{MODEL_HELP} NAME=MODEL names it; a folder has NAME.onnx or NAME/VERSION/FILE. Default: scenes.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; one that others reach needs a token.")
    ] = ServeOptions.host,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for a free one.")
    ] = ServeOptions.port,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="DIPTYCH_TOKEN",
            show_default=False,
            help="The bearer token that requests must have; by the variable, no list of processes shows it.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin", help="A site whose pages may ask, such as https://example.org; repeatable."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="A further name of this server, as behind a proxy; repeatable."),
    ] = None,
    allow_uploads: Annotated[
        bool,
        typer.Option("--allow-uploads", help="Let visitors send model files, to convert or compare them."),
    ] = False,
    max_batch: Annotated[
        int, typer.Option("--max-batch", min=1, help="The most samples that are computed together.")
    ] = ServeOptions.max_batch,
    max_delay: Annotated[
        float, typer.Option("--max-delay", min=0, help="Milliseconds that a batch waits to be filled.")
    ] = ServeOptions.max_delay,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, help="The most requests that wait for a model; more get 503.")
    ] = ServeOptions.max_queue,
    max_bytes: Annotated[
        int, typer.Option("--max-bytes", min=1024, help="The most bytes of a request.")
    ] = ServeOptions.max_bytes,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, help="The most pixels of a picture.")
    ] = ServeOptions.max_pixels,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a request may take.")
    ] = ServeOptions.timeout,
    engine: Engine = "auto",
    device: Device = "auto",
    architecture: Architecture = None,
    written_by: WrittenBy = None,
    key: Key = None,
    output: Output = None,
    preprocessing: Recipe = None,
    quiet: Quiet = False,
) -> None:
    """Answer requests for models over HTTP, by the Open Inference Protocol v2 and by the verbs of Diptych.

    SIGTERM and Ctrl-C end it once what was begun is answered. The log is JSON lines on standard error.
    """
    from diptych.extras import imported

    running = imported("diptych.serving.running")
    reading = ReadOptions(architecture, written_by, key, output=output)
    options = ServeOptions(
        host=host, port=port, token=token or None,
        allow_origins=tuple(allow_origin or ()), allow_hosts=tuple(allow_host or ()), allow_uploads=allow_uploads,
        max_batch=max_batch, max_delay=max_delay, max_queue=max_queue,
        max_bytes=max_bytes, max_pixels=max_pixels, timeout=timeout,
        engine=engine, device=device, reading=reading, preprocessing=preprocessing,
    )  # fmt: skip
    log = running.Log(requests=not quiet)
    ended = running.serve(
        models or [],
        options,
        log,
        None if quiet else lambda address: print(f"serving at {address}", flush=True),
    )
    if not ended:
        os._exit(0)  # Python would wait for work that nobody waits for
