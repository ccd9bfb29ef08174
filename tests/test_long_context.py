"""A prompt of 64K tokens: memory grows by the cache and by nothing else, and the cache is what `sambay info` says."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

LENGTH = 65_536

PROGRAM = """
import json, resource, sys
from dataclasses import replace

import torch

from sambay.config import PRESETS
from sambay.model import SambaY
from sambay.state import state_bytes

length, cache_dtype = int(sys.argv[1]), sys.argv[2]
config = replace(PRESETS["tiny"], max_position_embeddings=65_536)
model = SambaY.random(config).eval()


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read(state, tokens, chunk=512):
    ids = torch.randint(config.vocab_size, (tokens,), generator=torch.Generator().manual_seed(0))
    for part in ids.split(chunk):
        batch = state.batch(part, (len(part),), wanted=(0,))
        model.run(batch, state)
        state.advance(batch)


with torch.no_grad():
    read(model.new_state(cache_dtype=cache_dtype), 2048)  # what is loaded and made once
    before = peak()
    state = model.new_state(cache_dtype=cache_dtype)
    read(state, length)
sizes = state_bytes(config, model.dtype, state.cache_dtype)
entry = sizes.pop("shared KV per token")
print(json.dumps({"grown": peak() - before, "held": state.nbytes, "told": sum(sizes.values()) + length * entry}))
"""


@pytest.mark.parametrize("cache_dtype", ["float32", "int8"])
def test_the_memory_of_a_long_prompt(cache_dtype):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(LENGTH), cache_dtype], capture_output=True, text=True, check=True
    )
    found = json.loads(run.stdout)
    assert found["held"] == found["told"]
    # While the cache doubles for the last time, half of it is held twice.
    assert found["grown"] < 1.5 * found["held"] + 16e6
