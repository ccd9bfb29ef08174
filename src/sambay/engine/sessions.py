"""The prefix cache on disk: the state at the end of each turn, to go on from after a restart.

A session is one file: the state after the whole text, and that after its last turn but one where it is known, since a
template may leave something of the last answer out. A file is written whole or not at all (`atomic_write`), and read
only when a prompt goes on from it. One that cannot be used is left alone, with a warning; the engine goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import Tensor

from sambay.engine.prefix import PrefixCache, Snapshot
from sambay.engine.statefile import check_header, read_header, read_state, state_header, write_state
from sambay.errors import ConfigError, StateError, StateWarning
from sambay.files import atomic_write
from sambay.state import PAGE_SIZE, Held, StatePool

__all__ = ["Sessions"]

_SUFFIX = ".session"
_STALE = 3600
"""Seconds after which a temporary file belongs to a save that was killed."""


class Sessions:
    """Saved states in a directory.

    Args:
        directory: made if needed; a directory may hold sessions of several models.
        pool: where states come from and go to.
        mark: the model's fingerprint.
        limit: bytes of the files of this model at most; the least recently used are removed.

    Raises:
        ConfigError: the directory cannot be written.
    """

    def __init__(self, directory: Path, pool: StatePool, mark: str, limit: int) -> None:
        self.directory, self._pool, self._mark, self._limit = directory, pool, mark, limit
        self._files: dict[Path, list[Snapshot]] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in directory.glob(f".*{_SUFFIX}.*.tmp"):
                if time.time() - left.stat().st_mtime > _STALE:
                    left.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"the state directory {directory} cannot be used ({error}): choose another") from None
        if not os.access(directory, os.W_OK):
            raise ConfigError(f"the state directory {directory} is not writable: choose another")

    def list_into(self, prefix: PrefixCache) -> None:
        """Let a prefix cache know of the sessions there are; only headers and token ids are read."""
        for path in sorted(self.directory.glob(f"*{_SUFFIX}"), key=_age):
            try:
                header, ids = read_header(path)
                check_header(path, header, state_header(self._pool, self._mark, header.lengths))
                lengths = (0, *header.lengths)
                if header.tokens != lengths[-1] or any(a >= b for a, b in pairwise(lengths)):
                    raise StateError(f"{path} has a text of another length than its state: it is damaged, remove it")
                if path.name != _name(ids):
                    raise StateError(f"{path} has another text than its name says: it is damaged, remove it")
            except StateError as error:
                _warn(error)
                continue
            self._put(path, [prefix.at(ids[:length]) for length in header.lengths])

    def save(self, ids: Sequence[int], snapshot: Snapshot, prefix: PrefixCache) -> None:
        """Write a snapshot that is in the pool, with the longest before it; a session that it continues is replaced.

        Args:
            ids: its text.
            snapshot: of just this text.
            prefix: that has it.
        """
        if snapshot.file is not None:
            self._use(snapshot.file)
            return
        above = prefix.above(snapshot)
        kept = [*[one for one in above if one.held is not None][:1], snapshot]
        fixed = [self._fixed_bytes(one.held) for one in kept if one.held is not None]
        assert snapshot.held is not None
        header = state_header(self._pool, self._mark, [one.length for one in kept], len(ids))
        path, pages = self.directory / _name(ids), snapshot.held.pages
        try:
            atomic_write(path, lambda temporary: write_state(temporary, header, ids, fixed, self._pool, pages))
        except OSError as error:
            _warn(f"a session could not be saved in {self.directory} ({error}): make room there, or make it writable")
            return
        replaced = {one.file for one in above if one.file is not None}
        self._put(path, kept)
        line = {snapshot, *above}
        for old in replaced - {path}:
            if all(one in line for one in self._files.get(old, ())):
                self._remove(old, prefix)
        self._keep_to_limit(path, prefix)

    def load(self, snapshot: Snapshot, prefix: PrefixCache) -> bool:
        """Bring the session of a snapshot into the pool; False if there is no room, or the file cannot be used."""
        path, pool = snapshot.file, self._pool
        assert path is not None
        group = self._files[path]
        needed = -(-group[-1].length // PAGE_SIZE) + len(group) * pool.fixed_pages
        if needed > len(pool.shared.free) + pool.shared.idle:
            return False
        while len(pool.shared.free) < needed:
            prefix.evict()
        try:
            fixed, pages = read_state(path, state_header(pool, self._mark, (0,)), pool)
        except StateError as error:
            _warn(error)
            self._let_go(path, prefix)
            return False
        for one, state in zip(group, fixed, strict=True):
            if one.held is None:
                own = pages[: -(-one.length // PAGE_SIZE)]
                pool.shared.share(own, spare=True)
                places = pool.shared.take(pool.fixed_pages, spare=True)
                pool.shared.tiles.write_bytes(places, state)
                prefix.fill(one, Held(one.length, tuple(own), tuple(places)))
        pool.shared.drop(pages)
        self._use(path)
        return True

    def _fixed_bytes(self, held: Held) -> Tensor:
        return self._pool.shared.tiles.read_bytes(held.fixed)[: self._pool.fixed_nbytes]

    def _put(self, path: Path, snapshots: list[Snapshot]) -> None:
        self._files[path] = snapshots
        for one in snapshots:
            one.file = path

    def _let_go(self, path: Path, prefix: PrefixCache) -> None:
        """Know of a file no longer."""
        for one in self._files.pop(path, ()):
            one.file = next((other for other, group in self._files.items() if one in group), None)
            if one.file is None and one.held is None:
                prefix.forget(one)

    def _remove(self, path: Path, prefix: PrefixCache) -> None:
        self._let_go(path, prefix)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def _keep_to_limit(self, newest: Path, prefix: PrefixCache) -> None:
        sizes = {path: path.stat().st_size for path in self._files if path.exists()}
        for path in sorted(sizes, key=_age):
            if sum(sizes.values()) <= self._limit:
                return
            if path != newest:
                del sizes[path]
                self._remove(path, prefix)

    def _use(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            os.utime(path)


def _name(ids: Sequence[int]) -> str:
    return hashlib.sha256(np.asarray(ids, dtype="<i4").tobytes()).hexdigest()[:32] + _SUFFIX


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _warn(message: object) -> None:
    warnings.warn(str(message), StateWarning, stacklevel=2)
