"""Waiting for devices that this machine may not have: stand-ins for the backends, and the real backend on the CPU."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import keras

from keras_ipfs import InferenceMetrics
from keras_ipfs.devices import Device
from support.keras_models import KERAS_MARKS, X, make_model

if TYPE_CHECKING:
    import pytest

    from support.run_targets import MemoryTarget

pytestmark = KERAS_MARKS


def test_tensorflow_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    config = SimpleNamespace(
        list_logical_devices=lambda kind: [kind],
        experimental=SimpleNamespace(get_memory_info=lambda device: {"peak": 7 if device == "GPU:0" else 0}),
    )
    test = SimpleNamespace(experimental=SimpleNamespace(sync_devices=lambda: waits.append(1)))
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config, test=test))
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    device = Device()
    device.wait()
    device.wait("outputs")
    assert len(waits) == 2
    assert device.peak_memory() == 7
    assert device.name == "GPU:0"


def test_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setitem(
        sys.modules, "jax", SimpleNamespace(block_until_ready=waited.append, default_backend=lambda: "tpu")
    )
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    device = Device()
    device.wait()
    device.wait("outputs")
    assert waited == ["outputs"]
    assert device.name == "tpu"


def test_each_batch_is_waited_for(target: MemoryTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr(Device, "wait", lambda _, outputs=None: waited.append(outputs))
    make_model().predict(X, batch_size=16, verbose=0, callbacks=[InferenceMetrics()])
    assert [outputs is not None for outputs in waited] == [False, True] * 4, "before and after each batch"
    assert json.loads(target.artifacts["inference/predict/latency.json"])["device"] == "cpu"
    [(_, memory)] = target.values("inference/predict/peak_memory_mb") or [(0, 0.0)]
    assert memory >= 0
