"""Decides what a report says of a run, in which order: asked, found, learned, cost, how to repeat it, limits."""

from __future__ import annotations

import shlex

from population.evaluation import Scored
from vibeserve.display import FrontRow, MetricView
from vibeserve.front_rows import SEED
from vibeserve.narrative.blocks import Block, Bullets, Code, Document, Quote, Section, Table, Text
from vibeserve.narrative.findings import learned
from vibeserve.narrative.front import front_blocks
from vibeserve.narrative.material import Material
from vibeserve.wording import arrivals_text, duration, gain, isolation_text, number, span_text


def tell(material: Material) -> Document:
    """The report of a run, running or not."""
    summary = material.summary
    asked = Section(title="What was asked", blocks=_asked(material))
    if summary.seed is None:
        nothing = Text(text="No candidate was scored yet, so there is no front.")
        return Document(title=f"VibeServe run {summary.run}", lead=_lead(material),
                        sections=(asked, Section(title="The front", blocks=(nothing,)), _cost(material)))  # fmt: skip
    return Document(
        title=f"VibeServe run {summary.run}",
        lead=_lead(material),
        sections=(
            asked,
            Section(title="The front", blocks=front_blocks(material)),
            Section(title="What was learned", blocks=learned(material)),
            _cost(material),
            Section(title="How to reproduce it", blocks=_reproduce(material)),
            Section(title="Limits", blocks=(Bullets(items=_limits(material)),)),
        ),
    )


def _lead(material: Material) -> list[str]:
    summary = material.summary
    ended = f"{summary.state}" + (f" ({summary.stopped_because})" if summary.stopped_because else "")
    lines = [
        f"{ended[:1].upper()}{ended[1:]} after {duration(summary.elapsed_s)}: {summary.children} children, "
        f"{summary.scored} scored, {sum(summary.rejected.values())} rejected; a front of {len(summary.front)}."
    ]
    for objective in material.state.archive.objectives if summary.front else ():
        best = min(summary.front, key=lambda row: objective.cost(_metric(row, objective.name).value))
        found = _metric(best, objective.name)
        unit = f" {found.unit}" if found.unit else ""
        over = f", {gain(found.gain)} better than the seed" if best.id != SEED and found.gain else ""
        lines.append(
            f"Best {objective.name}: {number(found.value)}{unit} by `{best.id}`{over}, as measured in the search."
        )
    return lines


def _metric(row: FrontRow, name: str) -> MetricView:
    return next(metric for metric in row.metrics if metric.name == name)


def _asked(material: Material) -> list[Block]:
    objectives = material.state.archive.objectives
    rows = [(o.name, "more" if o.direction == "max" else "less", o.unit or "–", ", ".join(o.loads) or "–",
             f"{o.relative_noise:.0%}") for o in objectives]  # fmt: skip
    blocks: list[Block] = [
        Table(caption="Objectives", head=("objective", "better is", "unit", "loads", "declared noise"), rows=rows)
    ]
    target, config = material.target, material.config
    if target is not None:
        loads = [(load.name, arrivals_text(load), span_text(load.input_tokens), span_text(load.output_tokens),
                  str(load.shared_prefix_tokens or "–")) for load in target.loads]  # fmt: skip
        head = ("load", "arrivals", "prompt tokens", "answer tokens", "shared prefix")
        blocks += [Table(caption="Workload", head=head, rows=loads)] if loads else []
    if config is not None:
        budget = config.budget
        limits = [f"{budget.children} children" if budget.children else "", 
                  f"{duration(budget.wall_time_s)} of wall time" if budget.wall_time_s else "",
                  f"{budget.gpu_hours:g} GPU-hours" if budget.gpu_hours else ""]  # fmt: skip
        blocks.append(
            Text(text=f"Budget: {' and '.join(t for t in limits if t) or 'none'}. Policy: `{config.search.policy}`.")
        )
    if target is not None and target.objective.strip():
        blocks.append(Quote(text=target.objective, summary="OBJECTIVE.md in full"))
    return blocks


