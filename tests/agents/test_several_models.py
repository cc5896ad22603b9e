"""Several models take turns in writing children; who did is on record, and a resume chooses as the run would have."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from population.candidate import Operator, Proposal
from population.errors import ConfigError, InfrastructureError
from population.evaluation import Rejected, Scored
from population.events import Ended, Event, MutationDone, Proposed, RunStarted
from population.genome import Genome
from population.ledger import read_events
from population.objectives import Direction, Objective
from population.replay import State
from population.spending import Spending, Usage
from tests.agents.endpoint import KEY, serving
from tests.agents.test_search import PARTS, Improver, options
from tests.agents.wire import Chat
from tests.vibeserve.recorded import toy_config
from vibeserve.agents.ensemble import EnsembleMutator, ensemble_defects, members
from vibeserve.agents.options import AgentOptions, ModelOptions
from vibeserve.agents.prices import Price
from vibeserve.casting import Casting, compared_by
from vibeserve.display import SilentDisplay
from vibeserve.rules import Root, Rules
from vibeserve.wiring import resume, run

PRICES = {"large": Price(input=10.0, output=10.0), "small": Price(input=1.0, output=1.0)}
ROOT = Root(commit="c", tree="t", genome=Genome())
OBJECTIVES = (Objective(name="tok", direction=Direction.MAX, unit=None),)
BOTH = '[{model="large"}, {model="small", share=0.5}]'
ENSEMBLE = AgentOptions(provider="openai", model="m", base_url="http://here/v1", key_env="A", effort="low",
                        models=(ModelOptions(), ModelOptions(model="n", effort="high"),
                                ModelOptions(provider="anthropic", model="n", key_env="B")))  # fmt: skip


def rules(**more: object) -> Rules:
    given = {"seed": 3, "prices": PRICES, "shares": {"large": 1.0, "small": 1.0}, **more}
    return Rules(secret=b"", root=ROOT, **given)  # type: ignore[arg-type]


def history(*children: tuple[str, float, int], pending: int = 0) -> list[Event]:
    """(model, speed, tokens) of each child that has ended; `pending` more are in flight."""
    events: list[Event] = [RunStarted(run="r", seed=1, objectives=OBJECTIVES)]
    for number, (model, speed, tokens) in enumerate((("", 1.0, 0), *children)):
        operator = Operator.AGENT if number else Operator.SEED
        usage = Usage(input_tokens=tokens)
        spent = (Spending(role="implementer", model=model).with_answer(usage),) if number else ()
        events += [
            Proposed(proposal=Proposal(number=number, operator=operator, model=model or None)),
            MutationDone(number=number, commit=f"c{number}", tree=f"t{number}", genome=Genome(), spent=spent),
            Ended(number=number, evaluation=Scored(samples={"tok": (speed,) * 4})),
        ]
    for number in range(len(children) + 1, len(children) + 1 + pending):
        events.append(Proposed(proposal=Proposal(number=number, operator=Operator.AGENT, model="small")))
    return events


def next_child(number: int, operator: Operator = Operator.AGENT) -> Proposal:
    return Proposal(number=number, operator=operator, parents=("c000000",))


# --- who is chosen ----------------------------------------------------------------------------------------------------


def test_what_counts_is_the_gain_for_its_price() -> None:
    """Either gains as much for as many tokens, but one costs ten times as much."""
    children = [(model, 1.1**i, 1_000_000) for i, model in enumerate(["large", "small"] * 12, start=1)]
    state = State.replay(history(*children))
    first = len(children) + 1
    chosen = Counter(Casting(rules(), state).cast(next_child(first + i)).model for i in range(100))
    assert chosen["small"] > 80
    trials = Casting(rules(), state).trials()
    assert {round(t.cost, 6) for t in trials if t.model == "large"} == {10.0}
    by_token = Casting(rules(prices={}), state)
    assert {t.cost for t in by_token.trials()} == {1.0}, "without prices: millions of tokens"
    even = Counter(by_token.cast(next_child(first + i)).model for i in range(100))
    assert even["large"] > 20 and even["small"] > 20


def test_a_replay_of_the_ledger_gives_the_same_choices() -> None:
    events = history(*[(m, 1.0 + i / 10, 1000 * i) for i, m in enumerate(["large", "small"] * 8, 1)], pending=2)
    alike, one, two = rules(prices={}), State.replay(events), State()
    for event in events:
        two.apply(event)
        Casting(alike, two).trials()  # looking changes nothing
    choices = [[Casting(alike, state).cast(next_child(n)).model for n in range(19, 60)] for state in (one, two)]
    assert choices[0] == choices[1] and len(set(choices[0])) == 2
    other = [Casting(replace(alike, seed=4), one).cast(next_child(n)).model for n in range(19, 60)]
    assert other != choices[0], "chosen by the run's seed"


def test_children_in_flight_and_drawn_count_as_chosen() -> None:
    casting = Casting(rules(), State.replay(history(pending=2)))
    assert casting.cast(next_child(3)).model == "large", "the other one has its trials in flight"
    alone = Casting(rules(), State.replay(history()))
    drawn: list[Proposal] = []
    for number in range(1, 5):
        drawn.append(alone.cast(next_child(number), drawn))
    assert Counter(p.model for p in drawn) == {"large": 2, "small": 2}


def test_only_what_a_model_may_write_gets_one() -> None:
    casting = Casting(rules(), State.replay(history()))
    assert casting.cast(next_child(1, Operator.MERGE)).model is not None
    assert casting.cast(next_child(1, Operator.RECIPE)).model is None
    assert Casting(rules(shares={}), State.replay(history())).cast(next_child(1)).model is None


def test_merges_are_no_trials() -> None:
    events = history(("large", 2.0, 10))
    merge = Proposal(number=2, operator=Operator.MERGE, parents=("c000000", "c000001"), model="small")
    events += [
        Proposed(proposal=merge),
        MutationDone(number=2, commit="x", tree="y", genome=Genome()),
        Ended(number=2, evaluation=Scored(samples={"tok": (9.0,) * 4})),
    ]
    assert [trial.model for trial in Casting(rules(), State.replay(events)).trials()] == ["large"]


def test_the_user_is_told_what_is_compared() -> None:
    models = AgentOptions(provider="openai", models=(ModelOptions(model="large"), ModelOptions(model="small")))
    assert compared_by(rules(), models) == ["models large, small take turns, by what they gain per dollar"]
    (told,) = compared_by(rules(prices={}), models)
    assert "per token as long as no price is known for large, small" in told
    assert compared_by(rules(shares={}), AgentOptions()) == []


# --- who they are -----------------------------------------------------------------------------------------------------


def test_a_member_has_of_agents_what_it_does_not_say() -> None:
    plain, higher, other = (member.options for member in members(ENSEMBLE))
    assert (plain.model, plain.effort, plain.base_url) == ("m", "low", "http://here/v1")
    assert (higher.model, higher.effort, higher.key_env) == ("n", "high", "A")
    assert (other.provider, other.base_url, other.key_env) == ("anthropic", None, "B"), "another provider, another key"
    assert not any(member.options.models for member in members(ENSEMBLE))


def test_names_differ_or_it_is_said() -> None:
    assert [member.name for member in members(ENSEMBLE)] == ["m", "n (high)", "n"]
    assert ensemble_defects(ENSEMBLE) == []
    twice = AgentOptions(provider="openai", models=(ModelOptions(model="a"), ModelOptions(model="a")))
    assert "got 'a' more than once" in ensemble_defects(twice)[0]
    nobody = AgentOptions(provider="openai", models=(ModelOptions(model="a", share=0.0),))
    assert "share above 0" in ensemble_defects(nobody)[0]
    assert "[agents] provider" in ensemble_defects(AgentOptions(models=(ModelOptions(model="a"),)))[0]


def test_a_model_that_is_gone_is_a_fault_and_no_childs_fault(tmp_path: Path) -> None:
    class Author:
        def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Rejected:
            raise AssertionError("not asked")

    with pytest.raises(InfrastructureError, match=r"expected the model 'gone'.*a share of 0"):
        EnsembleMutator({"here": Author()}).mutate(
            tmp_path, Proposal(number=1, operator=Operator.AGENT, model="gone"), ""
        )


# --- a whole search ---------------------------------------------------------------------------------------------------


@pytest.mark.tier("A")
def test_a_search_with_two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("A_KEY", KEY)
    wire = Chat()
    with serving(Improver(wire), repeat=True) as endpoint:
        given = options(wire, endpoint, f"agents.models={BOTH}", "budget.children=4")
        run_dir = run(toy_config(tmp_path / "runs", *given), SilentDisplay(), PARTS).run_dir
        before = State.replay(read_events(run_dir / "ledger"))
        again = (f"agents.base_url={wire.base_url(endpoint.url)}", "budget.children=6")
        resume(run_dir, again, SilentDisplay(), PARTS)
    state = State.replay(read_events(run_dir / "ledger"))
    chosen = {number: child.proposal.model for number, child in state.archive.children.items() if number}
    assert set(chosen.values()) == {"large", "small"} and len(chosen) == 6
    asked = {number: cost.spent[0].model for number, cost in state.costs.items() if cost.spent}
    assert asked == chosen, "who was chosen has written it"
    bodies = Counter(str(request.body["model"]) for request in endpoint.asked)
    assert bodies == {model: 3 * count for model, count in Counter(chosen.values()).items()}
    first = {number: child.proposal.model for number, child in before.archive.children.items() if number}
    assert first.items() < chosen.items()
    with pytest.raises(ConfigError, match="got 'x' more than once"):
        run(toy_config(tmp_path / "x", *given, 'agents.models=[{model="x"}, {model="x"}]'), SilentDisplay(), PARTS)
