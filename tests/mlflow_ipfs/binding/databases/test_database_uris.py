"""The PostgreSQL driver that is added to a URI without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from mlflow_ipfs.binding.databases import connections
from mlflow_ipfs.binding.databases.connections import database_uri, name_driver

if TYPE_CHECKING:
    from collections.abc import Callable

BARE = "postgresql://me:p%3Aw@host:5432/mlflow?sslmode=require"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[str]], None]:
    """Pretend that only these drivers are installed."""

    def install(drivers: set[str]) -> None:
        monkeypatch.setattr(connections, "find_spec", lambda name: name if name in drivers else None)

    return install


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_only_driver_that_is_installed_is_named(install: Callable[[set[str]], None], driver: str) -> None:
    install({driver})
    named = f"postgresql+{driver}://me:p%3Aw@host:5432/mlflow?sslmode=require"
    assert name_driver(BARE) == named
    assert database_uri(f"ipfs+{BARE}") == named
    assert sqlalchemy.make_url(name_driver(BARE)).get_driver_name() == driver


@pytest.mark.parametrize("drivers", [set(), {"psycopg", "psycopg2"}], ids=["none", "both"])
def test_with_none_or_both_sqlalchemy_decides(install: Callable[[set[str]], None], drivers: set[str]) -> None:
    install(drivers)
    assert name_driver(BARE) == BARE


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+pg8000://host/mlflow",
        "postgresql+psycopg2://host/mlflow",
        "sqlite:///mlflow.db",
        "mysql://host/mlflow",
    ],
)
def test_what_names_its_driver_or_is_no_postgresql_stays(install: Callable[[set[str]], None], uri: str) -> None:
    install({"psycopg"})
    assert name_driver(uri) == uri
