"""Requests that no server should fall over: malformed, hostile, slow, and gone before they are answered.

`requests(paths, seed)` yields them without an end, the same for the same seed. `send` sends one over a raw connection
and says what came back; a client library would not send most of them.
"""

import asyncio
import contextlib
import json
import random
import socket
import struct
from typing import NamedTuple

_TEXTS = [
    "", "a", "0", "\x00", "\ud800", "😀" * 50, "<think>", "</think>", "<|im_end|>", "{{ 7*7 }}", "{% for x in y %}",
    "../../etc/passwd", "' OR 1=1 --", "<script>alert(1)</script>", "%s%n", "a" * 100_000,
]  # fmt: skip
_NUMBERS = [0, -1, 1, 2, 1.5, -0.0, 1e308, -1e308, 1e-320, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30]
_RAW_NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "9" * 5000,
    "0." + "1" * 5000,
    "01",
    "+1",
    ".5",
    "0x10",
]
_FIELDS = [
    "model", "messages", "prompt", "input", "system", "instructions", "stream", "stream_options", "max_tokens", "n",
    "max_completion_tokens", "max_output_tokens", "temperature", "top_p", "top_k", "min_p", "stop", "stop_sequences",
    "logprobs", "top_logprobs", "logit_bias", "seed", "user", "tools", "tool_choice", "response_format", "format",
    "presence_penalty", "frequency_penalty", "repetition_penalty", "echo", "suffix", "best_of", "thinking", "think",
    "reasoning", "reasoning_effort", "max_thinking_tokens", "chat_template_kwargs", "structured_outputs", "options",
    "keep_alive", "raw", "template", "images", "context", "metadata", "store", "previous_response_id", "priority",
    "allowed_token_ids", "bad_words", "stop_token_ids", "min_tokens", "ignore_eos", "__proto__", "constructor",
]  # fmt: skip
_STRUCTURES = [
    {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}},
    {"type": "json_schema", "json_schema": {"schema": {"allOf": [{"$ref": "#/allOf/0"}]}}},
    {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "(a+)+$(?=b)"}}},
    {"type": "json_schema", "json_schema": {"schema": {"type": "array", "minItems": 10**9}}},
    {"type": "json_schema", "json_schema": {"schema": {"enum": []}}},
    {"type": "json_schema", "json_schema": {"schema": False}},
    {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://127.0.0.1:1/schema"}}},
    {"type": "json_schema"}, {"type": "xml"}, {"type": None}, {}, [], "json",
]  # fmt: skip
_GRAMMARS = [
    {"regex": "(a+)+$"}, {"regex": "a{1,1000000}"}, {"regex": "("}, {"regex": "(?<x>a)\\1"},
    {"regex": "[\x00-\U0010ffff]*"}, {"regex": "((a{0,99}){0,99}){0,99}"}, {"grammar": 'start: start "a"'},
    {"grammar": "start: b"}, {"grammar": ""}, {"grammar": "start: a\na: b\nb: a"}, {"choice": []},
    {"choice": ["a"] * 10_000}, {"choice": [""]}, {"json": "{"}, {"json": {"type": "object"}, "regex": "a"},
    {"nonsense": 1}, {},
]  # fmt: skip


class Hostile(NamedTuple):
    """One of them.

    Attributes:
        kind: for a person who looks for what went wrong.
        data: the bytes that are sent.
        manner: "whole": sent, and the answer read to its end; "gone": the connection is cut when all is sent, or at
            the first bytes of an answer; "slow": sent in crumbs, and then silence until the server ends it.
    """

    kind: str
    data: bytes
    manner: str = "whole"


class Answer(NamedTuple):
    """What came back: all status codes on the connection, and its bytes."""

    statuses: list[int]
    data: bytes


def requests(paths, seed):
    """Endless hostile requests.

    Args:
        paths: those that take a POST.
        seed: of the choice.
    """
    dice = random.Random(seed)
    kinds = [
        (_broken_json, 8), (_deep, 3), (_numbers, 8), (_junk_fields, 20), (_structures, 4), (_huge, 1), (_claims, 3),
        (_targets, 8), (_heads, 10), (_pipelines, 4), (_chunks, 8), (_no_http, 6), (_vanishing, 10), (_slow, 1),
        (_many, 5),
    ]  # fmt: skip
    makers, weights = zip(*kinds, strict=True)
    while True:
        [maker] = dice.choices(makers, weights)
        yield maker(dice, dice.choice(paths))


