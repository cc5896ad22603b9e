"""What a brief tells of a run: parents, front, others with their changes, and the failures of the lineage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.target import load_target
from population.candidate import Operator, Proposal
from population.evaluation import Hotspot, Rejected, Scored, Stage
from population.events import Ended, MutationDone, Proposed, RunStarted, SentBack
from population.genome import parse_genome
from population.ledger import Ledger
from population.replay import State
from population.repository import Repository
from tests.vibeserve.recorded import TOY
from vibeserve.briefing import Briefing
from vibeserve.prompts.facts import Ground
from vibeserve.records import Records

SEED = {path.name: path.read_bytes() for path in (TOY / "seed").iterdir() if path.is_file()}
TARGET = load_target(TOY)


def scored(throughput: float, ttft_ms: float) -> Scored:
    return Scored(
        samples={
            "output_throughput@high": (throughput,),
            "median_ttft_ms@low": (ttft_ms,),
            "median_ttft_ms@high": (ttft_ms,),
            "median_tpot_ms@low": (4.0,),
        },
        hints={"headroom": "3 × above the roof"},
        profile=(Hotspot(name="aten::mm", share=0.25, of="CPU time", source="torch"),),
    )


def rejected(reason: str) -> Rejected:
    return Rejected(stage=Stage.CHECKER, reason=reason, evidence=f"evidence of {reason}")


class Run:
    """A run that is written down child by child."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.repository = Repository.create(folder / "population.git", durable=False)
        self.state = State()
        self.records = Records(
            ledger=ledger, state=self.state, repository=self.repository, children=folder / "children",
            stop_marker=folder / "stop",
        )  # fmt: skip
        self.state.apply(RunStarted(run="r", seed=1, objectives=tuple(TARGET.objectives)))
        self.child(0, scored(100, 20), {}, ())

    def child(
        self,
        number: int,
        verdict: Scored | Rejected,
        changed: dict[str, bytes],
        parents: tuple[str, ...] = ("c000000",),
    ) -> None:
        operator = Operator.AGENT if number else Operator.SEED
        commits = [self.state.archive.candidates[parent].commit for parent in parents]
        base = self.repository.read_files(commits[0]) if commits else {}
        files = {**SEED, **{path: text.encode() for path, text in base.items()}, **changed}
        commit = self.repository.commit_tree(files, parents=commits, message=f"child {number}", number=number)
        genome = parse_genome(self.repository.read_files(commit.sha, "*.toml"))
        self.state.apply(Proposed(proposal=Proposal(number=number, operator=operator, parents=parents)))
        self.state.apply(
            MutationDone(
                number=number, commit=commit.sha, tree=commit.tree, genome=genome, summary=f"agent: idea {number}"
            )
        )
        self.state.apply(Ended(number=number, evaluation=verdict))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """The seed; 1 and 2 beside it on the front; 3 behind 1; failures below the seed, 1 and 3."""
    with Ledger.open(tmp_path / "ledger") as ledger:
        made = Run(tmp_path, ledger)
        made.child(1, scored(200, 30), {"one.md": b"idea one\n"})
        made.child(2, scored(50, 5), {"two.md": b"idea two\n"})
        made.child(3, scored(190, 31), {"three.md": b"idea three\n"}, ("c000001",))
        made.child(4, rejected("wrong below the seed"), {"four.md": b"4\n"})
        made.child(5, rejected("wrong below one"), {"five.md": b"5\n"}, ("c000001",))
        made.child(6, rejected("wrong below three"), {"six.md": b"6\n"}, ("c000003",))
        made.child(7, rejected("wrong below two"), {"seven.md": b"7\n"}, ("c000002",))
        yield made


def briefing(run: Run) -> Briefing:
    return Briefing(Ground(target=TARGET, menu={"batching": "Serve several."}), run.records)


def agent(*parents: str, **more: object) -> Proposal:
    return Proposal(number=8, operator=Operator.AGENT, parents=parents, **more)  # type: ignore[arg-type]


def section(text: str, title: str) -> str:
    return text.split(f"\n# {title}", 1)[1].split("\n# ", 1)[0]


def test_the_parent_is_shown_with_its_files_measurements_and_profile(run: Run) -> None:
    text = briefing(run).brief(agent("c000003"))
    shown = section(text, "The server that you change: c000003")
    assert 'Made by "agent: idea 3". It is not on the front.' in shown
    assert "output_throughput 190 tok/s [" in shown
    assert f'- "engine.py" {len(SEED["engine.py"])}\n' in shown and '- "three.md" 11\n' in shown
    assert '"delay_ms" = "4.0" (float 0.5 to 8.0)' in shown
    assert '- 25.0 % "aten::mm" (torch)' in shown and '- "headroom": "3 × above the roof"' in shown
    assert "Bring c000003 to the front" in section(text, "Your task")


