"""Decides which files the dashboard serves: its own page, style and scripts, and plotly's from the installed wheel."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from population.errors import InfrastructureError

_STATIC = Path(__file__).resolve().parent / "static"
_PLOTLY = "plotly.min.js"
_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file, compressed once: a laptop may be at the other end of a slow tunnel."""

    kind: str
    tag: str
    plain: bytes
    packed: bytes


def plotly_script() -> Path:
    """`plotly.min.js` of the installed plotly; nothing is downloaded, and plotly itself is not imported.

    Raises:
        InfrastructureError: there is no plotly.
    """
    found = importlib.util.find_spec("plotly")
    for folder in found.submodule_search_locations or () if found else ():
        script = Path(folder) / "package_data" / _PLOTLY
        if script.is_file():
            return script
    raise InfrastructureError(f"expected {_PLOTLY} in the installed package plotly, found none; `pip install plotly`")


def asset_names() -> tuple[str, ...]:
    """What can be asked for below `/static/`."""
    return (*sorted(path.name for path in _STATIC.iterdir() if path.suffix in _KINDS), _PLOTLY)


@cache
def load(name: str) -> Asset:
    """A file by its name, one of `asset_names`."""
    path = plotly_script() if name == _PLOTLY else _STATIC / name
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:16]
    return Asset(kind=_KINDS[path.suffix], tag=f'"{digest}"', plain=data, packed=gzip.compress(data, 6, mtime=0))


def answer(request: Request, name: str) -> Response:
    """The file, or 304 for a browser that has it."""
    if name not in asset_names():
        return PlainTextResponse("no such file\n", status_code=404)
    asset = load(name)
    headers = {"etag": asset.tag, "cache-control": "private, no-cache", "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == asset.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, headers={**headers, "content-encoding": "gzip"}, media_type=asset.kind)
    return Response(asset.plain, headers=headers, media_type=asset.kind)
