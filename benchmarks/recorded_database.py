"""SQLite databases of MLflow with long metric histories, written by SQL: through MLflow it would take minutes."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

EXPERIMENT: Final = "histories"
START_MS: Final = 1_700_000_000_000


def make_database(file: Path, runs: Iterable[Mapping[str, Sequence[float] | NDArray[np.float64]]]) -> list[str]:
    """Make a database with one experiment, as MLflow would have written it. Return the ids of the runs.

    Args:
        file: the path of the database.
        runs: the values of each metric of each run, one a step and a millisecond.
    """
    from mlflow import MlflowClient  # noqa: PLC0415 - MLflow loads slowly

    experiment = int(MlflowClient(f"sqlite:///{file}").create_experiment(EXPERIMENT))
    source = random.Random(1)  # noqa: S311 - not for secrets
    ids = []
    with closing(sqlite3.connect(file)) as connection, connection:
        for histories in runs:
            run_id = f"{source.getrandbits(128):032x}"
            ids.append(run_id)
            connection.execute(
                "INSERT INTO runs (run_uuid, name, status, lifecycle_stage, start_time, artifact_uri, experiment_id)"
                " VALUES (?, 'run', 'FINISHED', 'active', ?, 'file:///none', ?)",
                (run_id, START_MS, experiment),
            )
            for key, values in histories.items():
                points = (
                    (run_id, key, step, START_MS + step, float(value), False) for step, value in enumerate(values)
                )
                columns = "(run_uuid, key, step, timestamp, value, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
                connection.executemany(f"INSERT INTO metrics {columns}", points)
                last = len(values) - 1
                connection.execute(
                    f"INSERT INTO latest_metrics {columns}",
                    (run_id, key, last, START_MS + last, float(values[last]), False),
                )
    return ids
