"""`sambay generate`: text, pipes, ids and JSON."""

import json
import re
import sys

import pytest

from sambay import LLM, SamplingParams
from sambay.ops import native


@pytest.fixture(scope="module")
def llm(checkpoint):
    return LLM(checkpoint)


def report(result):
    assert result.status == 0, result.err
    assert result.out.count("\n") == 1
    return json.loads(result.out)


def test_it_prints_what_the_library_says(sambay, checkpoint, llm):
    params = SamplingParams(temperature=0, max_tokens=12)
    wanted = llm.chat([{"role": "user", "content": "What is 3 + 4?"}], params)[0].outputs[0].text
    options = ("--temperature", "0", "--max-tokens", "12")
    assert sambay("generate", checkpoint, "-p", "What is 3 + 4?", *options) == (0, wanted + "\n", "")
    assert sambay("generate", checkpoint, *options, stdin="What is 3 + 4?\n") == (0, wanted + "\n", "")


def test_raw_is_the_prompt_as_it_is(sambay, checkpoint, llm):
    params = SamplingParams(temperature=0, max_tokens=12)
    options = ("--raw", "--temperature", "0", "--max-tokens", "12")
    for prompt in ("3 + 4", "3 + 4\n"):
        wanted = llm.generate(prompt, params)[0].outputs[0].text
        assert sambay("generate", checkpoint, *options, stdin=prompt).out.rstrip("\n") == wanted.rstrip("\n")


def test_json_has_everything(sambay, checkpoint, llm):
    options = ("--max-tokens", "6", "--seed", "3", "-n", "2", "--ignore-eos", "--top-k", "40", "--stop", "zzz")
    found = report(sambay("generate", checkpoint, "-p", "hi", "--json", "--logprobs", "2", *options, "--system", "be"))
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]
    params = SamplingParams(max_tokens=6, seed=3, n=2, ignore_eos=True, top_k=40, stop=["zzz"], logprobs=2)
    wanted = llm.chat(messages, params)[0]
    assert found["model"] == str(checkpoint)
    assert found["prompt"] == wanted.prompt
    assert found["prompt_token_ids"] == wanted.prompt_token_ids
    assert found["usage"] == {
        "prompt_tokens": len(wanted.prompt_token_ids),
        "completion_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert found["sampling"]["seed"] == 3
    assert found["sampling"]["stop"] == ["zzz"]
    assert set(found["timings"]) == {"prefill_s", "decode_tokens_per_s", "total_s", "draft_n", "draft_n_accepted"}
    assert found["timings"]["total_s"] >= found["timings"]["prefill_s"] > 0
    for one, other in zip(found["outputs"], wanted.outputs, strict=True):
        assert (one["index"], one["text"], one["token_ids"]) == (other.index, other.text, other.token_ids)
        assert (one["answer"], one["reasoning"]) == (other.answer, other.reasoning)
        assert one["finish_reason"] == "length"
        assert [{entry["token_id"] for entry in token} for token in one["logprobs"]] == [
            set(token) for token in other.logprobs
        ]


def test_the_seed_that_json_reports_gives_the_text_again(sambay, checkpoint):
    first = report(sambay("generate", checkpoint, "-p", "hi", "--json", "--max-tokens", "8"))
    seed = first["sampling"]["seed"]
    again = report(sambay("generate", checkpoint, "-p", "hi", "--json", "--max-tokens", "8", "--seed", seed))
    assert again["outputs"] == first["outputs"]
    other = report(sambay("generate", checkpoint, "-p", "hi", "--json", "--max-tokens", "8"))
    assert other["sampling"]["seed"] != seed


@pytest.mark.parametrize("ids", ["5 6 7", "5,6,7", " 5, 6,\n7 "])
def test_ids_need_no_tokenizer(sambay, wordless, ids):
    wanted = LLM(wordless).generate([[5, 6, 7]], SamplingParams(temperature=0, max_tokens=4))[0].outputs[0].token_ids
    options = ("--temperature", "0", "--max-tokens", "4")
    result = sambay("generate", wordless, "--ids", ids, *options)
    assert [int(word) for word in result.out.split()] == wanted
    found = report(sambay("generate", wordless, "--ids", ids, *options, "--json"))
    assert found["prompt_token_ids"] == [5, 6, 7]
    assert found["outputs"][0]["token_ids"] == wanted


def test_the_checkpoint_recommends_and_options_win(sambay, copy):
    (copy / "generation_config.json").write_text('{"temperature": 0.25, "top_k": 7}')
    found = report(sambay("generate", copy, "-p", "x", "--json", "--max-tokens", "1", "--top-k", "3"))
    assert (found["sampling"]["temperature"], found["sampling"]["top_k"]) == (0.25, 3)


def test_dtype_and_context(sambay, checkpoint):
    found = report(
        sambay("generate", checkpoint, "--ids", "1 2", "--json", "--dtype", "bfloat16", "--max-model-len", "5",
               "--threads", "1", "--ignore-eos")
    )  # fmt: skip
    assert found["usage"]["completion_tokens"] == 3


def test_several_completions_come_apart(sambay, checkpoint):
    result = sambay("generate", checkpoint, "-p", "x", "-n", "2", "--max-tokens", "3", "--seed", "1")
    assert result.out.startswith("--- 1 of 2 ---\n")
    assert "\n--- 2 of 2 ---\n" in result.out


def test_without_a_prompt_at_a_terminal(sambay, checkpoint, monkeypatch):
    from sambay.cli import generate

    class Keyboard:
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Keyboard())
    with pytest.raises(ValueError, match="there is no prompt: give one with -p"):
        generate._text_prompt(None, raw=False)


