"""What a run may hold beside others: higher priority first, equals alike, nothing left empty."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vibeserve.cluster.selectors import Demand, Node
from vibeserve.cluster.sharing import Claim, part


def gpus(count: int, name: str = "n", **labels: str) -> Node:
    return Node(id=name, name=name, cpus=64, gpus=count, labels=labels)


def claim(run: str, holds: int, priority: int = 0, demand: Demand | None = None) -> Claim:
    return Claim(run=run, priority=priority, demand=demand or Demand(cpus=1, gpus=1), holds=holds)


def share(node: Node, claims: list[Claim], run: str, turn: int = 0) -> int:
    return part([node], {node.id}, claims, run, turn)


def test_alone_everything() -> None:
    assert share(gpus(8), [claim("a", 0)], "a") == 8


def test_the_higher_priority_has_what_it_holds_and_sees_nobody_below() -> None:
    claims = [claim("high", 5, 1), claim("low", 8, 0)]
    assert share(gpus(8), claims, "high") == 8
    assert share(gpus(8), claims, "low") == 3
    assert share(gpus(8), [claim("high", 9, 1), claim("low", 0)], "low") == 0


def test_equals_share_alike_and_what_one_does_not_use_goes_to_the_others() -> None:
    assert share(gpus(8), [claim("a", 8), claim("b", 4)], "a") == 4
    assert share(gpus(8), [claim("a", 8), claim("b", 1)], "a") == 7
    assert share(gpus(8), [claim("a", 8), claim("b", 1)], "b") == 4


def test_one_slot_and_two_runs_take_turns() -> None:
    claims = [claim("a", 1), claim("b", 1)]
    assert [(share(gpus(1), claims, "a", turn), share(gpus(1), claims, "b", turn)) for turn in (0, 1, 2)] == [
        (1, 0),
        (0, 1),
        (1, 0),
    ]


def test_who_measures_elsewhere_takes_nothing() -> None:
    nodes = [gpus(4, "a", kind="H200"), gpus(4, "b", kind="H100")]
    theirs = Demand(cpus=1, gpus=1, labels={"kind": "H100"})
    claims = [claim("me", 0), claim("above", 4, 1, theirs), claim("equal", 4, 0, theirs)]
    assert part(nodes, {"a"}, claims, "me") == 4


def test_larger_evaluations_of_others_are_counted_by_what_they_hold() -> None:
    claims = [claim("wide", 1, 1, Demand(cpus=1, gpus=4)), claim("me", 0)]
    assert share(gpus(8), claims, "me") == 4


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 2)), min_size=1, max_size=6),
    st.integers(0, 100),
)
def test_runs_that_want_everything_divide_everything(slots: int, runs: list[tuple[int, int]], turn: int) -> None:
    """If each of the highest runs fills its part, the parts are even to one and their sum is all there is."""
    top = max(priority for _, priority in runs)
    claims = [claim(f"r{i}", slots if p == top else holds, p) for i, (holds, p) in enumerate(runs)]
    parts = [share(gpus(slots), claims, c.run, turn) for c in claims if c.priority == top]
    assert sum(parts) == slots
    assert max(parts) - min(parts) <= 1
    assert all(share(gpus(slots), claims, c.run, turn) == 0 for c in claims if c.priority < top)
