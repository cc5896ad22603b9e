"""Decides what a server's own processes do when they are to be profiled: PyTorch's profiler, or a range for nsys.

Copied as `sitecustomize.py` into a folder of PYTHONPATH, so that every Python process of a server imports it, in a
second start of that server and never in the measured one. Nothing happens before a file `start` appears beside it, and
whatever happens then ends with the file `stop`, or after `most_s`. Standard library only; torch if the server has it.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_POLL_S = 0.02
_MOST_OPERATORS = 64


def watch() -> None:
    """Wait for `start` in a thread of its own, which ends with the process."""
    threading.Thread(target=_run, name="profiling", daemon=True).start()


def _run() -> None:
    settings = json.loads((_HERE / "settings.json").read_text(encoding="utf-8"))
    while not (_HERE / "start").exists():
        time.sleep(_POLL_S)
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    output = Path(settings["output"]) / f"{os.getpid()}"
    _mark(output, "seen")
    try:
        report = _range(torch, settings, output) if settings["mode"] == "range" else _trace(torch, settings, output)
    except (RuntimeError, AttributeError, TypeError) as error:  # another profiler is on, or another torch
        report = {"failed": f"{type(error).__name__}: {error}"[:400]}
    _mark(output, "started")
    written = output.with_suffix(".part")
    written.write_text(json.dumps(report), encoding="utf-8")
    written.replace(output.with_suffix(".json"))


def _range(torch: Any, settings: dict[str, Any], output: Path) -> dict[str, Any]:
    """The range that `nsys --capture-range=cudaProfilerApi` records; only a process that has a GPU opens one."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return {}
    torch.cuda.profiler.start()
    _mark(output, "started")
    window_s = _until_stop(settings["most_s"])
    torch.cuda.profiler.stop()
    return {"window_s": window_s}


def _trace(torch: Any, settings: dict[str, Any], output: Path) -> dict[str, Any]:
    """Operators of all threads, not only of this one, and the kernels of this process."""
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    everywhere = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    profiler = torch.profiler.profile(activities=activities, experimental_config=everywhere, acc_events=True)
    profiler.start()
    _mark(output, "started")
    window_s = _until_stop(settings["most_s"])
    if cuda:
        torch.cuda.synchronize()
    profiler.stop()
    return {"window_s": window_s, "torch": str(torch.__version__), **_sums(torch, profiler.key_averages())}


def _sums(torch: Any, averages: Any) -> dict[str, Any]:
    """Operators by their own CPU time, and kernels by their own time on the device."""
    on_host = torch.autograd.DeviceType.CPU
    operators, kernels = [], []
    for row in averages:
        if row.device_type == on_host:
            operators.append([row.key, int(row.count), float(row.self_cpu_time_total)])
        elif not getattr(row, "is_user_annotation", False):
            kernels.append([row.key, int(row.count), float(row.self_device_time_total)])
    return {
        name: {"whole_us": sum(us for _, _, us in rows), "rows": sorted(rows, key=lambda r: -r[2])[:_MOST_OPERATORS]}
        for name, rows in (("operators", operators), ("kernels", kernels))
    }


def _until_stop(most_s: float) -> float:
    """Seconds until `stop` appeared, or `most_s`."""
    began_s = time.monotonic()
    while not (_HERE / "stop").exists() and time.monotonic() - began_s < most_s:
        time.sleep(_POLL_S)
    return time.monotonic() - began_s


def _mark(output: Path, what: str) -> None:
    output.with_suffix(f".{what}").touch()


def _give_way() -> None:
    """Run the `sitecustomize` that this one hides, if there is one."""
    elsewhere = [folder for folder in sys.path if Path(folder).resolve() != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":
    watch()
    os.register_at_fork(after_in_child=watch)
    _give_way()
