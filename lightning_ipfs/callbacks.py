"""Callbacks that measure inference and resources, and the one that has everything. They translate hooks and forward."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from lightning_ipfs.dataset_inputs import DatasetInputs
from lightning_ipfs.epoch_metrics import EpochMetrics
from lightning_ipfs.frameworks import base_classes
from lightning_ipfs.module_metrics import steps
from lightning_ipfs.run_report import RunReport
from lightning_ipfs.session_callback import SessionCallback
from mlflow_ipfs.training import metric_names as names
from mlflow_ipfs.training.hooks import forward_hooks
from mlflow_ipfs.training.latency import (
    DEFAULT_WARMUP,
    LatencyRecorder,
    device_memory_bytes,
    find_synchronize,
    guess_batch_size,
)
from mlflow_ipfs.training.resources import DEFAULT_INTERVAL_SECONDS, ResourceSeries

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence


_logger = logging.getLogger(__name__)


class InferenceMetrics(SessionCallback):
    """Logs the latency of ``trainer.predict`` and ``trainer.test``: percentiles, throughput and memory, of all ranks.

    The device is synchronised before and after each batch of these loops, and never in training. The histograms are stored
    in the run as ``inference/<stage>/latency.json``.

    Args:
        warmup: number of batches at the start of each loop that are dropped and counted.
        batch_size: returns the number of samples of a batch; None to take the length of its first tensor.
    """

    def __init__(self, warmup: int = DEFAULT_WARMUP, batch_size: Callable[[Any], int] | None = None) -> None:
        super().__init__()
        self._warmup = warmup
        self._size_of = batch_size or guess_batch_size
        self._recorder = LatencyRecorder(warmup)
        self._wait: Callable[[], object] | None = None
        self._started_ns = 0

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Start measuring."""
        del trainer, pl_module
        self._start()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Start measuring."""
        del trainer, pl_module
        self._start()

    def on_predict_batch_start(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Start the clock of a batch."""
        self._start_batch()

    def on_test_batch_start(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Start the clock of a batch."""
        self._start_batch()

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Record the latency of a batch."""
        del trainer, pl_module, outputs
        self._end_batch(batch)

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Record the latency of a batch."""
        del trainer, pl_module, outputs
        self._end_batch(batch)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Log the latencies of all ranks."""
        self._finish(trainer, str(pl_module.device), "predict")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Log the latencies of all ranks."""
        self._finish(trainer, str(pl_module.device), "test")

    def _start(self) -> None:
        self._recorder = LatencyRecorder(self._warmup)
        self._wait = find_synchronize()

    def _start_batch(self) -> None:
        if self._wait is not None:
            self._wait()
        self._started_ns = time.perf_counter_ns()

    def _end_batch(self, batch: Any) -> None:  # noqa: ANN401
        if self._wait is not None:
            self._wait()
        latency_ns = time.perf_counter_ns() - self._started_ns
        self._recorder.add(latency_ns, self._size_of(batch), device_memory_bytes())

    def _finish(self, trainer: Any, device: str, stage: str) -> None:  # noqa: ANN401
        recorder = self._recorder
        if trainer.world_size > 1:
            recorder = _merge_ranks(recorder, trainer.world_size)
        session = self._session
        if session is None or session.log is None or not session.is_global_zero or recorder.first_batch_ns is None:
            return
        if problem := recorder.explain_nothing(stage):
            _logger.warning("%s", problem)
        session.log_metrics(recorder.metrics(f"{names.INFERENCE}/{stage}"), steps(trainer))
        data = recorder.to_json(device=device, stage=stage)
        session.log.log_artifact(f"{names.INFERENCE}/{stage}/latency.json", data)


class Resources(SessionCallback):
    """Logs CPU, memory, disk, network and GPU of each node, from one thread of one process of the node.

    Args:
        interval_seconds: the longest time between two samples; the first ones are closer together.
        node: name of this node in the keys; None for the host name.
    """

    def __init__(self, interval_seconds: float = DEFAULT_INTERVAL_SECONDS, node: str | None = None) -> None:
        super().__init__()
        self._series = ResourceSeries(interval_seconds, node)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401
        """Start sampling, in one process of each node."""
        super().setup(trainer, pl_module, stage)
        if self._session is not None and self._session.log is not None:  # local rank 0 has one
            self._series.start(self._session.log.log_metrics)

    def _leave(self, trainer: Any, status: str) -> None:  # noqa: ANN401
        self._series.stop()
        super()._leave(trainer, status)


class IPFSCallback(*base_classes("callbacks", "Callback")):  # type: ignore[misc] # the bases are known at run time
    """All of it with defaults: ``EpochMetrics``, ``InferenceMetrics``, ``Resources`` and ``DatasetInputs``.

    Args:
        datasets: files or directories to log as inputs of the run, with their CIDs.
        warmup: see ``InferenceMetrics``.
        resource_seconds: time between two samples of the resources; None to leave the resources out.
        batch_size: returns the number of samples of a batch; None to take the length of its first tensor.
        report: True to log the HTML report of the run to the run at the end, see ``RunReport``; a directory to write it there too.
    """

    def __init__(
        self,
        datasets: Sequence[str | os.PathLike[str]] = (),
        *,
        warmup: int = DEFAULT_WARMUP,
        resource_seconds: float | None = DEFAULT_INTERVAL_SECONDS,
        batch_size: Callable[[Any], int] | None = None,
        report: bool | str | os.PathLike[str] = False,
    ) -> None:
        super().__init__()
        parts: list[SessionCallback] = [EpochMetrics(batch_size), InferenceMetrics(warmup, batch_size)]
        if resource_seconds is not None:
            parts.append(Resources(resource_seconds))
        if datasets:
            parts.append(DatasetInputs(datasets))
        if report:
            parts.append(RunReport(None if report is True else report))
        forward_hooks(self, parts, _BASE, _HOOKS)


_BASE: Final = base_classes("callbacks", "Callback")[0]
_HOOKS: Final = tuple(name for name in dir(_BASE) if name.startswith("on_") or name in {"setup", "teardown"})


def _merge_ranks(recorder: LatencyRecorder, world_size: int) -> LatencyRecorder:
    """Return what all ranks recorded. All ranks must call this together."""
    from torch import distributed  # noqa: PLC0415 - only with several processes

    gathered: list[bytes] = [b""] * world_size
    distributed.all_gather_object(gathered, recorder.to_json())
    merged = LatencyRecorder.from_json(gathered[0])
    for data in gathered[1:]:
        merged.merge(LatencyRecorder.from_json(data))
    return merged
