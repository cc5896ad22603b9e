"""Decides how the nodes of a cluster look on a terminal and in JSON: what is wrong first, then a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from vibeserve.cluster.census import NodeState, Skew
    from vibeserve.node_facts import NodeFacts

_COLUMNS = ("", "node", "GPUs", "tier", "CPUs", "memory", "disk free", "clock", "Ray", "Python", "tools")


def show_cluster(states: Sequence[NodeState], mixed: str | None, out: Console) -> None:
    """Every problem with its cure, and the table of the nodes. `mixed`: how GPU nodes differ, if they do."""
    from rich.table import Table

    out.print()
    for state in states:
        for problem in state.problems:
            out.print(f"{state.node.name}: {problem.cause}; {problem.cure}")
    if mixed:
        out.print(f"{mixed}; a run measures on one kind: accelerator_type, cluster.labels, cluster.mixed_hardware")
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for state in states:
        table.add_row(*_cells(state))
    out.print(table)


def _cells(state: NodeState) -> tuple[str, ...]:
    node, facts = state.node, state.facts
    name = f"{node.name}{' (head)' if node.is_head else ''}"
    kind = node.labels.get("ray.io/accelerator-type", "unlabelled")
    gpus = f"{node.gpus:g} × {kind}" if node.gpus else "none"
    mark = "problem" if state.problems else "draining" if node.draining else "ok"
    if facts is None:
        return (mark, name, gpus, "", f"{node.cpus:g}", *[""] * 6)
    return (
        mark,
        name,
        gpus,
        facts.report.tier,
        f"{node.cpus:g} of {facts.cpus}",
        f"{facts.memory_gb:.0f} GB" if facts.memory_gb else "",
        f"{facts.disk_free_gb:.0f} GB",
        _clock(state.skew),
        facts.ray or "",
        facts.python,
        _tools(facts),
    )


def _clock(skew: Skew | None) -> str:
    return f"{skew.ahead_ms:+.1f} ± {skew.error_ms:.1f} ms" if skew is not None else ""


def _tools(facts: NodeFacts) -> str:
    found = [f"{tool} {facts.clis.get(tool, '')}".strip() for tool, path in facts.tools.items() if path]
    return ", ".join(found) or "none"


def cluster_row(state: NodeState) -> dict[str, Any]:
    """What `--json` says of a node besides its isolation."""
    node, facts, skew = state.node, state.facts, state.skew
    row: dict[str, Any] = {
        "id": node.id,
        "head": node.is_head,
        "draining": node.draining,
        "ray_cpus": node.cpus,
        "ray_gpus": node.gpus,
        "labels": dict(node.labels),
        "clock_ms": {"ahead": skew.ahead_ms, "error": skew.error_ms} if skew is not None else None,
        "problems": [{"cause": problem.cause, "cure": problem.cure} for problem in state.problems],
    }
    if facts is None:
        return row
    return row | {
        "ray": facts.ray,
        "python": facts.python,
        "cpus": facts.cpus,
        "memory_gb": facts.memory_gb,
        "disk_free_gb": facts.disk_free_gb,
        "gpus": list(facts.gpus),
        "tools": dict(facts.tools),
        "clis": dict(facts.clis),
        "fingerprint": dict(facts.fingerprint),
    }
