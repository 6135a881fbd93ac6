"""Callbacks that measure epochs, inference and resources. They translate Keras' hooks and forward.

On backends whose callbacks may run beside the training (torch, JAX), Keras calls the hooks at the end of a batch on other
threads, unless a callback is not safe for that. ``EpochMetrics`` is (``async_safe``), so that the training never waits for it.
``InferenceMetrics`` is not: a latency can be measured only where the batch runs.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras.callbacks import Callback

from keras_ipfs.devices import Device
from keras_ipfs.run_report import RunReport
from keras_ipfs.session_callback import SessionCallback
from keras_ipfs.sessions import Autologged
from mlflow_ipfs.training import metric_names as names
from mlflow_ipfs.training.dataset_upload import DatasetUpload
from mlflow_ipfs.training.epochs import EpochTimer
from mlflow_ipfs.training.hooks import forward_hooks
from mlflow_ipfs.training.latency import (
    DEFAULT_WARMUP,
    LatencyRecorder,
    guess_batch_size,
)
from mlflow_ipfs.training.resources import DEFAULT_INTERVAL_SECONDS, ResourceSampler

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from keras_ipfs.session_callback import Logs

_logger = logging.getLogger(__name__)


class EpochMetrics(SessionCallback):
    """Logs, for each epoch, losses and metrics with ``val_*``, the learning rate, seconds, throughput and the wait for data.

    The step is the number of the epoch. An ``evaluate`` outside of a fit logs ``test_*`` at the last epoch. The wait for data is
    logged on torch only: on other backends, Keras waits inside of a batch.

    Beside ``mlflow.keras.autolog`` and ``mlflow.tensorflow.autolog``, each metric is logged once: what autolog logs for each
    epoch is left out here. If autolog logs every n batches, only ``val_*`` is logged here, because the steps of autolog are
    batches. Autolog's own ``validation_*`` are the same values as ``val_*``, all at step 0.

    Args:
        batch_size: number of samples of a batch, for ``samples_per_second``; None to leave that out, because Keras does not
            tell callbacks. A smaller last batch of an epoch is counted as a full one.
    """

    async_safe = True

    def __init__(self, batch_size: int | None = None) -> None:
        super().__init__()
        self._timer = EpochTimer()
        self._batch_size = batch_size or 0
        self._batches = 0
        self._steps = sys.maxsize
        self._validation_seconds = 0.0
        self._late_rate: tuple[int, float, Logs] | None = None
        self._lock = threading.Lock()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the clock."""
        del epoch, logs
        self._log_late_rate()
        self._batches = 0
        self._steps = (self.params or {}).get("steps") or sys.maxsize
        self._validation_seconds = 0.0
        self._timer.start_epoch()

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """End the wait for data."""
        del batch, logs
        self._timer.start_batch()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Count the batches since the last call. May run on other threads, for two batches at once and out of order."""
        del logs
        with self._lock:
            # Several with steps_per_execution. In the last call of an epoch, Keras tells as many as in the others.
            count = max(min(batch + 1, self._steps) - self._batches, 0)
            self._batches += count
            self._timer.end_batch(count * self._batch_size, count)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Stop the clock during a validation."""
        super().on_test_begin(logs)
        if self._is_fitting:
            self._timer.pause()

    def on_test_end(self, logs: Logs = None) -> None:
        """Continue after a validation, or log an evaluation."""
        if self._is_fitting:
            self._validation_seconds += self._timer.resume()
        elif self._session is not None:
            metrics = {f"test_{name}": value for name, value in (logs or {}).items()}
            self._log(metrics, self._session.state.epoch)
        super().on_test_end(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Log the epoch."""
        if self._session is None:
            return
        self._session.state.epoch = epoch
        found: dict[str, Any] = {names.EPOCH: epoch, **self._timer.end_epoch()}
        if keras.backend.backend() != "torch":
            found.pop(names.DATA_WAIT_SHARE, None)
        if self._validation_seconds:
            found[names.VALIDATION_SECONDS] = self._validation_seconds
        rate = _learning_rate(self.model)
        if rate is not None and self._session.autologged is Autologged.EPOCHS:
            self._late_rate = epoch, rate, logs
        elif rate is not None:
            found[names.LEARNING_RATE] = rate
        self._log({**_own_part(logs, self._session.autologged), **found}, epoch)

    def on_train_end(self, logs: Logs = None) -> None:
        """Leave the session."""
        self._log_late_rate()
        super().on_train_end(logs)

    def _log_late_rate(self) -> None:
        """Log the learning rate of the last epoch, unless autolog has.

        Autolog logs the one that Keras' schedules and ReduceLROnPlateau add to the epoch's metrics, after this callback.
        """
        late, self._late_rate = self._late_rate, None
        if late is not None and names.LEARNING_RATE not in (late[2] or {}):
            self._log({names.LEARNING_RATE: late[1]}, late[0])


class InferenceMetrics(SessionCallback):
    """Logs the latency of ``model.predict``: percentiles, throughput and memory by batch size.

    The device is synchronised before and after each batch. On TensorFlow, the latency of a batch includes the time to get it
    from the data, because Keras calls the hook before. The histograms are stored in the run as
    ``inference/predict/latency.json``.

    Args:
        warmup: number of batches at the start that are dropped and counted.
    """

    def __init__(self, warmup: int = DEFAULT_WARMUP) -> None:
        super().__init__()
        self._warmup = warmup
        self._recorder = LatencyRecorder(warmup)
        self._device: Device | None = None
        self._started_ns = 0
        self._thread = 0
        self._is_elsewhere = False

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Start measuring."""
        super().on_predict_begin(logs)
        self._recorder = LatencyRecorder(self._warmup)
        self._device = Device()
        self._thread = threading.get_ident()
        self._is_elsewhere = False

    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Start the clock of a batch."""
        del batch, logs
        if self._device is not None:
            self._device.wait()
        self._started_ns = time.perf_counter_ns()

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Record the latency of a batch."""
        del batch
        if threading.get_ident() != self._thread:
            self._is_elsewhere = True
            return
        if self._device is None:
            return
        outputs = (logs or {}).get("outputs")
        self._device.wait(outputs)
        latency_ns = time.perf_counter_ns() - self._started_ns
        self._recorder.add(latency_ns, 1 if outputs is None else guess_batch_size(outputs), self._device.peak_memory())

    def on_predict_end(self, logs: Logs = None) -> None:
        """Log the latencies."""
        if self._is_elsewhere:
            _logger.warning(
                "latencies were not measured: Keras called the callback on another thread. Pass "
                "keras_ipfs.InferenceMetrics() to predict, instead of IPFSCallback()"
            )
        elif self._session is not None and self._recorder.first_batch_ns is not None:
            if problem := self._recorder.explain_nothing("predict"):
                _logger.warning("%s", problem)
            stage = f"{names.INFERENCE}/predict"
            self._log(self._recorder.metrics(stage), self._session.state.epoch)
            if self._session.log is not None:
                device = self._device.name if self._device is not None else ""
                data = self._recorder.to_json(device=device, stage="predict")
                self._session.log.log_artifact(f"{stage}/latency.json", data)
        super().on_predict_end(logs)


class Resources(SessionCallback):
    """Logs CPU, memory, disk, network and GPU of this node, from one thread.

    A call inside of a fit, from another callback, is sampled by the fit.

    Args:
        interval_seconds: the longest time between two samples; the first ones are closer together.
        node: name of this node in the keys; None for the host name.
    """

    def __init__(self, interval_seconds: float = DEFAULT_INTERVAL_SECONDS, node: str | None = None) -> None:
        super().__init__()
        self._interval_seconds = interval_seconds
        self._node = node

    def _enter(self, *, is_fit: bool = False) -> None:
        super()._enter(is_fit=is_fit)
        session = self._session
        if session is None or not session.owns_log:
            return
        sampler = ResourceSampler(
            session.log_metrics,
            interval_seconds=self._interval_seconds,
            node=self._node,
            first_number=session.sample_number,
        ).start()

        def stop() -> None:
            sampler.close()
            session.sample_number = sampler.number

        session.before_close.append(stop)


class DatasetInputs(SessionCallback):
    """Uploads files or directories as artifacts of the run of a fit and logs them as its inputs, with their CIDs.

    This runs on a thread beside the training. At the end of the training it gets ``wait_seconds`` to complete; a dataset that
    could not be logged by then is named in a warning, and the next fit tries again.

    Args:
        paths: files or directories; see ``mlflow_ipfs.log_dataset``.
        context: what the run uses them for; MLflow shows it.
        wait_seconds: how long the end of the training waits.
    """

    async_safe = True
    _is_only_one: ClassVar[bool] = False

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], context: str = "training", wait_seconds: float = 60.0
    ) -> None:
        super().__init__()
        self._left = list(paths)
        self._context = context
        self._wait_seconds = wait_seconds

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start logging the datasets."""
        super().on_train_begin(logs)
        session = self._session
        if not self._left or session is None or session.log is None:
            return
        upload = DatasetUpload(self._left, self._context, session.log, tracking_uri=None)

        def finish() -> None:
            self._left = upload.finish(self._wait_seconds)

        session.before_close.append(finish)


class IPFSCallback(Callback):  # type: ignore[misc] # Keras has no types
    """All of it with defaults: ``EpochMetrics``, ``InferenceMetrics``, ``Resources`` and ``DatasetInputs``.

    Args:
        batch_size: see ``EpochMetrics``.
        warmup: see ``InferenceMetrics``. On the torch and JAX backends, pass ``InferenceMetrics`` itself to ``predict``.
        resource_seconds: time between two samples of the resources; None to leave the resources out.
        datasets: files or directories to log as inputs of the run, with their CIDs.
        report: True to log the HTML report of the run to the run at the end, see ``RunReport``; a directory to write it there too.
    """

    async_safe = True

    def __init__(
        self,
        batch_size: int | None = None,
        *,
        datasets: Sequence[str | os.PathLike[str]] = (),
        warmup: int = DEFAULT_WARMUP,
        resource_seconds: float | None = DEFAULT_INTERVAL_SECONDS,
        report: bool | str | os.PathLike[str] = False,
    ) -> None:
        super().__init__()
        self._parts: list[SessionCallback] = [EpochMetrics(batch_size), InferenceMetrics(warmup)]
        if resource_seconds is not None:
            self._parts.append(Resources(resource_seconds))
        if datasets:
            self._parts.append(DatasetInputs(datasets))
        if report:
            self._parts.append(RunReport(None if report is True else report))
        forward_hooks(self, self._parts, Callback, _HOOKS)

    def set_model(self, model: Any) -> None:  # noqa: ANN401 - a Keras model
        """Pass the model to the parts."""
        super().set_model(model)
        for part in self._parts:
            part.set_model(model)

    def set_params(self, params: Any) -> None:  # noqa: ANN401 - Keras' parameters of a call
        """Pass the parameters to the parts."""
        super().set_params(params)
        for part in self._parts:
            part.set_params(params)


_HOOKS = tuple(
    name for name in dir(Callback) if name.startswith("on_") and name not in {"on_batch_begin", "on_batch_end"}
)


def _own_part(logs: Logs, autologged: Autologged) -> dict[str, Any]:
    """Return the losses and metrics of an epoch that autolog does not log."""
    if autologged is Autologged.EPOCHS:
        return {}
    if autologged is Autologged.BATCHES:
        return {name: value for name, value in (logs or {}).items() if name.startswith("val_")}
    return dict(logs or {})


def _learning_rate(model: Any) -> float | None:  # noqa: ANN401 - a Keras model
    """Return the current learning rate; None for a model without an optimizer."""
    rate = getattr(getattr(model, "optimizer", None), "learning_rate", None)
    if rate is None:
        return None
    return float(keras.ops.convert_to_numpy(rate))
