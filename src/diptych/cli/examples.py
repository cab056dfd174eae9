"""Examples for the help of every command, as they are typed. The tests run those that need nothing else."""

from __future__ import annotations

__all__ = ["EXAMPLES", "JOBS", "epilog"]

JOBS = """Five jobs to begin with:

diptych run "a lighthouse by the sea" --out out

diptych convert scenes trained_model.bson

diptych compare scenes trained_model.bson

diptych filter learn sobel -o sobel.safetensors

diptych predict scenes photographs/ --out table.parquet
"""

EXAMPLES = {
    "run": (
        'diptych run "a lighthouse by the sea at dusk"',
        "diptych run --images photographs/ --model scenes --out looked-at",
    ),
    "generate": (
        'diptych generate "an island at dawn" --count 3 --width 640 --height 400',
        "diptych generate --like generated_image_1.png --out again",
    ),
    "preprocess": (
        "diptych preprocess photographs/ --preprocessing grey-224 --out arrays",
        "diptych preprocess photographs/ --preprocessing scenes",
    ),
    "predict": (
        "diptych predict scenes photographs/",
        "diptych predict scenes photographs/ --out table.parquet",
        "diptych predict trained_model.bson photographs/ --preprocessing colour-32",
    ),
    "features": (
        "diptych features scenes photographs/coffee.png --layers all",
        "diptych features scenes photographs/ --layers 7 --table --out vectors",
    ),
    "explain": ("diptych explain scenes photographs/coffee.png",),
    "compare": (
        "diptych compare scenes trained_model.bson",
        "diptych compare model.pt trained_model.bson --images photographs/ --report difference.html",
    ),
    "convert": (
        "diptych convert scenes trained_model.bson",
        "diptych convert trained_model.bson model.onnx --preprocessing-inside",
        "diptych convert weights.jld2 model.pt --architecture model.jl",
        "diptych convert timm/resnet18.a1_in1k resnet18.bson",
    ),
    "verify": ("diptych verify trained_model.bson",),
    "inspect": ("diptych inspect scenes", "diptych inspect trained_model.bson --json"),
    "train": ("diptych train photographs/ -o mine.safetensors",),
    "list": ("diptych list", "diptych list 'timm/resnet*'"),
    "serve": (
        "diptych serve",
        "diptych serve mine.bson flowers=flowers-v3.onnx",
        "diptych serve models/ --port 9000",
        "DIPTYCH_TOKEN=... diptych serve --host 0.0.0.0 models/",
        'curl -H "Inference-Header-Content-Length: 0" --data-binary @photo.jpg '
        "http://127.0.0.1:8000/v2/models/scenes/infer",
    ),
    "site": ("diptych site public/",),
    "doctor": ("diptych doctor",),
    "filter learn": (
        "diptych filter learn sobel -o sobel.safetensors",
        "diptych filter learn gaussian:sigma=2 -o blur.safetensors",
        "diptych filter learn my_filters:warmer -o warmer.safetensors --budget 60",
        "diptych filter list",
    ),
    "filter apply": (
        "diptych filter apply sobel.safetensors photographs/coffee.png edges.png",
        "diptych filter apply sobel.safetensors photographs/ edges/",
    ),
    "filter evaluate": ("diptych filter evaluate sobel.safetensors",),
    "filter preview": ("diptych filter preview sobel.safetensors --out preview",),
    "filter list": ("diptych filter list",),
}


def epilog(name: str) -> str:
    """The end of the help of a command: its examples."""
    return "Examples:\n\n" + "\n\n".join(EXAMPLES[name])
