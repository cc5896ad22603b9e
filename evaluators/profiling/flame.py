"""Decides how sampled stacks are drawn: which of them are kept, and the file that shows them as a flame graph.

py-spy writes one format per recording, and folded stacks are what the rows are made of; so the file is made of them.
"""

from __future__ import annotations

import json
import re
from collections import Counter

MOST_STACK_BYTES = 12_000
MOST_FLAME_BYTES = 8_000
"""A file of JSON is useless once it is cut, and an evaluation's files share what a result may carry."""
_PROCESS = re.compile(r'^process \d+:"[^"]*";')
"""What py-spy puts in front with `--subprocesses`: a long command line, the same in nearly every stack."""
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def counted(stacks: str) -> Counter[str]:
    """Folded stacks (`frame;frame count` per line) → how often each was seen; other lines are left out."""
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        if stack and number.isdigit():
            counts[_PROCESS.sub("", stack)] += int(number)
    return counts


def most_frequent(stacks: str) -> str:
    """The folded stacks that were seen most often, as many as a flame graph needs and a result can carry.

    The rarest come first: what is cut off a file on its way is its beginning.
    """
    kept, size = [], 0
    for stack, count in counted(stacks).most_common():
        line = f"{stack} {count}\n"
        size += len(line.encode())
        if size > MOST_STACK_BYTES:
            break
        kept.append(line)
    return "".join(reversed(kept))


def speedscope(stacks: str, name: str) -> str:
    """The most frequent of the folded stacks as a file that https://www.speedscope.app opens (it leaves no browser)."""
    frames: dict[str, int] = {}
    samples, weights, size = [], [], 0
    for stack, count in counted(stacks).most_common():
        new = [frame for frame in dict.fromkeys(stack.split(";")) if frame not in frames]
        size += sum(len(json.dumps(frame)) + 10 for frame in new) + 5 * (stack.count(";") + 2) + 8
        if size > MOST_FLAME_BYTES:
            break
        for frame in new:
            frames[frame] = len(frames)
        samples.append([frames[frame] for frame in stack.split(";")])
        weights.append(count)
    profile = {
        "type": "sampled", "name": name, "unit": "none", "startValue": 0, "endValue": sum(weights),
        "samples": samples, "weights": weights,
    }  # fmt: skip
    shared = {"frames": [{"name": frame} for frame in frames]}
    file = {"$schema": _SCHEMA, "exporter": "vibeserve", "name": name, "shared": shared, "profiles": [profile]}
    return json.dumps(file, separators=(",", ":")) + "\n"
