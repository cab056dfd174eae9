"""The page at /api/docs, made of the description in OpenAPI; it runs nothing and asks nobody."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi.responses import Response
from markupsafe import Markup

__all__ = ["documentation", "style"]

_PLACE = re.compile(r"\{(\w+)\}")
_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@cache
def style() -> bytes:
    """The style sheet of the page."""
    return (files("diptych.serving") / "docs.css").read_bytes()


def documentation(document: dict[str, Any]) -> Response:
    """The page.

    Args:
        document: The description in OpenAPI.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("diptych.serving", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["code"] = _code
    routes = [
        _route(path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    info = document["info"]
    page = environment.get_template("docs.html.j2").render(
        title=info["title"], version=info["version"], description=info["description"], routes=routes
    )
    headers = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
    return Response(page, media_type="text/html", headers=headers)


def _route(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    parameters = operation.get("parameters", [])
    body = "requestBody" in operation
    query = "&".join(
        f"{each['name']}={each['name'].upper()}"
        for each in parameters
        if each["in"] == "query" and each["required"]
    )
    address = f"http://127.0.0.1:8000{_PLACE.sub(_upper, path)}{'?' if query else ''}{query}"
    sent = " --data-binary @FILE" if body else ""
    verb = f" -X {method.upper()}" if method == "delete" else ""
    return {
        "path": path,
        "method": method.upper(),
        "about": operation.get("description", ""),
        "parameters": [{"name": each["name"], "about": _about(each)} for each in parameters],
        "body": body,
        "example": f"curl{verb}{sent} '{address}'",
    }


def _upper(found: re.Match[str]) -> str:
    return found[1].upper()


def _code(text: str) -> Markup:
    """What stands in backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def _about(parameter: dict[str, Any]) -> str:
    schema = parameter["schema"]
    values = ", ".join(map(str, schema.get("enum", ())))
    said = [parameter.get("description", "").rstrip("."), f"one of {values}" if values else ""]
    if "default" in schema:
        said.append(f"default: {schema['default']}")
    elif parameter["required"]:
        said.append("required")
    return "; ".join(filter(None, said))
