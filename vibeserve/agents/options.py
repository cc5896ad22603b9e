"""Decides what can be said about agents: which model, where, how patiently, and what one child may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Effort = Literal["minimal", "low", "medium", "high", "xhigh", "max"]
ProviderName = Literal[
    "anthropic", "openai", "openai-chat", "codex", "claude", "gemini", "opencode", "scripted", "replay"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleOptions:
    """A model that reads what others made, in a conversation of its own."""

    enabled: bool | None = None
    """None: where an API's model makes the children, or the role has a provider of its own; not beside a script or a
    coding CLI. A recording has the role that was played in it."""
    provider: Literal["anthropic", "openai", "openai-chat"] | None = None
    """None: that of `[agents]`, with its address and key. Another one brings its own."""
    model: str | None = None
    """None: that of `[agents]`."""
    base_url: str | None = None
    """As in `[agents]`; here and in the next two None is as there, unless `provider` differs."""
    key_env: str | None = None
    """As in `[agents]`."""
    key_file: str | None = None
    """As in `[agents]`."""
    effort: Effort | None = None
    """None: as in `[agents]`."""
    turns: int = 20
    """Answers of the model for one conversation."""
    timeout_s: float = 600.0
    """Seconds for one conversation."""
    tokens: int = 500_000
    """Input (cached or not) and output tokens for one conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolesOptions:
    """Those beside who makes the children (the implementer, whose options are those of `[agents]`)."""

    judge: RoleOptions = field(default_factory=RoleOptions)
    """Reads every change that a model made, before it is run; can only object."""
    evaluator: RoleOptions = field(default_factory=RoleOptions)
    """Reads the profile of a parent once, before a model changes it for the first time, and writes hints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """One of several models that take turns in writing children. What it does not say is as in `[agents]`."""

    name: str | None = None
    """By which proposals and accounts of children name it. None: its model."""
    provider: ProviderName | None = None
    model: str | None = None
    base_url: str | None = None
    """Here and in the next two None is as in `[agents]`, unless `provider` differs."""
    key_env: str | None = None
    key_file: str | None = None
    effort: Effort | None = None
    share: float = 1.0
    """Its part of what is spent while nothing is known, beside the shares of the others. 0: it is never chosen; a run
    that goes on may need it for what is on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """Language models that write servers."""

    provider: ProviderName | None = None
    """Who makes the children of operator `agent`. None: nobody, the search does without. `anthropic`: Messages.
    `openai`: Responses. `openai-chat`: Chat Completions, of any server that speaks it, such as vLLM. `codex`, `claude`,
    `gemini`, `opencode`: a coding CLI that is installed on every node that runs mutations. `scripted`: the edits of
    `script`, without a model. `replay`: the turns recorded in another run's transcripts."""
    model: str | None = None
    """Name of the model, as its provider spells it. There is no default: models come and go."""
    base_url: str | None = None
    """Address of the API. None: the provider's own; `openai-chat` on a server of yours needs one, such as
    `http://localhost:8000/v1`."""
    key_env: str | None = None
    """Environment variable that holds the key, on every node that runs mutations. None: the provider's usual name
    (ANTHROPIC_API_KEY, OPENAI_API_KEY, GEMINI_API_KEY). The key itself is written nowhere."""
    key_file: str | None = None
    """File that holds the key, on every node; wins over `key_env`."""
    effort: Effort | None = None
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
    command: str | None = None
    """A coding CLI's path, or its name on PATH. None: its usual name."""
    script: str | None = None
    """`scripted`: TOML file of edits."""
    replay: str | None = None
    """`replay`: a run folder, or a folder of transcripts named like `c000012.jsonl`."""
    repair: int = 3
    """How often a rejected child goes back to who made it, with verdict and evidence, before it counts. 0: never. Each
    time is a conversation that goes on, with the limits of a new one."""
    merges: bool = True
    """Let the model resolve merges that conflict; otherwise they are rejected."""
    roles: RolesOptions = field(default_factory=RolesOptions)
    models: tuple[ModelOptions, ...] = ()
    """Several models that take turns in writing children, as `[[agents.models]]` with the keys `name`, `provider`,
    `model`, `base_url`, `key_env`, `key_file`, `effort`, `share` (docs/agents.md). Who wins more for its price is
    chosen more often. Empty: the one of `[agents]`."""
    prices: str | None = None
    """TOML file of prices (docs/agents.md), on top of the table that VibeServe comes with. A run keeps a copy, as
    `prices.toml` in its folder. None: that table alone."""
