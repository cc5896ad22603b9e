"""What a watcher sees: plain lines in a pipe, one live table on a terminal, and nothing that breaks the run."""

from __future__ import annotations

import io
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from population.candidate import Operator
from population.events import EpochStarted
from tests.vibeserve.fabricated import FabricatedRun, scored
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
from vibeserve.progress import aged, eta_s
from vibeserve.tables import bar, fitting_view, front_table, live_view, meter_text, sparkline
from vibeserve.wording import clean, duration, gain, number


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
    display.event("c000001 [bold]scored[/bold] \x1b[31m" + "long " * 40)
    display.close()
    display.close()
    assert "[bold]scored[/bold] �[31mlong" in stream.getvalue(), "a candidate's text is no markup and steers nothing"
    assert stream.getvalue().count("long ") < 30, "one event, one line"


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


def test_a_live_view_shows_growth_rejections_and_the_making_of_the_best() -> None:
    shown = replace(SNAPSHOT, history=(0.0, 2.0, 4.0), rejected={"boot": 1, "audit": 2}, path=("seed", "kv-cache"))
    console = Console(file=io.StringIO(), width=100)
    console.print(live_view(shown))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("hypervolume by child ▁▄█", "rejected at audit 2, boot 1", "c000003 is seed → kv-cache"):
        assert part in text
    assert "rejected at audit 2, boot 1" in progress_line(shown)


def test_a_sparkline_keeps_the_last_value_and_its_width() -> None:
    assert sparkline([float(i) for i in range(1, 1001)], width=10)[-1] == "█"
    assert len(sparkline([1.0] * 1000, width=10)) == 10
    assert (sparkline([]), sparkline([0.0, 0.0]), sparkline([1.0])) == ("", "", "█")


def test_a_small_terminal_shows_the_best_members_and_says_how_many_there_are_more() -> None:
    front = tuple(replace(SNAPSHOT.front[0], id=f"c{i:06d}", label="a-long-name " * (i % 3)) for i in range(40))
    console = Console(file=io.StringIO(), width=80, height=24)
    console.print(fitting_view(replace(SNAPSHOT, front=front, events=()), console))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    shown = sum(f"c{i:06d} " in text for i in range(40) if i != 12)
    assert 3 <= shown < 40 and len(text.splitlines()) <= 24
    assert f"… and {40 - shown} more: vibeserve front" in text and "c000039" not in text


def test_while_nothing_happens_only_times_change() -> None:
    later = aged(SNAPSHOT, 10.0)
    assert (later.elapsed_s, later.slots[0].elapsed_s, later.meters[1].used) == (133.0, 17.3, 133.0)
    assert later.eta_s == pytest.approx(133 * (1 - 12 / 25) / (12 / 25))
    assert replace(later, elapsed_s=0, slots=(), meters=(), eta_s=0) == replace(
        SNAPSHOT, elapsed_s=0, slots=(), meters=(), eta_s=0
    )
    spent = (Meter(name="children", used=25, limit=25), Meter(name="wall time", used=9.0, limit=300.0, unit="s"))
    assert eta_s(spent, 9.0) is None, "nothing is left of it, so there is nothing to wait for"


def test_watching_in_a_terminal_ends_with_ctrl_c_and_leaves_the_run_alone(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "going")
    run.append(EpochStarted(epoch=1, host=socket.gethostname(), pid=os.getpid()))
    run.child(0, scored(100, 50), Operator.SEED)
    for i in range(1, 15):
        run.child(i, scored(100 + i, 50 - i), parents=("c000000",), recipe="kv-cache")
    run.child(15, None, parents=("c000001",), recipe="flush")
    terminal, screen = os.openpty()
    termios.tcsetwinsize(screen, (24, 80))
    command = [sys.executable, "-m", "vibeserve", "watch", str(run.folder)]
    with subprocess.Popen(command, stdin=screen, stdout=screen, stderr=screen, start_new_session=True) as child:
        os.close(screen)
        seen = _until(terminal, "c000014  recipe: kv-cache")
        child.send_signal(signal.SIGINT)
        seen += _until(terminal, "the run goes on")
        assert child.wait(30) == 130
    os.close(terminal)
    run.close()
    assert "earlier events" in seen and "c000001 scored" not in seen, "a long past is not scrolled through"
    assert "c000015" in seen and "Traceback" not in seen
    assert seen.rfind("\x1b[?25h") > seen.rfind("\x1b[?25l"), "the cursor is shown again"


def _until(terminal: int, text: str) -> str:
    """What a terminal shows until it shows this."""
    seen, deadline = b"", time.monotonic() + 60
    while text not in seen.decode(errors="replace"):
        assert time.monotonic() < deadline, seen.decode(errors="replace")
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 65536)
    return seen.decode(errors="replace")
