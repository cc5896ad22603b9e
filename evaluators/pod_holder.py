"""Decides what a pod's network is: a namespace of its own with loopback up, for as long as its owner lives.

Standard library only, run by `pod.py` in its own process, because entering a namespace needs a process with one thread.
As an ordinary user the namespace belongs to a user namespace, which a command has to enter first.

The owner's end of the socket (stdin) gets a line of JSON once the network is up, {"ready": pid} or {"failed": text};
afterwards, for every byte N that it sends, N new TCP sockets of the namespace in one message. End of file ends it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Make the network, then hand out sockets until the owner is gone."""
    owner = socket.socket(fileno=0)
    try:
        isolate()
    except OSError as error:
        owner.sendall(json.dumps({"failed": f"{error.strerror} ({error.filename or 'network namespace'})"}).encode())
        return
    owner.sendall(json.dumps({"ready": os.getpid()}).encode() + b"\n")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C belongs to the owner, which then closes the socket
    while wanted := owner.recv(1):
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(wanted[0])]
        socket.send_fds(owner, [b"s"], [each.fileno() for each in sockets])
        for each in sockets:
            each.close()


def isolate() -> None:
    """Enter a new network namespace and bring its loopback up."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNET if uid == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare")
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
