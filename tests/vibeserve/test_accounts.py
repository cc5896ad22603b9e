"""What a run has cost: by child, role and model, from its ledger alone; what is not known is never 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from population.candidate import Operator, Proposal
from population.evaluation import Rejected, Scored, Stage
from population.events import Ended, Event, Faulted, MutationDone, Proposed, RunStarted, SentBack
from population.genome import Genome
from population.objectives import Direction, Objective
from population.replay import State
from population.spending import Spending, Usage
from tests.vibeserve.fabricated import FabricatedRun, scored
from vibeserve.account_view import sheets, unknown_text
from vibeserve.accounts import Tariff, account, account_json
from vibeserve.agents.prices import Price
from vibeserve.commands.candidates import show
from vibeserve.commands.runs import status
from vibeserve.dashboard.candidate import candidate_page
from vibeserve.dashboard.course import progress
from vibeserve.dashboard.operators import operators
from vibeserve.dashboard.spending import Prices
from vibeserve.follower import Followed
from vibeserve.narrative.material import gather
from vibeserve.narrative.story import tell
from vibeserve.run_prices import PRICES_FILE

PRICES = {"large": Price(input=10.0, output=50.0, cached_input=1.0), "small": Price(input=1.0, output=5.0)}
TARIFF = Tariff(prices=PRICES, gpus=2)
FAILED = Rejected(stage=Stage.MUTATE, reason="no idea")
OBJECTIVES = (Objective(name="tok", direction=Direction.MAX, unit=None),)


def asked(model: str, role: str = "implementer", tokens: int = 1_000_000, seconds: float = 10.0) -> Spending:
    spent = Spending(role=role, model=model, elapsed_s=seconds)
    return spent.with_answer(Usage(input_tokens=tokens, output_tokens=tokens // 10))


def proposed(number: int) -> Proposed:
    return Proposed(proposal=Proposal(number=number, operator=Operator.AGENT if number else Operator.SEED))


def made(number: int, *spent: Spending, elapsed_s: float = 60.0, tree: str = "") -> MutationDone:
    return MutationDone(
        number=number, commit=f"c{number}", tree=tree or f"t{number}", genome=Genome(), elapsed_s=elapsed_s, spent=spent
    )


def ended(number: int, elapsed_s: float = 1800.0) -> Ended:
    return Ended(number=number, evaluation=Scored(samples={"tok": (float(number + 1),)}), elapsed_s=elapsed_s)


HISTORY: tuple[Event, ...] = (
    RunStarted(run="r", seed=1, objectives=OBJECTIVES),
    proposed(0),
    made(0, elapsed_s=0.0),
    ended(0),
    proposed(1),
    proposed(2),
    proposed(3),
    Faulted(key="c000001", reason="the provider is down", attempt=1, spent=(asked("large"),)),
    made(1, asked("large"), asked("small", "judge")),
    SentBack(number=1, evaluation=Rejected(stage=Stage.BOOT, reason="no"), elapsed_s=600.0),
    made(1, asked("large"), tree="t1b"),
    ended(1),
    Ended(number=2, evaluation=FAILED, elapsed_s=30.0, spent=(asked("small"),)),
    made(3, asked("other")),
    ended(3),
    Faulted(key="r000000", reason="a node is gone", attempt=1),
)


def test_everything_that_was_asked_for_a_child_is_its_cost() -> None:
    found = account(State.replay(HISTORY), TARIFF)
    first = found.children[1]
    assert {(s.role, s.model): s.requests for s in first.spent} == {("implementer", "large"): 3, ("judge", "small"): 1}
    assert first.bill.dollars == pytest.approx(3 * (10 + 5) + 1.5)
    assert (first.mutate_s, first.evaluate_s, first.gpu_hours) == (120.0, 2400.0, pytest.approx(4 / 3))
    second = found.children[2]
    assert (second.mutate_s, second.evaluate_s, second.gpu_hours) == (30.0, 0.0, 0.0)
    assert found.children[0].spent == () and found.children[0].evaluate_s == 1800.0


def test_models_and_roles_add_up_to_all() -> None:
    state = State.replay(HISTORY)
    found = account(state, TARIFF)
    assert found.total.tokens == sum(spent.tokens for spent, _ in found.roles) == 6_600_000
    assert set(found.models) == {"large", "small", "other"}, "a judge writes nothing, so its model has what it wrote"
    assert found.models["large"].children == 1 and found.models["small"].children == 1
    assert found.models["large"].bill.dollars == pytest.approx(46.5), "the judge of its child is part of the price"
    assert found.total.gpu_hours == pytest.approx(state.evaluate_s * 2 / 3600)
    assert sum(spent.elapsed_s for spent, _ in found.roles) == 60.0


def test_an_unknown_part_is_said_and_nothing_is_0_for_want_of_a_price() -> None:
    found = account(State.replay(HISTORY), TARIFF)
    assert found.total.bill.text() == "$48.00 + unknown"
    told = account_json(found)
    assert told["dollars"] == pytest.approx(48.0) and told["dollars_unknown"] == ["no price for model 'other'"]
    (other,) = (row for row in told["by_model"] if row["model"] == "other")
    assert other["dollars"] is None
    assert unknown_text(found.total.bill) == "Unknown: no price for model 'other'."
    nowhere = account_json(account(State.replay(HISTORY), Tariff(prices=PRICES)))
    assert nowhere["gpu_hours"] is None and nowhere["by_model"][0]["gpu_hours"] is None
    json.dumps(told, allow_nan=False)


def test_a_price_that_holds_for_short_requests_is_applied_child_by_child() -> None:
    short = Tariff(prices={"large": Price(input=1.0, output=1.0, up_to_input_tokens=100)})
    events = (
        *HISTORY[:4],
        proposed(1), made(1, asked("large", tokens=100)), ended(1),
        proposed(2), made(2, asked("large", tokens=101)), ended(2),
    )  # fmt: skip
    found = account(State.replay(events), short)
    assert found.children[1].bill.known and not found.children[2].bill.known
    assert found.total.bill.dollars == pytest.approx(110 / 1e6) and not found.total.bill.known


def test_a_run_without_models_has_no_table() -> None:
    found = account(State.replay(HISTORY[:4]), TARIFF)
    assert sheets(found) == []
    assert account_json(found)["dollars"] == 0.0


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run = FabricatedRun.create(tmp_path, "20260101-000000-asked", "seed = 7\n[budget]\ntokens = 2_500_000\n")
    run.child(0, scored(100, 50), Operator.SEED)
    run.child(1, scored(200, 40), Operator.AGENT, parents=("c000000",))
    run.append(proposed(2))
    run.append(Ended(number=2, evaluation=FAILED, elapsed_s=30.0, spent=(asked("small"), asked("dear", "judge"))))
    run.close()
    (run.folder / PRICES_FILE).write_text("[model.small]\ninput = 1.0\noutput = 5.0\n")
    return run.folder


def test_status_report_and_show_tell_it(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status(str(run_dir))
    text = capsys.readouterr().out
    assert "tokens 2,200,000/2,500,000" in text and "88% of a budget is used" in text
    row = next(line for line in text.splitlines() if line.startswith("implementer"))
    assert row.split()[:6] == ["implementer", "small", "1", "1.0", "M", "0"], (
        "80 columns hold it, and no word is broken"
    )
    assert "$1.50 + unknown" in text and "no price for model 'dear'" in text and "judge" in text
    status(str(run_dir), json=True)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["spent"]["by_child"][-1]["id"] == "c000002"
    assert {b["name"]: b["used"] for b in told["budgets"]}["tokens"] == 2_200_000
    assert len(told["warnings"]) == 1
    show("c000002", run=str(run_dir), json=True)
    cost = json.loads(capsys.readouterr().out)["cost"]
    assert cost["mutate_s"] == 30.0 and [row["role"] for row in cost["by_role_and_model"]] == ["implementer", "judge"]
    show("c000002", run=str(run_dir))
    assert "$1.50 + unknown for models (implementer small 1,100,000 tokens" in capsys.readouterr().out
    document = tell(gather(run_dir))
    (section,) = (section for section in document.sections if section.title == "Cost")
    words = str(section.blocks)
    assert "2,200,000 tokens" in words and "$1.50 + unknown" in words and "The dearest children" in words
    assert "2,500,000 tokens" in str(document.sections[0].blocks), "the budget is part of what was asked"


def test_the_dashboard_shows_it(run_dir: Path) -> None:
    run = Followed(run_dir)
    run.refresh()
    found = operators(run)
    (model,) = found["models"]
    assert (model["name"], model["cost"], model["gained_per_dollar"]) == ("small", "$1.50 + unknown", None)
    assert [(row["role"], row["cost"]) for row in found["roles"]] == [("implementer", "$1.50"), ("judge", "unknown")]
    assert progress(run, Prices())["why_no_dollars"] == "Unknown: no price for model 'dear'"
    assert candidate_page(run, "c000002", Prices())["model_dollars"] == "$1.50 + unknown"
    assert candidate_page(run, "c000001", Prices())["model_dollars"] is None
