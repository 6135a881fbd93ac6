"""A tiny Lightning module and its data, for both packages: ``pytorch_lightning`` and ``lightning.pytorch``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

BATCHES = 6
BATCH_SIZE = 8
LAST = BATCHES - 1  # step of the first epoch's metrics, as in MLFlowLogger

MARKS = [
    pytest.mark.frameworks,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Lightning's advice on workers and loggers
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries that Lightning uses
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class ModelSteps:
    """One layer. It logs what users log: a loss by step and by epoch, a validation and a test loss.

    Args:
        optimizers: number of optimizers; with two, the module optimizes by hand.
        fail_at: the step at which the training raises ``error``; None for never.
        error: the exception.
    """

    def __init__(
        self, *, optimizers: int = 1, fail_at: int | None = None, error: type[BaseException] = RuntimeError
    ) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.other = torch.nn.Linear(4, 2)
        self.count = optimizers
        self.fail_at = fail_at
        self.error = error
        self.automatic_optimization = optimizers == 1

    def _loss(self: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(self.layer(batch[0]) + self.other(batch[0]), batch[1])

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.fail_at is not None and self.global_step >= self.fail_at:
            msg = f"step {batch_idx} failed"
            raise self.error(msg)
        loss = self._loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def validation_step(self: Any, batch: Any, _: int) -> None:
        self.log("val_loss", self._loss(batch))

    def test_step(self: Any, batch: Any, batch_idx: int) -> None:
        del batch_idx
        self.log("test_loss", self._loss(batch))

    def predict_step(self: Any, batch: Any, _: int) -> Any:
        return self.layer(batch[0])

    def configure_optimizers(self) -> Any:
        layers = [self.layer, self.other][: self.count]
        return [torch.optim.SGD(layer.parameters(), lr=0.1 / 10**number) for number, layer in enumerate(layers)]


def build_model(package: str = "pytorch_lightning", steps: type[Any] = ModelSteps, **options: Any) -> Any:
    """Return a module of a Lightning package with the methods of ``steps``."""
    return type("Model", (steps, import_module(package).LightningModule), {})(**options)


def loader(batches: int = BATCHES) -> DataLoader[Any]:
    """Return random data."""
    count = batches * BATCH_SIZE
    return DataLoader(TensorDataset(torch.randn(count, 4), torch.randint(0, 2, (count,))), batch_size=BATCH_SIZE)


def trainer(*callbacks: Any, package: str = "pytorch_lightning", **options: Any) -> Any:
    """Return a quiet Trainer of a Lightning package, on the CPU, for two epochs."""
    defaults: dict[str, Any] = {
        "max_epochs": 2,
        "logger": False,
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 2,
    }
    return import_module(package).Trainer(callbacks=list(callbacks), **(defaults | options))
