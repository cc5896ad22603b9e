"""Decides how one machine carries out one half of a child: mutate a parent's tree, or measure a candidate's tree.

Runs inside the executor's workers. Everything it needs comes with the `Kit`; it keeps one cache per run and machine.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from evaluators.evaluator import EvaluationTask, Evaluator
from evaluators.hardware import fingerprint, hardware
from population.errors import InfrastructureError, ProviderDown, ProviderError, ProviderRefused, VibeServeError
from population.evaluation import Place, Rejected, Scored, Stage
from population.repository import Repository
from vibeserve.executor import Delta, Evaluated, Failed, Fault, Made, MeasureTask, Mutated, MutateTask, Unread
from vibeserve.lease import lease, visible_gpus
from vibeserve.making import Maker, Makers, NoWork, Work
from vibeserve.mutators import Settling, Workplace
from vibeserve.same_hardware import Fingerprint, differences

Outcome = TypeVar("Outcome")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FILES_BYTES = 60_000
"""Text kept per evaluation: results must stay far below Ray's 100 kB inlining limit, or a dead node loses them."""


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What every worker of a run needs, sent once. Picklable."""

    run: str
    target_tar: bytes
    """The run's snapshot of the target."""
    target_digest: str
    seed_delta: bytes
    seed_commit: str
    makers: Makers
    evaluator: Evaluator
    cpus: int
    """Logical CPUs per evaluation."""
    gpus: int = 0
    """GPUs per evaluation."""
    first_party: bool = False
    """Whether all trees of the run are made of the checkout's own files (`vibeserve.tiers`)."""
    identify: Callable[[Sequence[str] | None], Fingerprint] = fingerprint
    """What a machine says of its hardware, given a lease's GPUs."""
    hardware: Fingerprint | None = None
    """What an evaluation must find; None: whatever there is."""

    @property
    def cache(self) -> Path:
        """This machine's cache folder for the run; another one after a reboot, because nothing in it is synced."""
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Path(base) / "vibeserve" / "runs" / f"{self.run}-{self.target_digest[:12]}{_boot()}"


def pack(folder: Path) -> bytes:
    """A folder as an uncompressed tar with stable metadata."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            if "__pycache__" not in path.parts:
                tar.add(path, arcname=str(path.relative_to(folder)), recursive=False, filter=_anonymous)
    return buffer.getvalue()


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


class Workshop:
    """Carries out tasks on this machine. One per worker process; stateless but for the cache on disk."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._target = self._unpack_target()
        self._repository = Repository.cache(kit.cache / "population.git")
        if not self._repository.has(kit.seed_commit):
            self._repository.absorb(kit.seed_delta)
        place = Workplace(target=self._target, evaluator=kit.evaluator, cpus=kit.cpus)
        self._maker = Maker(_settled(kit.makers, place), self._repository)

    def lacks(self, commits: Sequence[str]) -> list[str]:
        """Which of these commits this machine has not seen yet, in the same order."""
        return [commit for commit in commits if not self._repository.has(commit)]

    def receive(self, chain: Sequence[Delta]) -> None:
        """Ancestors come before descendants, so a commit that is here has all of its history here."""
        with self._repository.batch():
            for delta in chain:
                if not self._repository.has(delta.commit):
                    self._repository.absorb(delta.data)

    def mutate(self, task: MutateTask) -> Made | Fault:
        """Make the child's commit. Candidate faults are `Rejected`, ours and the machine's are `Fault`."""
        started = time.monotonic()
        outcome = _guarded(f"mutation of {task.key}", lambda: self._mutate(task))
        if isinstance(outcome, Rejected | Fault):
            return outcome
        elapsed_s = time.monotonic() - started
        if isinstance(outcome, NoWork):
            return _failed(task, outcome, elapsed_s)
        made = self._mutated(task, outcome, elapsed_s)
        if outcome.unread is None:
            return made
        fault = _fault(f"judgement of {task.key}", outcome.unread)
        return fault if task.draft else Unread(mutated=made, fault=fault)

    def _mutated(self, task: MutateTask, work: Work, elapsed_s: float) -> Mutated:
        mutation, commit = work.mutation, work.commit
        trace = [("transcript.txt", mutation.trace)] if mutation.trace else []
        return Mutated(
            delta=self._repository.delta(commit.sha),
            commit=commit.sha,
            tree=commit.tree,
            summary=mutation.summary,
            changed=mutation.changed,
            elapsed_s=elapsed_s,
            files=(*_told(task, work), *work.advice.files, *trace, *mutation.files),
            spent=(*work.advice.spent, *mutation.spent),
            advice=work.advice.text,
            objection=work.objection,
        )

    def _mutate(self, task: MutateTask) -> Work | NoWork | Rejected:
        self.receive(task.chain)
        return self._maker.make(task)

    def measure(self, task: MeasureTask, progress: Callable[[Stage], None]) -> Evaluated | Fault:
        """Judge and benchmark the task's commit under a lease; leaves no process and no file behind."""
        return _guarded(f"evaluation of {task.key}", lambda: self._measure(task, progress))

    def _measure(self, task: MeasureTask, progress: Callable[[Stage], None]) -> Evaluated:
        started = time.monotonic()
        self.receive(task.chain)
        with lease(self._kit.cpus, visible_gpus(self._kit.gpus)) as granted:
            found = self._require_hardware(granted.gpus)
            workspace, output = granted.scratch / "workspace", granted.scratch / "output"
            workspace.mkdir()
            output.mkdir()
            self._repository.export(task.commit, workspace)
            evaluation = self._kit.evaluator.evaluate(self._task(task, workspace, output), granted, progress)
            if isinstance(evaluation, Scored):
                evaluation = replace(evaluation, hardware=hardware(len(granted.cpus), granted.gpus))
            files = _texts(output)
        return Evaluated(
            evaluation=evaluation,
            elapsed_s=time.monotonic() - started,
            place=Place(node=os.uname().nodename, gpus=granted.gpus, cpus=granted.cpus, fingerprint=found),
            files=files,
        )

    def _require_hardware(self, gpus: Sequence[str]) -> dict[str, str]:
        """The machine may have changed since the run chose it: a power limit, a driver.

        Raises:
            InfrastructureError: it is not the hardware that the run is measured on.
        """
        found = dict(self._kit.identify(gpus))
        expected = self._kit.hardware
        if expected is not None and (differs := differences(expected, found)):
            raise InfrastructureError(
                f"expected the run's hardware on {os.uname().nodename}, but it has {', '.join(differs)}; nothing is "
                "measured there. Set it back, or start a new run"
            )
        return found

    def _task(self, task: MeasureTask, workspace: Path, output: Path) -> EvaluationTask:
        return EvaluationTask(
            candidate=task.key,
            workspace=workspace,
            target=self._target,
            trace_seed=task.trace_seed,
            content_seed=task.content_seed,
            bar=task.bar,
            repeats=task.repeats,
            judged=task.judged,
            profile=task.profile,
            first_party=self._kit.first_party,
            output=output,
        )

    def _unpack_target(self) -> Path:
        """The target's snapshot on this machine; unpacked beside its place and renamed, so never half there."""
        place = self._kit.cache / f"target-{self._kit.target_digest[:12]}"
        if place.is_dir():
            return place
        self._kit.cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="target-", dir=self._kit.cache))
        with tarfile.open(fileobj=io.BytesIO(self._kit.target_tar)) as tar:
            # Our own archive; Python before 3.11.4 has no filter and says nothing about it.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(fresh)
        try:
            fresh.rename(place)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if not place.is_dir():  # otherwise another worker was first
                raise InfrastructureError(f"cannot unpack the target into {place}: {error}") from error
        return place


