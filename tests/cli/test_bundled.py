"""The model that comes with the package, through the command line."""

import json

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


def test_it_chats(sambay):
    result = sambay("chat", "--hide-thinking", "--temperature", "0", stdin="What is 12 * 3?\nHello!\n")
    assert result.status == 0, result.err
    assert "\\boxed{36}" in result.out
    assert "<think>" not in result.out


def test_it_solves_some_problems(sambay):
    result = sambay("eval", "--problems", "20", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["total"]["accuracy"] > 0.5
