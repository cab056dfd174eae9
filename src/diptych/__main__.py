"""The command `diptych`: runs the command line, and turns every failure into a sentence and an exit status."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

_WRONG_USAGE = 2
_INTERRUPTED = 130  # what a shell reports for Ctrl-C
_OUT_OF_MEMORY = (
    "there is not enough memory for this; end other programs, raise the limit of memory if there is one "
    "(ulimit -v), or try smaller or fewer pictures"
)
_NO_THREAD = (
    "the system lets this command start no further thread; end other programs, or raise the limits of memory and of "
    "processes (ulimit -v and ulimit -u)"
)
_interrupts: list[int] = []  # the signals that have come
_REPORT_TO = "https://github.com/diptych/diptych/issues"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted, 143 terminated.

    With the environment variable DIPTYCH_DEBUG=1 the traceback of an error is shown above its sentence, and
    what native libraries print is shown too.
    """
    if arguments is None:  # the command itself, not a program that calls this function
        arguments = sys.argv[1:]
        for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, _ended)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
        _prepare_streams()
    status = _run(arguments)
    try:
        sys.stderr.flush()
    except OSError:  # a full disk; Python would flush it again at its end, and exit with 120
        sys.stderr = _nowhere()
    sys.exit(status)


def _interrupt(number: int, frame: object) -> NoReturn:
    """Raises `KeyboardInterrupt`, and notes it: a library that is being imported makes another error of it."""
    _interrupts.append(number)
    raise KeyboardInterrupt


def _ended(number: int, frame: object) -> NoReturn:
    """Unwinds the stack, so that half-written files are removed."""
    sys.exit(128 + number)


def _prepare_streams() -> None:
    """Keeps the lines of native libraries off stderr, and lets every character be printed on it."""
    closed = sys.stderr is None
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if _debugging() or closed:
        return
    _load_linear_algebra()
    own = os.dup(2)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    sys.stderr = open(  # noqa: SIM115, PTH123 - lives as long as the process
        own, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1
    )


def _load_linear_algebra() -> None:
    """Loads NumPy while its OpenBLAS can still be heard: where memory is short, that ends the process itself."""
    with suppress(ImportError, MemoryError):  # both are told where NumPy is used
        import resource

        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            import numpy  # noqa: F401


def _nowhere() -> TextIO:
    """A stream in place of one that was closed, as by `>&-`."""
    return open(os.devnull, "w")  # noqa: PTH123 - lives as long as the process


def _debugging() -> bool:
    return os.environ.get("DIPTYCH_DEBUG", "") not in {"", "0"}


def _run(arguments: list[str]) -> int:
    try:
        return _exit_status(arguments)
    except KeyboardInterrupt:
        return _interrupted(arguments)


def _exit_status(arguments: list[str]) -> int:
    """Runs the command, and shows an error as one sentence, and as JSON with `--json`."""
    try:
        from diptych.cli import app
        from diptych.cli.terminal import Terminal
        from diptych.guesses import collected

        with collected() as guessed:
            status = app(args=arguments, prog_name="diptych", standalone_mode=False)
        Terminal.show_left(guessed)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whatever read our output has ended (`diptych ... | head`): stop silently.
        sys.stderr.close()
        return 1
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # native libraries have errors that are no `Exception`
        if _interrupts:
            return _interrupted(arguments)
        return _failed(error, arguments)
    return _interrupted(arguments) if status == _INTERRUPTED else status or 0


def _failed(error: BaseException, arguments: list[str]) -> int:
    """Shows an exception, also where little memory is left; returns the exit status."""
    try:
        return _shown(error, arguments)
    except (MemoryError, ImportError):  # there is too little for what words errors
        sys.stderr.write(f"diptych: {_OUT_OF_MEMORY}\n")
        return 1


def _shown(error: BaseException, arguments: list[str]) -> int:
    """Shows an exception as a sentence on stderr, and as a document with `--json`; returns the exit status."""
    import typer

    from diptych.cli.terminal import json_text
    from diptych.files import escaped

    if isinstance(error, typer.Abort):  # what the command line library makes of an EOFError
        error = error.__cause__ or error
    if isinstance(error, typer.TyperException):
        kind, status, message, said = "UsageError", _WRONG_USAGE, *_wrong_usage(error)
    else:
        kind, status, message = _explained(error)
        said = f"diptych: {message}\n"
    with suppress(OSError):  # where stderr is a file on a full disk
        if _debugging():
            traceback.print_exception(error)
        sys.stderr.write(escaped(said))
    if "--json" in arguments:
        print(json_text({"error": message, "kind": kind}))
    return status


def _explained(error: BaseException) -> tuple[str, int, str]:
    """The kind of an error, the exit status, and the sentence for it."""
    from diptych.errors import DiptychError, UsageError, out_of_memory, reason

    kind = type(error).__name__
    status = _WRONG_USAGE if isinstance(error, UsageError) else 1
    if out_of_memory(error) and not (isinstance(error, DiptychError) and "memory" in str(error)):
        return MemoryError.__name__, 1, _OUT_OF_MEMORY
    if isinstance(error, DiptychError):
        return kind, status, str(error)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return kind, status, _NO_THREAD
    if isinstance(error, OSError) and error.filename is not None:
        return kind, status, f"cannot read or write {os.fsdecode(error.filename)}: {reason(error)}"
    if isinstance(error, OSError):  # files have names, and errors of their own: this is standard output
        sys.stdout = _nowhere()  # Python would flush the old one again at its end
        return kind, status, f"cannot write the result to standard output: {reason(error)}"
    message = (
        f"an unexpected error, {kind}: {reason(error)}. This is a fault of Diptych: please report it at "
        f"{_REPORT_TO} with the command and what it prints with DIPTYCH_DEBUG=1"
    )
    return kind, status, message


def _wrong_usage(error: Any) -> tuple[str, str]:
    """The message of the command line library, and all that it shows, with the command's usage."""
    said = io.StringIO()
    error.show(file=said)
    message = str(error.format_message())
    return "no command was given" if message.startswith("Usage:") else message, said.getvalue()


def _interrupted(arguments: list[str]) -> int:
    learning = arguments[:2] == ["filter", "learn"]
    checkpoint = _checkpoint(arguments) if learning else None
    if (
        arguments[:1] in (["run"], ["generate"], ["preprocess"], ["train"])
        or _writes_table(arguments)
        or (checkpoint and Path(checkpoint).is_file())
    ):
        told = "the same command continues where this one stopped"
    elif arguments[:1] == ["serve"]:
        told = "the server had not started"
    elif checkpoint:
        told = "nothing was kept, because training had not begun or was not evaluated; the same command starts again"
    elif learning:
        told = "nothing was kept; with --checkpoint FILE the same command continues where it stopped"
    else:
        told = "finished files are kept; the same command starts again"
    print(f"diptych: interrupted; {told}", file=sys.stderr)
    return _INTERRUPTED


def _writes_table(arguments: list[str]) -> bool:
    """Whether the command writes a table, in parts that stay."""
    options = {argument.partition("=")[0] for argument in arguments}
    return "--table" in options or (
        arguments[:1] in (["predict"], ["features"]) and bool(options & {"--out", "-o"})
    )


def _checkpoint(arguments: list[str]) -> str | None:
    """The file of --checkpoint FILE or --checkpoint=FILE."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = argument.partition("=")
        if option == "--checkpoint":
            return value if equals else following
    return None


if __name__ == "__main__":
    main()
