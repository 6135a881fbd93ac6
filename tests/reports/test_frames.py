"""Data frames: the operations that users do with them work at once."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from mlflow_ipfs.errors import SettingsError
from reports import ReportData, Run, Series, get_metrics_dataframe

START = 1_700_000_000_000


def series(key: str, values: list[float], steps: list[int] | None = None) -> Series:
    return Series.build(key, steps or range(len(values)), [START + 1000 * n for n in range(len(values))], values)


def make_run(run_id: str, *histories: Series) -> Run:
    system = {"node": {"cpu": series("cpu", [1.0, 2.0])}, "": {"disk": series("disk", [3.0])}}
    return Run(run_id, f"name of {run_id}", metrics={one.key: one for one in histories}, system=system)


DATA = ReportData(
    "t",
    runs=(make_run("r1", series("m/train_loss", [4.0, 3.0, 2.0, 1.0]), series("m/val_loss", [8.0, 6.0, 4.0, 2.0])),),
)


def test_the_frame_of_one_model_is_ready_for_rolling_and_corr() -> None:
    frame = get_metrics_dataframe(DATA, model_id="m")
    assert list(frame.columns) == ["train_loss", "val_loss"]
    assert frame.index.name == "step"
    assert frame["train_loss"].rolling(window=2).mean().iloc[-1] == 1.5
    assert frame["train_loss"].corr(frame["val_loss"]) == pytest.approx(1.0)


def test_a_frame_by_time_is_ready_for_resampling() -> None:
    frame = get_metrics_dataframe(DATA, index="time")
    assert str(frame.index.tz) == "UTC"
    assert frame["m/train_loss"].resample("2s").mean().tolist() == [3.5, 1.5]


def test_several_runs_have_an_index_of_run_and_step() -> None:
    data = ReportData("t", runs=(*DATA.runs, make_run("r2", series("loss", [1.0])), Run("r3")))
    frame = get_metrics_dataframe(data)
    assert frame.index.names == ["run_id", "step"]
    assert frame.loc["r1", "m/val_loss"].tolist() == [8.0, 6.0, 4.0, 2.0]
    assert frame.loc[("r2", 0), "loss"] == 1.0
    assert math.isnan(frame.loc[("r1", 0), "loss"])
    assert list(get_metrics_dataframe(data, run_id="r2").columns) == ["loss"]


def test_a_tidy_frame_has_a_row_for_each_point() -> None:
    frame = get_metrics_dataframe(DATA, shape="tidy", system=True)
    assert list(frame.columns) == ["run_id", "run_name", "metric", "step", "time", "value"]
    assert len(frame) == 11
    assert set(frame["metric"]) == {"m/train_loss", "m/val_loss", "system/node/cpu", "system/disk"}
    assert frame.groupby("metric", observed=True)["value"].min()["m/val_loss"] == 2.0
    assert frame["time"].iloc[1] == pd.Timestamp(START + 1000, unit="ms", tz="UTC")


def test_of_repeated_steps_the_latest_point_counts_and_negative_ones_are_kept() -> None:
    data = ReportData("t", runs=(make_run("r", series("loss", [1.0, 2.0, 3.0, math.nan], [5, -2, 5, 7])),))
    frame = get_metrics_dataframe(data)
    assert frame.index.tolist() == [-2, 5, 7]
    assert frame["loss"].tolist()[:2] == [2.0, 3.0]
    assert len(get_metrics_dataframe(data, shape="tidy")) == 4


@pytest.mark.parametrize("runs", [(), (Run("r"),), (Run("r"), Run("s")), (Run("r", metrics={"a": series("a", [])}),)])
@pytest.mark.parametrize("index", ["step", "time"])
def test_without_metrics_every_frame_is_empty(runs: tuple[Run, ...], index: str) -> None:
    data = ReportData("t", runs=runs)
    assert get_metrics_dataframe(data, index=index).empty  # type: ignore[arg-type]
    assert get_metrics_dataframe(data, shape="tidy").empty


def test_long_and_short_metrics_share_a_frame() -> None:
    data = ReportData("t", runs=(make_run("r", series("a", list(np.arange(1000.0))), series("b", [1.0], [500])),))
    frame = get_metrics_dataframe(data)
    assert len(frame) == 1000
    assert frame["b"].dropna().index.tolist() == [500]


def test_another_shape_or_index_is_refused() -> None:
    with pytest.raises(SettingsError, match="shape is 'wide' or 'tidy'"):
        get_metrics_dataframe(DATA, shape="long")  # type: ignore[arg-type]
