"""Callbacks that measure epochs, inference and resources. They translate Keras' hooks and forward.

On backends whose callbacks may run beside the training (torch, JAX), Keras calls the hooks at the end of a batch on other
threads, unless a callback is not safe for that. ``EpochMetrics`` is (``async_safe``), so that the training never waits for it.
``InferenceMetrics`` is not: a latency can be measured only where the batch runs.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from keras.callbacks import Callback

from keras_ipfs.sessions import Session, enter_session
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
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Logs: TypeAlias = Mapping[str, Any] | None

_logger = logging.getLogger(__name__)


class _SessionCallback(Callback):  # type: ignore[misc] # Keras has no types
    """A callback with a share of the model's session during ``fit``, ``evaluate`` and ``predict``.

    A validation in a fit is not a session of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._session: Session | None = None
        self._is_fitting = False

    def on_train_begin(self, logs: Logs = None) -> None:
        """Open the session."""
        del logs
        self._is_fitting = True
        self._session = enter_session(self.model, self)

    def on_train_end(self, logs: Logs = None) -> None:
        """Leave the session."""
        del logs
        self._is_fitting = False
        self._leave()

    def on_test_begin(self, logs: Logs = None) -> None:
        """Open the session of an ``evaluate`` outside of a fit."""
        del logs
        if not self._is_fitting:
            self._session = enter_session(self.model, self)

    def on_test_end(self, logs: Logs = None) -> None:
        """Leave the session of an ``evaluate`` outside of a fit."""
        del logs
        if not self._is_fitting:
            self._leave()

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Open the session."""
        del logs
        if not self._is_fitting:
            self._session = enter_session(self.model, self)

    def on_predict_end(self, logs: Logs = None) -> None:
        """Leave the session."""
        del logs
        if not self._is_fitting:
            self._leave()

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.leave(self.model, self)

    def _log(self, metrics: Mapping[str, Any], step: int) -> None:
        if self._session is not None and metrics:
            self._session.log.log_metrics(metrics, step)


class EpochMetrics(_SessionCallback):
    """Logs, for each epoch, losses and metrics with ``val_*``, the learning rate, seconds, throughput and the wait for data.

    The step is the number of the epoch. An ``evaluate`` outside of a fit logs ``test_*`` at the last epoch. If MLflow's autolog
    already logs losses and metrics, they are not logged twice.

    Args:
        batch_size: number of samples of a batch, for ``samples_per_second``; None to leave that out, because Keras does not
            tell callbacks.
    """

    async_safe = True

    def __init__(self, batch_size: int | None = None) -> None:
        super().__init__()
        self._timer = EpochTimer()
        self._batch_size = batch_size or 0
        self._epoch = 0
        self._validation_seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the clock."""
        del logs
        self._epoch = epoch
        self._validation_seconds = 0.0
        self._timer.start_epoch()

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """End the wait for data."""
        del batch, logs
        self._timer.start_batch()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Count the batch. May run on another thread."""
        del batch, logs
        self._timer.end_batch(self._batch_size)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Stop the clock during a validation."""
        super().on_test_begin(logs)
        if self._is_fitting:
            self._timer.pause()

    def on_test_end(self, logs: Logs = None) -> None:
        """Continue after a validation, or log an evaluation."""
        if self._is_fitting:
            self._validation_seconds += self._timer.resume()
        else:
            self._log({f"test_{name}": value for name, value in self._model_metrics(logs).items()}, self._epoch)
        super().on_test_end(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Log the epoch."""
        found: dict[str, Any] = {names.EPOCH: epoch, **self._timer.end_epoch()}
        if self._validation_seconds:
            found[names.VALIDATION_SECONDS] = self._validation_seconds
        rate = _learning_rate(self.model)
        if rate is not None:
            found[names.LEARNING_RATE] = rate
        self._log({**self._model_metrics(logs), **found}, epoch)

    def _model_metrics(self, logs: Logs) -> dict[str, Any]:
        if self._session is None or self._session.model_metrics_are_logged:
            return {}
        return dict(logs or {})


class InferenceMetrics(_SessionCallback):
    """Logs the latency of ``model.predict``: percentiles, throughput and memory by batch size.

    The histograms are stored in the run as ``inference/predict/latency.json``.

    Args:
        warmup: number of batches at the start that are dropped and counted.
    """

    def __init__(self, warmup: int = DEFAULT_WARMUP) -> None:
        super().__init__()
        self._warmup = warmup
        self._recorder = LatencyRecorder(warmup)
        self._wait: Callable[[], object] | None = None
        self._started_ns = 0
        self._thread = 0
        self._is_elsewhere = False

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Start measuring."""
        super().on_predict_begin(logs)
        self._recorder = LatencyRecorder(self._warmup)
        self._wait = find_synchronize()
        self._thread = threading.get_ident()
        self._is_elsewhere = False

    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Start the clock of a batch."""
        del batch, logs
        if self._wait is not None:
            self._wait()
        self._started_ns = time.perf_counter_ns()

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Record the latency of a batch."""
        del batch
        if threading.get_ident() != self._thread:
            self._is_elsewhere = True
            return
        if self._wait is not None:
            self._wait()
        latency_ns = time.perf_counter_ns() - self._started_ns
        outputs = (logs or {}).get("outputs")
        self._recorder.add(latency_ns, 1 if outputs is None else guess_batch_size(outputs), device_memory_bytes())

    def on_predict_end(self, logs: Logs = None) -> None:
        """Log the latencies."""
        if self._is_elsewhere:
            _logger.warning(
                "latencies were not measured: Keras called the callback on another thread. Pass "
                "keras_ipfs.InferenceMetrics() to predict, instead of IPFSCallback()"
            )
        elif self._session is not None and self._recorder.first_batch_ns is not None:
            stage = f"{names.INFERENCE}/predict"
            self._log(self._recorder.metrics(stage), 0)
            self._session.log.log_artifact(f"{stage}/latency.json", self._recorder.to_json(stage="predict"))
        super().on_predict_end(logs)


class Resources(_SessionCallback):
    """Logs CPU, memory, disk, network and GPU of this node, from one thread.

    Args:
        interval_seconds: time between two samples.
        node: name of this node in the keys; None for the host name.
    """

    def __init__(self, interval_seconds: float = DEFAULT_INTERVAL_SECONDS, node: str | None = None) -> None:
        super().__init__()
        self._series = ResourceSeries(interval_seconds, node)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start sampling."""
        super().on_train_begin(logs)
        self._start()

    def on_test_begin(self, logs: Logs = None) -> None:
        """Start sampling, outside of a fit."""
        super().on_test_begin(logs)
        self._start()

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Start sampling, outside of a fit."""
        super().on_predict_begin(logs)
        self._start()

    def _start(self) -> None:
        if self._session is not None:
            self._series.start(self._session.log.log_metrics)

    def _leave(self) -> None:
        self._series.stop()
        super()._leave()


class IPFSCallback(Callback):  # type: ignore[misc] # Keras has no types
    """All of it with defaults: ``EpochMetrics``, ``InferenceMetrics`` and ``Resources``.

    Args:
        batch_size: see ``EpochMetrics``.
        warmup: see ``InferenceMetrics``. On the torch and JAX backends, pass ``InferenceMetrics`` itself to ``predict``.
        resource_seconds: time between two samples of the resources; None to leave the resources out.
    """

    async_safe = True

    def __init__(
        self,
        batch_size: int | None = None,
        *,
        warmup: int = DEFAULT_WARMUP,
        resource_seconds: float | None = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        super().__init__()
        self._parts: list[_SessionCallback] = [EpochMetrics(batch_size), InferenceMetrics(warmup)]
        if resource_seconds is not None:
            self._parts.append(Resources(resource_seconds))
        forward_hooks(self, self._parts, Callback, _HOOKS)

    def set_model(self, model: Any) -> None:  # noqa: ANN401 - a Keras model
        """Pass the model to the parts."""
        super().set_model(model)
        for part in self._parts:
            part.set_model(model)


_HOOKS = tuple(
    name for name in dir(Callback) if name.startswith("on_") and name not in {"on_batch_begin", "on_batch_end"}
)


def _learning_rate(model: Any) -> float | None:  # noqa: ANN401 - a Keras model
    """Return the current learning rate; None for a model without an optimizer."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    from keras import ops  # noqa: PLC0415 - imports the backend, which a fit has imported

    return float(ops.convert_to_numpy(optimizer.learning_rate))
