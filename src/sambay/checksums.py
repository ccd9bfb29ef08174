"""Checksums of weights, kept in the metadata of the safetensors file that holds them.

`sambay_checksums` has the CRC-32 of the data of every tensor, and one of what the header says. They are against decay:
bits that flip on a disk or on the way, copies that were broken off or mixed. Against people they would have to be
signed. docs/quantised-format.md describes them.

Files are read in pieces, not mapped: a sector that cannot be read is an error here, and the end of a process there.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

from sambay.errors import CheckpointError
from sambay.files import few, open_weights

__all__ = ["ALGORITHM", "KEY", "Checked", "Verification", "checksum", "verify", "with_checksums"]

KEY = "sambay_checksums"
ALGORITHM = "crc32"

_METADATA = "__metadata__"
_PIECE = 1 << 20
"""Bytes that a thread reads at once: few enough to be in its cache still when they are summed up."""
_MOST_THREADS = 8
"""More of them wait for the disk."""


@dataclass(frozen=True)
class Checked:
    """What was found of one file.

    Attributes:
        path: of the file.
        tensors: in it.
        nbytes: of their data.
        algorithm: of its checksums; None where it has none, and was not read.
        header: whether its header says what it said when it was written.
        damaged: the tensors that are not as they were written, those among them that only the file has, or only its
            checksums.
    """

    path: Path
    tensors: int
    nbytes: int
    algorithm: str | None = None
    header: bool = True
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verification:
    """What was found of all files of a checkpoint.

    Attributes:
        directory: of the checkpoint.
        files: each that holds weights.
    """

    directory: Path
    files: tuple[Checked, ...]

    @property
    def intact(self) -> bool | None:
        """Whether all is as it was written; None where nothing is known to be damaged, and not all has checksums."""
        if any(one.damaged or not one.header for one in self.files):
            return False
        return True if self.files and all(one.algorithm for one in self.files) else None

    @property
    def tensors(self) -> int:
        """In all files."""
        return sum(one.tensors for one in self.files)

    @property
    def nbytes(self) -> int:
        """Of the data of all tensors."""
        return sum(one.nbytes for one in self.files)

    def problem(self) -> str | None:
        """What is wrong and what helps, in one sentence; None if nothing is."""
        if self.intact:
            return None
        headers = [one.path.name for one in self.files if not one.header]
        tensors = [name for one in self.files for name in one.damaged]
        places = [f"in the header of {few(headers)}"] if headers else []
        if tensors:
            places.append(f"in {len(tensors):,} of {self.tensors:,} tensors ({few(tensors)})")
        if places:
            return (
                f"{self.directory} has changed since it was written, {' and '.join(places)}: copy it again from where "
                "it is whole, or quantise the original again"
            )
        unknown = [one.path.name for one in self.files if one.algorithm is None]
        return (
            f"{self.directory} cannot be verified, as there are no checksums in {few(unknown) or 'it'}: `sambay "
            "quantize` notes them in what it writes; compare other files with where they came from"
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "intact": self.intact,
            "tensors": self.tensors,
            "bytes": self.nbytes,
            "files": [
                {
                    "file": one.path.name, "tensors": one.tensors, "bytes": one.nbytes, "algorithm": one.algorithm,
                    "header": one.header, "damaged": list(one.damaged),
                }
                for one in self.files
            ],
        }  # fmt: skip


def checksum(data: memoryview) -> str:
    """The checksum of the data of a tensor: as long a text for any.

    Args:
        data: contiguous.
    """
    return _text(zlib.crc32(data))


def with_checksums(header: Mapping[str, Any], sums: Mapping[str, str]) -> dict[str, Any]:
    """A header that says what the file should hold; with other checksums it is as long as with these.

    Args:
        header: of a safetensors file, without checksums.
        sums: by the name of each tensor on disk.
    """
    values = {"algorithm": ALGORITHM, "header": _of_header(header), "tensors": dict(sums)}
    metadata = {**header.get(_METADATA, {}), KEY: json.dumps(values, separators=(",", ":"))}
    return {**header, _METADATA: metadata}


def verify(directory: Path, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Read all weights of a checkpoint that have checksums, and compare. Takes a few MB of memory.

    Args:
        directory: of the checkpoint.
        progress: called with (bytes read, bytes in all), from one thread at a time.

    Raises:
        CheckpointError: files that are missing, cut short, unreadable or at odds with their index; a header or
            checksums that cannot be understood.
    """
    with contextlib.ExitStack() as stack:  # the library knows what a header may say
        paths = sorted({one.path for one in open_weights(directory, stack).values()})
    plans = [_plan(path) for path in paths]
    expected = [one for _, some in plans for one in some]
    total, done = sum(one.nbytes for one in expected), 0
    lock, stopped = threading.Lock(), threading.Event()

    def summed(one: _Expected) -> str:
        nonlocal done
        found, left, room = 0, one.nbytes, memoryview(bytearray(min(one.nbytes, _PIECE)))
        with _opened(one.path) as file:
            file.seek(one.start)
            while left and not stopped.is_set():
                count = file.readinto(room[:left])
                if not count:
                    raise CheckpointError(f"{one.path} has become shorter: download or copy it again")
                found = zlib.crc32(room[:count], found)
                left -= count
                with lock:
                    done += count
                    if progress is not None:
                        progress(done, total)
        return _text(found)

    wrong: dict[Path, list[str]] = {path: [] for path in paths}
    with ThreadPoolExecutor(_threads()) as pool:  # neither reading nor summing up needs the lock of Python
        try:
            for one, found in zip(expected, pool.map(summed, expected), strict=True):
                if found != one.checksum:
                    wrong[one.path].append(one.name)
        except BaseException:
            stopped.set()
            raise
    return Verification(directory, tuple(replace(one, damaged=(*one.damaged, *wrong[one.path])) for one, _ in plans))


