"""The comprehensive dashboard: one page about a run, or about several and the best or newest one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..figures import Dashboard, Section
from ..numbers import format_number, shown
from .comparison import build_comparison_panels, note_left_out
from .inference import build_inference_sections
from .lineage import build_lineage, build_lineage_table
from .naming import name_runs
from .notes import notes_of
from .ranking import choose_metrics, find_best, find_newest
from .resources import build_resource_panels
from .summary import build_facts, build_params_table
from .training import build_all_metrics, build_quality_panels, build_speed_panels

if TYPE_CHECKING:
    from ..data import ReportData, Run


def plot_comprehensive_dashboard(data: ReportData) -> Dashboard:
    """Return one page: facts, lineage, training, inference and resources. Of several runs: a comparison, and one of them."""
    title = shown(data.title)
    if not data.runs:
        sections: tuple[Section, ...] = (Section("At a glance", (build_facts(data, None, "summary-facts"),)),)
        return Dashboard("comprehensive", title, "A report without runs.", sections, notes_of(data, 1))
    if len(data.runs) == 1:
        sentence = "A run: what was trained, on which data, how well, what it cost, and where the model is."
        return Dashboard("comprehensive", title, sentence, _sections_of(data, data.runs[0]), notes_of(data, 1))
    run, sentence = _choose_run(data)
    sections = (Section("Comparison of runs", build_comparison_panels(data)), *_sections_of(data, run))
    return Dashboard(
        "comprehensive", title, sentence, sections, (*notes_of(data, len(data.runs)), *note_left_out(data))
    )


def _choose_run(data: ReportData) -> tuple[Run, str]:
    """Return the run that is shown in detail, and the sentence of the page that says why."""
    found, count = find_best(data.runs), f"{len(data.runs):,} runs compared"
    run = found[0] if found else find_newest(data.runs)
    label = name_runs(data.runs)[run.run_id]
    if found:
        metric = found[1]
        return run, (
            f"{count}; then the best one, {label} ({shown(metric.key)} {format_number(metric.value_of(run))}), in detail."
        )
    metrics = choose_metrics(data.runs)
    if metrics and not metrics[0].has_direction:
        reason = f"It is not known whether a higher or a lower {shown(metrics[0].key)} is better."
    else:
        reason = "No metric says which run is the best."
    return run, f"{count}; then the newest one, {label}, in detail. {reason}"


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
