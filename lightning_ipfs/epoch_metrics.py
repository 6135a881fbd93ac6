"""The callback that measures epochs of training, and logs what the module logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_ipfs.module_metrics import BatchMetrics, EpochEnd, loop_metrics, steps
from lightning_ipfs.session_callback import SessionCallback
from mlflow_ipfs.training import metric_names as names
from mlflow_ipfs.training.epochs import EpochTimer
from mlflow_ipfs.training.latency import guess_batch_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class EpochMetrics(SessionCallback):
    """Logs, for each epoch, the metrics that the module logs, learning rates, seconds, throughput and the wait for data.

    Metrics of batches (``self.log(…, on_step=True)``) are logged every ``log_every_n_steps`` batches, as by any Lightning
    logger. The step is the number of batches that stepped, as in MLFlowLogger, and ``epoch`` is logged beside. If an MLflow
    logger or autolog already logs the module's metrics, they are not logged twice. The learning rates are those of the last
    batch of the epoch; with data of unknown length, those of the first one.

    Args:
        batch_size: returns the number of samples of a batch; None to take the length of its first tensor.
    """

    def __init__(self, batch_size: Callable[[Any], int] | None = None) -> None:
        super().__init__()
        self._timer = EpochTimer()
        self._size_of = batch_size or guess_batch_size
        self._measured: dict[str, Any] = {}
        self._rates: dict[str, float] = {}
        self._last_batch: float = 0
        self._validation_seconds: float | None = None
        self._batches: BatchMetrics | None = None
        self._epoch_end: EpochEnd | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Prepare to read the metrics of batches, on the rank that logs them, and start the clock."""
        del pl_module
        # Lightning does not call ``on_train_epoch_start`` if a fit is resumed inside an epoch.
        self._start_epoch(trainer)
        session = self._session
        if session is not None and trainer.is_global_zero and session.plan.logged_by is None:
            self._batches = BatchMetrics(trainer, self._log)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Start the clock."""
        del pl_module
        self._start_epoch(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """End the wait for data. Before the last batch, read the learning rates: its end is after the scheduler's step."""
        del pl_module, batch
        self._timer.start_batch()
        if batch_idx == self._last_batch:
            self._rates = learning_rates(trainer.optimizers)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Count the samples of the batch, and log its metrics if it is its turn."""
        del trainer, pl_module, outputs, batch_idx
        if self._batches is not None:
            self._batches.end_batch()
        self._timer.end_batch(self._size_of(batch))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Stop the clock while the validation runs, which is not part of the training."""
        del pl_module
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._timer.pause()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Log what the module logged in the validation, inside of a fit or not, and continue the clock."""
        del pl_module
        if trainer.sanity_checking:
            return
        self._log(self._module_metrics(trainer), steps(trainer))
        if trainer.state.fn == "fit":
            self._validation_seconds = (self._validation_seconds or 0.0) + self._timer.resume()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Stop the clock. The module's metrics follow when its own hook has ended."""
        del pl_module
        self._measured = self._timer.end_epoch(trainer.world_size) | self._rates
        if self._session is not None and self._session.plan.logged_by != "logger":  # Lightning gives it to loggers
            self._measured[names.EPOCH] = trainer.current_epoch
        if self._validation_seconds is not None:
            self._measured[names.VALIDATION_SECONDS] = self._validation_seconds
        if self._session is not None:
            self._epoch_end = EpochEnd(trainer, lambda: self._log_epoch(trainer))

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Log what the module logged in the test."""
        del pl_module
        self._log(self._module_metrics(trainer), steps(trainer))

    def _start_epoch(self, trainer: Any) -> None:  # noqa: ANN401
        self._validation_seconds = None
        self._rates = learning_rates(trainer.optimizers)
        self._last_batch = trainer.num_training_batches - 1  # infinite if the data has no length
        self._timer.start_epoch()

    def _log_epoch(self, trainer: Any) -> None:  # noqa: ANN401
        step = max(steps(trainer) - 1, 0)  # the last batch of the epoch, as in MLFlowLogger
        found = self._module_metrics(trainer) | self._measured
        if self._batches is not None and self._batches.has_logged(step):
            found.pop(names.EPOCH, None)
        self._log(found, step)

    def _module_metrics(self, trainer: Any) -> dict[str, Any]:  # noqa: ANN401
        if self._session is None or self._session.plan.logged_by is not None:
            return {}
        return loop_metrics(trainer)

    def _leave(self, trainer: Any, status: str) -> None:  # noqa: ANN401
        epoch_end, self._epoch_end = self._epoch_end, None
        if epoch_end is not None:
            epoch_end.remove(trainer)
        self._batches = None
        super()._leave(trainer, status)


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
