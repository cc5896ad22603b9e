"""Commands start clean and nothing of them survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluators.lineage import descendants
from evaluators.process import LOST, Launch, NotExecutable, RunningProcess, printable
from evaluators.sandbox import clean_environment
from tests.evaluators.liveness import alive, await_death

ROOT = Path(__file__).parents[2]


def launch(tmp_path: Path, script: str, **changes: object) -> Launch:
    settings: dict[str, object] = {
        "command": (sys.executable, "-c", script),
        "workspace": tmp_path,
        "env": {"PATH": os.environ["PATH"]},
        "log": tmp_path / "log",
    }
    return Launch(**{**settings, **changes})  # type: ignore[arg-type]


def first_line(process: RunningProcess, timeout_s: float = 5.0) -> str:
    """The first complete line of output."""
    deadline = time.monotonic() + timeout_s
    while "\n" not in process.log.read_text():
        assert time.monotonic() < deadline, "no output"
        time.sleep(0.005)
    return process.log.read_text().splitlines()[0]


def test_exit_code_and_output(tmp_path: Path) -> None:
    with RunningProcess(launch(tmp_path, "import sys; print('out', flush=True); sys.exit('err')")) as process:
        assert process.wait(5) == 1
        assert process.log_tail() == "out\nerr"


def test_signal_is_a_negative_code(tmp_path: Path) -> None:
    with RunningProcess(launch(tmp_path, "import os; os.kill(os.getpid(), 11)")) as process:
        assert process.wait(5) == -11


def test_a_missing_command_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotExecutable, match=r"No such file.*nothing-here"):
        RunningProcess(launch(tmp_path, "", command=("nothing-here",)))


def test_nothing_is_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    script = (
        "import os, signal, sys\n"
        "print(sorted(os.environ))\n"
        "print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), signal.getsignal(signal.SIGPIPE))\n"
        "print(sorted(int(f) for f in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{f}')))\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0), repr(sys.stdin.read()), os.getsid(0) == os.getpid())\n"
    )
    try:
        process = RunningProcess(launch(tmp_path, script, env={"ONLY": "this"}))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    with process:
        assert process.wait(5) == 0
        environment, masks, descriptors, rest = process.log.read_text().splitlines()
    assert environment == "['LC_CTYPE', 'ONLY']" or environment == "['ONLY']"  # CPython's locale coercion adds LC_CTYPE
    assert masks.startswith("[]")
    assert descriptors == "[0, 1, 2]"
    inherited = 0 if os.geteuid() == 0 else os.getpriority(os.PRIO_PROCESS, 0)  # only root may go back to 0
    assert rest == f"{inherited} '' True"


def test_clean_environment_is_the_allow_list(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, ("0", "3"), {"OPENBLAS_NUM_THREADS": "1"})
    assert set(environment) == {
        "PATH", "HOME", "TMPDIR", "LANG", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE",
        "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH",
        "CUDA_VISIBLE_DEVICES",
        "OPENBLAS_NUM_THREADS",
    }  # fmt: skip
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,3"


def test_pinning(tmp_path: Path) -> None:
    cpu = max(os.sched_getaffinity(0))
    with RunningProcess(launch(tmp_path, "import os; print(os.sched_getaffinity(0))", cpus=(cpu,))) as process:
        assert process.wait(5) == 0
        assert process.log_tail() == f"{{{cpu}}}"


def test_file_size_is_limited(tmp_path: Path) -> None:
    script = "open('big', 'wb').write(b'x' * 100_000)"
    with RunningProcess(launch(tmp_path, script, limits={"RLIMIT_FSIZE": 50_000})) as process:
        assert process.wait(5) == 1
    assert (tmp_path / "big").stat().st_size <= 50_000


def test_log_keeps_beginning_and_end(tmp_path: Path) -> None:
    script = "print('first'); [print('x' * 999) for _ in range(2000)]; print('last')"
    with RunningProcess(launch(tmp_path, script, log_limit_bytes=100_000)) as process:
        assert process.wait(10) == 0
    text = process.log.read_text()
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert "bytes of output dropped" in text
    assert len(text) <= 100_200


def test_daemons_die_with_the_command(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True); time.sleep(60)\n"
        "    os._exit(0)\n"
        "time.sleep(0.2)"
    )
    with RunningProcess(launch(tmp_path, script)) as process:
        daemon = int(first_line(process))
        assert process.wait(5) == 0
        assert not alive(daemon)


def test_sigterm_ignored_is_killed_after_the_grace(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    with RunningProcess(launch(tmp_path, script)) as process:
        first_line(process)
        start_s = time.monotonic()
        assert process.stop(0.2) == -signal.SIGKILL
        assert 0.2 <= time.monotonic() - start_s < 2
        assert not alive(process.pid)
        await_death(process.supervisor_pid, timeout_s=1)


def test_sigterm_obeyed_ends_early(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(60)"
    )
    with RunningProcess(launch(tmp_path, script)) as process:
        first_line(process)
        assert process.stop(5) == 0


def test_a_forking_tree_is_swept(tmp_path: Path) -> None:
    script = "import os, time\nfor _ in range(6): os.fork()\nprint('up', flush=True); time.sleep(60)"
    with RunningProcess(launch(tmp_path, script)) as process:
        first_line(process)
    await_death(process.supervisor_pid, timeout_s=1)
    assert not [
        p for p in Path("/proc").iterdir() if p.name.isdigit() and _session(p) == process.pid and alive(int(p.name))
    ]


@pytest.mark.parametrize("sandbox", ["PlainSandbox", pytest.param("BubblewrapSandbox", marks=pytest.mark.tier("A"))])
def test_owner_killed_tree_gone(tmp_path: Path, sandbox: str) -> None:
    """The owner plays the Ray worker; the tree has daemons, and all of it ignores SIGTERM."""
    script = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN)\n"
        "for _ in range(3): os.fork() == 0 and os.setsid()\n"
        "print('up', flush=True); time.sleep(60)"
    )
    owner = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from evaluators.bubblewrap import BubblewrapSandbox; from evaluators.sandbox import PlainSandbox\n"
        "from evaluators.launch import Launch\n"
        f"p = {sandbox}().launch(Launch(command=(sys.executable, '-c', sys.argv[3]), workspace=Path(sys.argv[2]),\n"
        "    env={'PATH': '/usr/bin:/bin', 'HOME': '/home'}, log=Path(sys.argv[2], 'log')))\n"
        "while p.log_tail().count('up') < 8: time.sleep(0.005)\n"
        "print(p.supervisor_pid, flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", owner, str(ROOT), str(tmp_path), script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        supervisor = int(process.stdout.readline())
        pids = [supervisor, *descendants(supervisor)]
        assert len(pids) >= 9
        os.kill(process.pid, signal.SIGKILL)
    assert max(await_death(pid) for pid in pids) < 1.0


def test_supervisor_killed_command_gone(tmp_path: Path) -> None:
    with RunningProcess(launch(tmp_path, "import time; time.sleep(60)")) as process:
        os.kill(process.supervisor_pid, signal.SIGKILL)
        assert process.wait(5) == LOST
        await_death(process.pid)


def test_control_characters_never_reach_a_terminal() -> None:
    assert printable("a\x1b[2Jb\tc\n") == "a\ufffd[2Jb\tc\n"


def _session(path: Path) -> int:
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return 0
