"""Settings that must hold before anything is imported, and which tests a machine without isolation can run."""

from __future__ import annotations

import importlib.util
import os

import pytest

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "0"


def pytest_report_header() -> list[str]:
    """What this machine does not give, and how to get it: the tests of it are not among those that run."""
    absent = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    computes = [f"no {' and no '.join(absent)} here, which tests/llama computes with: uv sync --group torch"]
    return [f"no isolation tier {tier} here: {why}" for tier, why in _missing().items()] + (computes if absent else [])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs an isolation tier that this machine does not give."""
    missing = _missing()
    out = [item for item in items if any(mark.args[0] in missing for mark in item.iter_markers("tier"))]
    if out:
        items[:] = [item for item in items if item not in set(out)]
        config.hook.pytest_deselected(items=out)


def _missing() -> dict[str, str]:
    from evaluators.isolation import facts, why_not_a, why_not_b

    found = {"A": why_not_a(facts()), "B": why_not_b(facts())}
    return {tier: f"{problem.cause}; {problem.cure}" for tier, problem in found.items() if problem is not None}
