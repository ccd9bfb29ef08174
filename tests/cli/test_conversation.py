"""What a chat remembers, and how it is written down."""

import json

import pytest

from sambay.cli.conversation import Conversation, Exchange


@pytest.fixture
def talk():
    return Conversation("be brief", [Exchange("1+1?", "2", "one and one"), Exchange("2+2?", "4"), Exchange("3+3?")])


def contents(messages):
    return [(message["role"], message["content"]) for message in messages]


def test_the_model_sees_answers_without_thinking(talk):
    assert contents(talk.messages()) == [
        ("system", "be brief"), ("user", "1+1?"), ("assistant", "2"), ("user", "2+2?"), ("assistant", "4"),
        ("user", "3+3?"),
    ]  # fmt: skip
    assert "one and one" not in str(talk.messages())
    talk.first = 1
    assert contents(talk.messages())[:2] == [("system", "be brief"), ("user", "2+2?")]
    assert contents(talk.messages(2)) == [("system", "be brief"), ("user", "3+3?")]


def test_undo_brings_back_what_can_be_seen(talk):
    talk.first = 2
    assert talk.undo().question == "3+3?"
    assert contents(talk.messages()) == [("system", "be brief"), ("user", "2+2?"), ("assistant", "4")]
    talk.undo()
    talk.undo()
    assert talk.undo() is None
    assert talk.first == 0


def test_clear_keeps_the_system_message(talk):
    talk.first = 1
    talk.clear()
    assert contents(talk.messages()) == [("system", "be brief")]


def test_a_json_file_has_all_turns_and_thinking(talk, tmp_path):
    talk.first = 2
    talk.save(tmp_path / "talk.JSON", "m")
    found = json.loads((tmp_path / "talk.JSON").read_text())
    assert found["model"] == "m"
    assert contents(found["messages"])[1:3] == [("user", "1+1?"), ("assistant", "2")]
    assert found["messages"][2]["reasoning"] == "one and one"
    assert "reasoning" not in found["messages"][4]


def test_any_other_file_is_markdown(talk, tmp_path):
    talk.save(tmp_path / "talk.md", "m")
    text = (tmp_path / "talk.md").read_text()
    assert text.startswith("# Chat with m\n\n## System\n\nbe brief\n\n## You\n\n1+1?\n\n## Model\n\n<details>")
    assert "one and one\n\n</details>\n\n2\n\n" in text
    assert text.endswith("## You\n\n3+3?\n\n## Model\n\n*(no answer)*\n")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.md"]
