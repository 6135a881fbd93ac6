"""Record a training without a framework, and write its report: charts, one page, and files to share.

    pip install '.[reports]' scikit-learn
    python examples/metrics_and_reports.py [DIRECTORY]

Nothing is sent anywhere. ``MetricsCollector(open_run_log())`` sends the same metrics to MLflow, too.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from mlflow_ipfs.training import MetricsCollector
from reports import create_visualization

EPOCHS = 15
MODEL = "digits"


def train(metrics: MetricsCollector) -> None:
    """Train a classifier of handwritten digits, and record what happens."""
    with metrics.track_dataset_load("digits"):
        images, labels = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(images / 16, labels, test_size=0.25, random_state=0)
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01, random_state=0)
    for epoch in range(EPOCHS):
        with metrics.track_training_epoch(MODEL, epoch=epoch, num_samples=len(x)):
            model.partial_fit(x, y, classes=np.arange(10))
        metrics.record_metric(f"{MODEL}/epoch/{epoch}/train_loss", log_loss(y, model.predict_proba(x)))
        metrics.record_metric(f"{MODEL}/epoch/{epoch}/val_loss", log_loss(y_val, model.predict_proba(x_val)))
        metrics.record_metric(f"{MODEL}/epoch/{epoch}/val_accuracy", model.score(x_val, y_val))
    for start in range(0, len(x_val), 4):
        batch = x_val[start : start + 4]
        with metrics.track_inference(MODEL, batch_size=len(batch)):
            model.predict(batch)
            time.sleep(0.0005)  # a model that takes time


def main(directory: Path) -> None:
    metrics = MetricsCollector()
    train(metrics)
    print(metrics.get_summary()[f"{MODEL}/val_accuracy"])

    visualization = create_visualization(metrics)
    print(visualization.plot_training_metrics(MODEL).describe())
    visualization.plot_inference_metrics(MODEL).save(directory / "inference.svg")
    visualization.plot_comprehensive_dashboard().save(directory / "dashboard.png")
    visualization.generate_html_report(directory / "training_report.html")
    files = visualization.export_visualizations(directory / "training_results", formats=["png", "svg", "html", "json"])
    print(f"{len(files)} files in {directory / 'training_results'}")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "metrics-output")
    target.mkdir(parents=True, exist_ok=True)
    main(target)
