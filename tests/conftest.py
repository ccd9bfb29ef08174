"""What all tests share: small models with their oracle, the golden checkpoint, a fixed source of examples."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

from oracle import Oracle, random_weights
from sambay.checkpoint import to_memory_name
from sambay.config import SambaYConfig
from sambay.model import SambaY

GOLDEN = Path(__file__).parent / "golden" / "phi4flash-tiny"

SMALL = {
    "vocab_size": 48, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2, "sliding_window": 4, "mamba_d_state": 3, "mamba_d_conv": 4, "mamba_expand": 2,
    "mamba_dt_rank": 2, "layer_norm_eps": 1e-5, "max_position_embeddings": 1024, "torch_dtype": "float32",
}  # fmt: skip

# Servers of these tests are on this machine, whatever proxy the rest of the world is behind.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
torch.set_num_threads(1)  # tiny tensors, and the machine is shared
hypothesis.settings.register_profile(
    "sambay",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("sambay")


def _build(seed=0, dtype=torch.float32, **changes):
    values = SMALL | changes
    weights = {name: torch.from_numpy(value).to(dtype) for name, value in random_weights(values, seed).items()}
    with torch.device("meta"):
        model = SambaY(SambaYConfig.from_dict(values))
    # Clones: the oracle's weights and the model's must not be the same memory.
    model.load_state_dict({to_memory_name(name): value.clone() for name, value in weights.items()}, assign=True)
    return model, Oracle(values, {name: value.double().numpy() for name, value in weights.items()})


@pytest.fixture(scope="session")
def build():
    """`build(seed=, dtype=, **config)` -> a small random model and the oracle with the same weights."""
    return _build


@pytest.fixture(scope="session")
def pair():
    """A small model and its oracle, for tests that change neither."""
    return _build(seed=1)


@pytest.fixture(scope="session")
def golden_dir():
    return GOLDEN
