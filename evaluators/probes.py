"""Decides which timed prompts are probes, and whether a server answers them the same way when they come again.

A probe is a timed request like any other; which ones are probes the secret decides, so that nothing in length, headers
or time of arrival can give them away. All of their answers are audited. After the loads they are asked again, alone and
in a crowd in another order, and what comes is audited, too: a server need not repeat its tokens, but each time they
must be as good as the reference demands. What it must not do is answer a prompt that it knows without computing it.
Whoever repeats from memory at half of its honest pace is not seen, and gains nothing: no timed prompt comes twice.
With them come requests with a `stop` string, and pairs with a `seed`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluators.load.record import Request, Response
from evaluators.load.session import LoadSession
from evaluators.load.workload import Load
from evaluators.process import printable
from evaluators.repeat import protocol_fault
from population.evaluation import Rejected, Stage

PROBE, ECHO = "probe", "echo"
"""Purposes: a timed answer that is always audited; the answer to a prompt that was asked before."""
SHARE, FEWEST = 0.03, 2
IN_CROWD = 2
ENOUGH_TOKENS = 4
"""Then the client hangs up: the requests have the shape of timed ones, and cost little."""
WINDOW_SHARE, WINDOW_S = 0.08, (0.5, 5.0)
"""Of the loads' time, for the crowd; half of it for each of a pair, a known prompt and a fresh one, asked alone."""
PATIENCE = 4
"""Each of a pair may take so many times what the known prompt's answer took under load, up to the longest window."""
LEAD, MOST_PAIRS = 3, 12
"""Pairs are asked until so many more show memory than computing, or the other way round, and no more than `MOST_PAIRS`:
on a busy machine one pair in ten misleads, for a stalled server looks slow, and a stalled client makes it look fast."""
ATTEMPTS = 3
"""What a crowd shows must show so often in a row: a near-tie can cause it once."""
FIRST_TOKEN_STEPS = 0.5
"""Whatever is cached, the first token of a known prompt needs one step of the model, which is about what a token of a
fresh answer takes; earlier than half of that nothing was computed."""
PACE_SHARE = 0.1
"""A known answer may be guessed ahead, but guesses are verified: it costs more than a tenth of a fresh one's pace."""
STEP_SHARE = 0.5
"""A step brings `max_tokens_per_chunk` tokens at most; whatever more comes needs further steps, each at least half of
what a token of a fresh answer takes. This shows even where a step is shorter than the way to the server."""


