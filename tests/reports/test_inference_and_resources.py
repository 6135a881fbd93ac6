"""The dashboards of inference and resources."""

from __future__ import annotations

import numpy as np
import pytest

import reports
from reports.dashboards import inference
from reports.dashboards.costs import costs_of
from reports.data import ReportData, Run, Series
from reports.text_format import to_text
from support.panels import find, titled
from support.report_samples import complete_report, latency, series


def test_inference_shows_percentiles_with_their_sample() -> None:
    report = complete_report()
    dashboard = reports.plot_inference_metrics(report)
    assert "closed loop" in dashboard.sentence
    histogram = find(dashboard, "inference-1-histogram")
    assert histogram.counts.sum() == 1195
    assert "of 1,195 measured batches" in histogram.sentence
    assert histogram.x.text == "latency of a batch (ms, log scale)"
    assert [(marker.label, marker.note) for marker in histogram.markers] == [("p50", ""), ("p95", ""), ("p99", "")]
    total = report.runs[0].latencies[0].recorder.total()
    assert [marker.value * 1e6 for marker in histogram.markers] == [
        pytest.approx(total.percentile_ns(share)) for share in (0.5, 0.95, 0.99)
    ]
    ecdf = find(dashboard, "inference-1-ecdf")
    assert [line.name for line in ecdf.lines] == [
        "size 1 (395 batches)",
        "size 8 (400 batches)",
        "size 64 (400 batches)",
    ]
    assert all(line.is_step and line.y[0] == 0 and line.y[-1] == pytest.approx(100) for line in ecdf.lines)
    assert find(dashboard, "inference-1-throughput").categories == ("1", "8", "64")
    assert find(dashboard, "inference-1-memory").groups[0].values.tolist() == [901, 908, 964]


def test_percentiles_of_a_small_sample_are_marked() -> None:
    data = ReportData("t", runs=(Run("r", latencies=(latency(35, (4,)),)),))
    dashboard = reports.plot_inference_metrics(data)
    notes = {marker.label: marker.note for marker in find(dashboard, "inference-1-histogram").markers}
    assert notes == {"p50": "", "p95": "", "p99": "of 30 batches only"}
    (row,) = find(dashboard, "inference-1-table").rows
    assert row[5].text.endswith("*")
    assert not row[2].text.endswith("*")


@pytest.mark.parametrize(
    ("batches", "words"), [(3, "All 3 batches were"), (1, "The only batch was"), (0, "No batch was")]
)
def test_inference_in_warm_up_only_says_so_once_with_what_it_needs(batches: int, words: str) -> None:
    data = ReportData("t", runs=(Run("r", latencies=(latency(batches, (4,)),)),))
    (panel,) = reports.plot_inference_metrics(data).panels
    assert panel.sentence.startswith(words)
    needs = "the first 5 batches of each loop are left out, and a p99 needs 100 batches after them."
    assert panel.sentence.endswith(needs)
    text = to_text(data)
    assert needs in " ".join(text.split())
    assert "batch size" not in text


def test_percentiles_without_their_histogram_are_a_table() -> None:
    key = "inference/predict/latency_p50_ms"
    table = find(
        inference.plot_inference_metrics(ReportData("t", runs=(Run("r", metrics={key: series(key, [4.5])}),))),
        "inference-metrics",
    )
    assert [cell.text for cell in table.rows[0]] == ["r", key, "4.5"]


def test_resources_are_shown_for_each_node() -> None:
    dashboard = reports.plot_worker_utilization(complete_report())
    heat = find(dashboard, "resources-1-heat-map")
    assert heat.rows == ("node-0 CPU", "node-1 CPU", "node-0 GPU 0", "node-1 GPU 0")
    assert heat.values.shape == (4, 60)
    assert np.isfinite(heat.values).all()
    assert heat.x.text == "time since the start (min)"
    assert (heat.scale.low, heat.scale.high, heat.scale.unit) == (0, 100, "%")
    assert [line.name for line in titled(dashboard, "Network").lines] == [
        "node-0 received",
        "node-0 sent",
        "node-1 received",
        "node-1 sent",
    ]
    assert titled(dashboard, "Power of the GPUs").y.text == "power (W)"
    assert len(titled(dashboard, "All system metrics").rows) == 22


