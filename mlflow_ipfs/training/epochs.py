"""Timing of epochs for the callbacks: seconds, samples per second, and the share of time that waited for data.

A hook costs two readings of a clock. Nothing is converted, and no device is synchronised: on a GPU the time of a single batch
means little, and the sum over an epoch is right.
"""

from __future__ import annotations

import time
from typing import Final

from mlflow_ipfs.training import metric_names as names

_NS: Final = 1e9


class EpochTimer:
    """Timer of the training part of epochs. Call its methods from the hooks of a framework, in their order."""

    def __init__(self) -> None:
        self._epoch_started = 0
        self._batch_ended = 0
        self._paused = 0
        self._waited_ns = 0
        self._paused_ns = 0
        self._started = 0
        self._ended = 0
        self._batches = 0
        self._samples = 0

    def start_epoch(self) -> None:
        """Start an epoch: the wait for the first batch begins."""
        self._epoch_started = self._batch_ended = time.perf_counter_ns()
        self._waited_ns = self._paused_ns = 0
        self._started = self._ended = self._batches = self._samples = 0

    def start_batch(self) -> None:
        """End the wait for a batch."""
        if self._started == self._ended:  # else the end of the last batch is still to be told, by another thread
            self._waited_ns += time.perf_counter_ns() - self._batch_ended
        self._started += 1

    def end_batch(self, samples: int, batches: int = 1) -> None:
        """Count a batch, or several that ran as one, and begin the wait for the next one."""
        self._ended += 1
        self._batches += batches
        self._samples += samples
        self._batch_ended = time.perf_counter_ns()

    def pause(self) -> None:
        """Stop the clock, for a validation inside an epoch."""
        self._paused = time.perf_counter_ns()

    def resume(self) -> float:
        """Continue after a validation. Return its seconds."""
        now = time.perf_counter_ns()
        paused = now - self._paused
        self._paused_ns += paused
        self._batch_ended = now
        return paused / _NS

    def end_epoch(self, world_size: int = 1) -> dict[str, float]:
        """Return the metrics of the epoch. Throughput is that of all ranks, which have equal shares of the samples."""
        seconds = (time.perf_counter_ns() - self._epoch_started - self._paused_ns) / _NS
        if seconds <= 0:
            return {}
        found = {
            names.EPOCH_SECONDS: seconds,
            names.BATCHES_PER_SECOND: self._batches / seconds,
            names.DATA_WAIT_SHARE: min(self._waited_ns / _NS / seconds, 1.0),
        }
        if self._samples:
            found[names.SAMPLES_PER_SECOND] = world_size * self._samples / seconds
        return found
