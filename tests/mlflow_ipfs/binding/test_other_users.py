"""MLflow's database after another user of the machine has opened it first."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from typing import TYPE_CHECKING

import pytest
from mlflow.exceptions import MlflowException

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.errors import PolicyError, StoreBusyError
from mlflow_ipfs.plugins.tracking_store import build_tracking_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.unprivileged import OrdinaryUser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import the modules that creating the tables needs, while this process may read them."""
    mlflow_compat.prepare_database(f"sqlite:///{tmp_path_factory.mktemp('imported')}/mlflow.db")


def after_another_user(user: OrdinaryUser, mode: int, call: Callable[[str], object]) -> object:
    """Call with a database's URI, when MLflow's lock for it is a file that this user may not write to."""

    def work() -> object:
        tempfile.tempdir = str(user.directory)
        uri = f"sqlite:///{user.directory}/mlflow.db"
        mlflow_compat.prepare_database(uri)
        (lock,) = user.directory.glob("db_init_lock-*")
        lock.chmod(mode)
        (user.directory / "mlflow.db").unlink()
        mlflow_compat.SqlTrackingStore._engine_map.clear()
        return call(uri)

    return user.run(work)


def test_a_second_user_makes_the_tables(ordinary_user: OrdinaryUser) -> None:
    after_another_user(ordinary_user, 0o444, mlflow_compat.prepare_database)
    assert (ordinary_user.directory / "mlflow.db").stat().st_size > 100_000


def test_a_lock_that_cannot_be_read_is_named_with_the_remedy(ordinary_user: OrdinaryUser) -> None:
    with pytest.raises(PolicyError, match=r"lock /.*/db_init_lock-\w+ belongs to another user.*TMPDIR"):
        after_another_user(ordinary_user, 0, mlflow_compat.prepare_database)


def test_mlflow_gets_an_error_of_its_own(ordinary_user: OrdinaryUser) -> None:
    def build(uri: str) -> str:
        os.environ["XDG_CONFIG_HOME"] = str(ordinary_user.directory)
        with pytest.raises(MlflowException, match="TMPDIR") as caught:
            build_tracking_store(f"ipfs+{uri}")
        return str(caught.value.error_code)

    assert after_another_user(ordinary_user, 0, build) == "PERMISSION_DENIED"


def test_a_second_user_waits_for_the_first(ordinary_user: OrdinaryUser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_compat, "_TABLES_SECONDS", 0.2)

    def prepare(uri: str) -> bool:
        (path,) = ordinary_user.directory.glob("db_init_lock-*")
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(StoreBusyError, match="makes MLflow's tables and holds /"):
            mlflow_compat.prepare_database(uri)
        monkeypatch.setattr(mlflow_compat, "_TABLES_SECONDS", 60)
        threading.Timer(0.2, os.close, [descriptor]).start()
        mlflow_compat.prepare_database(uri)
        return True

    assert after_another_user(ordinary_user, 0o444, prepare)
