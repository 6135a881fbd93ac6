from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlflow_ipfs.training.epochs import EpochTimer

if TYPE_CHECKING:
    import pytest


def test_seconds_waits_and_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])
    timer = EpochTimer()

    def pass_seconds(seconds: float) -> None:
        now[0] += int(seconds * 1e9)

    for _ in range(2):  # an epoch starts from zero
        timer.start_epoch()
        for _ in range(4):
            pass_seconds(0.5)  # the loader
            timer.start_batch()
            pass_seconds(2)  # forward and backward
            timer.end_batch(32)
        timer.pause()
        pass_seconds(100)
        assert timer.resume() == 100
        found = timer.end_epoch(world_size=2)
    assert found == {
        "epoch_seconds": 10.0,
        "batches_per_second": 0.4,
        "data_wait_share": 0.2,
        "samples_per_second": 25.6,
    }


def test_an_epoch_without_batches() -> None:
    timer = EpochTimer()
    timer.start_epoch()
    found = timer.end_epoch()
    assert found["batches_per_second"] == 0
    assert "samples_per_second" not in found
