"""Brings the ONNX Runtime that pages run into the package: `python web/bring_onnxruntime.py`.

It downloads onnxruntime-web from npm, checks it against the hash below, and writes its WebAssembly (compressed by
zopfli: `pip install zopfli`) and its JavaScript to src/diptych/report/live/.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tarfile
import urllib.request
from pathlib import Path

VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
PLACE = Path(__file__).parents[1] / "src" / "diptych" / "report" / "live"


def main() -> None:
    """Downloads, checks and writes."""
    import zopfli.gzip

    with urllib.request.urlopen(ADDRESS) as stream:
        archive = stream.read()
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != INTEGRITY:
        raise SystemExit(f"{ADDRESS} has {found}, not {INTEGRITY}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:

        def content(name: str) -> bytes:
            member = files.extractfile(f"package/dist/{name}")
            assert member is not None
            return member.read()

        wasm, script = content("ort-wasm-simd-threaded.wasm"), content("ort.wasm.bundle.min.mjs").decode()
    (PLACE / "onnxruntime.wasm.gz").write_bytes(zopfli.gzip.compress(wasm, numiterations=5))
    (PLACE / "onnxruntime.js").write_text(as_script(script), "utf-8", newline="\n")


def as_script(module: str) -> str:
    """The module as a script that defines `ort`, since a page from a file cannot import."""
    exported = re.findall(r"export\{([^}]*)\}", module)[-1]
    pairs = [part.strip().split(" as ") for part in exported.split(",")]
    fields = ",".join(f"{names[-1]}:{names[0]}" for names in pairs if names[-1] != "default")
    without_map = re.sub(r"\n//# sourceMappingURL=.*", "", module)
    return without_map.replace("export{" + exported + "}", "window.ort={" + fields + "}")


if __name__ == "__main__":
    main()
