"""Decides whether code opens connections; a server only listens."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from evaluators.inspection.finding import Rule, Spot, covered, members
from evaluators.inspection.tree import Module, SourceTree

_CLIENTS = (
    *("socket.create_connection", "asyncio.streams.open_connection", "socket.socketpair().connect"),
    *members("socket.socket()", "connect connect_ex sendto"),
    *members("socket.socket", "connect connect_ex sendto"),
    *members("asyncio", "open_connection open_unix_connection"),
    *members("aiohttp", "ClientSession request TCPConnector UnixConnector client"),
    *members("multiprocessing", "connection.Client managers"),
    *members("grpc", "insecure_channel secure_channel aio"),
    *("urllib.request", "http.client", "xmlrpc.client", "tornado.httpclient"),
    *("ftplib", "smtplib", "poplib", "imaplib", "telnetlib", "nntplib", "paramiko", "socks", "dns", "redis", "boto3"),
    *("requests", "httpx", "httpx2", "urllib3", "pycurl", "websockets", "websocket", "huggingface_hub"),
    *("openai", "anthropic", "litellm", "mcp", "ray"),
)
_METHODS = frozenset({"create_connection", "create_unix_connection", "create_datagram_endpoint", "sock_connect"})


def _clients(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        for reference in module.references:
            if covered(reference.name, _CLIENTS):
                yield Spot(module.path, module.line(reference.node), f"{reference.name} talks to other servers")
        for node in module.nodes:
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and _connects(module, node, node.func)
            ):
                yield Spot(module.path, node.lineno, f".{node.func.attr}(…) opens a connection")


def _connects(module: Module, call: ast.Call, func: ast.Attribute) -> bool:
    """Loop methods, and `connect((host, port))` of whatever object."""
    pair = bool(call.args) and isinstance(call.args[0], ast.Tuple) and len(call.args[0].elts) == 2
    return func.attr in _METHODS or (func.attr in ("connect", "connect_ex") and pair)


RULES = (
    Rule(
        id="network-client",
        why="A server that asks another one does not do the inference itself, or tells others what it sees.",
        look=_clients,
    ),
)
