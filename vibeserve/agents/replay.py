"""Decides what a recorded model says: the turns of a transcript, one after the other, whatever the tools answer now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from population.errors import ConfigError, ProviderRefused
from population.spending import Usage
from vibeserve.agents.conversation import Conversation, Stop, Turn
from vibeserve.agents.roles import EVALUATOR, JUDGE
from vibeserve.agents.transcript import FILE, read_turns

_OVER = Turn(text="(the recording ends here)", stop=Stop.END, usage=Usage())


class ReplayProvider:
    """A provider without a network. It costs nothing, so its turns report no tokens."""

    model = "replay"

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = [replace(turn, usage=Usage()) for turn in turns]

    @classmethod
    def of_child(cls, recordings: Mapping[str, str], child: str) -> ReplayProvider:
        """
        Raises:
            ProviderRefused: there is no recording of this child.
        """
        if child not in recordings:
            raise ProviderRefused(
                f"replay: there is no transcript of {child}; a replay has the children of its recording, with the same "
                "target, config and seed"
            )
        return cls(read_turns(recordings[child], child))

    def respond(self, conversation: Conversation, deadline_s: float) -> Turn:
        """The turn that came at this place; after the last one, nothing but an end."""
        place = len(conversation.exchanges)
        return self._turns[place] if place < len(self._turns) else _OVER

    def close(self) -> None:
        """Nothing is open."""


def load_recordings(folder: Path) -> dict[str, str]:
    """Child → transcript: of a run, or of a folder with files like `c000012.jsonl`. Of a run also what was said in
    other roles, as `c000012/judge`.

    Raises:
        ConfigError: there is none, or one is no transcript.
    """
    found = {path.parent.name: path for path in folder.glob(f"children/*/{FILE}")}
    found |= {path.stem: path for path in folder.glob("c*.jsonl")}
    others = [p for role in (JUDGE, EVALUATOR) for p in folder.glob(f"children/*/{role}*.jsonl")]
    found |= {f"{path.parent.name}/{path.stem}": path for path in others}
    if not found:
        raise ConfigError(f"agents.replay: expected transcripts (children/c000012/{FILE}, c000012.jsonl) in {folder}")
    texts = {child: path.read_text(encoding="utf-8") for child, path in sorted(found.items())}
    for child, text in texts.items():
        read_turns(text, str(found[child]))
    return texts
