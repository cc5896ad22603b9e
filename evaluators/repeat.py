"""Decides what one repeat of the loads amounts to: a value per metric, or why the answers are no measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.load.metrics import only_bounds
from evaluators.load.record import Response
from evaluators.load.result import ErrorGroup, LoadResult, error_groups, result_json
from evaluators.noise import CpuWindow
from evaluators.process import printable
from evaluators.roofline import impossible
from evaluators.strict_json import Malformed, check_metric
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage

HONEST_FAILURES = frozenset({"timeout", "connection-lost", "connection-failed", "http-status"})
"""Failures of a server that is merely overloaded: infinite latency. Every other kind breaks the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """All loads once, and who else was busy meanwhile."""

    results: tuple[LoadResult, ...]
    window: CpuWindow
    foreign_gpu: tuple[str, ...] = ()
    """Processes of others that computed on the lease's GPUs."""

    @property
    def noisy(self) -> bool:
        """Whether others disturbed it."""
        return self.window.noisy or bool(self.foreign_gpu)

    @property
    def disturbance(self) -> tuple[bool, float]:
        """Orders repeats of one server: the quietest is the smallest."""
        return bool(self.foreign_gpu), self.window.foreign_share


def readings(repeat: Repeat, best: Mapping[str, float]) -> dict[str, float] | Rejected:
    """The metrics of one repeat by name, or why they are none; `best`: what no server can beat.

    Raises:
        InfrastructureError: no token came while others used the lease: nobody knows whose fault that was.
    """
    values: dict[str, float] = {}
    alone = len(repeat.results) == 1
    tokens, too_small = 0.0, set[str]()
    for result in repeat.results:
        name = result.load.name
        if (fault := protocol_fault(result.responses, f"load '{name}'")) is not None:
            return fault
        if not result.metrics.get("total_output_tokens"):
            silence = f"load '{name}' got no verified token in its window of {result.load.window_s or 0:g} s"
            if repeat.noisy:
                raise InfrastructureError(
                    f"{silence} while others used {repeat.window.foreign_share:.1f} of its CPUs"
                    f"{' and ' + ', '.join(repeat.foreign_gpu) + ' its GPUs' if repeat.foreign_gpu else ''}; "
                    "give this machine's evaluations to themselves, or longer windows"
                )
            return rejection(silence, result.errors)
        tokens += result.metrics["total_output_tokens"]
        unseen = tuple(f"_{latency}_ms" for latency in only_bounds(result.responses))
        try:
            for metric, value in result.metrics.items():
                number = check_metric(f"{metric}@{name}", value, infinite=metric.endswith("_ms"))
                values[f"{metric}@{name}"] = number
                if alone:
                    values[metric] = number
                if unseen and metric.endswith(unseen):
                    too_small |= {f"{metric}@{name}", metric}
        except Malformed as error:
            return rejection(str(error), result.errors)
    values["cpu_ms_per_token"] = max(0.0, repeat.window.server_s) * 1000 / tokens
    values["foreign_cpu_share"] = repeat.window.foreign_share
    return impossible({name: value for name, value in values.items() if name not in too_small}, best) or values


def protocol_fault(responses: Sequence[Response], where: str) -> Rejected | None:
    """A rejection if an answer is not what was asked for; failures of a server that is merely overloaded are not."""
    groups = error_groups(responses)
    broken = [group for group in groups if group.kind not in HONEST_FAILURES]
    if not broken:
        return None
    count = sum(group.count for group in broken)
    reason = f"{count} of {len(responses)} answers of {where} break the protocol: {broken[0].kind}"
    return rejection(reason, groups)


def rejection(reason: str, groups: Sequence[ErrorGroup]) -> Rejected:
    """With the failures as evidence."""
    lines = [f"{group.count} x {group.kind}: {text}" for group in groups for text in group.evidence]
    return Rejected(stage=Stage.BENCHMARK, reason=reason, evidence=printable("\n".join(lines))[:4000])


def repeat_json(repeat: Repeat) -> dict[str, object]:
    """The repeat for `benchmark.json`."""
    window = repeat.window
    return {
        "loads": [result_json(result) for result in repeat.results],
        "cpu": {
            "elapsed_s": window.elapsed_s,
            "server_s": window.server_s,
            "own_s": window.own_s,
            "foreign_share": window.foreign_share,
        },
        "foreign_gpu": list(repeat.foreign_gpu),
    }
