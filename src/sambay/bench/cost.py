"""What a pass must do, counted: bytes that a decoding step moves, operations that a prompt needs.

Both are the least that any implementation can do. Activations are not counted: they stay in the cache.

Shape legend: B sequences; h = hidden_size, d = d_inner, n = d_state, r = dt_rank, K = d_conv, W = sliding_window.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sambay.config import LayerRole, SambaYConfig
from sambay.model import SambaY
from sambay.quant.formats import PANEL
from sambay.quant.linear import QuantEmbedding
from sambay.state import state_bytes

__all__ = ["Traffic", "prompt_operations", "step_traffic", "weight_bytes"]


@dataclass(frozen=True)
class Traffic:
    """Bytes that go through memory in one step.

    Attributes:
        weights: read, each once, whatever the number of sequences; and the embeddings that are looked up.
        states: of the convolutions and the scans, read and written.
        windows: keys and values that sliding-window attention reads, and the new ones written.
        shared: the shared cache, read once by every layer that looks at it, and the new entry written.
    """

    weights: float
    states: float
    windows: float
    shared: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.states + self.windows + self.shared

    def to_dict(self) -> dict[str, float]:
        """The numbers as plain data."""
        parts = {"weights": self.weights, "states": self.states, "windows": self.windows, "shared": self.shared}
        return parts | {"total": self.total}


def weight_bytes(model: SambaY, sequences: int) -> int:
    """Bytes of weights that a step reads: all but an embedding of its own, of which a few rows are looked up.

    Args:
        model: plain or quantised.
        sequences: B, each looks up one row.
    """
    embedding = model.embedding
    if isinstance(embedding, QuantEmbedding):
        whole, rows = embedding.packed.nbytes, PANEL * embedding.packed.shape[0]
    else:
        assert isinstance(embedding, nn.Embedding)
        whole, rows = embedding.weight.nbytes, embedding.weight.shape[0]
    stored: int = sum(tensor.nbytes for tensor in model.state_dict().values())
    # A tied head reads the whole matrix, which `stored` has once.
    return stored + sequences * (whole // rows) - (0 if model.config.tie_word_embeddings else whole)


def step_traffic(model: SambaY, sequences: int, start: int) -> Traffic:
    """Bytes that a step of one token for each of several sequences moves.

    Args:
        model: plain or quantised; its states have its dtype.
        sequences: B.
        start: tokens that each has seen before.
    """
    config = model.config
    sizes = state_bytes(config, model.dtype, model.cache_dtype)
    plan = config.layer_plan()
    entry = sizes["shared KV per token"]
    sliding = sum(role is LayerRole.SLIDING for role in plan)
    readers = sum(role in (LayerRole.FULL, LayerRole.CROSS) for role in plan)
    return Traffic(
        weights=weight_bytes(model, sequences),
        states=sequences * 2 * (sizes["convolution"] + sizes["scan"]),
        windows=sequences * sliding * (min(start + 1, config.sliding_window) + 1) * entry,
        shared=sequences * (readers * (start + 1) + 1) * entry,
    )


def prompt_operations(config: SambaYConfig, length: int) -> int:
    """Operations (two for a multiply-add) that a prompt needs for the logits of its last token.

    The layers up to the memory, and the keys and values that are shared, for all tokens; the rest for one. Counted
    are matrix products, attention without what is masked, convolutions, and the scan at three multiply-adds a state;
    norms and activations are not.

    Args:
        config: of the model.
        length: tokens.
    """
    h, d, n, r, m = (
        config.hidden_size, config.d_inner, config.mamba_d_state, config.mamba_dt_rank, config.intermediate_size
    )  # fmt: skip
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    quarter = config.num_hidden_layers // 4
    mlp = 3 * h * m
    mamba = h * 2 * d + d * config.mamba_d_conv + d * (r + 2 * n) + r * d + 3 * n * d + d * h
    sliding = h * (q + 2 * kv) + q * h
    each_token = (quarter + 1) * mamba + quarter * sliding + (2 * quarter + 1) * mlp + h * 2 * kv
    gmu, cross = 2 * h * d, 2 * h * q
    last_token = quarter * (cross + mlp) + (quarter - 1) * (gmu + mlp) + h * config.vocab_size
    window = min(length, config.sliding_window)
    seen = window * (window + 1) // 2 + (length - window) * window
    attention = quarter * 2 * q * (seen + length)
    return 2 * (length * each_token + last_token + attention)