def test_the_front_is_listed_and_a_large_one_thinned(run: Run) -> None:
    text = briefing(run).brief(agent("c000003"))
    front = section(text, "The front")
    assert [line[2:9] for line in front.splitlines() if line.startswith("- ")] == list(run.state.archive.front)
    for number in range(8, 40):
        run.child(number, scored(200 * 1.4 ** (number - 7), 30 * 1.4 ** (number - 7)), {f"{number}.md": b"x"})
    assert len(run.state.archive.front) > 16
    front = section(briefing(run).brief(agent("c000003")), "The front")
    assert front.count("\n- ") == 16 and f"(16 of {len(run.state.archive.front)})" in front


def test_inspirations_come_with_their_change_and_what_it_did(run: Run) -> None:
    text = briefing(run).brief(agent("c000002", inspirations=("c000001", "c000003", "c000000")))
    others = section(text, "Others to learn from")
    assert "+idea one" in others and "+idea three" in others and "+idea two" not in others
    assert "What the change did to c000000: output_throughput 100 → 200, median_ttft_ms 20.0 → 30.0" in others
    assert "What the change did to c000001: output_throughput 200 → 190" in others
    assert "## c000000" in others, "a seed has no change, and its measurements"


def test_failures_of_the_lineage_come_nearest_first(run: Run) -> None:
    lessons = section(briefing(run).brief(agent("c000003")), "What failed in this lineage")
    order = [lessons.index(f"## c00000{number}, ") for number in (6, 5, 4)]
    assert order == sorted(order)
    assert "c000007" not in lessons, "what failed in another lineage is not this one's lesson"
    assert "evidence of wrong below three" in lessons


def test_the_latest_failures_are_shown_and_later_ones_are_noticed(run: Run) -> None:
    told = briefing(run)
    told.brief(agent("c000000"))
    for number in range(8, 16):
        run.child(number, rejected(f"wrong again, {number}"), {f"{number}.md": b"x"})
    lessons = section(told.brief(agent("c000000")), "What failed in this lineage")
    assert [n for n in range(8, 16) if f"## c{n:06d}, " in lessons] == [10, 11, 12, 13, 14, 15]
    assert lessons.index("c000015") < lessons.index("c000010")


def test_equal_states_give_equal_briefs(run: Run) -> None:
    proposal = agent("c000003", inspirations=("c000001",), goal="Raise output_throughput.")
    told = briefing(run)
    first = told.brief(proposal)
    assert first == told.brief(proposal) == briefing(run).brief(proposal)
    assert section(first, "Your task").strip().startswith("Raise output_throughput.")


def test_a_merge_shows_what_each_side_changed_since_both_were_one(run: Run) -> None:
    merge = replace(agent("c000003", "c000002"), operator=Operator.MERGE)
    text = briefing(run).brief(merge)
    ours, theirs = section(text, "Ours: c000003"), section(text, "Theirs: c000002")
    assert "+idea one" in ours and "+idea three" in ours and "+idea two" not in ours
    assert "+idea two" in theirs and "+idea one" not in theirs


def test_what_goes_back_has_the_verdict_and_the_transcript(run: Run) -> None:
    state = run.state
    state.apply(Proposed(proposal=agent("c000001")))
    commit = run.repository.commit_tree(SEED | {"x": b"x"}, parents=(), message="x", number=8)
    state.apply(MutationDone(number=8, commit=commit.sha, tree=commit.tree, genome=parse_genome({})))
    state.apply(SentBack(number=8, evaluation=rejected("wrong tokens")))
    returned = briefing(run).returned(agent("c000001"), 3)
    assert (returned.commit, returned.attempt, returned.transcript) == (commit.sha, 1, "")
    assert "wrong tokens" in returned.words and "Attempts left after this one: 2." in returned.words
    folder = run.records.children / "c000008"
    folder.mkdir(parents=True)
    (folder / "transcript.jsonl").write_text("{}\n")
    assert briefing(run).returned(agent("c000001"), 3).transcript == "{}\n"


def test_a_profile_is_told_where_there_is_one(run: Run) -> None:
    told = briefing(run)
    assert '- 25.0 % "aten::mm" (torch)' in told.profile("c000001")
    silent = replace(scored(1, 1), hints={}, profile=())
    run.child(8, silent, {"x": b"x"})
    assert told.profile("c000008") == ""
    folder = run.records.children / "c000008"
    folder.mkdir(parents=True)
    (folder / "stacks.txt").write_text("serve;step;wait 77\n")
    assert "serve;step;wait 77" in told.profile("c000008")
