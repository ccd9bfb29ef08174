"""The model that comes with the package, through the command line."""

import json

import pytest

from sambay.hub import bundled_model


def test_it_is_there_and_described(sambay):
    assert (bundled_model() / "model.safetensors").is_file()
    result = sambay("info", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["model"] == str(bundled_model())


def test_it_thinks_and_answers(sambay):
    result = sambay("generate", "-p", "What is 3 + 4?", "--temperature", "0", "--json")
    assert result.status == 0, result.err
    [output] = json.loads(result.out)["outputs"]
    assert output["finish_reason"] == "stop"
    assert output["reasoning"]
    assert "\\boxed{7}" in output["answer"]


def test_its_thinking_is_bounded_and_its_answer_held_to_a_pattern(sambay):
    pytest.importorskip("llguidance")
    options = ("-p", "What is 3 + 4?", "--temperature", "0", "--json")
    [free] = json.loads(sambay("generate", *options).out)["outputs"]
    [short] = json.loads(sambay("generate", *options, "--max-thinking-tokens", "3").out)["outputs"]
    assert short["finish_reason"] == "stop"
    assert 0 < short["reasoning_tokens"] <= 5 < free["reasoning_tokens"]
    assert "\\boxed{" in short["answer"]
    [held] = json.loads(sambay("generate", *options, "--regex", r"The sum is: \\boxed\{[0-9]+\}").out)["outputs"]
    assert held["reasoning"] == free["reasoning"]
    assert held["answer"] == r"The sum is: \boxed{7}"
    [direct] = json.loads(sambay("generate", *options, "--no-thinking").out)["outputs"]
    assert (direct["reasoning"], direct["finish_reason"]) == ("", "stop")


def test_it_chats(sambay):
    result = sambay("chat", "--hide-thinking", "--temperature", "0", stdin="What is 12 * 3?\nHello!\n")
    assert result.status == 0, result.err
    assert "\\boxed{36}" in result.out
    assert "<think>" not in result.out


def test_it_solves_some_problems(sambay):
    result = sambay("eval", "--problems", "20", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["total"]["accuracy"] > 0.5
