"""Settings that must hold before anything is imported, and a cache that is the test run's own."""

from __future__ import annotations

import os

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "0"
