"""The Keras callbacks in real fits: which metrics, at which steps, and on which threads."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import keras
import pytest

from keras_ipfs import EpochMetrics, InferenceMetrics, IPFSCallback
from mlflow_ipfs.training.latency import LatencyRecorder
from support.keras_models import BATCH_SIZE, IS_TENSORFLOW, KERAS_MARKS, X, Y, fit, steps

if TYPE_CHECKING:
    from support.run_targets import MemoryTarget

pytestmark = KERAS_MARKS


def test_everything_with_one_line(target: MemoryTarget, model: Any) -> None:
    fit(model, IPFSCallback(batch_size=BATCH_SIZE, resource_seconds=0.5))
    for key in ("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds", "validation_seconds", "epoch"):
        assert steps(target, key) == [0, 1, 2], key
    assert [rate for _, rate in target.values("learning_rate")] == pytest.approx([0.1] * 3)
    for (_, seconds), (_, rate) in zip(
        target.values("epoch_seconds"), target.values("samples_per_second"), strict=True
    ):
        assert rate == pytest.approx(len(X) / seconds)
    assert any(point.key.startswith("system/") for _, point in target.points)
    assert [status for _, status, _ in target.finished] == ["FINISHED"]


def test_validation_metrics_are_those_of_keras_history(target: MemoryTarget, model: Any) -> None:
    history = model.fit(
        X, Y, epochs=3, validation_split=0.5, validation_freq=2, verbose=0, callbacks=[EpochMetrics()]
    ).history
    assert steps(target, "val_loss") == [1], "validated once"
    assert target.values("val_loss")[0][1] == pytest.approx(history["val_loss"][0])
    assert [value for _, value in target.values("loss")] == pytest.approx(history["loss"])


def test_a_fit_that_continues_logs_at_its_epochs(target: MemoryTarget, model: Any) -> None:
    fit(model, EpochMetrics(), epochs=2)
    model.fit(X, Y, initial_epoch=2, epochs=4, verbose=0, callbacks=[EpochMetrics()])
    assert steps(target, "loss") == [0, 1, 2, 3]
    assert set(target.runs.values()) == {"run-1"}, "one run"


@pytest.mark.parametrize("kind", [InferenceMetrics, IPFSCallback] if IS_TENSORFLOW else [InferenceMetrics])
def test_inference(target: MemoryTarget, model: Any, kind: Any) -> None:
    model.predict(X, batch_size=4, verbose=0, callbacks=[kind(warmup=3)])
    assert target.values("inference/predict/measured_batches") == [(0, 13)]
    assert target.values("inference/predict/warmup_batches") == [(0, 3)]
    data = target.artifacts["inference/predict/latency.json"]
    assert json.loads(data)["loop"] == "closed"
    assert list(LatencyRecorder.from_json(data).histograms) == [4]


def test_an_evaluation_and_a_prediction_log_at_the_last_epoch(target: MemoryTarget, model: Any) -> None:
    fit(model, EpochMetrics(), epochs=2)
    model.evaluate(X, Y, verbose=0, callbacks=[EpochMetrics()])
    model.predict(X, batch_size=4, verbose=0, callbacks=[InferenceMetrics()])
    assert steps(target, "test_loss") == [1]
    assert steps(target, "inference/predict/latency_p50_ms") == [1]
    assert len(target.values("val_loss")) == 2
    assert set(target.runs.values()) == {"run-1"}, "one run"


class SlowData(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
    """Four batches, each of which takes 50 ms to load."""

    def __len__(self) -> int:
        return len(X) // BATCH_SIZE

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.05)
        part = slice(index * BATCH_SIZE, (index + 1) * BATCH_SIZE)
        return X[part], Y[part]


def test_the_share_of_time_that_waited_for_data(target: MemoryTarget, model: Any) -> None:
    model.fit(SlowData(), epochs=3, verbose=0, callbacks=[EpochMetrics()])
    seconds = dict(target.values("epoch_seconds"))
    waited = [share * seconds[epoch] for epoch, share in target.values("data_wait_share")]
    if IS_TENSORFLOW:
        assert waited == [], "Keras loads inside of the batch: 0 would be wrong"
    else:
        assert len(waited) == 3
        assert max(waited) > 0.1, "of 200 ms; a busy machine may tell the end of a batch late"


@pytest.mark.parametrize("at_once", [1, 3] if IS_TENSORFLOW else [1])
def test_all_batches_are_counted(target: MemoryTarget, model: Any, at_once: int) -> None:
    model.compile(optimizer="sgd", loss="mse", steps_per_execution=at_once)
    model.fit(X, X[:, :2], batch_size=BATCH_SIZE, epochs=2, verbose=0, callbacks=[EpochMetrics(BATCH_SIZE)])
    for key, count in {"batches_per_second": len(X) / BATCH_SIZE, "samples_per_second": len(X)}.items():
        rates = dict(target.values(key))
        for epoch, seconds in target.values("epoch_seconds"):
            assert rates[epoch] * seconds == pytest.approx(count), key
