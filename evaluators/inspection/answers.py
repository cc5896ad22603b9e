"""Decides whether a tree carries answers: texts, tables and files that are too large for a program's own constants."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from math import log2
from pathlib import PurePosixPath
from typing import Any

from evaluators.inspection.finding import Rule, Spot, covered
from evaluators.inspection.tree import Module, SourceTree

_BLOB = re.compile(r"[A-Za-z0-9+/=_\-!#$%&()*;<>?@^`{|}~]{160,}")
_MIN_BLOB_BYTES = 160
_DENSE_BITS = 3.2
"""Entropy per character from which text without spaces counts as encoded (hexadecimal digits: almost 4)."""
_DECODERS = (
    *("base64", "binascii.a2b_base64", "binascii.unhexlify", "builtins.bytes.fromhex", "builtins.bytearray.fromhex"),
    *("zlib.decompress", "gzip.decompress", "bz2.decompress", "lzma.decompress", "codecs.decode", "brotli.decompress"),
)
_MIN_DECODED = 16
_DIGEST = re.compile(r"(?:0x)?[0-9a-fA-F]{12,128}|\d{8,}")
_DIGEST_KEYS = re.compile(rb"""(?<![0-9a-fA-F])(?:[0-9a-fA-F]{16,}+|\d{9,}+)["']?\s*+[:=]""")
"""Begins at the first digit of a run and never goes back, so that a file of digits is read in linear time."""
_MIN_KEYS = 4
_PROGRAM = frozenset({".py", ".pyi", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp"})
_MAGIC = {
    b"\x7fELF": "an ELF binary",
    b"MZ": "a Windows binary",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUMPY": "a NumPy array",
    b"\x80": "a pickle",
}
_BINARY_SUFFIXES = frozenset(
    {".so", ".pyc", ".pyd", ".dll", ".dylib", ".o", ".a", ".exe", ".whl", ".egg", ".pyz", ".pkl"}
)


def _giants(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        for node in module.nodes:
            value = node.value if isinstance(node, ast.Constant) else None
            size = (
                len(value)
                if isinstance(value, str | bytes)
                else value.bit_length() // 8
                if isinstance(value, int)
                else 0
            )
            if size > tree.limits.max_literal_bytes:
                limit = tree.limits.max_literal_bytes
                yield Spot(module.path, module.line(node), f"expected at most {limit} bytes in one literal, got {size}")


def _tables(tree: SourceTree) -> Iterator[Spot]:
    limit, total = tree.limits.max_table_items, 0
    for module in tree.modules:
        for node in module.nodes:
            if not isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
                continue
            if isinstance(module.parents.get(node), ast.List | ast.Tuple | ast.Set | ast.Dict):
                continue  # counted with the table around it
            size = sum(isinstance(part, ast.Constant) for part in ast.walk(node))
            total += size
            if size > limit:
                yield Spot(module.path, node.lineno, f"expected at most {limit} constants in one table, got {size}")
    if total > 4 * limit:
        yield Spot(tree.modules[0].path, 0, f"expected at most {4 * limit} constants in all tables, got {total}")


def _blobs(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        for node in module.nodes:
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str | bytes) and _is_encoded(value):
                yield Spot(module.path, module.line(node), f"{len(value)} characters of encoded data")
        for name, call in module.calls:
            text = module.folder.text(call.args[0]) if call.args else None
            if text is not None and len(text) >= _MIN_DECODED and covered(name, _DECODERS) and "encode" not in name:
                yield Spot(
                    module.path, call.lineno, f"{name.removeprefix('builtins.')} unpacks data of the program itself"
                )


def _is_encoded(value: str | bytes) -> bool:
    if isinstance(value, bytes):
        odd = sum(byte > 126 or (byte < 32 and byte not in b"\t\r\n") for byte in value)
        if len(value) >= _MIN_BLOB_BYTES and odd > len(value) // 4:
            return True
        value = value.decode("latin-1")
    unwrapped = re.sub(r"[\r\n]", "", value)
    return any(_entropy_bits(run) > _DENSE_BITS for run in _BLOB.findall(unwrapped))


def _entropy_bits(text: str) -> float:
    return -sum(n / len(text) * log2(n / len(text)) for n in Counter(text).values())


def _answers(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        for node in module.nodes:
            if isinstance(node, ast.Dict) and sum(_is_digest(module, key) for key in node.keys) >= _MIN_KEYS:
                yield Spot(module.path, node.lineno, "a table keyed by digests, large numbers or token sequences")
            elif isinstance(node, ast.Compare) and any(_is_long(module, side) for side in node.comparators):
                yield Spot(
                    module.path, node.lineno, "compared with a digest or a token sequence that is known beforehand"
                )
    for path, data in tree.files.items():
        if PurePosixPath(path).suffix not in _PROGRAM and len(_DIGEST_KEYS.findall(data)) >= _MIN_KEYS:
            yield Spot(path, 0, "a table keyed by digests or large numbers")


def _is_digest(module: Module, key: ast.expr | None) -> bool:
    value: Any = module.folder.fold(key)
    if isinstance(value, tuple):
        return len(value) >= 4
    if isinstance(value, int):
        return value >= 1 << 24
    text = module.folder.text(key)
    return text is not None and _DIGEST.fullmatch(text) is not None


def _is_long(module: Module, side: ast.expr) -> bool:
    """A digest of at least 16 hexadecimal digits, or at least 4 numbers: nothing that honest code compares with."""
    value: Any = module.folder.fold(side)
    if isinstance(value, tuple):
        return len(value) >= 4 and all(isinstance(item, int) and item > 64 for item in value)
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16,128}", value) is not None


def _data(tree: SourceTree) -> Iterator[Spot]:
    limit = tree.limits.max_data_bytes
    sizes = {path: len(data) for path, data in tree.files.items() if PurePosixPath(path).suffix not in _PROGRAM}
    if sum(sizes.values()) > limit:
        largest = max(sizes, key=lambda path: sizes[path])
        size = sum(sizes.values())
        yield Spot(largest, 0, f"expected at most {limit} bytes in files that are no programs, got {size}; the largest")


def _binaries(tree: SourceTree) -> Iterator[Spot]:
    for path, data in tree.files.items():
        if PurePosixPath(path).suffix in _BINARY_SUFFIXES:
            yield Spot(path, 0, "a binary by its name: expected text that can be read")
        elif not _is_text(data):
            kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "binary data")
            yield Spot(path, 0, f"{kind}: expected UTF-8 text that can be read")


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False


RULES = (
    Rule(
        id="giant-literal",
        why="A long literal is data, and may be answers; the target says how long is long.",
        look=_giants,
    ),
    Rule(id="large-table", why="A large table of constants is data, and may be answers.", look=_tables),
    Rule(id="encoded-blob", why="Encoded data cannot be read, and may be answers or code.", look=_blobs),
    Rule(
        id="answer-table",
        why="What is looked up by the digest or the tokens of a prompt was known before the prompt was asked.",
        look=_answers,
    ),
    Rule(id="data-file", why="Data comes with the target's artifacts, not with a server.", look=_data),
    Rule(id="binary-file", why="What cannot be read cannot be trusted.", look=_binaries),
)
