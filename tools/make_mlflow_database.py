"""Write a database of an older MLflow as a vector: the SQL that makes it, compressed.

Run it with the interpreter of an environment that has that MLflow (no other package is needed):

    python tools/make_mlflow_database.py tests/vectors/mlflow
"""

from __future__ import annotations

import gzip
import os
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import mlflow
from mlflow import MlflowClient


def fill(uri: str) -> None:
    """Record an experiment with a run, a logged model, and a registered model with two versions and an alias."""
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    experiment = client.create_experiment("digits", artifact_location="s3://bucket/digits")
    run = client.create_run(experiment, tags={"team": "vision"}).info
    client.log_param(run.run_id, "lr", "0.1")
    client.log_metric(run.run_id, "loss", 0.5, step=1)
    client.create_logged_model(experiment, name="model", source_run_id=run.run_id)
    client.create_registered_model("digits", tags={"task": "images"})
    for number in (1, 2):
        client.create_model_version("digits", f"s3://bucket/digits/{number}", run.run_id, tags={"n": str(number)})
    client.set_registered_model_alias("digits", "champion", "2")
    client.set_terminated(run.run_id)


def main(directory: Path) -> None:
    """Write ``mlflow-<version>.sql.gz`` into a directory."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        fill("sqlite:///mlflow.db")
        with closing(sqlite3.connect("mlflow.db")) as connection:
            text = "\n".join(connection.iterdump()).replace(str(Path(scratch).resolve()), "/srv/mlflow")
    target = directory / f"mlflow-{mlflow.__version__}.sql.gz"
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
