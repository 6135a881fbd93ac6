"""Callbacks that measure epochs, inference and resources. They translate Lightning's hooks and forward."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from lightning_ipfs.dataset_inputs import DatasetInputs
from lightning_ipfs.frameworks import base_classes
from lightning_ipfs.session_callback import SessionCallback
from mlflow_ipfs.training import metric_names as names
from mlflow_ipfs.training.epochs import EpochTimer
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

_NOT_METRICS: Final = frozenset({"epoch", "step"})


class EpochMetrics(SessionCallback):
    """Logs, for each epoch, the metrics that the module logs, learning rates, seconds, throughput and the wait for data.

    The step is the number of batches that stepped, as in MLFlowLogger, and ``epoch`` is logged beside. If an MLflow logger
    or autolog already logs the module's metrics, they are not logged twice.

    Args:
        batch_size: returns the number of samples of a batch; None to take the length of its first tensor.
    """

    def __init__(self, batch_size: Callable[[Any], int] | None = None) -> None:
        super().__init__()
        self._timer = EpochTimer()
        self._size_of = batch_size or guess_batch_size
        self._validation: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Start the clock."""
        del trainer, pl_module
        self._validation = {}
        self._timer.start_epoch()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """End the wait for data."""
        del trainer, pl_module, batch, batch_idx
        self._timer.start_batch()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Count the samples of the batch."""
        del trainer, pl_module, outputs, batch_idx
        self._timer.end_batch(self._size_of(batch))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Stop the clock while the validation runs, which is not part of the training."""
        del pl_module
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._timer.pause()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Continue, or log the metrics of a validation of its own."""
        del pl_module
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "fit":
            seconds = self._timer.resume() + self._validation.get(names.VALIDATION_SECONDS, 0.0)
            self._validation = {names.VALIDATION_SECONDS: seconds}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Log the epoch."""
        del pl_module
        found: dict[str, Any] = {names.EPOCH: trainer.current_epoch}
        found |= self._timer.end_epoch(trainer.world_size) | self._validation | learning_rates(trainer.optimizers)
        self._log(self._module_metrics(trainer) | found, _step(trainer))

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Log what the module logged in the test."""
        del pl_module
        self._log(self._module_metrics(trainer), _step(trainer))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401
        """Log the metrics of a validation outside of a fit, then leave."""
        if trainer.state.fn == "validate":
            self._log(self._module_metrics(trainer), _step(trainer))
        super().teardown(trainer, pl_module, stage)

    def _module_metrics(self, trainer: Any) -> dict[str, Any]:  # noqa: ANN401
        if self._session is None or self._session.plan.model_metrics_are_logged:
            return {}
        return {key: value for key, value in trainer.callback_metrics.items() if key not in _NOT_METRICS}


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
        if self._session is None or self._session.log is None or recorder.first_batch_ns is None:
            return
        if trainer.is_global_zero:
            self._log(recorder.metrics(f"{names.INFERENCE}/{stage}"), _step(trainer))
            data = recorder.to_json(device=device, stage=stage)
            self._session.log.log_artifact(f"{names.INFERENCE}/{stage}/latency.json", data)


class Resources(SessionCallback):
    """Logs CPU, memory, disk, network and GPU of each node, from one thread of one process of the node.

    Args:
        interval_seconds: time between two samples.
        node: name of this node in the keys; None for the host name.
    """

    def __init__(self, interval_seconds: float = DEFAULT_INTERVAL_SECONDS, node: str | None = None) -> None:
        super().__init__()
        self._series = ResourceSeries(interval_seconds, node)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401
        """Start sampling, in one process of each node."""
        super().setup(trainer, pl_module, stage)
        if trainer.local_rank == 0 and self._session is not None and self._session.log is not None:
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
    """

    def __init__(
        self,
        datasets: Sequence[str | os.PathLike[str]] = (),
        *,
        warmup: int = DEFAULT_WARMUP,
        resource_seconds: float | None = DEFAULT_INTERVAL_SECONDS,
        batch_size: Callable[[Any], int] | None = None,
    ) -> None:
        super().__init__()
        parts: list[SessionCallback] = [EpochMetrics(batch_size), InferenceMetrics(warmup, batch_size)]
        if resource_seconds is not None:
            parts.append(Resources(resource_seconds))
        if datasets:
            parts.append(DatasetInputs(datasets))
        forward_hooks(self, parts, _BASE, _HOOKS)


_BASE: Final = base_classes("callbacks", "Callback")[0]
_HOOKS: Final = tuple(name for name in dir(_BASE) if name.startswith("on_") or name in {"setup", "teardown"})


def learning_rates(optimizers: Sequence[Any]) -> dict[str, float]:
    """Return the learning rates by key: ``learning_rate``, or with a suffix if there are several optimizers or groups."""
    rates = [
        (f"{type(optimizer).__name__}-{number}" if len(optimizers) > 1 else "", group["lr"])
        for number, optimizer in enumerate(optimizers)
        for group in optimizer.param_groups
    ]
    if len(rates) == 1:
        return {names.LEARNING_RATE: rates[0][1]}
    found: dict[str, float] = {}
    for number, (optimizer_name, rate) in enumerate(rates):
        part = optimizer_name or f"group-{number}"
        key = f"{names.LEARNING_RATE}/{part}"
        found[key if key not in found else f"{key}/group-{number}"] = rate
    return found


def _step(trainer: Any) -> int:  # noqa: ANN401
    """Return the step that MLFlowLogger uses for the metrics of an epoch."""
    return max(int(trainer.fit_loop.epoch_loop._batches_that_stepped) - 1, 0)  # noqa: SLF001 - Lightning has no other


def _merge_ranks(recorder: LatencyRecorder, world_size: int) -> LatencyRecorder:
    """Return what all ranks recorded. All ranks must call this together."""
    from torch import distributed  # noqa: PLC0415 - only with several processes

    gathered: list[bytes] = [b""] * world_size
    distributed.all_gather_object(gathered, recorder.to_json())
    merged = LatencyRecorder.from_json(gathered[0])
    for data in gathered[1:]:
        merged.merge(LatencyRecorder.from_json(data))
    return merged
