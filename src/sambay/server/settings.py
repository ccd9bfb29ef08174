"""How a server is run, apart from its models."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What a server allows, and how long it waits.

    Attributes:
        keys: API keys, one of which every request but those for pages and health must bring; none asks for none.
        origins: of pages of other servers that may call this one ("*" for all).
        hosts: names that a request may give as its `Host`, so that no page reaches this server under a name of its
            own; None takes any.
        max_body: bytes of a request's body at most.
        max_queue: sequences of a model that may wait beside those that run.
        rate_limit: requests of a key, or without keys of an address, in a minute; None sets no limit.
        head_timeout: seconds that a request's head may take to arrive.
        body_timeout: seconds that its body may take.
        write_timeout: seconds that a client may take none of what is written to it.
        ping: seconds of silence in a stream, after which a sign of life is sent.
        drain_timeout: seconds that running requests are given when the server is to end.
        log_prompts: whether prompts and answers are written to the log.
    """

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    max_body: int = 8 << 20
    max_queue: int = 256
    rate_limit: int | None = None
    head_timeout: float = 10.0
    body_timeout: float = 60.0
    write_timeout: float = 60.0
    ping: float = 15.0
    drain_timeout: float = 60.0
    log_prompts: bool = False
