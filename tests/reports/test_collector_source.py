"""A report of what a metrics collector recorded, without MLflow: the shape of the guide's own example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.training import MetricsCollector
from reports import export, get_metrics_dataframe, read_collector

if TYPE_CHECKING:
    from pathlib import Path


def train() -> MetricsCollector:
    metrics = MetricsCollector()
    for epoch in range(5):
        with metrics.track_training_epoch("model_1", epoch=epoch, num_samples=1000):
            metrics.record_metric(f"model_1/epoch/{epoch}/train_loss", 1.5 / (epoch + 1))
            metrics.record_metric(f"model_1/epoch/{epoch}/val_loss", 1.8 / (epoch + 1))
    for _ in range(20):
        with metrics.track_inference("model_1", batch_size=4):
            pass
    return metrics


def test_the_values_of_each_epoch_and_the_latencies_are_there() -> None:
    metrics = train()
    (run,) = read_collector(metrics).runs
    assert run.metrics["model_1/train_loss"].values.tolist() == [1.5 / (epoch + 1) for epoch in range(5)]
    assert run.metrics["model_1/epoch_seconds"].steps.tolist() == list(range(5))
    (latency,) = run.latencies
    assert latency.recorder.histograms[4].count == 15
    with metrics.track_inference("model_1", batch_size=4):
        pass
    assert latency.recorder.histograms[4].count == 15, "a report does not change later"


def test_the_guides_data_frame() -> None:
    frame = get_metrics_dataframe(read_collector(train()), model_id="model_1")
    assert frame["train_loss"].rolling(window=5).mean().notna().sum() == 1
    assert frame["train_loss"].corr(frame["val_loss"]) > 0.99


def test_every_format_can_be_written(tmp_path: Path) -> None:
    assert export(read_collector(train()), tmp_path, "txt,json,csv")
    assert "model_1/train_loss" in (tmp_path / "report.txt").read_text()
    assert export(read_collector(MetricsCollector(), "nothing yet"), tmp_path, "txt,json,csv")
    assert "none were logged" in (tmp_path / "report.txt").read_text()
