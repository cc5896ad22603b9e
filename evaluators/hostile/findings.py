"""Decides what an attack's outcome is, and which outcomes a tier may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from evaluators.sandbox import Tier


class Outcome(Enum):
    """What became of an attack. What cannot be shown to be blocked counts as let through."""

    BLOCKED = "blocked"
    LET_THROUGH = "let_through"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One attack's outcome; `detail` says how it ended, in words."""

    name: str
    tries: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """All attacks on one sandbox."""

    tier: Tier
    gaps: tuple[str, ...]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def let_through(self) -> tuple[str, ...]:
        """The attacks that worked."""
        return self._named(Outcome.LET_THROUGH)

    @property
    def not_applicable(self) -> tuple[str, ...]:
        """The attacks that could not be tried here; they do not count as blocked."""
        return self._named(Outcome.NOT_APPLICABLE)

    @property
    def attacks(self) -> int:
        """How many were carried out."""
        return len(self.findings) - len(self.not_applicable)

    @property
    def unexpected(self) -> tuple[str, ...]:
        """What got through although this tier promises that it does not."""
        return tuple(name for name in self.let_through if reason(self.tier, name) is None)

    def _named(self, outcome: Outcome) -> tuple[str, ...]:
        return tuple(finding.name for finding in self.findings if finding.outcome is outcome)


ALLOWED: Mapping[Tier, Mapping[str, str]] = {
    "A": {},
    "B": {
        "stat-secret": "Landlock does not cover metadata: names, sizes and times of files can be read",
        "pathname-socket": "Landlock does not cover unix sockets with a path before ABI 9; file permissions do",
    },
}
"""Tier → attack → why it may get through."""
_KEPT_WITHOUT_SANDBOX = frozenset(
    {"environ-of-init", "inherited-descriptors", "leave-daemon", "outlive-kill", "flood-log", "control-terminal"}
)
"""What even tier C keeps out: a clean environment, and nothing left behind."""
_FIRST_PARTY = "tier C runs our own code only, and isolates nothing but environment, log and lifetime"


def reason(tier: Tier, attack: str) -> str | None:
    """Why `attack` may get through in this tier; None: it must not."""
    if tier == "C":
        return None if attack in _KEPT_WITHOUT_SANDBOX else _FIRST_PARTY
    return ALLOWED[tier].get(attack)
