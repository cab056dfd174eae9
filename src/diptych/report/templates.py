"""The HTML templates of this package: everything from outside is escaped, and an unknown name is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["render_template"]


def render_template(name: str, filters: dict[str, Callable[..., str]], **content: Any) -> str:
    """The page that the template `name` makes of `content`; `filters` are what it may write `value | filter`."""
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
