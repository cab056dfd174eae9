"""Whether this machine has a real Julia, and a real Flux: found once, without importing Diptych's engine."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess

import pytest

__all__ = ["command", "needs_bson", "needs_flux", "needs_julia"]


def command() -> list[str]:
    """The words of DIPTYCH_JULIA, else julia on the path, else nothing."""
    given = shlex.split(os.environ.get("DIPTYCH_JULIA", ""))
    found = shutil.which(given[0] if given else "julia")
    return (given or [found]) if found else []


@functools.cache
def _runs(program: str) -> bool:
    words = command()
    if not words:
        return False
    done = subprocess.run([*words, "-e", program], capture_output=True, timeout=900, check=False)
    return done.returncode == 0


needs_julia = pytest.mark.skipif(
    not _runs("exit(0)"), reason="no Julia: set DIPTYCH_JULIA, or put julia on the PATH"
)
needs_flux = pytest.mark.skipif(
    not _runs("import Flux"), reason="no Julia with Flux: set DIPTYCH_JULIA to one"
)
needs_bson = pytest.mark.skipif(
    not _runs("import Flux, BSON"), reason="no Julia with Flux and BSON: set DIPTYCH_JULIA to one"
)
