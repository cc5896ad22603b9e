"""Decides how a conversation with a model goes on until it has handed something in, or never will.

Knows no provider and no tool: whatever a model may answer is handled here once. The provider's failures leave as
exceptions, with what they have cost; everything else is an `Ending`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from population.errors import InfrastructureError, ProviderDown, ProviderError
from population.spending import Spending
from vibeserve.agents.conversation import Conversation, Exchange, Stop, ToolCall, ToolResult, Turn
from vibeserve.agents.provider import ContextOverflow, OutOfTime, Provider, StreamBroken
from vibeserve.agents.tools.submit import Submit
from vibeserve.agents.tools.tool import AnyTool, ToolProblem, parsed, spec_of
from vibeserve.agents.transcript import Transcript

_KEPT_EXCHANGES = (4, 1, 0)
"""When the conversation is too long: results of how many exchanges are spared, one attempt after the other."""
_FORGOTTEN = "[left out: the conversation is too long; call the tool again where you need its result]"
_REMINDERS = 2
_OURS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What the machine lacks, whatever the model did."""
_FEW_TURNS = 5


class Outcome(StrEnum):
    """How a conversation can end."""

    SUBMITTED = "submitted"
    REFUSED = "refused"
    EXHAUSTED = "exhausted"
    """A limit was reached, or the model stopped without handing anything in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one conversation."""

    turns: int = 60
    seconds: float = 1800.0
    tokens: int | None = 2_000_000
    """Input (cached or not) and output of all turns; None: any number."""
    stream_retries: int = 3
    """How often in a row an answer that broke off is asked for again."""
    retry_wait_s: float = 1.0
    """Before the first of them; each later one waits twice as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What came of a conversation; what was handed in is in its `Submit`."""

    outcome: Outcome
    reason: str
    spent: Spending
    turns: int


class _Exhausted(Exception):
    """A limit was reached; the message says which."""


