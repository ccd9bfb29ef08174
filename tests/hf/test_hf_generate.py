import copy

import pytest
import torch

pytest.importorskip("transformers")

from test_hf_forward import PROMPTS, padded
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, TextIteratorStreamer, pipeline

from sambay.errors import ContextError, PromptError, SambaYError
from sambay.hf import SambaYCache
from sambay.state import StatePool

NEW = 20


@torch.no_grad()
def greedy(model, prompt, count=NEW):
    """The continuation by our own model, token by token over its state."""
    pool = StatePool(model.config)
    pool.open()
    out, ids = [], torch.tensor([prompt])
    for _ in range(count):
        out.append(int(model(ids, state=pool, logits="last").argmax()))
        ids = torch.tensor([[out[-1]]])
    return out


@pytest.fixture(scope="module")
def wanted(tiny):
    return [greedy(tiny, prompt) for prompt in PROMPTS]


def run(model, ids, mask=None, **kwargs):
    """Continuations without an end, so that all lengths are equal."""
    mask = torch.ones_like(ids) if mask is None else mask
    kwargs = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0} | kwargs
    return model.generate(input_ids=ids, attention_mask=mask, **kwargs)


@pytest.mark.parametrize(
    "kwargs", [{}, {"use_cache": False}, {"prefill_chunk_size": 5}, {"cache_implementation": "dynamic"}]
)
def test_greedy_of_left_padded_prompts_is_our_own(hf, wanted, kwargs):
    ids, mask = padded("left")
    assert run(hf, ids, mask, **kwargs)[:, ids.shape[1] :].tolist() == wanted
    assert len({tuple(tokens) for tokens in wanted}) == len(wanted)  # else the test shows nothing


def test_one_prompt_without_mask(hf, wanted):
    ids = torch.tensor([PROMPTS[0]])
    out = hf.generate(ids, max_new_tokens=NEW, eos_token_id=None, do_sample=False)
    assert out[0, ids.shape[1] :].tolist() == wanted[0]


@pytest.mark.parametrize("beams", [2, 3])
def test_beam_search_with_the_cache_is_beam_search_without(hf, beams):
    ids, mask = padded("left")
    kwargs = {"num_beams": beams, "num_return_sequences": 2, "max_new_tokens": 8, "output_scores": True}
    kwargs["return_dict_in_generate"] = True
    cached = run(hf, ids, mask, **kwargs)
    plain = run(hf, ids, mask, use_cache=False, **kwargs)
    assert torch.equal(cached.sequences, plain.sequences)
    torch.testing.assert_close(cached.sequences_scores, plain.sequences_scores, atol=1e-4, rtol=1e-4)


def test_sampling_and_several_sequences(hf):
    ids, mask = padded("left")
    kwargs = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "num_return_sequences": 3}
    outs = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        outs.append(run(hf, ids, mask, use_cache=use_cache, **kwargs))
    assert outs[0].shape == (9, ids.shape[1] + NEW)
    assert torch.equal(*outs)
    assert len({tuple(row.tolist()) for row in outs[0]}) > 3


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@pytest.mark.parametrize("use_cache", [True, False])
def test_autocast(hf, use_cache):
    ids, mask = padded("left")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(hf, ids, mask, use_cache=use_cache)
        loss = hf(ids, attention_mask=mask, labels=ids).loss
    loss.backward()
    assert out.shape == (3, ids.shape[1] + NEW)
    assert all(p.grad.isfinite().all() for p in hf.parameters())


def test_ends(hf, wanted):
    ids = torch.tensor([PROMPTS[0]])
    first = next(i for i, token in enumerate(wanted[0]) if token in wanted[0][5:7])
    out = run(hf, ids, eos_token_id=wanted[0][5:7])
    assert out[0, ids.shape[1] :].tolist() == wanted[0][: first + 1]
    config = GenerationConfig(max_new_tokens=3, eos_token_id=None, pad_token_id=0)
    assert hf.generate(ids, generation_config=config).shape[1] == ids.shape[1] + 3


def test_generation_config_is_read_and_saved(hf, saved, tmp_path):
    assert hf.generation_config.eos_token_id == 0  # from config.json, since there is no generation_config.json
    hf.generation_config.update(temperature=0.6, top_p=0.95, do_sample=True, eos_token_id=[0, 4])
    hf.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    assert (again.temperature, again.do_sample, again.eos_token_id) == (0.6, True, [0, 4])


def test_a_cache_can_be_continued(hf, wanted):
    ids = torch.tensor([PROMPTS[2]])
    first = run(hf, ids, max_new_tokens=8, return_dict_in_generate=True)
    assert first.past_key_values.get_seq_length() == ids.shape[1] + 7
    rest = run(hf, first.sequences, past_key_values=first.past_key_values, max_new_tokens=NEW - 8)
    assert rest[0, ids.shape[1] :].tolist() == wanted[2]


