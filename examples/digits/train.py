"""Train a classifier on scikit-learn's handwritten digits, with ordinary Lightning and MLflow code.

Only the lines marked "by CID" are specific to mlflow-ipfs. All other code would run unchanged with any other tracking
URI: the setting ``MLFLOW_TRACKING_URI`` determines that the model is stored in IPFS.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import mlflow
import mlflow.data.pandas_dataset
import pandas as pd  # noqa: TC002 - an example imports plainly
import pytorch_lightning as pl
import torch
from mlflow.models import infer_signature
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mlflow_ipfs
from lightning_ipfs import IPFSCallback

HIDDEN, LEARNING_RATE, BATCH_SIZE, EPOCHS, SEED = 512, 1e-3, 64, 8, 7


class DigitsClassifier(pl.LightningModule):
    """Small multilayer perceptron on 8x8 images, shape (batch, 64), values 0 to 16."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10)
        )

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: list[torch.Tensor], _index: int) -> None:
        self._step(batch, "val")

    def _step(self, batch: list[torch.Tensor], stage: str) -> torch.Tensor:
        images, labels = batch
        logits = self.network(images / 16)
        loss = nn.functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log_dict({f"{stage}_loss": loss, f"{stage}_accuracy": accuracy}, on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)


def make_loader(frame: pd.DataFrame, *, shuffle: bool) -> DataLoader[tuple[torch.Tensor, ...]]:
    images = torch.tensor(frame.drop(columns="label").to_numpy(), dtype=torch.float32)
    dataset = TensorDataset(images, torch.tensor(frame["label"].to_numpy()))
    return DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=shuffle)


def train(directory: Path) -> str:
    """Train, log and register the model. Return the id of the run."""
    digits = load_digits(as_frame=True)
    frame = digits.data.assign(label=digits.target)
    parquet = directory / "digits.parquet"
    frame.to_parquet(parquet)

    mlflow.set_experiment("digits")
    with mlflow.start_run() as run:
        pl.seed_everything(SEED)  # before, MLflow would give each run the same name
        with mlflow_ipfs.open_store() as store:
            dataset_cid = store.add(parquet).cid  # by CID: the dataset
        source = f"ipfs://{dataset_cid}"  # by CID: the location for MLflow
        # MLflow's own digest covers only a sample of the data. Its column has room for 36 characters.
        digest = str(dataset_cid)[-36:]  # by CID: the digest
        dataset = mlflow.data.pandas_dataset.from_pandas(
            frame, source=source, name="digits", digest=digest, targets="label"
        )
        mlflow.log_input(dataset, "training")
        mlflow.log_params(
            {"hidden": HIDDEN, "learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "epochs": EPOCHS}
        )

        train_rows, val_rows = train_test_split(frame, test_size=0.25, random_state=0, stratify=frame["label"])
        model = DigitsClassifier()
        trainer = pl.Trainer(
            max_epochs=EPOCHS, callbacks=[IPFSCallback()], logger=False, accelerator="cpu", enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, make_loader(train_rows, shuffle=True), make_loader(val_rows, shuffle=False))

        example = val_rows.drop(columns="label").to_numpy(dtype="float32")
        network = model.network.eval()
        with torch.no_grad():
            signature = infer_signature(example, network(torch.tensor(example)).numpy())
        mlflow.pytorch.log_model(
            network, name="model", signature=signature, registered_model_name="digits", serialization_format="pickle",
            pip_requirements=mlflow.pytorch.get_default_pip_requirements(),  # otherwise MLflow loads the model
        )  # fmt: skip
    mlflow.MlflowClient().set_registered_model_alias("digits", "champion", "1")
    return str(run.info.run_id)


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    train(Path.cwd())
