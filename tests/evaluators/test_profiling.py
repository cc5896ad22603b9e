"""Profiles: what samplers and tracers wrote becomes ranked rows, and nothing that a candidate writes is believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.load.workload import Load
from evaluators.profiling import nsight, torch_trace
from evaluators.profiling.evidence import MOST_ROWS, Evidence, Spent, foremost, ranked
from evaluators.profiling.flame import MOST_FLAME_BYTES, MOST_STACK_BYTES, most_frequent, speedscope
from evaluators.profiling.headroom import headroom
from evaluators.profiling.injection import Injection, Silent
from evaluators.profiling.sampling import busy, functions
from evaluators.profiling.stage import busiest, guarded
from evaluators.roofline import Roof, Work
from evaluators.sandbox import clean_environment
from evaluators.server import ServerCommand
from evaluators.target_schema import ServerTable
from population.errors import InfrastructureError
from population.evaluation import Hotspot
from population.objectives import Direction, Objective, ObjectiveSet

STACKS = "main (a.py:1);step (b.py:2) 3\nmain (a.py:1);step (b.py:9) 3\nmain (a.py:1);send (/x/y/c.py:4) 2\ngarbage\n"


def test_the_innermost_function_gets_the_sample() -> None:
    rows = ranked(functions(STACKS), of="busy samples", source="py-spy")
    assert [(row.name, row.share) for row in rows] == [("step (b.py)", 0.75), ("send (c.py)", 0.25)]
    assert rows[0].calls is None and rows[0].us_per_call is None  # a sampler counts none
    assert Evidence(rows=rows, notes={"headroom": "x"}).hints == {
        "step (b.py)": 0.75, "send (c.py)": 0.25, "headroom": "x"
    }  # fmt: skip
    assert functions("") == []


def test_stacks_are_kept_as_far_as_a_result_can_carry_them() -> None:
    assert most_frequent("a;c 7\ngarbage\na;b 1\n") == "a;b 1\na;c 7\n"  # a file that is cut loses its beginning
    long = "".join(f"{'frame;' * 50}{i} {i}\n" for i in range(100))
    assert len(most_frequent(long)) <= MOST_STACK_BYTES and most_frequent(long).startswith(f"{'frame;' * 50}61 61\n")
    of_processes = (
        'process 7:"python server.py --port 9";main (a.py:1) 2\nprocess 8:"python server.py";main (a.py:1) 3\n'
    )
    assert most_frequent(of_processes) == "main (a.py:1) 5\n"


def test_a_flame_graph_holds_every_kept_sample_once() -> None:
    file = json.loads(speedscope(STACKS, "busy samples"))
    assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    names = [frame["name"] for frame in file["shared"]["frames"]]
    (profile,) = file["profiles"]
    drawn = zip(profile["samples"], profile["weights"], strict=True)
    stacks = {";".join(names[i] for i in stack): weight for stack, weight in drawn}
    assert stacks == {
        "main (a.py:1);step (b.py:2)": 3, "main (a.py:1);step (b.py:9)": 3, "main (a.py:1);send (/x/y/c.py:4)": 2
    }  # fmt: skip
    assert (profile["type"], profile["startValue"], profile["endValue"]) == ("sampled", 0, 8)
    many = "".join(f"main (a.py:1);f{i} (é{i}.py:2) {i + 1}\n" for i in range(5000))
    text = speedscope(many, "busy samples")
    assert len(text.encode()) <= MOST_FLAME_BYTES + 400  # the head
    assert max(json.loads(text)["profiles"][0]["weights"]) == 5000  # the rarest are left out


@pytest.mark.parametrize(
    ("frame", "waits"),
    [
        ("EpollSelector.select (selectors.py:468)", True),
        ("Condition.wait (threading.py:320)", True),
        ("wait (/usr/lib/python3.11/threading.py:320)", True),
        ("socket.accept (socket.py:294)", True),
        ("await (model.py:3)", False),
        ("Model.select (model.py:3)", False),
        ("Thread.run (threading.py:982)", False),
    ],
)
def test_a_thread_that_waits_is_not_busy(frame: str, waits: bool) -> None:
    stacks = f"main (a.py:1);{frame} 3\n{frame} 2\n"
    assert busy(stacks) == ("" if waits else stacks)


def test_rows_are_ranked_bounded_and_printable() -> None:
    found = [Spent(name=f"op{i}", amount=i, calls=2) for i in range(40)]
    rows = ranked(found, of="CPU time", source="torch", whole=7800.0)
    assert [row.name for row in rows[:2]] == ["op39", "op38"] and len(rows) == MOST_ROWS
    assert rows[0] == Hotspot(name="op39", share=0.005, of="CPU time", source="torch", calls=2, us_per_call=19.5)
    (strange,) = ranked([Spent(name="a\x1b[31m\n" + "b" * 500, amount=1)], of="x", source="y")
    assert strange.share == 1.0 and strange.name.startswith("a�[31m b") and len(strange.name) == 96
    assert ranked([Spent(name="none", amount=0)], of="x", source="y") == ()
    both = (*rows, strange)
    assert foremost(both, 2) == (*rows[:2], strange)  # the largest of each kind, whatever they are shares of


# What `nsys stats --format csv` writes, after NVIDIA's documentation of its reports; no nsys ran for it.
KERNELS = (
    "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n"
    '75.0,3000000,30,100000.0,99000.0,90000,120000,10.5,"void gemm<float, 4>(float *, int)"\n'
    "25.0,1000000,10,100000.0,99000.0,90000,120000,10.5,copy\n"
)
RANGES = (
    "NOTICE: exporting\n\n"
    "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Style,Range\n"
    "90.0,900000,9,100000.0,1.0,1,2,0.0,PushPop,:decode\n10.0,100000,1,100000.0,1.0,1,2,0.0,PushPop,:sample\n"
)
CALLS = (
    "Time (%),Total Time (ns),Num Calls,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n"
    "100.0,5000,5,1000.0,1.0,1,2,0.0,cudaLaunchKernel\nbroken,line,,,\n"
)


def test_tables_of_nsys() -> None:
    found = nsight.evidence_of({"cuda_gpu_kern_sum": KERNELS, "nvtx_sum": RANGES, "cuda_api_sum": CALLS})
    told = [(row.of.split(",")[0], row.name, row.share, row.calls, row.us_per_call) for row in found.rows]
    assert told == [
        ("GPU time in kernels", "void gemm<float, 4>(float *, int)", 0.75, 30, 100.0),
        ("GPU time in kernels", "copy", 0.25, 10, 100.0),
        ("time in NVTX ranges", "decode", 0.9, 9, 100.0),
        ("time in NVTX ranges", "sample", 0.1, 1, 100.0),
        ("CPU time in CUDA calls", "cudaLaunchKernel", 1.0, 5, 1.0),
    ]
    assert {row.source for row in found.rows} == {"nsys"}
    nothing = nsight.evidence_of({"cuda_gpu_kern_sum": "SKIPPED: server.sqlite does not contain CUDA kernel data.\n"})
    assert not nothing.rows and "no kernel" in nothing.notes["nsys"]


def command(tmp_path: Path) -> ServerCommand:
    table = ServerTable(command=("{python}", "server.py", "{port}"))
    env = clean_environment(tmp_path / "home", extra={"PYTHONPATH": "/theirs"})
    return ServerCommand(table=table, workspace=tmp_path, log=tmp_path / "log", env=env, placeholders={})


def test_the_command_of_nsys(tmp_path: Path) -> None:
    program = Path("/opt/nvidia/nsight-systems/2025.3.2/bin/nsys")
    tool = nsight.NsightSystems(program, tmp_path / "n", 1.0, None)  # type: ignore[arg-type]
    started = tool.around(command(tmp_path))
    report = tmp_path / "n" / "reports" / "server.nsys-rep"
    assert started.table.command[:3] == (str(program), "profile", "--trace=cuda,nvtx")
    assert started.table.command[-4:] == (f"--output={report}", "{python}", "server.py", "{port}")
    assert {"--capture-range=cudaProfilerApi", "--capture-range-end=stop"} < set(started.table.command)
    assert Path("/opt/nvidia/nsight-systems/2025.3.2") in started.readable
    assert started.env["NVTX_RANGES"] == "1" and "NVTX_RANGES" not in command(tmp_path).env
    assert nsight.stats(program, report, tmp_path / "stats")[-1] == str(report)
    settings = json.loads((tmp_path / "n" / "orders" / "settings.json").read_text())
    assert (settings["mode"], settings["most_s"]) == ("range", 1.0)


def test_the_hook_is_in_front_of_the_servers_own_path_and_in_no_measured_command(tmp_path: Path) -> None:
    plain = command(tmp_path)
    hooked = Injection(tmp_path / "i", "trace", 1.0).around(plain)
    assert hooked.env["PYTHONPATH"] == f"{tmp_path / 'i' / 'orders'}{os.pathsep}/theirs"
    assert plain.env["PYTHONPATH"] == "/theirs" and plain.writable == ()
    assert hooked.writable == (tmp_path / "i" / "reports",)


FAKE = """
import sys, time, types
torch = sys.modules["torch"] = types.ModuleType("torch")
class Profiler:
    ProfilerActivity = types.SimpleNamespace(CPU=0, CUDA=1)
    def __init__(self, **options): pass
    profile = property(lambda self: self.make)
    def make(self, **options): return self
    def start(self): START
    def stop(self): pass
    def key_averages(self):
        row = types.SimpleNamespace
        return [row(key="aten::mm", count=4, self_cpu_time_total=30.0, device_type="cpu"),
                row(key="aten::add", count=1, self_cpu_time_total=10.0, device_type="cpu"),
                row(key="gemm", count=4, self_device_time_total=25.0, device_type="cuda", is_user_annotation=False),
                row(key="phase", count=1, self_device_time_total=99.0, device_type="cuda", is_user_annotation=True)]
