"""A server driven from outside: what is sent, what is counted, and what fails."""

import collections
import threading
import time

import pytest

from sambay.bench.serve import Level, Load, Target, find_model, measure_serving
from sambay.errors import ConfigError
from standin import chunk, say, standing_in

SHORT = Load(prompt=[(3, 6)], generate=[(4, 4)], seed=5)


@pytest.fixture
def server():
    with standing_in() as server:
        yield server


def test_what_is_asked_and_counted(server):
    told = []
    [row] = measure_serving(Target(server.url), "first", SHORT, [Level(5, 2)], progress=lambda *done: told.append(done))
    assert told == [(done, 5) for done in range(1, 6)]
    assert server.most <= 2
    assert (row["concurrency"], row["rate"], row["requests"], row["errors"]) == (2, None, 5, {})
    assert (row["prompt_tokens"], row["cached_tokens"], row["tokens"], row["counted"]) == (50, 20, 35, True)
    assert row["tokens_per_second"] == pytest.approx(35 / row["seconds"])
    assert row["requests_per_second"] == pytest.approx(5 / row["seconds"])
    assert 0 < row["first_token"]["p50"] <= row["whole"]["p50"] <= row["whole"]["p99"] <= row["seconds"]
    assert row["inter_token"]["p99"] < row["whole"]["p99"]
    assert row["per_token"]["mean"] >= 0
    for body in server.bodies:
        assert (body["model"], body["max_tokens"], body["stream"]) == ("first", 4, True)
        assert body["stream_options"] == {"include_usage": True}
        assert "ignore_eos" not in body
        [message] = body["messages"]
        assert message["role"] == "user"
        assert 3 <= len(message["content"].split()) <= 6


def test_conversations_grow_and_share_their_beginning(server):
    load = Load(prompt=[(4, 4)], generate=[(2, 2), (9, 9)], turns=3, prefix=30, ignore_eos=True, seed=1)
    first, second = measure_serving(Target(f"{server.url}/v1/"), "m", load, [Level(2, 1), Level(2, 2)])
    assert first["requests"] == second["requests"] == 6
    assert all(body["ignore_eos"] for body in server.bodies)
    assert {body["max_tokens"] for body in server.bodies} == {2, 9}
    by_length = collections.Counter(len(body["messages"]) for body in server.bodies)
    assert by_length == {2: 4, 4: 4, 6: 4}
    last = next(body["messages"] for body in server.bodies if len(body["messages"]) == 6)
    assert [one["role"] for one in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert last[2]["content"] == "eins zwei drei"  # without the thinking
    prefixes = {body["messages"][0]["content"] for body in server.bodies}
    assert len(prefixes) == 2  # a level asks what none before has asked
    assert all(len(prefix.split()) == 30 for prefix in prefixes)
    asked = [body["messages"] for body in server.bodies]
    measure_serving(Target(server.url), "m", load, [Level(2, 1)])
    assert [body["messages"] for body in server.bodies[12:]] == asked[:6]  # the same seed


def test_a_rate_does_not_wait_for_answers(server):
    together, good = threading.Barrier(3), say("a")

    def behave(handler, body):
        together.wait(60)  # none is answered before three have asked
        good(handler, body)

    server.behave = behave
    [row] = measure_serving(Target(server.url), "m", SHORT, [Level(12, None, 200.0)])
    assert server.most > 2
    assert (row["requests"], row["concurrency"], row["rate"]) == (12, None, 200.0)
    server.behave, server.most = say("a", wait=0.3), 0
    measure_serving(Target(server.url), "m", SHORT, [Level(6, 2, 1000.0)])
    assert server.most <= 2


def refuse(handler, body):
    handler.answer(429, {"error": {"message": "too many\nat once"}})


def fail_in_the_stream(handler, body):
    handler.stream(chunk(content="a"), {"error": {"message": "out of memory"}})


def talk_nonsense(handler, body):
    handler.stream("nonsense")


def break_off(handler, body):
    handler.stream(chunk(content="a"))


def hang(handler, body):
    time.sleep(3)


def hang_up(handler, body):
    handler.connection.close()


@pytest.mark.parametrize(
    ("behave", "kind", "message"),
    [
        (refuse, "HTTP 429", "too many at once"),
        (fail_in_the_stream, "error in the stream", "out of memory"),
        (talk_nonsense, "no event of a chat", "nonsense"),
        (break_off, "stream ended early", None),
        (hang, "timeout", None),
        (hang_up, "connection", "Server disconnected without sending a response."),
    ],
)
def test_failures_are_counted(server, behave, kind, message):
    good = say("a")
    server.behave = lambda handler, body: (good if len(server.bodies) % 2 else behave)(handler, body)
    target = Target(server.url, timeout=1.5 if behave is hang else 60)
    [row] = measure_serving(target, "m", SHORT, [Level(4, 1)])
    assert row["errors"] == {kind: 2}
    assert row["failure"] == message
    assert (row["requests"], row["tokens"]) == (4, 14)
    server.behave = behave
    [row] = measure_serving(target, "m", SHORT, [Level(2, 2)])
    assert row["errors"] == {kind: 2}
    assert (row["tokens"], row["first_token"], row["whole"]) == (0, None, None)


def test_pieces_stand_for_tokens_where_no_one_counts(server):
    server.behave = say("a", "b", usage=False)
    [row] = measure_serving(Target(server.url), "m", SHORT, [Level(2, 1)])
    assert (row["tokens"], row["counted"], row["prompt_tokens"]) == (6, False, 0)


def test_the_model_is_found(server):
    assert find_model(Target(server.url)) == "first"
    assert find_model(Target(server.url, model="other", key="secret")) == "other"
    assert server.headers[-1]["Authorization"] == "Bearer secret"
    server.behave = refuse
    with pytest.raises(ConfigError, match=r"to 'first' \(HTTP 429: too many at once\)"):
        find_model(Target(server.url))
    server.models = []
    with pytest.raises(ConfigError, match="answers 200 and names no model: give --model"):
        find_model(Target(server.url))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "nonsense", "ftp://127.0.0.1", "http://[", "http://\u0130..", ""]
)
def test_no_server(url):
    with pytest.raises(ConfigError, match=r"does not answer \(|is no address of a server"):
        find_model(Target(url))


def test_nothing_to_measure(server):
    for levels, turns in (([], 1), ([Level(0, 1)], 1), ([Level(1, 1)], 0)):
        with pytest.raises(ConfigError, match="1 or more"):
            measure_serving(Target(server.url), "m", Load([(1, 1)], [(1, 1)], turns), levels)
