"""Bytes and operations, against arithmetic by hand and against what torch counts.

The preset "tiny": 8 layers (3 Mamba, 2 sliding, 1 full, 1 memory unit, 1 cross), h 64, d 128, 8 states, 4 taps,
4 query and 2 key-value heads of 16, window 16, MLP 160, 512 tokens, float32.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers import text
from sambay.bench.cost import prompt_operations, step_traffic
from sambay.ops import reference
from sambay.ops.backend import using

NORMS = (8 * 2 + 1) * 2 * 64
LAMBDAS = 6 * 16
MAMBA = 64 * 256 + (128 * 4 + 128) + 128 * (4 + 16) + (4 * 128 + 128) + 128 * 8 + 128 + 128 * 64
SLIDING = (64 * 128 + 128) + (64 * 64 + 64) + LAMBDAS
CROSS = (64 * 64 + 64) + (64 * 64 + 64) + LAMBDAS
MEMORY_UNIT = 64 * 128 + 128 * 64
MLP = 64 * 320 + 160 * 64
EMBEDDING = 512 * 64
WEIGHTS = 3 * MAMBA + 3 * SLIDING + CROSS + MEMORY_UNIT + 8 * MLP + NORMS + EMBEDDING

CONV, SCAN = 3 * 3 * 128 * 4, 3 * 8 * 128 * 4  # layers x what each holds x float32
ENTRY = 2 * 2 * 16 * 4  # key and value x heads x width x float32


@pytest.mark.parametrize(("start", "seen"), [(0, 1), (9, 10), (15, 16), (16, 16), (1000, 16)])
@pytest.mark.parametrize("batch", [1, 3])
def test_bytes_of_a_step_by_hand(tiny, batch, start, seen):
    found = step_traffic(tiny, batch, start)
    assert found.weights == 4 * WEIGHTS + batch * 64 * 4
    assert found.states == batch * 2 * (CONV + SCAN)  # read and written
    assert found.windows == batch * 2 * (seen + 1) * ENTRY  # two layers
    assert found.shared == batch * (2 * (start + 1) + 1) * ENTRY  # two readers, one writer
    assert found.total == found.weights + found.states + found.windows + found.shared
    assert found.to_dict() == {
        "weights": found.weights, "states": found.states, "windows": found.windows, "shared": found.shared,
        "total": found.total,
    }  # fmt: skip


def test_an_embedding_of_its_own_is_only_looked_up(untied):
    stored = sum(parameter.nbytes for parameter in untied.parameters())
    for batch in (1, 5):
        assert step_traffic(untied, batch, 0).weights == stored - 512 * 64 * 4 + batch * 64 * 4


def test_packed_weights(packed):
    """4 bits in groups of 32: 128 + 2048 bytes for 16 rows and 256 columns; 6 bits in groups of 128: 64 + 3072."""

    def matrix(rows, columns):
        assert rows % 16 == 0
        return rows // 16 * -(-columns // 256) * 2176

    body = 3 * (matrix(256, 64) + matrix(64, 128)) + 3 * (matrix(128, 64) + matrix(64, 64)) + 2 * matrix(64, 64)
    body += matrix(128, 64) + matrix(64, 128) + 8 * (matrix(320, 64) + matrix(64, 160))
    head = 512 // 16 * 3136
    small = 3 * (128 * 4 + 128 + 128 * 20 + 4 * 128 + 128 + 128 * 8 + 128)
    small += 3 * (128 + 64) + (64 + 64) + 4 * LAMBDAS + NORMS
    assert step_traffic(packed, 2, 0).weights == body + head + 4 * small + 2 * (3136 // 16)


def test_states_have_the_dtype_of_the_model(tiny):
    half = type(tiny).random(tiny.config, dtype=torch.bfloat16)
    one, other = step_traffic(tiny, 1, 100), step_traffic(half, 1, 100)
    assert 2 * other.weights == one.weights
    assert 2 * other.windows == one.windows
    assert 2 * other.shared == one.shared
    assert other.states == CONV + 2 * SCAN  # scans are float32 always


@pytest.mark.parametrize("length", [1, 7, 16, 40])
@pytest.mark.parametrize("name", ["tiny", "untied"])
def test_operations_of_a_prompt(request, monkeypatch, name, length):
    """What torch counts, query by query so that nothing masked is computed; it sees matrix products only."""
    monkeypatch.setattr(reference, "_QUERY_BLOCK", 1)
    model = request.getfixturevalue(name)
    with using("reference"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(text(length), logits="last")
    convolution, scan = 3 * 128 * 4, 3 * 2 * 8 * 128  # of the scan's three multiply-adds torch sees one
    assert prompt_operations(model.config, length) == counter.get_total_flops() + 2 * length * (convolution + scan)
