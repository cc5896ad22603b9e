"""Which GPUs an evaluation gets where nobody hands them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from vibeserve.lease import visible_gpus


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose nvidia-smi lists two."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\necho 'NVIDIA H200, 143771 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("wanted", "granted"), [(0, ()), (1, ("0",)), (2, ("0", "1")), (3, ("0", "1"))])
def test_the_first_ones_where_nobody_chose(wanted: int, granted: tuple[str, ...]) -> None:
    assert visible_gpus(wanted) == granted


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("listed", "granted"), [("1", ("1",)), ("GPU-a,GPU-b", ("GPU-a", "GPU-b")), ("", ())])
def test_what_the_caller_chose_stands(monkeypatch: pytest.MonkeyPatch, listed: str, granted: tuple[str, ...]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus(1) == granted
