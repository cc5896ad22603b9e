"""The one door to Ray: how a run joins a cluster, what its nodes are, and how tasks run on them."""

from __future__ import annotations

import os

# Before `import ray`: under `uv run` Ray would rewrite the workers' environment, and tasks would hang.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # what Ray itself says goes to logs and pipes, too
os.environ.setdefault("RAY_worker_niceness", "0")
# A worker beyond the number of CPUs, as those that wait for an LLM are, would be ended after one second without work.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
