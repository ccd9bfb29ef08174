import copy
import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sambay.config import PRESETS, SambaYConfig, preset
from sambay.errors import CheckpointError, ConfigError, SambaYError
from sambay.hf import Phi4FlashConfig, Phi4FlashForCausalLM
from sambay.model import SambaY


def names(directory):
    return {n for f in directory.glob("*.safetensors") for n in safe_open(f, "pt").keys()}  # noqa: SIM118


def test_golden_logits_through_the_auto_class(golden_dir):
    model = AutoModelForCausalLM.from_pretrained(golden_dir)
    cases = np.load(golden_dir / "cases.npz")
    lengths = [name.split("_")[1] for name in cases if name.startswith("ids")]
    assert lengths
    for n in lengths:
        ids = torch.from_numpy(cases[f"ids_{n}"]).unsqueeze(0)
        for use_cache in (True, False):
            with torch.no_grad():
                out = model(ids, use_cache=use_cache)
            np.testing.assert_allclose(out.logits[0].numpy(), cases[f"logits_{n}"], atol=1e-4, rtol=0)
    greedy = json.loads((golden_dir / "greedy.json").read_text())
    prompt = torch.tensor([greedy["prompt"]])
    new = model.generate(prompt, max_new_tokens=len(greedy["greedy"]), do_sample=False, eos_token_id=None)
    assert new[0, prompt.shape[1] :].tolist() == greedy["greedy"]


def test_remote_code_named_by_the_checkpoint_is_not_run(saved):
    config = AutoConfig.from_pretrained(saved)
    assert type(config) is Phi4FlashConfig
    for trust in ({}, {"trust_remote_code": True}, {"trust_remote_code": False}):
        model = AutoModelForCausalLM.from_pretrained(saved, **trust)
        assert type(model) is Phi4FlashForCausalLM
    assert not hasattr(config, "auto_map")
    assert AutoTokenizer.from_pretrained(saved).padding_side == "left"


def test_loading_is_complete_and_exact(saved, tiny):
    model, info = AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert not model.training
    assert model.model.config == tiny.config
    for name, parameter in tiny.named_parameters():
        assert torch.equal(parameter, model.model.get_parameter(name)), name
    assert model.num_parameters() == tiny.config.num_parameters()
    assert model.get_memory_footprint() == 4 * tiny.config.num_parameters()


@pytest.mark.parametrize("shard", ["5GB", "200KB"])
@pytest.mark.parametrize("name", ["tiny", "tiny-plain"])
def test_what_transformers_saves_our_loader_reads_and_back(name, shard, tmp_path):
    source = SambaY.random(preset(name), seed=1)
    if source.lm_head.weight is not None:
        torch.nn.init.normal_(source.lm_head.weight)
    source.save_pretrained(tmp_path / "ours")
    model = Phi4FlashForCausalLM.from_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs", max_shard_size=shard)
    assert names(tmp_path / "theirs") == names(tmp_path / "ours")
    assert (len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1) == (shard == "200KB")
    again = SambaY.from_pretrained(tmp_path / "theirs")
    assert again.config == source.config
    for key, value in source.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    ids = torch.arange(12).view(1, -1)
    third, info = Phi4FlashForCausalLM.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(third(ids, use_cache=False).logits, source(ids))


def test_our_shards(tiny, tmp_path):
    tiny.save_pretrained(tmp_path, max_shard_bytes=200_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = Phi4FlashForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(12).view(1, -1)
    assert torch.equal(model(ids, use_cache=False).logits, tiny(ids))


def test_a_model_made_from_its_configuration_saves_names_of_the_disk_too(tmp_path, saved):
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(saved))
    model.save_pretrained(tmp_path)
    assert names(tmp_path) == names(saved)
    assert 0.01 < model.model.embedding.weight.std() < 0.03  # SambaY's own initialisation, done once
    assert torch.equal(model.model.layers[0].mixer.D, torch.ones(128))


