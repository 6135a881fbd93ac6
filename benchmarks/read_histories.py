"""Benchmark: how fast reports read metric histories, compared with one bare SQL read and with MLflow's client.

A SQLite database of MLflow has 1,000 runs with 1,000 points each. Processor time is measured, so that the load of the machine
matters little. MLflow's client reads one run a call; it gets a sample of the runs, and the result is that of all runs.

Usage: python benchmarks/read_histories.py [RUNS]
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness import compare
from recorded_database import EXPERIMENT, make_database
from reports import collect

if TYPE_CHECKING:
    from collections.abc import Callable

POINTS = 1_000
SAMPLE = 20  # runs that MLflow's client reads
READ = "SELECT run_uuid, key, step, timestamp, value, is_nan FROM metrics"


def measure_processor_seconds(action: Callable[[], int], expected: int) -> float:
    """Return the processor time of a read, which has to return the number of points."""
    started = time.process_time()
    found = action()
    seconds = time.process_time() - started
    assert found == expected, found
    return seconds


def main(runs: int) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        file = Path(name) / "mlflow.db"
        source = random.Random(0)  # noqa: S311 - not for secrets
        ids = make_database(file, ({"loss": [source.random() for _ in range(POINTS)]} for _ in range(runs)))
        client = MlflowClient(f"sqlite:///{file}")

        def read_for_report() -> int:
            data = collect(experiment=EXPERIMENT, tracking_uri=f"sqlite:///{file}")
            return sum(run.point_count for run in data.runs)

        def read_bare() -> int:
            connection = sqlite3.connect(file)
            found = len(connection.execute(READ).fetchall())
            connection.close()
            return found

        def read_with_client() -> int:
            return sum(len(client.get_metric_history(run_id, "loss")) for run_id in ids[:SAMPLE])

        def ours() -> float:
            return measure_processor_seconds(read_for_report, runs * POINTS)

        def bare() -> float:
            return measure_processor_seconds(read_bare, runs * POINTS)

        def clients() -> float:
            return measure_processor_seconds(read_with_client, SAMPLE * POINTS) / SAMPLE * runs

        compare("histories_for_report", "processor seconds", ours, bare, "one bare SQL read")
        compare("histories_for_report", "processor seconds", ours, clients, "MlflowClient.get_metric_history per run")


if __name__ == "__main__":
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