def mark_probes(responses: Sequence[Response], seed: int) -> list[Response]:
    """The responses, 3 % of the timed ones (at least 2) marked as probes, from each load in turn."""
    rng = random.Random(f"probes/{seed}")
    queues: dict[str, list[str]] = {}
    for response in responses:
        if response.output_ids and response.failure is None and response.purpose == "timed":
            queues.setdefault(response.load, []).append(response.id)
    for queue in queues.values():
        rng.shuffle(queue)
    wanted = max(FEWEST, round(SHARE * sum(map(len, queues.values()))))
    chosen: list[str] = []
    while len(chosen) < wanted and any(queues.values()):
        chosen += [queue.pop() for queue in queues.values() if queue]
    marked = frozenset(chosen[:wanted])
    return [replace(r, purpose=PROBE) if r.id in marked else r for r in responses]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """The questions after the loads of one evaluation."""

    session: LoadSession
    loads: Sequence[Load]
    seed: int

    def ask_again(self, responses: Sequence[Response], timed_s: float) -> tuple[Response, ...] | Rejected:
        """All answers for the audit: `responses` with probes marked, and the echoes of the probes."""
        marked = mark_probes(responses, self.seed)
        probes = [r for r in marked if r.purpose == PROBE]
        # A server can have remembered only what it answered in full.
        complete = [r for r in probes if r.completed] or [r for r in marked if r.purpose == "timed" and r.completed]
        window_s = min(max(timed_s * WINDOW_SHARE, WINDOW_S[0]), WINDOW_S[1])
        echoes: list[Response] = []
        for ask, pool in ((self._ask_alone, complete or probes), (self._ask_crowd, probes)) if probes else ():
            found = ask(pool, window_s, echoes)
            if found is not None:
                return found
        return (*marked, *echoes)

    def _ask_alone(self, known: Sequence[Response], window_s: float, echoes: list[Response]) -> Rejected | None:
        """A rejection if memory comes to lead by `LEAD` pairs; the answers to known prompts are added to `echoes`."""
        lead, said = 0, ""
        for number in range(MOST_PAIRS):
            rng = random.Random(f"alone/{self.seed}/{number}")
            probe = rng.choice(known)
            took_s = (probe.last_s or probe.sent_s) - probe.sent_s
            patience_s = max(window_s / 2, min(PATIENCE * took_s, WINDOW_S[1]))
            pair = [
                answer  # each on a connection of its own: on a used one, small writes may wait for acknowledgements
                for request in self._alone(probe, number, rng)
                for answer in self.session.ask([request], patience_s, in_turn=True)
            ]
            if (fault := _fault(pair)) is not None:
                return fault
            echoes += [r for r in pair if r.purpose == ECHO]
            if _compared(pair) is None:
                continue  # cut off too early to show anything
            suspicion = remembered(pair, self.session.endpoint.max_tokens_per_chunk)
            lead, said = lead + (1 if suspicion else -1), suspicion or said
            if lead == LEAD:
                return Rejected(stage=Stage.BENCHMARK, reason=f"{said} (and most of {number + 1} pairs are like that)")
            if lead == -LEAD:
                break
        return None

    def _ask_crowd(self, probes: Sequence[Response], window_s: float, echoes: list[Response]) -> Rejected | None:
        """A rejection if the crowd shows each time what it must not; the answers to probes are added to `echoes`."""
        suspicion: str | None = None
        for attempt in range(ATTEMPTS):
            rng = random.Random(f"crowd/{self.seed}/{attempt}")
            shuffled = rng.sample(probes, k=len(probes))
            crowd = self.session.ask(self._crowd(shuffled, attempt, rng), window_s, in_turn=False)
            if (fault := _fault(crowd)) is not None:
                return fault
            echoes += [r for r in crowd if r.purpose == ECHO]
            if (suspicion := refused(crowd) or unseeded(crowd)) is None:
                return None
        return Rejected(stage=Stage.BENCHMARK, reason=f"{suspicion} ({ATTEMPTS} times in a row)")

    def _alone(self, probe: Response, number: int, rng: random.Random) -> list[Request]:
        """A fresh prompt of the same shape, and the probe, in either order."""
        enough = max(ENOUGH_TOKENS, 2 * (self.session.endpoint.max_tokens_per_chunk or 0) + 1)
        echo = replace(_echo(probe, f"alone{number}"), enough_tokens=enough)
        pair = [replace(echo, id=f"{echo.id}~fresh", prompt_ids=self._fresh(probe, rng), purpose="fresh"), echo]
        rng.shuffle(pair)
        return pair

    def _crowd(self, probes: Sequence[Response], attempt: int, rng: random.Random) -> list[Request]:
        """All at once: a stop string first, which ends soon; then probes, last one first, between two with one seed."""
        echoes = [_echo(probe, f"crowd{attempt}") for probe in reversed(probes[:IN_CROWD])]
        sampled = replace(
            echoes[0], id=f"seed{attempt}/a", purpose="seed", temperature=1.0, seed=rng.getrandbits(31),
            prompt_ids=self._fresh(probes[0], rng),
        )  # fmt: skip
        asked = [sampled, *echoes, replace(sampled, id=f"seed{attempt}/b")]
        wordy = max(probes, key=lambda probe: len(probe.text))
        if (word := _stop_word(wordy)) is not None:
            stopped = replace(_echo(wordy, f"stop{attempt}"), purpose="stop", stop=(word,), enough_tokens=None)
            asked.insert(0, stopped)
        return asked

    def _fresh(self, probe: Response, rng: random.Random) -> list[int]:
        """A new prompt as long as the probe's; what the load shares stays, so that caches help both alike."""
        shared = next((load.shared_prefix_tokens for load in self.loads if load.name == probe.load), 0)
        low, high = self.session.endpoint.prompt_ids
        return probe.prompt_ids[:shared] + rng.choices(range(low, high + 1), k=len(probe.prompt_ids) - shared)


