"""The prefix cache: which states are at hand for a text, as a radix tree over token ids.

A state of fixed size cannot be cut short: a text goes on from a snapshot that was taken where it agrees with an earlier
one, or from its beginning. So snapshots are taken where texts are likely to part (`keeper`): at the ends of turns, at
intervals, and where they parted before. Each holds all pages of its text; that of a longer one shares them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sambay.state import Held

__all__ = ["PrefixCache", "Snapshot"]


class Snapshot:
    """The state after a text.

    Args:
        length: tokens of the text.

    Attributes:
        held: the state in the pool, None while it is not there.
        file: the session on disk that has it, too; None without one.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.held: Held | None = None
        self.file: Path | None = None
        self.node: _Node | None = None


class _Node:
    """A place in the tree: the tokens from its parent to it, and the snapshot that was taken there."""

    __slots__ = ("children", "parent", "snapshot", "tokens")

    def __init__(self, tokens: tuple[int, ...], parent: _Node | None) -> None:
        self.tokens, self.parent = tokens, parent
        self.children: dict[int, _Node] = {}
        self.snapshot: Snapshot | None = None


class PrefixCache:
    """Snapshots by their texts, those least recently used to be given up first.

    Args:
        release: gives up what a snapshot holds.
    """

    def __init__(self, release: Callable[[Held], object]) -> None:
        self._root = _Node((), None)
        self._recent: OrderedDict[Snapshot, None] = OrderedDict()
        self._release = release

    def __len__(self) -> int:
        """Snapshots that are in the pool."""
        return len(self._recent)

    def __iter__(self) -> Iterator[Snapshot]:
        """Snapshots that are in the pool, the least recently used first."""
        return iter(self._recent)

    def find(self, ids: Sequence[int], most: int) -> tuple[Snapshot | None, int]:
        """The longest snapshot of a beginning of a text, and how many of its first tokens a known text has, too.

        Args:
            ids: the text.
            most: tokens of the snapshot at most.
        """
        node, at, best = self._root, 0, None
        while at < len(ids) and (child := node.children.get(ids[at])) is not None:
            same = _common(child.tokens, ids, at)
            at += same
            if same < len(child.tokens):
                break
            node = child
            if node.snapshot is not None and at <= most:
                best = node.snapshot
        return best, at

    def at(self, ids: Sequence[int]) -> Snapshot:
        """The snapshot of just this text; a new one, with nothing in it, if there is none."""
        node, at = self._root, 0
        while at < len(ids):
            child = node.children.get(ids[at])
            if child is None:
                child = node.children[ids[at]] = _Node(tuple(ids[at:]), node)
            elif (same := _common(child.tokens, ids, at)) < len(child.tokens):
                child = _split(child, same)
            node, at = child, at + len(child.tokens)
        if node.snapshot is None:
            node.snapshot = Snapshot(len(ids))
            node.snapshot.node = node
        return node.snapshot

    def above(self, snapshot: Snapshot) -> list[Snapshot]:
        """The snapshots of beginnings of its text, longest first."""
        out, node = [], snapshot.node
        while node is not None and (node := node.parent) is not None:
            if node.snapshot is not None:
                out.append(node.snapshot)
        return out

    def fill(self, snapshot: Snapshot, held: Held) -> None:
        """Put a state into a snapshot that has none."""
        assert snapshot.held is None
        snapshot.held = held
        self._recent[snapshot] = None

    def touch(self, snapshot: Snapshot) -> None:
        """Say that a snapshot is used now."""
        if snapshot in self._recent:
            self._recent.move_to_end(snapshot)

    def evict(self) -> bool:
        """Give up what the least recently used snapshot holds; False if there is none."""
        for snapshot in self._recent:
            self.give_up(snapshot)
            return True
        return False

    def give_up(self, snapshot: Snapshot) -> None:
        """Give up what a snapshot holds in the pool, and the snapshot, unless it is in a file."""
        if snapshot in self._recent:
            del self._recent[snapshot]
            held, snapshot.held = snapshot.held, None
            assert held is not None
            self._release(held)
        if snapshot.file is None:
            self.forget(snapshot)

    def forget(self, snapshot: Snapshot) -> None:
        """Take a snapshot that holds nothing out of the tree, with what leads to nothing else."""
        assert snapshot.held is None
        node, snapshot.node = snapshot.node, None
        if node is None:
            return
        node.snapshot = None
        while node is not None and (parent := node.parent) is not None and node.snapshot is None:
            if not node.children:
                del parent.children[node.tokens[0]]
            elif len(node.children) == 1:  # one edge again, where there is no fork any more
                [child] = node.children.values()
                child.tokens, child.parent = node.tokens + child.tokens, parent
                parent.children[child.tokens[0]] = child
            else:
                break
            node = parent

    def clear(self) -> None:
        """Give up all that is held in the pool."""
        while self.evict():
            pass


def _common(tokens: tuple[int, ...], ids: Sequence[int], at: int) -> int:
    """How many tokens of an edge agree with a text from a place on."""
    part = ids[at : at + len(tokens)]
    if len(part) == len(tokens) and tuple(part) == tokens:  # quick, and the usual case
        return len(tokens)
    return next((i for i, (a, b) in enumerate(zip(tokens, part, strict=False)) if a != b), len(part))


def _split(child: _Node, same: int) -> _Node:
    """Put a node after the first tokens of an edge."""
    parent = child.parent
    assert parent is not None
    middle = _Node(child.tokens[:same], parent)
    parent.children[middle.tokens[0]] = middle
    child.tokens, child.parent = child.tokens[same:], middle
    middle.children[child.tokens[0]] = child
    return middle
