import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")

from sambay.errors import PromptError, SambaYError
from sambay.hf import SambaYCache

PROMPTS = ([5, 9, 301, 17, 40, 41, 42], [7, 8, 9], [100] * 23)


def padded(side, prompts=PROMPTS):
    width = max(map(len, prompts))
    ids, mask = torch.full((len(prompts), width), 3), torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        place = slice(0, len(prompt)) if side == "right" else slice(width - len(prompt), width)
        ids[row, place], mask[row, place] = torch.tensor(prompt), 1
    return ids, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_padding_changes_nothing(hf, tiny, side, use_cache):
    ids, mask = padded(side)
    with torch.no_grad():
        out = hf(ids, attention_mask=mask, use_cache=use_cache)
        for row, prompt in enumerate(PROMPTS):
            real = mask[row].bool()
            want = tiny(torch.tensor([prompt]))[0]
            torch.testing.assert_close(out.logits[row][real], want, atol=1e-4, rtol=1e-4)
            assert not out.logits[row][~real].any()
    assert (out.past_key_values is not None) == use_cache


def test_what_is_in_the_padding_is_not_seen(hf):
    ids, mask = padded("left")
    other = torch.where(mask.bool(), ids, 77)
    assert torch.equal(hf(ids, attention_mask=mask).logits, hf(other, attention_mask=mask).logits)


def test_mask_with_a_hole(hf, tiny):
    ids = torch.tensor([[5, 6, 99, 99, 7, 8]])
    mask = torch.tensor([[1, 1, 0, 0, 1, 1]])
    got = hf(ids, attention_mask=mask, position_ids=torch.tensor([[0, 1, 0, 0, 2, 3]]), use_cache=False).logits
    torch.testing.assert_close(got[0, [0, 1, 4, 5]], tiny(torch.tensor([[5, 6, 7, 8]]))[0])


def packings():
    positions = torch.cat([torch.arange(len(p)) for p in PROMPTS]).unsqueeze(0)
    numbers = torch.cat([torch.full((len(p),), i) for i, p in enumerate(PROMPTS)]).unsqueeze(0)
    bounds = torch.tensor([0, *map(len, PROMPTS)]).cumsum(0)
    return {"position_ids": positions, "seq_idx": numbers, "cu_seq_lens_q": bounds.int()}


@pytest.mark.parametrize("how", ["position_ids", "seq_idx", "cu_seq_lens_q"])
def test_packed_documents_do_not_leak(hf, tiny, how):
    ids = torch.tensor([[token for prompt in PROMPTS for token in prompt]])
    hf.train()
    packed = hf(ids, labels=ids, **{how: packings()[how]})
    alone = [tiny(torch.tensor([p]))[0] for p in PROMPTS]
    torch.testing.assert_close(packed.logits[0], torch.cat(alone), atol=1e-4, rtol=1e-4)
    # The loss too: no document predicts the first token of the next one.
    terms = [F.cross_entropy(y[:-1], torch.tensor(p[1:]), reduction="sum") for y, p in zip(alone, PROMPTS, strict=True)]
    torch.testing.assert_close(packed.loss, sum(terms) / sum(len(p) - 1 for p in PROMPTS), atol=1e-5, rtol=1e-5)


def test_packed_documents_in_several_rows(hf, tiny):
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 3]])
    positions = torch.tensor([[0, 1, 0, 1, 2, 3], [0, 1, 2, 0, 1, 0]])
    mask = torch.tensor([[1] * 6, [1] * 5 + [0]])
    logits = hf(ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=3).logits
    assert logits.shape[:2] == (2, 3)
    torch.testing.assert_close(logits[0], tiny(ids[0, 2:].unsqueeze(0))[0, 1:])
    torch.testing.assert_close(logits[1, :2], tiny(ids[1, 3:5].unsqueeze(0))[0])
    assert not logits[1, 2].any()
    assert hf(ids, position_ids=positions).past_key_values is None
    with pytest.raises(PromptError, match="use_cache=False"):
        hf(ids, position_ids=positions, use_cache=True)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("keep", [0, 1, 4, 99, torch.tensor([2, 20]), torch.tensor([-1]), slice(None)])
