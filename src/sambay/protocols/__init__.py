"""What other programs send and expect, over the engine: no HTTP here, only the objects."""
