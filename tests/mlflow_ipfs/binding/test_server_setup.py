from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.binding import server_setup
from mlflow_ipfs.binding.mlflow_process import ServerOptions, is_first_worker
from mlflow_ipfs.config import Settings
from mlflow_ipfs.opening import open_store

if TYPE_CHECKING:
    from pathlib import Path

SQLITE = "sqlite:///mlflow.db"
POSTGRES = "postgresql://mlflow:geheim@db.example:5432/mlflow"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/store")
    return tmp_path / "store"


def problems(
    backend: str = SQLITE,
    registry: str | None = None,
    destination: str | None = "mfs://mlflow",
    root: str = "mlflow-artifacts:/",
) -> list[str]:
    return list(
        server_setup.find_problems(
            ServerOptions(backend, registry or f"ipfs+{backend.removeprefix('ipfs+')}", root, destination)
        )
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"backend": f"ipfs+{SQLITE}", "registry": f"ipfs+{SQLITE}"},
        {"backend": f"ipfs+{SQLITE}", "destination": None, "root": "./mlruns"},
        {"destination": None, "root": "mfs://mlflow"},
        {"destination": "./mlartifacts", "root": "mfs://mlflow"},  # no run uses the destination
        {"registry": SQLITE, "destination": "s3://bucket", "root": "s3://bucket"},  # nothing of this package is used
        {"backend": POSTGRES, "registry": "ipfs+postgresql+psycopg2://other@DB.example/mlflow?sslmode=require"},
        {"backend": "postgresql:///mlflow", "registry": "ipfs+postgresql://127.0.0.1:5432/mlflow"},
    ],
)
def test_a_set_up_that_works_is_not_reported(options: dict[str, str]) -> None:
    assert problems(**options) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"destination": "./mlartifacts"}, ["--artifacts-destination is ./mlartifacts", "mfs://mlflow"]),
        ({"destination": "s3://key:geheim@bucket/x"}, ["--artifacts-destination is s3://key:***@bucket/x"]),
        ({"root": "s3://bucket/x"}, ["--default-artifact-root is s3://bucket/x"]),
        ({"destination": None, "root": "./mlruns"}, ["--default-artifact-root is ./mlruns"]),
        ({"registry": "ipfs+sqlite:///other.db"}, ["sqlite:///mlflow.db", "another database, sqlite:///other.db"]),
        ({"backend": "./mlruns", "registry": f"ipfs+{SQLITE}"}, ["recorded in ./mlruns"]),
        (
            {"backend": POSTGRES, "registry": f"ipfs+{SQLITE}"},
            ["recorded in postgresql://mlflow:***@db.example:5432/mlflow"],
        ),
    ],
)
def test_a_set_up_that_does_not_work_is_told_in_one_line(options: dict[str, str], words: list[str]) -> None:
    [problem] = problems(**options)
    assert all(word in problem for word in words)
    assert "\n" not in problem
    assert "geheim" not in problem


def test_an_allowed_artifact_root_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_IMPORT_ALLOW", "s3://bucket")
    assert problems(root="s3://bucket/x") == []


@pytest.mark.parametrize("registry", [SQLITE, f"ipfs+{SQLITE}"])
def test_a_store_that_cannot_be_created_is_reported(store: Path, registry: str) -> None:
    store.parent.joinpath("file").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_IPFS_STORE", f"local:{store.parent}/file/store")
        [problem] = problems(registry=registry)
    assert problem.startswith(f"artifacts cannot be stored in {store.parent}/file/store: ")


def test_a_directory_that_is_not_a_store_is_reported(store: Path) -> None:
    store.mkdir()
    (store / "holiday.jpg").touch()
    [problem] = problems()
    assert "the directory has no format.json" in problem


def test_a_check_creates_no_store_and_leaves_nothing_behind(store: Path) -> None:
    assert problems() == []
    assert not store.exists()
    assert list(store.parent.iterdir()) == []


def test_a_check_does_not_change_the_index(store: Path) -> None:
    with open_store(Settings(store=store)) as opened:
        opened.add(__file__)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    assert problems() == []
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == before


def test_a_wrong_setting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "perhaps")
    [problem] = problems()
    assert "MLFLOW_IPFS_FREEZE" in problem


def test_without_freezing_any_destination_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
    assert problems(destination="s3://bucket", registry="ipfs+sqlite:///other.db") == []


def test_options_are_those_that_the_server_gives_its_workers() -> None:
    environ = {
        "_MLFLOW_SERVER_FILE_STORE": SQLITE,
        "_MLFLOW_SERVER_REGISTRY_STORE": f"ipfs+{SQLITE}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "mfs://mlflow",
    }
    assert ServerOptions.current(environ) == ServerOptions(
        SQLITE, f"ipfs+{SQLITE}", "mlflow-artifacts:/", "mfs://mlflow"
    )
    only = ServerOptions.current(environ | {"_MLFLOW_SERVER_ARTIFACTS_ONLY": "true"})
    assert only is not None
    assert only.registry_uri is None
    assert ServerOptions.current({}) is None


def test_jobs_of_a_server_do_not_check_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/lib/mlflow/server/jobs/_job_runner.py"])
    assert not is_first_worker()
    monkeypatch.setattr(sys, "argv", ["/lib/uvicorn/__main__.py", "mlflow.server.fastapi_app:app"])
    assert is_first_worker()


def test_log_lines_of_a_server_show_no_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("mlflow_ipfs")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    server_setup.prepare_worker()
    try:
        raise ValueError(POSTGRES)  # noqa: TRY301
    except ValueError:
        logging.getLogger("mlflow_ipfs.test").exception("failed")
    shown = capsys.readouterr().err
    assert "ERROR mlflow_ipfs.test: failed" in shown
    assert "postgresql://mlflow:***@db.example" in shown
    assert "geheim" not in shown.replace("raise ValueError(POSTGRES)", "")
