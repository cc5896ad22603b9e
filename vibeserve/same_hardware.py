"""Decides on which machines a run's evaluations may be made: on those of one fingerprint, or the run says otherwise.

Machines that differ measure different numbers for the same server, so a pool of several kinds is refused with what
differs, or narrowed to one kind; never mixed without the user's word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from population.errors import ConfigError, RunError
from population.events import Ended, Event, SentBack

Fingerprint = Mapping[str, str]
MixedHardware = Literal["refuse", "stratify", "accept"]
_NOT_THERE = "none"
_SEVERAL = " + "
"""Joins the values of GPUs that differ within one machine (`evaluators.hardware`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """A machine that could hold an evaluation."""

    id: str
    name: str
    slots: int
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """The machines that a run measures on."""

    expected: Fingerprint | None
    """What an evaluation must find; None: anything, the user accepts it."""
    members: frozenset[str]
    notes: tuple[str, ...] = ()
    """What the user is told."""

    def admits(self, fingerprint: Fingerprint) -> bool:
        """Whether a machine that comes later may be used, too."""
        return self.expected is None or _is_same(self.expected, fingerprint)


def differences(expected: Fingerprint, found: Fingerprint) -> list[str]:
    """One clause per fact that differs: `GPU power limit 500.00 W, not 700.00 W`."""
    return [
        f"{fact} {found.get(fact, _NOT_THERE)}, not {expected.get(fact, _NOT_THERE)}"
        for fact in sorted(expected.keys() | found.keys())
        if found.get(fact) != expected.get(fact)
    ]


def recorded(events: Iterable[Event]) -> Fingerprint | None:
    """What a run's first measurement was made on; None where no record says it."""
    for event in events:
        if isinstance(event, SentBack | Ended) and event.place is not None and event.place.fingerprint:
            return dict(event.place.fingerprint)
    return None


def choose(pool: Sequence[Surveyed], before: Fingerprint | None, rule: MixedHardware) -> Stratum:
    """Which machines of the pool a run uses. `before`: what it was measured on so far.

    Raises:
        ConfigError: the pool is mixed, and the rule is to refuse that.
        RunError: none of the machines is what the run was measured on so far.
    """
    kinds = Counter[frozenset[tuple[str, str]]]()
    for machine in pool:
        kind = frozenset(machine.fingerprint.items())
        kinds[kind] += machine.slots
    # The kind with the most slots; of equals the one that is met first.
    most = before if before is not None else dict(kinds.most_common(1)[0][0])
    strangers = [machine for machine in pool if not _is_same(most, machine.fingerprint)]
    if rule == "accept":
        pooled = f"warning: measurements on different hardware are pooled: {_said(strangers, most)}"
        everyone = frozenset(machine.id for machine in pool)
        return Stratum(expected=None, members=everyone, notes=(pooled,) if strangers else ())
    if before is not None and len(strangers) == len(pool):
        raise RunError(
            f"expected the hardware that this run was measured on so far, but found: {_said(strangers, most)}. Resume "
            "it where it began, or start a new run: measurements before and after would not be comparable. "
            "-s cluster.mixed_hardware=accept pools them all the same, and says so"
        )
    if strangers and (rule == "refuse" or len(strangers) == len(pool)):
        raise ConfigError(_refusal(strangers, most, len(pool)))
    notes = (f"not used, because its hardware differs: {_said(strangers, most)}",) if strangers else ()
    chosen = {machine.id for machine in pool} - {machine.id for machine in strangers}
    return Stratum(expected=most, members=frozenset(chosen), notes=notes)


def _is_same(expected: Fingerprint, found: Fingerprint) -> bool:
    """No machine with GPUs of several kinds is the same as any: nobody knows which of them an evaluation gets."""
    return not differences(expected, found) and not any(_SEVERAL in value for value in found.values())


def _refusal(strangers: Sequence[Surveyed], most: Fingerprint, machines: int) -> str:
    kind = most.get("GPU", most.get("CPU", "one kind"))
    return (
        f"cluster: expected one kind of hardware on all {machines} nodes that fit, most have {kind}, but "
        f"{_said(strangers, most)}. Name the kind: [resources] accelerator_type of the target, or cluster.labels of "
        "the config; or -s cluster.mixed_hardware=stratify measures on the most frequent kind alone"
    )


def _said(machines: Sequence[Surveyed], most: Fingerprint) -> str:
    """Each machine's differences, those that differ in the same way together."""
    ways: dict[str, list[str]] = {}
    for machine in machines:
        inside = [f"{fact} {value} in one node" for fact, value in machine.fingerprint.items() if _SEVERAL in value]
        ways.setdefault(", ".join(inside or differences(most, machine.fingerprint)), []).append(machine.name)
    return "; ".join(f"{', '.join(names)} has {way}" for way, names in ways.items())
