"""A tiny Lightning module and its data."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

BATCHES = 6
BATCH_SIZE = 8


class Model(LightningModule):
    """One layer. It logs what users log: a loss by step and by epoch, a validation and a test loss."""

    def __init__(self, *, optimizers: int = 1, fail_at: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.other = torch.nn.Linear(4, 2)
        self.count = optimizers
        self.fail_at = fail_at
        self.automatic_optimization = optimizers == 1

    def _loss(self, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(self.layer(batch[0]) + self.other(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.fail_at is not None and self.global_step >= self.fail_at:
            msg = f"step {batch_idx} failed"
            raise RuntimeError(msg)
        loss = self._loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        if not self.automatic_optimization:
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                optimizer.step()
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self._loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        del batch_idx
        self.log("test_loss", self._loss(batch))

    def predict_step(self, batch: Any, _: int) -> Any:
        return self.layer(batch[0])

    def configure_optimizers(self) -> Any:
        layers = [self.layer, self.other][: self.count]
        return [torch.optim.SGD(layer.parameters(), lr=0.1 / 10**number) for number, layer in enumerate(layers)]


def loader(batches: int = BATCHES) -> DataLoader[Any]:
    """Return random data."""
    count = batches * BATCH_SIZE
    return DataLoader(TensorDataset(torch.randn(count, 4), torch.randint(0, 2, (count,))), batch_size=BATCH_SIZE)


def trainer(*callbacks: Any, **options: Any) -> Trainer:
    """Return a quiet Trainer on the CPU for two epochs."""
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
    return Trainer(callbacks=list(callbacks), **(defaults | options))