def test_logits_to_keep(hf, side, use_cache, keep):
    if isinstance(keep, slice):
        keep = torch.arange(23)
    ids, mask = padded(side)
    full = hf(ids, attention_mask=mask, use_cache=False).logits
    got = hf(ids, attention_mask=mask, use_cache=use_cache, logits_to_keep=keep).logits
    want = full[:, keep] if isinstance(keep, torch.Tensor) else full[:, -keep:]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_the_last_logits_run_the_cross_decoder_for_the_last_tokens_only(hf):
    seen = {}
    for name in (3, 7):  # a layer of the self-decoder and one of the cross-decoder
        hf.model.layers[name].mlp.register_forward_hook(lambda m, i, o, name=name: seen.update({name: len(o)}))
    ids, mask = padded("left")
    hf(ids, attention_mask=mask, logits_to_keep=1)
    assert seen == {3: sum(map(len, PROMPTS)), 7: 3}


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_loss(hf, tiny, side):
    ids, mask = padded(side)
    labels = torch.where(mask.bool(), ids, -100)
    sums = [
        F.cross_entropy(tiny(torch.tensor([p]))[0, :-1], torch.tensor(p[1:]), reduction="sum").item() for p in PROMPTS
    ]
    count = sum(len(p) - 1 for p in PROMPTS)
    for given in (labels, ids):  # what the labels of padding say does not matter
        loss = hf(ids, attention_mask=mask, labels=given).loss
        assert loss.item() == pytest.approx(sum(sums) / count, rel=1e-5)
    assert loss.requires_grad
    assert hf(ids, attention_mask=mask, labels=labels).past_key_values is None
    scaled = hf(ids, attention_mask=mask, labels=labels, num_items_in_batch=torch.tensor(10)).loss
    assert scaled.item() == pytest.approx(sum(sums) / 10, rel=1e-5)
    shifted = F.pad(labels, (0, 1), value=-100)[:, 1:]
    shifted = torch.where(mask.bool(), shifted, -100)
    again = hf(ids, attention_mask=mask, shift_labels=shifted).loss
    assert again.item() == pytest.approx(loss.item(), rel=1e-6)


def test_the_loss_is_float32_whatever_the_weights(hf):
    hf.bfloat16()
    ids = torch.arange(6).view(1, -1)
    out = hf(ids, labels=ids)
    assert out.loss.dtype is torch.float32
    assert out.logits.dtype is torch.bfloat16


def test_a_loss_function_of_the_user(hf):
    hf.loss_function = lambda logits, labels, vocab_size, **kwargs: logits.sum() * 0 + kwargs["answer"]
    ids = torch.arange(6).view(1, -1)
    assert hf(ids, labels=ids, answer=42).loss.item() == 42


