"""Batch files: every line gets one answer, whatever is wrong with it, and however often the run is broken off."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from sambay.engine import LLM
from sambay.errors import MissingExtraError, PromptError
from sambay.protocols.batch_file import Answers, read_ids, run_batch
from sambay.protocols.openai import CHAT, COMPLETIONS


def line(name, url=CHAT, method="POST", **body):
    if url == CHAT:
        body.setdefault("messages", [{"role": "user", "content": f"the cat {name}"}])
    return {"custom_id": name, "method": method, "url": url, "body": body}


def write(path, lines):
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines), encoding="utf-8")
    return path


def read(path):
    return [json.loads(one) for one in path.read_text(encoding="utf-8").splitlines()]


def run(llm, file, out, **options):
    with Answers(out) as answers:
        return run_batch(llm, file, answers, **{"most": 5, "model": "tiny"} | options)


@pytest.fixture
def files(tmp_path):
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


def settings(seed, **more):
    return {"seed": seed, "max_tokens": 3 + seed % 5, "temperature": 0.9, **more}


MIXED = [
    *[line(f"chat {i}", **settings(i)) for i in range(8)],
    line("two", n=2, **settings(3)),
    line("texts", COMPLETIONS, prompt=["the cat", "on 🙂"], n=2, **settings(4)),
    line("ids", COMPLETIONS, prompt=[[9, 10], [11]], **settings(5)),
    line("logprobs", logprobs=True, top_logprobs=2, **settings(6)),
]
BAD = [
    (line("method", method="GET"), 400, "method is 'GET': it must be POST"),
    (line("url", url="/v1/embeddings"), 400, "url is '/v1/embeddings'"),
    (line("value", temperature=-1), 400, "temperature is -1"),
    (line("field", temprature=1), 400, "'temprature'"),
    (line("role", messages=[{"role": "nobody", "content": "x"}]), 400, "role must be system, user or assistant"),
    (line("stream", stream=True), 400, "come whole"),
    (line("long", COMPLETIONS, prompt="the cat " * 5000), 400, "shorten the prompt"),
    (line("second", COMPLETIONS, prompt=[[5], [10**6]]), 400, "token id 1000000"),
    (line("nothing left", allowed_token_ids=[0], min_tokens=2), 400, "no token is left to choose"),
    ({"custom_id": "bare"}, 400, "method is None"),
    ({"custom_id": "no body", "method": "POST", "url": CHAT}, 400, "the body must be a JSON object"),
]


def check_idle(llm):
    assert not llm.engine.busy
    assert llm.engine.pool.free_slots == llm.engine.pool.slots


def test_each_line_gets_its_answer(llm, files):
    file, out = files
    lines = [*MIXED, *(one for one, _, _ in BAD)]
    random.Random(1).shuffle(lines)
    write(file, lines)
    seen = []
    report = run(llm, file, out, on_done=lambda now: seen.append(now.completed + now.failed))
    assert (report.total, report.completed, report.failed, report.already) == (len(lines), len(MIXED), len(BAD), 0)
    assert seen == [*range(1, len(lines) + 1)]
    answers = {one["custom_id"]: one for one in read(out)}
    assert set(answers) == set(read_ids(file)) == {one["custom_id"] for one in lines}
    assert len({one["id"] for one in answers.values()}) == len(lines)
    for one, status, message in BAD:
        response = answers[one["custom_id"]]["response"]
        assert response["status_code"] == status
        assert message in response["body"]["error"]["message"]
    completed = [answers[one["custom_id"]] for one in MIXED]
    usage = [one["response"]["body"]["usage"] for one in completed]
    assert report.completion_tokens == sum(one["completion_tokens"] for one in usage) > 0
    assert report.prompt_tokens == sum(one["prompt_tokens"] for one in usage)
    for one in completed:
        assert one.keys() == {"id", "custom_id", "response", "error"}
        assert one["error"] is None
        assert one["response"]["status_code"] == 200
    assert [len(one["response"]["body"]["choices"]) for one in completed] == [1] * 8 + [2, 4, 2, 1]
    check_idle(llm)


def contents(out):
    """What was answered, without names and times."""
    return {
        one["custom_id"]: [
            (choice.get("text", choice.get("message")), choice["finish_reason"])
            for choice in one["response"]["body"].get("choices", [])
        ]
        for one in read(out)
    }


@pytest.mark.parametrize("kept", [0, 1, 5, 12])
@pytest.mark.parametrize("torn", [0, 1, 30])
def test_a_run_goes_on_where_it_was(llm, files, kept, torn):
    """A line that is torn, wherever, is done again; the others are left as they are."""
    file, out = files
    write(file, MIXED)
    run(llm, file, out)
    whole, expected = out.read_bytes().splitlines(keepends=True), contents(out)
    out.write_bytes(b"".join(whole[:kept]) + (whole[kept][:torn] if kept < len(whole) else b""))
    report = run(llm, file, out)
    assert (report.already, report.completed) == (kept, len(MIXED) - kept)
    assert out.read_bytes().splitlines(keepends=True)[:kept] == whole[:kept]
    assert contents(out) == expected
    assert run(llm, file, out).completed == 0
    assert contents(out) == expected


def test_lines_that_were_added_are_done(llm, files):
    file, out = files
    write(file, MIXED[:3])
    run(llm, file, out)
    write(file, MIXED[:6])
    report = run(llm, file, out)
    assert (report.already, report.completed) == (3, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not ours\n", "choose another"),
        (b"not ours", "choose another"),
        (b'{"a": 1}\n', "choose another"),
        (b'{"id": "batch_req_1", "custom_id": "a", "response"\n{"id": "batch_req_2"}\n', "line 1 is no answer"),
        (b"\x00\xff\x00", "choose another"),
    ],
)
def test_another_file_is_not_touched(files, content, message):
    _, out = files
    out.write_bytes(content)
    with pytest.raises(PromptError, match=message):
        Answers(out)
    assert out.read_bytes() == content


def test_one_process_writes_at_a_time(files):
    pytest.importorskip("fcntl")
    _, out = files
    with Answers(out), pytest.raises(PromptError, match="is being written by another process"):
        Answers(out)
    with Answers(out):
        pass


def test_a_full_disk_leaves_whole_lines(files, monkeypatch):
    _, out = files
    with Answers(out) as answers:
        answers.write({"id": "batch_req_1", "custom_id": "a", "response": {}, "error": None})
        before = out.read_bytes()
        file = answers._file

        class Full:
            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, data):
                file.write(data[: len(data) // 2])
                raise OSError(28, "No space left on device")

        answers._file = Full()
        with pytest.raises(OSError, match="No space left"):
            answers.write({"id": "batch_req_2", "custom_id": "b", "response": {}, "error": None})
        assert out.read_bytes() == before
        assert answers.done == {"a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: give a request a line"),
        ("\n\n", "is empty"),
        ('{"custom_id": "a"}\n{"custom_id"\n', "line 2 is not JSON"),
        ("[1]\n", "line 1 is not a JSON object"),
        ('\n{"method": "POST"}\n', "line 2: custom_id is None"),
        ('{"custom_id": 5}\n', "line 1: custom_id is 5"),
        ('{"custom_id": "a"}\n\n{"custom_id": "a"}\n', "line 3: custom_id 'a' is that of line 1, too"),
        ("[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_a_file_that_is_none_is_refused_before_anything_is_run(files, content, message):
    file, _ = files
    file.write_text(content)
    with pytest.raises(PromptError) as caught:
        read_ids(file)
    assert message in str(caught.value)


def test_a_missing_extra_is_not_an_answer(llm, files, monkeypatch):
    """It can be installed, and the line be answered then."""
    file, out = files
    monkeypatch.setitem(sys.modules, "llguidance", None)
    write(file, [line("a", max_tokens=200, ignore_eos=True), line("b", response_format={"type": "json_object"})])
    with pytest.raises(MissingExtraError):
        run(llm, file, out)
    assert read(out) == []
    check_idle(llm)


def test_a_failed_step_loses_nothing_that_was_written(checkpoint, files, monkeypatch):
    llm = LLM(checkpoint, device="cpu", max_num_seqs=2)
    file, out = files
    write(file, MIXED)
    step, calls = llm.engine.step, iter(range(10**6))

    def failing():
        if next(calls) == 15:
            raise RuntimeError("a cosmic ray")
        return step()

    monkeypatch.setattr(llm.engine, "step", failing)
    with pytest.raises(RuntimeError, match="cosmic"):
        run(llm, file, out)
    monkeypatch.undo()
    check_idle(llm)
    before = len(read(out))
    assert 0 < before < len(MIXED)
    assert run(llm, file, out).completed == len(MIXED) - before
    assert set(contents(out)) == {one["custom_id"] for one in MIXED}


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with(checkpoint, files):
    """kill -9, three times, at whatever place."""
    file, out = files
    write(
        file, [line(str(i), seed=i, max_tokens=60, ignore_eos=True, logprobs=True, top_logprobs=20) for i in range(60)]
    )
    command = [sys.executable, "-m", "sambay", "batch", file, "-o", out, "--model", checkpoint, "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    before = b""
    for _ in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and (not out.exists() or out.stat().st_size < len(before) + 20_000):
            time.sleep(0.01)
        process.kill()
        process.communicate()
        now = out.read_bytes()
        whole = now[: now.rfind(b"\n") + 1]
        assert whole.startswith(before)
        before = whole
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    answers = read(out)
    assert report["already"] == before.count(b"\n")
    assert report["already"] + report["completed"] == 60
    assert sorted(int(one["custom_id"]) for one in answers) == [*range(60)]
    assert out.read_bytes().startswith(before)
    assert {one["response"]["status_code"] for one in answers} == {200}