@pytest.mark.parametrize("kwargs", [{"dtype": torch.float16}, {"torch_dtype": torch.float16}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("place", [None, "auto", "cpu", {"": "cpu"}])
def test_dtypes_and_device_maps(saved, kwargs, place):
    wanted = torch.float16 if torch.float16 in kwargs.values() else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(saved, device_map=place, low_cpu_mem_usage=True, **kwargs)
    assert {p.dtype for p in model.parameters()} == {wanted}
    assert model.dtype is wanted
    assert {p.device.type for p in model.parameters()} == {model.device.type}
    logits = model(torch.tensor([[1, 2, 3]], device=model.device)).logits
    assert logits.dtype is wanted
    assert logits.isfinite().all()


def test_a_split_model_is_refused(saved, tmp_path):
    split = {
        "model.embedding": "cpu",
        "model.layers": "disk",
        "model.final_norm": "cpu",
        "model.lm_head": "cpu",
    }
    with pytest.raises(SambaYError, match="one device"):
        AutoModelForCausalLM.from_pretrained(saved, device_map=split, offload_folder=tmp_path)


def test_missing_tensors_are_an_error_that_names_them(saved, tmp_path):
    weights = load_file(saved / "model.safetensors")
    del weights["model.layers.3.attn.inner_cross_attn.subln.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    with pytest.raises(
        CheckpointError, match=r"lacks tensors, 1 of them: model\.layers\.3\.attn\.inner_cross_attn\.subln"
    ):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_surplus_tensors_are_an_error_that_names_them(saved, tmp_path):
    weights = load_file(saved / "model.safetensors") | {"model.layers.0.attn.extra": torch.zeros(2)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"surplus tensors, 1 of them: model\.layers\.0\.attn\.extra"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_file_may_repeat_the_tied_embedding_as_the_head(saved, tmp_path, tiny):
    weights = load_file(saved / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    ids = torch.arange(12).view(1, -1)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(ids, use_cache=False).logits, tiny(ids))
    weights["lm_head.weight"][3, 4] += 1
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"differs from the embedding .* set tie_word_embeddings to false"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_wrapping_shares_the_weights(tiny):
    model = Phi4FlashForCausalLM.from_sambay(tiny)
    before = tiny.embedding.weight.clone()
    assert model.model is tiny
    assert torch.equal(tiny.embedding.weight, before)
    assert model.config.to_sambay() == tiny.config


@pytest.mark.parametrize("name", list(PRESETS))
def test_configurations_convert_both_ways(name, tmp_path):
    config = PRESETS[name]
    theirs = Phi4FlashConfig.from_sambay(config)
    assert theirs.to_sambay() == config
    assert copy.deepcopy(theirs).to_sambay() == config
    theirs.save_pretrained(tmp_path)
    assert SambaYConfig.from_json(tmp_path / "config.json") == config
    assert AutoConfig.from_pretrained(tmp_path).to_sambay() == config
    assert theirs.vocab_size == config.vocab_size
    assert theirs.num_hidden_layers == config.num_hidden_layers


def test_configuration_by_keywords():
    assert Phi4FlashConfig().to_sambay() == SambaYConfig(torch_dtype="float32")
    small = Phi4FlashConfig(vocab_size=100, hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    assert (small.bos_token_id, small.eos_token_id, small.pad_token_id) == (None, None, None)
    assert small.mamba_dt_rank == 4
    assert Phi4FlashConfig(eos_token_id=[5, 6]).to_sambay().eos_token_ids == (5, 6)
    assert Phi4FlashConfig(attention_dropout=0.5).attention_dropout == 0.5
    with pytest.raises(ConfigError, match="num_hidden_layers is 6"):
        Phi4FlashConfig(num_hidden_layers=6)
    small.sliding_window = 0
    with pytest.raises(ConfigError, match="sliding_window is 0"):
        Phi4FlashForCausalLM(small)


@pytest.mark.parametrize("name", ["tiny", "tiny-plain"])
@pytest.mark.parametrize("size", [520, 500])
def test_resizing_the_vocabulary(name, size, tmp_path):
    model = Phi4FlashForCausalLM(Phi4FlashConfig.from_sambay(preset(name))).eval()
    if model.model.lm_head.weight is not None:
        torch.nn.init.normal_(model.model.lm_head.weight)
    ids = torch.arange(8).view(1, -1)
    before = model(ids).logits
    assert model.resize_token_embeddings(size) is model.get_input_embeddings()
    assert model.get_output_embeddings().weight.shape == (size, 64)
    assert model.config.vocab_size == model.model.config.vocab_size == size
    after = model(ids).logits
    assert after.shape[-1] == size
    common = min(size, 512)
    torch.testing.assert_close(after[..., :common], before[..., :common], atol=1e-5, rtol=1e-4)
    model.save_pretrained(tmp_path)
    assert torch.equal(SambaY.from_pretrained(tmp_path)(ids), model(ids, use_cache=False).logits)


def test_getting_and_setting_embeddings():
    tied = Phi4FlashForCausalLM(Phi4FlashConfig.from_sambay(preset("tiny")))
    assert tied.get_input_embeddings() is tied.get_output_embeddings() is tied.model.embedding
    other = torch.nn.Embedding(512, 64)
    with pytest.raises(SambaYError, match="tied"):
        tied.set_output_embeddings(other)
    tied.set_input_embeddings(other)
    assert tied.model.embedding is other
    untied = Phi4FlashForCausalLM(Phi4FlashConfig.from_sambay(preset("tiny-plain")))
    assert untied.get_output_embeddings() is untied.model.lm_head
    untied.set_output_embeddings(other)
    assert untied.model.lm_head.weight is other.weight
