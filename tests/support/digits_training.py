"""A training as users write it: the handwritten digits with Lightning and our callbacks. Tests run it as a script.

Usage: python digits_training.py STRATEGY DEVICES NODES [FAILS_ON_RANK]
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import nullcontext
from typing import Any

import mlflow
import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from lightning_ipfs import EpochMetrics, InferenceMetrics, IPFSCallback, Resources

EPOCHS, BATCH_SIZE, EVERY = 2, 16, 10
TRAIN_ROWS, VAL_ROWS = 960, 320  # 60 and 20 batches in one process, and as many in two


class Digits(LightningModule):
    """A small perceptron. One rank can fail in its second epoch."""

    def __init__(self, fails_on_rank: int | None = None) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        self.fails_on_rank = fails_on_rank

    def _step(self, batch: Any, stage: str) -> Any:
        outputs = self.layers(batch[0] / 16)
        loss = torch.nn.functional.cross_entropy(outputs, batch[1])
        accuracy = (outputs.argmax(1) == batch[1]).float().mean()
        self.log(f"{stage}_accuracy", accuracy, on_step=False, on_epoch=True, sync_dist=True)
        self.log(f"{stage}_loss", loss, on_step=stage == "train", on_epoch=True, sync_dist=True)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 1 and batch_idx == 3 and self.global_rank == self.fails_on_rank:
            raise RuntimeError("this rank failed")
        return self._step(batch, "train")

    def validation_step(self, batch: Any, _: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        del batch_idx
        self._step(batch, "test")

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def make_loader(first: int, last: int, *, shuffle: bool = False) -> DataLoader[Any]:
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images[first:last], dtype=torch.float32), torch.tensor(labels[first:last]))
    return DataLoader(data, batch_size=BATCH_SIZE, shuffle=shuffle)


def train(strategy: str, devices: int, nodes: int, fails_on_rank: int | None = None) -> None:
    seed_everything(1, verbose=False)
    callbacks: list[Any] = [IPFSCallback(resource_seconds=0.5)]
    if nodes > 1:  # the nodes of a test are one host: name them
        node = f"node-{os.environ['NODE_RANK']}"
        callbacks = [EpochMetrics(), InferenceMetrics(), Resources(0.5, node)]
    trainer = Trainer(
        max_epochs=EPOCHS, callbacks=callbacks, strategy=strategy, devices=devices, num_nodes=nodes, accelerator="cpu",
        log_every_n_steps=EVERY, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    model = Digits(fails_on_rank)
    last = TRAIN_ROWS + VAL_ROWS
    trainer.fit(model, make_loader(0, TRAIN_ROWS, shuffle=True), make_loader(TRAIN_ROWS, last))
    if strategy != "ddp_spawn":  # it tests in new processes, whose steps begin at 0 again
        trainer.test(model, make_loader(TRAIN_ROWS, last), verbose=False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with (
        mlflow.start_run() if sys.argv[1] == "ddp_spawn" else nullcontext()
    ):  # other strategies repeat this on each rank
        train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(int, sys.argv[4:]))
