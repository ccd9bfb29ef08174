"""Operations of the model: one signature each, with shapes; `reference` is their specification."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BackendChoice", "describe_backends"]

OPERATIONS = ("causal_conv", "selective_scan", "window_attention", "shared_attention")


class BackendChoice(NamedTuple):
    """Which implementation serves an operation, and why."""

    operation: str
    backend: str
    reason: str


def describe_backends(device: str) -> list[BackendChoice]:
    """What `sambay info` prints: the backend of every operation on a device, with the reason.

    Args:
        device: type of a torch device, such as "cpu".
    """
    reason = f"plain torch serves every device ({device}) and dtype; there is no faster backend yet"
    return [BackendChoice(operation, "reference", reason) for operation in OPERATIONS]
