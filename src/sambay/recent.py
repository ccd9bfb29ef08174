"""What was used last, kept within a bound of size: for what others send, a bound of the number alone is none."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by their keys, those least recently used going first; for any thread.

    Args:
        most: how many.
        most_size: of all of them together, in what `keep` is told; a value that is larger alone is not kept.

    Attributes:
        size: of all that are kept.
    """

    def __init__(self, most: int, most_size: int) -> None:
        self._most, self._most_size = most, most_size
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.size = 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def find(self, key: K) -> V | None:
        """The value, which has been used now; None if it is not kept."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def keep(self, key: K, value: V, size: int) -> None:
        """Keep a value in place of the key's old one, and let go of others where that is too much.

        Args:
            key: by which it is found.
            value: anything but None.
            size: of key and value.
        """
        with self._lock:
            self._drop(key)
            if size > self._most_size:
                return
            self._kept[key] = value, size
            self.size += size
            while len(self._kept) > self._most or self.size > self._most_size:
                self._drop(next(iter(self._kept)))

    def drop(self, key: K) -> bool:
        """Let go of a value; False if it was not kept."""
        with self._lock:
            return self._drop(key)

    def _drop(self, key: K) -> bool:
        if key not in self._kept:
            return False
        self.size -= self._kept.pop(key)[1]
        return True
