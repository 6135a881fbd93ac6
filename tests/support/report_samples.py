"""Data of reports made by hand, with seeds: complete runs, and runs with odd values."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from mlflow_ipfs.training.latency import LatencyRecorder
from reports.data import DatasetInput, Latency, ModelVersion, ReportData, Run, Series

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
HOSTILE = "</script><img onerror=alert(1)>$x_{1}$ & \x00\x1b[31m"
START_MS = 1_764_000_000_000
EPOCH_MS = 20_000


def series(key: str, values: ArrayLike, *, steps: ArrayLike | None = None, interval_ms: int = EPOCH_MS) -> Series:
    """Return a history with one point each interval."""
    found = np.asarray(values, np.float64)
    place = np.arange(len(found)) if steps is None else np.asarray(steps)
    return Series.build(key, place, START_MS + interval_ms * (1 + np.arange(len(found))), found)


def training_run(run_id: str = "a" * 32, *, epochs: int = 30, seed: int = 1, rate: float = 0.01) -> Run:
    """Return a run with everything: losses, speed, two nodes with a GPU each, inference, and a dataset with a CID."""
    rng = np.random.default_rng(seed)
    at = np.arange(epochs)
    loss = 2.3 * np.exp(-at / (epochs * 12 * rate)) + 0.08
    metrics = {
        "train_loss": loss * rng.normal(1, 0.02, epochs),
        "val_loss": loss * 1.1 * rng.normal(1, 0.03, epochs),
        "train_accuracy": 1 - loss / 3,
        "val_accuracy": 1 - loss / 2.8,
        "learning_rate": rate * (1 + np.cos(np.pi * at / epochs)) / 2 + 1e-5,
        "epoch_seconds": rng.normal(18, 0.6, epochs),
        "validation_seconds": rng.normal(2, 0.1, epochs),
        "samples_per_second": rng.normal(2700, 90, epochs),
        "batches_per_second": rng.normal(42, 1, epochs),
        "data_wait_share": rng.uniform(0.02, 0.06, epochs),
        "grad_norm": rng.uniform(0.5, 2, epochs),
    }
    return Run(
        run_id,
        f"run-{run_id[:8]}",
        "1",
        "digits",
        "FINISHED",
        START_MS,
        START_MS + EPOCH_MS * (epochs + 1),
        "ada",
        params={"learning_rate": str(rate), "batch_size": "64", "optimizer": "adam"},
        metrics={key: series(key, values) for key, values in sorted(metrics.items())},
        system={node: _system(rng, epochs * 8) for node in ("node-0", "node-1")},
        datasets=(
            DatasetInput("digits", "3f2a91bc", f"ipfs://{CID}", "training", CID, cid_is_certain=True, size_bytes=1000),
        ),
        latencies=(latency(),),
    )


def _system(rng: np.random.Generator, count: int) -> dict[str, Series]:
    interval = 2500
    values = {
        "cpu_utilization_percentage": rng.uniform(55, 80, count),
        "process_cpu_percentage": rng.uniform(300, 380, count),
        "process_memory_megabytes": rng.normal(1450, 5, count),
        "system_memory_usage_percentage": rng.normal(42, 0.5, count),
        "gpu_0_utilization_percentage": rng.uniform(70, 97, count),
        "gpu_0_memory_usage_percentage": rng.normal(61, 0.3, count),
        "gpu_0_power_usage_watts": rng.normal(280, 12, count),
        "disk_read_megabytes_per_second": rng.exponential(4, count),
        "disk_write_megabytes_per_second": rng.exponential(1, count),
        "network_receive_megabytes_per_second": rng.exponential(12, count),
        "network_transmit_megabytes_per_second": rng.exponential(9, count),
    }
    return {key: series(key, found, interval_ms=interval) for key, found in sorted(values.items())}


def latency(batches: int = 400, sizes: tuple[int, ...] = (1, 8, 64), seed: int = 3) -> Latency:
    """Return latencies of an inference with some batch sizes."""
    source = random.Random(seed)
    recorder = LatencyRecorder()
    for size in sizes:
        for _ in range(batches):
            milliseconds = (2 + 0.08 * size) * source.lognormvariate(0, 0.15)
            recorder.add(int(milliseconds * 1e6), size, memory_bytes=int(9e8 + 1e6 * size))
    return Latency("inference/predict/latency.json", "predict", "cuda:0", recorder)


def complete_report() -> ReportData:
    """Return a report of one complete run, with a frozen model version."""
    run = training_run()
    version = ModelVersion("digits", 1, run.run_id, CID, "models:/m-1", "READY", START_MS, ("champion",))
    return ReportData("digits, version 1", "sqlite:///mlflow.db", (run,), (version,))


def many_runs(count: int) -> ReportData:
    """Return a report of runs with different learning rates."""
    rates = np.geomspace(0.002, 0.2, count)
    runs = tuple(
        training_run(f"{number * 7919:08x}" + "0" * 24, epochs=20, seed=number, rate=float(f"{rate:.3g}"))
        for number, rate in enumerate(rates)
    )
    return ReportData("a sweep", "sqlite:///mlflow.db", runs)


def odd_report() -> ReportData:
    """Return a report of one run with every odd value: NaN, infinity, one point, negative and repeated steps, hostile names."""
    metrics = {
        "all_nan": series("all_nan", [np.nan] * 5),
        "loss": series("loss", [1.0, np.inf, np.nan, 0.5, -np.inf, 0.2]),
        "one_point": series("one_point", [0.25]),
        "negative/val_loss": series("negative/val_loss", [3.0, 2.0, 1.0, 1.5], steps=[-5, -5, 0, 0]),
        "empty_loss": series("empty_loss", []),
        HOSTILE: series(HOSTILE, [1.0, 2.0]),
    }
    run = Run(
        "f" * 32,
        HOSTILE,
        "1",
        HOSTILE,
        "FAILED",
        START_MS,
        None,
        HOSTILE,
        params={HOSTILE: HOSTILE, "huge": "x" * 6000},
        tags={HOSTILE: HOSTILE},
        metrics=metrics,
        datasets=(DatasetInput(HOSTILE, "d", "javascript:alert(1)", HOSTILE),),
        latencies=(latency(30, (4,)),),
    )
    return ReportData(HOSTILE, "http://tracking.example:5000", (run,), (ModelVersion(HOSTILE, 1, run.run_id),))
