"""Settings that must hold before anything is imported, and which tests a machine without isolation can run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal

import pytest

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "0"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background of a shell, as some CI runners do
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or no Ctrl-C would reach what the tests start


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


def _browser() -> bool:
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


def _missing() -> dict[str, str]:
    from evaluators.isolation import facts, why_not_a, why_not_b

    found = {"A": why_not_a(facts()), "B": why_not_b(facts())}
    return {tier: f"{problem.cause}; {problem.cure}" for tier, problem in found.items() if problem is not None}
