"""The command line: `sambay generate`, `chat`, `info`, `train` and `eval`.

Nothing here imports torch before a command needs it, so that `sambay --help` answers at once.
"""

from sambay.cli.app import main

__all__ = ["main"]
