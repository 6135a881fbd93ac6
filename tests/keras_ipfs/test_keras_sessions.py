"""Calls of one model that end with an exception, happen inside each other, or belong to several runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import mlflow
import pytest

from keras_ipfs import EpochMetrics, InferenceMetrics, IPFSCallback, Resources
from mlflow_ipfs.training.runlog import opening
from mlflow_ipfs.training.runlog.run_log import RunLog
from support.keras_models import KERAS_MARKS, Fails, X, Y, fit, make_model, steps

if TYPE_CHECKING:
    from pathlib import Path

    from support.run_targets import MemoryTarget

pytestmark = KERAS_MARKS


class ActiveRun:
    """What ``mlflow.active_run`` returns in a run of the user."""

    def __init__(self, run_id: str) -> None:
        self.info = type("Info", (), {"run_id": run_id})


def all_samples(target: MemoryTarget) -> list[int]:
    [key] = {point.key for _, point in target.points if "cpu_utilization" in point.key}
    return steps(target, key)


@pytest.mark.parametrize("is_new", [False, True])
def test_after_an_exception_the_metrics_are_there_and_the_next_fit_works(
    target: MemoryTarget, model: Any, *, is_new: bool
) -> None:
    callback = IPFSCallback(resource_seconds=0.5)
    with pytest.raises(RuntimeError, match="fails"):
        fit(model, callback, Fails())
    fit(model, IPFSCallback(resource_seconds=0.5) if is_new else callback, epochs=1)
    assert steps(target, "loss") == [0, 1, 0]
    assert len(target.runs) == 1
    assert [status for _, status, _ in target.finished] == ["FAILED", "FINISHED"]
    assert all_samples(target) == list(range(len(all_samples(target)))), "one series, also after the exception"


def test_a_callback_that_is_given_twice_logs_once(
    target: MemoryTarget, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    callbacks = IPFSCallback(resource_seconds=0.5), IPFSCallback(resource_seconds=0.5)
    fit(model, *callbacks)
    for key in ("loss", "val_loss", "epoch_seconds", "learning_rate"):
        assert steps(target, key) == [0, 1, 2], key
    assert all_samples(target) == list(range(len(all_samples(target))))
    assert "the callback EpochMetrics is given twice" in caplog.text
    model.evaluate(X, Y, verbose=0, callbacks=list(callbacks))
    assert steps(target, "test_loss") == [2]
    assert [status for _, status, _ in target.finished] == ["FINISHED"] * 2


def test_an_evaluation_after_an_exception_is_not_a_validation(target: MemoryTarget, model: Any) -> None:
    callback = IPFSCallback(resource_seconds=None)
    with pytest.raises(RuntimeError, match="fails"):
        fit(model, callback, Fails())
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    fit(model, callback, epochs=1)
    assert steps(target, "test_loss") == [1]
    assert len(target.runs) == 1


def test_after_an_exception_the_next_run_gets_its_own_metrics(
    target: MemoryTarget, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "active_run", lambda: ActiveRun("first"))
    with pytest.raises(RuntimeError, match="fails"):
        fit(model, EpochMetrics(), Fails(at_epoch=0))
    monkeypatch.setattr(mlflow, "active_run", lambda: ActiveRun("second"))
    model.evaluate(X, Y, verbose=0, callbacks=[EpochMetrics()])
    fit(model, EpochMetrics(), epochs=1)
    runs = {key: {run for run, point in target.points if point.key == key} for key in ("loss", "test_loss")}
    assert runs == {"loss": {"first", "second"}, "test_loss": {"second"}}
    assert target.finished == [], "the runs are the user's"


class PredictsAtEpochEnd(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    def __init__(self, make_callbacks: Any) -> None:
        super().__init__()
        self._make_callbacks = make_callbacks

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        del epoch, logs
        self.model.predict(X, batch_size=4, verbose=0, callbacks=self._make_callbacks())


@pytest.mark.parametrize("is_same", [False, True])
def test_a_prediction_inside_a_fit_leaves_the_fit_alone(target: MemoryTarget, model: Any, *, is_same: bool) -> None:
    parts = [EpochMetrics(), InferenceMetrics(), Resources(0.5)]
    inner = PredictsAtEpochEnd(lambda: list(parts) if is_same else [InferenceMetrics()])
    fit(model, *parts, inner)
    assert steps(target, "loss") == steps(target, "val_loss") == [0, 1, 2]
    assert steps(target, "inference/predict/measured_batches") == [0, 1, 2]
    assert not any(point.key.startswith("test_") for _, point in target.points)
    assert len(target.runs) == 1
    assert [status for _, status, _ in target.finished] == ["FINISHED"]


def test_samples_of_resources_are_one_series_of_the_run(
    target: MemoryTarget, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "active_run", lambda: ActiveRun("mine"))
    fit(model, Resources(0.5), epochs=1)
    model.evaluate(X, Y, verbose=0, callbacks=[Resources(0.5)])
    fit(make_model(), Resources(0.5), epochs=1)
    assert len(all_samples(target)) >= 3
    assert all_samples(target) == list(range(len(all_samples(target))))


def test_while_mlflow_is_away_the_calls_of_a_model_are_still_one_run(
    target: MemoryTarget, model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def open_impatient(*args: Any, **options: Any) -> RunLog:
        return RunLog(*args, **(options | {"close_seconds": 0.1}))

    monkeypatch.setattr(opening, "RunLog", open_impatient)
    target.is_away = True
    fit(model, EpochMetrics(), epochs=1)
    model.evaluate(X, Y, verbose=0, callbacks=[EpochMetrics()])
    assert target.runs == {}
    target.is_away = False
    for status in opening.sync_run_logs(tmp_path / "runlog", "http://127.0.0.1:1", target=target):
        assert status.problem is None
    assert len(target.runs) == 1
    assert steps(target, "loss") == steps(target, "test_loss") == [0]


def test_a_run_log_that_cannot_be_created_does_not_stop_the_training(
    model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "file" / "runlog"))
    fit(model, EpochMetrics(), InferenceMetrics(), Resources(), epochs=2)
    model.predict(X, verbose=0, callbacks=[InferenceMetrics()])
    assert len(model.history.epoch) == 2
    assert "the run log cannot be created" in caplog.text
