"""What a watcher sees: plain lines in a pipe, one live table on a terminal, and nothing that breaks the run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vibeserve.display import (
    Display,
    FrontRow,
    LiveDisplay,
    Meter,
    MetricView,
    PlainDisplay,
    SilentDisplay,
    Slot,
    Snapshot,
    open_display,
    progress_line,
)
from vibeserve.tables import bar, clean, duration, front_table, gain, live_view, meter_text, number


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def metric(name: str, value: float, direction: str = "max") -> MetricView:
    return MetricView(
        name=name, value=value, low=value * 0.9, high=value * 1.1, n=3, unit="u", direction=direction, gain=2.5
    )


SNAPSHOT = Snapshot(
    run="20260101-quickstart",
    elapsed_s=123.0,
    slots=(
        Slot(key="c000012", operator="recipe", parents=("c000003",), label="kv-cache", stage="boot", elapsed_s=7.3),
    ),
    meters=(
        Meter(name="children", used=12, limit=25),
        Meter(name="wall time", used=123.0, limit=300.0, unit="s"),
        Meter(name="llm dollars", used=None, limit=5.0, unit="$"),
        Meter(name="gpu hours", used=0, limit=None),
    ),
    counts={"scored": 8, "rejected": 3},
    front=(FrontRow(id="c000003", operator="recipe", label="kv-cache", metrics=(metric("output_throughput", 812.0),)),),
    hypervolume=7.1234,
    eta_s=170.0,
    events=("c000011 rejected at audit",),
)


def rendered(what: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_the_live_table_shows_slots_budgets_front_and_eta() -> None:
    text = rendered(live_view(SNAPSHOT))
    for part in ("c000012", "kv-cache", "boot", "children 12/25", "2m 03s/5m 00s", "7.12", "2m 50s", "812", "2.50×"):
        assert part in text
    assert "llm dollars unknown/5$" in text, "an unknown cost is unknown, never 0"
    assert "gpu hours" not in text, "an unlimited budget that is not used is left out"


def test_a_pipe_gets_one_line_per_event_and_rare_progress() -> None:
    stream = io.StringIO()
    display = open_display(stream)
    assert isinstance(display, PlainDisplay)
    display.event("c000001 scored\nwith a line end")
    display.update(SNAPSHOT)
    display.close()
    display.event("after the end")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("s] c000001 scored with a line end")


def test_progress_comes_when_it_is_due() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream, progress_s=0.0)
    display.update(SNAPSHOT)
    assert progress_line(SNAPSHOT) in stream.getvalue()
    assert "front of 1" in progress_line(SNAPSHOT)


def test_a_terminal_gets_the_live_table_and_events_above_it() -> None:
    stream = Terminal()
    display = open_display(stream)
    assert isinstance(display, LiveDisplay)
    display.update(SNAPSHOT)
    display.event("c000001 [bold]scored[/bold]")
    display.close()
    display.close()
    assert "[bold]scored[/bold]" in stream.getvalue(), "a candidate's text is no markup"


@pytest.mark.parametrize("display", [PlainDisplay(ClosedPipe(), progress_s=0.0), SilentDisplay()])
def test_a_reader_that_went_away_does_not_end_the_run(display: Display) -> None:
    display.event("one")
    display.update(SNAPSHOT)
    display.event("two")
    display.close()


def test_a_front_with_intervals_fits_a_narrow_terminal() -> None:
    row = FrontRow(
        id="c000001", operator="tune", label="a=1", metrics=tuple(metric(f"m{i}", 10.0**i) for i in range(3))
    )
    text = rendered(front_table([row], above=[("the seed", row)]), width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "9–11" in text.replace(".0", "") or "9–11.0" in text.replace(" ", "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (4.567, "4.57"), (12.34, "12.3"), (812.3, "812"), (12345.6, "12,346"), (float("inf"), "∞")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_small_formats() -> None:
    assert [duration(s) for s in (4.23, 185, 7630)] == ["4.2s", "3m 05s", "2h 07m"]
    assert [gain(g) for g in (23.06, 1.0, None, float("nan"))] == ["23.1×", "1.00×", "", ""]
    assert (bar(0.5).count("█"), bar(None)) == (12, "")
    assert meter_text(Meter(name="llm tokens", used=9310, limit=None)) == "llm tokens 9,310"
    assert clean("a\x1b[31mb\tc\n") == "a�[31mb\tc\n"


def test_shares_are_bounded() -> None:
    assert Meter(name="x", used=30, limit=25).share == 1.0
    assert Meter(name="x", used=None, limit=25).share is None
    assert Meter(name="x", used=3, limit=None).share is None
