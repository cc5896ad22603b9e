"""CPU that the client spends per token, at several numbers of streams and paces, against a server that does nothing.

python -m benchmarks.load_generator.client_cost [--window-s 2] [--processes 1]      about 15 s; prints a Markdown table
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from evaluators.load import bench
from evaluators.load.endpoint import Endpoint
from evaluators.load.session import ClientOptions
from evaluators.load.workload import Load

SERVER = Path(__file__).with_name("fast_server.py")
CASES = ((1, 5.0), (16, 10.0), (64, 10.0), (256, 40.0), (64, 0.0))
"""Streams, and milliseconds between the tokens of each (0: as fast as the server can)."""


def measure(streams: int, pace_ms: float, window_s: float, processes: int) -> str:
    """One row of the table."""
    command = [sys.executable, str(SERVER), str(pace_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        endpoint = Endpoint(url=f"http://127.0.0.1:{port}", model="fast")
        load = Load(name="cost", kind="closed", concurrency=streams, window_s=window_s, output_tokens=(32, 32))
        (result,) = bench(endpoint, [load], options=ClientOptions(processes=processes, settle_timeout_s=0))
        assert server.stdin is not None
        server.stdin.close()
        server.wait(10)
    m = result.metrics
    cpu_us = m["client_cpu_s"] / m["total_output_tokens"] * 1e6
    expected = f"{pace_ms:g}" if pace_ms else "–"
    median_itl = f"{m['median_itl_ms']:.2f}"
    return (
        f"| {streams} | {expected} | {m['output_throughput']:,.0f} | {cpu_us:.1f} | {m['client_cpu_share']:.0%} "
        f"| {median_itl} | {m['p99_itl_ms']:.2f} | {', '.join(sorted(result.flags)) or '–'} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window-s", type=float, default=2.0)
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args()
    print("| streams | pace ms | tok/s | client CPU µs/token | of a core | ITL p50 ms | ITL p99 ms | flags |")
    print("|---|---|---|---|---|---|---|---|")
    for streams, pace_ms in CASES:
        print(measure(streams, pace_ms, chosen.window_s, chosen.processes), flush=True)


if __name__ == "__main__":
    main()
