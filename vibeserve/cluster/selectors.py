"""Decides which nodes a demand matches, and says what keeps the others out.

Ray leaves a task whose selector matches no node pending for ever and says nothing, so this is asked before the first.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ACCELERATOR_LABEL = "ray.io/accelerator-type"
_ACCELERATOR_RESOURCE = "accelerator_type:"
_LIST = re.compile(r"^(!?)in\((.*)\)$")
_NEAR = 0.5
"""From 0 to 1, how alike two label values are of which one was probably meant (`difflib`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one evaluation holds, and where it may run."""

    cpus: int
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray's label selectors that must match: label → `H200`, `!H100`, `in(H100,H200)`, `!in(…)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine of the cluster that is alive."""

    id: str
    """Ray's, 56 hexadecimal digits."""
    name: str
    cpus: float
    gpus: float
    memory_bytes: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    draining: bool = False
    """It is going to leave: what runs there may end, nothing begins."""

    @property
    def is_head(self) -> bool:
        return "node:__internal_head__" in self.resources


def accepts(selector: str, value: str | None) -> bool:
    """Whether a selector takes this value of a label; None: the node does not have the label."""
    listed = _LIST.match(selector)
    negated = bool(listed[1]) if listed else selector.startswith("!")
    body = listed[2] if listed else selector.removeprefix("!")
    values = {part.strip() for part in body.split(",")} if listed else {body}
    return (value in values) != negated


def matches(node: Node, demand: Demand) -> bool:
    """Whether the node's labels are those that the demand asks for."""
    return all(accepts(selector, node.labels.get(label)) for label, selector in demand.labels.items())


def fits(node: Node, demand: Demand) -> int:
    """Evaluations that an empty node holds at once; none where its labels do not match."""
    return held(node.cpus, node.gpus, demand) if matches(node, demand) else 0


def held(cpus: float, gpus: float, demand: Demand) -> int:
    """Evaluations that so much of one node holds."""
    by_cpu = int(cpus // demand.cpus) if demand.cpus else sys.maxsize
    by_gpu = int(gpus // demand.gpus) if demand.gpus else sys.maxsize
    return max(0, min(by_cpu, by_gpu))


def wording(demand: Demand) -> str:
    """`2 GPUs, 4 CPUs and ray.io/accelerator-type=H200`."""
    counts = [f"{n} {what}{'s' * (n != 1)}" for n, what in ((demand.gpus, "GPU"), (demand.cpus, "CPU")) if n]
    parts = [*counts, *(f"{label}={selector}" for label, selector in sorted(demand.labels.items()))]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def shortfall(nodes: Sequence[Node], demand: Demand) -> str:
    """Why no node fits, a line per node, and what to change."""
    lines = [f"expected a node with {wording(demand)}, but none of the cluster's {len(nodes)} has all of that:"]
    lines += [f"  {node.name}{' (head)' if node.is_head else ''}: {'; '.join(_lacks(node, demand))}" for node in nodes]
    meant = [hint for label, selector in demand.labels.items() if (hint := _meant(nodes, label, selector))]
    cure = "add such a node, or change [resources] of the target or cluster.labels of the config"
    return "\n".join([*lines, *meant, cure])


def _lacks(node: Node, demand: Demand) -> list[str]:
    found = ["it is draining"] if node.draining else []
    if node.gpus < demand.gpus:
        found.append(f"{node.gpus:g} of {demand.gpus} GPUs")
    if node.cpus < demand.cpus:
        found.append(f"{node.cpus:g} of {demand.cpus} CPUs")
    for label, selector in sorted(demand.labels.items()):
        value = node.labels.get(label)
        if not accepts(selector, value):
            found.append(f"{label} is {value}" if value is not None else f"no label {label}{_unlabelled(node, label)}")
    return found


def _unlabelled(node: Node, label: str) -> str:
    """A node may have the resource that Ray made of its GPU and still lack the label that selects it."""
    kinds = [name.removeprefix(_ACCELERATOR_RESOURCE) for name in node.resources if _ACCELERATOR_RESOURCE in name]
    if label != ACCELERATOR_LABEL or not kinds:
        return ""
    return f", though it has {kinds[0]}: start it with `ray start --labels={ACCELERATOR_LABEL}={kinds[0]}`"


def _meant(nodes: Sequence[Node], label: str, selector: str) -> str:
    """`did you mean …`, where the cluster has something that looks like what was asked for."""
    values = sorted({node.labels[label] for node in nodes if label in node.labels})
    if not values:
        known = sorted({name for node in nodes for name in node.labels})
        keys = difflib.get_close_matches(label, known, 1, 0.8)
        return f"no node has a label {label}; did you mean {keys[0]}?" if keys else ""
    listed = _LIST.match(selector)
    asked = [part.strip() for part in listed[2].split(",")] if listed else [selector]
    near = max(values, key=lambda value: max(_likeness(word, value) for word in asked))
    likely = near not in asked and max(_likeness(word, near) for word in asked) >= _NEAR
    return f"did you mean {label}={near}?" if likely else ""


def _likeness(asked: str, value: str) -> float:
    """From 0 to 1; a part of the other, as `NVIDIA H100` has it, is nearly the same."""
    one, other = asked.casefold(), value.casefold()
    within = 0.9 if one in other or other in one else 0.0
    return max(within, difflib.SequenceMatcher(None, one, other).ratio())
