"""What a pass computes, in multiply-adds and in rows: no more than it needs."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers import BOUND, error, text
from sambay.config import LayerRole
from sambay.ops import reference as ops


def macs_of_prompt(config, length, last, block):
    """Multiply-adds of matrix products by the description: layers 0 to L/2 and K and V of layer L/2+1 for all
    tokens; the rest for `rows` tokens. Attention is cut into blocks of queries,
    each with the keys that any of
    the block sees."""
    h, d, n, r, m = (
        config.hidden_size, config.d_inner, config.mamba_d_state, config.mamba_dt_rank,
        config.intermediate_size,
    )  # fmt: skip
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    quarter = config.num_hidden_layers // 4
    rows = 1 if last else length
    mamba = h * 2 * d + d * (r + 2 * n) + r * d + d * h + n * d  # the last: the scan's C h
    sliding = h * (q + 2 * kv) + q * h
    mlp = 3 * h * m
    every_token = (quarter + 1) * mamba + quarter * sliding + (2 * quarter + 1) * mlp + h * 2 * kv
    gmu, cross = 2 * h * d, 2 * h * q
    every_row = cross + mlp + (quarter - 1) * (gmu + cross + 2 * mlp) + h * config.vocab_size

    def attention(queries, window):  # q k and weights v: 2 products of H dh
        total = 0
        for low in range(0, queries, block):
            high = min(low + block, queries)
            first = length - queries
            seen = first + high - (0 if window is None else max(0, first + low - window + 1))
            total += 2 * q * (high - low) * seen
        return total

    scores = quarter * attention(length, config.sliding_window) + quarter * attention(rows, None)
    return length * every_token + rows * every_row + scores


@pytest.mark.parametrize("block", [256, 8])
@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("changes", [{}, {"num_hidden_layers": 12}, {"differential_attention": False}])
def test_a_prompt_computes_only_what_it_needs(build, monkeypatch, changes, length, block):
    monkeypatch.setattr(ops, "_QUERY_BLOCK", block)
    model, _ = build(**changes)
    for last in (True, False):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(text(length), logits="last" if last else "all")
        assert counter.get_total_flops() == 2 * macs_of_prompt(model.config, length, last, block)


def test_a_prompt_costs_about_half(build):
    """In figures that a wrong formula above could not hide."""
    model, _ = build(num_hidden_layers=12, vocab_size=48)
    flops = {}
    for last in (True, False):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(text(200), logits="last" if last else "all")
        flops[last] = counter.get_total_flops()
    assert flops[True] < 0.62 * flops[False]


def test_a_new_token_costs_one_token(build):
    """With a state nothing of the past is computed again: attention alone grows, 2 H dh products a token."""
    model, _ = build()
    config = model.config
    pool = model.new_state()
    costs = []
    for length in (30, 1, 1, 50, 1):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(text(length), state=pool, logits="last")
        costs.append(counter.get_total_flops() // 2)
    one = macs_of_prompt(config, 1, True, 256)
    q, quarter = config.num_attention_heads * config.head_dim, config.num_hidden_layers // 4
    for cost, seen in ((costs[1], 31), (costs[2], 32), (costs[4], 83)):
        # a text of one token attends to one key everywhere; here to a whole window, and to all `seen`
        assert cost == one + quarter * 2 * q * (config.sliding_window - 1) + quarter * 2 * q * (seen - 1)


@pytest.mark.parametrize("changes", [{}, {"num_hidden_layers": 12, "differential_attention": False}])
@pytest.mark.parametrize("stateful", [False, True])
def test_rows_that_each_module_sees(build, changes, stateful):
    model, _ = build(**changes)
    length, lengths = 23, [11, 2, 10]
    seen = {}

    def record(name):
        def hook(module, args, output):
            assert name not in seen, f"{name} ran twice"
            seen[name] = args[0].shape[0]

        return hook

    leaves = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
    handles = [m.register_forward_hook(record(name)) for name, m in model.named_modules() if isinstance(m, leaves)]
    pool = model.new_state(3) if stateful else None
    with torch.no_grad():
        model(text(length), offsets=[0, *np.cumsum(lengths)], logits="last", state=pool)
    for handle in handles:
        handle.remove()
    full = model.config.full_layer
    for name, rows in seen.items():
        parts = name.split(".")
        layer = int(parts[1]) if parts[0] == "layers" else None
        border = layer == full and parts[2] == "mixer_norm"  # the keys and values need it
        everything = name == "embedding" or border or (layer is not None and layer < full)
        assert rows == (length if everything else len(lengths)), name
    # dt_proj and the border's Wqkv are used by their weights: the multiply-adds above count them
    hidden = {name for name, m in model.named_modules() if isinstance(m, leaves)} - set(seen)
    assert all(name.endswith("dt_proj") or name == f"layers.{full}.mixer.Wqkv" for name in hidden)


class Wrapped(nn.Module):
    """Stands where a projection stood, as an adapter does; it must be called, and may be called once only."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x)


@pytest.mark.parametrize("logits", ["all", "last"])
def test_wrapped_projections_are_called(build, logits):
    model, oracle = build(seed=8)
    ids = text(13)
    expected = oracle.logits(ids)[-1 if logits == "last" else 0 :]
    wrapped = {}
    for block in model.layers:
        for parent in (block.mixer, block.mlp):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    wrapped[len(wrapped)] = block.role, name, Wrapped(child)
                    setattr(parent, name, wrapped[len(wrapped) - 1][2])
    with torch.no_grad():
        assert error(model(ids, logits=logits), expected) < BOUND
    for role, name, module in wrapped.values():
        twice = role is LayerRole.FULL and name == "Wqkv" and logits == "last"  # queries apart from keys and values
        assert module.calls == (2 if twice else 1), (role, name)
