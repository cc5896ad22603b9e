"""Decides which fronts may be compared: same target, workload, benchmark, client and hardware; or says what differs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from population.errors import RunError
from vibeserve.comparing.contenders import Contender, Identity
from vibeserve.lifecycle import RunState

_MEANING: Mapping[str, str] = {
    "objective": "target (OBJECTIVE.md)",
    "objectives": "objectives",
    "settings": "workload and server settings (target.toml)",
    "reference": "target (reference/)",
    "checker": "accuracy checker (accuracy_checker/)",
    "benchmark": "benchmark (benchmark/)",
    "seed": "seed server (seed/)",
    "vibeserve": "VibeServe version, and with it the load generator",
    "client": "who measured (client: VibeServe)",
}
_SHOWN_KEYS = 6


def differences(contenders: Sequence[Contender]) -> tuple[str, ...]:
    """One sentence for each thing in which a contender differs from the first; empty: they may be compared."""
    first = contenders[0]
    return tuple(
        f"{other.name} differs from {first.name} in {sentence}"
        for other in contenders[1:]
        for sentence in _between(first.identity, other.identity)
    )


def require_fair(contenders: Sequence[Contender], force: bool) -> tuple[str, ...]:
    """What differs, to be printed on everything that is made of these fronts.

    Raises:
        RunError: something differs and it is not forced.
    """
    found = differences(contenders)
    if found and not force:
        raise RunError(
            "these fronts were not measured alike, so that their numbers do not compare:\n  "
            + "\n  ".join(found)
            + "\nMeasure them alike, or give --force: then the output says that it is not a fair comparison"
        )
    return found


def caveats(contenders: Sequence[Contender]) -> tuple[str, ...]:
    """What makes a comparison weaker than it looks, without making it wrong."""
    found = [f"{c.name}: {caveat}" for c in contenders for caveat in c.caveats]
    if not all(c.identity.hardware for c in contenders):
        unknown = ", ".join(c.name for c in contenders if not c.identity.hardware)
        found.append(f"the hardware is not on record for {unknown}; only you can know that it was the same")
    traces = {c.trace_seed for c in contenders if c.trace_seed is not None}
    if len(traces) > 1:
        found.append(
            "arrival times and lengths were drawn differently from the same workload; a few percent may be that. "
            "`-s evaluation.trace_seed=0` (`vibeserve sweep` pins it) gives all searches the same, and "
            "`vibeserve bench --seed 0` a baseline"
        )
    tiers = frozenset().union(*(c.tiers for c in contenders))
    if len(tiers) > 1:
        found.append(f"isolation differs: {'; '.join(f'{c.name} tier {_joined(c.tiers)}' for c in contenders)}")
    states = [f"{c.name} ({c.state})" for c in contenders if c.state not in (None, RunState.FINISHED)]
    if states:
        found.append(f"not finished: {', '.join(states)}; their fronts may still grow")
    return tuple(found)


def _between(a: Identity, b: Identity) -> list[str]:
    if a.partial or b.partial:
        return [*_outside(a, b), *_machines(a, b)]
    sentences = [
        f"{meaning}: {_detail(part, a, b) or f'{_short(b.parts.get(part))}, not {_short(a.parts.get(part))}'}"
        for part, meaning in _MEANING.items()
        if a.parts.get(part) != b.parts.get(part)
    ]
    return sentences + _machines(a, b)


def _outside(a: Identity, b: Identity) -> list[str]:
    """A measurement outside a run must have been made by the same client, with the same declarations of its loads."""
    sentences = [
        f"{_MEANING[part]}: {_short(b.parts.get(part))}, not {_short(a.parts.get(part))}"
        for part in ("client", "vibeserve")
        if a.parts.get(part) != b.parts.get(part)
    ]
    if a.loads and b.loads:
        sentences += [
            f"load {name}: {_load_detail(a.loads[name], b.loads[name])}"
            for name in sorted(a.loads.keys() & b.loads.keys())
            if a.loads[name] != b.loads[name]
        ]
    else:
        sentences.append("workload, as far as one can tell: its loads are not on record")
    return sentences


def _load_detail(old: str, new: str) -> str:
    before, after = json.loads(old), json.loads(new)
    keys = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return ", ".join(f"{key} is {after.get(key)}, not {before.get(key)}" for key in keys)


def _machines(a: Identity, b: Identity) -> list[str]:
    """Outside a run the machine is known, not the server's share of it: it must have what the run was measured on."""
    if not a.hardware or not b.hardware or a.hardware == b.hardware:
        return []
    old, new = _models(a.hardware), _models(b.hardware)
    if (a.partial or b.partial) and (old <= new if b.partial else new <= old):
        return []
    return [f"hardware: {_joined(b.hardware)}, not {_joined(a.hardware)}"]


def _models(hardware: frozenset[str]) -> frozenset[str]:
    return frozenset(part.partition(" × ")[2] for text in hardware for part in text.split(", "))


def _detail(part: str, a: Identity, b: Identity) -> str:
    """Which keys of target.toml differ; empty where that cannot be told."""
    if part != "settings" or a.target is None or b.target is None:
        return ""
    old, new = (_flat(_read(identity.target)) for identity in (a, b))
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    shown = [f"{key} is {new.get(key, 'absent')}, not {old.get(key, 'absent')}" for key in keys[:_SHOWN_KEYS]]
    return "; ".join(shown) + (f"; and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else "")


def _read(target: Path | None) -> Mapping[str, Any]:
    try:
        return tomllib.loads((target / "target.toml").read_text(encoding="utf-8")) if target else {}
    except (OSError, ValueError):
        return {}


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}{name}.").items()}
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        named = [(str(item.get("name", i)), item) for i, item in enumerate(value)]
        return {k: v for name, item in named for k, v in _flat(item, f"{prefix}{name}.").items()}
    return {prefix.removesuffix("."): str(value)}


def _short(text: str | None) -> str:
    if text is None:
        return "absent"
    return text[:12] if len(text) == 64 and " " not in text else text


def _joined(names: frozenset[str]) -> str:
    return " and ".join(sorted(names)) or "unknown"
