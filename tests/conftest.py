"""Settings that must hold before anything is imported, and which tests a machine without isolation can run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from typing import Any

import pytest

from tests import streams

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "0"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background of a shell, as some CI runners do
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or no Ctrl-C would reach what the tests start
OWN_FOLDER = streams.settle() if "PYTEST_XDIST_WORKER" in os.environ else None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes run the tests, unless `-n` says so."""
    return streams.workers(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> streams.StreamScheduling:
    """What may run beside what."""
    return streams.StreamScheduling(config, log)


@pytest.hookimpl(tryfirst=True)  # before its fixtures start anything
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is not measured gives way to what is."""
    if OWN_FOLDER is not None:
        streams.give_way(item.nodeid)


def pytest_unconfigure() -> None:
    """A worker leaves nothing behind."""
    if OWN_FOLDER is not None:
        streams.remove(OWN_FOLDER)


def pytest_report_header() -> list[str]:
    """What this machine does not give, and how to get it: the tests of it are not among those that run."""
    lines = [f"no isolation tier {tier} here: {why}" for tier, why in _missing().items()]
    if not os.environ.get("VIBESERVE_CLIS"):
        lines.append("no coding CLIs are tried: scripts/install_clis DIR, then VIBESERVE_CLIS=DIR")
    if not _browser():
        lines.append("no chromium here, so no page is opened: apt install chromium")
    if absent := [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]:
        lines.append(f"no {' and no '.join(absent)} here, which tests/llama computes with: uv sync --group torch")
    return lines


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs an isolation tier or a browser that this machine does not give."""
    missing = _missing()
    out = [item for item in items if any(mark.args[0] in missing for mark in item.iter_markers("tier"))]
    if not _browser():
        out += [item for item in items if item.get_closest_marker("browser")]
    if not os.environ.get("VIBESERVE_CLIS"):
        out += [item for item in items if item.get_closest_marker("clis")]
    if out:
        items[:] = [item for item in items if item not in set(out)]
        config.hook.pytest_deselected(items=out)
    if OWN_FOLDER is not None:
        items[:] = streams.in_order(items)


def _browser() -> bool:
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


def _missing() -> dict[str, str]:
    from evaluators.isolation import facts, why_not_a, why_not_b

    found = {"A": why_not_a(facts()), "B": why_not_b(facts())}
    return {tier: f"{problem.cause}; {problem.cure}" for tier, problem in found.items() if problem is not None}
