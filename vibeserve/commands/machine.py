"""Decides what `doctor` shows: everything a run needs, each with its cure, and how each node stood the attacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vibeserve.commands.options import JsonOption, ReducedIsolationOption

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from evaluators.node import Check, NodeReport

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Every node of the Ray cluster there: GPUs, isolation under attack, tools, disk, clock, versions. auto, "
        "HOST:PORT, ray://HOST:PORT, or `local` to start Ray on this machine. RAY_ADDRESS if omitted; without either "
        "this machine alone, without Ray.",
    ),
]


def doctor(
    cluster: ClusterOption = None,
    allow_reduced_isolation: ReducedIsolationOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show every attack and what became of it.")] = False,
    json: JsonOption = False,
) -> None:
    """Check what a run needs (Python, Ray, git, isolation, GPUs, disk), and attack the isolation of every node.

    Exit code 1 if a run cannot work, or if something gets through that the node's isolation tier promises to hold.
    """
    from vibeserve.commands.output import console, print_json
    from vibeserve.config import ray_auth
    from vibeserve.machine import checks

    found = checks()
    out = console(json)
    out.print(_check_table(found))
    address = cluster or ray_auth()[0]
    ok, nodes = (
        _cluster(address, allow_reduced_isolation, verbose, out)
        if address
        else _here(allow_reduced_isolation, verbose, out)
    )
    ok = ok and all(check.ok for check, needed in found if needed)
    if json:
        rows = [{**_check_row(check), "needed": needed} for check, needed in found]
        print_json({"ok": ok, "checks": rows, **nodes})
    if not ok:
        raise typer.Exit(1)


def _here(allow_reduced: bool, verbose: bool, out: Console) -> tuple[bool, dict[str, Any]]:
    """This machine alone: whether it is well, and as JSON."""
    from evaluators.node import inspect_node

    report = inspect_node(allow_reduced)
    show_nodes([report], verbose, out)
    return report.ok, {"nodes": [node_row(report, verbose)]}


def _cluster(address: str, allow_reduced: bool, verbose: bool, out: Console) -> tuple[bool, dict[str, Any]]:
    """Every node of a cluster: whether all are well, and as JSON."""
    from vibeserve.cluster_view import cluster_row, show_cluster
    from vibeserve.machine import cluster_nodes

    states, mixed = cluster_nodes(address, allow_reduced)
    show_cluster(states, mixed, out)
    show_nodes([state.facts.report for state in states if state.facts is not None], verbose, out)
    rows = [
        {**(node_row(state.facts.report, verbose) if state.facts else {"ok": not state.problems}), **cluster_row(state)}
        | {"node": state.node.name}
        for state in states
    ]
    return not any(state.problems for state in states), {"nodes": rows, "hardware_differs": mixed}


def show_nodes(reports: list[NodeReport], verbose: bool, out: Console) -> None:
    """The table of the nodes, and below it what a reader has to know about each."""
    out.print()
    out.print(_node_table(reports))
    for report in reports:
        _explain(report, verbose, out)


def _check_table(found: list[tuple[Check, bool]]) -> Table:
    from rich.table import Table

    table = Table("", "check", "found", "what to do", box=None, pad_edge=False)
    for check, needed in found:
        mark = "ok" if check.ok else "missing" if needed else "optional"
        table.add_row(mark, check.name, check.detail, "" if check.ok else check.cure)
    return table


def _node_table(reports: list[NodeReport]) -> Table:
    from rich.table import Table

    table = Table("", "node", "tier", "attacks", "blocked", "let through", "not applicable", box=None, pad_edge=False)
    for report in reports:
        mark = "ok" if report.ok else "failed"
        if report.probe is None:
            table.add_row(mark, report.node, report.tier, "0", "", "", "")
            continue
        probe = report.probe
        through, absent = len(probe.let_through), len(probe.not_applicable)
        counts = (probe.attacks, probe.attacks - through, through, absent)
        table.add_row(mark, report.node, report.tier, *map(str, counts))
    return table


def _explain(report: NodeReport, verbose: bool, out: Console) -> None:
    """What a reader of the summary has to know about one node."""
    if report.better is not None:
        refused = " Trees that did not come with VibeServe are refused there." if report.tier == "C" else ""
        out.print(f"\n{report.node} has no tier A: {report.better.cause}. {report.better.cure}.{refused}")
    if report.probe is None:
        out.print(f"\n{report.node} could not be attacked: {report.trouble}")
        return
    for gap in report.probe.gaps if report.tier != "C" else ():
        out.print(f"{report.node} leaves open: {gap}")
    if verbose:
        out.print()
        out.print(_attack_table(report))
        return
    for finding in report.probe.findings:
        if finding.name in report.probe.unexpected:
            out.print(f"{report.node} lets {finding.name} through: {finding.tries}; {finding.detail}")


def _attack_table(report: NodeReport) -> Table:
    from rich.table import Table

    from evaluators.hostile.findings import Outcome, reason

    assert report.probe is not None
    table = Table("", "attack", "what it tries", "how it ended", title=report.node, box=None, pad_edge=False)
    for finding in report.probe.findings:
        allowed = reason(report.tier, finding.name) if finding.outcome is Outcome.LET_THROUGH else None
        mark = "expected" if allowed else finding.outcome.value.replace("_", " ")
        table.add_row(mark, finding.name, finding.tries, f"{finding.detail} ({allowed})" if allowed else finding.detail)
    return table


def _check_row(check: Check) -> dict[str, object]:
    return {"name": check.name, "ok": check.ok, "detail": check.detail, "cure": "" if check.ok else check.cure}


def node_row(report: NodeReport, verbose: bool) -> dict[str, Any]:
    """A node as `--json` has it; `verbose`: with every attack."""
    row: dict[str, Any] = {"node": report.node, "tier": report.tier, "ok": report.ok, "attacks": 0, "let_through": []}
    row["checks"] = [_check_row(check) for check in report.checks]
    if report.better is not None:
        row["no_tier_a"] = {"cause": report.better.cause, "cure": report.better.cure}
    if report.probe is None:
        return {**row, "trouble": report.trouble}
    probe = report.probe
    row |= {"attacks": probe.attacks, "let_through": probe.let_through, "unexpected": probe.unexpected}
    row |= {"not_applicable": probe.not_applicable, "gaps": probe.gaps, "seconds": round(probe.seconds, 2)}
    if verbose:
        row["findings"] = [
            {"name": each.name, "outcome": each.outcome, "detail": each.detail} for each in probe.findings
        ]
    return row
