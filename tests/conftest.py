"""Fixtures for all tests: isolation from the user's settings, real Kubo, real servers, an ordinary user."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import hypothesis
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from provision_kubo import KuboError, locate
from support.kubo import V0_2015, V1_2025, KuboDaemon, KuboRepository, init_repository, run_daemon
from support.mlflow_server import MlflowServer, run_mlflow_server
from support.not_run import is_strict, not_run, pytest_sessionfinish, pytest_terminal_summary
from support.postgres import PostgresServer, run_postgres
from support.unprivileged import OrdinaryUser, make_ordinary_user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["pytest_sessionfinish", "pytest_terminal_summary"]  # pytest finds these hooks by their names here

SLOW_DIRECTORIES = {"servers", "examples"}
PROJECT = Path(__file__).resolve().parent.parent

set_hypothesis_home_dir(PROJECT / ".hypothesis")
hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=200, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if is_strict() else "dev"))


class StartServer(Protocol):
    """What the fixture ``mlflow_server`` gives: start a server, which ends with the test."""

    def __call__(
        self, *arguments: str | Path, env: dict[str, str] | None = None, workers: int = 2, python: Path | None = None
    ) -> MlflowServer: ...


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests see no settings of the user and write into no directory of the user."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("MLFLOW_", "_MLFLOW_", "IPFS_")):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(home / name.lower()))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "true")
        patch.setenv("GIT_PYTHON_REFRESH", "quiet")
        yield


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test leaves in its working directory goes with the test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _own_experiment() -> Iterator[None]:
    """The experiment that a test made MLflow's active one, in this process, is not that of the next test."""
    yield
    fluent = sys.modules.get("mlflow.tracking.fluent")
    if fluent is not None:
        fluent.__dict__["_active_experiment_id"] = None
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@pytest.fixture(scope="session")
def kubo_binary() -> Path:
    """The `ipfs` command."""
    try:
        return locate()
    except KuboError as error:
        not_run(f"Kubo is missing ({error}); `make kubo` gets it")


@pytest.fixture(scope="session")
def kubo_v1(kubo_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> KuboRepository:
    """`ipfs` in a repository of profile unixfs-v1-2025, without a daemon: ``kubo_v1("add", "--only-hash", path)``."""
    return init_repository(kubo_binary, tmp_path_factory.mktemp("kubo-v1") / "repo", V1_2025)


@pytest.fixture(scope="session")
def kubo_v0(kubo_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> KuboRepository:
    """`ipfs` in a repository of profile unixfs-v0-2015, without a daemon."""
    return init_repository(kubo_binary, tmp_path_factory.mktemp("kubo-v0") / "repo", V0_2015)


@pytest.fixture(scope="session")
def kubo(kubo_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KuboDaemon]:
    """An offline Kubo daemon of profile unixfs-v1-2025, with API and gateway; one for the whole run."""
    repository = init_repository(kubo_binary, tmp_path_factory.mktemp("kubo") / "repo", V1_2025)
    with run_daemon(repository) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def stock_python() -> Path:
    """The interpreter of an environment that has MLflow and scikit-learn, but not this package."""
    override = os.environ.get("TESTS_STOCK_PYTHON")
    python = Path(override) if override else PROJECT / ".venv-stock" / "bin" / "python"
    if not python.exists():
        not_run(f"no interpreter at {python}: the environment with stock MLflow is missing; `make stock` makes it")
    return python


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start real `mlflow server`s: ``mlflow_server("--backend-store-uri", …, env={…}).url``."""
    running: list[AbstractContextManager[MlflowServer]] = []

    def start(
        *arguments: str | Path, env: dict[str, str] | None = None, workers: int = 2, python: Path | None = None
    ) -> MlflowServer:
        server = run_mlflow_server(tmp_path, *arguments, env=env, workers=workers, python=python)
        started = server.__enter__()
        running.append(server)
        return started

    yield start
    for server in reversed(running):
        server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server with its programs on PATH; one for the whole run."""
    for server in run_postgres():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(server.programs), prepend=os.pathsep)
            yield server


@pytest.fixture
def ordinary_user() -> Iterator[OrdinaryUser]:
    """Somebody who is not root, with a directory: ``ordinary_user.run(function, …)``."""
    yield from make_ordinary_user()


SLOW_FILES = {  # many short tests, together more than 2 seconds: most of the time of `make test-core`
    "test_artifact_repository", "test_car_import_needed", "test_cli_car", "test_collecting", "test_collecting_contract",
    "test_golden_vectors", "test_hostile_dags", "test_outside_artifacts", "test_ownership", "test_rebuild",
    "test_rebuild_chunkers", "test_rebuild_files", "test_run_log", "test_tracking_store", "test_unprivileged",
    "test_upload_chunking", "test_places", "test_dedupe", "test_client_locations", "test_resources", "test_cli_debug",
    "test_uploads", "test_views", "test_verify_promises", "test_uploaded_streams", "test_exporter", "test_rebuild_safety", "test_cli_get",
    "test_report_command", "test_outputs",
}  # fmt: skip
FRAMEWORK_DIRECTORIES = {"lightning_ipfs", "keras_ipfs"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import the tests of frameworks when they are deselected: torch and Keras take 20 seconds."""
    skips = "not frameworks" in str(config.option.markexpr)
    return (
        True
        if skips and not FRAMEWORK_DIRECTORIES.isdisjoint(collection_path.relative_to(PROJECT / "tests").parts)
        else None
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses PostgreSQL, and put what starts MLflow in new processes first.

    With several workers, none is then left alone with a slow test at the end.
    """
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)
        if item.path.stem in SLOW_FILES:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: SLOW_DIRECTORIES.isdisjoint(item.path.parts))
