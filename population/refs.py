"""Decides what the refs of candidates and baselines are: one small file each, replaced as a whole."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from population.disk import Disk
from population.drafts import Drafts
from population.errors import InfrastructureError, RepositoryError
from population.git_objects import require_sha

CANDIDATES, BASELINES = "refs/candidates", "refs/baselines"
_CANDIDATE = re.compile(r"c\d{6,9}", re.ASCII)
_BASELINE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}", re.ASCII)


def candidate_ref(candidate: str) -> str:
    """refs/candidates/<id>."""
    return f"{CANDIDATES}/{_matching(_CANDIDATE, candidate, 'a candidate id such as c000012')}"


def baseline_ref(name: str) -> str:
    """refs/baselines/<name>."""
    return f"{BASELINES}/{_matching(_BASELINE, name, 'a name of letters, digits, - and _')}"


def _matching(pattern: re.Pattern[str], text: str, what: str) -> str:
    if pattern.fullmatch(text) is None:
        raise RepositoryError(f"expected {what}, got {text[:80]!r}")
    return text


class Refs:
    """The refs of one repository. One process writes them."""

    def __init__(self, home: Path, disk: Disk) -> None:
        self._home, self._disk = home, disk
        self._new: dict[str, str] = {}

    def get(self, ref: str) -> str | None:
        """The commit of a ref."""
        if ref in self._new:
            return self._new[ref]
        try:
            return require_sha(self._disk.read(self._home / ref, 0, None).decode("ascii", errors="replace").strip())
        except FileNotFoundError:
            return self._packed().get(ref)
        except OSError as error:
            raise InfrastructureError(f"{self._home / ref}: cannot be read: {error.strerror}") from error

    def below(self, folder: str) -> dict[str, str]:
        """Name → commit of the refs in a folder; without those that are damaged."""
        found = {ref: sha for ref, sha in self._packed().items() if ref.startswith(f"{folder}/")}
        try:
            names = self._disk.names(self._home / folder)
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise InfrastructureError(f"{self._home / folder}: cannot be read: {error.strerror}") from error
        for name in names:
            with suppress(RepositoryError):
                found[f"{folder}/{name}"] = self.get(f"{folder}/{name}") or ""
        return {ref.rpartition("/")[2]: sha for ref, sha in found.items()}

    def set(self, ref: str, sha: str) -> None:
        """A ref of the next round; this process can read it at once."""
        self._new[ref] = sha

    def draft(self, drafts: Drafts) -> None:
        """The round's refs. Those that are there already may not be durable yet, so their folder is settled, too."""
        for ref, sha in sorted(self._new.items()):
            place = self._home / ref
            try:
                as_it_is = self._disk.read(place, 0, None) == f"{sha}\n".encode("ascii")
            except OSError:
                as_it_is = False
            if as_it_is:
                drafts.rely_on(place.parent)
            else:
                self._disk.make_folder(place.parent)  # a `git pack-refs` may have removed it
                drafts.add(place, f"{sha}\n".encode("ascii"))

    def drop(self) -> None:
        """The round is over, or given up."""
        self._new.clear()

    def _packed(self) -> dict[str, str]:
        """What a `git pack-refs` or `git gc` of the user's has put into one file."""
        try:
            text = self._disk.read(self._home / "packed-refs", 0, None).decode("ascii", errors="replace")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InfrastructureError(f"{self._home / 'packed-refs'}: cannot be read: {error.strerror}") from error
        lines = [line.split(" ") for line in text.splitlines() if not line.startswith(("#", "^"))]
        return {words[1]: words[0] for words in lines if len(words) == 2}
