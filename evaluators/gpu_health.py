"""Decides whether a failed evaluation is its GPU's fault: what the driver says of the GPU before and after it.

An XID is a line in the kernel's log, which an evaluation can seldom read, and most of them (13, 31, 43, 45) are what
a candidate's own bug looks like. What a fault of the *hardware* leaves behind is seen without privileges: the GPU no
longer answers (XID 79, 119), or its uncorrected memory errors (48, 94, 95), its remapped rows (63, 64) or the recovery
that the driver asks for (154) are others than before (NVIDIA, "XID Errors" and "GPU Memory Error Management").
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

TIMEOUT_S = 30.0
_LOST_CODES = (8, 9, 10, 15)
"""How nvidia-smi ends where the power, the driver or the interrupts fail, or a GPU fell off the bus (its manual,
"Return Value"). Not how it ends where it finds no GPU of such a name: that is what a GPU of MIG looks like, too."""
HELD_SHARE = 0.05
"""Memory in use before a server has started, as a share of the GPU's, from which on it is somebody else's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the driver says of one GPU. None: this driver or this GPU does not tell."""

    gpu: str
    """As the lease names it."""
    silence: str | None = None
    """Why there is no answer about it; the fields below are None then."""
    lost: bool = False
    """The silence is the GPU's or its driver's: nvidia-smi is there, and says so or hangs."""
    uncorrected: int | None = None
    """Uncorrected memory errors since the driver was loaded."""
    remapped: str | None = None
    """Rows remapped after uncorrected errors, and whether a remapping is pending or has failed."""
    recovery: str | None = None
    """What the driver asks for: `None`, `Reset`, `Reboot`, `Drain P2P`, `Drain and Reset`."""
    used_mib: float | None = None
    total_mib: float | None = None


def look(gpus: Sequence[str], program: str = "nvidia-smi") -> tuple[Health, ...]:
    """One per GPU, in order."""
    return tuple(_look(gpu, program) for gpu in gpus)


def fault(before: Sequence[Health], after: Sequence[Health]) -> str | None:
    """What is wrong with a GPU that was looked at before and after an evaluation; None: nothing that can be seen.

    Whatever fails on a GPU that was lost before fails because of it. One of which nothing was said before is not
    judged: without nvidia-smi nobody can tell.
    """
    judged = [(old, new) for old, new in zip(before, after, strict=True) if old.silence is None or old.lost]
    wrong = [_worse(old, new) for old, new in judged]
    return "; ".join(reason for reason in wrong if reason) or None


def _look(gpu: str, program: str) -> Health:
    query = [program, "-q", "-x", "-i", gpu]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        found = ElementTree.fromstring(done.stdout).find("gpu") if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        return Health(gpu=gpu, silence=f"nvidia-smi did not answer within {TIMEOUT_S:g} s", lost=True)
    except (OSError, ElementTree.ParseError) as error:
        return Health(gpu=gpu, silence=f"nvidia-smi: {error}")
    if found is None:
        said = " ".join((done.stdout + done.stderr).split()) or "no such GPU"
        silence = f"nvidia-smi ended with code {done.returncode}: {said[-300:]}"
        return Health(gpu=gpu, silence=silence, lost=done.returncode in _LOST_CODES)
    return _parse(gpu, found)


def _parse(gpu: str, found: ElementTree.Element) -> Health:
    volatile = found.find("ecc_errors/volatile")
    counts = [_number(e.text) for e in ([] if volatile is None else volatile.iter()) if "uncorrectable" in e.tag]
    told = [int(count) for count in counts if count is not None]
    names = ("unc", "pending", "failure")
    rows = [found.findtext(f"remapped_rows/remapped_row_{name}", "").strip() for name in names]
    return Health(
        gpu=gpu,
        uncorrected=sum(told) if told else None,
        remapped=", ".join(f"{name} {row}" for name, row in zip(names, rows, strict=True)) if all(rows) else None,
        recovery=found.findtext("gpu_recovery_action", "").strip() or None,
        used_mib=_number(found.findtext("fb_memory_usage/used")),
        total_mib=_number(found.findtext("fb_memory_usage/total")),
    )


def _number(text: str | None) -> float | None:
    """`612 MiB` → 612; None for `N/A`."""
    first = (text or "").split()[:1]
    return float(first[0]) if first and first[0].replace(".", "", 1).isdigit() else None


def _worse(old: Health, new: Health) -> str | None:
    if old.lost:
        return f"GPU {old.gpu} did not answer before the server started: {old.silence}"
    if new.silence is not None:
        return f"GPU {new.gpu} no longer answers: {new.silence}"
    if (new.uncorrected or 0) > (old.uncorrected or 0):
        return f"GPU {new.gpu} has {new.uncorrected} uncorrected memory errors, {old.uncorrected or 0} before"
    if new.remapped != old.remapped:
        return f"GPU {new.gpu} has remapped rows: {new.remapped}; before: {old.remapped}"
    if new.recovery not in (None, "None", "N/A"):
        return f"GPU {new.gpu} needs a recovery: {new.recovery}"
    if old.used_mib and old.total_mib and old.used_mib > HELD_SHARE * old.total_mib:
        return (
            f"GPU {new.gpu} had {old.used_mib:,.0f} of {old.total_mib:,.0f} MiB in use before the server started; end "
            "what holds it (`nvidia-smi`)"
        )
    return None
