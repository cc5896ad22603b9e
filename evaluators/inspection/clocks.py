"""Decides whether code tampers with clocks, or behaves by the clock."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from evaluators.inspection.finding import Rule, Spot, covered
from evaluators.inspection.names import spelled
from evaluators.inspection.tree import Module, SourceTree

_LOOPS = (
    *("asyncio.get_running_loop()", "asyncio.get_event_loop()", "asyncio.new_event_loop()"),
    *("asyncio.BaseEventLoop", "asyncio.AbstractEventLoop", "asyncio.SelectorEventLoop", "asyncio.base_events"),
)
_SETTERS = ("time.clock_settime", "time.clock_settime_ns", "freezegun", "time_machine", "libfaketime")
_READERS = re.compile(
    r"(time\.(time|monotonic|perf_counter|process_time|thread_time|clock_gettime)(_ns)?"
    r"|time\.(localtime|gmtime|ctime|strftime)"
    r"|datetime\.(datetime|date)\.(now|utcnow|today))\(\).*"
)


def _patched(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        for store in module.stores:
            loop = covered(store.name, _LOOPS) and store.name.rpartition(".")[2] in ("time", "{}")
            if loop or covered(store.name, ("time", "datetime")):
                yield Spot(module.path, module.line(store.node), f"{store.name} is replaced")
        for reference in module.references:
            if covered(reference.name, _SETTERS):
                yield Spot(module.path, module.line(reference.node), f"{reference.name} sets or fakes clocks")
        for node in module.nodes:
            if isinstance(node, ast.ClassDef) and _is_loop(module, node):
                yield Spot(module.path, node.lineno, f"{node.name} is an event loop with a clock of its own")


def _is_loop(module: Module, node: ast.ClassDef) -> bool:
    bases = {name for base in node.bases for name in module.names.resolve(base)}
    defines = {part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
    return "time" in defines and any("EventLoop" in name for name in bases)


def _switches(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        starts = _process_starts(module)
        for node in module.nodes:
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            clocks = [side for side in sides if _is_time(module, side, starts)]
            if clocks and all(side in clocks or module.folder.fold(side) is not None for side in sides):
                yield Spot(module.path, node.lineno, "a decision by the time of day, or by how long the process runs")


def _process_starts(module: Module) -> frozenset[str]:
    """Names of the module's top level that hold the time at which it was imported."""
    names = set()
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign) and _reads_clock(module, statement.value):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return frozenset(names)


def _reads_clock(module: Module, node: ast.AST) -> bool:
    return any(_READERS.fullmatch(name) for name in module.names.resolve(node))


def _is_time(module: Module, node: ast.expr, starts: frozenset[str], depth: int = 0) -> bool:
    """Whether an expression is a clock's reading, or its distance from the start of the process; of nothing else,
    so that deadlines and durations of requests are none."""
    match node:
        case ast.Name(id=name):
            found = module.constants.get(name)
            return name not in starts and found is not None and depth < 8 and _is_time(module, found, starts, depth + 1)
        case ast.Call(func=func, args=arguments):
            rounds = module.names.resolve(func) & {"builtins.int", "builtins.round", "builtins.float"}
            return _reads_clock(module, node) or (
                bool(rounds and arguments) and _is_time(module, arguments[0], starts, depth)
            )
        case ast.Attribute():
            return (spelled(node) or "") not in module.names.bindings and _reads_clock(module, node)
        case ast.BinOp(left=left, op=ast.Sub(), right=ast.Name(id=name)) if name in starts:
            return _is_time(module, left, starts, depth)
        case ast.BinOp(left=left, op=ast.Mod() | ast.FloorDiv() | ast.Div() | ast.Mult(), right=right):
            return _is_time(module, left, starts, depth) and module.folder.fold(right) is not None
    return False


RULES = (
    Rule(
        id="patched-clock",
        why="A server that changes clocks makes its own latencies look shorter, or others' longer.",
        look=_patched,
    ),
    Rule(
        id="time-switch",
        why="A server that changes its ways at some time can be honest while it is judged and fast while it is timed.",
        look=_switches,
    ),
)