def test_a_cached_prefix_can_be_used_many_times(hf, wanted):
    prefix = SambaYCache(hf.config)
    hf(torch.tensor([PROMPTS[0][:5]]), past_key_values=prefix, logits_to_keep=1)
    ids = torch.tensor([PROMPTS[0]])
    for _ in range(2):
        out = run(hf, ids, past_key_values=copy.deepcopy(prefix))
        assert out[0, ids.shape[1] :].tolist() == wanted[0]
    assert prefix.lengths == [5]


def test_rows_can_be_copied_dropped_and_reset(hf, wanted):
    ids, mask = padded("left")
    cache = SambaYCache(hf.config)
    assert (cache.batch_size, cache.is_initialized, cache.lengths) == (-1, False, [])
    cache.batch_repeat_interleave(2)  # nothing to repeat yet
    hf(ids, attention_mask=mask, past_key_values=cache)
    assert cache.lengths == [7, 3, 23]
    cache.batch_repeat_interleave(2)
    assert cache.lengths == [7, 7, 3, 3, 23, 23]
    cache.batch_select_indices(torch.tensor([4, 1, 2]))
    assert cache.lengths == [23, 7, 3]
    cache.reorder_cache(torch.tensor([2, 2, 0]))
    assert cache.lengths == [3, 3, 23]
    assert cache.batch_size == 3
    step = hf(torch.tensor([[wanted[1][0]], [wanted[1][0]], [wanted[2][0]]]), past_key_values=cache)
    assert step.logits[:, -1].argmax(-1).tolist() == [wanted[1][1], wanted[1][1], wanted[2][1]]
    assert (cache.is_compileable, cache.is_croppable, cache.has_previous_state()) == (False, False, True)
    cache.crop(0)
    cache.reset()
    assert (cache.get_seq_length(), cache.lengths) == (0, [0, 0, 0])


def test_generation_from_embeddings(hf, wanted):
    ids, mask = padded("left")
    embeds = hf.get_input_embeddings()(ids)
    kwargs = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    out = hf.generate(
        inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True, return_dict_in_generate=True, **kwargs
    )
    assert out.sequences.tolist() == wanted
    layers = hf.config.num_hidden_layers + 1
    assert [len(step) for step in out.hidden_states] == [layers] * NEW
    assert [step[-1].shape[1] for step in out.hidden_states] == [ids.shape[1]] + [1] * (NEW - 1)


def test_what_cannot_be_done_says_so(hf):
    ids, mask = padded("right")
    with pytest.raises(PromptError, match="padding_side = 'left'"):
        run(hf, ids, mask)
    one = torch.tensor([PROMPTS[0]])
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        run(hf, one, prompt_lookup_num_tokens=2)
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        run(hf, one, assistant_model=hf)
    with pytest.raises(SambaYError, match="cache_implementation='static'"):
        run(hf, one, cache_implementation="static")
    with pytest.raises(SambaYError, match="own engine"):
        run(hf, one, cache_implementation="paged")
    cache = SambaYCache(hf.config)
    for forbidden in (lambda: cache.crop(-1), cache.activate_past_recording):
        with pytest.raises(SambaYError, match="cannot be cropped"):
            forbidden()
    with pytest.raises(SambaYError, match="belongs to"):
        cache.update(None, None, 0)
    with pytest.raises(ContextError, match="4096"):
        run(hf, torch.ones(1, 4095, dtype=torch.long), max_new_tokens=8)


def test_the_usual_snippet(saved):
    tokenizer = AutoTokenizer.from_pretrained(saved)
    model = AutoModelForCausalLM.from_pretrained(saved, torch_dtype=torch.float16, device_map="auto")
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 3 + 4?"}],
        add_generation_prompt=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    outputs = model.generate(**inputs.to(model.device), max_new_tokens=16, temperature=0.6, top_p=0.95, do_sample=True)
    new = outputs[:, inputs["input_ids"].shape[-1] :]
    assert 1 <= new.shape[1] <= 16
    assert isinstance(tokenizer.batch_decode(new)[0], str)


def test_streaming(hf, saved):
    tokenizer = AutoTokenizer.from_pretrained(saved)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    inputs = tokenizer("hello", return_tensors="pt")
    out = hf.generate(**inputs, max_new_tokens=8, do_sample=False, streamer=streamer, eos_token_id=None)
    assert "".join(streamer) == tokenizer.decode(out[0, inputs["input_ids"].shape[1] :])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_pipeline(hf, saved, batch_size):
    tokenizer = AutoTokenizer.from_pretrained(saved)
    generator = pipeline("text-generation", model=hf, tokenizer=tokenizer)
    out = generator(["one", "and another"], max_new_tokens=5, batch_size=batch_size, do_sample=False)
    assert [entry[0]["generated_text"][:3] for entry in out] == ["one", "and"]
    chat = generator([{"role": "user", "content": "hi"}], max_new_tokens=5)
    assert chat[0]["generated_text"][-1]["role"] == "assistant"
    assert type(pipeline("text-generation", model=str(saved)).model) is type(hf)
