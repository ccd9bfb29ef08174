"""Files that are either the old ones or the new ones, never a half: for checkpoints, configurations, results."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

__all__ = ["atomic_write"]


def atomic_write(path: str | Path, content: bytes | Callable[[Path], object]) -> None:
    """Write a file so that a crash, a full disk or a power cut leaves the old one or the new one, whole.

    The content goes to a hidden temporary file in the same directory, is flushed to the disk, and takes the
    name in one step. Whoever has the old file open or memory-mapped keeps the old content.

    Args:
        path: the file to write or to replace; its directory must exist. A symbolic link is replaced, not followed.
        content: the bytes, or a function that writes them to the temporary path that it is given.

    Raises:
        OSError: the directory is missing or not writable, or the disk is full. Nothing has changed then. What
            the function raises comes through likewise.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        # Created here, by the umask; a writer may put a file with other rights in its place (safetensors: 0600).
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            content(temporary)
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        # The rename itself must reach the disk too; some network file systems cannot sync a directory.
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                os.fsync(directory)
        finally:
            os.close(directory)
