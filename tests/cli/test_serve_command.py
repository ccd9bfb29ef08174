"""What `sambay serve` refuses before it loads anything, and what it says in its help."""

import socket

import pytest


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("SAMBAY_API_KEY", raising=False)


def test_help(sambay):
    found = sambay("serve", "--help")
    assert found.status == 0
    for word in ("--api-key-file", "--tls-cert", "sambay serve flash=./phi4-flash-4bit", "curl localhost:8000"):
        assert word in found.out


def test_names(sambay, checkpoint, tmp_path):
    found = sambay("serve", "--port", 0, f"a={checkpoint}", f"a={checkpoint}")
    assert (found.status, found.out) == (1, "")
    assert "two models are called 'a': give each a name of its own" in found.err
    found = sambay("serve", "--port", 0, f"a={tmp_path / 'missing'}")
    assert found.status == 1
    assert "missing" in found.err


def test_what_is_wrong_is_said_in_one_sentence(sambay, checkpoint, tmp_path):
    empty, binary, page = tmp_path / "empty", tmp_path / "binary", tmp_path / "page.pem"
    empty.write_text("# no key\n\n")
    binary.write_bytes(b"\xff\xfe")
    page.write_text("no certificate")
    for arguments, words in (
        (("--api-key-file", empty), "holds no API key"),
        (("--api-key-file", binary), "no text in UTF-8"),
        (("--api-key-file", tmp_path / "none"), "No such file"),
        (("--max-body", "much"), "--max-body 'much' is no amount of memory"),
        (("--memory", "much"), "memory 'much' is no amount of memory"),
        (("--tls-key", page), "add --tls-cert"),
        (("--host", "host.invalid"), "cannot be listened on"),
        (("--tls-cert", page, checkpoint), "cannot be used"),
        (("--tls-cert", tmp_path / "none", checkpoint), "cannot be used"),
    ):
        found = sambay("serve", "--port", 0, *arguments)
        assert found.status in (1, 2), arguments
        assert words in found.err
        assert len(found.err.strip().splitlines()) == 1


def test_a_port_that_is_taken(sambay):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = sambay("serve", "--port", taken.getsockname()[1])
    assert found.status == 1
    assert "cannot be listened on (Address already in use): choose another" in found.err


def test_names_and_hosts():
    from sambay.cli.serve import _hosts, _url

    assert _hosts("127.0.0.1", True, []) == ("localhost", "127.0.0.1", "::1", "127.0.0.1")
    assert _hosts("0.0.0.0", False, []) is None
    assert _hosts("0.0.0.0", False, ["Chat.example"])[-1] == "chat.example"
    assert _hosts("127.0.0.1", True, ["*"]) is None
    assert _url("::", 80, False) == "http://localhost:80/"
    assert _url("::1", 80, True) == "https://[::1]:80/"


def test_memory_is_shared_out(checkpoint):
    from sambay.server.models import share_memory

    assert share_memory("4GB", [checkpoint] * 2) == 2_000_000_000
    assert share_memory(None, [checkpoint]) is None
    assert 0 < share_memory(None, [checkpoint] * 4) <= share_memory(None, [checkpoint] * 2)
