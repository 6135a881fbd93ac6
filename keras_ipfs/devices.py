"""The device of Keras' backend: waiting for it, and its memory. No backend is imported here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import keras

from mlflow_ipfs.training.latency import device_memory_bytes, find_synchronize

if TYPE_CHECKING:
    from collections.abc import Callable


class Device:
    """The device on which the backend runs a model."""

    def __init__(self) -> None:
        self._backend = keras.backend.backend()
        self._synchronize: Callable[[], object] | None = None
        self._tensorflow: Any = None
        if self._backend == "torch":
            self._synchronize = find_synchronize()
        elif self._backend == "tensorflow" and sys.modules["tensorflow"].config.list_logical_devices("GPU"):
            self._tensorflow = sys.modules["tensorflow"]
            self._synchronize = self._tensorflow.test.experimental.sync_devices

    @property
    def name(self) -> str:
        """The kind of device, in the backend's words."""
        if self._backend == "jax":
            return str(sys.modules["jax"].default_backend())
        if self._tensorflow is not None:
            return "GPU:0"
        return "cpu" if self._synchronize is None else "cuda"

    def wait(self, outputs: object = None) -> None:
        """Wait until the device has computed the outputs, or all that it has been given."""
        if self._synchronize is not None:
            self._synchronize()
        elif self._backend == "jax" and outputs is not None:
            sys.modules["jax"].block_until_ready(outputs)

    def peak_memory(self) -> int | None:
        """Return the highest use of the device's memory so far, in bytes; on a CPU, that of the process."""
        if self._tensorflow is not None:
            return int(self._tensorflow.config.experimental.get_memory_info("GPU:0")["peak"])
        return device_memory_bytes()
