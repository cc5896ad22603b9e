"""What every policy must keep; subclass `PolicyContract` and give `policy(recipes)`.

Pure (same inputs, same answer), no duplicates of known or pending work, only recipes that apply, parents that are
scored, knobs within their declared range, silence instead of nonsense when nothing is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from population.archive import Archive
from population.candidate import Candidate, Child, Failure, Operator, Proposal
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.genome import Component, Genome, Knob
from population.objectives import Direction, Objective, ObjectiveSet
from population.recipe import Recipe
from search.pedigree import Descent
from search.policy import Policy

OBJECTIVES = ObjectiveSet(
    (
        Objective(name="tput", direction=Direction.MAX, unit="tok/s", relative_noise=0.02),
        Objective(name="ttft", direction=Direction.MIN, unit="ms", relative_noise=0.02),
    )
)
BATCH = Knob(value=8, type="int", low=1, high=64, scale="log")


def recipe(name: str, component: str, needs: tuple[str, ...] = (), conflicts: tuple[str, ...] = ()) -> Recipe:
    return Recipe(
        name=name,
        summary=name,
        components={component: 1},
        files={f"{component}.py": ""},
        needs=needs,
        conflicts=conflicts,
        provides=(name,),
    )


RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        recipe("cache", "kv_cache"),
        recipe("batch", "model", needs=("cache",)),
        recipe("order", "scheduler"),
        recipe("window", "kv_cache", conflicts=("cache",)),
        recipe("foreign", "absent"),
    )
}


def genome(provides: Sequence[str], batch: int = 8) -> Genome:
    names = {"kv_cache": ("cache", "window"), "model": ("batch",), "scheduler": ("order",)}
    return Genome(
        {
            name: Component(
                name=name,
                interface=1,
                implementation="x",
                provides=tuple(p for p in provides if p in own),
                knobs={"batch": replace(BATCH, value=batch)} if name == "scheduler" else {},
            )
            for name, own in names.items()
        }
    )


def measured(tput: float, ttft: float) -> Scored:
    return Scored(samples={"tput": (tput, tput * 1.01), "ttft": (ttft, ttft * 1.01)})


def wrong(stage: Stage = Stage.AUDIT) -> Rejected:
    return Rejected(stage=stage, reason="wrong tokens")


def candidate(proposal: Proposal, evaluation: Evaluation, provides: Sequence[str] = (), batch: int = 8) -> Candidate:
    return Candidate(
        proposal=proposal,
        commit=f"{proposal.number:040x}",
        tree=f"{proposal.number:040x}",
        genome=genome(provides, batch),
        evaluation=evaluation,
        cost_s=5.0,
    )


def applied(number: int, parent: str, name: str) -> Proposal:
    return Proposal(number=number, operator=Operator.RECIPE, parents=(parent,), recipe=name)


def archive(children: Sequence[Child], objectives: ObjectiveSet = OBJECTIVES) -> Archive:
    made = Archive(objectives)
    for child in children:
        made.add(child)
    return made


SEED = candidate(Proposal(number=0, operator=Operator.SEED), measured(10, 1000))


class PolicyContract:
    """One suite for every policy."""

    def policy(self, recipes: Mapping[str, Recipe]) -> Policy:
        raise NotImplementedError

    def test_the_same_inputs_give_the_same_answer(self) -> None:
        grown = self.grown(12, 0)
        first = self.policy(RECIPES).propose(grown, (), 40, np.random.default_rng(5))
        policy = self.policy(RECIPES)
        policy.propose(archive([SEED]), (), 1, np.random.default_rng(1))
        again = self.policy(RECIPES), policy
        copy = archive(list(grown.children.values()))
        assert [p.propose(a, (), 40, np.random.default_rng(5)) for p in again for a in (grown, copy)] == [first] * 4

    def test_the_archive_is_left_as_it_was(self) -> None:
        grown = self.grown(8, 1)
        before = (list(grown.children), grown.scored, grown.front)
        self.policy(RECIPES).propose(grown, (), 40, np.random.default_rng(5))
        assert (list(grown.children), grown.scored, grown.front) == before

    def test_the_proposal_carries_the_number(self) -> None:
        proposal = self.policy(RECIPES).propose(archive([SEED]), (), 7, np.random.default_rng(0))
        assert proposal is not None
        assert proposal.number == 7

    def test_pending_work_is_never_duplicated(self) -> None:
        for seed in range(5):
            policy, pending = self.policy(RECIPES), list[Proposal]()
            for number in range(1, 9):
                proposal = policy.propose(archive([SEED]), pending, number, np.random.default_rng([seed, number]))
                if proposal is not None:
                    pending.append(proposal)
            made = [(p.operator, p.parents, p.recipe, tuple(sorted(p.knobs.items()))) for p in pending]
            # Three recipes and one knob: a policy may leave slots free rather than fill all with its values.
            assert len(made) == len(set(made)) >= 5

    def test_whole_runs_stay_within_the_rules(self) -> None:
        for seed in range(6):
            self.grown(30, seed)

    def test_with_the_seed_only_everything_possible_is_tried_once(self) -> None:
        fixed = {name: replace(r, components={**r.components}) for name, r in RECIPES.items()}
        children: list[Child] = [replace(SEED, genome=without_knobs(SEED.genome))]
        tried = set()
        for number in range(1, 4):
            proposal = self.policy(fixed).propose(archive(children), (), number, np.random.default_rng(number))
            assert proposal is not None
            assert proposal.parents == ("c000000",)
            tried.add(proposal.recipe)
            children.append(candidate(proposal, wrong()))
        assert tried == {"cache", "order", "window"}
        assert self.policy(fixed).propose(archive(children), (), 4, np.random.default_rng(4)) is None

    def test_rejections_only_leave_the_seed_as_parent(self) -> None:
        stages = (Stage.MUTATE, Stage.BOOT, Stage.CHECKER, Stage.AUDIT)
        children: list[Child] = [SEED]
        for number, stage in enumerate(stages, start=1):
            proposal = self.policy(RECIPES).propose(archive(children), (), number, np.random.default_rng(number))
            assert proposal is not None
            assert proposal.parents == ("c000000",)
            failed = stage is Stage.MUTATE
            end = Failure(proposal=proposal, evaluation=wrong(stage), cost_s=1.0) if failed else None
            children.append(end or candidate(proposal, wrong(stage)))

    def test_no_scored_candidate_gives_no_proposal(self) -> None:
        alone = archive([replace(SEED, evaluation=wrong())])
        assert self.policy(RECIPES).propose(alone, (), 1, np.random.default_rng(0)) is None
        assert self.policy(RECIPES).remeasure(alone, (), np.random.default_rng(0)) is None

    def test_remeasure_names_a_scored_candidate_that_is_not_pending(self) -> None:
        grown = self.grown(10, 2)
        chosen = self.policy(RECIPES).remeasure(grown, (), np.random.default_rng(0))
        assert chosen in grown.scored
        assert self.policy(RECIPES).remeasure(grown, grown.scored, np.random.default_rng(0)) is None

    def test_infinite_latencies_do_no_harm(self) -> None:
        broken = Scored(samples={"tput": (0.0, 0.0), "ttft": (float("inf"), float("inf"))})
        children = [SEED, candidate(applied(1, "c000000", "cache"), broken, ("cache",))]
        for seed in range(5):
            assert self.policy(RECIPES).propose(archive(children), (), 2, np.random.default_rng(seed)) is not None

    def grown(self, count: int, seed: int) -> Archive:
        """A run on a small world; every proposal is checked on the way."""
        made, policy, descent = archive([SEED]), self.policy(RECIPES), Descent(RECIPES)
        pedigrees = {"c000000": descent.child(SEED.proposal, {})}
        seen = set()
        for number in range(1, count + 1):
            proposal = policy.propose(made, (), number, np.random.default_rng([seed, number]))
            if proposal is None:
                break
            self.check(made, proposal)
            known = {member: p for member, p in pedigrees.items() if p is not None}
            pedigree = descent.child(proposal, known)
            assert pedigree is not None, proposal
            assert pedigree not in seen, proposal
            seen.add(pedigree)
            made.add(self.born(made, proposal, pedigree.recipes))
            if proposal.id in made.candidates:
                pedigrees[proposal.id] = pedigree
        return made

    def check(self, made: Archive, proposal: Proposal) -> None:
        assert all(parent in made.scored for parent in proposal.parents)
        assert all(i in made.candidates and i not in proposal.parents for i in proposal.inspirations)
        parent = made.candidates[proposal.parents[0]].genome
        if proposal.operator is Operator.RECIPE:
            assert proposal.recipe is not None
            assert RECIPES[proposal.recipe].applies(parent)
        elif proposal.operator is Operator.TUNE:
            assert proposal.knobs
            for name, value in proposal.knobs.items():
                assert parent.knobs[name].admits(value)
                assert value != parent.knobs[name].value
        else:
            assert proposal.operator is Operator.MERGE
            assert len(set(proposal.parents)) == 2

    def born(self, made: Archive, proposal: Proposal, recipes: frozenset[str]) -> Child:
        batch = proposal.knobs.get("scheduler.batch") or max(
            made.candidates[p].genome.knobs["scheduler.batch"].value for p in proposal.parents
        )
        if "window" in recipes:
            return candidate(proposal, wrong(), sorted(recipes))
        tput = 10.0 * (3 if "cache" in recipes else 1) * (2 if "batch" in recipes else 1) * float(batch) ** 0.2
        ttft = 1000.0 * (0.7 if "order" in recipes else 1) * float(batch) ** 0.1
        return candidate(proposal, measured(tput, ttft), sorted(recipes), int(batch))


def without_knobs(made: Genome) -> Genome:
    return Genome({name: replace(component, knobs={}) for name, component in made.components.items()})
