"""A long run is made of rounds. Each has a number, from which everything in it that is random follows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeAlias

ROUND_VARIABLE: Final = "SOAK_ROUND"

Count: TypeAlias = Callable[
    [str, int], None
]  # pytest's `record_property`: how often something was done, to be added up


def soak_round() -> int:
    """The number of this round, as `tools/soak.py` says; 0 where nobody says."""
    return int(os.environ.get(ROUND_VARIABLE, "0"))
