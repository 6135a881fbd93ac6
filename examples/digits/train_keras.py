"""Train a classifier on scikit-learn's handwritten digits, with ordinary Keras and MLflow code, on any backend of Keras.

::

    pip install '.[keras,demo]'
    export MLFLOW_TRACKING_URI=ipfs+sqlite:///mlflow.db KERAS_BACKEND=torch
    python train_keras.py
    python predict.py models:/digits-keras@champion

Only the lines marked "by CID" and "measured" are specific to mlflow-ipfs.
"""

from __future__ import annotations

from pathlib import Path

import keras
import mlflow
from mlflow.models import infer_signature
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mlflow_ipfs
from keras_ipfs import InferenceMetrics, IPFSCallback

HIDDEN, LEARNING_RATE, BATCH_SIZE, EPOCHS, SEED = 512, 1e-3, 64, 8, 7


def make_model() -> keras.Model:
    """Return a small multilayer perceptron on 8x8 images, shape (batch, 64), values 0 to 16."""
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Dense(HIDDEN, activation="relu"),
            keras.layers.Dense(HIDDEN, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(directory: Path) -> str:
    """Train, measure, log and register the model. Return the id of the run."""
    digits = load_digits(as_frame=True)
    parquet = directory / "digits.parquet"
    digits.data.assign(label=digits.target).to_parquet(parquet)
    images, labels = digits.data.to_numpy(dtype="float32"), digits.target.to_numpy()
    train_x, val_x, train_y, val_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)

    mlflow.set_experiment("digits")
    with mlflow.start_run() as run:
        keras.utils.set_random_seed(SEED)  # before, MLflow would give each run the same name
        mlflow_ipfs.log_dataset(parquet, context="training")  # by CID: the dataset
        mlflow.log_params(
            {"hidden": HIDDEN, "learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "epochs": EPOCHS}
        )
        model = make_model()
        model.fit(
            train_x, train_y, validation_data=(val_x, val_y), batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0,
            callbacks=[IPFSCallback(batch_size=BATCH_SIZE)],  # measured: epochs and resources
        )  # fmt: skip
        outputs = model.predict(
            val_x, batch_size=8, verbose=0,
            callbacks=[InferenceMetrics()],  # measured: latency
        )  # fmt: skip
        mlflow.keras.log_model(
            model, name="model", signature=infer_signature(val_x, outputs), registered_model_name="digits-keras",
            pip_requirements=mlflow.keras.get_default_pip_requirements(),  # otherwise MLflow loads the model
        )  # fmt: skip
    mlflow.MlflowClient().set_registered_model_alias("digits-keras", "champion", "1")
    return str(run.info.run_id)


if __name__ == "__main__":
    train(Path.cwd())
