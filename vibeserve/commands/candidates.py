"""Decides how one candidate is shown: where it comes from, what it changed, what was measured, what its server said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vibeserve.commands.options import CandidateArgument, JsonOption, RunOption, RunsDirOption

if TYPE_CHECKING:
    from vibeserve.dossier import Dossier


def show(
    candidate: CandidateArgument,
    run: RunOption = None,
    runs_dir: RunsDirOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every metric, not only the objectives.")] = False,
    json: JsonOption = False,
) -> None:
    """Everything known about a candidate: lineage, operator, knobs, metrics, verdict, hints and files."""
    from vibeserve.commands.output import console, print_json
    from vibeserve.dossier import dossier, dossier_json
    from vibeserve.runs import find_candidate
    from vibeserve.wording import clean

    found = dossier(find_candidate(candidate, run, runs_dir))
    if json:
        return print_json(dossier_json(found))
    screen = console(json)
    for line in _lines(found):
        screen.print(clean(line), soft_wrap=True)
    screen.print(_metrics(found, every))


def diff(
    candidate: CandidateArgument,
    other: Annotated[str | None, typer.Argument(metavar="[OTHER]", help="Compare with; default: the parent.")] = None,
    run: RunOption = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
) -> None:
    """What CANDIDATE changed with respect to OTHER (its first parent if omitted; `seed` is the first server)."""
    from population.repository import Repository
    from vibeserve.commands.output import console, print_json
    from vibeserve.dossier import dossier
    from vibeserve.runs import Reference, candidate_name, find_candidate
    from vibeserve.wording import clean

    reference = find_candidate(candidate, run, runs_dir)
    found = dossier(reference)
    base = candidate_name(other) if other else (found.proposal.parents or ("c000000",))[0]
    before = dossier(Reference(run_dir=reference.run_dir, candidate=base))
    repository = Repository.open(reference.run_dir / "population.git")
    text = repository.diff(_commit(before), _commit(found))
    if json:
        return print_json({"candidate": found.id, "against": base, "diff": text})
    from rich.syntax import Syntax

    screen = console(json)
    screen.print(f"{base} → {found.id}" + ("" if text else ": no difference"))
    if text and screen.is_terminal:
        screen.print(Syntax(clean(text), "diff", background_color="default", word_wrap=True))
    elif text:
        print(clean(text), end="")


def log(
    candidate: CandidateArgument,
    file: Annotated[str | None, typer.Option("--file", "-f", help="Which file; default: every log, its end.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Last lines of each file.")] = 40,
    run: RunOption = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
) -> None:
    """What is kept of a candidate beside its commit: brief, server log, checker and benchmark output."""
    from population.errors import UsageError
    from vibeserve.commands.output import console, print_json
    from vibeserve.runs import candidate_files, find_candidate
    from vibeserve.wording import clean

    reference = find_candidate(candidate, run, runs_dir)
    files = candidate_files(reference.run_dir, reference.candidate)
    chosen = [f for f in files if file is None or f.name == file]
    if not chosen:
        names = ", ".join(f.name for f in files) or "nothing"
        raise UsageError(f"{reference.candidate}: no file {file or 'was kept'}; kept: {names}")
    texts = {f.name: _tail(f, lines) for f in chosen}
    if json:
        return print_json({"candidate": reference.candidate, "files": texts})
    screen = console(json)
    for name, text in texts.items():
        screen.rule(name, align="left")
        screen.print(clean(text), soft_wrap=True)


def _commit(found: Dossier) -> str:
    from population.errors import UsageError

    if found.commit is None:
        raise UsageError(f"{found.id} never became a commit, so there is nothing to compare; `vibeserve show` says why")
    return found.commit


def _tail(path: Path, lines: int) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _lines(found: Dossier) -> list[str]:
    from vibeserve.front_rows import label_of
    from vibeserve.wording import isolation_text

    proposal = found.proposal
    lineage = " ← ".join(found.lineage)
    lines = [
        f"{found.id}  {found.verdict}",
        f"made by    {proposal.operator} {label_of(proposal)}".rstrip(),
        f"lineage    {lineage}" + (f"  (merged with {proposal.parents[1]})" if len(proposal.parents) > 1 else ""),
        f"commit     {found.commit or 'none'}",
    ]
    optional = {
        "summary": found.summary,
        "goal": proposal.goal or "",
        "inspired by": ", ".join(proposal.inspirations),
        "flags": ", ".join(found.flags),
        "isolation": isolation_text(found.tier, found.gaps) if found.tier else "",
        "components": ", ".join(f"{name}={what}" for name, what in found.components.items()),
        "knobs": ", ".join(f"{name}={value}" for name, value in found.knobs.items()),
        "audit": ", ".join(f"{name}={value:.4g}" for name, value in found.audit.items()),
        "hints": "; ".join(
            f"{name} {h:.0%}" if isinstance(h, float) else f"{name}: {h}" for name, h in found.hints.items()
        ),
        "stages": ", ".join(f"{name} {s:.1f} s" for name, s in found.stage_s.items()),
        "files": ", ".join(str(f) for f in found.files),
        "reason": found.reason,
    }
    lines += [f"{name:<10} {text}" for name, text in optional.items() if text]
    return lines + ([f"evidence\n{found.evidence}"] if found.evidence else [])


def _metrics(found: Dossier, every: bool) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from vibeserve.wording import gain, number

    if not found.metrics:
        return ""
    table = Table("metric (measured)", "value", "95 % interval", "n", "gain over the seed", box=SIMPLE_HEAD)
    for m in found.metrics:
        unit = f" {m.unit}" if m.unit else ""
        table.add_row(m.name, f"{number(m.value)}{unit}", f"{number(m.low)} – {number(m.high)}", str(m.n), gain(m.gain))
    if every:
        for name, e in sorted(found.others.items()):
            table.add_row(name, number(e.value), f"{number(e.low)} – {number(e.high)}", str(e.n), "", style="dim")
    return table
