"""A tiny Keras model and its data, for the backend that ``KERAS_BACKEND`` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np
import pytest

if TYPE_CHECKING:
    from support.run_targets import MemoryTarget

X: Final = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")
Y: Final = np.random.default_rng(2).integers(0, 2, size=64)
BATCH_SIZE: Final = 16
IS_TENSORFLOW: Final = keras.backend.backend() == "tensorflow"

KERAS_MARKS: Final = [
    pytest.mark.frameworks,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras' own, with NumPy 2
]


def make_model() -> Any:
    """Return a compiled model of one layer."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    return model


def fit(model: Any, *callbacks: Any, epochs: int = 3) -> None:
    """Fit a model with validation."""
    model.fit(X, Y, epochs=epochs, batch_size=BATCH_SIZE, validation_data=(X, Y), verbose=0, callbacks=list(callbacks))


def steps(target: MemoryTarget, key: str) -> list[int]:
    """Return the steps of a metric, in the order of arrival."""
    return [step for step, _ in target.values(key)]


class Fails(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Ends the training with an exception."""

    def __init__(self, at_epoch: int = 1) -> None:
        super().__init__()
        self._at_epoch = at_epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        del logs
        if epoch == self._at_epoch:
            msg = "the training fails"
            raise RuntimeError(msg)
