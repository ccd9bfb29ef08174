"""Operations of the model: one signature each, with shapes; `reference` is their specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sambay.ops import native

__all__ = ["BackendChoice", "describe_backends"]

OPERATIONS = ("causal_conv", "selective_scan", "window_attention", "shared_attention")

BACKENDS: dict[str, Callable[[str, str], str | None]] = {"native": native.obstacle}
"""Faster than `reference`, the fastest first -> (operation, device) -> why it cannot serve, or None."""


class BackendChoice(NamedTuple):
    """Which implementation serves an operation, and why."""

    operation: str
    backend: str
    reason: str


def describe_backends(device: str) -> list[BackendChoice]:
    """What `sambay info` prints: the backend of every operation on a device, with the reason.

    Args:
        device: type of a torch device, such as "cpu".

    Raises:
        BackendError: a backend was forced that cannot serve.
    """
    return [_choose(operation, device) for operation in OPERATIONS]


def _choose(operation: str, device: str) -> BackendChoice:
    """The first backend of the table that nothing hinders; plain torch serves everything."""
    obstacles = []
    for backend, obstacle in BACKENDS.items():
        found = obstacle(operation, device)
        if found is None:
            return BackendChoice(operation, backend, "the fastest for it here")
        obstacles.append(f"{backend}: {found}")
    return BackendChoice(operation, "reference", f"plain torch serves everything ({'; '.join(obstacles)})")
