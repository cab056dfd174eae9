"""A Julia process that answers requests, one line each. It is started once, and ended when Python ends.

Julia is the command in DIPTYCH_JULIA, otherwise `julia` on the PATH, otherwise the one that juliapkg installs.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import shlex
import shutil
import subprocess
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from diptych.errors import ModelError, UsageError, install_command

__all__ = ["JuliaProcess", "julia_command", "process"]

START_LIMIT = 600.0  # seconds; the first `import Flux` of an installation compiles it
_INSTALL = (
    "the engine flux needs Julia with Flux: set DIPTYCH_JULIA to a command that runs one, put julia on the PATH, "
    "or install it with: "
)


def julia_command() -> list[str]:
    """The command that runs Julia, as a list of words to which a script and its arguments are appended.

    Raises:
        UsageError: Julia is not found, or DIPTYCH_JULIA is not a command.
    """
    given = os.environ.get("DIPTYCH_JULIA", "").strip()
    if given:
        try:
            words = shlex.split(given)
        except ValueError as error:
            raise UsageError(
                f"DIPTYCH_JULIA is not a command that a shell could split into words: {error}"
            ) from error
        if shutil.which(words[0]) is None:
            raise UsageError(f"DIPTYCH_JULIA names {words[0]!r}, which cannot be run; check the path")
        return words
    found = shutil.which("julia")
    if found is not None:
        return [found]
    try:
        return _from_juliapkg(import_module("juliapkg"))
    except ImportError:
        raise UsageError(f"{_INSTALL}{install_command('julia')}") from None


def _from_juliapkg(juliapkg: Any) -> list[str]:
    """The command for Julia and a project with Flux, which juliapkg downloads on first use."""
    try:
        juliapkg.add("Flux", "587475ba-b771-5e3f-ad9e-33799f191a9c", version="0.16")
        juliapkg.resolve()
        return [str(juliapkg.executable()), f"--project={juliapkg.project()}"]
    except Exception as error:  # juliapkg may raise anything, for example without network
        raise UsageError(f"juliapkg could not install Julia and Flux: {_one_line(str(error))}") from error


class JuliaProcess:
    """A running Julia server, which handles one request at a time.

    Args:
        command: As `julia_command` gives it.

    Attributes:
        julia_version, flux_version: Such as "1.12.0" and "0.16.9".

    Raises:
        UsageError: The command cannot be started.
        ModelError: Julia ends, or does not load Flux in time.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        script = Path(__file__).with_name("flux_server.jl")
        try:
            self._process = subprocess.Popen(
                [*command, str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
                errors="replace",
                bufsize=1,
                start_new_session=os.name
                == "posix",  # so that a wrapper script and its Julia can be ended together
            )
        except OSError as error:
            self._errors.close()
            raise UsageError(f"cannot start Julia as {shlex.join(command)}: {error.strerror}") from error
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._said = ""
        words = self._answer(START_LIMIT, "starting Julia and loading Flux")
        if len(words) != 3 or words[0] != "ready":
            self.end()
            raise ModelError(f"Julia answered {' '.join(words)[:80]!r} where 'ready' was expected")
        self.julia_version, self.flux_version = words[1], words[2]

    @property
    def alive(self) -> bool:
        """Whether the process is still running."""
        return self._process.poll() is None

    def ask(self, *words: str, limit: float) -> None:
        """Sends a request, and waits until it is done.

        Args:
            *words: The request, without tabs or line breaks.
            limit: The time limit in seconds; afterwards the process is ended.

        Raises:
            ModelError: Julia fails, ends, or exceeds the limit; gives the reason.
            UsageError: A word contains a tab or line break.
        """
        with self._lock:
            line = "\t".join(words)
            if "\n" in line or len(line.split("\t")) != len(words):
                raise UsageError(
                    "the engine flux cannot use a folder for temporary files with a tab in its name"
                )
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                raise self._ended(words[0]) from None
            answer = self._answer(limit, words[0])
            if answer[0] == "error":
                reason = _one_line(" ".join(answer[1:]))
                raise ModelError(f"Flux {self.flux_version} could not {words[0]} the model: {reason}")

    def _answer(self, limit: float, what: str) -> list[str]:
        try:
            line = self._answers.get(timeout=limit)
        except queue.Empty:
            self.end(grace=0)
            raise ModelError(
                f"Julia did not answer within {limit:g} seconds ({what}) and was stopped; "
                "set DIPTYCH_JULIA_TIMEOUT to a longer time"
            ) from None
        if line is None:
            raise self._ended(what)
        return line.split("\t")

    def _ended(self, what: str) -> ModelError:
        self.end()
        status = self._process.returncode
        how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        return ModelError(f"Julia ended with {how} ({what}){': ' + self._said if self._said else ''}")

    def _last_words(self) -> str:
        """The last error on the standard error stream, or the last line if there is no error."""
        with contextlib.suppress(OSError, ValueError):
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - 20_000))
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            telling = [line for line in lines if "ERROR" in line or "signal (" in line]
            return _one_line((telling or lines)[-1]) if lines else ""
        return ""

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stdout:
                if line.startswith("diptych\t"):
                    self._answers.put(line.rstrip("\r\n").partition("\t")[2])
        self._answers.put(None)

    def end(self, grace: float = 1.0) -> None:
        """Ends the process and those that it started, after giving it `grace` seconds to end by itself."""
        if self._errors.closed:
            return
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._listener.join(timeout=1.0)
        if self._process.stdout is not None and not self._listener.is_alive():
            self._process.stdout.close()
        self._said = self._last_words()
        self._errors.close()

    def _kill(self) -> None:
        if os.name == "posix":
            import signal

            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
                return
        self._process.kill()


_running: dict[tuple[str, ...], JuliaProcess] = {}
_starting = threading.Lock()


def process() -> JuliaProcess:
    """The process for the present `julia_command`, which is started when first needed.

    Raises:
        UsageError, ModelError: As `julia_command` and `JuliaProcess`.
    """
    command = julia_command()
    with _starting:
        running = _running.get(tuple(command))
        if running is None or not running.alive:
            _running[tuple(command)] = running = JuliaProcess(command)
        return running


@atexit.register
def _end_all() -> None:
    for running in _running.values():
        running.end()


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."