@pytest.mark.filterwarnings("default::sambay.errors.StateWarning")
def test_sessions_over_restarts(sambay, checkpoint, tmp_path):
    """What a run saved, the next one goes on from; what cannot be used is one sentence, and no failure."""
    state, ids = tmp_path / "states", " ".join(map(str, range(20, 90)))
    typed = ("generate", checkpoint, "--max-tokens", 3, "--ignore-eos", "--json", "--state-dir", state)
    first = json.loads(sambay(*typed, "--ids", ids).out)
    later = " ".join(map(str, [*first["prompt_token_ids"], *first["outputs"][0]["token_ids"], 9]))
    second = sambay(*typed, "--ids", later)
    assert second.err == ""
    assert json.loads(second.out)["usage"]["prompt_tokens_details"] == {"cached_tokens": 72}
    [path] = state.iterdir()
    path.write_bytes(b"x")
    third = sambay(*typed, "--ids", later)
    assert third.status == 0
    assert third.err == f"warning: {path} is no saved session: remove it\n"
    assert json.loads(third.out)["outputs"][0]["token_ids"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--memory", "lots", "memory 'lots' is no amount of memory"),
        ("--memory", "1kB", "a memory of 0.001 MB is too small: one sequence of 64 tokens takes"),
        ("--state-dir", __file__, "cannot be used"),
    ],
)
def test_bad_memories(sambay, checkpoint, option, value, message):
    result = sambay("generate", checkpoint, "--ids", "5", option, value)
    assert result.status == 1
    assert result.err.startswith("error: ")
    assert message in result.err
    assert result.err.count("\n") == 1


def test_thinking_is_bounded_and_left_out(sambay, checkpoint, llm):
    messages = [{"role": "user", "content": "What is 3 + 4?"}]
    options = ("--max-tokens", "9", "--seed", "3", "--json", "-p", "What is 3 + 4?")
    found = report(sambay("generate", checkpoint, *options, "--no-thinking", "--max-thinking-tokens", "2"))
    wanted = llm.chat(messages, SamplingParams(seed=3, max_tokens=9, max_thinking_tokens=2), enable_thinking=False)[0]
    assert found["prompt"] == wanted.prompt
    assert found["prompt"].endswith("<think>\n\n</think>\n")
    assert found["outputs"][0]["token_ids"] == wanted.outputs[0].token_ids
    assert found["outputs"][0]["reasoning_tokens"] == 0
    assert found["sampling"]["max_thinking_tokens"] == 2
    opened = ("--raw", "-p", "3 + 4<think>\n", "--max-thinking-tokens", "2", "--max-tokens", "9", "--ignore-eos")
    found = report(sambay("generate", checkpoint, "--json", *opened))
    assert "</think>\n" in found["outputs"][0]["text"]
    assert found["outputs"][0]["reasoning_tokens"] >= 3


def test_an_answer_by_a_pattern_or_a_schema(sambay, checkpoint, tmp_path):
    pytest.importorskip("llguidance")
    options = ("-p", "What is 3 + 4?", "--no-thinking", "--seed", "1")
    result = sambay("generate", checkpoint, *options, "--regex", "[0-9]{3}|no")
    assert re.fullmatch(r"([0-9]{3}|no)\n", result.out)
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], '
                    '"additionalProperties": false}')  # fmt: skip
    found = report(sambay("generate", checkpoint, *options, "--json", "--json-schema", path))
    assert json.loads(found["outputs"][0]["answer"])["a"] in (1, 2)
    assert json.loads(found["sampling"]["structured_outputs"]["json"])["required"] == ["a"]


@pytest.mark.skipif(not native.usable(), reason="only in the compiled kernels rows do not depend on each other")
def test_speculation_gives_the_same_text(sambay, checkpoint):
    options = ("--ids", "5,6,7,8,5,6,7,8,5,6", "--temperature", "0", "--max-tokens", "20", "--ignore-eos", "--json")
    found = {mode: report(sambay("generate", checkpoint, *options, "--speculation", mode)) for mode in ("off", "on")}
    assert found["off"]["outputs"] == found["on"]["outputs"]
    assert found["off"]["timings"]["draft_n"] == 0
    assert found["on"]["timings"]["draft_n"] >= found["on"]["timings"]["draft_n_accepted"]
    refused = sambay("generate", checkpoint, "-p", "hi", "--speculation", "fast")
    assert refused == (1, "", "error: speculation is 'fast': it must be one of off, on, auto\n")
