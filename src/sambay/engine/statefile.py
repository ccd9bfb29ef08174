"""States of sequences as files: parked ones for a while, sessions for good.

A file holds a header (JSON), the token ids, the states of fixed size of one or more snapshots, the pages of keys and
values that they share, and a SHA-256 of all that. It is bound to a model by a fingerprint, and to how that model's
states lie in memory by the numbers in the header: what does not fit is refused before a byte of it is used.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sambay.errors import StateError
from sambay.state import PAGE_SIZE, StatePool

__all__ = ["Header", "fingerprint", "read_header", "read_state", "state_header", "write_state"]

VERSION = 1
_MAGIC = b"sambay state\n"
_PIECE = 8 << 20
"""Bytes that are moved at once."""
_SAMPLES, _SAMPLE = 64, 64
"""Of every tensor of a model so many pieces of so many bytes make its fingerprint."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        fingerprint: of the model.
        version: of the format.
        tokens: of the text.
        lengths: of the snapshots, tokens each; the last is the longest.
        fixed: bytes of the states of fixed size of one snapshot.
        page: bytes of a page.
        page_tokens: tokens of a page.
    """

    fingerprint: str
    version: int
    tokens: int
    lengths: tuple[int, ...]
    fixed: int
    page: int
    page_tokens: int

    @property
    def pages(self) -> int:
        """Pages of the longest snapshot."""
        return -(-self.lengths[-1] // self.page_tokens)


def fingerprint(model: nn.Module, pool: StatePool) -> str:
    """What tells a model from others, with the types that its states are kept in.

    A hash of the configuration, of the names, shapes and types of all tensors, and of 64 pieces of 64 bytes spread over
    each of them: milliseconds for gigabytes. Training changes nearly all bytes of a tensor, so that it is noticed; one
    changed byte may not be.
    """
    found = hashlib.sha256(json.dumps(asdict(pool.config), sort_keys=True, default=str).encode())
    found.update(f"{pool.dtype} {pool.cache_dtype}".encode())
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        data = tensor.detach().contiguous().view(-1).view(torch.uint8)
        starts = torch.linspace(0, max(0, data.numel() - _SAMPLE), _SAMPLES, dtype=torch.float64).long()
        places = (starts.unsqueeze(1) + torch.arange(_SAMPLE)).clamp(max=max(0, data.numel() - 1)).flatten()
        if data.numel():
            found.update(data[places.to(data.device)].cpu().numpy().tobytes())
    return found.hexdigest()


def state_header(pool: StatePool, mark: str, lengths: Sequence[int], tokens: int = 0) -> Header:
    """The header of a file of this pool.

    Args:
        pool: whose states are to be written.
        mark: the model's fingerprint.
        lengths: of the snapshots, the longest last.
        tokens: of the text, if it is kept.
    """
    return Header(mark, VERSION, tokens, tuple(lengths), pool.fixed_nbytes, pool.shared.tiles.page_bytes, PAGE_SIZE)


def write_state(
    target: Path | BufferedRandom,
    header: Header,
    ids: Sequence[int],
    fixed: Sequence[Tensor],
    pool: StatePool,
    pages: Sequence[int],
) -> None:
    """Write a file; to write it so that a crash leaves no part of one is the caller's matter.

    Args:
        target: written anew; or an open file, which stays open.
        header: says what follows.
        ids: the text, as many tokens as the header says.
        fixed: states of fixed size of each snapshot, `StatePool.fixed_bytes`.
        pool: holds the pages.
        pages: of the longest snapshot.

    Raises:
        OSError: the file cannot be written.
    """
    assert (len(ids), len(fixed), len(pages)) == (header.tokens, len(header.lengths), header.pages)
    text = json.dumps(asdict(header)).encode()
    seen = hashlib.sha256()
    with target.open("wb") if isinstance(target, Path) else nullcontext(target) as file:

        def put(data: bytes | memoryview) -> None:
            seen.update(data)
            file.write(data)

        put(_MAGIC + struct.pack("<I", len(text)) + text)
        put(np.asarray(ids, dtype="<i4").tobytes())
        for state in fixed:
            put(_bytes_of(state[: header.fixed]))
        for part in _parts(pages, header.page):
            put(_bytes_of(pool.shared.tiles.read_bytes(part)))
        file.write(seen.digest())
        file.flush()


def read_header(path: Path) -> tuple[Header, list[int]]:
    """Header and token ids, unchecked but for their form.

    Raises:
        StateError: it is no such file, it is damaged, or it has another version.
    """
    try:
        with path.open("rb") as file:
            header, rest = _open(path, file)
            size = rest + 4 * header.tokens + len(header.lengths) * header.fixed + header.pages * header.page + 32
            if path.stat().st_size != size:
                raise StateError(
                    f"{path} has {path.stat().st_size} bytes and should have {size}: it is damaged, remove it"
                )
            return header, np.frombuffer(_exactly(path, file, 4 * header.tokens), dtype="<i4").tolist()
    except OSError as error:
        raise StateError(f"{path} cannot be read ({error}): make it readable, or remove it") from None


def read_state(source: Path | BufferedRandom, expected: Header, pool: StatePool) -> tuple[list[Tensor], list[int]]:
    """Read a file into free pages.

    Args:
        source: where it is; or an open file, which stays open.
        expected: the header that it must have, but for the tokens and the lengths.
        pool: with `pages` pages free.

    Returns:
        The states of fixed size of each snapshot, and the pages, taken for one holder.

    Raises:
        StateError: the file is damaged, or of another model or kind; nothing is taken then.
    """
    path = source if isinstance(source, Path) else "the file of a parked sequence"
    try:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            file.seek(0)
            return _read(path, file, expected, pool)
    except OSError as error:
        raise StateError(f"{path} cannot be read ({error}): make it readable, or remove it") from None


def check_header(path: Path | str, header: Header, expected: Header) -> None:
    """Refuse what does not fit.

    Raises:
        StateError: it is of another model, or its states are of another kind.
    """
    if header.fingerprint != expected.fingerprint:
        raise StateError(
            f"{path} was made by another model, or with another dtype or kv_cache_dtype: use another directory, or "
            "remove it"
        )
    mine = (expected.fixed, expected.page, expected.page_tokens)
    if (header.fixed, header.page, header.page_tokens) != mine:
        raise StateError(f"{path} has states of another shape than this model's: it is damaged, remove it")


def _read(
    path: Path | str, file: BufferedReader | BufferedRandom, expected: Header, pool: StatePool
) -> tuple[list[Tensor], list[int]]:
    header, rest = _open(path, file)
    check_header(path, header, expected)
    file.seek(0)
    seen = hashlib.sha256(_exactly(path, file, rest))
    seen.update(_exactly(path, file, 4 * header.tokens))
    fixed = []
    for _ in header.lengths:
        data = _exactly(path, file, header.fixed)
        seen.update(data)
        fixed.append(torch.frombuffer(data, dtype=torch.uint8).to(pool.device))
    pages = pool.shared.take(header.pages)
    try:
        for part in _parts(pages, header.page):
            data = _exactly(path, file, len(part) * header.page)
            seen.update(data)
            pool.shared.tiles.write_bytes(part, torch.frombuffer(data, dtype=torch.uint8).to(pool.device))
        if file.read() != seen.digest():
            raise StateError(f"{path} does not have the checksum that it was written with: it is damaged, remove it")
    except BaseException:
        pool.shared.drop(pages)
        raise
    return fixed, pages


def _open(path: Path | str, file: BufferedReader | BufferedRandom) -> tuple[Header, int]:
    """The header, and where it ends."""
    start = file.read(len(_MAGIC) + 4)
    if start[: len(_MAGIC)] != _MAGIC or len(start) < len(_MAGIC) + 4:
        raise StateError(f"{path} is no saved session: remove it")
    [size] = struct.unpack("<I", start[len(_MAGIC) :])
    try:
        values = json.loads(file.read(size) if size < _PIECE else b"")
        if values["version"] != VERSION:
            raise StateError(f"{path} has version {values['version']} and this sambay reads {VERSION}: remove it")
        header = Header(**{**values, "lengths": tuple(map(int, values["lengths"]))})
        numbers = (header.tokens, header.fixed, header.page, header.page_tokens, *header.lengths)
        if not all(isinstance(x, int) and x >= 0 for x in numbers) or not header.lengths or not header.page_tokens:
            raise ValueError("a number is out of its range")
    except StateError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"{path} has an unreadable header ({error}): it is damaged, remove it") from None
    return header, len(start) + size


def _exactly(path: Path | str, file: BufferedReader | BufferedRandom, size: int) -> bytearray:
    data = bytearray(size)
    if file.readinto(data) != size:
        raise StateError(f"{path} ends too early: it is damaged, remove it")
    return data


def _bytes_of(values: Tensor) -> memoryview:
    return values.cpu().contiguous().numpy().data


def _parts(pages: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    step = max(1, _PIECE // size)
    return (pages[at : at + step] for at in range(0, len(pages), step))
