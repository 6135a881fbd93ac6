"""Load models by any MLflow URI. For each model, print a summary of its predictions on the digits as a line of JSON.

Usage: python predict.py models:/digits@champion ipfs://<cid>
"""

from __future__ import annotations

import hashlib
import json
import sys

import mlflow
from sklearn.datasets import load_digits


def predict(model_uri: str) -> dict[str, object]:
    """Predict all 1,797 digits. Return the accuracy and a digest of the raw outputs, shape (1797, 10)."""
    images, labels = load_digits(return_X_y=True)
    outputs = mlflow.pyfunc.load_model(model_uri).predict(images.astype("float32"))
    return {
        "model_uri": model_uri,
        "accuracy": round(float((outputs.argmax(1) == labels).mean()), 4),
        "outputs_sha256": hashlib.sha256(outputs.tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    for uri in sys.argv[1:]:
        print(json.dumps(predict(uri)))
