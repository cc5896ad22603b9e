"""When a task is tried again, and which nodes get no more work."""

from __future__ import annotations

from vibeserve.cluster.quarantine import Quarantine
from vibeserve.retries import Retries, Verdict


def test_an_evaluation_is_tried_three_times_at_once() -> None:
    retries = Retries(patience_s=600.0)
    waits = [retries.failed("c000001", 0.0, mutation=False, retryable=True) for _ in range(3)]
    assert waits == [
        Verdict(attempt=1, wait_s=0.0),
        Verdict(attempt=2, wait_s=0.0),
        Verdict(attempt=3, wait_s=None),
    ]


def test_a_result_forgets_the_faults_before_it() -> None:
    retries = Retries(patience_s=600.0)
    retries.failed("c000001", 0.0, mutation=False, retryable=True)
    retries.worked("c000001", 0.0, mutation=False)
    assert retries.failed("c000001", 0.0, mutation=False, retryable=True).attempt == 1


def test_a_mutation_waits_twice_as_long_each_time_and_a_minute_at_most() -> None:
    retries = Retries(patience_s=86400.0)
    verdicts = [retries.failed("c000001", float(n), mutation=True, retryable=True) for n in range(2000)]
    waits = [verdict.wait_s for verdict in verdicts]
    assert waits[:9] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert waits[-1] == 60.0


def test_a_provider_that_asks_to_wait_is_not_asked_before() -> None:
    retries = Retries(patience_s=100.0)

    def wait_s(now_s: float, asked_s: float) -> float | None:
        return retries.failed("c000001", now_s, mutation=True, retryable=True, wait_s=asked_s).wait_s

    assert wait_s(0.0, 30.0) == 30.0
    assert wait_s(30.0, 0.1) == 1.0
    assert wait_s(31.0, 69.0) is None


def test_patience_ends_unless_some_mutation_works() -> None:
    retries = Retries(patience_s=100.0)

    def wait_s(key: str, now_s: float) -> float | None:
        return retries.failed(key, now_s, mutation=True, retryable=True).wait_s

    assert wait_s("c000001", 1000.0) == 0.5
    assert wait_s("c000002", 1090.0) == 0.5
    retries.worked("c000003", 1090.0, mutation=False)
    assert wait_s("c000001", 1100.0) is None
    retries.worked("c000003", 1100.0, mutation=True)
    assert wait_s("c000001", 1101.0) == 2.0
    assert wait_s("c000002", 1200.9) == 1.0
    assert wait_s("c000002", 1201.0) is None


def test_a_bug_of_ours_is_never_tried_again() -> None:
    retries = Retries(patience_s=600.0)
    for mutation in (True, False):
        assert retries.failed("c000001", 0.0, mutation=mutation, retryable=False).wait_s is None


def test_whether_a_task_alone_breaks_machines() -> None:
    retries = Retries(patience_s=600.0)
    retries.failed("c000001", 0.0, mutation=False, retryable=True)
    assert retries.alone("c000001")
    retries.failed("c000002", 0.0, mutation=False, retryable=True)
    assert not retries.alone("c000001")
    retries.worked("c000002", 0.0, mutation=False)
    assert retries.alone("c000001")


def test_two_faults_in_a_row_are_a_nodes_last() -> None:
    quarantine = Quarantine()
    assert not quarantine.failed("a")
    quarantine.worked("a")
    assert not quarantine.failed("a")
    assert not quarantine.failed("b")
    assert not quarantine.nodes
    assert quarantine.failed("a")
    assert quarantine.nodes == {"a"}
    quarantine.worked("a")
    assert not quarantine.failed("a"), "it is there already"
    assert quarantine.nodes == {"a"}


def test_a_mutation_that_hangs_while_others_work_is_given_up() -> None:
    retries = Retries(patience_s=100.0)
    assert not any(retries.hung("c000001", 10.0) for _ in range(9)), "it may be the machine: no other has worked"
    retries.worked("c000002", 30.0, mutation=False)
    retries.worked("c000003", 20.0, mutation=True)
    assert not any(retries.hung("c000001", 20.0) for _ in range(9)), "the others have worked before"
    assert [retries.hung("c000001", began_s) for began_s in (19.0, 40.0, 60.0)] == [False, False, True]
    retries.worked("c000001", 70.0, mutation=True)
    assert [retries.hung("c000001", 60.0) for _ in range(3)] == [False, False, True]