def test_a_conversation_continued_by_hand(hf, tiny):
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
    with torch.no_grad():
        first = hf(ids[:, :4])
        second = hf(ids[:, 4:], past_key_values=first.past_key_values)
        torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), tiny(ids), atol=1e-4, rtol=1e-4)
    assert second.past_key_values is first.past_key_values
    assert second.past_key_values.get_seq_length() == 7
    assert second.past_key_values.lengths == [7]
    as_tuple = hf(ids, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert len(as_tuple) == 2


def test_a_cache_gives_no_gradients_and_training_makes_none(hf):
    ids = torch.arange(6).view(1, -1)
    assert not hf(ids).logits.requires_grad
    assert hf(ids, use_cache=False).logits.requires_grad
    hf.train()
    out = hf(ids)
    assert out.past_key_values is None
    assert out.logits.requires_grad


def test_a_cache_made_in_inference_mode_lives_on(hf):
    ids = torch.arange(6).view(1, -1)
    with torch.inference_mode():
        cache = hf(ids).past_key_values
    hf(ids, past_key_values=cache)
    assert cache.get_seq_length() == 12


def test_rows_without_any_token(hf):
    ids, mask = padded("left")
    mask[1] = 0
    for use_cache in (True, False):
        out = hf(ids, attention_mask=mask, use_cache=use_cache)
        assert not out.logits[1].any()
        assert out.logits[0, -1].any()
    with pytest.raises(PromptError, match="zero everywhere"):
        hf(ids, attention_mask=mask * 0, use_cache=False)


@pytest.mark.parametrize("use_cache", [True, False])
def test_embeddings_in_place_of_tokens(hf, use_cache):
    ids, mask = padded("left")
    embeds = hf.get_input_embeddings()(ids).detach().requires_grad_()
    want = hf(ids, attention_mask=mask, use_cache=use_cache, logits_to_keep=4)
    got = hf(inputs_embeds=embeds, attention_mask=mask, use_cache=use_cache, logits_to_keep=4)
    assert torch.equal(got.logits, want.logits)
    if use_cache:
        assert got.past_key_values.lengths == [len(p) for p in PROMPTS]
    else:
        got.logits.square().sum().backward()
        assert bool((embeds.grad.abs().sum(-1) > 0).eq(mask.bool()).all())


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_hidden_states(hf, side, use_cache):
    ids, mask = padded(side)
    kwargs = {"attention_mask": mask, "use_cache": use_cache}
    plain = hf(ids, **kwargs)
    assert plain.hidden_states is None
    out = hf(ids, **kwargs, output_hidden_states=True)
    assert torch.equal(out.logits, plain.logits)
    assert [tuple(h.shape) for h in out.hidden_states] == [(*ids.shape, 64)] * (hf.config.num_hidden_layers + 1)
    real = mask.bool()
    assert torch.equal(out.hidden_states[0][real], hf.get_input_embeddings()(ids)[real])
    logits = hf.model.lm_head(out.hidden_states[-1], hf.model.embedding)
    torch.testing.assert_close(logits[real], plain.logits[real])
    assert not any(h[~real].any() for h in out.hidden_states)
    for keep in (3, torch.tensor([-1, 2])):
        some = hf(ids, **kwargs, output_hidden_states=True, logits_to_keep=keep)
        want = hf(ids, **kwargs, logits_to_keep=keep).logits
        torch.testing.assert_close(some.logits, want, atol=1e-4, rtol=1e-4)
        assert len(some.hidden_states) == len(out.hidden_states)


def test_clear_errors(hf):
    from transformers import DynamicCache

    ids = torch.arange(6).view(1, -1)
    cases = [
        (PromptError, "outside the vocabulary of 512", {"input_ids": ids + 510}),
        (PromptError, "outside the vocabulary", {"input_ids": ids - 1}),
        (PromptError, "missing", {}),
        (PromptError, "integers", {"input_ids": ids.float()}),
        (PromptError, "integers", {"input_ids": ids[:, :0]}),
        (PromptError, "integers", {"input_ids": ids[0]}),
        (
            PromptError,
            "attention_mask has shape",
            {"input_ids": ids, "attention_mask": torch.ones(1, 1, 6, 6)},
        ),
        (PromptError, "attention_mask has shape", {"input_ids": ids, "attention_mask": torch.ones(1, 5)}),
        (PromptError, "position_ids has shape", {"input_ids": ids, "position_ids": torch.ones(1, 5)}),
        (PromptError, "cu_seq_lens_q", {"input_ids": ids, "cu_seq_lens_q": torch.tensor([0, 5])}),
        (PromptError, "labels have shape", {"input_ids": ids, "labels": ids[:, 1:]}),
        (PromptError, "inputs_embeds", {"input_ids": ids, "inputs_embeds": torch.ones(1, 6, 64)}),
        (PromptError, r"\(1, 6, 65\).*64", {"inputs_embeds": torch.ones(1, 6, 65)}),
        (SambaYError, "DynamicCache", {"input_ids": ids, "past_key_values": DynamicCache()}),
        (SambaYError, "output_attentions", {"input_ids": ids, "output_attentions": True}),
    ]
    for kind, text, kwargs in cases:
        with pytest.raises(kind, match=text):
            hf(**kwargs)
    cache = SambaYCache(hf.config)
    hf(ids, past_key_values=cache)
    with pytest.raises(PromptError, match="2 rows but the cache holds 1"):
        hf(torch.cat([ids, ids]), past_key_values=cache)
    with pytest.raises(PromptError, match="longer than the model's context of 4096"):
        hf(torch.ones(1, 4096, dtype=torch.long), past_key_values=cache)