def _failed(task: MutateTask, outcome: NoWork, elapsed_s: float) -> Failed:
    advice, unmade = outcome.advice, outcome.unmade
    return Failed(
        rejected=unmade.rejected,
        elapsed_s=elapsed_s,
        files=(*_told(task, outcome), *advice.files, *unmade.files),
        spent=(*advice.spent, *unmade.spent),
        advice=advice.text,
    )


def _told(task: MutateTask, outcome: Work | NoWork) -> tuple[tuple[str, str], ...]:
    name = f"brief-{task.returned.attempt}.md" if task.returned else "brief.md"
    return ((name, outcome.told),) if outcome.told else ()


def _settled(makers: Makers, place: Workplace) -> Makers:
    """The same, on this machine."""

    def there(maker: Any) -> Any:
        return maker.settle(place) if isinstance(maker, Settling) else maker

    mutators = {operator: there(mutator) for operator, mutator in makers.mutators.items()}
    return replace(makers, mutators=mutators, judge=there(makers.judge), advisor=there(makers.advisor))


def _boot() -> str:
    """What names this boot of the machine; nothing where the system has no such name."""
    try:
        return f"-{_BOOT_ID.read_text(encoding='ascii').strip()[:8]}"
    except OSError:
        return ""


def _guarded(what: str, work: Callable[[], Outcome]) -> Outcome | Fault:
    """The executor's boundary: whatever our own code or the machine throws becomes a value, and only here.

    The machine's faults may pass and are worth another try; a bug of ours would come again.
    """
    try:
        return work()
    except (VibeServeError, OSError) as error:
        return _fault(what, error)
    except Exception as error:  # noqa: BLE001
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return Fault(reason=f"{what}: internal error at {place}, please report it: {error!r}", retryable=False)


def _fault(what: str, error: VibeServeError | OSError) -> Fault:
    if isinstance(error, ProviderError):
        refused, wait_s = isinstance(error, ProviderRefused), error.wait_s if isinstance(error, ProviderDown) else None
        reason = f"{what}: the model's provider {'refuses' if refused else 'is down'}: {error}"
        return Fault(reason=reason, retryable=not refused, final=refused, wait_s=wait_s, spent=error.spent)
    return Fault(reason=f"{what}: {error}", spent=error.spent if isinstance(error, InfrastructureError) else ())


def _texts(folder: Path) -> tuple[tuple[str, str], ...]:
    """Every file's text; where all would be too long, the tails of the long ones, which share what short ones leave."""
    paths = sorted((p for p in folder.iterdir() if p.is_file()), key=lambda path: (path.stat().st_size, path.name))
    texts, left = {}, _FILES_BYTES
    for place, path in enumerate(paths):
        data = path.read_bytes()
        kept = _tail(data, left // (len(paths) - place))
        left -= len(kept)
        earlier = f"[{len(data) - len(kept)} earlier bytes not kept]\n" if len(kept) < len(data) else ""
        texts[path.name] = earlier + kept.decode(errors="replace")
    return tuple(sorted(texts.items()))


def _tail(data: bytes, limit: int) -> bytes:
    """From the beginning of a line on, unless that line is longer than all that may be kept."""
    if len(data) <= limit:
        return data
    cut = data[len(data) - limit :]
    return cut[cut.find(b"\n") + 1 :] or cut
