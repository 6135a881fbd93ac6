"""The PostgreSQL driver that is added to a URI without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from mlflow_ipfs.binding.databases import drivers
from mlflow_ipfs.binding.databases.connections import database_uri
from mlflow_ipfs.binding.databases.drivers import name_driver
from support.clients import run_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BARE = "postgresql://me:p%3Aw@host:5432/mlflow?sslmode=require"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[str]], None]:
    """Pretend that only these drivers are installed."""

    def install(found: set[str]) -> None:
        monkeypatch.setattr(drivers, "find_spec", lambda name: name if name in found else None)

    return install


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_only_driver_that_is_installed_is_named(install: Callable[[set[str]], None], driver: str) -> None:
    install({driver})
    named = f"postgresql+{driver}://me:p%3Aw@host:5432/mlflow?sslmode=require"
    assert name_driver(BARE) == named
    assert database_uri(f"ipfs+{BARE}") == named
    assert sqlalchemy.make_url(name_driver(BARE)).get_driver_name() == driver


@pytest.mark.parametrize("found", [set(), {"psycopg", "psycopg2"}], ids=["none", "both"])
def test_with_none_or_both_sqlalchemy_decides(install: Callable[[set[str]], None], found: set[str]) -> None:
    install(found)
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


def test_only_the_uri_of_a_postgresql_database_needs_sqlalchemy(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[str] = []
    monkeypatch.setattr(drivers, "register_dialects", lambda: registered.append("yes"))
    for words in ([], ["server", "--backend-store-uri", "sqlite:///mlflow.db"], ["postgresql+psycopg2://host/mlflow"]):
        drivers.register_if_named(words)
    assert registered == []
    for word in (BARE, f"ipfs+{BARE}", "ipfs+postgresql+psycopg2://host/mlflow", f"--backend-store-uri={BARE}"):
        drivers.register_if_named(["server", word])
        assert registered.pop() == "yes"


def test_a_worker_of_a_server_registers_the_dialects(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[str] = []
    monkeypatch.setattr(drivers, "register_dialects", lambda: registered.append("yes"))
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", BARE)
    drivers.register_if_named()
    assert registered == ["yes"]


IN_A_NEW_PROCESS = """
    from mlflow_ipfs.binding.databases import drivers
    only, uris = sys.argv[1], sys.argv[2:]
    drivers.find_spec = lambda name: name if name == only else None
    drivers.register_dialects()
    import sqlalchemy
    answer([sqlalchemy.make_url(uri).get_dialect().driver for uri in uris])
"""


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_registered_dialects_use_the_driver_that_is_installed(tmp_path: Path, driver: str) -> None:
    uris = [BARE, f"ipfs+{BARE}", *(f"ipfs+postgresql+{name}://host/mlflow" for name in ("psycopg", "psycopg2"))]
    found = run_client(IN_A_NEW_PROCESS, driver, *uris, directory=tmp_path)
    assert found == [driver, driver, "psycopg", "psycopg2"]
