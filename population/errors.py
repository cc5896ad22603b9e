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

A candidate that fails is not an exception but a value: `population.evaluation.Rejected`.
"""

from __future__ import annotations

from collections.abc import Sequence


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
    """The machine failed, not the candidate: disk full, node lost, port taken, Ray absent."""
