"""School mathematics with worked solutions, drawn from a seed: the training and test data of a tiny model."""

from __future__ import annotations

import sys as _sys