@dataclass(frozen=True)
class _Expected:
    """A tensor that a file says the checksum of, whatever that is."""

    name: str
    path: Path
    start: int
    nbytes: int
    checksum: object


def _plan(path: Path) -> tuple[Checked, list[_Expected]]:
    """What the header of a file tells of it, and what to compare, in the order of the file, which disks like."""
    with _opened(path) as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
    metadata = dict(header.pop(_METADATA, None) or {})
    places: dict[str, list[int]] = {name: one["data_offsets"] for name, one in header.items()}
    plain = Checked(path, len(places), sum(end - start for start, end in places.values()))
    text = metadata.pop(KEY, None)
    if text is None:
        return plain, []
    try:
        values = json.loads(text)
        algorithm, own, sums = values["algorithm"], values["header"], {**values["tensors"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has checksums that cannot be read ({type(error).__name__}: {error}): copy it again from where it "
            "is whole, or quantise the original again"
        ) from None
    if algorithm != ALGORITHM:
        raise CheckpointError(
            f"{path} has checksums of the kind {algorithm!r}, this sambay knows {ALGORITHM}: update sambay, or copy "
            "the file again"
        )
    whole = own == _of_header({_METADATA: metadata, **header})
    odd = tuple(sorted(places.keys() ^ sums.keys()))
    return replace(plain, algorithm=algorithm, header=whole, damaged=odd), [
        _Expected(name, path, 8 + size + start, end - start, sums[name])
        for name, (start, end) in sorted(places.items(), key=lambda item: item[1])
        if name in sums
    ]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[FileIO]:
    try:
        with path.open("rb", buffering=0) as file:
            yield file
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): make it readable; if the disk fails, copy it from elsewhere"
        ) from None


def _of_header(header: Mapping[str, Any]) -> str:
    """Of what it says, in one of the ways to write that: the order of its keys and spaces mean nothing."""
    header = {_METADATA: {}, **header}
    return _text(zlib.crc32(json.dumps(header, sort_keys=True, separators=(",", ":")).encode()))


def _text(found: int) -> str:
    return f"{found:08x}"


def _threads() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_THREADS)
