"""Decides which model plays a role, and whether anybody does."""

from __future__ import annotations

from dataclasses import replace

from vibeserve.agents.loop import Limits
from vibeserve.agents.options import AgentOptions, ProviderName, RoleOptions

IMPLEMENTER, JUDGE, EVALUATOR = "implementer", "judge", "evaluator"
_READERS = frozenset({"anthropic", "openai", "openai-chat", "replay"})
"""Providers of a model that can be given other tools than those that write."""
_SAME_API: dict[str, ProviderName] = {"claude": "anthropic", "codex": "openai", "opencode": "openai-chat"}
"""A coding CLI makes children and plays no other role; the API that it asks can be asked without it, with its key."""
_ALONE = frozenset({"gemini"})
"""Nothing else here speaks that API: roles need a provider of their own."""


def played(options: AgentOptions, role: RoleOptions) -> AgentOptions | None:
    """The options of `[agents]` as the role has them; None: nobody plays it.

    A recording has what the roles said in it, where they were played.
    """
    options = replace(options, provider=_SAME_API.get(options.provider or "", options.provider))
    natural = options.provider if options.provider in _READERS else None
    if role.enabled is False or (role.provider or natural) is None:
        return None
    if role.provider is None or role.provider == options.provider:
        return replace(
            options,
            model=role.model or options.model,
            base_url=role.base_url or options.base_url,
            key_env=role.key_env or options.key_env,
            key_file=role.key_file or options.key_file,
            effort=role.effort or options.effort,
        )
    return replace(
        options,
        provider=role.provider,
        model=role.model,
        base_url=role.base_url,
        key_env=role.key_env,
        key_file=role.key_file,
        effort=role.effort,
    )


def limits_of(role: RoleOptions) -> Limits:
    """Of one conversation."""
    return Limits(turns=role.turns, seconds=role.timeout_s, tokens=role.tokens)
