"""Decides how attacks are carried out inside the sandbox: each in a process of its own, with a deadline.

Run as `python -I PROBE.pyz SCENE ATTACK…`; standard library only. Prints one JSON object per attack.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from evaluators.hostile.attack import Attack, Blocked, NotApplicable, Scene, load_scene
from evaluators.hostile.catalogue import ATTACKS

DEADLINE_S = 5.0
_ALONE_DEADLINE_S = 30.0
_ANSWER_BYTES = 1 << 16


def main(arguments: Sequence[str]) -> None:
    """Carry out the named attacks."""
    inherited = tuple(_descriptors())
    scene = replace(load_scene(arguments[0]), inherited=inherited, parent=os.getppid())
    attacks = {attack.name: attack for attack in ATTACKS}
    print(json.dumps({"begun": True}), flush=True)
    for name in arguments[1:]:
        answer = carry_out(attacks[name], scene)
        print(json.dumps({"attack": name, **answer}), flush=True)


def carry_out(attack: Attack, scene: Scene) -> dict[str, str]:
    """`outcome` (through, blocked, absent, unclear) and `detail` of one attack, carried out by a child."""
    result, result_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(result)
            os.write(result_write, json.dumps(_attempt(attack, scene)).encode()[:_ANSWER_BYTES])
        finally:
            os._exit(0)
    os.close(result_write)
    answer = _await(result, _ALONE_DEADLINE_S if attack.alone else DEADLINE_S)
    os.close(result)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if answer:
        told: dict[str, str] = json.loads(answer)
        return told
    if answer is None:
        return {"outcome": "unclear", "detail": "did not end in time"}
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return {"outcome": "unclear", "detail": "failed in a way that was not foreseen"}
    return {"outcome": "blocked", "detail": f"was killed by signal {-code}"}


def _attempt(attack: Attack, scene: Scene) -> dict[str, str]:
    try:
        return {"outcome": "through", "detail": attack.run(scene)}
    except (Blocked, OSError) as error:
        return {"outcome": "blocked", "detail": str(error)}
    except NotApplicable as error:
        return {"outcome": "absent", "detail": str(error)}
    except MemoryError:
        return {"outcome": "blocked", "detail": "out of memory"}


def _await(source: int, timeout_s: float) -> bytes | None:
    """What came until the end; None: no end in time."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return os.read(source, _ANSWER_BYTES) if poll.poll(timeout_s * 1000) else None


def _descriptors() -> list[str]:
    """What is open besides stdin, stdout and stderr, with where it leads; stdin, too, if it leads anywhere."""
    found = []
    for fd in range(256):
        with suppress(OSError):
            os.fstat(fd)
            target = os.readlink(f"/proc/self/fd/{fd}")
            # Tier B keeps our own folder of /proc open, which we can open ourselves.
            if target != f"/proc/{os.getpid()}" and (fd > 2 or (fd == 0 and target != os.devnull)):
                found.append(f"{fd} → {target}")
    return found
