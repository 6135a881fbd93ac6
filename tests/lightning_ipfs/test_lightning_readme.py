"""The Lightning lines of the README, run as printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pytorch_lightning")

from support.lightning_models import BATCHES, MARKS, build_model, loader
from support.readme_code import find_code, run_code

if TYPE_CHECKING:
    from support.run_targets import MemoryTarget

pytestmark = MARKS

LINES = "from lightning_ipfs import"


def test_the_lines_of_the_readme_run_as_printed(target: MemoryTarget, package: str) -> None:
    code = find_code(LINES)
    assert len(code.splitlines()) == 6
    assert "from pytorch_lightning import Trainer  # or lightning.pytorch" in code
    run_code(
        code.replace("pytorch_lightning", package, 1),
        model=build_model(package),
        train_data=loader(),
        val_data=loader(2),
        test_data=loader(8),
    )
    last_of_epochs = [BATCHES * epoch - 1 for epoch in range(1, 6)]
    for key in (
        "train_loss_epoch",
        "val_loss",
        "learning_rate",
        "epoch_seconds",
        "samples_per_second",
        "data_wait_share",
    ):
        assert [step for step, _ in target.values(key)] == last_of_epochs, key
    keys = {point.key for _, point in target.points}
    assert {"test_loss", "inference/test/latency_p50_ms", "inference/test/samples_per_second"} <= keys
    assert any(key.endswith("/cpu_utilization_percentage") for key in keys)
    assert set(target.runs.values()) == {"run-1"}
