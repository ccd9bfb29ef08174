"""How much memory the states of sequences may take, and what that holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from sambay.errors import ConfigError
from sambay.model import SambaY
from sambay.quant.resident import free_memory
from sambay.state import PAGE_SIZE, StatePool, state_bytes

__all__ = ["Budget", "make_budget", "make_pool", "memory_bytes"]

_UNKNOWN = 4 << 30
"""Bytes that are taken to be free where the system does not tell."""


@dataclass(frozen=True)
class Budget:
    """What a memory holds.

    Attributes:
        slots: sequences that run at once.
        pages: of keys and values, of parked sequences and of snapshots.
        max_model_len: tokens of a sequence at most.
        nbytes: of all that.
    """

    slots: int
    pages: int
    max_model_len: int
    nbytes: int


def memory_bytes(memory: int | str, name: str = "memory") -> int:
    """An amount of memory in bytes.

    Args:
        memory: such as 2000000000, "20GB" or "512 MiB".
        name: what it is called where it was given.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(memory, str):
        found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kMGT])(i?)B", memory.strip(), re.ASCII)
        if found is not None:
            number, prefix, binary = found.groups()
            return int(float(number) * (1024 if binary else 1000) ** ("kMGT".index(prefix) + 1))
    elif isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    raise ConfigError(f"{name} {memory!r} is no amount of memory: give one such as 20GB or 512MiB")


def make_budget(model: SambaY, slots: int, max_model_len: int | None = None, memory: int | None = None) -> Budget:
    """Divide a memory into slots, for the states of fixed size of running sequences, and pages, for all else.

    Slots take half of it at most, though there is one at least. At least one sequence of `max_model_len` tokens fits.

    Args:
        model: decides shapes and dtypes.
        slots: as many as are wanted.
        max_model_len: tokens of a sequence at most; None for the model's context, or what the memory holds of it.
        memory: bytes; None for half of those that are free beside the weights, though no more than twice of what
            `slots` sequences of `max_model_len` tokens take (the other half is for the prefix cache).

    Raises:
        ConfigError: the memory does not hold a single sequence.
    """
    sizes = state_bytes(model.config, model.dtype, model.cache_dtype)
    page = sizes.pop("shared KV per token") * PAGE_SIZE
    fixed = sum(sizes.values())
    wanted = max_model_len or model.config.max_position_embeddings
    if memory is None:
        memory = min(_free(model) // 2, 2 * slots * (fixed + page * -(-wanted // PAGE_SIZE)))
    slots = max(1, min(slots, memory // 2 // fixed))
    pages = (memory - slots * fixed) // page
    longest = wanted if max_model_len else min(wanted, pages * PAGE_SIZE)
    if pages < 1 or longest > pages * PAGE_SIZE:
        needed = fixed + page * (-(-wanted // PAGE_SIZE) if max_model_len else 1)
        raise ConfigError(
            f"a memory of {_amount(memory)} is too small: one sequence of {wanted if max_model_len else PAGE_SIZE} "
            f"tokens takes {_amount(needed)}: give more memory, or a smaller max_model_len"
        )
    return Budget(slots, pages, longest, slots * fixed + pages * page)


def make_pool(model: SambaY, budget: Budget) -> StatePool:
    """The pool of a budget, which never holds more; on a CPU its pages take memory when they are first used."""
    return StatePool(
        model.config,
        budget.slots,
        dtype=model.dtype,
        cache_dtype=model.cache_dtype,
        device=model.device,
        tokens=budget.pages * PAGE_SIZE,
        growing=False,
    )


def _free(model: SambaY) -> int:
    """Bytes that are free once the weights are in memory: mapped ones need not be there yet."""
    if model.device.type == "cuda":
        return torch.cuda.mem_get_info(model.device)[0]
    free = free_memory()
    if free is None:
        return _UNKNOWN
    weights: int = sum(tensor.nbytes for tensor in model.state_dict().values())
    return max(0, free - weights)


def _amount(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
