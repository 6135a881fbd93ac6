"""Metrics by which runs are compared, and which runs are the best."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..metric_roles import group_keys, parse_key
from ..numbers import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..data import Run

MAX_METRICS: Final = 6


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """A metric by which runs are compared: by the best value, or by the last one if no direction is known."""

    key: str

    @property
    def has_direction(self) -> bool:
        """Whether it is known that lower or that higher is better."""
        return parse_key(self.key).kind != "other"

    @property
    def is_lower_better(self) -> bool:
        """Whether lower is better. Means nothing without a direction."""
        return parse_key(self.key).kind == "loss"

    @property
    def label(self) -> str:
        """What ``value_of`` returns, for example ``best val_loss`` or ``last grad_norm``."""
        return f"{'best' if self.has_direction else 'last'} {shown(self.key)}"

    def value_of(self, run: Run) -> float:
        """Return the best finite value of a run, or its last value without a direction; NaN if it has none."""
        series = run.metrics.get(self.key)
        if series is None or not len(series):
            return np.nan
        if not self.has_direction:
            return series.last
        finite = series.finite
        if not len(finite):
            return np.nan
        return float(finite.min() if self.is_lower_better else finite.max())

    def sort(self, runs: Sequence[Run]) -> list[Run]:
        """Return the runs that have the metric, the best one first; in their own order without a direction."""
        found = [run for run in runs if self.key in run.metrics]
        return sorted(found, key=self._rank) if self.has_direction else found

    def _rank(self, run: Run) -> tuple[bool, float]:
        value = self.value_of(run)
        return bool(np.isnan(value)), value if self.is_lower_better else -value


def choose_metrics(runs: Sequence[Run]) -> list[ComparedMetric]:
    """Return the metrics to compare, the main one first.

    Those with a direction come first, then those with finite values in most runs, those of validation, and losses.
    """
    counts: dict[str, int] = defaultdict(int)
    for run in runs:
        for key, series in run.metrics.items():
            counts[key] += bool(np.isfinite(series.values).any())
    keys = [key for found in group_keys(counts).values() for key in found]
    stages = {"validation": 0, "test": 1, "training": 2, "": 2}

    def rank(key: str) -> tuple[bool, bool, bool, int]:
        role = parse_key(key)
        return role.kind == "other", counts[key] == 0, counts[key] * 2 < len(runs), stages[role.stage]

    return [ComparedMetric(key) for key in sorted(keys, key=rank)[:MAX_METRICS]]


def find_best(runs: Sequence[Run]) -> tuple[Run, ComparedMetric] | None:
    """Return the best run by the main metric; None if it has no direction or no finite value."""
    main = next(iter(choose_metrics(runs)), None)
    if main is None or not main.has_direction:
        return None
    best = main.sort(runs)[0]
    return (best, main) if np.isfinite(main.value_of(best)) else None


def select_runs(runs: Sequence[Run], main: ComparedMetric | None, best_count: int, count: int) -> list[Run]:
    """Return up to ``count`` runs in their order: the best ones by a metric, and the first ones of the others."""
    if len(runs) <= count:
        return list(runs)
    best = main.sort(runs)[:best_count] if main is not None and main.has_direction else []
    kept = {run.run_id for run in best}
    others = [run for run in runs if run.run_id not in kept][: count - len(kept)]
    kept.update(run.run_id for run in others)
    return [run for run in runs if run.run_id in kept]


def find_newest(runs: Sequence[Run]) -> Run:
    """Return the run that started last; the first one of several, and of runs without a start."""
    return max(runs, key=lambda run: (run.started_ms is not None, run.started_ms or 0))
