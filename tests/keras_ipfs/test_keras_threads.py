"""Threads on backends whose callbacks Keras may call beside the training. TensorFlow is not one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from keras_ipfs import EpochMetrics, InferenceMetrics, IPFSCallback, Resources
from support.keras_models import KERAS_MARKS, X

if TYPE_CHECKING:
    import pytest

    from support.run_targets import MemoryTarget

pytestmark = KERAS_MARKS


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


def test_latencies_of_another_thread_are_not_made_up(
    target: MemoryTarget, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model.predict(X, batch_size=4, verbose=0, callbacks=[IPFSCallback(resource_seconds=None)])
    assert not any(point.key.startswith("inference/") for _, point in target.points)
    assert "keras_ipfs.InferenceMetrics()" in caplog.text
