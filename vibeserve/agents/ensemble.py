"""Decides who the models are that take turns in writing children, and which options each of them works with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from population.candidate import Proposal
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage
from vibeserve.agents.options import AgentOptions, ModelOptions
from vibeserve.executor import Returned
from vibeserve.mutators import Mutation, Mutator, Repairing, Settling, Unmade, Workplace


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model of an ensemble."""

    name: str
    """By which proposals name it."""
    share: float
    """Its part of what is spent while nothing is known, beside the shares of the others."""
    options: AgentOptions
    """Those of `[agents]`, as it has them."""


def members(options: AgentOptions) -> tuple[Member, ...]:
    """Every model of `[[agents.models]]`, in their order; the one of `[agents]`, where there is no such list."""
    if not options.models:
        return (Member(name=options.model or str(options.provider), share=1.0, options=options),)
    names = names_of(options)
    return tuple(
        Member(name=name, share=entry.share, options=_with(options, entry))
        for name, entry in zip(names, options.models, strict=True)
    )


def names_of(options: AgentOptions) -> tuple[str, ...]:
    """What each entry is called: as it says; else its model, with its effort where two would be called the same."""
    plain = [entry.name or entry.model or options.model or "?" for entry in options.models]
    count = Counter(plain)
    return tuple(
        name if count[name] == 1 or entry.name or entry.effort is None else f"{name} ({entry.effort})"
        for name, entry in zip(plain, options.models, strict=True)
    )


def ensemble_defects(options: AgentOptions) -> list[str]:
    """What is wrong with the list as a list; each member is checked like `[agents]` itself."""
    if not options.models:
        return []
    if options.provider is None:
        return ["agents.models: expected [agents] provider, which members without one of their own have; got none"]
    twice = [name for name, count in Counter(names_of(options)).items() if count > 1]
    problems = [f"agents.models: expected different names, got '{name}' more than once; set `name`" for name in twice]
    if not any(entry.share > 0 for entry in options.models):
        problems.append("agents.models: expected a share above 0 for at least one of them")
    return problems


class EnsembleMutator:
    """Makes each child with the mutator of the model that its proposal names."""

    def __init__(self, mutators: Mapping[str, Mutator]) -> None:
        self._mutators = dict(mutators)

    def settle(self, place: Workplace) -> EnsembleMutator:
        """See `Settling.settle`."""
        return EnsembleMutator({name: _settled(mutator, place) for name, mutator in self._mutators.items()})

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Unmade | Rejected:
        """See `Mutator.mutate`."""
        return self._of(proposal).mutate(tree, proposal, brief)

    def repair(self, tree: Path, proposal: Proposal, brief: str, returned: Returned) -> Mutation | Unmade | Rejected:
        """See `Repairing.repair`: by who made it."""
        mutator = self._of(proposal)
        if not isinstance(mutator, Repairing):
            reason = f"model '{proposal.model}' cannot go on with what it has made"
            return Rejected(stage=Stage.MUTATE, reason=reason)
        return mutator.repair(tree, proposal, brief, returned)

    def _of(self, proposal: Proposal) -> Mutator:
        """
        Raises:
            InfrastructureError: there is no such member any more.
        """
        found = self._mutators.get(proposal.model or next(iter(self._mutators)))
        if found is None:
            known = ", ".join(self._mutators)
            raise InfrastructureError(
                f"expected the model '{proposal.model}' in [[agents.models]], which {proposal.id} names; got {known}. "
                "Put it back: a share of 0 keeps it from being chosen again"
            )
        return found


def _settled(mutator: Mutator, place: Workplace) -> Mutator:
    return cast(Mutator, mutator.settle(place)) if isinstance(mutator, Settling) else mutator


def _with(options: AgentOptions, entry: ModelOptions) -> AgentOptions:
    """A member inherits what it does not say; address, key and command only from the same provider."""
    same = entry.provider is None or entry.provider == options.provider
    return replace(
        options,
        models=(),
        provider=entry.provider or options.provider,
        model=entry.model or (options.model if same else None),
        effort=entry.effort or options.effort,
        base_url=entry.base_url or (options.base_url if same else None),
        key_env=entry.key_env or (options.key_env if same else None),
        key_file=entry.key_file or (options.key_file if same else None),
        command=options.command if same else None,
    )
