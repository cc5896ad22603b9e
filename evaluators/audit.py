"""Decides whether the timed tokens are the model's: the reference re-scores a sample of the benchmark's own answers.

Teacher forcing: the reference computes the logits z at every emitted token, given the tokens before it as they were
served. The gap is (max z - z[emitted]) / std(z). The verdict looks at the largest gap of answers that were served
concurrently, because a scheduling bug that corrupts one token in hundreds leaves mean and p99 innocent and never shows
in a serial check.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.command import TrustedCommand, run_trusted
from evaluators.load.record import Response
from evaluators.probes import ECHO, PROBE
from evaluators.server import describe_exit
from evaluators.strata import broken_halves
from evaluators.strict_json import Malformed, metric, read_object
from evaluators.target_schema import AuditTable
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage

AUDITED = ("timed", PROBE, ECHO)
"""Purposes of answers that are greedy, so that the reference can score them."""
THRESHOLDS = ("max_gap", "p999_gap", "mean_gap", "flip_rate")
"""Figures of the audit that the target may bound, the decisive one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One answer to re-score, and how many others were being served when it was in the middle."""

    response: Response
    occupancy: int


def sample_responses(responses: Sequence[Response], count: int, seed: int) -> list[Sampled]:
    """All probes and their echoes, and timed answers from strata by load, occupancy, time and prompt length in turn.

    `count` bounds probes and timed answers together, but leaves out no probe. Answers that the window cut off count
    too: their tokens were measured. The choice depends on the secret seed.
    """
    scorable = [r for r in responses if r.output_ids and r.failure is None and r.purpose in AUDITED]
    always = [Sampled(response=r, occupancy=_occupancy(r, scorable)) for r in scorable if r.purpose != "timed"]
    count = max(0, count - sum(item.response.purpose == PROBE for item in always))
    answered = [r for r in scorable if r.purpose == "timed"]
    rng = random.Random(f"audit/{seed}")
    sampled = [Sampled(response=r, occupancy=_occupancy(r, scorable)) for r in answered]
    rng.shuffle(sampled)
    strata: dict[tuple[Any, ...], list[Sampled]] = {}
    for item in sampled:
        strata.setdefault(_stratum(item, sampled), []).append(item)
    queues = [strata[key] for key in sorted(strata, key=str)]
    rng.shuffle(queues)
    # Crowded strata first, so that a small sample is one of answers that shared a batch.
    queues.sort(key=lambda queue: -max(item.occupancy for item in queue))
    chosen: list[Sampled] = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    return always + chosen[:count]


def audit(
    sample: Sequence[Sampled], table: AuditTable, command: TrustedCommand, words: Mapping[str, str]
) -> dict[str, float] | Rejected:
    """Re-score a sample: the audit's figures, or a rejection if one is above its threshold.

    `words` names the files for `{responses}` and `{output}`.

    Raises:
        InfrastructureError: the target's score command failed; the candidate has no part in it.
    """
    if not sample:
        return Rejected(stage=Stage.AUDIT, reason="no answer of the benchmark can be re-scored: none brought token ids")
    _write(sample, Path(words["responses"]))
    outcome = run_trusted(command, dict(words))
    if outcome.code != 0:
        ended = "did not end in time" if outcome.code is None else f"failed ({describe_exit(outcome.code)})"
        raise InfrastructureError(
            f"the target's [audit] command {ended} after {command.timeout_s:g} s at most:\n{outcome.output}"
        )
    try:
        report = read_object(Path(words["output"]))
        figures = {name: metric(report, name) for name in ("tokens", *THRESHOLDS)}
        expected = sum(len(item.response.output_ids or ()) for item in sample)
        if figures["tokens"] != expected:
            raise Malformed(f"it scored {figures['tokens']:g} tokens, expected {expected}")
        return _verdict(figures, table, report, sample) or figures
    except Malformed as error:
        raise InfrastructureError(f"the target's [audit] command wrote an unusable report: {error}") from error


def _verdict(
    figures: Mapping[str, float], table: AuditTable, report: Mapping[str, Any], sample: Sequence[Sampled]
) -> Rejected | None:
    limits = {name: limit for name in THRESHOLDS if (limit := getattr(table, name)) is not None}
    broken = [f"{name} {figures[name]:.4g} > {limit:.4g}" for name, limit in limits.items() if figures[name] > limit]
    if not broken:
        shapes = {item.response.id: (len(item.response.prompt_ids), item.occupancy) for item in sample}
        means = {name: limit for name, limit in limits.items() if name in ("mean_gap", "flip_rate")}
        broken = broken_halves(report, shapes, means)
    if not broken:
        return None
    said = ", ".join(broken)
    reason = f"the served tokens are not the model's: {said} over {figures['tokens']:.0f} tokens"
    return Rejected(stage=Stage.AUDIT, reason=reason, evidence=_worst(report, sample))


def _worst(report: Mapping[str, Any], sample: Sequence[Sampled], count: int = 5) -> str:
    """The answers with the largest gaps, one line each."""
    scores = [
        s for s in report.get("per_response", []) if isinstance(s, dict) and isinstance(s.get("max_gap"), int | float)
    ]
    scores.sort(key=lambda s: -float(s["max_gap"]))
    known = {item.response.id: item for item in sample}
    lines = []
    for score in scores[:count]:
        item = known.get(str(score.get("id")))
        if item is not None:
            place = (
                f"load {item.response.load}, prompt of {len(item.response.prompt_ids)}, {item.occupancy} served at once"
            )
            lines.append(
                f"{item.response.id}: max_gap {score['max_gap']:.4g} at output token {score.get('worst_position')}, "
                f"{score.get('flips')} flips in {score.get('tokens')} tokens ({place})"
            )
    return "\n".join(lines)[:4000]


def _write(sample: Sequence[Sampled], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for item in sample:
            response = item.response
            line = {
                "id": response.id,
                "load": response.load,
                "prompt_ids": response.prompt_ids,
                "output_ids": response.output_ids,
                "occupancy": item.occupancy,
            }
            file.write(json.dumps(line, separators=(",", ":")) + "\n")


def _occupancy(response: Response, others: Sequence[Response]) -> int:
    """Answers of the same run of a load, this one included, that were under way halfway through this one."""
    middle_s, run = (response.sent_s + response.end_s) / 2, _run_of(response)
    return sum(_run_of(o) == run and o.sent_s <= middle_s <= o.end_s for o in others)


def _run_of(response: Response) -> tuple[str, str]:
    """Load, and what the id says of repeat and trial: times of different runs do not compare."""
    return response.load, response.id.partition("/")[0]


def _stratum(item: Sampled, population: Sequence[Sampled]) -> tuple[Any, ...]:
    peers = [p for p in population if p.response.load == item.response.load]

    def upper(values: list[float], value: float) -> bool:
        return value > sorted(values)[len(values) // 2]

    return (
        item.response.load,
        upper([p.occupancy for p in peers], item.occupancy),
        upper([p.response.sent_s for p in peers], item.response.sent_s),
        upper([len(p.response.prompt_ids) for p in peers], len(item.response.prompt_ids)),
    )
