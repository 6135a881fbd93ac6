"""Stock MLflow is adopted, served to stock clients, backed up, restored elsewhere, ejected, and stock MLflow again.

Every client and the first and the last server run in an environment without this package.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from mlflow_ipfs.binding.databases.connections import shown_uri
from support.command_line import CommandLine
from support.mlflow_server import run_mlflow_server
from support.s3 import BUCKET, run_s3
from support.whole_moves import VERSIONS, fill, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.postgres import PostgresServer

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Place:
    """A directory with a store and with what a server has, a database, and how commands there are run."""

    directory: Path
    database: str
    stock_python: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.cli = CommandLine(self.directory / "store")

    @property
    def shown(self) -> str:
        """The URI of the database in messages: without the driver and the password."""
        return shown_uri(sqlalchemy.make_url(self.database))

    def run(self, command: str, *arguments: str | Path) -> str:
        """Run a command on the database. Return its output."""
        done = self.cli(*command.split(), "--backend-store-uri", self.database, *arguments)
        return done.stdout.decode() + done.stderr

    @contextlib.contextmanager
    def stock_server(self, *arguments: str | Path) -> Iterator[str]:
        """Run a server without this package. Yield its URL."""
        options = "--backend-store-uri", self.database, *arguments
        with run_mlflow_server(self.directory, *options, python=self.stock_python, workers=1, env=self.env) as server:
            yield server.url

    def read_served(self, printed: str) -> dict[str, Any]:
        """Start the server that a command printed, in the environment that it needs. Return what stock clients read."""
        command = printed.partition("mlflow server ")[2].partition("`")[0]
        arguments = [one.replace(self.shown, self.database) for one in shlex.split(command)]
        python = None if "mfs://mlflow" in arguments else self.stock_python
        env = {"MLFLOW_IPFS_STORE": f"local:{self.cli.store}"} if python is None else {}
        with run_mlflow_server(self.directory, *arguments, python=python, workers=1, env=env) as server:
            return read(server.url, self.directory, self.stock_python)


@contextlib.contextmanager
def without_a_server(old: Place) -> Iterator[str]:
    """What a user has who trains with ``sqlite:///mlflow.db``: the artifacts are in ``mlruns``."""
    fill(old.database, old.directory, old.stock_python)
    assert (old.directory / "mlruns").is_dir()
    yield old.database


@contextlib.contextmanager
def with_a_server(old: Place) -> Iterator[str]:
    """What a team has: the artifacts are in the server's ``mlartifacts``."""
    with old.stock_server() as url:
        fill(url, old.directory, old.stock_python)
        assert (old.directory / "mlartifacts").is_dir()
        yield url


@contextlib.contextmanager
def with_a_bucket(old: Place, s3: dict[str, str]) -> Iterator[str]:
    """What a team in a cloud has: clients write to a bucket of S3."""
    old.env = s3
    with old.stock_server("--default-artifact-root", f"s3://{BUCKET}/mlflow", "--no-serve-artifacts") as url:
        fill(url, old.directory, old.stock_python, s3)
        yield url


def move(old: Place, new: Place, tracking_uri: str, *adopt_options: str | Path) -> None:
    """Take the steps of the documentation, and compare what stock clients read after each."""
    before = read(tracking_uri, old.directory, old.stock_python, old.env)
    printed = old.run("adopt", *adopt_options)
    if "databases convert" in printed:
        printed = old.run("databases convert", "--to", "server")
    old.run("adopt", "--remove-source", *adopt_options)
    assert not [path for name in ("mlruns", "mlartifacts") for path in (old.directory / name).rglob("*")]
    assert f"{VERSIONS} model versions frozen, 0 not frozen" in old.run("doctor")
    assert old.read_served(printed) == before

    old.run("backup", new.directory / "backup")
    new.run("restore", new.directory / "backup")
    shutil.rmtree(old.directory)
    assert new.read_served(printed.replace(old.shown, new.shown)) == before

    printed = new.run("eject", "--artifacts", new.directory / "plain")
    shutil.rmtree(new.directory / "store")
    shutil.rmtree(new.directory / "backup")
    assert new.read_served(printed) == before


@pytest.fixture
def sqlite_places(tmp_path: Path, stock_python: Path) -> tuple[Place, Place]:
    directories = tmp_path / "old place", tmp_path / "new place"
    old, new = (Place(one, f"sqlite:///{one}/mlflow.db", stock_python) for one in directories)
    return old, new


def test_a_move_from_mlruns(sqlite_places: tuple[Place, Place]) -> None:
    old, new = sqlite_places
    with without_a_server(old) as uri:
        move(old, new, uri)


@pytest.mark.postgres
def test_a_move_from_mlartifacts_and_postgresql(tmp_path: Path, stock_python: Path, postgres: PostgresServer) -> None:
    directories = tmp_path / "old place", tmp_path / "new place"
    uris = [postgres.uri(postgres.create_database()).replace(":", "+psycopg2:", 1) for _ in directories]
    old, new = (Place(*place, stock_python) for place in zip(directories, uris, strict=True))
    with with_a_server(old) as url:
        move(old, new, url, "--artifacts", old.directory / "mlartifacts")


def test_a_move_from_s3(sqlite_places: tuple[Place, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = sqlite_places
    with run_s3(tmp_path) as s3:
        for name, value in s3.items():
            monkeypatch.setenv(name, value)
        with with_a_bucket(old, s3) as url:
            move(old, new, url)
