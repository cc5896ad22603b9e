"""Decides what a brief tells of a run: which members, changes and failures the maker of a child is shown."""

from __future__ import annotations

from collections import OrderedDict

from evaluators.profiling.evidence import foremost
from population.archive import Archive
from population.candidate import Candidate, Child, Operator, Proposal
from population.evaluation import Rejected, Scored
from vibeserve.agents.transcript import FILE as TRANSCRIPT
from vibeserve.display import MetricView
from vibeserve.executor import Returned
from vibeserve.front_rows import label_of, metric_views
from vibeserve.prompts.facts import Brief, Ground, Lesson, Member, Parent
from vibeserve.prompts.rendering import rendered
from vibeserve.records import Records

_MOST_MEMBERS = 16
"""Of the front that are listed; of a larger one, a spread."""
_MOST_LESSONS = 6
_MOST_FILES = 300
_MOST_HOTSPOTS = 6
"""Of one kind of time."""
_EVIDENCE = ("stacks.txt",)
"""Files of children/<id>/ that a profiler leaves."""
_KEPT_DIFFS = 256


class Briefing:
    """Writes the briefs of one run. The same state gives the same brief."""

    def __init__(self, ground: Ground, records: Records) -> None:
        self._ground, self._state, self._repository = ground, records.state, records.repository
        self._children = records.children
        self._diffs: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._failed: dict[str, list[int]] = {}
        """Parent → its rejected children, in the order in which they ended."""
        self._followed = 0

    def brief(self, proposal: Proposal) -> str:
        """What the maker of the child is told, whole."""
        archive, merging = self._state.archive, proposal.operator is Operator.MERGE
        front = archive.front
        shown = [front[i * len(front) // _MOST_MEMBERS] for i in range(_MOST_MEMBERS)]
        found = Brief(
            ground=self._ground,
            proposal=proposal,
            parents=self._both(proposal) if merging else (self._parent(proposal.parents[0]),),
            front=tuple(self._member(name) for name in (front if len(front) <= _MOST_MEMBERS else shown)),
            front_size=len(front),
            inspirations=tuple(self._member(n, self._step(n)) for n in proposal.inspirations if archive.is_scored(n)),
            lessons=() if merging else self._lessons(proposal.parents[0]),
        )
        return rendered("merge" if merging else "brief", brief=found)

    def returned(self, proposal: Proposal, attempts: int) -> Returned:
        """The child's own tree, with why it was rejected. `attempts`: how often it may come back at most."""
        past = self._state.attempts[proposal.number]
        left = attempts - len(past)
        words = rendered("repair", id=proposal.id, rejected=past[-1].evaluation, left=left)
        transcript = self._kept(proposal.id, TRANSCRIPT)
        return Returned(commit=past[-1].commit, words=words, transcript=transcript, attempt=len(past))

    def profile(self, candidate: str) -> str:
        """The task of who reads a candidate's profile; empty where nothing was recorded."""
        scored = self._scored(candidate)
        evidence = {name: text for name in _EVIDENCE if (text := self._kept(candidate, name))}
        if scored is None or not (scored.hints or scored.profile or evidence):
            return ""
        return rendered(
            "profile",
            target=self._ground.target,
            candidate=candidate,
            metrics=self._values(candidate),
            hints=scored.hints,
            hotspots=foremost(scored.profile, _MOST_HOTSPOTS),
            evidence=evidence.items(),
        )

    def _kept(self, key: str, name: str) -> str:
        """A file of children/<key>/; empty if it was not kept."""
        try:
            return (self._children / key / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _scored(self, name: str) -> Scored | None:
        return next((e for e in self._state.archive.evaluations(name) if isinstance(e, Scored)), None)

    # --- members --------------------------------------------------------------------------------------------------

    def _parent(self, name: str, diff: str = "") -> Parent:
        candidate = self._state.archive.candidates[name]
        files = self._repository.read_files(candidate.commit)
        sizes = tuple((path, len(text.encode())) for path, text in sorted(files.items()))
        scored = self._scored(name)
        return Parent(
            member=self._member(name, diff),
            files=sizes[:_MOST_FILES],
            genome=candidate.genome,
            hints=scored.hints if scored else {},
            profile=foremost(scored.profile, _MOST_HOTSPOTS) if scored else (),
        )

    def _both(self, proposal: Proposal) -> tuple[Parent, Parent]:
        """Two parents, each with what it changed since both were one."""
        ours, theirs = (self._state.archive.candidates[name].commit for name in proposal.parents[:2])
        base = self._repository.merge_base(ours, theirs)
        one, two = (
            self._parent(name, self._diff(base, commit))
            for name, commit in zip(proposal.parents[:2], (ours, theirs), strict=True)
        )
        return one, two

    def _member(self, name: str, diff: str = "") -> Member:
        archive = self._state.archive
        candidate = archive.candidates[name]
        parents = candidate.proposal.parents
        before = self._values(parents[0]) if diff and parents and archive.is_scored(parents[0]) else ()
        return Member(
            id=name,
            how=self._how(candidate),
            parents=parents,
            on_front=name in archive.front,
            metrics=self._values(name),
            before=before,
            diff=diff,
        )

    def _values(self, name: str) -> tuple[MetricView, ...]:
        archive = self._state.archive
        if not archive.is_scored(name):
            return ()
        return metric_views(tuple(archive.objectives), archive.estimates(name), None)

    def _how(self, child: Child) -> str:
        """Operator, and what it did."""
        proposal = child.proposal
        told = self._state.summaries.get(proposal.number) or label_of(proposal)
        return told if told.startswith(str(proposal.operator)) else f"{proposal.operator} {told}".strip()

    # --- changes --------------------------------------------------------------------------------------------------

    def _step(self, name: str) -> str:
        """What a candidate changed in its first parent."""
        candidates = self._state.archive.candidates
        parents = candidates[name].proposal.parents
        return self._diff(candidates[parents[0]].commit, candidates[name].commit) if parents else ""

    def _diff(self, one: str, two: str) -> str:
        if (one, two) not in self._diffs:
            self._diffs[one, two] = self._repository.diff(one, two)
            if len(self._diffs) > _KEPT_DIFFS:
                self._diffs.popitem(last=False)
        return self._diffs[one, two]

    # --- failures -------------------------------------------------------------------------------------------------

    def _lessons(self, parent: str) -> tuple[Lesson, ...]:
        """The latest rejected children of the parent; then those of its ancestors, the nearest first."""
        self._follow()
        archive = self._state.archive
        found: list[Lesson] = []
        at: str | None = parent
        while at is not None and len(found) < _MOST_LESSONS:
            for number in reversed(self._failed.get(at, [])):
                child = archive.children[number]
                found += self._lesson(child)
                if len(found) == _MOST_LESSONS:
                    break
            at = next(iter(archive.candidates[at].proposal.parents), None)
        return tuple(found)

    def _lesson(self, child: Child) -> list[Lesson]:
        verdict = _verdict(self._state.archive, child)
        if verdict is None:
            return []
        proposal = child.proposal
        return [Lesson(id=proposal.id, how=self._how(child), parents=proposal.parents, verdict=verdict)]

    def _follow(self) -> None:
        """Take in the children that have ended since the last time."""
        children = self._state.archive.children
        for child in self._state.archive.latest(len(children) - self._followed):
            if isinstance(child.evaluation, Rejected):
                for parent in child.proposal.parents:
                    self._failed.setdefault(parent, []).append(child.proposal.number)
        self._followed = len(children)


def _verdict(archive: Archive, child: Child) -> Rejected | None:
    """What a child failed by, at first or when it was measured again."""
    evaluations = archive.evaluations(child.id) if isinstance(child, Candidate) else (child.evaluation,)
    return next((e for e in reversed(evaluations) if isinstance(e, Rejected)), None)
