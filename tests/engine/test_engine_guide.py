"""The budget of thinking: when it is closed, with which tokens, and what the model then makes of it."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.engine import Engine, SamplingParams, StructuredOutputsParams
from sambay.engine.guide import Guide
from sambay.engine.spelling import Tags, bad_word_ids, ids_within
from sambay.errors import SamplingError
from sambay.streaming import ThinkingSplitter
from sambay.tokenizer import Tokenizer
from sambay.train.vocabulary import PHI_CHAT_TEMPLATE
from small_tokenizers import byte_level, sentencepiece_like, spelled_tags, words

CLOSING = "\n</think>\n"
TOKENIZERS = {"tokens": byte_level, "spelled": spelled_tags(), "sentencepiece": sentencepiece_like(signs="</>")}


def drain(engine):
    while engine.busy:
        engine.step()


def inside(tokenizer, text="the cat <think>\n"):
    return tokenizer.encode(text)


def unable_to_close(tokenizer):
    """A `logit_bias` that keeps a random model from closing its thinking itself; what is forced comes all the same."""
    return {tokenizer.vocabulary["</think>"]: -100.0}


def thinking_tokens(completion, tokenizer):
    """Tokens before those that close, by decoding every prefix."""
    for count in range(len(completion.token_ids)):
        if "</think>" in tokenizer.decode(completion.token_ids[: count + 1]):
            return count
    return len(completion.token_ids)


@pytest.mark.parametrize("budget", [0, 1, 7, 16, 40])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_spent_budget_closes_the_thinking(solo, tokenizer, budget, seed):
    ids = inside(tokenizer)
    params = {"seed": seed, "max_tokens": 60, "ignore_eos": True, "logit_bias": unable_to_close(tokenizer)}
    free = solo(ids, SamplingParams(**params)).outputs[0]
    one = solo(ids, SamplingParams(max_thinking_tokens=budget, **params)).outputs[0]
    assert free.reasoning == free.text.removeprefix("\n")
    assert free.reasoning_tokens == 60
    count = thinking_tokens(one, tokenizer)
    newline = not one.text.split("</think>")[0].endswith("\n\n") and count > 0
    own = one.token_ids[: count - newline]
    assert own == free.token_ids[: len(own)]
    assert budget - budget // 8 <= len(own) <= budget
    assert len(own) == budget or one.text.split("</think>")[0].endswith("\n")
    assert one.text[len(tokenizer.decode(own)) :].startswith(("</think>\n", CLOSING))
    assert one.answer == one.text.partition("</think>\n")[2]
    assert one.reasoning_tokens == count + 1
    assert len(one.token_ids) == 60


def test_an_answer_after_a_closing_is_that_of_a_prompt_with_it(solo, tokenizer):
    """What was forced is part of the state."""
    ids = inside(tokenizer)
    params = {"temperature": 0.0, "ignore_eos": True, "logit_bias": unable_to_close(tokenizer)}
    one = solo(ids, SamplingParams(max_thinking_tokens=9, max_tokens=40, **params)).outputs[0]
    begin = thinking_tokens(one, tokenizer) + 2
    assert tokenizer.decode(one.token_ids[:begin]).endswith("</think>\n")
    after = solo([*ids, *one.token_ids[:begin]], SamplingParams(max_tokens=40 - begin, **params)).outputs[0]
    assert one.token_ids[begin:] == after.token_ids


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"seed": 3, "repetition_penalty": 1.4}])
def test_forced_tokens_have_the_log_probabilities_of_the_model(solo, model, tokenizer, values):
    ids = inside(tokenizer)
    params = SamplingParams(max_thinking_tokens=6, max_tokens=20, logprobs=2, ignore_eos=True, **values)
    one = solo(ids, params).outputs[0]
    with torch.inference_mode():
        whole = torch.log_softmax(model(torch.tensor([*ids, *one.token_ids])).double(), -1)
    ranks = []
    for place, (token, entry) in enumerate(zip(one.token_ids, one.logprobs, strict=True)):
        row = whole[len(ids) + place - 1]
        assert entry[token].logprob == pytest.approx(float(row[token]), abs=1e-4)
        ranks.append(entry[token].rank)
        assert len(entry) >= 2
    assert max(ranks) > 20  # the model itself would hardly have closed it
    assert one.cumulative_logprob == pytest.approx(
        sum(entry[token].logprob for token, entry in zip(one.token_ids, one.logprobs, strict=True))
    )


def test_no_thinking_has_no_budget(solo, tokenizer):
    for ids in ([40, 9, 12], [9]):
        values = {"seed": 4, "max_tokens": 30, "ignore_eos": True}
        values["logit_bias"] = {tokenizer.token_id("<think>"): -100}
        free = solo(ids, SamplingParams(**values)).outputs[0]
        assert "<think>" not in free.text
        assert solo(ids, SamplingParams(max_thinking_tokens=0, **values)).outputs[0].token_ids == free.token_ids
        assert free.reasoning_tokens == 0


def test_forced_tokens_count_and_end_a_completion_like_others(solo, tokenizer):
    ids = inside(tokenizer)
    close = tokenizer.token_id("</think>")
    cut = solo(ids, SamplingParams(max_thinking_tokens=3, max_tokens=4, temperature=0.0)).outputs[0]
    assert (cut.finish_reason, len(cut.token_ids)) == ("length", 4)
    stop = SamplingParams(max_thinking_tokens=3, max_tokens=40, stop_token_ids=[close], seed=1, ignore_eos=True)
    assert solo(ids, stop).outputs[0].stop_reason == close
    stop = SamplingParams(max_thinking_tokens=3, max_tokens=40, stop=["</think>"], seed=1, ignore_eos=True)
    assert solo(ids, stop).outputs[0].stop_reason == "</think>"


# The guide by itself: tokens are dictated, and what it forces is taken.


def follow(tokenizer, dictated, *, budget, prompt=""):
    """The text that comes of dictated tokens under a budget, and how many of them were taken."""
    guide = Guide(Tags(tokenizer, tokenizer.vocab_size), budget, None, prompt)
    decoder, text, taken, script = tokenizer.stream(skip_special_tokens=False), "", 0, iter(dictated)
    while True:
        token = guide.forced()
        if token is None:
            token = next(script, None)
            taken += 1
            if token is None:
                return text + decoder.flush(), taken - 1
        new = decoder.push(token)
        guide.push(token, new)
        text += new


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_thinking_that_ends_in_time_is_left_alone(kind):
    tokenizer = TOKENIZERS[kind]
    text = "<think>\nso the end\n</think>\nthe answer"
    ids = tokenizer.encode(text)
    assert follow(tokenizer, ids, budget=200) == (text, len(ids))


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("budget", [0, 1, 5])
def test_each_tokenizer_spells_the_closing(kind, budget):
    tokenizer = TOKENIZERS[kind]
    text, taken = follow(tokenizer, tokenizer.encode("<think>" + "the story of the end " * 9), budget=budget)
    opening = tokenizer.encode("<think>")
    own = tokenizer.decode(tokenizer.encode("<think>" + "the story of the end " * 9)[: len(opening) + budget])
    assert text.startswith(f"{own}{CLOSING}")
    assert text.count("</think>") == 1
    assert taken == len(tokenizer.encode("<think>" + "the story of the end " * 9))


def test_the_end_of_a_line_closes_shortly_before_the_end():
    tokenizer = byte_level
    line, newline = tokenizer.encode("x" * 10), tokenizer.encode("\n")
    dictated = [*tokenizer.encode("<think>"), *newline, *line * 9, *newline, *line * 9]
    # 91 tokens of thinking and a newline: it closes there if the budget is from 92 to 104 (of which 13 are its eighth).
    for budget, where in ((91, 91), (92, 92), (104, 92), (105, 92), (107, 107), (120, 120)):
        text, _ = follow(tokenizer, dictated, budget=budget)
        before = text.partition("</think>")[0].removeprefix("<think>")
        assert len(before) == where + (where != 92), budget
        assert before.endswith("\n")
        assert "\n\n" not in before


def test_a_budget_is_of_the_one_thinking_that_counts():
    """After it has been closed, another tag is plain text, for the budget as for the split of the text."""
    tokenizer = byte_level
    text = "<think>\nso\n</think>\nthe <think> and the end of the story is the end"
    ids = tokenizer.encode(text)
    assert follow(tokenizer, ids, budget=5) == (text, len(ids))


@pytest.mark.parametrize("prompt", ["<think>", "<think>\n", "so <think>\n\n"])
def test_an_opened_prompt(prompt):
    tokenizer = byte_level
    closing = "</think>\n" if prompt.endswith("\n") else CLOSING
    assert follow(tokenizer, tokenizer.encode("the"), budget=0, prompt=prompt)[0] == f"{closing}the"
    text, _ = follow(tokenizer, tokenizer.encode("abcdef"), budget=3, prompt=prompt)
    assert text == f"abc{CLOSING}def"


@given(
    st.lists(st.sampled_from(["so", "\n", "<think>", "</think>", "</", "think", ">", "<", "ü", "🙂"]), max_size=30),
    st.integers(0, 12),
    st.sampled_from(sorted(TOKENIZERS)),
    st.booleans(),
)
@settings(max_examples=150)
def test_no_text_has_more_thinking_than_its_budget(pieces, budget, kind, opened):
    tokenizer = TOKENIZERS[kind]
    guide = Guide(Tags(tokenizer, tokenizer.vocab_size), budget, None, "<think>" if opened else "")
    decoder, splitter = tokenizer.stream(skip_special_tokens=False), ThinkingSplitter(started_open=opened)
    spent, script = 0, iter(tokenizer.encode("".join(pieces)))
    while True:
        forced = guide.forced()
        token = next(script, None) if forced is None else forced
        if token is None:
            break
        spent += splitter.thinking and forced is None
        text = decoder.push(token)
        guide.push(token, text)
        splitter.push(text)
    assert spent <= budget
    assert not (splitter.thinking and spent == budget)


# How tokenizers spell


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", ["\n", CLOSING, "</think>\n", "the end", " the"])
def test_tokens_within_a_text_read_as_that_text(kind, text):
    tokenizer = TOKENIZERS[kind]
    before = tokenizer.encode("the story")
    assert tokenizer.decode([*before, *ids_within(tokenizer, text)], skip_special_tokens=False) == f"the story{text}"


def test_a_tag_that_is_seen_too_late_is_refused():
    """Its signs are bytes there, and a run of bytes is text only when it has ended."""
    for tokenizer in TOKENIZERS.values():
        Tags(tokenizer, 400).check()
    with pytest.raises(SamplingError, match="the tokenizer spells </think> in bytes"):
        Tags(sentencepiece_like(), 400).check()


def test_what_a_tokenizer_cannot_spell_is_said():
    tokenizer = words(None)
    with pytest.raises(SamplingError, match=r"the tokenizer cannot spell '\\n': thinking cannot be closed with it"):
        ids_within(tokenizer, "\n")


def test_bad_words_are_spelled_with_and_without_a_space():
    tokenizer = byte_level
    found = bad_word_ids(tokenizer, ("the", "answer", "你好"))
    texts = {tokenizer.decode(list(ids)) for ids in found}
    assert {"the", "answer", "你好"} <= texts <= {"the", " the", "answer", " answer", "你好", " 你好"}
    assert any(text.startswith(" ") for text in texts)


def test_bad_words_do_not_come(solo, tokenizer):
    values = {"seed": 2, "max_tokens": 60, "ignore_eos": True}
    free = solo([9, 12], SamplingParams(**values)).outputs[0]
    spelled = {token: tokenizer.decode([token]) for token in free.token_ids}
    bad = [text for token, text in spelled.items() if tokenizer.encode(text) == [token] and text.strip()][:5]
    assert len(bad) == 5
    one = solo([9, 12], SamplingParams(bad_words=bad, **values)).outputs[0]
    assert not {token for token, text in spelled.items() if text in bad} & set(one.token_ids)
    pair = next(
        text
        for a, b in itertools.pairwise(free.token_ids)
        if tokenizer.encode(text := tokenizer.decode([a, b])) == [a, b] and text.strip()
    )
    a, b = tokenizer.encode(pair)
    one = solo([9, 12], SamplingParams(bad_words=[pair], **values)).outputs[0].token_ids
    assert (a, b) not in itertools.pairwise(one)
    assert a in one


# Thinking off


def chat_tokenizer(template):
    return Tokenizer(byte_level._backend, {}, template=template)


MESSAGES = [{"role": "user", "content": "What is <|end|> 3 + 4?"}]
PROMPT = "<|user|>What is <|end|> 3 + 4?<|end|><|assistant|>"


def test_a_template_that_knows_no_thinking_gets_an_empty_one():
    tokenizer = chat_tokenizer(PHI_CHAT_TEMPLATE)
    assert tokenizer.render_chat(MESSAGES) == PROMPT
    assert tokenizer.render_chat(MESSAGES, enable_thinking=True) == PROMPT
    assert tokenizer.render_chat(MESSAGES, enable_thinking=False) == f"{PROMPT}<think>\n\n</think>\n"
    assert tokenizer.render_chat(MESSAGES, enable_thinking=False, add_generation_prompt=False) == PROMPT.removesuffix(
        "<|assistant|>"
    )
    ids = tokenizer.encode_chat(MESSAGES, enable_thinking=False)
    empty = tokenizer.encode("<think>\n\n</think>\n")
    assert ids == [*tokenizer.encode_chat(MESSAGES), *empty]
    assert tokenizer.token_id("</think>") in empty


@pytest.mark.parametrize("end", ["<think>", "<think>\n", "<think>\n\n"])
def test_a_template_that_opens_the_thinking_gets_it_closed(end):
    tokenizer = chat_tokenizer(f"{{{{ messages[0].content }}}}<|assistant|>{end.replace(chr(10), '{{ chr }}')}")
    text = tokenizer.render_chat([{"role": "user", "content": "hi"}], enable_thinking=False, chr="\n")
    assert text == "hi<|assistant|><think>\n\n</think>\n"


def test_a_template_that_knows_of_it_decides():
    source = "{{ messages[0].content }}{{ '/no' if enable_thinking is defined and not enable_thinking }}"
    tokenizer = chat_tokenizer(source)
    assert tokenizer.render_chat([{"role": "user", "content": "hi"}], enable_thinking=False) == "hi/no"
    assert tokenizer.render_chat([{"role": "user", "content": "hi"}]) == "hi"


def test_the_front_door_switches_it_off(llm):
    messages, params = [{"role": "user", "content": "the cat"}], SamplingParams(seed=1, max_tokens=5)
    prompt = f"{llm.tokenizer.render_chat(messages)}<think>\n\n</think>\n"
    for output in (
        llm.chat(messages, params, enable_thinking=False)[0],
        llm.chat(messages, params, chat_template_kwargs={"enable_thinking": False})[0],
    ):
        assert output.prompt == prompt
        assert output.outputs[0].reasoning == ""
    with llm.stream(messages, params, enable_thinking=False) as events:
        assert events.output.prompt == prompt
    assert llm.chat(messages, params)[0].prompt == llm.tokenizer.render_chat(messages)


# What this model cannot do


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_thinking_tokens": 5}, "max_thinking_tokens needs a tokenizer, and this checkpoint has none"),
        ({"bad_words": ["no"]}, "bad_words need a tokenizer, and this checkpoint has none: use logit_bias"),
        ({"structured_outputs": StructuredOutputsParams(regex="a")}, "structured_outputs need a tokenizer"),
        ({"logit_bias": {320: 1}}, "logit_bias has 320: the vocabulary ends at 319"),
        ({"allowed_token_ids": [3, 999]}, "allowed_token_ids has 999: the vocabulary ends at 319"),
    ],
)
def test_what_needs_a_tokenizer_or_a_larger_vocabulary(model, assert_idle, values, message):
    engine = Engine(model, None, end_ids=frozenset(), max_model_len=64)
    with pytest.raises(SamplingError) as caught:
        engine.add(None, [9], SamplingParams(**values))
    assert message in str(caught.value)
    assert_idle(engine)


def test_rules_without_a_tokenizer(model):
    engine = Engine(model, None, end_ids=frozenset(), max_model_len=64)
    params = SamplingParams(allowed_token_ids=[7, 8], logit_bias={8: -100}, max_tokens=5)
    output = engine.add(None, [9], params)
    drain(engine)
    assert output.outputs[0].token_ids == [7] * 5


def test_nothing_left_ends_the_request_alone(make_engine, assert_idle):
    engine = make_engine()
    bad = engine.add(None, [9], SamplingParams(allowed_token_ids=[0], min_tokens=3, max_tokens=9, n=2))
    good = engine.add(None, [9], SamplingParams(max_tokens=4, ignore_eos=True))
    drain(engine)
    assert isinstance(bad.error, SamplingError)
    assert "no token is left to choose" in str(bad.error)
    assert {one.finish_reason for one in bad.outputs} == {"error"}
    assert len(good.outputs[0].token_ids) == 4
    assert_idle(engine)
