"""The metrics collector, with the calls of the integration guide."""

from __future__ import annotations

import json
import math
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.training import MetricsCollector
from support.run_targets import MemoryTarget, open_log

if TYPE_CHECKING:
    from pathlib import Path


def test_the_calls_of_the_guide_without_mlflow() -> None:
    metrics = MetricsCollector()
    with metrics.track_training_epoch("model_1", epoch=0, num_samples=1000):
        time.sleep(0.01)
        metrics.record_metric("model_1/epoch/0/train_loss", 1.5)
        metrics.record_metric("model_1/epoch/0/val_loss", 1.8, metadata={"split": "a"})
    with metrics.track_dataset_load("data", size_bytes=5_000_000):
        time.sleep(0.01)
    for _ in range(8):
        with metrics.track_inference("model_1", batch_size=4):
            time.sleep(0.002)
    summary = metrics.get_summary()
    assert summary["model_1/train_loss"] == {"count": 1, "last": 1.5, "min": 1.5, "max": 1.5, "mean": 1.5}
    assert summary["model_1/epoch_seconds"]["last"] >= 0.01
    assert summary["model_1/samples_per_second"]["last"] == pytest.approx(
        1000 / summary["model_1/epoch_seconds"]["last"]
    )
    assert summary["data/dataset_bytes_per_second"]["last"] < 5_000_000 / 0.01
    assert summary["model_1/inference/measured_batches"]["last"] == 3
    assert summary["model_1/inference/latency_p50_ms"]["last"] >= 2


def test_a_data_frame_has_every_value() -> None:
    metrics = MetricsCollector()
    for epoch in range(3):
        metrics.record_metric(f"m/epoch/{epoch}/loss", 1 / (epoch + 1), {"note": epoch} if epoch == 1 else None)
    frame = metrics.to_dataframe()
    assert list(frame["key"]) == ["m/loss"] * 3
    assert list(frame["step"]) == [0, 1, 2]
    assert list(frame["value"]) == [1, 0.5, pytest.approx(1 / 3)]
    assert frame["metadata"][1] == {"note": 1}
    assert str(frame["time"].dt.tz) == "UTC"
    assert MetricsCollector().to_dataframe().empty


def test_an_epoch_that_fails_has_no_time() -> None:
    metrics = MetricsCollector()
    with pytest.raises(ZeroDivisionError), metrics.track_training_epoch("m", 0):
        1 / 0  # noqa: B018 - the failure of a training
    assert metrics.get_summary() == {}


def test_nan_is_counted_and_is_no_mean() -> None:
    metrics = MetricsCollector()
    for value in (1.0, math.nan, 3.0):
        metrics.record_metric("m/loss", value)
    assert metrics.get_summary()["m/loss"] == {"count": 3, "last": 3.0, "min": 1.0, "max": 3.0, "mean": 2.0}


@pytest.mark.parametrize(
    ("run_id", "error", "finished"),
    [
        (None, None, ["FINISHED"]),
        (None, ValueError, ["FAILED"]),
        ("of-the-user", None, []),
        ("of-the-user", ValueError, []),
    ],
)
def test_the_run_ends_with_the_collector_that_made_it(
    tmp_path: Path, run_id: str | None, error: type[Exception] | None, finished: list[str]
) -> None:
    target = MemoryTarget()
    with suppress(ValueError), MetricsCollector(open_log(target, tmp_path, run_id=run_id)) as metrics:
        metrics.record_metric("m/loss", 0.5)
        if error is not None:
            raise error
    assert target.values("m/loss") == [(0, 0.5)]
    assert [status for _, status, _ in target.finished] == finished


def test_into_a_run(tmp_path: Path) -> None:
    target = MemoryTarget()
    with MetricsCollector(open_log(target, tmp_path)) as metrics:
        with metrics.track_training_epoch("m", epoch=2, num_samples=10):
            metrics.record_metric("m/epoch/2/loss", 0.5, {"why": "test"})
        with metrics.track_inference("m"):
            pass
    assert target.values("m/loss") == [(2, 0.5)]
    assert [step for step, _ in target.values("m/epoch_seconds")] == [2]
    assert target.values("m/inference/warmup_batches") == [(0, 1.0)]
    assert json.loads(target.artifacts["m/inference/latency.json"])["loop"] == "closed"
    [described] = json.loads(target.artifacts["metrics/metadata.json"])
    assert (described["key"], described["metadata"]) == ("m/loss", {"why": "test"})


def test_many_threads() -> None:
    metrics = MetricsCollector()

    def record() -> None:
        for number in range(500):
            metrics.record_metric("m/x", number)
            with metrics.track_inference("m"):
                pass

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    summary = metrics.get_summary()
    assert summary["m/x"]["count"] == 2000
    assert summary["m/inference/measured_batches"]["last"] + summary["m/inference/warmup_batches"]["last"] == 2000