class Dialogue:
    """One conversation. Use once."""

    def __init__(
        self, provider: Provider, tools: Sequence[AnyTool], submit: Submit, limits: Limits, transcript: Transcript
    ) -> None:
        self._provider, self._limits, self._transcript, self._submit = provider, limits, transcript, submit
        self._tools: dict[str, AnyTool] = {tool.name: tool for tool in (*tools, submit)}
        self._turns = self._silent = 0

    def run(self, role: str, instructions: str, task: str, past: Sequence[Exchange] = ()) -> Ending:
        """From the task to the end; `past`: what was said about it already, in an earlier dialogue. The limits hold for
        what is new.

        Raises:
            ProviderError: the provider failed.
            InfrastructureError: a tool met a fault of the machine; of either, `spent` says what was asked until then.
        """
        self._spent = Spending(role=role, model=self._provider.model)
        self._began_s = time.monotonic()
        self._deadline_s = time.monotonic() + self._limits.seconds
        specs = tuple(spec_of(tool) for tool in self._tools.values())
        told = Conversation(instructions=instructions, task=task, tools=specs)
        self._conversation = replace(told, exchanges=tuple(past))
        self._transcript.begin(role, self._provider.model, told)
        try:
            ending = self._talk()
        except _Exhausted as limit:
            ending = self._ending(Outcome.EXHAUSTED, str(limit))
        except InfrastructureError as error:
            error.spent = (self._bill(),)
            raise
        except OSError as error:
            fault = InfrastructureError(f"{error.filename or 'a tool'}: {error.strerror or error}")
            fault.spent = (self._bill(),)
            raise fault from error
        self._transcript.end(ending.outcome, ending.reason)
        return ending

    def _talk(self) -> Ending:
        while True:
            self._require_budget()
            turn = self._ask()
            self._turns += 1
            self._transcript.turn(turn)
            if turn.stop is Stop.REFUSAL:
                return self._ending(Outcome.REFUSED, turn.detail or turn.text or "no reason given")
            results = tuple(self._carry_out(call) for call in turn.calls)
            if self._submit.taken is not None:
                return self._ending(Outcome.SUBMITTED, f"after {self._turns} turns")
            note = self._note(turn)
            if note:
                self._transcript.note(note)
            self._conversation = self._conversation.then(Exchange(turn=turn, results=results, note=note))

    def _require_budget(self) -> None:
        limits = self._limits
        if self._turns >= limits.turns:
            raise _Exhausted(f"nothing was submitted within {limits.turns} turns")
        if limits.tokens is not None and self._spent.tokens >= limits.tokens:
            raise _Exhausted(f"nothing was submitted within {limits.tokens} tokens")
        if time.monotonic() >= self._deadline_s:
            raise _Exhausted(f"nothing was submitted within {limits.seconds:g} s")

    def _ask(self) -> Turn:
        """The next turn, whatever it takes: again where the answer broke off, with less where it is too long."""
        broken, spare = 0, iter(_KEPT_EXCHANGES)
        while True:
            try:
                turn = self._provider.respond(self._conversation, self._deadline_s)
            except StreamBroken as error:
                self._spent = self._spent.with_answer(None)
                broken += 1
                self._again_after(error, broken)
            except ContextOverflow:
                self._make_room(spare.__next__)
            except OutOfTime:
                self._spent = self._spent.with_answer(None)
                raise _Exhausted(f"nothing was submitted within {self._limits.seconds:g} s") from None
            except ProviderError as error:
                self._transcript.trouble(str(error))
                raise
            else:
                self._spent = self._spent.with_answer(turn.usage)
                return turn

    def _again_after(self, error: StreamBroken, broken: int) -> None:
        self._transcript.trouble(str(error))
        if broken > self._limits.stream_retries:
            raise ProviderDown(f"{error}; it broke off {broken} times in a row") from None
        wait_s = self._limits.retry_wait_s * 2 ** (broken - 1)
        time.sleep(max(0.0, min(wait_s, self._deadline_s - time.monotonic())))

    def _make_room(self, next_spare: Callable[[], int]) -> None:
        """Forget old results; those of ever later turns, as long as that changes anything."""
        while True:
            try:
                shorter = self._conversation.forgetting(next_spare(), _FORGOTTEN)
            except StopIteration:
                raise _Exhausted("the conversation is longer than the model can read") from None
            if shorter is not self._conversation:
                self._conversation = shorter
                return self._transcript.note("[old results were left out to make room]")

    def _carry_out(self, call: ToolCall) -> ToolResult:
        began_s = time.monotonic()
        if self._submit.taken is not None:
            return ToolResult(call_id=call.id, text="not done: it comes after submit", failed=True)
        try:
            tool = self._tools.get(call.name)
            if tool is None:
                raise ToolProblem(f"there is no tool '{call.name}'; there are {', '.join(self._tools)}")
            result = ToolResult(call_id=call.id, text=tool.call(parsed(tool, call.arguments), self._deadline_s))
        except ToolProblem as problem:
            result = ToolResult(call_id=call.id, text=str(problem), failed=True)
        except OSError as error:  # a model can make files that even we may not read
            if error.errno in _OURS:
                raise
            result = ToolResult(call_id=call.id, text=f"{call.name}: {error.strerror or error}", failed=True)
        self._transcript.result(result, time.monotonic() - began_s)
        return result

    def _note(self, turn: Turn) -> str:
        """What is said to the model beside results; without results, there must be something."""
        if turn.stop is Stop.PAUSE:
            return ""
        notes = []
        if turn.stop is Stop.LENGTH:
            notes.append(
                "Your answer was cut off at the limit of output tokens, and no tool was run. Go on in smaller steps."
            )
        elif not turn.calls:
            self._silent += 1
            if self._silent > _REMINDERS:
                raise _Exhausted(f"the model stopped {self._silent} times without calling a tool")
            notes.append("Nothing is handed in yet. Go on working with the tools, and call `submit` when it is done.")
        else:
            self._silent = 0
        left = self._limits.turns - self._turns
        if 0 < left <= _FEW_TURNS:
            notes.append(f"Turns left: {left}. Call `submit` before they are used up.")
        return " ".join(notes)

    def _ending(self, outcome: Outcome, reason: str) -> Ending:
        return Ending(outcome=outcome, reason=reason, spent=self._bill(), turns=self._turns)

    def _bill(self) -> Spending:
        return replace(self._spent, elapsed_s=time.monotonic() - self._began_s)
