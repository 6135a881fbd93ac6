"""Notes of a dashboard: what is missing in the data, and what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..numbers import shown

if TYPE_CHECKING:
    from ..data import ReportData


def notes_of(data: ReportData, max_runs: int) -> tuple[str, ...]:
    """Return a sentence for everything that is missing, and one if only some of the runs are drawn."""
    notes = [shown(f"Missing: {one.what}: {one.reason}.", 400) for one in data.missing]
    if len(data.runs) > max_runs:
        notes.append(f"This page shows {max_runs} of {len(data.runs):,} runs; the comparison shows more of them.")
    if not data.runs:
        notes.append("The report has no runs.")
    return tuple(notes)
