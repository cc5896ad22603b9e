"""Decides what operations on constants amount to; bounded, so that reading hostile code costs little.

Anything that is not listed, too large or an error is None: unknown.
"""

from __future__ import annotations

import ast
import base64
import codecs
import re
from collections.abc import Callable, Sequence
from typing import Any

Constant = str | bytes | int | float | tuple[Any, ...]

MAX_SIZE = 1 << 16
_MAX_INT = 1 << 64
_TEXT_METHODS = frozenset({"lower", "upper", "strip", "lstrip", "rstrip", "casefold", "swapcase", "title", "replace"})
_CODECS = frozenset({"rot13", "rot_13", "hex", "base64", "utf-8", "utf8", "ascii", "latin-1", "latin1"})


def binary(op: ast.operator, left: Constant | None, right: Constant | None) -> Constant | None:
    """`left op right`; `/` of two texts is pathlib's."""
    match op, left, right:
        case ast.Add(), str(), str():
            return (left + right)[:MAX_SIZE]
        case ast.Add(), bytes(), bytes():
            return (left + right)[:MAX_SIZE]
        case ast.Add(), tuple(), tuple() if len(left) + len(right) <= MAX_SIZE:
            return left + right
        case ast.Mult(), str() | bytes() | tuple(), int() if len(left) * max(right, 0) <= MAX_SIZE:
            return left * right
        case ast.Div(), str(), str():
            return right if right.startswith("/") else f"{left}/{right}"
        case ast.Mod(), str(), str() | int() | tuple() if not re.search(r"%[^%a-zA-Z]*(?:\d{4}|\*)", left):
            return _text(lambda: left % right) if _small(right if isinstance(right, tuple) else (right,)) else None
        case _, int(), int():
            return _integers(op, left, right)
    return None


def _integers(op: ast.operator, left: int, right: int) -> int | None:
    small = abs(left) < _MAX_INT and abs(right) < _MAX_INT
    match op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.BitXor():
            return left ^ right
        case ast.Mult() if small:
            return left * right
        case ast.Pow() if small and 0 <= right <= 32:
            return int(left**right)
        case ast.LShift() if small and 0 <= right <= 64:
            return left << right
        case ast.Mod() if right > 0:
            return left % right
    return None


def call(name: str, arguments: Sequence[Any]) -> Constant | None:
    """A function by its canonical name, applied to constants."""
    match name.removeprefix("builtins."), arguments:
        case "chr", [int() as code] if 0 <= code < 0x110000:
            return chr(code)
        case "ord", [str() | bytes() as one] if len(one) == 1:
            return ord(one)
        case "str", [str() as value]:
            return value
        case "int", [str() as digits] if digits.isdecimal() and len(digits) < 20:
            return int(digits)
        case "bytes", [tuple() as codes] if all(isinstance(code, int) and 0 <= code < 256 for code in codes):
            return bytes(codes)
        case "reversed" | "list" | "tuple", [str() | tuple() as items]:
            return tuple(items)[::-1] if name.endswith("reversed") else tuple(items)
        case "os.path.join" | "posixpath.join", _ if arguments and all(isinstance(a, str) for a in arguments):
            return "/".join(arguments)[:MAX_SIZE]
        case "pathlib.Path" | "pathlib.PurePath" | "pathlib.PosixPath", [str(), *_] if _texts(arguments):
            return "/".join(arguments)[:MAX_SIZE]
    return _decoded(name.removeprefix("builtins."), arguments)


def _decoded(name: str, arguments: Sequence[Any]) -> Constant | None:
    try:
        match name, arguments:
            case "bytes.fromhex" | "binascii.unhexlify" | "bytearray.fromhex", [str() as digits]:
                return bytes.fromhex(digits)
            case "base64.b64decode" | "base64.standard_b64decode" | "base64.urlsafe_b64decode", [
                str() | bytes() as data
            ]:
                return base64.b64decode(data)
            case "base64.b32decode", [str() | bytes() as data]:
                return base64.b32decode(data)
            case "base64.b85decode", [str() | bytes() as data]:
                return base64.b85decode(data)
            case "codecs.decode", [str() | bytes() as data, str() as codec] if codec in _CODECS:
                decode: Callable[[Any, str], Any] = codecs.decode
                made = decode(data, codec)
                return made if isinstance(made, str | bytes) else None
    except (ValueError, TypeError, LookupError):
        return None
    return None


def method(owner: Constant, name: str, arguments: Sequence[Any]) -> Constant | None:
    """A method of a constant, applied to constants."""
    match owner, name, arguments:
        case str(), "join", [str() | tuple() as items] if _texts(items) and len(owner) * len(items) <= MAX_SIZE:
            return owner.join(items)[:MAX_SIZE] if _small(items) else None
        case bytes(), "join", [tuple() as items] if all(isinstance(item, bytes) for item in items):
            return owner.join(items)[:MAX_SIZE] if _small((owner.decode("latin-1") * len(items), *items)) else None
        case str(), "format", _ if _small(arguments) and not re.search(r"\{[^}]*[:!.\[]", owner):
            return _text(lambda: owner.format(*arguments))
        case str(), "replace", [str() as old, str() as new] if len(owner) * (1 + len(new)) <= MAX_SIZE:
            return owner.replace(old, new)
        case str(), _, _ if name in _TEXT_METHODS - {"replace"} and _texts(arguments):
            return _text(lambda: str(getattr(owner, name)(*arguments)))
        case str(), "encode", _:
            return owner.encode("utf-8", errors="replace")
        case bytes(), "decode", _:
            return owner.decode("utf-8", errors="replace")
        case str(), "joinpath", _ if _texts(arguments):
            return "/".join([owner, *arguments])[:MAX_SIZE]
    return None


def _texts(items: Sequence[Any]) -> bool:
    return all(isinstance(item, str) for item in items)


def _small(items: Sequence[Any]) -> bool:
    """Whether putting these into a text is cheap: flat, and short in all."""
    flat = all(isinstance(item, str | bytes | int) for item in items)
    return flat and sum(len(item) if isinstance(item, str | bytes) else 20 for item in items) <= MAX_SIZE


def _text(work: Callable[[], str]) -> str | None:
    try:
        return work()[:MAX_SIZE]
    except (ValueError, TypeError, IndexError, KeyError, OverflowError):
        return None
