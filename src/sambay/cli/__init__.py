"""The command line: `sambay generate`, `chat`, `info`, `train`, `eval`, `quantize` and `bench`.

Nothing here imports torch before a command needs it, so that `sambay --help` answers at once.
"""

from sambay.cli.app import main

__all__ = ["main"]
