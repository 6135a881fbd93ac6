"""MLflow's autolog beside the Keras callbacks: each metric is logged once, in one run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import keras
import mlflow
import pytest

from keras_ipfs import EpochMetrics, IPFSCallback
from support.keras_models import IS_TENSORFLOW, KERAS_MARKS, X, Y, fit, make_model
from support.metric_steps import repeated, steps_in_mlflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

pytestmark = [
    *KERAS_MARKS,
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred"),  # MLflow's own, at the import of mlflow.pyfunc
]

EPOCHS = [0, 1, 2]
OPTIONS: dict[str, Any] = {"log_models": False, "log_datasets": False, "silent": True}
FLAVOURS = ["keras", "tensorflow"] if IS_TENSORFLOW else ["keras"]  # mlflow.tensorflow imports TensorFlow


@pytest.fixture
def autolog() -> Iterator[Any]:
    """Turn autolog on for the test."""
    used: set[str] = set()

    def turn_on(flavour: str, **options: Any) -> None:
        used.add(flavour)
        if flavour == "tensorflow":
            options["checkpoint"] = False
        getattr(mlflow, flavour).autolog(**(OPTIONS | options))

    yield turn_on
    for flavour in used:
        getattr(mlflow, flavour).autolog(disable=True)


class Pause(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Separates the points of our callback from those of autolog. MLflow stores equal points of one millisecond once."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        del epoch, logs
        time.sleep(0.01)


def fit_in_run(client: MlflowClient, *callbacks: Any) -> dict[str, list[int]]:
    """Fit a new model in a run of the user, and return the steps of all metrics."""
    with mlflow.start_run() as run:
        fit(make_model(), *callbacks, Pause())
    mlflow.flush_async_logging()
    return steps_in_mlflow(client, run.info.run_id)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_each_metric_is_logged_once(client: MlflowClient, autolog: Any, flavour: str) -> None:
    autolog(flavour)
    alone = fit_in_run(client)
    both = fit_in_run(client, IPFSCallback(batch_size=16, resource_seconds=0.5))
    assert repeated(both) == repeated(alone) == {"validation_loss": [0], "validation_accuracy": [0]}, "MLflow's own"
    for key in ("loss", "val_loss", "accuracy", "val_accuracy", "epoch_seconds", "samples_per_second", "learning_rate"):
        assert both[key] == EPOCHS, key


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_without_an_active_run_both_log_to_autologs_run(client: MlflowClient, autolog: Any, flavour: str) -> None:
    autolog(flavour)
    fit(make_model(), EpochMetrics(), Pause())
    mlflow.flush_async_logging()
    [run] = client.search_runs(["0"])
    found = steps_in_mlflow(client, run.info.run_id)
    assert found["loss"] == found["epoch_seconds"] == EPOCHS
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer_momentum" if flavour == "keras" else "opt_momentum"] == "0.0"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_autolog_by_batches_has_no_metrics_of_epochs(client: MlflowClient, autolog: Any, flavour: str) -> None:
    autolog(flavour, log_every_epoch=False, log_every_n_steps=2)
    found = fit_in_run(client, EpochMetrics())
    assert found["loss"] == [2, 4, 6, 8, 10, 12], "batches, from autolog alone"
    assert found["val_loss"] == found["learning_rate"] == EPOCHS
    assert set(repeated(found)) == {"validation_loss", "validation_accuracy"}


@pytest.mark.parametrize("is_last", [False, True])
def test_a_learning_rate_that_keras_reports_is_logged_once(
    client: MlflowClient, autolog: Any, *, is_last: bool
) -> None:
    autolog("keras")
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    with mlflow.start_run() as run:
        fit(make_model(), *([schedule, EpochMetrics()] if is_last else [EpochMetrics(), schedule]), Pause())
    mlflow.flush_async_logging()
    points = client.get_metric_history(run.info.run_id, "learning_rate")
    assert [point.value for point in sorted(points, key=lambda point: point.step)] == pytest.approx(
        [0.1, 0.05, 0.1 / 3]
    )


def test_what_autolog_leaves_out_is_logged(client: MlflowClient, autolog: Any) -> None:
    autolog("keras", exclusive=True)
    found = fit_in_run(client, EpochMetrics())
    assert found["loss"] == found["val_loss"] == EPOCHS, "exclusive: autolog does not log to runs of the user"
    autolog("keras", disable=True)
    assert fit_in_run(client, EpochMetrics())["loss"] == EPOCHS
    autolog("keras")
    model = make_model()
    with mlflow.start_run() as run:
        model.evaluate(X, Y, verbose=0, callbacks=[EpochMetrics()])
    assert steps_in_mlflow(client, run.info.run_id)["test_loss"] == [0], "autolog does not log evaluations"
