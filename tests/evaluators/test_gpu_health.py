"""A GPU that failed, told from a candidate that failed, by what nvidia-smi says before and after."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators import gpu_health
from evaluators.evaluator import EvaluationTask, Lease
from evaluators.gpu_health import Health, fault, look
from evaluators.pipeline import LocalEvaluator
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage

REPORT = """<?xml version="1.0" ?><!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log><driver_version>570.124.06</driver_version><attached_gpus>1</attached_gpus>
<gpu id="00000000:18:00.0"><product_name>NVIDIA H100 80GB HBM3</product_name>
<gpu_recovery_action>{recovery}</gpu_recovery_action>
<fb_memory_usage><total>81559 MiB</total><reserved>551 MiB</reserved><used>{used} MiB</used></fb_memory_usage>
<ecc_errors>
<volatile><sram_correctable>3</sram_correctable><sram_uncorrectable_parity>0</sram_uncorrectable_parity>
<sram_uncorrectable_secded>0</sram_uncorrectable_secded><dram_correctable>9</dram_correctable>
<dram_uncorrectable>{errors}</dram_uncorrectable></volatile>
<aggregate><dram_uncorrectable>71</dram_uncorrectable></aggregate></ecc_errors>
<remapped_rows><remapped_row_corr>0</remapped_row_corr><remapped_row_unc>{rows}</remapped_row_unc>
<remapped_row_pending>{pending}</remapped_row_pending><remapped_row_failure>No</remapped_row_failure></remapped_rows>
</gpu></nvidia_smi_log>
"""
FINE = {"recovery": "None", "used": "4", "errors": "0", "rows": "0", "pending": "No"}
LOST = "Unable to determine the device handle for GPU0000:18:00.0: GPU is lost.  Reboot the system"


class Smi:
    """A program in place of nvidia-smi that says what it is told to say."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "nvidia-smi"
        self.program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n. {folder}/answer\n')
        self.program.chmod(0o755)
        self._answer, self._report = folder / "answer", folder / "report.xml"
        self.says()

    def says(self, **changes: str) -> None:
        self._report.write_text(REPORT.format(**FINE | changes))
        self._answer.write_text(f"cat {self._report}\n")

    def fails(self, text: str, code: int) -> None:
        self._answer.write_text(f"echo '{text}'\nexit {code}\n")

    def look(self) -> tuple[Health, ...]:
        return look(("0",), str(self.program))


@pytest.fixture
def smi(tmp_path: Path) -> Smi:
    return Smi(tmp_path)


def test_what_the_driver_says(smi: Smi) -> None:
    (health,) = smi.look()
    assert health == Health(
        gpu="0",
        uncorrected=0,
        remapped="unc 0, pending No, failure No",
        recovery="None",
        used_mib=4.0,
        total_mib=81559.0,
    )
    assert (smi.program.parent / "asked").read_text() == "-q -x -i 0\n"


def test_nothing_has_changed(smi: Smi) -> None:
    assert fault(smi.look(), smi.look()) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"errors": "2"}, "has 2 uncorrected memory errors, 0 before"),
        ({"rows": "1", "pending": "Yes"}, "remapped rows: unc 1, pending Yes, failure No; before: unc 0, pending No"),
        ({"recovery": "Drain and Reset"}, "needs a recovery: Drain and Reset"),
    ],
)
def test_what_a_fault_of_the_hardware_leaves_behind(smi: Smi, changes: dict[str, str], said: str) -> None:
    before = smi.look()
    smi.says(**changes)
    reason = fault(before, smi.look())
    assert reason is not None
    assert said in reason


def test_old_errors_are_no_fault(smi: Smi) -> None:
    smi.says(errors="2", rows="1")
    assert fault(smi.look(), smi.look()) is None


def test_a_gpu_that_fell_off_the_bus(smi: Smi) -> None:
    before = smi.look()
    smi.fails(LOST, 15)
    reason = fault(before, smi.look())
    assert reason is not None
    assert "GPU 0 no longer answers: nvidia-smi ended with code 15: Unable to determine the device handle" in reason


def test_a_gpu_that_was_lost_before_fails_everything_that_comes_to_it(smi: Smi) -> None:
    smi.fails(LOST, 15)
    reason = fault(smi.look(), smi.look())
    assert reason is not None
    assert "GPU 0 did not answer before the server started: nvidia-smi ended with code 15" in reason
    smi.fails("No devices were found", 6)  # so it is for a GPU of MIG, too
    assert fault(smi.look(), smi.look()) is None


def test_a_driver_that_hangs(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    before = smi.look()
    smi._answer.write_text("exec sleep 600\n")
    monkeypatch.setattr(gpu_health, "TIMEOUT_S", 0.2)
    reason = fault(before, smi.look())
    assert reason is not None
    assert "did not answer within 0.2 s" in reason


def test_memory_that_somebody_held_before_the_server_started(smi: Smi) -> None:
    smi.says(used="60000")
    before = smi.look()
    smi.says()
    reason = fault(before, smi.look())
    assert reason is not None
    assert "60,000 of 81,559 MiB in use before the server started" in reason


def test_memory_that_the_candidate_itself_filled_is_its_own_fault(smi: Smi) -> None:
    before = smi.look()
    smi.says(used="81000")
    assert fault(before, smi.look()) is None


def test_where_nobody_can_tell_nothing_is_said(smi: Smi, tmp_path: Path) -> None:
    silent = look(("0",), str(tmp_path / "none"))
    assert silent[0].silence is not None
    assert fault(silent, silent) is None
    assert look((), str(smi.program)) == ()
    smi.program.write_text("#!/bin/sh\necho '<nvidia_smi_log><gpu></gpu></nvidia_smi_log>'\n")
    assert smi.look() == (Health(gpu="0"),)
    assert fault(smi.look(), smi.look()) is None


def test_the_same_failure_is_the_candidates_or_the_machines(
    smi: Smi, evaluator: LocalEvaluator, task: EvaluationTask, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(smi.program.parent), prepend=os.pathsep)
    (task.workspace / "server.py").write_text("raise SystemExit('CUDA error: unspecified launch failure')\n")
    with_gpu = replace(lease, gpus=("0",))
    verdict = evaluator.evaluate(task, with_gpu, lambda stage: None)
    assert isinstance(verdict, Rejected)
    assert verdict.stage is Stage.BOOT

    def lose(stage: Stage) -> None:
        if stage is Stage.BOOT:
            smi.fails(LOST, 15)

    smi.says()
    with pytest.raises(InfrastructureError, match=f"evaluation of {task.candidate}: GPU 0 no longer answers"):
        evaluator.evaluate(task, with_gpu, lose)
