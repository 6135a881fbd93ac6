from __future__ import annotations

import pytest

from mlflow_ipfs.binding.databases import named_database
from mlflow_ipfs.binding.databases.named_database import find_database
from mlflow_ipfs.errors import SettingsError


@pytest.mark.parametrize(
    ("named", "environ", "found"),
    [
        ("ipfs+sqlite:////a.db", {}, "sqlite:////a.db"),
        ("postgresql+psycopg2://u:p@h/d", {"MLFLOW_TRACKING_URI": "http://x"}, "postgresql+psycopg2://u:p@h/d"),
        (None, {"MLFLOW_BACKEND_STORE_URI": "sqlite:////b.db", "MLFLOW_TRACKING_URI": "x"}, "sqlite:////b.db"),
        (None, {"MLFLOW_TRACKING_URI": "ipfs+sqlite:////c.db"}, "sqlite:////c.db"),
    ],
)
def test_the_database_is_the_one_that_mlflow_uses(named: str | None, environ: dict[str, str], found: str) -> None:
    assert find_database(named, environ).render_as_string(hide_password=False) == found


@pytest.mark.parametrize(
    ("named", "environ"),
    [
        (None, {}),
        (None, {"MLFLOW_TRACKING_URI": "http://user:secret@server"}),
        (None, {"MLFLOW_TRACKING_URI": "databricks"}),
        ("mysql://user:secret@h/d", {}),
        ("./mlruns", {}),
    ],
)
def test_what_is_no_database_is_refused_without_showing_a_password(named: str | None, environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="--backend-store-uri, such as") as caught:
        find_database(named, environ)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_database, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match="needs the driver psycopg, which is not installed: `pip install"):
        find_database("postgresql+psycopg://u:secret@h/d", {})
