"""The comprehensive dashboard: one page about a run, or about the best one of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..figures import Dashboard, Section
from ..numbers import shown
from .comparison import best_run, build_comparison_panels
from .inference import build_inference_sections
from .lineage import build_lineage, build_lineage_table
from .naming import name_runs
from .notes import notes_of
from .resources import build_resource_panels
from .summary import build_facts, build_params_table
from .training import build_all_metrics, build_quality_panels, build_speed_panels

if TYPE_CHECKING:
    from ..data import ReportData, Run


def plot_comprehensive_dashboard(data: ReportData) -> Dashboard:
    """Return one page: facts, lineage, training, inference and resources. Of several runs: a comparison, and the best one."""
    title = shown(data.title)
    if not data.runs:
        sections: tuple[Section, ...] = (Section("At a glance", (build_facts(data, None, "summary-facts"),)),)
        return Dashboard("comprehensive", title, "A report without runs.", sections, notes_of(data, 1))
    if len(data.runs) == 1:
        sentence = "A run: what was trained, on which data, how well, what it cost, and where the model is."
        return Dashboard("comprehensive", title, sentence, _sections_of(data, data.runs[0]), notes_of(data, 1))
    found = best_run(data)
    run, why = found if found is not None else (data.runs[0], "the first one")
    label = name_runs(data.runs)[run.run_id]
    sentence = f"{len(data.runs):,} runs compared; then the best one, {label} ({why}), in detail."
    sections = (Section("Comparison of runs", build_comparison_panels(data)), *_sections_of(data, run))
    return Dashboard("comprehensive", title, sentence, sections, notes_of(data, len(data.runs)))


def _sections_of(data: ReportData, run: Run) -> tuple[Section, ...]:
    runs = (run,)
    return (
        Section("At a glance", (build_facts(data, run, "summary-facts"),)),
        Section("Lineage", (build_lineage(data, runs), build_lineage_table(data, runs))),
        Section("Losses and qualities", build_quality_panels(runs)),
        Section("Learning rate and speed", build_speed_panels(runs)),
        *build_inference_sections(runs),
        Section("Resources", build_resource_panels(run, "resources-1")),
        Section("Details", (build_all_metrics(runs), build_params_table(runs, "training-params"))),
    )
