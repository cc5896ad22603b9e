"""Hypothesis strategies for what a ledger may hold, and small builders of events."""

from __future__ import annotations

from hypothesis import strategies as st

from population import events as ev
from population.candidate import Operator, Proposal
from population.evaluation import Hotspot, Place, Rejected, Scored, Stage
from population.genome import Component, Genome, Knob
from population.objectives import Direction, Objective

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
NUMBER = st.floats(allow_nan=False)
SECONDS = st.floats(0, 1e9)
COUNT = st.integers(0, 10**9)
KNOB_VALUE = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT


def texts(values: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(TEXT, values, max_size=3)  # type: ignore[arg-type]


PROPOSAL = st.builds(
    Proposal,
    number=COUNT,
    operator=st.sampled_from(Operator),
    parents=st.lists(TEXT, max_size=2).map(tuple),
    goal=st.none() | TEXT,
    recipe=st.none() | TEXT,
    knobs=texts(KNOB_VALUE),
)
HOTSPOT = st.builds(Hotspot, name=TEXT, share=st.floats(0, 1), of=TEXT, source=TEXT, calls=st.none() | COUNT)
SCORED = st.builds(
    Scored,
    samples=texts(st.lists(NUMBER, max_size=3).map(tuple)),
    flags=st.lists(TEXT, max_size=2).map(tuple),
    audit=texts(NUMBER),
    hints=texts(st.floats(allow_nan=False, allow_infinity=False) | TEXT),
    profile=st.lists(HOTSPOT, max_size=2).map(tuple),
    stage_s=texts(SECONDS),
)
REJECTED = st.builds(Rejected, stage=st.sampled_from(Stage), reason=TEXT, evidence=TEXT)
EVALUATION = SCORED | REJECTED
PLACE = st.none() | st.builds(Place, node=TEXT, gpus=st.lists(TEXT, max_size=2).map(tuple), cpus=st.just((0, 3)))
KNOB = st.builds(Knob, value=KNOB_VALUE, type=st.sampled_from(["int", "float", "choice"]), low=st.none() | SECONDS)
GENOME = st.builds(
    Genome, texts(st.builds(Component, name=TEXT, interface=COUNT, implementation=TEXT, knobs=texts(KNOB)))
)
OBJECTIVE = st.builds(
    Objective, name=TEXT, direction=st.sampled_from(Direction), loads=st.lists(TEXT, max_size=2).map(tuple)
)
EVENT = st.one_of(
    st.builds(
        ev.RunStarted,
        run=TEXT,
        seed=COUNT,
        objectives=st.lists(OBJECTIVE, max_size=3).map(tuple),
        fingerprint=texts(TEXT),
    ),
    st.builds(ev.EpochStarted, epoch=COUNT, host=TEXT, pid=COUNT),
    st.builds(ev.Proposed, proposal=PROPOSAL),
    st.builds(
        ev.MutationDone,
        number=COUNT,
        commit=TEXT,
        tree=TEXT,
        genome=GENOME,
        summary=TEXT,
        elapsed_s=SECONDS,
        objection=st.none() | REJECTED,
    ),
    st.builds(
        ev.Drafted, number=COUNT, commit=TEXT, tree=TEXT, summary=TEXT, changed=st.tuples(TEXT), elapsed_s=SECONDS
    ),
    st.builds(ev.SentBack, number=COUNT, evaluation=REJECTED, elapsed_s=SECONDS, place=PLACE),
    st.builds(ev.Advised, candidate=TEXT, advice=TEXT),
    st.builds(ev.Ended, number=COUNT, evaluation=EVALUATION, elapsed_s=SECONDS, place=PLACE),
    st.builds(ev.RemeasureStarted, index=COUNT, candidate=TEXT),
    st.builds(ev.Remeasured, index=COUNT, candidate=TEXT, evaluation=st.none() | EVALUATION, elapsed_s=SECONDS),
    st.builds(ev.FinalMeasured, subject=TEXT, evaluation=EVALUATION, round=COUNT, place=PLACE),
    st.builds(ev.Faulted, key=TEXT, reason=TEXT, attempt=COUNT),
    st.builds(ev.Stopped, reason=TEXT, elapsed_s=SECONDS, disclosed=texts(TEXT)),
)

OBJECTIVES = (
    Objective(name="output_throughput", direction=Direction.MAX, unit="tok/s"),
    Objective(name="median_ttft_ms", direction=Direction.MIN, unit="ms", loads=("low", "shared")),
)
STARTED = ev.RunStarted(run="r", seed=1, objectives=OBJECTIVES)


def scored(throughput: float, *ttft_ms: float) -> Scored:
    """One repeat; TTFT of the loads low and shared (equal if only one is given)."""
    low, shared = ttft_ms[0], ttft_ms[-1]
    return Scored(
        samples={
            "output_throughput": (throughput,),
            "median_ttft_ms@low": (low,),
            "median_ttft_ms@shared": (shared,),
        }
    )


def child(number: int, evaluation: Scored | Rejected, tree: str | None = None) -> list[ev.Event]:
    """The three events of a child that became a commit."""
    operator = Operator.TUNE if number else Operator.SEED
    parents = ("c000000",) if number else ()
    name = tree or f"{number:040x}"
    return [
        ev.Proposed(proposal=Proposal(number=number, operator=operator, parents=parents)),
        ev.MutationDone(
            number=number, commit=name, tree=name, genome=Genome(), summary=f"child {number}", elapsed_s=1.0
        ),
        ev.Ended(number=number, evaluation=evaluation, elapsed_s=2.0),
    ]
