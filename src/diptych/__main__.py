"""The command `diptych`: runs the command line, and turns every failure into a sentence and an exit status."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

_WRONG_USAGE = 2
_INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted, 143 terminated."""
    if arguments is None:  # the command itself, not a program that calls this function
        for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, _ended)
    for stream in (sys.stdout, sys.stderr):  # what the terminal has no characters for is escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _ended(number: int, frame: object) -> NoReturn:
    """Unwinds the stack, so that half-written files are removed."""
    sys.exit(128 + number)


def _run(arguments: list[str]) -> int:
    try:
        return _exit_status(arguments)
    except KeyboardInterrupt:
        return _interrupted(arguments)


def _exit_status(arguments: list[str]) -> int:
    """Runs the command, and shows an error as one sentence, and as JSON with `--json`."""
    from diptych.cli import app
    from diptych.errors import DiptychError, UsageError

    try:
        app(args=arguments, prog_name="diptych")
        sys.stdout.flush()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if status == _INTERRUPTED:
            return _interrupted(arguments)
        if status == _WRONG_USAGE and "--json" in arguments:
            print(json.dumps({"error": "wrong usage: see standard error", "kind": "UsageError"}))
        return status
    except UsageError as error:
        return _fail(error, 2, arguments)
    except DiptychError as error:
        return _fail(error, 1, arguments)
    except MemoryError:
        return _fail(
            MemoryError("there is not enough memory for this; try smaller or fewer pictures"), 1, arguments
        )
    except BrokenPipeError:
        # Whatever read our output has ended (`diptych ... | head`): stop silently.
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.filename is not None:
            what = f"cannot read {error.filename}: {error.strerror}; check its name and permissions"
            return _fail(OSError(what), 1, arguments)
        # Files that Diptych writes have errors of their own: this is standard output.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives as long as the process
        return _fail(OSError(f"cannot write the result: {error.strerror or error}"), 1, [])
    return 0


def _interrupted(arguments: list[str]) -> int:
    learning = arguments[:2] == ["filter", "learn"]
    checkpoint = _checkpoint(arguments) if learning else None
    if arguments[:1] in (["run"], ["generate"], ["preprocess"]) or (
        checkpoint and Path(checkpoint).is_file()
    ):
        told = "the same command continues where this one stopped"
    elif checkpoint:
        told = "nothing was kept, because training had not begun or was not evaluated; the same command starts again"
    elif learning:
        told = "nothing was kept; with --checkpoint FILE the same command continues where it stopped"
    else:
        told = "finished files are kept; the same command starts again"
    print(f"diptych: interrupted; {told}", file=sys.stderr)
    return _INTERRUPTED


def _checkpoint(arguments: list[str]) -> str | None:
    """The file of --checkpoint FILE or --checkpoint=FILE."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = argument.partition("=")
        if option == "--checkpoint":
            return value if equals else following
    return None


def _fail(error: Exception, status: int, arguments: list[str]) -> int:
    from diptych.files import printable

    said = printable(str(error))
    print(f"diptych: {said}", file=sys.stderr)
    if "--json" in arguments:
        print(json.dumps({"error": said, "kind": type(error).__name__}, ensure_ascii=False))
    return status


if __name__ == "__main__":
    main()
