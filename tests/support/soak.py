"""Round number of a soak run, which is the seed of all random decisions in the round."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeAlias

ROUND_VARIABLE: Final = "SOAK_ROUND"

Count: TypeAlias = Callable[
    [str, int], None
]  # `record_property` of pytest: records a number of operations, which are summed up


def soak_round() -> int:
    """Return the number of this round, which `tools/soak.py` sets; the default is 0."""
    return int(os.environ.get(ROUND_VARIABLE, "0"))
