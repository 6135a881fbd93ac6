"""Metrics collector for training code without a framework: context managers that time, and values with metadata.

Everything is kept in memory for ``get_summary`` and ``to_dataframe``, and goes to an MLflow run if there is a run log.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from mlflow_ipfs.training import metric_names as names
from mlflow_ipfs.training.latency import LatencyRecorder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    import pandas as pd

    from mlflow_ipfs.training.runlog.run_log import RunLog

METADATA_ARTIFACT: Final = "metrics/metadata.json"
_EPOCH_NAME: Final = re.compile(r"(?P<model>.+)/epoch/(?P<step>\d+)/(?P<metric>[^/]+)")


class RecordedMetric(NamedTuple):
    """One recorded value.

    Attributes:
        key: the metric's key.
        value: the value.
        step: the step, an epoch for values that were recorded in one.
        timestamp: time in seconds since 1970.
        metadata: what the caller said about the value.
    """

    key: str
    value: float
    step: int
    timestamp: float
    metadata: Mapping[str, Any] | None


class MetricsCollector:
    """Records the metrics of any number of models. Thread-safe. A context manager that closes itself.

    Args:
        run_log: sends the metrics to an MLflow run; closed together with the collector. None: keep them here only.
            ``mlflow_ipfs.training.open_run_log`` opens one.
    """

    def __init__(self, run_log: RunLog | None = None) -> None:
        self._run_log = run_log
        self._records: list[RecordedMetric] = []
        self._inference: dict[str, LatencyRecorder] = defaultdict(LatencyRecorder)
        self._lock = threading.Lock()
        self._is_closed = False

    @contextmanager
    def track_training_epoch(self, model_id: str, epoch: int, num_samples: int | None = None) -> Iterator[None]:
        """Time an epoch. Records ``<model>/epoch_seconds``, and ``<model>/samples_per_second`` if the samples are known.

        An epoch that ends with an exception is not recorded, because its time means nothing.

        Args:
            model_id: the model.
            epoch: number of the epoch, the step of its metrics.
            num_samples: training samples of the epoch.
        """
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.record_metric(f"{model_id}/{names.EPOCH_SECONDS}", seconds, step=epoch)
        if num_samples is not None and seconds > 0:
            self.record_metric(f"{model_id}/{names.SAMPLES_PER_SECOND}", num_samples / seconds, step=epoch)

    @contextmanager
    def track_inference(self, model_id: str, batch_size: int = 1) -> Iterator[None]:
        """Time the inference of one batch. The caller waits for the device in the block.

        The percentiles of all batches are in ``get_summary``, and go to the run when the collector is closed. The first
        batches are warm-up, as in ``LatencyRecorder``.

        Args:
            model_id: the model.
            batch_size: number of samples of the batch.
        """
        started = time.perf_counter_ns()
        yield
        latency_ns = time.perf_counter_ns() - started
        with self._lock:
            self._inference[model_id].add(latency_ns, batch_size)

    @contextmanager
    def track_dataset_load(self, dataset_id: str, size_bytes: int | None = None) -> Iterator[None]:
        """Time loading of a dataset. Records ``<dataset>/dataset_load_seconds``, and the rate if the size is known."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.record_metric(f"{dataset_id}/{names.DATASET_LOAD_SECONDS}", seconds)
        if size_bytes is not None and seconds > 0:
            self.record_metric(f"{dataset_id}/{names.DATASET_BYTES_PER_SECOND}", size_bytes / seconds)

    def record_metric(
        self, name: str, value: float, metadata: Mapping[str, Any] | None = None, *, step: int | None = None
    ) -> None:
        """Record a value.

        Args:
            name: the key. ``m/epoch/3/train_loss`` is the key ``m/train_loss`` at step 3.
            value: a number.
            metadata: anything about the value that JSON can express. It is in the data frame, and in the artifact
                ``METADATA_ARTIFACT`` of the run.
            step: the step; None for the one in the name, else 0.
        """
        key, named_step = _split_name(name)
        record = RecordedMetric(key, float(value), named_step if step is None else step, time.time(), metadata)
        with self._lock:
            self._records.append(record)
        if self._run_log is not None:
            self._run_log.log_metrics({record.key: record.value}, record.step)

    def get_summary(self) -> dict[str, dict[str, float]]:
        """Return the count, last, lowest, highest and mean value of each metric, and the latencies of each model.

        NaN values are counted and otherwise left out.
        """
        with self._lock:
            records = list(self._records)
            inference = {model: recorder.metrics() for model, recorder in self._inference.items()}
        values: dict[str, list[float]] = defaultdict(list)
        for record in records:
            values[record.key].append(record.value)
        summary = {key: _summarise(found) for key, found in values.items()}
        for model, metrics in inference.items():
            summary |= {f"{model}/{name}": {"count": 1, "last": value} for name, value in metrics.items()}
        return summary

    def list_records(self) -> list[RecordedMetric]:
        """Return all recorded values, in the order in which they were recorded."""
        with self._lock:
            return list(self._records)

    def copy_latencies(self) -> dict[str, LatencyRecorder]:
        """Return the latencies of each model so far."""
        copies: dict[str, LatencyRecorder] = {}
        with self._lock:
            for model, recorder in self._inference.items():
                copies[model] = LatencyRecorder()
                copies[model].merge(recorder)
        return copies

    def to_dataframe(self) -> pd.DataFrame:
        """Return all recorded values: columns ``key``, ``value``, ``step``, ``time`` (UTC) and ``metadata``, by time.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd  # noqa: PLC0415 - an optional dependency

        records = self.list_records()
        frame = pd.DataFrame(records, columns=["key", "value", "step", "time", "metadata"])
        frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
        return frame

    def close(self, status: str = "FINISHED") -> None:
        """Send the latencies and the metadata to the run, and close the run log. A second call is a no-op.

        Args:
            status: the final status of a run that the run log created; the status of another run is left to its owner.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._run_log is None:
            return
        for model, recorder in self._inference.items():
            self._run_log.log_metrics({f"{model}/{name}": value for name, value in recorder.metrics().items()})
            self._run_log.log_artifact(f"{model}/{names.LATENCY_ARTIFACT}", recorder.to_json())
        described = [record._asdict() for record in self._records if record.metadata]
        if described:
            self._run_log.log_artifact(METADATA_ARTIFACT, json.dumps(described, default=str).encode())
        self._run_log.close(status if self._run_log.owns_run else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("FAILED" if kind else "FINISHED")


def _split_name(name: str) -> tuple[str, int]:
    found = _EPOCH_NAME.fullmatch(name)
    return (f"{found['model']}/{found['metric']}", int(found["step"])) if found else (name, 0)


def _summarise(values: list[float]) -> dict[str, float]:
    numbers = [value for value in values if value == value]  # noqa: PLR0124 - NaN is not equal to itself
    found: dict[str, float] = {"count": len(values), "last": values[-1]}
    if numbers:
        found |= {"min": min(numbers), "max": max(numbers), "mean": sum(numbers) / len(numbers)}
    return found
