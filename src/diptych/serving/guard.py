"""What a stranger may not do: ask without the token, from another site's page, or by another host's name."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping, Sequence

from diptych.errors import UsageError
from diptych.options import ServeOptions
from diptych.serving.answers import Answer, Refusal

__all__ = ["Guard", "is_loopback"]

_OPEN = ("/v2/health/live", "/v2/health/ready", "/api/docs", "/api/docs.css", "/api/openapi.json")
"""What needs no token, beside the page: probes have none, and the description is the same for all servers."""
_ALLOWED_HEADERS = b"authorization, content-type, content-encoding, inference-header-content-length"


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Checks the token, the host's name and the origin of each request.

    Without a token every program on the machine may ask, but no web page may: a page of another site has another
    `Origin`, and one whose name was made to point here (DNS rebinding) has another `Host`.

    Args:
        options: Of the server.

    Raises:
        UsageError: It would listen to other machines without a token.
    """

    def __init__(self, options: ServeOptions) -> None:
        if options.token is None and not is_loopback(options.host):
            raise UsageError(
                f"{options.host} can be reached from other machines, so a token is needed: set the environment "
                "variable DIPTYCH_TOKEN to a long random text, such as that of: python3 -c 'import secrets; "
                "print(secrets.token_urlsafe())'"
            )
        if options.token is not None and (not options.token.isascii() or not options.token.strip()):
            raise UsageError("a token has ASCII characters, one or more; choose another")
        self._token = None if options.token is None else options.token.encode()
        self._origins = {origin.rstrip("/").lower().encode() for origin in options.allow_origins}
        names = {
            "localhost",
            "127.0.0.1",
            "[::1]",
            options.host.lower(),
            *map(str.lower, options.allow_hosts),
        }
        if ":" in options.host:
            names.add(f"[{options.host.lower()}]")
        self._hosts = {name.encode() for name in names}

    def check(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Answer | None:
        """Lets a request pass, or answers a browser that asks whether it may.

        Args:
            method: Of HTTP.
            path: The whole one.
            headers: Names in lower case.

        Raises:
            Refusal: The request may not be answered.
        """
        host = headers.get(b"host", b"").lower()
        if self._token is None and _without_port(host) not in self._hosts:
            raise Refusal(
                403,
                f"this server is not called {host[:80].decode('latin-1')!r}: ask it as localhost, or start it with "
                "--allow-host NAME",
            )
        origin = headers.get(b"origin", b"").lower()
        if origin and origin.rpartition(b"//")[2] != host and origin not in self._origins:
            raise Refusal(
                403,
                f"pages of {origin[:80].decode('latin-1')} may not ask this server; start it with "
                "--allow-origin ORIGIN to let them",
            )
        if method == "OPTIONS" and origin and b"access-control-request-method" in headers:
            return Answer(204, b"", ())
        if not origin and method not in ("GET", "HEAD") and headers.get(b"sec-fetch-site") == b"cross-site":
            raise Refusal(403, "a page of another site may not ask this server")
        if self._token is not None and self._needs_token(path):
            self._check_token(headers.get(b"authorization", b""))
        return None

    @staticmethod
    def _needs_token(path: str) -> bool:
        return path not in _OPEN and path.startswith(("/v2", "/api", "/metrics"))

    def _check_token(self, authorization: bytes) -> None:
        scheme, _, token = authorization.partition(b" ")
        assert self._token is not None
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise Refusal(
                401,
                "this server asks for its token: send the header Authorization: Bearer TOKEN",
                ((b"www-authenticate", b"Bearer"),),
            )

    def headers(self, origin: bytes | None) -> Sequence[tuple[bytes, bytes]]:
        """Those by which a browser lets a page of another site read an answer; none unless it was named."""
        if not origin or origin.lower() not in self._origins:
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", b"GET, POST, DELETE"),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-expose-headers", b"inference-header-content-length, retry-after"),
            (
                b"access-control-allow-private-network",
                b"true",
            ),  # Chromium asks where a site elsewhere asks loopback
            (b"vary", b"origin"),
        )


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    return name if colon and port.isdigit() else host
