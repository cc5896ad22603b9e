"""What tells machines apart: the same answer for the same machine, another for another, whatever is missing."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from evaluators.hardware import cpu_model, fingerprint

_SMI = """#!/bin/sh
case "$*" in
  *-i*1*--query-gpu=name,memory*) echo "{second}" ;;
  *-i*--query-gpu=name,memory*) echo "{first}" ;;
  *--query-gpu=name,memory*) echo "{first}"; echo "{second}" ;;
  "") echo "| NVIDIA-SMI 570.86   Driver Version: 570.86   CUDA Version: 12.8 |" ;;
  *) exit 9 ;;
esac
"""
_H200 = "NVIDIA H200, 143771 MiB, 700.00 W, 1980 MHz, 3201 MHz, Disabled, Enabled, 570.86"
_CAPPED = _H200.replace("700.00", "500.00")


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, second: str = _H200) -> None:
    """A machine with two GPUs, index 0 and 1, as nvidia-smi tells it."""
    program = folder / "nvidia-smi"
    program.write_text(_SMI.format(first=_H200, second=second))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_without_gpus_it_is_the_cpu_and_what_servers_compute_with() -> None:
    found = fingerprint(())
    assert found["CPU"] == cpu_model()
    assert found["Python"] == platform.python_version()
    assert "numpy" in found
    assert not any("GPU" in fact for fact in found)


def test_a_lease_of_gpus_says_clocks_power_limit_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch)
    found = fingerprint(("0",))
    assert found["GPU"] == "NVIDIA H200"
    assert found["GPU power limit"] == "700.00 W"
    assert found["GPU SM clock at most"] == "1980 MHz"
    assert (found["NVIDIA driver"], found["CUDA"]) == ("570.86", "12.8")


def test_the_machine_says_the_same_as_any_lease_of_its_equal_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(tmp_path, monkeypatch)
    assert fingerprint(None) == fingerprint(("0",)) == fingerprint(("1",)) == fingerprint(("0", "1"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as a worker has it that made a mutation before
    assert fingerprint(None) == fingerprint(("0",))


def test_gpus_that_differ_are_named_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, second=_CAPPED)
    assert fingerprint(None)["GPU power limit"] == "500.00 W + 700.00 W"
    assert fingerprint(("1",))["GPU power limit"] == "500.00 W"


def test_a_machine_that_cannot_tell_says_so_alike_for_itself_and_for_a_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fingerprint(None) == fingerprint(("0",))
    assert fingerprint(None)["GPU"] == "unknown"