def remembered(alone: Sequence[Response], per_step: int | None = None) -> str | None:
    """What shows that a known prompt was answered without computing; None if nothing does.

    `per_step`: how many tokens a step may bring; None: any number.
    """
    compared = _compared(alone)
    if compared is None:
        return None
    echo, fresh, pace_s = compared
    first_s, fresh_first_s = ((r.first_s or 0.0) - r.sent_s for r in (echo, fresh))
    said = "a prompt that was sent before is answered from memory: "
    told = (
        f"a fresh one of the same length needed {fresh_first_s * 1e3:.3g} ms, and {pace_s * 1e3:.3g} ms for each more"
    )
    if first_s < FIRST_TOKEN_STEPS * min(pace_s, fresh_first_s):
        return f"{said}its first token came after {first_s * 1e3:.3g} ms; {told}"
    echo_s = ((echo.last_s or 0.0) - echo.sent_s) / echo.tokens
    if echo_s < PACE_SHARE * pace_s:
        return f"{said}it took {echo_s * 1e3:.3g} ms per token; {told}"
    steps, later_s = (echo.tokens - 1) // per_step if per_step else 0, (echo.last_s or 0.0) - (echo.first_s or 0.0)
    if later_s < STEP_SHARE * steps * pace_s:
        return f"{said}its {echo.tokens} tokens came within {later_s * 1e3:.3g} ms; {told}"
    return None


def refused(crowd: Sequence[Response]) -> str | None:
    """What shows that requests with `stop` or `seed` are sent away: they alone fail, in a crowd that is served."""
    if any(r.failure is not None for r in crowd if r.purpose == ECHO):
        return None
    failed = next(((r.purpose, r.failure) for r in crowd if r.failure is not None), None)
    if failed is None:
        return None
    purpose, failure = failed
    return printable(
        f"a request with '{purpose}' is refused while others are served: {failure.kind}, {failure.evidence}"
    )


def unseeded(crowd: Sequence[Response]) -> str | None:
    """What shows that `seed` is ignored: two answers to one sampled request differ."""
    first, second = ([r.output_ids or [] for r in crowd if r.purpose == "seed"] + [[], []])[:2]
    known = min(len(first), len(second))
    if first[:known] == second[:known]:
        return None
    return f"'seed' is ignored: the same sampled request with the same seed gave {first[:known]} and {second[:known]}"


def _fault(answers: Sequence[Response]) -> Rejected | None:
    return protocol_fault(answers, "prompts that were asked again")


def _echo(probe: Response, context: str) -> Request:
    return Request(
        id=f"{probe.id}~{context}", load=f"{probe.load}~{context}", prompt_ids=probe.prompt_ids,
        max_tokens=probe.max_tokens, purpose=ECHO, enough_tokens=ENOUGH_TOKENS,
    )  # fmt: skip


def _stop_word(probe: Response) -> str | None:
    """Text of the probe's answer that comes after about three tokens; None where there is too little."""
    at = 3 * len(probe.text) // max(probe.tokens, 4)
    word = probe.text[at : at + 4]
    return word if len(word.strip()) >= 2 else None


def _compared(alone: Sequence[Response]) -> tuple[Response, Response, float] | None:
    """The known prompt's answer, the fresh one's, and the fresh one's seconds per token; None if one is missing."""
    answered = {r.purpose: r for r in alone if r.tokens and r.first_s is not None}
    echo, fresh = answered.get(ECHO), answered.get("fresh")
    pace_s = _pace_s(fresh) if fresh else None
    return (echo, fresh, pace_s) if echo and fresh and pace_s is not None else None


def _pace_s(response: Response) -> float | None:
    """Seconds per token after the first chunk; None for fewer than two of them."""
    later = response.tokens - response.chunk_tokens[0]
    return None if later < 2 else ((response.last_s or 0.0) - (response.first_s or 0.0)) / later
