"""Tests of the choice of the MLflow that is asked. Tests with real databases are in ``cli/test_cli_mlflow_names.py``."""

from __future__ import annotations

import pytest

from mlflow_ipfs.binding.mlflow_names import ask_mlflow, shown_uri
from mlflow_ipfs.errors import NotFoundError, SettingsError


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:5000/x?token=secret", "https://host:5000/x"),
        ("postgresql://me:se@cret@host/db?password=secret", "postgresql://host/db"),
        ("ipfs+postgresql://me:secret@host/db", "ipfs+postgresql://host/db"),
        ("postgresql://me:se/cr?et@host/db", "postgresql://host/db"),
        ("http://me:secret@[host/x", "http://[host/x"),
        ("sqlite:////srv/me@home/mlflow.db", "sqlite:////srv/me@home/mlflow.db"),
        ("mlruns", "mlruns"),
    ],
)
def test_a_uri_is_shown_without_secrets(uri: str, shown: str) -> None:
    assert shown_uri(uri) == shown


@pytest.mark.parametrize("name", ["models:/m/1", "runs:/0123"])
def test_a_database_without_a_driver_is_explained(name: str) -> None:
    with pytest.raises(SettingsError, match="needs a driver that is not installed .*; install it with pip"):
        ask_mlflow(name, "mssql+pymssql://me:secret@127.0.0.1/mlflow")


def test_a_malformed_uri_shows_no_secret() -> None:
    with pytest.raises(SettingsError, match="from --tracking-uri is not the URI of a database") as caught:
        ask_mlflow("models:/m/1", "postgresql://me:secret@host:port/db")
    assert "secret" not in str(caught.value)


def test_a_registry_of_its_own_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:////nowhere/registry.db")
    with pytest.raises(NotFoundError, match="/nowhere/registry.db does not exist"):
        ask_mlflow("models:/m/1", "http://127.0.0.1:9")
