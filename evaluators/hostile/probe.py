"""Decides what got through: carries the attacks out in a sandbox like a candidate's, and judges them from outside."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from evaluators.hostile.attack import Attack, Other, Proof, Scene
from evaluators.hostile.catalogue import ATTACKS
from evaluators.hostile.control import missing, name_server
from evaluators.hostile.findings import Finding, Outcome, Probe
from evaluators.hostile.inmate import Inmate, Watched, kill_all
from evaluators.hostile.stage import Room, Stage, staged, tempting_environment
from evaluators.limits import Limits
from evaluators.sandbox import PlainSandbox, Sandbox

_SHARED_TIMEOUT_S, _ALONE_TIMEOUT_S = 120.0, 40.0
_DETAIL_CHARACTERS = 160
LIMITS = Limits(memory_bytes=512 << 20, temporary_bytes=64 << 20, pids=512)
"""What the attackers' sandboxes may use, and what attacks on limits try to pass: little, for where nothing holds."""


def attack(sandbox: Sandbox, scratch: Path | None = None, attacks: tuple[Attack, ...] = ATTACKS) -> Probe:
    """Every attack on `sandbox`; nothing of it is left behind.

    Raises:
        InfrastructureError: the attackers cannot even be started in this sandbox.
    """
    started = time.monotonic()
    if sys.platform != "linux":
        reasons = {attack.name: "the attacks are made for Linux" for attack in attacks}
        findings = [_absent(attack, reasons) for attack in attacks]
    else:
        with staged(scratch) as stage, tempting_environment(stage.secret("the harness's environment")):
            findings = _Prober(sandbox, stage).findings(attacks)
    seconds = time.monotonic() - started
    return Probe(tier=sandbox.tier, gaps=sandbox.gaps, findings=tuple(findings), seconds=seconds)


class _Prober:
    """One probe on one stage."""

    def __init__(self, sandbox: Sandbox, stage: Stage) -> None:
        self._sandbox, self._stage = sandbox, stage
        self._name_server = name_server()
        self._cpus = (min(os.sched_getaffinity(0)),)

    def findings(self, attacks: tuple[Attack, ...]) -> list[Finding]:
        """In the order of `attacks`."""
        room = self._stage.attacker
        absent = missing(attacks, room.workspace / room.program, "home" in self._stage.secret_files)
        if not self._name_server:
            absent["resolve-names"] = "no name server answers the harness, either"
        due = [attack for attack in attacks if attack.name not in absent]
        found = self._together([attack for attack in due if not attack.alone])
        found |= {attack.name: self._alone(attack) for attack in due if attack.alone}
        return [found.get(attack.name) or _absent(attack, absent) for attack in attacks]

    def _together(self, attacks: Sequence[Attack]) -> dict[str, Finding]:
        """Attacks that leave their sandbox usable, side by side with a sibling and a process of the harness."""
        room = self._stage.attacker
        with self._others() as watched:
            scene = self._scene(room, tuple(other.known for other in watched))
            self._stage.write_scene(room, scene)
            answers = self._answers(room, [attack.name for attack in attacks])
            effects = self._stage.traces(room).union(*(other.noticed() for other in watched))
        return {attack.name: self._judge(attack, answers[attack.name], effects) for attack in attacks}

    def _answers(self, room: Room, names: list[str]) -> dict[str, dict[str, str]]:
        """What each attack says of itself; one that ends the sandbox does not keep the rest from being tried."""
        answers: dict[str, dict[str, str]] = {}
        while left := [name for name in names if name not in answers]:
            with Inmate(self._sandbox, self._stage, room, self._cpus).start("attack", "scene.json", *left) as inmate:
                ended = inmate.wait(_SHARED_TIMEOUT_S)
                answers |= inmate.answers()
            missing_now = next((name for name in left if name not in answers), None)
            if missing_now is not None:
                answers[missing_now] = {"outcome": "blocked", "detail": f"the sandbox ended with it ({ended})"}
        return answers

    def _alone(self, attack: Attack) -> Finding:
        """An attack that may take its sandbox down, with the traces that it leaves outside."""
        room = self._stage.lonely_room(attack.name)
        self._stage.write_scene(room, self._scene(room, ()))
        with Inmate(self._sandbox, self._stage, room, self._cpus).start("attack", "scene.json", attack.name) as inmate:
            if attack.name == "outlive-kill":
                inmate.await_word("ready")
                ended = "killed"
            else:
                ended = inmate.wait(_ALONE_TIMEOUT_S)
            effects = inmate.log_effects()
        answer = inmate.answers().get(attack.name) or {
            "outcome": "blocked",
            "detail": f"the sandbox ended it ({ended})",
        }
        if left := kill_all(room):
            effects.add(attack.name)
            answer["detail"] = f"{left} processes were left"
        return self._judge(attack, answer, effects)

    def _judge(self, attack: Attack, answer: dict[str, str], effects: set[str]) -> Finding:
        said, detail = answer["outcome"], answer["detail"]
        outcome = Outcome.BLOCKED
        if said == "absent":
            outcome = Outcome.NOT_APPLICABLE
        elif attack.proof is Proof.EFFECT:
            if attack.name in effects:
                outcome, detail = Outcome.LET_THROUGH, f"seen from outside: {detail}"
        elif said == "unclear":
            outcome = Outcome.LET_THROUGH
        elif said == "through" and attack.proof is Proof.LOOT:
            places = self._stage.found_in(detail)
            outcome = Outcome.LET_THROUGH if places else Outcome.BLOCKED
            detail = f"found the secret of {', '.join(places)}" if places else "what it found is no secret"
        elif said == "through":
            outcome = Outcome.LET_THROUGH
        return Finding(name=attack.name, tries=attack.tries, outcome=outcome, detail=detail[:_DETAIL_CHARACTERS])

    @contextmanager
    def _others(self) -> Iterator[list[Watched]]:
        """A process of the harness, and a sibling in a sandbox of its own."""
        harness, sibling = self._stage.harness, self._stage.sibling
        with ExitStack() as stack:
            yield [
                stack.enter_context(Inmate(PlainSandbox(), self._stage, harness).canary("harness", harness.workspace)),
                stack.enter_context(Inmate(self._sandbox, self._stage, sibling).canary("sibling", sibling.home)),
            ]

    def _scene(self, room: Room, others: tuple[Other, ...]) -> Scene:
        return Scene(
            nonce=room.nonce,
            secret_files={place: str(path) for place, path in self._stage.secret_files.items()},
            artifact=str(self._stage.artifact),
            log=str(room.log),
            handle=self._stage.handle(),
            uts=os.readlink("/proc/self/ns/uts"),
            nameserver=self._name_server,
            cpus=self._cpus,
            oom_score_adj=min(0, int(Path("/proc/self/oom_score_adj").read_text())),
            max_processes=LIMITS.pids,
            max_memory_bytes=LIMITS.memory_bytes,
            max_disk_bytes=LIMITS.temporary_bytes,
            others=others,
        )


def _absent(attack: Attack, reasons: dict[str, str]) -> Finding:
    return Finding(name=attack.name, tries=attack.tries, outcome=Outcome.NOT_APPLICABLE, detail=reasons[attack.name])
