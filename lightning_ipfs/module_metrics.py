"""The metrics that a module logs with ``self.log``, as Lightning passes them to a logger.

Lightning gives the metrics of batches to loggers only, and converts them before, which waits for the device. So this module
reads the results where Lightning keeps them. That is not public: if a version of Lightning keeps them elsewhere, metrics of
batches are left out, with a warning, and those at the end of epochs come from ``trainer.callback_metrics``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from lightning_ipfs.frameworks import base_classes
from mlflow_ipfs.training.metric_names import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_logger = logging.getLogger(__name__)

_NOT_METRICS: Final = frozenset({EPOCH, "step"})  # loggers use them as the step


def steps(trainer: Any) -> int:  # noqa: ANN401 - a Trainer of either package
    """Return the number of batches that stepped, which MLFlowLogger uses as the step. All optimizers count as one."""
    return int(getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step))


def loop_metrics(trainer: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what the module logged in the loop that ends now, by the names that a Lightning logger gets.

    The loop is an epoch of training, a validation or a test. All ranks must call this together: Lightning may reduce values
    over the ranks. A metric that was not logged in this loop is left out, although Lightning keeps its last value, and so is
    one that was logged with ``logger=False``, or for batches only.
    """
    values = dict(trainer.callback_metrics)
    try:
        logged = (one for one in _results(trainer) if one.meta.logger and not one.has_reset)
        names = {_name(trainer, result) for result in logged if result.meta.on_epoch}
    except AttributeError as error:
        _warn_once(error)
        is_inside_an_epoch = trainer.state.fn == "fit" and trainer.validating
        names = set() if is_inside_an_epoch else set(values)
    return {name: value for name, value in values.items() if name in names - _NOT_METRICS}


class BatchMetrics:
    """Reader of the metrics of batches. It reads as often as Lightning's loggers get them: ``log_every_n_steps``.

    Args:
        trainer: the Trainer, in a fit.
        log: gets the values, which may be tensors of a device, and the step.
    """

    def __init__(self, trainer: Any, log: Callable[[dict[str, Any], int], None]) -> None:  # noqa: ANN401
        self._trainer = trainer
        self._epoch_loop = trainer.fit_loop.epoch_loop
        self._log = log
        self._every = int(trainer.log_every_n_steps)
        self._last_step = -1

    def end_batch(self) -> None:
        """Log the metrics of a batch if it is its turn. Takes microseconds, and never waits for a device."""
        if not self._every:
            return
        try:
            step = self._epoch_loop._batches_that_stepped  # noqa: SLF001
            if (step + 1) % self._every == 0 or self._trainer.should_stop:
                self._read(step)
        except AttributeError as error:
            self._every = 0
            _warn_once(error)

    def has_logged(self, step: int) -> bool:
        """Return whether metrics of the batch of a step were logged, and with them the epoch."""
        return self._last_step == step

    def _read(self, step: int) -> None:
        trainer = self._trainer
        accumulates = trainer.accumulate_grad_batches > 1 and trainer.lightning_module.automatic_optimization
        if accumulates and self._epoch_loop._should_accumulate():  # noqa: SLF001
            return  # the batch belongs to a step that has not ended
        found = {}
        for result in _results(self._epoch_loop):
            value, meta = result._forward_cache, result.meta  # noqa: SLF001
            if value is not None and meta.on_step and meta.logger and not result.has_reset:
                found[meta.forked_name(on_step=True)] = value
        for name in _NOT_METRICS:
            found.pop(name, None)
        if found:
            found[EPOCH] = trainer.current_epoch
            self._log(found, step)
            self._last_step = step


def _results(loop: Any) -> Iterable[Any]:  # noqa: ANN401 - the loop of an epoch, or the Trainer for the running loop
    """Return what the module has logged in a loop, and in former ones."""
    results: Iterable[Any] = loop._results.values()  # noqa: SLF001
    return results


def _name(trainer: Any, result: Any) -> str:  # noqa: ANN401
    """Return the name of a loop's value: ``loss``, or ``loss_epoch`` if batches have values too."""
    _, name = trainer._results._forked_name(result, on_step=False)  # noqa: SLF001
    return str(name)


_warned: set[str] = set()


def _warn_once(error: AttributeError) -> None:
    if str(error) not in _warned:
        _warned.add(str(error))
        _logger.warning(
            "the metrics of batches cannot be read from this version of Lightning (%s) and are left out; "
            "lightning_ipfs.IPFSLogger logs them",
            error,
        )


class EpochEnd(*base_classes("callbacks", "Checkpoint")):  # type: ignore[misc] # the bases are known at run time
    """Calls a function once, at the end of an epoch of training, after the module's own ``on_train_epoch_end``.

    Lightning calls callbacks before the module, except those that monitor metrics: subclasses of ``Checkpoint``. A callback adds
    this one in its own ``on_train_epoch_end``. It is not there for longer, because each callback takes 17 microseconds of
    Lightning's time for each batch.

    Args:
        trainer: the Trainer.
        call: the function; all ranks call it.
    """

    def __init__(self, trainer: Any, call: Callable[[], None]) -> None:  # noqa: ANN401
        super().__init__()
        self._call = call
        trainer.callbacks = [*trainer.callbacks, self]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Remove this callback, and call the function."""
        del pl_module
        self.remove(trainer)
        self._call()

    def remove(self, trainer: Any) -> None:  # noqa: ANN401
        """Remove this callback from the Trainer: the module's hook may have failed."""
        trainer.callbacks = [callback for callback in trainer.callbacks if callback is not self]
