"""`sambay`, as a process whose memory can be looked into: `python watched.py FILE ARGUMENTS OF SAMBAY`.

At SIGUSR1 it adds a line of JSON to FILE: `objects`, the small ones that Python holds; `heap`, bytes that C's allocator
has given out for all else (None without glibc); `rss`, bytes of memory, free ones among them. What no one refers to any
more is collected first. The figures of the first two do not depend on how the allocators laid things out, which differs
between machines and runs.
"""

import ctypes
import gc
import json
import signal
import sys
from pathlib import Path

_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"  # of glibc's malloc.h


class _Malloc(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS.split()]


def _heap():
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):  # another C library, or a glibc of before 2021
        return None
    ask.restype = _Malloc
    found = ask()
    return found.uordblks + found.hblkhd


def figures():
    """What is held now."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return {"objects": sys.getallocatedblocks(), "heap": _heap(), "rss": int(pages) * 4096}


def main():
    file = Path(sys.argv.pop(1))

    def write(*_):
        line = json.dumps(figures())
        with file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")

    signal.signal(signal.SIGUSR1, write)
    from sambay.cli import main as sambay

    sambay()


if __name__ == "__main__":
    main()
