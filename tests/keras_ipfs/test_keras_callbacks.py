"""The Keras callbacks in real fits, on the torch backend."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import json
import sys
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest

from mlflow_ipfs.training.latency import LatencyRecorder
from mlflow_ipfs.training.runlog import opening
from support.run_targets import MemoryTarget

keras = pytest.importorskip("keras")

from keras_ipfs import EpochMetrics, InferenceMetrics, IPFSCallback, Resources  # noqa: E402 - needs Keras

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras' own, with NumPy 2
]

X = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")
Y = np.random.default_rng(2).integers(0, 2, size=64)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryTarget]:
    target = MemoryTarget()
    monkeypatch.setattr(opening, "MlflowTarget", lambda _: target)
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "runlog"))
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    yield target
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


@pytest.fixture
def model() -> Any:
    model = keras.Sequential([keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    return model


def fit(model: Any, *callbacks: Any, epochs: int = 3) -> None:
    model.fit(X, Y, epochs=epochs, batch_size=16, validation_data=(X, Y), verbose=0, callbacks=list(callbacks))


def test_everything_with_one_line(target: MemoryTarget, model: Any) -> None:
    fit(model, IPFSCallback(batch_size=16, resource_seconds=0.5))
    for key in ("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds", "validation_seconds", "epoch"):
        assert [step for step, _ in target.values(key)] == [0, 1, 2], key
    assert [rate for _, rate in target.values("learning_rate")] == pytest.approx([0.1] * 3)
    for (_, seconds), (_, rate) in zip(
        target.values("epoch_seconds"), target.values("samples_per_second"), strict=True
    ):
        assert rate == pytest.approx(64 / seconds)
    assert any(point.key.startswith("system/") for _, point in target.points)
    assert [status for _, status, _ in target.finished] == ["FINISHED"]
    assert "tensorflow" not in sys.modules


def test_a_callback_leaves_asynchronous_dispatch_on(target: MemoryTarget, model: Any) -> None:
    del target
    kinds = {
        EpochMetrics(): (True, True),
        IPFSCallback(): (True, True),
        InferenceMetrics(): (True, False),
        Resources(): (True, True),
    }
    for callback, (train, predict) in kinds.items():
        found = keras.callbacks.CallbackList([callback], model=model)
        assert (found._async_train, found._async_predict) == (train, predict), callback


def test_inference(target: MemoryTarget, model: Any) -> None:
    model.predict(X, batch_size=4, verbose=0, callbacks=[InferenceMetrics(warmup=3)])
    assert target.values("inference/predict/measured_batches") == [(0, 13)]
    assert target.values("inference/predict/warmup_batches") == [(0, 3)]
    data = target.artifacts["inference/predict/latency.json"]
    assert json.loads(data)["loop"] == "closed"
    assert list(LatencyRecorder.from_json(data).histograms) == [4]


def test_latencies_of_another_thread_are_not_made_up(
    target: MemoryTarget, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model.predict(X, batch_size=4, verbose=0, callbacks=[IPFSCallback(resource_seconds=None)])
    assert not any(point.key.startswith("inference/") for _, point in target.points)
    assert "keras_ipfs.InferenceMetrics()" in caplog.text


def test_an_evaluation_alone(target: MemoryTarget, model: Any) -> None:
    callback = EpochMetrics()
    fit(model, callback, epochs=2)
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    assert [step for step, _ in target.values("test_loss")] == [1]
    assert len(target.values("val_loss")) == 2
    assert set(target.runs.values()) == {"run-1"}, "one run"


class Fails(keras.callbacks.Callback):  # type: ignore[misc,name-defined] # Keras has no types
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        del logs
        if epoch == 1:
            msg = "the training fails"
            raise RuntimeError(msg)


def test_after_an_exception_the_metrics_are_there_and_the_next_fit_works(target: MemoryTarget, model: Any) -> None:
    callback = IPFSCallback(resource_seconds=None)
    with pytest.raises(RuntimeError, match="fails"):
        fit(model, callback, Fails())
    fit(model, callback, epochs=1)
    assert [step for step, _ in target.values("loss")] == [0, 1, 0]
    assert len(target.runs) == 1


def test_with_an_active_run_and_autolog_nothing_is_logged_twice(
    target: MemoryTarget, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Active:
        class info:  # noqa: N801 - MLflow's attribute
            run_id = "mine"

    monkeypatch.setattr(mlflow, "active_run", Active)
    monkeypatch.setattr("keras_ipfs.sessions._autologs", lambda: True)
    fit(model, EpochMetrics(), epochs=1)
    keys = {point.key for _, point in target.points}
    assert "epoch_seconds" in keys
    assert not {"loss", "val_loss"} & keys
    assert {run for run, _ in target.points} == {"mine"}
    assert target.finished == []
