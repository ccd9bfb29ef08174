import json

import pytest


def write(path, *bodies, url="/v1/chat/completions"):
    lines = [{"custom_id": str(i), "method": "POST", "url": url, "body": body} for i, body in enumerate(bodies)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


HELLO = {"messages": [{"role": "user", "content": "What is 3 + 4?"}], "max_tokens": 4}


@pytest.fixture
def files(tmp_path):
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


def test_a_file_is_answered_and_gone_on_with(sambay, checkpoint, files):
    file, out = files
    write(file, HELLO, HELLO | {"temperature": -1})
    result = sambay("batch", file, "-o", out, "--model", checkpoint)
    assert (result.status, result.out) == (0, "")
    assert "out.jsonl: 1 answered, 1 failed, 4 tokens" in result.err
    before = out.read_text()
    write(file, HELLO, HELLO | {"temperature": -1}, HELLO)
    result = sambay("batch", file, "-o", out, "--model", checkpoint, "--json", "--max-num-seqs", "2")
    report = json.loads(result.out)
    assert (report["total"], report["already"], report["completed"], report["failed"]) == (3, 2, 1, 0)
    assert report["output"] == str(out)
    assert report["completion_tokens"] == 4
    assert out.read_text().startswith(before)
    # Nothing is left to do: not even a model is loaded.
    result = sambay("batch", file, "-o", out, "--model", "/nonexistent", "--json")
    assert json.loads(result.out)["already"] == 3


def test_mistakes(sambay, checkpoint, wordless, files):
    file, out = files

    def check(message, *arguments):
        result = sambay("batch", *arguments)
        assert result.status in (1, 2)
        assert result.err.startswith("error: ")
        assert message in result.err
        assert result.err.count("\n") == 1

    check("No such file or directory", file, "-o", out)
    write(file, HELLO)
    check("'-o'", file)
    check("no such directory", file, "-o", "/nonexistent/out.jsonl")
    check("is the file of the requests: choose another output", file, "-o", file)
    check("so text cannot be read", file, "-o", out, "--model", wordless)
    file.write_text("{\n")
    check("line 1 is not JSON", file, "-o", out)
    write(file, HELLO)
    out.write_text("notes\n")
    check("choose another", file, "-o", out, "--model", checkpoint)
    out.write_text('{"id": "batch_req_1", "custom_id": "else", "response": {}, "error": null}\n')
    check("has an answer to 'else'", file, "-o", out, "--model", checkpoint)


def test_a_memory_that_is_too_small(sambay, checkpoint, files):
    file, out = files
    result = sambay("batch", write(file, HELLO), "-o", out, "--model", checkpoint, "--memory", "1kB")
    assert result.status == 1
    assert result.err.startswith("error: a memory of 0.001 MB is too small: one sequence of 64 tokens takes")
    assert not out.exists() or not out.read_text()