def _cost(material: Material) -> Section:
    state, summary = material.state, material.summary
    gpus = material.target.resources.num_gpus if material.target is not None else None
    rows = [
        ("wall time of the run", duration(summary.elapsed_s)),
        ("evaluations, summed", duration(state.evaluate_s)),
        ("mutations, summed", duration(state.mutate_s)),
        (
            "GPU-hours of evaluations",
            "unknown"
            if gpus is None
            else f"{state.evaluate_s * gpus / 3600:.2f}"
            if gpus
            else "none: no GPU is asked for",
        ),
        ("children", f"{summary.children}: {summary.scored} scored, {sum(summary.rejected.values())} rejected"),
        ("re-measurements and finals", f"{state.next_remeasure} and {len(state.finals)}"),
        ("faults of the machine", str(summary.errors)),
    ]
    used = {str(child.proposal.operator) for child in state.archive.children.values()} & {"agent", "repair"}
    rows.append(("LLM", "unknown: the ledger has no tokens and dollars" if used else "none was used"))
    blocks: list[Block] = [Table(caption="", head=("what", "how much"), rows=rows)]
    if summary.rejected:
        stages = [(stage, str(count)) for stage, count in sorted(summary.rejected.items(), key=lambda item: -item[1])]
        blocks.append(Table(caption="Rejected children", head=("at", "children"), rows=stages, numeric=frozenset({1})))
    return Section(title="Cost", blocks=blocks)


def _reproduce(material: Material) -> list[Block]:
    summary, run = material.summary, shlex.quote(str(material.run_dir))
    best = next((row.id for row in summary.front if row.id != SEED), SEED)
    steps = [
        ("this front", f"vibeserve front {run}"),
        ("a claim: fresh, paired, on one device", f"vibeserve verify {best} --against seed --pairs 10 --run {run}"),
        ("the commit", f"git -C {run}/population.git show refs/candidates/{best}"),
        ("a folder that runs without VibeServe", f"vibeserve deploy {best} my-server --run {run}"),
        ("the search again, in a run of its own",
         f"vibeserve run {run}/target --config {run}/run.toml \\\n"
         f"  -s skills.dir={run}/skills --seed {summary.rng_seed}"),
    ]  # fmt: skip
    started = material.state.started
    rows = [(n, "not set" if v == "None" else v) for n, v in (started.fingerprint if started else {}).items()]
    return [
        Code(text="\n\n".join(f"# {what}\n{command}" for what, command in steps), language="sh"),
        Text(text="With one slot and recorded measurements the same seed gives the same population. Real measurements "
                  "vary, and so does the order of events with several slots, and with them the search. What was "
                  "measured, by hash:"),
        Table(caption="", head=("part", "fingerprint"), rows=rows),
    ]  # fmt: skip


def _limits(material: Material) -> list[str]:
    summary, archive = material.summary, material.state.archive
    lines = [
        "The search's numbers are the best of many, so they are partly luck. Only `vibeserve verify` makes claims."
    ]
    fewest = min((m.n for row in summary.front for m in row.metrics), default=0)
    if 0 < fewest < 4:
        lines.append(
            f"Some members were measured {_times(fewest)}: below 4 repeats the interval leans on the declared noise."
        )
    missing = [row.id for row in summary.front if row.id not in summary.held_out]
    if missing:
        lines.append(f"Not measured on the held-out trace: {', '.join(missing)}.")
    for tier in sorted({row.tier for row in summary.front}):
        gaps = tuple(dict.fromkeys(gap for row in summary.front if row.tier == tier for gap in row.gaps))
        lines.append(f"Measured under isolation {isolation_text(tier, gaps)}.")
    measured = [e for row in summary.front for e in archive.evaluations(row.id) if isinstance(e, Scored)]
    flags = sorted({flag for evaluation in measured for flag in evaluation.flags})
    if flags:
        lines.append(
            f"Caveats of the front's measurements: {', '.join(flags)} (docs/measurement.md says what they mean)."
        )
    machines = {evaluation.hardware for evaluation in measured if evaluation.hardware}
    lines.append(
        f"Hardware: {'; '.join(sorted(machines)) or 'not recorded'}. Another machine can order the members differently."
    )
    lines.append("The audit is a sample: a fault in fewer tokens than it is likely to hold can pass one evaluation.")
    if summary.errors:
        lines.append(f"The machine failed {_times(summary.errors)}; none of that was charged to a candidate.")
    return lines


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
