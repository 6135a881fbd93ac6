"""Dashboards as data: what each shows, in which units, and what it says of data that is missing or odd."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import reports
from reports.dashboards import training
from reports.data import Missing, ReportData, Run, Series
from reports.figures import (
    BarsPanel,
    Dashboard,
    FactsPanel,
    HeatMapPanel,
    HistogramPanel,
    LinesPanel,
    TablePanel,
)
from support.panels import find, titled
from support.report_samples import CID, complete_report, many_runs, odd_report, series, training_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from reports.figures import Panel

PLOTS = [
    reports.plot_training_metrics,
    reports.plot_inference_metrics,
    reports.plot_worker_utilization,
    reports.plot_comparison,
    reports.plot_lineage,
    reports.plot_comprehensive_dashboard,
]


def has_data(panel: Panel) -> bool:
    """Return whether there is something to draw."""
    if isinstance(panel, LinesPanel):
        return any(np.isfinite(line.y).any() for line in panel.lines)
    if isinstance(panel, BarsPanel):
        return bool(panel.groups)
    if isinstance(panel, HistogramPanel):
        return bool(len(panel.counts))
    if isinstance(panel, HeatMapPanel):
        return bool(np.isfinite(panel.values).any())
    if isinstance(panel, TablePanel):
        return bool(panel.rows)
    return bool(panel.facts if isinstance(panel, FactsPanel) else panel.nodes)


def texts_of(value: object) -> list[str]:
    """Return all text below a dataclass."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, tuple):
        return [text for item in value for text in texts_of(item)]
    if is_dataclass(value):
        return [text for field in fields(value) for text in texts_of(getattr(value, field.name))]
    return []


