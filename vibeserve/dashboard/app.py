"""Decides which address shows what: pages for people, JSON for the pages, a stream that says when to look again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from population.errors import UsageError, VibeServeError
from vibeserve.dashboard import (
    assets,
    candidate,
    children,
    course,
    failures,
    front,
    lineage,
    operators,
    timeline,
    wire,
)
from vibeserve.dashboard import overview as heads
from vibeserve.dashboard.comparison import Comparisons
from vibeserve.dashboard.security import Gate
from vibeserve.dashboard.spending import Prices
from vibeserve.dashboard.stream import Stream
from vibeserve.follower import Followed
from vibeserve.runs import candidate_name

PAGES = ("front", "progress", "lineage", "candidates", "slots", "failures", "operators")
"""Pages of a run, by their last word in the address."""

View = Callable[[Followed, Request], Any]


def make_app(
    runs: Sequence[Followed], token: str, prices: Prices, closing: asyncio.Event | None = None, level: str = ""
) -> Gate:
    """The dashboard of these runs behind its gate.

    `closing` ends the streams; `level` is the service level to begin with.

    Endpoints are plain functions, so Starlette runs them in threads and a long computation stops no stream.
    """
    by_name = {run.name: run for run in runs}
    comparisons = Comparisons()
    views: dict[str, View] = {
        "overview": lambda run, request: heads.overview(run),
        "front": lambda run, request: front.front_picture(
            run, _listed(request, "axes"), request.query_params.get("slo", "")
        ),
        "progress": lambda run, request: course.progress(run, prices),
        "lineage": lambda run, request: lineage.lineage(run, request.query_params.get("best", "")),
        "candidates": lambda run, request: children.children_page(run, _query(request)),
        "slots": lambda run, request: timeline.timeline(run, _window(request)),
        "failures": lambda run, request: failures.failures(run),
        "operators": lambda run, request: operators.operators(run),
        "candidate": lambda run, request: candidate.candidate_page(run, _candidate(request), prices),
        "diff": lambda run, request: candidate.diff(run, _candidate(request), request.query_params.get("against", "")),
        "file": lambda run, request: candidate.file_text(
            run, _candidate(request), request.query_params.get("key", ""), request.query_params.get("file", "")
        ),
    }
    routes = [
        Route("/static/{name}", lambda request: assets.answer(request, request.path_params["name"])),
        Route("/api/stream", Stream(runs, closing or asyncio.Event()).answer),
        Route("/api/runs", partial(_runs, runs, level)),
        Route("/api/compare", partial(_compare, by_name, comparisons)),
        Route("/api/run/{run}/{view}", partial(_view, by_name, views)),
        Route("/", _page),
        Route("/compare", _page),
        Route("/run/{run}/{page}", _page),
        Route("/run/{run}/candidate/{candidate}", _page),
    ]
    return Gate(Starlette(routes=routes), token)


def _page(request: Request) -> Response:
    """Every page is the same file; its script looks at the address."""
    return assets.answer(request, "index.html")


def _runs(runs: Sequence[Followed], level: str, request: Request) -> Response:
    def one(run: Followed) -> Any:
        run.refresh()
        with run.lock:
            return heads.brief(run)

    return wire.answer({"runs": [one(run) for run in runs], "service_level": level})


def _view(by_name: dict[str, Followed], views: dict[str, View], request: Request) -> Response:
    run, view = by_name.get(request.path_params["run"]), views.get(request.path_params["view"])
    if run is None or view is None:
        return wire.answer({"error": f"no run '{request.path_params['run']}' here, or no such page"}, 404)
    try:
        run.refresh()
        with run.lock:
            return wire.answer(view(run, request))
    except VibeServeError as error:
        return wire.answer({"error": str(error)}, 404 if isinstance(error, UsageError) else 422)


def _compare(by_name: dict[str, Followed], comparisons: Comparisons, request: Request) -> Response:
    wanted = _listed(request, "runs") or list(by_name)
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        return wire.answer({"error": f"no run '{unknown[0]}' here"}, 404)
    runs = [by_name[name] for name in wanted]
    for run in runs:
        run.refresh()
    try:
        return wire.answer(comparisons.answer(runs, held_out=bool(request.query_params.get("held_out"))))
    except VibeServeError as error:
        return wire.answer({"error": str(error)}, 422)


def _listed(request: Request, name: str) -> list[str]:
    return [part for part in request.query_params.get(name, "").split(",") if part]


def _candidate(request: Request) -> str:
    return candidate_name(request.query_params.get("id", ""))


def _query(request: Request) -> children.Query:
    asked = request.query_params
    return children.Query(
        state=asked.get("state", ""),
        text=asked.get("text", "")[:200],
        stage=asked.get("stage", ""),
        operator=asked.get("operator", ""),
        sort=asked.get("sort", "number"),
        descending=asked.get("order", "down") != "up",
        page=_whole(asked.get("page", "0")),
    )


def _whole(text: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise UsageError(f"expected a page number, got '{text}'")
    return int(text)


def _window(request: Request) -> tuple[float, float] | None:
    """`from` and `to` in Unix seconds; None for all."""
    ends = [request.query_params.get(name) for name in ("from", "to")]
    if None in ends:
        return None
    try:
        low, high = (float(end or "") for end in ends)
    except ValueError as error:
        raise UsageError(f"expected a window in seconds, got {ends}") from error
    return (low, high) if low < high else None
