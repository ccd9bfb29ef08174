"""What the tests of the transformers classes share: tiny checkpoints with a tokenizer."""

import json

import pytest
import torch

from sambay.config import preset
from sambay.model import SambaY

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate([*specials, *letters])}, []))
    backend.pre_tokenizer, backend.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    backend.add_special_tokens(specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=specials[0], pad_token=specials[0], bos_token=specials[0],
        chat_template=TEMPLATE, padding_side="left",
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny():
    """The tiny model itself; not to be changed."""
    # Larger embeddings than the initialisation gives, so that greedy decoding does not repeat one token.
    model = SambaY.random(preset("tiny"), seed=3)
    with torch.no_grad():
        model.embedding.weight.mul_(20)
    return model.eval()


@pytest.fixture(scope="session")
def saved(tiny, tmp_path_factory):
    """A directory as the hub has it: our own save, a tokenizer, and remote code that must not be run."""
    directory = tmp_path_factory.mktemp("tiny")
    tiny.save_pretrained(directory)
    values = json.loads((directory / "config.json").read_text())
    values["auto_map"] = {
        "AutoConfig": "configuration_phi4flash.Phi4FlashConfig",
        "AutoModelForCausalLM": "modeling_phi4flash.Phi4FlashForCausalLM",
    }
    (directory / "config.json").write_text(json.dumps(values))
    for name in ("configuration_phi4flash.py", "modeling_phi4flash.py"):
        (directory / name).write_text("raise RuntimeError('remote code was run')\n")
    _tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def hf(saved):
    """A fresh transformers model of the tiny checkpoint, in evaluation mode."""
    from sambay.hf import Phi4FlashForCausalLM

    return Phi4FlashForCausalLM.from_pretrained(saved)
