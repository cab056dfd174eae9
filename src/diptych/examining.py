"""What is installed and found on this machine, for `diptych doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diptych import __version__
from diptych.engine_names import ENGINES
from diptych.errors import install_command
from diptych.extras import EXTRAS
from diptych.hub import cache

__all__ = ["Examination", "Package", "examine", "version"]

_CORE = (
    "numpy",
    "pillow",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "matplotlib",
    "safetensors",
    "typer",
)


@dataclass(frozen=True)
class Package:
    """A package: its version, or the line that installs it.

    Attributes:
        name: As pip calls it.
        version: "" where it is not installed.
        extra: The extra of Diptych that installs it; "" for the packages that are always there.
        install: The line that installs it; "" where it is installed.
    """

    name: str
    version: str
    extra: str
    install: str


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        diptych: The version, with the commit where it is a checkout.
        python: The version of Python and where it is.
        machine: The system, the processor and the number of processors that this process may use.
        packages: The packages, the core first.
        engines: The engines that can run, and why the others cannot.
        devices: The devices of PyTorch; empty without it.
        julia: The command `julia` and where it is; "" without one.
        caches: Folders with what was fetched or compiled, by what they hold.
    """

    diptych: str
    python: str
    machine: str
    packages: tuple[Package, ...]
    engines: dict[str, str]
    devices: tuple[str, ...]
    julia: str
    caches: dict[str, str]

    def to_document(self) -> dict[str, Any]:
        """All fields, as values that JSON can hold."""
        return asdict(self)

    def text(self) -> str:
        """For a terminal: what is there, then what is missing with the line that installs it."""
        there = [f"  {each.name} {each.version}" for each in self.packages if each.version]
        missing: dict[str, list[str]] = {}
        for each in self.packages:
            if not each.version:
                missing.setdefault(each.install, []).append(each.name)
        lines = [f"Diptych {self.diptych}", f"Python {self.python}", self.machine, "", "Packages:", *there]
        lines += ["", "Engines:", *(f"  {name}: {state}" for name, state in self.engines.items())]
        lines += ["", f"Devices of PyTorch: {', '.join(self.devices) or 'none, because it is not installed'}"]
        lines += [f"Julia: {self.julia or 'not found; it is needed for the engine flux alone'}"]
        lines += ["", "Caches:", *(f"  {name}: {place}" for name, place in self.caches.items())]
        if missing:
            lines += ["", "Not installed, each with the line that installs it:"]
            lines += [f"  {', '.join(names)}: {line}" for line, names in missing.items()]
        return "\n".join(lines)


def examine() -> Examination:
    """Looks at the packages, engines, devices, Julia and caches of this machine; fetches nothing."""
    extras = {distribution: extra for distribution, extra, _ in EXTRAS.values()}
    return Examination(
        diptych=version(),
        python=f"{platform.python_version()}, {sys.executable}",
        machine=f"{platform.system()} {platform.release()}, {platform.machine()}, {_processors()} processors",
        packages=tuple(_package(name, extras.get(name, "")) for name in dict.fromkeys((*_CORE, *extras))),
        engines=_engines(),
        devices=_devices(),
        julia=shutil.which("julia") or "",
        caches={"models by name": _place(cache.home())},
    )


def version() -> str:
    """The version, with the commit where this Diptych is a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return __version__
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return f"{__version__} ({done.stdout.strip()})" if done.returncode == 0 else __version__


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _package(name: str, extra: str) -> Package:
    try:
        return Package(name, metadata.version(name), extra, "")
    except metadata.PackageNotFoundError:
        return Package(name, "", extra, install_command(extra))


_ENGINE_PACKAGES = {
    "onnxruntime": "onnxruntime",
    "torch": "torch",
    "openvino": "openvino",
    "halide": "halide",
}


def _engines() -> dict[str, str]:
    found = {}
    for name in ENGINES:
        package = _ENGINE_PACKAGES.get(name)
        if name == "flux":
            found[name] = "ready" if shutil.which("julia") else "needs the command julia"
        else:
            found[name] = "ready" if package is None or find_spec(package) else f"needs the package {package}"
    return found


def _devices() -> tuple[str, ...]:
    try:
        import torch
    except ModuleNotFoundError:
        return ()
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda ({torch.cuda.get_device_name(0)})"]
    if torch.backends.mps.is_available():
        found += ["mps"]
    return tuple(found)


def _place(folder: Path) -> str:
    return str(folder) if folder.is_dir() else f"{folder} (nothing yet)"
