"""Decides what of a commit travels, and what is believed on arrival: nothing that was not checked.

A delta is a git pack of whole objects: those that a commit has and its parents have not, and the commit. On arrival
every object is named by the hash of what came, every tree may be a candidate's as far as names and kinds go, and
everything that an object refers to has come too or is here already. What the files say is checked when they come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from population.errors import RepositoryError
from population.git_objects import GitObject, Kind, Row, parse_commit, parse_tree
from population.packs import Packed, make_pack, packed, read_entries
from population.trees import check_rows

MAX_BYTES = 256 << 20
_MAX_OBJECTS = 40_000
_MAX_CONTENT_BYTES = 128 << 20
"""Twice what a candidate's files may have: its trees are small."""

Read = Callable[[str], GitObject]


def make(commit: GitObject, read: Read) -> bytes:
    """The delta of a commit."""
    return make_pack([packed(item) for item in new_objects(commit, read)])


def new_objects(commit: GitObject, read: Read) -> list[GitObject]:
    """The objects of a commit that its parents do not have in the same place, what is referred to first."""
    tree, parents = parse_commit(commit.data)
    known = [parse_commit(read(parent).data)[0] for parent in parents]
    found: dict[str, GitObject] = {}
    if tree not in known:
        _collect(read(tree), [read(sha) for sha in known], read, found)
    found[commit.sha] = commit
    return list(found.values())


def _collect(tree: GitObject, others: Sequence[GitObject], read: Read, found: dict[str, GitObject]) -> None:
    theirs = [{row.name: row for row in parse_tree(other.data)} for other in others]
    for row in parse_tree(tree.data):
        same_name = [rows[row.name] for rows in theirs if row.name in rows]
        if row.sha in found or row.sha in (other.sha for other in same_name) or row.mode == "160000":
            continue
        if row.is_folder:
            _collect(read(row.sha), [read(other.sha) for other in same_name if other.is_folder], read, found)
        else:
            found[row.sha] = read(row.sha)
    found[tree.sha] = tree


def open_delta(
    delta: bytes, kind_here: Callable[[str], Kind | None]
) -> tuple[GitObject, list[tuple[GitObject, Packed]]]:
    """The commit of a delta, and all of its objects with what they are in a pack.

    Args:
        kind_here: what an object is that the repository has, with all that it refers to.

    Raises:
        RepositoryError: not the delta of one commit, or it builds on what is not here.
        TreeRefused: a tree of it has what no candidate may have.
    """
    if len(delta) > MAX_BYTES:
        raise RepositoryError(f"expected a delta of at most {MAX_BYTES} bytes, got {len(delta)}")
    arrived = {item.sha: (item, entry) for item, entry in read_entries(delta, _MAX_OBJECTS, _MAX_CONTENT_BYTES)}
    objects = {sha: item for sha, (item, _) in arrived.items()}
    commits = [item for item in objects.values() if item.kind == "commit"]
    if len(commits) != 1:
        raise RepositoryError(f"expected the delta of one commit, got {len(commits)} commits")
    tree, parents = parse_commit(commits[0].data)
    missing = [sha for sha in parents if kind_here(sha) != "commit"]
    if missing:
        raise RepositoryError(f"the delta builds on {', '.join(missing)}, expected to be here already")
    reached = set(_reached(tree, objects, kind_here)) | {commits[0].sha}
    if len(reached) != len(objects):
        strangers = sorted(objects.keys() - reached)
        raise RepositoryError(f"expected only objects of commit {commits[0].sha}, got {strangers[0]} as well")
    return commits[0], list(arrived.values())


def _reached(tree: str, objects: Mapping[str, GitObject], kind_here: Callable[[str], Kind | None]) -> Iterator[str]:
    """The objects of the delta that the tree consists of."""
    waiting: list[tuple[str, Kind]] = [(tree, "tree")]
    done: set[str] = set()
    while waiting:
        sha, kind = waiting.pop()
        if sha in done:
            continue
        done.add(sha)
        item = objects.get(sha)
        found = item.kind if item is not None else kind_here(sha)
        if found != kind:
            raise RepositoryError(f"expected the {kind} {sha} in the delta or here already, got {found or 'neither'}")
        if item is None:
            continue
        yield sha
        if kind == "tree":
            rows = list(parse_tree(item.data))
            check_rows(rows)
            waiting += [(row.sha, _kind(row)) for row in rows]


def _kind(row: Row) -> Kind:
    return "tree" if row.is_folder else "blob"
