"""A peer beside us: opening it, what fits, and taking turns with it, so that a busy machine slows both.

It is reported at the better of its settings: each is measured, in turns with us, and the one that leaves the smaller
ratio of ours to its tokens a second is kept.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sambay.bench.peer_llama import LlamaCaches, LlamaModel, cache_bytes, load_library
from sambay.bench.peer_model import PHI4_MINI, PeerShape, locate_peer
from sambay.bench.record import Spread
from sambay.errors import ConfigError
from sambay.quant.resident import free_memory

__all__ = ["FLASH", "PEERS", "Peer", "PeerTraffic", "Turns", "check_peer", "open_peer", "peer_traffic", "take_turns"]

PEERS: dict[str, PeerShape] = {"llama.cpp": PHI4_MINI}
"""Who can be measured beside us, with the shape of its model."""


FLASH: dict[str, tuple[bool, ...]] = {"better": (False, True), "on": (True,), "off": (False,)}
"""Settings of the peer that are measured: attention in one pass, or not."""


@dataclass(frozen=True)
class PeerTraffic:
    """Bytes that go through memory in one step of the peer.

    Attributes:
        weights: read, each once; the head is the embedding.
        cache: keys and values of all layers, read, and the new ones written.
    """

    weights: float
    cache: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.cache

    def to_dict(self) -> dict[str, float]:
        """The numbers as plain data."""
        return {"weights": self.weights, "cache": self.cache, "total": self.total}


def peer_traffic(shape: PeerShape, sequences: int, depth: int, tokens: int) -> PeerTraffic:
    """Bytes of a step, the mean of so many from a depth on."""
    seen = depth + (tokens + 1) / 2
    return PeerTraffic(shape.nbytes, sequences * (seen + 1) * shape.token_bytes)


@dataclass(frozen=True)
class Turns:
    """Seconds of both in the same rounds, at one setting of the peer.

    Attributes:
        flash: the setting.
        probes: what was measured before each round.
        ours: seconds.
        theirs: seconds.
        work: what we do in ours over what the peer does in theirs.
        others: the same at settings that are not the better one.
        together: whether the rounds were taken in turns; if both do not fit into the memory, one came after the other.
    """

    flash: bool
    probes: tuple[float, ...]
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    work: float = 1.0
    others: tuple[Turns, ...] = ()
    together: bool = True

    @property
    def ratio(self) -> float:
        """Our rate over the peer's, the median of the rounds."""
        return self.work * statistics.median(b / a for a, b in zip(self.ours, self.theirs, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """What a row of the peer says beside its figures."""
        return {
            "flash": self.flash,
            "ratio": self.ratio,
            "in_turns": self.together,
            "other_settings": [
                {"flash": one.flash, "seconds": Spread.of(one.theirs).to_dict(), "ratio": one.ratio}
                for one in self.others
            ],
        }


@dataclass(frozen=True)
class Peer:
    """A peer with its model loaded.

    Attributes:
        model: of random weights.
        settings: with and without one-pass attention, what is measured.
    """

    model: LlamaModel
    settings: tuple[bool, ...]

    @property
    def name(self) -> str:
        """As typed."""
        return "llama.cpp"

    @property
    def shape(self) -> PeerShape:
        """Of the model."""
        return self.model.shape

    @property
    def most(self) -> int:
        """Sequences that it can hold, whatever the memory."""
        return self.model.most

    def obstacle(self, sequences: int, tokens: int, free: int | None = None) -> str | None:
        """Why it cannot hold so many sequences of so many tokens each in `free` bytes, if that is so.

        None takes what is free now.
        """
        if tokens > self.shape.context:
            return f"{tokens:,} tokens are more than its context of {self.shape.context:,}"
        if sequences > self.most:
            return f"{sequences:,} sequences are more than the {self.most:,} that it can hold"
        free = free_memory() if free is None else free
        needed = cache_bytes(self.shape, sequences, tokens)
        if free is not None and needed > free:
            return f"its caches of {tokens:,} tokens take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        return None

    @contextmanager
    def unloaded(self) -> Iterator[None]:
        """Without its model in memory."""
        self.model.close()
        yield
        self.model.load()

    def at_depth(self, sequences: int, depth: int, tokens: int, flash: bool) -> LlamaCaches:
        """Sequences at a depth with room for some steps, of which one has been taken that does not count."""
        caches = LlamaCaches(self.model, sequences, depth + tokens, flash=flash)
        caches.fill(depth)
        caches.step(sequences)
        return caches

    def for_prompt(self, length: int, flash: bool) -> LlamaCaches:
        """Room for a prompt, after a short one that does not count."""
        caches = LlamaCaches(self.model, 1, length, flash=flash, prompt=length)
        caches.prompt(min(length, 32))
        return caches


def check_peer(name: str, flash: str) -> None:
    """Find out before the work whether a peer is there.

    Args:
        name: of `PEERS`.
        flash: of `FLASH`.

    Raises:
        ConfigError: no such peer, or setting.
        MissingExtraError, BackendError: it is not installed, or cannot be loaded.
    """
    if name not in PEERS:
        raise ConfigError(f"there is no peer {name!r}: choose {' or '.join(PEERS)}")
    if flash not in FLASH:
        raise ConfigError(f"--peer-flash {flash} is no setting: choose {' or '.join(FLASH)}")
    load_library()


def open_peer(name: str, flash: str, threads: int, progress: Callable[[int, int], None] | None = None) -> Peer:
    """Load a peer's model, which is written if this user has not got it yet.

    Args:
        name: of the peer.
        flash: which settings are measured, of `FLASH`.
        threads: that compute.
        progress: called with (bytes written, bytes in all) where the model is written.

    Raises:
        ConfigError, MissingExtraError, BackendError: see `check_peer`.
        CheckpointError: the cache cannot be written.
    """
    check_peer(name, flash)
    shape = PEERS[name]
    return Peer(LlamaModel(locate_peer(shape, progress), shape, threads), FLASH[flash])


def take_turns(
    peer: Peer,
    opened: Callable[[bool], LlamaCaches],
    probe: Callable[[], float],
    ours: Callable[[], float] | None,
    theirs: Callable[[LlamaCaches], float],
    *,
    rounds: int,
    work: float = 1.0,
    tick: Callable[[], None],
) -> Turns:
    """Measure in turns: what bounds both, ours, the peer's; at each setting of the peer.

    Args:
        peer: decides the settings.
        opened: a setting -> caches that are ready.
        probe: what bounds both.
        ours: -> seconds; None: ours do not fit beside the peer's, and the peer is measured alone.
        theirs: -> seconds.
        rounds: of each setting.
        work: what ours does over what theirs does.
        tick: called after each round.

    Returns:
        The better setting for the peer, with the others.
    """
    found = []
    for flash in peer.settings:
        probes, own, its = [], [], []
        with opened(flash) as caches:
            for _ in range(rounds):
                probes.append(probe())
                if ours is not None:
                    own.append(ours())
                its.append(theirs(caches))
                tick()
        found.append(Turns(flash, tuple(probes), tuple(own), tuple(its), work))
    found.sort(key=lambda turns: turns.ratio if turns.ours else statistics.median(turns.theirs))
    return replace(found[0], others=tuple(found[1:]))
