"""Decides how far a search has come: the hypervolume of its front, by child and by generation."""

from __future__ import annotations

from dataclasses import dataclass

from population.archive import Archive
from population.candidate import candidate_id
from vibeserve.front_rows import SEED


def hypervolume(archive: Archive) -> float | None:
    """Hypervolume of the front in log space with the reference point at the seed; None without a scored seed."""
    from search.indicators import hypervolume as volume

    if SEED not in archive.scored:
        return None
    return volume(archive.costs_of(archive.front), archive.costs(SEED))


def growth(archive: Archive) -> tuple[float, ...]:
    """Hypervolume after each child that has ended, the seed not counted; empty without a scored seed."""
    from search.indicators import hypervolume_history

    if SEED not in archive.scored:
        return ()
    return tuple(volume for number, volume in hypervolume_history(archive, archive.costs(SEED)) if number > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A reporting unit: so many children in order of their number, whether or not the search waits for them."""

    number: int
    children: int
    scored: int
    hypervolume: float
    """At its end, in log space with the reference point at the seed."""


def generations(archive: Archive, size: int) -> tuple[Generation, ...]:
    """Progress of a run by generations of `size` children; empty without a scored seed."""
    from search.indicators import generation, hypervolume_history

    if SEED not in archive.scored:
        return ()
    volumes = dict(hypervolume_history(archive, archive.costs(SEED)))
    members: dict[int, list[int]] = {}
    for number in sorted(n for n in volumes if n > 0):
        members.setdefault(generation(number, size), []).append(number)
    scored = frozenset(archive.scored)
    return tuple(
        Generation(
            number=index,
            children=len(numbers),
            scored=sum(candidate_id(n) in scored for n in numbers),
            hypervolume=volumes[numbers[-1]],
        )
        for index, numbers in sorted(members.items())
    )