EVERY_REPORT = {
    "complete": complete_report(),
    "odd": odd_report(),
    "empty": ReportData("nothing"),
    "bare run": ReportData("bare", runs=(Run("r"),)),
    "many": many_runs(60),
}


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("name", EVERY_REPORT)
def test_every_panel_explains_itself_and_is_empty_only_with_a_reason(
    plot: Callable[[ReportData], Dashboard], name: str
) -> None:
    dashboard = plot(EVERY_REPORT[name])
    panels = list(dashboard.panels)
    ids = [panel.panel_id for panel in panels]
    assert len(ids) == len(set(ids))
    for panel in panels:
        assert set(panel.panel_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert panel.title
        assert panel.sentence.endswith(".")
        assert has_data(panel) is not panel.is_empty, panel.panel_id
        if isinstance(panel, TablePanel):
            assert all(len(row) == len(panel.columns) for row in panel.rows)
    if name == "empty":
        assert "The report has no runs." in dashboard.notes


@pytest.mark.parametrize("plot", PLOTS)
def test_no_text_has_control_characters_and_no_link_runs_a_script(plot: Callable[[ReportData], Dashboard]) -> None:
    texts = texts_of(plot(odd_report()))
    assert any("</script>" in text for text in texts)  # it is not escaped here: that is up to renderers
    for text in texts:
        assert "\x00" not in text
        assert "\x1b" not in text
        assert not text.startswith("javascript:")


def test_training_shows_losses_with_validation_by_epoch() -> None:
    dashboard = reports.plot_training_metrics(complete_report())
    loss = titled(dashboard, "loss")
    assert [line.name for line in loss.lines] == ["training", "validation"]
    assert (loss.x.text, loss.y.text) == ("epoch", "loss")
    assert loss.sentence == "Course of loss in training and validation; lower is better."
    assert loss.lines[0].dash != loss.lines[1].dash
    assert titled(dashboard, "Epoch times").y.text == "time (s)"
    assert titled(dashboard, "Throughput").y.text == "throughput (samples/s)"
    wait = titled(dashboard, "Waiting for data")
    assert wait.y.text == "share of the epoch (%)"
    assert 2 <= wait.lines[0].y.max() <= 6  # percent, not a share
    assert titled(dashboard, "Learning rate").y.is_log


def test_facts_answer_what_was_trained_on_which_data_how_well_at_what_cost_and_where_the_model_is() -> None:
    facts = find(reports.plot_comprehensive_dashboard(complete_report()), "summary-facts").facts
    found = {fact.label: fact for fact in facts}
    assert found["Data"].text == f"digits (training), {CID}"
    assert found["Data"].link == f"ipfs://{CID}"
    assert found["Model"].text == f"digits, version 1 (@champion), {CID}"
    assert any(fact.text.startswith("val_loss 0.0") and "best" in fact.text for fact in facts)
    assert found["Wall time"].text == "10 min 20 s"
    assert found["Machine"].text == "node-0, node-1, with 2 GPUs"
    assert found["Parameters"].text == "batch_size 64, learning_rate 0.01, optimizer adam"
    assert {"CPU time", "GPU energy", "GPU use"} <= set(found)


def test_a_loss_without_a_stage_beside_that_of_the_validation_is_that_of_the_training() -> None:
    metrics = {key: series(key, [2.0, 1.0, 0.5]) for key in ("loss", "val_loss", "other_loss")}
    dashboard = reports.plot_training_metrics(ReportData("t", runs=(Run("r", metrics=metrics),)))
    loss = titled(dashboard, "loss")
    assert [line.name for line in loss.lines] == ["training", "validation"]
    assert loss.sentence == "Course of loss in training and validation; lower is better."
    assert [line.name for line in titled(dashboard, "other_loss").lines] == ["other_loss"]


def test_facts_name_the_program_and_its_commit() -> None:
    tags = {"mlflow.source.name": "train.py", "mlflow.source.git.commit": "8a7f" * 10}
    run = replace(training_run(), tags=tags, params={f"p{number:02}": "1" for number in range(12)})
    facts = find(reports.plot_comprehensive_dashboard(ReportData("t", runs=(run,))), "summary-facts").facts
    found = {fact.label: fact.text for fact in facts}
    assert found["Code"] == "train.py, commit 8a7f8a7f8a7f"
    assert found["Parameters"].endswith("p07 1 and 4 more below")


def test_costs_are_integrated_over_time() -> None:
    run = Run(
        "r",
        system={
            "n": {
                "process_cpu_percentage": series("c", [200, 200, 200], interval_ms=10_000),
                "gpu_0_power_usage_watts": series("p", [100, np.nan, 300], interval_ms=10_000),
            }
        },
        metrics={
            "epoch_seconds": series("epoch_seconds", [10, 20]),
            "samples_per_second": series("samples_per_second", [100, 50]),
        },
    )
    facts = _efficiency_of(run)
    assert facts["CPU time"] == "40 s of the training process, in the 20 s that were sampled"
    assert facts["GPU energy"] == "1.111 Wh, in the 20 s that were sampled"  # from 100 W to 300 W
    assert facts["Training samples"] == "2,000"
    assert facts["Samples per CPU second"] == "50"
    assert facts["Samples per joule of the GPUs"] == "0.5"


def test_the_wall_time_of_a_run_that_ended_before_it_started_is_not_known() -> None:
    run = Run("r", "r", status="FAILED", started_ms=5000, ended_ms=1000)
    panel = find(reports.plot_comprehensive_dashboard(ReportData("t", runs=(run,))), "summary-facts")
    assert {fact.label: fact.text for fact in panel.facts}["Wall time"] == "not known"
    assert [finding.sentence for finding in panel.findings] == ["r ended as failed."]
    running = Run("s", "s", started_ms=1000)
    table = find(reports.plot_comparison(ReportData("t", runs=(run, running))), "comparison-table")
    assert [row[2].text for row in table.rows] == ["not known", "running"]


def test_costs_leave_pauses_out() -> None:
    day_ms = 24 * 3600 * 1000
    times = [0, 10_000, 20_000, day_ms, day_ms + 10_000]
    sampled = {
        name: Series.build(name, range(5), times, [value] * 5)
        for name, value in [("process_cpu_percentage", 100), ("gpu_0_power_usage_watts", 360)]
    }
    facts = _efficiency_of(Run("r", system={"n": sampled, "m": sampled}))
    assert facts["CPU time"] == "60 s of 2 training processes, in the 30 s that were sampled"
    assert facts["GPU energy"] == "6 Wh, in the 30 s that were sampled"


def _efficiency_of(run: Run) -> dict[str, str]:
    dashboard = reports.plot_worker_utilization(ReportData("t", runs=(run,)))
    return {fact.label: fact.text for fact in find(dashboard, "resources-1-efficiency").facts}


def test_lightnings_steps_become_epochs_if_every_point_has_its_own() -> None:
    steps = np.arange(24, 24 * 31, 24) - 1
    metrics = {key: series(key, np.ones(30), steps=steps) for key in ("train_loss", "val_loss")}
    metrics["epoch"] = series("epoch", np.arange(30), steps=steps)
    run = Run("r", metrics=metrics)
    loss = titled(reports.plot_training_metrics(ReportData("t", runs=(run,))), "loss")
    assert loss.x.label == "epoch"
    assert loss.lines[0].x.tolist() == list(range(30))
    batches = series("train_loss_step", np.ones(720))
    run = replace(run, metrics=metrics | {"train_loss_step": batches})
    loss = titled(reports.plot_training_metrics(ReportData("t", runs=(run,))), "loss")
    assert loss.x.label == "optimizer step"
    assert [line.name for line in loss.lines] == ["training", "training, each step", "validation"]
    found = find(reports.plot_comprehensive_dashboard(ReportData("t", runs=(run,))), "summary-facts").facts
    results = [fact.text for fact in found if fact.label == "Result"]
    assert results[0] == "val_loss 1 at the end, best 1 at optimizer step 23", (
        "the axis of the chart, though val_loss has epochs"
    )


def test_repeated_and_negative_steps_are_drawn_where_they_are() -> None:
    panel = titled(reports.plot_training_metrics(odd_report()), "loss of negative")
    assert panel.lines[0].x.tolist() == [-5, -5, 0, 0]
    assert panel.lines[0].y.tolist() == [3.0, 2.0, 1.0, 1.5]


def test_200_metrics_are_grouped_and_none_is_lost() -> None:
    keys = [f"{stage}_layer{number}_norm" for number in range(100) for stage in ("train", "val")]
    run = Run("r", metrics={key: series(key, [1.0, 2.0]) for key in keys})
    dashboard = reports.plot_training_metrics(ReportData("t", runs=(run,)))
    assert sum(isinstance(panel, LinesPanel) for panel in dashboard.panels) <= training.MAX_CHARTS + 4
    assert {row[0].text for row in find(dashboard, "training-metrics").rows} == set(keys)
    assert any("8 of 100 metrics" in note for note in dashboard.notes)


def test_a_million_points_are_drawn_with_their_spike() -> None:
    values = np.zeros(1_000_000)
    values[654_321] = 7.0
    run = Run("r", metrics={"loss": series("loss", values, interval_ms=1)})
    (line,) = titled(reports.plot_training_metrics(ReportData("t", runs=(run,))), "loss").lines
    assert len(line.x) <= 2_000
    assert line.point_count == 1_000_000
    assert line.y[line.x == 654_321].tolist() == [7.0]


def test_a_loss_with_signs_of_trouble_has_findings() -> None:
    at = np.arange(40)
    metrics = {
        "train_loss": series("train_loss", np.exp(-at / 12)),
        "val_loss": series("val_loss", 0.4 + (at - 12) ** 2 / 800),
        "data_wait_share": series("data_wait_share", np.full(40, 0.55)),
    }
    dashboard = reports.plot_training_metrics(ReportData("t", runs=(Run("r", status="FAILED", metrics=metrics),)))
    assert [finding.rule for finding in dashboard.findings] == ["failed-run", "overfitting", "slow-data"]
    assert titled(dashboard, "loss").findings[0].sentence.startswith("val_loss rose from its best value 0.4 at ")
    assert "55%" in titled(dashboard, "Waiting for data").findings[0].sentence


def test_of_several_runs_each_has_its_colour_and_its_name_in_findings() -> None:
    bad = replace(training_run("b" * 32), metrics={"train_loss": series("train_loss", [1, np.nan])})
    dashboard = reports.plot_training_metrics(ReportData("t", runs=(training_run(), bad)))
    loss = titled(dashboard, "loss")
    assert [(line.name, line.colour) for line in loss.lines] == [
        ("run-aaaaaaaa: training", 0),
        ("run-aaaaaaaa: validation", 0),
        ("run-bbbbbbbb: training", 1),
    ]
    found = find(dashboard, "training-metrics").findings
    assert [finding.sentence for finding in found if finding.rule == "not-finite"] == [
        "run-bbbbbbbb: train_loss is NaN or infinite at 1 of 2 points, first at step 1."
    ]


def test_every_metric_with_nan_or_infinity_is_in_one_finding() -> None:
    metrics = {
        "churn-rate": series("churn-rate", [np.nan]),
        "data_wait_share": series("data_wait_share", [0.1, np.nan]),
        "gradnorm": series("gradnorm", [1.0, 2.0, np.inf]),
        "loss": series("loss", [1.0, 0.5]),
        "x": series("x", [-np.inf, 0.5]),
    }
    data = ReportData("t", runs=(Run("r", metrics=metrics),))
    for plot in (reports.plot_training_metrics, reports.plot_comprehensive_dashboard):
        (finding,) = (found for found in plot(data).findings if found.rule == "not-finite")
        assert finding.sentence == (
            "churn-rate is NaN or infinite at 1 of 1 points, first at step 0; data_wait_share is NaN or infinite at 1 of 2 "
            "points, first at step 1; gradnorm is NaN or infinite at 1 of 3 points, first at step 2; and so is 1 more metric."
        )


def test_only_one_model_of_a_collector_is_shown_on_request() -> None:
    metrics = {key: series(key, [2.0, 1.0]) for key in ("a/train_loss", "b/train_loss")}
    dashboard = reports.plot_training_metrics(ReportData("t", runs=(Run("r", metrics=metrics),)), "b")
    assert [panel.title for panel in dashboard.panels if isinstance(panel, LinesPanel) and panel.lines] == ["loss of b"]
    assert [row[0].text for row in find(dashboard, "training-metrics").rows] == ["b/train_loss"]


def test_what_is_missing_is_noted_on_every_dashboard() -> None:
    data = replace(complete_report(), missing=(Missing("the history of val_loss", "the server is away"),))
    for plot in PLOTS:
        assert "Missing: the history of val_loss: the server is away." in plot(data).notes
