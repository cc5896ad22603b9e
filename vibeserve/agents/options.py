"""Decides what can be said about agents: which model, where, how patiently, and what one child may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProviderName = Literal["anthropic", "openai", "openai-chat", "scripted", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """Language models that write servers."""

    provider: ProviderName | None = None
    """Who makes the children of operator `agent`. None: nobody, the search does without. `anthropic`: Messages.
    `openai`: Responses. `openai-chat`: Chat Completions, of any server that speaks it, such as vLLM. `scripted`: the
    edits of `script`, without a model. `replay`: the turns recorded in another run's transcripts."""
    model: str | None = None
    """Name of the model, as its provider spells it. There is no default: models come and go."""
    base_url: str | None = None
    """Address of the API. None: the provider's own; `openai-chat` on a server of yours needs one, such as
    `http://localhost:8000/v1`."""
    key_env: str | None = None
    """Environment variable that holds the key, on every node that runs mutations. None: the provider's usual name
    (ANTHROPIC_API_KEY, OPENAI_API_KEY). The key itself is written nowhere."""
    key_file: str | None = None
    """File that holds the key, on every node; wins over `key_env`."""
    effort: Literal["minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How much the model thinks, as far as it knows the word. None: as its provider chooses."""
    max_output_tokens: int = 16_000
    """Of one turn."""
    turns: int = 60
    """Answers of the model for one child."""
    child_timeout_s: float = 1800.0
    """Seconds for one child."""
    child_tokens: int = 2_000_000
    """Input (cached or not) and output tokens for one child, all turns together."""
    retries: int = 6
    """Further attempts of one request that fails before its answer begins; then the provider counts as down."""
    request_timeout_s: float = 600.0
    """Seconds of silence after which an answer counts as broken off."""
    bash_timeout_s: float = 120.0
    """Seconds for one command of the model."""
    checks: int = 10
    """Runs of the target's checker for one child."""
    benchmarks: int = 5
    """Short benchmarks for one child."""
    script: str | None = None
    """`scripted`: TOML file of edits."""
    replay: str | None = None
    """`replay`: a run folder, or a folder of transcripts named like `c000012.jsonl`."""
