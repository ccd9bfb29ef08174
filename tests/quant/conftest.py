"""Small quantised checkpoints, and the same models with the weights that the codes stand for."""

import pytest
import torch

from sambay.config import SambaYConfig
from sambay.model import SambaY
from sambay.quant.convert import quantize
from sambay.quant.linear import QuantEmbedding, QuantLinear

ODD = {
    "vocab_size": 71, "hidden_size": 40, "intermediate_size": 52, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "sliding_window": 5, "mamba_d_state": 3, "mamba_dt_rank": 3,
    "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "torch_dtype": "float32",
}  # fmt: skip
"""No width is a multiple of 16 x anything: every matrix is padded."""

VARIANTS = {
    "differential": {},
    "plain, untied": {
        "differential_attention": False, "norm_type": "rmsnorm", "attention_bias": False,
        "tie_word_embeddings": False,
    },
    "biases": {"tie_word_embeddings": False, "lm_head_bias": True, "mamba_proj_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 16},
    "tied with a bias": {"lm_head_bias": True, "logits_multiplier": 0.5},
}  # fmt: skip


def _odd(**changes):
    return SambaYConfig.from_dict(ODD | changes)


def _random(seed=0, dtype=torch.float32, **changes):
    model = SambaY.random(_odd(**changes), seed=seed, dtype=dtype)
    with torch.no_grad():  # those that start at zero, or at one, must count too
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name or name.startswith("lm_head"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.embedding.weight.mul_(10)
    return model


def _plain(quantised):
    """A float model with the weights that the codes of a quantised one stand for."""
    values = {}
    for name, module in quantised.named_modules():
        if isinstance(module, QuantLinear | QuantEmbedding):
            values[f"{name}.weight"] = module.dequantised()
    values |= {name: value for name, value in quantised.state_dict().items() if not name.endswith(".packed")}
    with torch.device("meta"):
        model = SambaY(quantised.config)
    model.load_state_dict(values, assign=True)
    return model.eval()


@pytest.fixture(scope="session")
def random_model():
    """`random_model(seed=, dtype=, **config)`: odd sizes, nothing at its initial zero."""
    return _random


@pytest.fixture(scope="session")
def plain():
    return _plain


@pytest.fixture(scope="session")
def directories(tmp_path_factory):
    """`directories(variant, bits, group)` -> a quantised checkpoint of it."""
    made = {}

    def make(variant="differential", bits=4, group=32, **options):
        key = (variant, bits, group, *options.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("quant") / "model"
            quantize(_random(**VARIANTS[variant]), made[key], bits=bits, group=group, **options)
        return made[key]

    return make
