"""A server that does, after it is ready or instead of it, what MODE says; run as `hostile.py MODE PORT`."""

import http.server
import json
import os
import signal
import subprocess
import sys
import time

mode, port = sys.argv[1], int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"env": dict(os.environ), "pid": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if mode == "never-ready":
    print("loading weights ...", flush=True)
    time.sleep(60)
elif mode == "exits":
    print("\n".join(f"line {i}" for i in range(40)))
    sys.exit("CUDA error: no kernel image is available \x1b[2J")
elif mode == "garbage":
    import socket

    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"\x00\x01 not http at all\r\n\r\n")
        connection.close()
elif mode == "daemon":
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os,time\nif os.fork(): os._exit(0)\nos.setsid(); print(os.getpid(), flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    print("daemon", child.stdout.readline().strip(), flush=True)
    child.wait()
elif mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif mode == "log-bomb":
    print("first words", flush=True)
    for _ in range(200):
        os.write(1, b"x" * 65000 + b"\n")
    print("last words", flush=True)

http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
