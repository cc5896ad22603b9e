"""Decides how a run joins a Ray cluster, or starts one of its own on this machine."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import ray
from ray import exceptions as ray_errors

from population.errors import InfrastructureError

_LISTENER_TIMEOUT_S = 5.0


def connect(address: str | None) -> None:
    """Join the cluster at `address`, or start Ray on this machine.

    Raises:
        InfrastructureError: no cluster answers there.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address is None:
        options |= {"address": "local", "include_dashboard": False}
    else:
        _require_listener(address)
        options |= {"address": address}
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # `ray job submit` has shipped the checkout already
            checkout = Path(__file__).resolve().parents[2]
            options["runtime_env"] = {"working_dir": str(checkout), "excludes": ["/runs", "*.git"]}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray_errors.RayError) as error:
        raise InfrastructureError(
            f"expected a Ray cluster at {address or 'this machine'}: {str(error).strip() or type(error).__name__}. "
            "Check `ray status`; with token authentication export RAY_AUTH_MODE=token on both sides; "
            "-s cluster.executor=inline runs without Ray, one child at a time"
        ) from error


def disconnect() -> None:
    """Leave the cluster, and end it if `connect` has started it."""
    if ray.is_initialized():
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Ray itself would try for a minute before it says that nobody is there.

    Raises:
        InfrastructureError: nothing listens at `host:port` or `ray://host:port`; other forms are left to Ray.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_LISTENER_TIMEOUT_S).close()
    except OSError as error:
        raise InfrastructureError(
            f"expected a Ray cluster at {address}: {error.strerror or error}. Check the address with `ray status`; "
            "-s cluster.executor=inline runs without Ray, one child at a time"
        ) from error
