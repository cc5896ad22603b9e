"""Decides how far a server is from the roof: what was measured over what the hardware allows, and what it moves for it.

Two sources, both of the target's `[roofline]` (`evaluators/roofline.py`): ceilings per metric, and bytes and operations
per step with the machine's peaks. Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from evaluators.roofline import Roof, Work, smaller_is_better
from population.objectives import ObjectiveSet

_MOST_CEILINGS = 4


def headroom(samples: Mapping[str, tuple[float, ...]], objectives: ObjectiveSet, roof: Roof) -> str:
    """One line, the largest gaps first; empty where the target says nothing of its hardware.

    Only what the objectives ask for: under a light load a throughput is what was offered, and no gap.
    """
    wanted = {f"{o.name}@{load}" for o in objectives for load in o.loads} | {o.name for o in objectives if not o.loads}
    asked = {name: _middle(samples[name]) for name in sorted(wanted) if samples.get(name)}
    texts = _from_ceilings(asked, roof.best) + (_from_work(asked, samples, roof.work) if roof.work else [])
    return "; ".join(texts)


def _from_ceilings(asked: Mapping[str, float], best: Mapping[str, float]) -> list[str]:
    """Measured value over ceiling, or the reverse: how many times better the best possible server would be."""
    gaps = []
    for name, value in asked.items():
        limit = best.get(name, best.get(name.partition("@")[0]))
        if not limit or not value or not math.isfinite(value):
            continue
        below = smaller_is_better(name)
        factor = value / limit if below else limit / value
        gaps.append((factor, f"{name} {value:.4g}, {'floor' if below else 'ceiling'} {limit:.4g}: {factor:.3g}×"))
    return [text for _, text in sorted(gaps, reverse=True)[:_MOST_CEILINGS]]


def _from_work(asked: Mapping[str, float], samples: Mapping[str, tuple[float, ...]], work: Work) -> list[str]:
    """Arithmetic that the tokens needed over the peak, and the time of one step's bytes over the time per token."""
    found = []
    for name, value in asked.items():
        metric, _, load = name.partition("@")
        if metric == "output_throughput":
            total = _middle(samples.get(name.replace(metric, "total_token_throughput"), ()))
            prompts = max(0.0, total - value)
            needed = value * work.flop_per_output_token + prompts * work.flop_per_prompt_token
            where = f" of load {load}" if load else ""
            found.append(f"the tokens{where} need {needed / work.flop_per_s:.1%} of the peak arithmetic")
        elif metric.endswith("_tpot_ms") and math.isfinite(value):
            step_ms = work.bytes_per_step / work.bytes_per_s * 1000
            text = f"reading a step's {_size(work.bytes_per_step)} takes {step_ms:.3g}"
            found.append(f"{name} {value:.4g}, of which {text}")
    return found


def _middle(values: tuple[float, ...]) -> float:
    """The median; 0 for none."""
    return sorted(values)[len(values) // 2] if values else 0.0


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
