"""Rules that say in words what was found, with its numbers. On noise they say nothing.

Each rule has a name, thresholds that are constants of its module, and an entry in ``RULES``, which docs/report-rules.md shows.
On random curves (noise around a constant, and around a decaying curve) at most 1% of the curves give a false alarm:
``tests/reports/test_rules.py`` counts them. A random walk does rise and fall, so a finding about a large one is right.
"""

from __future__ import annotations

from typing import Final

from .curves import CURVE_RULES
from .usage import USAGE_RULES

RULES: Final = {"failed-run": "A run ended as failed or killed."} | CURVE_RULES | USAGE_RULES
"""What each rule finds, with its threshold, by name."""
