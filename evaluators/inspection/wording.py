"""Decides whether a tree's text deceives its readers: terminals, people, and language models that judge it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from evaluators.inspection.finding import Rule, Spot
from evaluators.inspection.tree import Module, SourceTree

_STEERING = re.compile(r"[\x1b\x9b\x90\x9d\x9e\x9f\x07\x08\x7f\x05\x0e\x0f]")
_STEERING_BYTES = re.compile(r"[\x1b\x07\x08\x05\x0e\x0f]")
"""In bytes, the others are parts of UTF-8 characters."""
_RAW = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]|\r(?!\n)")
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")
"""Letters and marks that show as nothing."""
_UNSEEN = ("Cf", "Co", "Zl", "Zp")
"""Unicode categories: formats (bidirectional controls, joiners, tags), private use, separators of lines."""
_WHO = r"(?:judges?|graders?|reviewers?|evaluators?|auditors?|inspectors?|llms?|language models?|ai)"
_WORK = r"(?:code|server|candidate|submission|implementation|solution|diff|change|patch|file|tree|work)"
_CLEAR = r"(?:pass(?:ed|ing)?|approved|honest|benign|compliant|legitimate|harmless|safe)"
_INJECTIONS = [
    re.compile(pattern)
    for pattern in (
        r"\b(?:ignore|disregard|forget|override|bypass)\s+(?:\w+\s+){0,3}?(?:previous|prior|above|earlier|preceding|all|any"
        r"|your|system|these)\s+(?:\w+\s+){0,2}?(?:instructions?|rules?|guidelines?|directions?|criteria|prompts?)\b",
        rf"\byou\s+are\s+(?:now\s+)?(?:the|an?)\s+(?:\w+\s+){{0,3}}?{_WHO}\b",
        r"\b(?:note|message|attention|instructions?|reminder|hint)s?\s*(?:to|for)\s*(?:the\s+|all\s+|any\s+)?(?:\w+\s+){0,2}?"
        rf"{_WHO}\b",
        rf"\b(?:dear|hey|hello|attention)\s*,?\s+(?:\w+\s+)?{_WHO}\b",
        r"\b(?:mark|rate|score|grade|report|classify|label|treat|consider|approve)\s+(?:this|it|that|everything|our|my|the)"
        rf"(?:\s+{_WORK})?\s+(?:as\s+)?(?:an?\s+)?{_CLEAR}\b",
        rf"\b(?:mark|rate|score|grade|report|consider)\s+(?:this|the|our|my)\s+{_WORK}\s+(?:as\s+)?(?:correct|accurate|valid)\b",
        r"\b(?:do\s+not|don'?t|never|must\s+not|should\s+not)\s+(?:flag|reject|report|mention|penali[sz]e|question|fail)\s+"
        rf"(?:this|the|any|that|these|our|my)\s+(?:\w+\s+)?{_WORK}\b",
        r"\b(?:respond|reply|answer|output|return|say|print|write)\s+(?:(?:only|just|with|exactly)\s+)+[\"'`]?"
        r"(?:pass(?:ed)?|approved?|no\s+(?:issues?|findings?|problems?))\b",
        rf"\b(?:approved|audited|vetted|verified|reviewed|certified|whitelisted|cleared)\s+by\s+(?:the\s+)?(?:\w+\s+)?{_WHO}\b",
        r"\b(?:new|updated|revised|real|actual|secret|hidden)\s+(?:system\s+)?instructions?\s*:|\bsystem\s+prompt\s*:",
        r"\bend\s+of\s+(?:the\s+)?(?:system\s+prompt|instructions|diff)\b|\bjailbreak\b",
        r"\b(?:your|the)\s+(?:verdict|judge?ment)\s+(?:is|must|should|shall|has\s+to|needs\s+to)\b",
        r"</?(?:instructions?|judge|verdict)>|\"verdict\"\s*:\s*\"(?:pass|accept|honest)",
    )
]
_MARKERS = re.compile(r"[\s#*/\\\"'`>|+_~=-]+")
_MAX_TEXT = 1 << 20


def _control(tree: SourceTree) -> Iterator[Spot]:
    for path, text in _texts(tree):
        if (found := _RAW.search(text)) is not None:
            yield Spot(path, text.count("\n", 0, found.start()) + 1, f"the control character {ord(found[0]):#04x}")
    for module in tree.modules:
        for literal in module.literals:
            steering = _STEERING_BYTES if isinstance(module.folder.fold(literal.node), bytes) else _STEERING
            if (found := steering.search(literal.text)) is not None:
                what = f"a text with {ord(found[0]):#04x}, which steers terminals"
                yield Spot(module.path, module.line(literal.node), what)


def _hidden(tree: SourceTree) -> Iterator[Spot]:
    for path, text in _texts(tree):
        for number, line in _foreign_lines(text.removeprefix("\ufeff")):
            odd = next((c for c in line if unicodedata.category(c) in _UNSEEN or c in _BLANK), None)
            if odd is not None:
                name = unicodedata.name(odd, "a character without a name")
                yield Spot(path, number, f"{name} (U+{ord(odd):04X}): what is shown is not what runs")
    for module in tree.modules:
        for number, line in _foreign_lines(module.text):
            words = re.findall(r"\w+", line.partition("#")[0])
            disguised = next((word for word in words if _is_disguised(word) and _is_name(module, word)), None)
            if disguised is not None:
                yield Spot(module.path, number, f"{disguised!a} is written in letters that look like others")


def _foreign_lines(text: str) -> Iterator[tuple[int, str]]:
    if not text.isascii():
        yield from ((n, line) for n, line in enumerate(text.split("\n"), start=1) if not line.isascii())


def _is_name(module: Module, word: str) -> bool:
    """Whether Python reads the word as a name, not as a part of a text."""
    plain = unicodedata.normalize("NFKC", word)
    return any(
        plain in (getattr(n, "id", None), getattr(n, "attr", None), getattr(n, "name", None)) for n in module.nodes
    )


def _is_disguised(word: str) -> bool:
    """Letters of more than one alphabet, or styled ones that Python reads as plain ones."""
    if word.isascii():
        return False
    alphabets = {unicodedata.name(c, "?").partition(" ")[0] for c in word if c.isalpha()}
    return len(alphabets & {"LATIN", "CYRILLIC", "GREEK"}) > 1 or unicodedata.normalize("NFKC", word).isascii()


def _injections(tree: SourceTree) -> Iterator[Spot]:
    for path, text in _texts(tree):
        yield from _injected(path, text[:_MAX_TEXT], None)
    for module in tree.modules:
        for literal in module.literals:
            if 12 < len(literal.text) < 1 << 16:
                yield from _injected(module.path, literal.text, module.line(literal.node))


def _injected(path: str, text: str, line: int | None) -> Iterator[Spot]:
    """Phrases, even where line ends and comment signs stand between the words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain, places = _plain(folded)
    for source, at in ((folded, None), (plain, places)):
        for pattern in _INJECTIONS:
            if (found := pattern.search(source)) is not None:
                start = at[found.start()] if at else found.start()
                number = line if line is not None else folded.count("\n", 0, start) + 1
                yield Spot(path, number, f"speaks to whoever judges: {found[0].strip()[:80]!r}")


def _plain(text: str) -> tuple[str, list[int]]:
    """Words with single spaces between them, and where each character was."""
    out: list[str] = []
    places: list[int] = []
    at = 0
    for found in _MARKERS.finditer(text):
        out.append(text[at : found.start()])
        places += range(at, found.start())
        out.append(" ")
        places.append(found.start())
        at = found.end()
    out.append(text[at:])
    places += range(at, len(text) + 1)
    return "".join(out), places


def _texts(tree: SourceTree) -> Iterator[tuple[str, str]]:
    """Every file that is text."""
    for path, data in tree.files.items():
        try:
            if b"\0" not in data:
                yield path, data.decode("utf-8")
        except UnicodeDecodeError:
            continue  # `binary-file` and `source-encoding` refuse it


RULES = (
    Rule(
        id="control-characters",
        why="Control characters in logs rewrite what a terminal shows of them.",
        look=_control,
    ),
    Rule(
        id="hidden-characters",
        why="Invisible and look-alike characters show a reader other code than runs.",
        look=_hidden,
    ),
    Rule(id="judge-injection", why="Whoever judges the code takes no instructions from it.", look=_injections),
)