def test_heat_map_columns_without_a_sample_are_gaps() -> None:
    values = series("cpu_utilization_percentage", [10.0, np.nan, 30.0], interval_ms=1000)
    run = Run("r", system={"": {"cpu_utilization_percentage": values}})
    heat = find(reports.plot_worker_utilization(ReportData("t", runs=(run,))), "resources-1-heat-map")
    assert heat.rows == ("node CPU",)
    assert [None if np.isnan(value) else value for value in heat.values[0]] == [10.0, None, 30.0]


def test_samples_at_equal_intervals_leave_no_gap_in_the_heat_map() -> None:
    values = series("cpu_utilization_percentage", np.arange(11.0), interval_ms=10_000)
    late = np.array([0, 900, 0, 900, 0, 900, 0, 900, 0, 900, -4000])  # the last one is taken at the end of the run
    shaken = Series.build(values.key, values.steps, values.times_ms + late, values.values)
    run = Run("r", system={"": {"cpu_utilization_percentage": shaken}})
    heat = find(reports.plot_worker_utilization(ReportData("t", runs=(run,))), "resources-1-heat-map")
    assert np.isfinite(heat.values).all()
    assert heat.values[0, :9].tolist() == values.values[:9].tolist()


def heat_of(seconds: list[float], values: list[float]) -> np.ndarray:
    """Return the cells of the heat map of one node with samples at some times."""
    key = "cpu_utilization_percentage"
    samples = Series.build(key, range(len(seconds)), [round(1000 * second) for second in seconds], values)
    run = Run("r", started_ms=0, system={"": {key: samples}})
    return np.asarray(
        find(reports.plot_worker_utilization(ReportData("t", runs=(run,))), "resources-1-heat-map").values[0]
    )


def test_uneven_intervals_leave_no_gap_in_the_heat_map() -> None:
    cells = heat_of([13, 23, 28, 34, 37], [10, 20, 30, 40, 50])
    assert len(cells) == 5
    assert np.isfinite(cells).all()
    assert cells[0] == 10
    assert 10 < cells[1] < 20, "between the samples before and after it"


@pytest.mark.parametrize("seed", range(20))
def test_jitter_leaves_no_gap_in_the_heat_map(seed: int) -> None:
    intervals = np.random.default_rng(seed).uniform(4, 9, 200)
    for count in (2, 3, 12, 50, 200):
        assert np.isfinite(heat_of(np.cumsum(intervals[:count]).tolist(), [50.0] * count)).all()


def test_a_pause_of_the_sampling_is_a_gap_in_the_heat_map() -> None:
    cells = heat_of([*range(0, 50, 5), *range(100, 150, 5)], [50.0] * 20)
    empty = np.flatnonzero(np.isnan(cells))
    assert 7 <= len(empty) <= 10
    assert np.isfinite(heat_of([0.0], [50.0])).all()


def test_a_short_run_has_no_pause_although_its_last_samples_are_close_together() -> None:
    seconds = [1.008, 3.015, 6.608, 6.892, 6.983]  # of a fit, a test and a predict
    assert np.isfinite(heat_of(seconds, [50.0] * 5)).all()
    times = [round(1000 * second) for second in seconds]
    use = Series.build("process_cpu_percentage", range(5), times, [100.0] * 5)
    found = {fact.label: fact.text for fact in costs_of(Run("r", system={"": {"process_cpu_percentage": use}}))}
    assert found["CPU time"] == "5.975 s of the training process, in the 5.975 s that were sampled"


def test_the_mean_use_of_gpus_is_one_over_time() -> None:
    use = Series(
        "system/node/gpu_0_utilization_percentage",
        steps=np.arange(4),
        times_ms=np.array([0, 1_000, 3_000, 13_000]),
        values=np.array([0.0, 0.0, 80.0, 80.0]),
    )
    run = Run("r", system={"node": {"gpu_0_utilization_percentage": use}})
    assert {fact.label: fact.text for fact in costs_of(run)}["GPU use"] == "67.69% on average"
