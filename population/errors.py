"""The one exception tree of VibeServe; an exception means that we, the user's input or the machine are wrong.

    VibeServeError              exit code 1
    ├── UsageError              exit code 2   the command line asks for something that does not exist
    ├── ConfigError             exit code 3   config, target or recipe files are malformed (lists every defect)
    │   └── IsolationError                    this machine cannot contain what is to be run (names cause and cure)
    ├── BudgetError             exit code 4   the budget ran out before there was a front
    ├── RunError                exit code 1   a run cannot be opened, resumed or trusted
    │   └── LedgerError                       the ledger is damaged before its tail, or another driver owns it
    ├── RepositoryError         exit code 1   git refused
    └── InfrastructureError     exit code 1   the machine failed (disk full, node lost, Ray absent): retried, never
                                              charged to a candidate
        └── ProviderError                     the provider of a language model failed us
            ├── ProviderDown                  it does not answer, or has no capacity: waited for
            └── ProviderRefused               it will not answer us (key, credit, model): the run stops

A candidate that fails is not an exception but a value: `population.evaluation.Rejected`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from population.spending import Spending


class VibeServeError(Exception):
    """Base class; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(VibeServeError):
    """The command line names something that does not exist."""

    exit_code = 2


class ConfigError(VibeServeError):
    """Every defect of a config, target or recipe at once: `problems` holds one sentence each."""

    exit_code = 3

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class IsolationError(ConfigError):
    """No isolation tier that this machine gives may run the tree; the message names causes and cures."""


class BudgetError(VibeServeError):
    """The budget ran out before any candidate was scored."""

    exit_code = 4


class RunError(VibeServeError):
    """A run cannot be opened, resumed or trusted."""


class LedgerError(RunError):
    """The ledger is damaged before its tail, or another driver owns it."""


class RepositoryError(VibeServeError):
    """Git refused an operation on the population repository."""


class InfrastructureError(VibeServeError):
    """The machine failed, not the candidate: disk full, node lost, port taken, Ray absent.

    Attributes:
        spent: what was asked of models, for nothing, before it failed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.spent: tuple[Spending, ...] = ()


class ProviderError(InfrastructureError):
    """The provider of a language model failed us. Never a candidate's fault."""


class ProviderDown(ProviderError):  # a state that passes
    """No answer, no capacity, or a stream that broke again and again.

    Attributes:
        wait_s: seconds that it asks us to wait; None: it does not say.
    """

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class ProviderRefused(ProviderError):  # what it did
    """It will not answer us, and asking again does not help: a wrong key, no credit, an unknown model."""
