"""Artifact locations of experiments that a client of a server chooses.

A server reads and writes the locations in its database with its own rights. A client that could name a location in the
store would reach the files of every experiment: by uploading into the directory of another run, for example. At L0 and
L1, MLflow's own tracking store creates the experiments, so the check is an event of SQLAlchemy.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy.orm import Mapper

from mlflow_ipfs.binding.locations import IPFS, MFS, scheme_of
from mlflow_ipfs.binding.mlflow_compat import EXPERIMENTS_TABLE
from mlflow_ipfs.binding.mlflow_errors import mlflow_errors
from mlflow_ipfs.binding.mlflow_process import Server
from mlflow_ipfs.errors import PolicyError


def check_experiment_location(name: str, location: str | None) -> None:
    """Check the artifact location that was given for a new experiment.

    Raises:
        MlflowException: this process is a server, and the location is in the store.
    """
    if not location or scheme_of(location) not in {MFS, IPFS} or Server.current() is None:
        return
    msg = (
        f"experiment {name!r} cannot have the artifact location {location!r}: this server chooses the locations in its "
        "store itself; leave the location out"
    )
    with mlflow_errors():
        raise PolicyError(msg)


def guard_experiments() -> None:
    """Check the location of each experiment that MLflow inserts in this process, whichever of its stores inserts it."""
    if not sqlalchemy.event.contains(Mapper, "before_insert", _check):
        sqlalchemy.event.listen(Mapper, "before_insert", _check)


def _check(mapper: Mapper[Any], connection: object, experiment: Any) -> None:  # noqa: ANN401 - an ORM object of any class
    del connection
    # MLflow sets the location of an experiment that has none after the row is inserted, because it contains the id.
    if getattr(mapper.local_table, "name", "") == EXPERIMENTS_TABLE:
        check_experiment_location(str(experiment.name), experiment.artifact_location)
