"""Decides what is wrong with a tree: every rule on every file, in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluators.inspection import (
    answers,
    clocks,
    detection,
    dynamic,
    leftovers,
    network,
    processes,
    reach,
    startup,
    wording,
)
from evaluators.inspection.finding import Finding, Rule
from evaluators.inspection.tree import SourceTree, read_tree
from evaluators.target_schema import InspectionTable

RULES: tuple[Rule, ...] = (
    *clocks.RULES,
    *startup.RULES,
    *reach.RULES,
    *network.RULES,
    *processes.RULES,
    *dynamic.RULES,
    *answers.RULES,
    *detection.RULES,
    *wording.RULES,
    *leftovers.RULES,
)
RULE_IDS = frozenset(rule.id for rule in RULES)


def inspect_files(
    files: Mapping[str, bytes], limits: InspectionTable | None = None, rules: Sequence[Rule] = RULES
) -> tuple[Finding, ...]:
    """Every finding in a tree given as path → content, by path and line; () is a pass.

    The tree alone is looked at, not its difference to a parent: what a child inherits is no better than what it adds.
    Files that do not parse give a finding of the rule `syntax`, which no target can allow.
    """
    limits = limits or InspectionTable()
    tree, problems = read_tree(files, limits)
    found = {Finding(path=path, line=line, rule="syntax", what=what) for path, line, what in problems}
    for rule in rules:
        if rule.id not in limits.allow:
            found |= _broken(rule, tree)
    return tuple(sorted(found))


def _broken(rule: Rule, tree: SourceTree) -> set[Finding]:
    return {Finding(path=spot.path, line=spot.line, rule=rule.id, what=spot.what) for spot in rule.look(tree)}
