"""The HTML templates of this package: everything from outside is escaped, and unknown names are errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diptych.files import as_text, replacing

__all__ = ["render_template", "write_page"]


def render_template(name: str, filters: dict[str, Callable[..., str]], **content: Any) -> str:
    """Renders the template `name` with `content`; `filters` are the functions it applies as `value | filter`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("diptych.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(filters)
    return str(environment.get_template(name).render(**content))


def write_page(path: str | Path, document: str) -> None:
    """Writes a page, with the same bytes on every platform; raises `OutputError` where it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(as_text(document), encoding="utf-8", newline="\n")