def post(path, body, *head, close=True):
    """A request with a body, given as bytes or as what is to be JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *head]
    lines += [f"Content-Length: {len(raw)}"] + ["Connection: close"] * close
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + raw


def get(path, *head, close=True):
    """A request without one."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *head] + ["Connection: close"] * close
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def _body(path):
    """What that path takes, small."""
    short: dict = {"max_tokens": 3, "temperature": 0}
    message = [{"role": "user", "content": "What is 3 + 4?"}]
    if path.startswith("/api/"):
        return {"messages": message, "prompt": "3 + 4 =", "options": {"num_predict": 3}}
    if path.endswith("/responses"):
        return {"input": "3 + 4", "max_output_tokens": 16}
    return short | (
        {"prompt": "3 + 4 ="} if path.endswith("/completions") and "chat" not in path else {"messages": message}
    )


def _broken_json(dice, path):
    raw = bytearray(json.dumps(_body(path)).encode())
    match dice.randrange(5):
        case 0:
            raw = raw[: dice.randrange(len(raw))]
        case 1:
            for _ in range(dice.randint(1, 5)):
                raw[dice.randrange(len(raw))] = dice.randrange(256)
        case 2:
            raw = raw.replace(
                b"What", dice.choice([b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80"])
            )
        case 3:
            raw = bytearray(
                dice.choice([b"", b"null", b"[]", b'"a"', b"1", b"\xef\xbb\xbf{}", b"{}{}", b"{'a': 1}", b"\x00"])
            )
        case _:
            raw = bytearray(dice.randbytes(dice.randint(1, 2000)))
    return Hostile("broken JSON", post(path, bytes(raw)))


def _deep(dice, path):
    depth = dice.choice([100, 10_000, 100_000])
    opening, closing = dice.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
    deep = opening * depth + dice.choice([b"1", b"", b'"\\']) + closing * dice.choice([depth, 0, depth // 2])
    if dice.random() < 0.5:
        deep = b'{"messages": ' + deep + b', "prompt": 1}'
    return Hostile("deep nesting", post(path, deep))


def _numbers(dice, path):
    body = _body(path)
    place = body.setdefault("options", {}) if path.startswith("/api/") and dice.random() < 0.7 else body
    name = dice.choice([name for name in _FIELDS if name not in ("model", "messages")])
    place[name] = "<here>"
    raw = json.dumps(body).replace('"<here>"', dice.choice([*_RAW_NUMBERS, *map(str, _NUMBERS)]))
    return Hostile(f"a number as {name}", post(path, raw.encode()))


def _junk(dice, depth=0):
    match dice.randrange(8 if depth < 3 else 5):
        case 0:
            return dice.choice(_TEXTS[:-1])
        case 1:
            return dice.choice(_NUMBERS)
        case 2:
            return dice.choice([None, True, False])
        case 3:
            return dice.choice([[], {}, [[]], [{}], [None], {"": ""}])
        case 4:
            return dice.choice(["user", "assistant", "tool", "text", "function", "required", "enabled", "json_object"])
        case 5:
            return [_junk(dice, depth + 1) for _ in range(dice.randint(1, 4))]
        case _:
            names = [
                "role",
                "content",
                "type",
                "text",
                "name",
                "function",
                "id",
                "arguments",
                "parameters",
                "image_url",
            ]
            return {
                dice.choice([*names, *_FIELDS, *_TEXTS[:5]]): _junk(dice, depth + 1) for _ in range(dice.randint(1, 4))
            }


def _junk_fields(dice, path):
    body = _body(path)
    for _ in range(dice.randint(1, 3)):
        match dice.randrange(4):
            case 0:
                body[dice.choice(list(body))] = _junk(dice)
            case 1 if isinstance(body.get("messages"), list):
                body["messages"].append(
                    {"role": dice.choice(["user", "assistant", "system", "tool"])} | {"content": _junk(dice)}
                )
            case 2:
                body.pop(dice.choice(list(body)))
                body["x"] = _junk(dice)
            case _:
                body[dice.choice(_FIELDS)] = _junk(dice)
    return Hostile("junk", post(path, body))


def _structures(dice, path):
    body = _body(path)
    if dice.random() < 0.5:
        body[dice.choice(["response_format", "format", "text"])] = dice.choice(_STRUCTURES)
    else:
        body["structured_outputs"] = dice.choice(_GRAMMARS)
    return Hostile("a structure", post(path, body))


def _huge(dice, path):
    body = _body(path)
    name = "prompt" if "prompt" in body else "input" if "input" in body else None
    text = dice.choice(["a ", "é", "7", "\\u0000", " " * 7]) * dice.choice([100_000, 1_000_000])
    if name is None:
        body["messages"][0]["content"] = text
    else:
        body[name] = text
    return Hostile("a huge body", post(path, body))


def _claims(dice, path):
    size = dice.choice(["9" * 30, "99999999999", "8388609", "-1", "1e3", "0x10", "", "3, 4", "+5", "5 5", "٣"])
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    return Hostile("a claimed length", head.encode() + b"{}", "gone")


def _targets(dice, path):
    target = dice.choice([
        "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd",
        "/static/../../pyproject.toml", "/static/%2e%2e/%2e%2e/app.py", "/page/..\\..\\app.py", "/static//etc/passwd",
        "/static/%00", "/static/C:%5Cwindows", "/tutor/../../app.py", "//", "/.", "/..", "/" + "a/" * 3000,
        "/" + "a" * 60_000, "/%", "/%zz", "/%ff%fe", "/\x7f", "http://example.com/", "*", "localhost:80", "?",
        "/?" + "a=1&" * 5000, "/v1/models/" + "../" * 50, "/v1/models/%00", "/v1/models/😀".encode().decode("latin-1"),
        "/openapi.json/..", "/;a=b", path + "/", path + "?stream=true", path,
    ])  # fmt: skip
    method = dice.choice(
        ["GET", "GET", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "G" * 1000, "É"]
    )
    data = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")
    return Hostile(f"{method[:9]} {target[:40]}", data)


def _heads(dice, path):
    raw = json.dumps(_body(path))
    head = dice.choice([
        ["Content-Length: 5"], ["Transfer-Encoding: chunked"], ["Transfer-Encoding: gzip, chunked"],
        ["Content-Encoding: gzip"], ["Transfer-Encoding: identity"], ["Transfer-Encoding:\tchunked"],
        ["Host: elsewhere.example"], ["Host: a", "Host: b"], [f"X-{i}: {i}" for i in range(2000)],
        ["X: " + "a" * 100_000], ["X" * 70_000 + ": a"], ["no colon"], [": no name"], ["X : a"], ["X: a\r\n folded"],
        ["X: \x00"], ["X: \x0b\x7f"], ["X: é"], ["Cookie: " + "a=b; " * 10_000], ["Expect: 100-continue"],
        ["Expect: nonsense"], ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"],
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"],
        ["Authorization: Bearer " + "k" * 5000], ["Authorization: Basic é"], ["X-Forwarded-For: 1.2.3.4"],
        ["Content-Type: text/plain"], ["Content-Type: application/json; charset=utf-16"],
        ["Content-Type: multipart/form-data"], ["Accept: \xff"], ["Range: bytes=0-"],
        ["X-Request-Id: a\tb" + "c" * 5000], ["Origin: null"], ["Origin: http://evil.example"], ["Host:"],
        ["Host: [::1"], ["Host: localhost:99999999"], ["Content-Length: 0"], ["X: a\nY: b"],
    ])  # fmt: skip
    return Hostile(f"a head with {head[0][:30]}", post(path, raw.encode(), *head))


def _pipelines(dice, path):
    few = [
        get("/health", close=False), get("/v1/models", close=False), get("/nothing", close=False),
        post(path, _body(path), close=False), post(path, b"{", close=False), b"GARBAGE\r\n\r\n", b"\r\n\r\n",
    ]  # fmt: skip
    data = b"".join(dice.choices(few, [6, 3, 3, 1, 2, 1, 1], k=dice.randint(2, 30)))
    return Hostile("a pipeline", data + get("/health"), dice.choice(["whole", "whole", "gone"]))


def _chunks(dice, path):
    raw = json.dumps(_body(path)).encode()
    body = dice.choice([
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(raw), raw), b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n0\r\n\r\n", b"\r\n" * 50,
        b"ffffffffffffffff\r\n{}", b"f" * 5000 + b"\r\n", b"2;" + b"x" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}0\r\n\r\n", b"".join(b"1\r\n%c\r\n" % byte for byte in raw) + b"0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"0\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n", b"1\r\n{\r\n",
        b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n", b"+2\r\n{}\r\n0\r\n\r\n", b"1\r\n \r\n" * 20_000,
    ])  # fmt: skip
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    whole = body.endswith(b"0\r\n\r\n")
    return Hostile("chunks", head.encode() + body, "whole" if whole else "gone")


def _no_http(dice, path):
    data = dice.choice([
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(500), dice.randbytes(dice.randint(1, 5000)),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + dice.randbytes(50), b"GET /\r\n\r\n", b"GET / HTTP/3.7\r\n\r\n",
        b"\n" * 10_000, b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\x00" * 3000,
        b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"*1\r\n$4\r\nPING\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n", b"GET / HTTP/1.1\nHost: localhost\n\n",
    ])  # fmt: skip
    return Hostile("no HTTP", data, "gone")


def _vanishing(dice, path):
    body = _body(path) | {"stream": dice.random() < 0.7, "max_tokens": 200}
    data = post(path, body)
    if dice.random() < 0.5:
        data = data[: dice.randrange(1, len(data))]
    return Hostile("vanishing", data, "gone")


def _slow(dice, path):
    data = post(path, _body(path))
    return Hostile("slow", data[: dice.randrange(1, len(data))], "slow")


def _many(dice, path):
    body = _body(path)
    match dice.randrange(7):
        case 0:
            body["stop"] = ["x" * i for i in range(1, 2000)]
        case 1:
            body["logit_bias"] = {str(i): dice.choice([1, -100, 1e300]) for i in range(20_000)}
        case 2:
            body["messages"] = [{"role": dice.choice(["user", "assistant"]), "content": "a"} for _ in range(20_000)]
        case 3:
            body["prompt"] = dice.choice(
                [[0] * 50_000, [-1], [10**9], [[1], [2]] * 2000, ["a"] * 5000, [[]], [], [1, "a"], [True]]
            )
        case 4:
            body["tools"] = [{"type": "function", "function": {"name": f"f{i}", "parameters": {}}} for i in range(5000)]
        case 5:
            body["n"] = dice.choice([10**9, 100_000, 5000])
        case _:
            body["bad_words"] = ["a" * i for i in range(1, 500)]
    return Hostile("many", post(path, body))


async def send(host, port, one):
    """Send a request as it wants to be sent; an `Answer` of all that came back."""
    reader, writer = await asyncio.open_connection(host, port)
    data = bytearray()
    try:
        if one.manner == "slow":
            for place in range(0, min(len(one.data), 200), 20):
                writer.write(one.data[place : place + 20])
                await writer.drain()
                await asyncio.sleep(0.05)
        else:
            writer.write(one.data)
            await writer.drain()
        while piece := await reader.read(1 << 16):
            data += piece
            if one.manner == "gone":
                break
            if len(data) > 1 << 24:
                raise AssertionError(f"{one.kind}: more than 16 MB came back")
    except OSError:
        pass
    finally:
        if one.manner == "gone":  # a reset, not a farewell
            with contextlib.suppress(OSError):  # it has gone already
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
    return Answer(_statuses(bytes(data)), bytes(data))


def _statuses(data):
    """The status of each answer on a connection: a status line stands at its begin, or after an end."""
    found = []
    for part in data.split(b"HTTP/1.1 ")[1:]:
        if part[:3].isdigit() and part[3:4] == b" ":
            found.append(int(part[:3]))
    return found
