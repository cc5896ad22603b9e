"""Decides what is known of a cluster's nodes, and what is wrong with them; shown by `vibeserve doctor --cluster`."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import ray

from evaluators.sandbox import Problem
from population.errors import InfrastructureError
from vibeserve.cluster.nodes import answer, ask, roster
from vibeserve.cluster.selectors import ACCELERATOR_LABEL, Node
from vibeserve.node_facts import NodeFacts, node_facts
from vibeserve.same_hardware import differences

_ATTACKS_TIMEOUT_S = 300.0
_CLOCK_TIMEOUT_S = 60.0
_LOOKS = 7
"""Times that a clock is read: the quickest answer says most exactly when it was given."""
MIN_FREE_GB = 5.0
MAX_SKEW_MS = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """How far a node's clock is ahead of the head's, and how exactly that is known."""

    ahead_ms: float
    error_ms: float

    @property
    def is_large(self) -> bool:
        """Whether it is more than allowed, beyond doubt."""
        return abs(self.ahead_ms) - self.error_ms > MAX_SKEW_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One node: what Ray says of it, what it says itself, and what is wrong."""

    node: Node
    facts: NodeFacts | None
    """None: it does not answer, or is draining and takes no question."""
    skew: Skew | None
    problems: tuple[Problem, ...]
    """Empty for a node that a search can use as it is."""


def census(allow_reduced: bool) -> list[NodeState]:
    """Every node of the connected cluster, those with problems first; takes some ten seconds, as the attacks do."""
    nodes = roster()
    asked = [(node, ask(node, partial(node_facts, allow_reduced))) for node in nodes if not node.draining]
    skews = _skews(nodes)
    said: dict[str, NodeFacts] = {}
    silent: dict[str, str] = {}
    for node, reference in asked:
        try:
            said[node.id] = answer(node, reference, _ATTACKS_TIMEOUT_S)
        except InfrastructureError as error:
            silent[node.id] = str(error)
    states = []
    for node in nodes:
        facts, skew = said.get(node.id), skews.get(node.id)
        problems = [*_unanswered(node, silent), *diagnose(node, facts, skew)]
        states.append(NodeState(node=node, facts=facts, skew=skew, problems=tuple(problems)))
    return sorted(states, key=lambda state: not state.problems)


def diagnose(node: Node, facts: NodeFacts | None, skew: Skew | None) -> list[Problem]:
    """What keeps a node from being used as it is."""
    found = []
    if node.gpus and ACCELERATOR_LABEL not in node.labels:
        cure = f"start it with `ray start --labels={ACCELERATOR_LABEL}=H200` (its own kind)"
        found.append(Problem(cause="its GPUs have no label, so no accelerator_type selects them", cure=cure))
    if skew is not None and skew.is_large:
        cause = f"its clock is {skew.ahead_ms:+.0f} ms from the head's"
        found.append(Problem(cause=cause, cure="run a time service there (chrony, systemd-timesyncd)"))
    return found + (_inside(node, facts) if facts is not None else [])


def _inside(node: Node, facts: NodeFacts) -> list[Problem]:
    """Defects of what a node says of itself."""
    found = [] if facts.git.ok else [Problem(cause=f"git: {facts.git.detail}", cure=facts.git.cure)]
    if facts.ray != ray.__version__:
        cure = "install the same version on every node and where the driver runs"
        found.append(Problem(cause=f"Ray {facts.ray}, the driver has {ray.__version__}", cure=cure))
    if facts.python.split(".")[:2] != platform.python_version().split(".")[:2]:
        cause = f"Python {facts.python}, the driver has {platform.python_version()}"
        found.append(Problem(cause=cause, cure="use the same Python on every node: Ray moves code between them"))
    if facts.disk_free_gb < MIN_FREE_GB:
        cause = f"{facts.disk_free_gb:.1f} GB free for {facts.disk_place}"
        cure = f"free some space, {MIN_FREE_GB:g} GB at least, or point TMPDIR and XDG_CACHE_HOME to a larger disk"
        found.append(Problem(cause=cause, cure=cure))
    if len(facts.gpus) < node.gpus:
        cause = f"Ray was told of {node.gpus:g} GPUs, but nvidia-smi lists {len(facts.gpus)}"
        found.append(
            Problem(cause=cause, cure="look at `nvidia-smi` and `dmesg` there; restart Ray without --num-gpus")
        )
    if not facts.report.ok:
        through = facts.report.probe.unexpected if facts.report.probe else (facts.report.trouble,)
        cause = f"isolation tier {facts.report.tier} does not hold: {', '.join(through)}"
        found.append(Problem(cause=cause, cure="see the attacks with --verbose; do not run others' code there"))
    return found


def kinds_apart(states: Sequence[NodeState]) -> str | None:
    """What differs between the nodes that a GPU evaluation could be given to, if they are of several kinds."""
    known = [state for state in states if state.facts is not None and state.node.gpus and not state.node.draining]
    if not known or known[0].facts is None:
        return None
    first = known[0].facts.fingerprint
    ways = [
        f"{state.node.name} has {', '.join(way)}"
        for state in known
        if state.facts is not None and (way := differences(first, state.facts.fingerprint))
    ]
    return f"GPU nodes differ from {known[0].node.name}: {'; '.join(ways)}" if ways else None


def _unanswered(node: Node, silent: dict[str, str]) -> list[Problem]:
    cure = "look at its raylet's log, or start Ray there anew"
    return [Problem(cause=silent[node.id], cure=cure)] if node.id in silent else []


def _skews(nodes: Sequence[Node]) -> dict[str, Skew]:
    """Node id → its clock against the head's, by the midpoint of the quickest of several questions (Cristian 1989)."""
    read = {node.id: clock for node in nodes if not node.draining and (clock := _clock(node)) is not None}
    head = next((read[node.id] for node in nodes if node.is_head and node.id in read), None)
    if head is None:
        return {}
    return {
        node: Skew(ahead_ms=clock.ahead_ms - head.ahead_ms, error_ms=clock.error_ms + head.error_ms)
        for node, clock in read.items()
    }


def _clock(node: Node) -> Skew | None:
    """Against this driver's clock; None: it did not answer."""
    best: Skew | None = None
    for _ in range(_LOOKS):
        asked_s = time.time()
        begun_s = time.monotonic()
        try:
            said_s: float = answer(node, ask(node, time.time), _CLOCK_TIMEOUT_S)
        except InfrastructureError:
            return best
        took_s = time.monotonic() - begun_s
        skew = Skew(ahead_ms=(said_s - asked_s - took_s / 2) * 1e3, error_ms=took_s / 2 * 1e3)
        best = min(best or skew, skew, key=lambda each: each.error_ms)
    return best