torch.__version__ = "9.9"
torch.cuda = types.SimpleNamespace(is_available=lambda: False)
torch.profiler = Profiler()
torch.autograd = types.SimpleNamespace(DeviceType=types.SimpleNamespace(CPU="cpu"))
torch._C = types.SimpleNamespace(_profiler=types.SimpleNamespace(_ExperimentalConfig=lambda **options: None))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What a test starts; it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.communicate()  # its stdin ends


def start(injection: Injection, code: str, tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    env = injection.around(command(tmp_path)).env
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    started.append(process)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"


def test_every_process_with_torch_reports_and_no_other(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    injection = Injection(tmp_path, "trace", 30.0)
    for code in (FAKE.replace("START", "pass"), FAKE.replace("START", "pass"), "print('ready', flush=True); input()"):
        start(injection, code, tmp_path, processes)
    injection.begin()
    deadline_s = time.monotonic() + 60
    while len(list((tmp_path / "reports").glob("*.started"))) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    injection.end()
    reports = [torch_trace.parse(text) for text in injection.reports()]
    assert len(reports) == 2
    found = torch_trace.evidence_of(reports)
    assert [(row.of, row.name, row.share, row.calls, row.us_per_call) for row in found.rows] == [
        ("CPU time in operators", "aten::mm", 0.75, 8, 7.5),
        ("CPU time in operators", "aten::add", 0.25, 2, 10.0),
        ("GPU time in kernels", "gemm", 1.0, 8, 6.25),
    ]
    assert "PyTorch 9.9" in found.notes["torch"] and "2 process(es)" in found.notes["torch"]


def test_a_profiler_that_cannot_start_is_a_sentence(tmp_path: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    injection = Injection(tmp_path, "trace", 30.0)
    start(injection, FAKE.replace("START", "raise RuntimeError('another one is on')"), tmp_path, processes)
    injection.begin()
    injection.end()
    found = torch_trace.evidence_of([torch_trace.parse(text) for text in injection.reports()])
    assert found == Evidence(notes={"torch": "RuntimeError: another one is on"})


def test_the_sitecustomize_that_is_hidden_still_runs(tmp_path: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import builtins; builtins.THEIRS = 'ready'")
    injection = Injection(tmp_path, "trace", 1.0)
    env = injection.around(command(tmp_path)).env
    env["PYTHONPATH"] = env["PYTHONPATH"].replace("/theirs", str(theirs))
    code = "import builtins; print(builtins.THEIRS, flush=True)"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "ready\n" and done.stderr == ""


def test_who_does_not_answer_is_waited_for_once(tmp_path: Path) -> None:
    injection = Injection(tmp_path, "trace", 1.0)
    with pytest.raises(Silent, match="no process of the server"):
        injection.begin(timeout_s=0.1)
    (injection.output / "7.seen").touch()
    with pytest.raises(Silent, match="did not start"):
        injection.begin(timeout_s=0.1)
    (injection.output / "7.started").touch()
    with pytest.raises(Silent, match="did not write"):
        injection.end(timeout_s=0.1)


def test_reports_are_a_candidates_word(tmp_path: Path) -> None:
    injection = Injection(tmp_path, "trace", 1.0)
    (tmp_path / "secret").write_text('{"torch": "secret"}')
    (injection.output / "1.json").symlink_to(tmp_path / "secret")
    (injection.output / "2.json").write_text(" " * (1 << 18) + "{}")
    (injection.output / "3.json").mkdir()
    os.mkfifo(injection.output / "4.json")
    assert injection.reports() == []
    for text in (b"", b"[]", b'{"more": 1}', b'{"window_s": -1}', b'{"operators": {"whole_us": NaN}}', b"\xff"):
        with pytest.raises(InfrastructureError, match="the server's profile is none"):
            torch_trace.parse(text)
    empty = torch_trace.evidence_of([])
    assert not empty.rows and "no process" in empty.notes["torch"]


def test_whatever_a_profiler_does_the_evaluation_stands() -> None:
    def fail(error: Exception) -> Evidence:
        raise error

    for error in (InfrastructureError("no disk"), OSError("no disk")):
        assert guarded("torch", lambda error=error: fail(error)).notes == {"torch": "torch failed: no disk"}  # type: ignore[misc]


def test_the_busiest_load_is_run_for_a_second() -> None:
    slow, fast = (Load(name=name, rate_per_s=rate, window_s=9.0) for name, rate in (("s", 2.0), ("f", 40.0)))
    load = busiest((slow, fast))
    assert load is not None and (load.name, load.window_s) == ("f", 1.0)
    load = busiest((fast, Load(name="crowd", kind="closed", concurrency=2, num_requests=8)))
    assert load is not None and (load.name, load.window_s, load.num_requests) == ("crowd", 1.0, None)
    burst = Load(name="burst", rate_per_s=float("inf"), num_requests=8)
    assert busiest((burst,)) == burst  # it ends by itself
    assert busiest(()) is None


OBJECTIVES = ObjectiveSet(
    (
        Objective(name="output_throughput", direction=Direction.MAX, loads=("high",)),
        Objective(name="median_tpot_ms", direction=Direction.MIN, loads=("low",)),
    )
)
SAMPLES = {
    "output_throughput@high": (90.0, 100.0, 110.0), "total_token_throughput@high": (300.0,),
    "output_throughput@low": (1.0,), "median_tpot_ms@low": (4.0,),
}  # fmt: skip


def test_headroom_is_measured_over_what_the_hardware_allows() -> None:
    roof = Roof(best={"output_throughput": 800.0, "median_tpot_ms@low": 0.1})
    text = headroom(SAMPLES, OBJECTIVES, roof)
    assert text.split("; ") == [
        "median_tpot_ms@low 4, floor 0.1: 40×",
        "output_throughput@high 100, ceiling 800: 8×",  # not the low load: nobody offered it more
    ]
    assert headroom(SAMPLES, OBJECTIVES, Roof()) == ""
    assert headroom({"median_tpot_ms@low": (float("inf"),)}, OBJECTIVES, roof) == ""


def test_bytes_and_operations_per_step() -> None:
    work = Work(
        flop_per_output_token=2e6, flop_per_prompt_token=1e6, bytes_per_step=3e6, flop_per_s=1e9, bytes_per_s=3e9
    )
    assert headroom(SAMPLES, OBJECTIVES, Roof(work=work)).split("; ") == [
        "median_tpot_ms@low 4, of which reading a step's 3 MB takes 1",
        "the tokens of load high need 40.0% of the peak arithmetic",
    ]
