"""Decides who may read the dashboard: a browser on this machine that knows the token, and no other site through it."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"
"""Name of the query parameter that carries the token into a browser once; from then on a cookie does."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HEADERS: Mapping[str, str] = {
    # Everything shown comes from this server. Plotly positions its text by style attributes, hence the one exception;
    # no script is inline, and nothing is evaluated.
    "content-security-policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def new_token() -> str:
    """A fresh secret of 256 bits."""
    return secrets.token_urlsafe(32)


class Gate:
    """ASGI middleware: every request needs a loopback Host and the token, and every answer carries strict headers.

    The Host header is checked because a web page elsewhere can let its own name point to 127.0.0.1 (DNS rebinding) and
    would then be the same origin; the browser still says which name it asked for. Ports are not compared: through an
    SSH tunnel the browser's port is another one.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        refusal = self._refusal(scope)

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await (refusal or self._app)(scope, receive, strict)

    def _refusal(self, scope: Scope) -> Response | None:
        """What to answer instead of the page; None to let the request through."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _hostname(host) not in _LOOPBACK:
            return _refused(f"expected a request to 127.0.0.1 or localhost, got one to '{host}'")
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("the dashboard only shows; it changes nothing\n", status_code=405)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == TOKEN]
        if given:
            return self._enter(scope["path"], query) if self._fits(given[0]) else _refused(_WRONG)
        cookie = cookie_parser(headers.get("cookie", "")).get(cookie_name(self._token), "")
        return None if self._fits(cookie) else _refused(_WRONG)

    def _fits(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _enter(self, path: str, query: list[tuple[str, str]]) -> Response:
        """Keep the token as a cookie and take it out of the address, where a history or a screenshot would show it."""
        rest = urlencode([(name, value) for name, value in query if name != TOKEN])
        # A path such as //host would lead elsewhere.
        place = "/" + path.lstrip("/\\") + (f"?{rest}" if rest else "")
        response = RedirectResponse(place, status_code=303)
        response.set_cookie(cookie_name(self._token), self._token, httponly=True, samesite="strict", path="/")
        return response


def cookie_name(token: str) -> str:
    """One name per start: cookies do not tell ports apart, and several dashboards may be open."""
    return f"vibeserve-{hmac.new(token.encode(), b'cookie', 'sha256').hexdigest()[:12]}"


_WRONG = "expected this dashboard's token, got another one or none; open the address that `vibeserve dashboard` printed"


def _refused(why: str) -> Response:
    return PlainTextResponse(f"refused: {why}\n", status_code=403)


def _hostname(host: str) -> str:
    """`127.0.0.1` of `127.0.0.1:8642`, `[::1]` of `[::1]:8642`."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() and not name.endswith(":") else host).lower()
