"""States of sequences that seem to be so many tokens long, without computing those tokens.

The shortcut: slots are opened, pages reserved and lengths set as after a real prompt, and every state, window and
page holds random numbers. A step then reads and writes the same rows in the same places by the same code (a test
holds that), and what it costs does not depend on the values. What it computes means nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sambay.errors import ConfigError, ContextError
from sambay.model import SambaY
from sambay.quant.resident import free_memory
from sambay.state import PAGE_SIZE, StatePool, state_bytes

__all__ = ["Filled", "check_context", "check_memory", "fill_state"]


class Filled:
    """A pool of sequences that can be put at any depth up to the one it was made for.

    Args:
        model: that the pool fits.
        pool: with all slots open, filled and reserved.
        seed: of the tokens.
    """

    def __init__(self, model: SambaY, pool: StatePool, seed: int = 0) -> None:
        self.model, self.pool = model, pool
        generator = torch.Generator().manual_seed(seed)
        self._ids = torch.randint(model.config.vocab_size, (4096 + pool.slots,), generator=generator)
        self._at = 0

    def seek(self, sequences: int, depth: int) -> None:
        """Let the first so many sequences be at a depth."""
        for slot in range(sequences):
            self.pool.lengths[slot] = depth

    @torch.inference_mode()
    def step(self, sequences: int) -> Tensor:
        """One token for each of the first sequences, as the engine does it, without the choice of a token.

        Returns:
            (B, vocab) logits.
        """
        self._at = (self._at + sequences) % 4096
        ids = self._ids[self._at : self._at + sequences]
        batch = self.pool.batch(ids, (1,) * sequences, tuple(range(sequences)))
        logits = self.model.run(batch, self.pool)
        self.pool.advance(batch)
        return logits


def fill_state(model: SambaY, sequences: int, tokens: int, seed: int = 0) -> Filled:
    """Random states of sequences with room for so many tokens each; see the head of this file.

    Args:
        model: decides shapes and dtypes.
        sequences: slots of the pool, all open.
        tokens: that a sequence can be long.
        seed: of the values.

    Raises:
        ConfigError: the memory that is free does not hold them.
    """
    check_memory(model, sequences, tokens)
    pages = -(-tokens // PAGE_SIZE)
    pool = model.new_state(sequences, tokens=sequences * pages * PAGE_SIZE)
    generator = torch.Generator(model.device).manual_seed(seed)
    for _ in range(sequences):
        pool.shared.reserve(pool.open(), tokens)
    tensors = [tensor for state in pool.fixed for tensor in state.tensors]
    for tensor in (*tensors, *pool.shared.tiles.tensors):
        if tensor.dtype is torch.uint8:
            tensor.random_(256, generator=generator)
        else:
            tensor.uniform_(-1, 1, generator=generator)
    return Filled(model, pool, seed)


def check_context(context: int, tokens: int, what: str) -> None:
    """Refuse what does not fit into a context.

    Args:
        context: tokens at most.
        tokens: that are needed.
        what: needs them, such as "--depth 8192 and 8 more tokens".

    Raises:
        ContextError: it does not fit.
    """
    if tokens > context:
        raise ContextError(
            f"{what} make {tokens} tokens, more than the model's context of {context}: choose {tokens - context} less"
        )


def check_memory(model: SambaY, sequences: int, tokens: int) -> None:
    """Refuse states that the memory has no room for.

    Args:
        model: decides shapes and dtypes.
        sequences: of so many tokens each.
        tokens: of a sequence.

    Raises:
        ConfigError: the memory that is free does not hold them.
    """
    needed, free = states_bytes(model, sequences, tokens), free_memory()
    if free is not None and needed > free:
        raise ConfigError(
            f"the states of {sequences} sequences of {tokens} tokens take {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB of memory are free: choose fewer sequences or tokens"
        )


def states_bytes(model: SambaY, sequences: int, tokens: int) -> int:
    """Bytes of the states of sequences of so many tokens each."""
    sizes = state_bytes(model.config, model.dtype, model.cache_dtype)
    entry = sizes.pop("shared KV per token")
    return sequences * (sum(sizes.values()) + tokens * entry)
