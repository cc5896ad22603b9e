"""Decides which provider a run's options mean, and where its key comes from; the one place that makes one."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from population.errors import ProviderRefused
from vibeserve.agents.clis.registry import CLIS, obstacles
from vibeserve.agents.options import AgentOptions
from vibeserve.agents.provider import Provider
from vibeserve.agents.providers.connection import Connection
from vibeserve.agents.providers.openai_client import BASE_URL
from vibeserve.agents.replay import ReplayProvider
from vibeserve.config import secret

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SDKS = {"anthropic": "anthropic", "openai": "openai", "openai-chat": "openai"}
_KEYS = {
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
    "openai-chat": "OPENAI_API_KEY",
    **{cli.name: cli.key_env for cli in CLIS.values()},
}
_ADDRESSES = {"anthropic": "https://api.anthropic.com", "openai": BASE_URL, "openai-chat": BASE_URL}


def key_of(options: AgentOptions) -> str:
    """The key, read anew: it is kept nowhere but in the provider's client. Empty: there is none.

    Raises:
        ProviderRefused: the file that should hold it cannot be read.
    """
    if options.provider is None or options.provider not in _KEYS:
        return ""
    try:
        return secret(options.key_env or _KEYS[options.provider], options.key_file) or ""
    except OSError as error:
        raise ProviderRefused(f"[agents] key_file {options.key_file}: {error.strerror}") from None


def defects(options: AgentOptions, *, here: bool) -> list[str]:
    """What is wrong with the options; `here`: mutations run on this machine, so that SDK and key can be looked for."""
    name = options.provider
    if name == "scripted" and options.script is None:
        return ["agents.script: expected a TOML file of edits for provider 'scripted', got none"]
    if name == "replay" and options.replay is None:
        return ["agents.replay: expected a folder of transcripts for provider 'replay', got none"]
    if name is None or name not in _KEYS:
        return []
    problems = _spilled(options)
    if problems:
        return problems
    if options.model is None:
        problems.append(f"agents.model: expected the name of a model for provider '{name}', got none")
    if here and name in CLIS:
        problems += obstacles(CLIS[name], options.command)
    elif here and importlib.util.find_spec(_SDKS[name]) is None:
        problems.append(f"agents.provider: '{name}' needs the package {_SDKS[name]}: pip install 'vibeserve[agents]'")
    if here and not key_of(options) and not keyless(options):
        where = options.key_file or f"environment variable {options.key_env or _KEYS[name]}"
        problems.append(f"agents: expected the key of provider '{name}' in {where}, found none")
    return problems


def _spilled(options: AgentOptions) -> list[str]:
    """Where a key itself stands: options are written to run.toml, shown, and travel. Never with the value."""
    problems = []
    if options.key_env is not None and not _VARIABLE.fullmatch(options.key_env):
        problems.append("agents.key_env: expected the name of an environment variable, got something else; a key?")
    if options.base_url is not None and urlsplit(options.base_url).username is not None:
        problems.append("agents.base_url: expected an address without a user or password; keys go by agents.key_env")
    return problems


def open_provider(options: AgentOptions, child: str, recordings: Mapping[str, str]) -> Provider:
    """A provider for one conversation; close it.

    Raises:
        ProviderRefused: there is no key, no SDK, no recording on this machine.
    """
    if options.provider == "replay":
        return ReplayProvider.of_child(recordings, child)
    name, key = str(options.provider), key_of(options)
    if not key and not keyless(options):
        place = options.key_file or options.key_env or _KEYS[name]
        raise ProviderRefused(f"{name}: no key on this machine: expected it in {place} ([agents] key_env)")
    connection = Connection(
        model=options.model or "",
        key=key,
        base_url=options.base_url or _ADDRESSES[name],
        effort=options.effort,
        max_output_tokens=options.max_output_tokens,
        retries=options.retries,
        silence_s=options.request_timeout_s,
    )
    try:
        return _opened(name, connection)
    except ImportError as error:
        raise ProviderRefused(f"{name}: {error.name} is not installed on this machine") from None


def _opened(name: str, connection: Connection) -> Provider:
    if name == "anthropic":
        from vibeserve.agents.providers.anthropic_messages import AnthropicMessages

        return AnthropicMessages(connection)
    if name == "openai":
        from vibeserve.agents.providers.openai_responses import OpenAIResponses

        return OpenAIResponses(connection)
    from vibeserve.agents.providers.openai_chat import OpenAIChat

    return OpenAIChat(connection)


def keyless(options: AgentOptions) -> bool:
    """A server of one's own may want no key."""
    return options.provider in ("openai-chat", "opencode") and options.base_url is not None
