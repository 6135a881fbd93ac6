"""The data model: order of points, infinity, groups of system metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

import reports
from reports.data import ModelVersion, ReportData, Run, Series, group_series, split_system_key

LARGEST = float(np.finfo(np.float64).max)


def test_points_are_sorted_by_step_then_time_then_value() -> None:
    series = Series.build("loss", [5, -3, 5, 5], [10, 20, 9, 9], [1.0, 2.0, 4.0, 3.0])
    assert series.steps.tolist() == [-3, 5, 5, 5]
    assert series.times_ms.tolist() == [20, 9, 9, 10]
    assert series.values.tolist() == [2.0, 3.0, 4.0, 1.0]
    assert series.last == 1.0


def test_nan_and_infinity_are_kept_and_mlflows_stored_infinity_is_restored() -> None:
    series = Series.build("loss", range(4), range(4), [math.nan, LARGEST, -LARGEST, 7.0])
    assert math.isnan(series.values[0])
    assert series.values[1:].tolist() == [math.inf, -math.inf, 7.0]
    assert series.finite.tolist() == [7.0]


def test_a_series_may_be_empty_or_have_one_point() -> None:
    assert len(Series.build("empty", [], [], [])) == 0
    assert Series.build("one", [0], [0], [math.nan]).finite.tolist() == []


def test_arrays_cannot_be_changed() -> None:
    series = Series.build("loss", [0], [0], [1.0])
    with pytest.raises(ValueError, match="read-only"):
        series.values[0] = 2.0


def test_the_callers_arrays_stay_writable() -> None:
    values, steps = np.array([1.0]), np.array([0])
    Series.build("loss", steps, steps, values)
    values[0], steps[0] = 3.0, 1
    assert values[0] == 3.0


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("system/node-1/gpu_0_power_usage_watts", ("node-1", "gpu_0_power_usage_watts")),
        ("system/cpu_utilization_percentage", ("", "cpu_utilization_percentage")),
        ("system/a/b/cpu", ("a/b", "cpu")),
        ("systematic/loss", None),
        ("loss", None),
    ],
)
def test_system_metrics_are_found_by_their_key(key: str, expected: tuple[str, str] | None) -> None:
    assert split_system_key(key) == expected


def test_histories_are_grouped_by_node() -> None:
    keys = ["system/b/cpu", "loss", "system/a/cpu", "a/loss"]
    groups = group_series({key: Series.build(key, [0], [0], [1.0]) for key in keys})
    assert list(groups["metrics"]) == ["a/loss", "loss"]
    assert {node: list(found) for node, found in groups["system"].items()} == {"a": ["cpu"], "b": ["cpu"]}
    assert groups["system"]["a"]["cpu"].key == "cpu"
    assert Run("r", **groups).point_count == 4


def test_a_report_finds_runs_and_their_versions() -> None:
    data = ReportData("t", runs=(Run("r1"),), versions=(ModelVersion("m", 1, "r1"), ModelVersion("m", 2, "r2")))
    assert data.find_run("r1") is data.runs[0]
    assert data.find_run("r2") is None
    assert [version.version for version in data.versions_of("r1")] == [1]


def test_a_run_has_no_duration_until_it_ends() -> None:
    assert Run("r", started_ms=1000).duration_seconds is None
    assert Run("r", started_ms=1000, ended_ms=3500).duration_seconds == 2.5


def test_every_public_name_leads_to_something() -> None:
    assert all(getattr(reports, name) is not None for name in reports.__all__)
    with pytest.raises(AttributeError):
        _ = reports.no_such_name
