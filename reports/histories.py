"""Metric histories from rows in any number of pieces: of a database or of a server's answers."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from .data import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray


Piece = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.float64]"]
Histories = dict[str, dict[str, Series]]  # by run id and MLflow's key


class HistoryBuilder:
    """Collects rows, and builds one series for each run and key. Rows of a series may come in several pieces."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[str, str], list[Piece]] = defaultdict(list)

    def add_rows(self, rows: Sequence[tuple[str, str, int, int, float, bool]]) -> None:
        """Add rows ``(run id, key, step, time in ms, value, is NaN)``, of which those of one run and key follow each other."""
        if not rows:
            return
        run_ids, keys, steps, times, values, nans = zip(*rows, strict=True)
        count = len(rows)
        step, time = np.fromiter(steps, np.int64, count), np.fromiter(times, np.int64, count)
        value = np.fromiter(values, np.float64, count)
        if any(nans):
            value[np.fromiter(nans, np.bool_, count)] = np.nan
        start = 0
        for name, count in _count_groups(run_ids, keys):
            end = start + count
            self._pieces[name].append((step[start:end], time[start:end], value[start:end]))
            start = end

    def build(self) -> Histories:
        """Return the series of all rows, by run id and key."""
        histories: Histories = defaultdict(dict)
        for (run_id, key), pieces in self._pieces.items():
            step, time, value = pieces[0] if len(pieces) == 1 else _join(pieces)
            histories[run_id][key] = Series.build(key, step, time, value)
        return dict(histories)


def _count_groups(run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield each run and key, and the number of their rows."""
    if (run_ids[0], keys[0]) == (run_ids[-1], keys[-1]):
        yield (run_ids[0], keys[0]), len(keys)
        return
    for name, group in groupby(zip(run_ids, keys, strict=True)):
        yield name, len(list(group))


def _join(pieces: Iterable[Piece]) -> Piece:
    steps, times, values = zip(*pieces, strict=True)
    return np.concatenate(steps), np.concatenate(times), np.concatenate(values)
