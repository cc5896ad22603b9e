"""Decides how an event is written down: the format of a ledger's record, and the chain of hashes.

A ledger is a folder of segments `000001.jsonl`, `000002.jsonl`, …, one per driver epoch. A record is a line of JSON:

    {"hash":"<64 hex>","seq":7,"event":{…}}
    {"hash":"<64 hex>","seq":8,"seal":{"segment":"000001.jsonl","bytes":2041,"hash":"<64 hex>"},"event":{…}}

`hash` is SHA-256 of the previous record's hash (64 ASCII zeros at the very start) and of the line after the hash,
without the line end: a checksum and a chain in one. `seq` counts all records of the ledger. The first record of a
segment, and no other, has a `seal`: null, or which segment the new driver went on from, and how many of its bytes
count. Whatever comes after these bytes is void: a torn record, or the appends of a driver that did not know it had
been replaced.

Several records may be written by one append, a *group*: each but the first of them has a `"first":7` after its `seq`,
the `seq` of the group's first record. A segment's first record is alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from population.event_json import decode, encode
from population.events import Event

GENESIS = "0" * 64
LINE = re.compile(
    rb'\{"hash":"(?P<hash>[0-9a-f]{64})(?P<body>","seq":(?P<seq>\d{1,18})'
    rb'(?:,"first":(?P<first>\d{1,18}))?'
    rb'(?:,"seal":(?P<seal>null|\{"segment":"(?P<segment>\d{6}\.jsonl)","bytes":(?P<bytes>\d{1,18}),"hash":"(?P<last>[0-9a-f]{64})"\}))?'
    rb',"event":(?P<event>\{.*\})\})',
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """How much of the previous segment counts."""

    segment: str
    bytes: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line, as it is on disk and as it is read."""

    line: bytes
    hash: str
    event: Event
    alone: bool = True
    """Whether its append begins with it, so that what comes before was synced before it was written."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What a record continues."""

    seq: int
    """Of the record."""
    hash: str
    """Of the record before."""


def make_records(events: Sequence[Event], after: Chain) -> list[Record]:
    """The group of records that continues the chain.

    Raises:
        ValueError: an event cannot be recorded.
    """
    first, previous = after.seq, after.hash
    records: list[Record] = []
    for place, event in enumerate(events):
        group = b',"first":%d' % first if place else b""
        records.append(_record(event, first + place, previous, group))
        previous = records[-1].hash
    return records


def make_first_record(event: Event, after: Chain, seal: Seal | None) -> Record:
    """The first record of a new segment, which seals the one before."""
    sealed = b"null"
    if seal is not None:
        text = f'{{"segment":"{seal.segment}","bytes":{seal.bytes},"hash":"{seal.hash}"}}'
        sealed = text.encode("ascii")
    return _record(event, after.seq, after.hash, b',"seal":' + sealed)


def _record(event: Event, seq: int, previous: str, extra: bytes) -> Record:
    encoded = encode(event)
    body = b'","seq":%d%b,"event":%b}' % (seq, extra, encoded)
    name = digest(previous.encode("ascii"), body)
    line = b'{"hash":"%b%b\n' % (name.encode("ascii"), body)
    return Record(line=line, hash=name, event=decode(encoded), alone=not extra.startswith(b',"first"'))


def digest(previous: bytes, body: bytes) -> str:
    return hashlib.sha256(previous + body).hexdigest()
