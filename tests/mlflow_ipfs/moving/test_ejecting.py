"""Ejection of a database that was used without a server, read again by stock MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from mlflow_ipfs.binding.databases.drivers import name_driver
from support.command_line import CommandLine
from support.ejected_sites import all_locations, make_site, read_column, read_site
from support.mlflow_sites import pin_owners
from support.registered_models import model_directory

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore
    from support.postgres import PostgresServer

pytestmark = pytest.mark.slow


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "store")


@pytest.fixture
def site(client: MlflowClient, store: ContentStore, tmp_path: Path) -> dict[str, Any]:
    return make_site(client, store, tmp_path)


def arguments(database: Path, *more: str) -> tuple[str, ...]:
    return ("eject", "--backend-store-uri", f"sqlite:///{database}", "--artifacts", f"{database.parent}/plain", *more)


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_stock_mlflow_reads_everything(
    cli: CommandLine, site: dict[str, Any], store: ContentStore, database: Path
) -> None:
    pins = pin_owners(store)
    done = cli(*arguments(database))
    assert read_site(database, site) == site
    assert not [one for one in all_locations(database) if one.startswith(("mfs:", "ipfs:"))]
    assert not (database.parent / "plain" / ".mlflow-ipfs-eject").exists()
    assert pin_owners(store) == pins, "the store is not changed"
    assert "5 model versions" in done.lines[0]
    assert f"mlflow server --backend-store-uri sqlite:///{database}`" in done.stderr
    assert "the store was not changed" in done.stderr


def test_a_version_shares_the_files_of_its_run_if_they_are_equal(
    cli: CommandLine, site: dict[str, Any], client: MlflowClient, database: Path
) -> None:
    runs = [name.split()[1] for name in site if name.startswith("run")]
    cid = client.get_model_version("m", "2").tags["ipfs.cid"]
    cli(*arguments(database))
    [experiment] = read_column(database, "SELECT artifact_location FROM experiments WHERE name = 'e'")
    locations = read_column(database, "SELECT storage_location FROM model_versions ORDER BY version")
    assert locations[0] == f"{experiment}/{runs[0]}/artifacts/model"
    assert locations[1] == f"{experiment}/{runs[1]}/frozen/{cid}", "its run was overwritten"
    assert files_below(Path(experiment) / runs[2]) == {
        f"artifacts/{name}" for name in ("a/b ü.txt", "model/MLmodel", "model/weights.bin")
    }
    assert client.get_model_version("m", "2").tags["ipfs.cid"] == cid, "tags say what was registered"


def test_locations_for_a_server(cli: CommandLine, site: dict[str, Any], database: Path) -> None:
    done = cli(*arguments(database, "--for-server"))
    runs = [name.split()[1] for name in site if name.startswith("run")]
    [experiment] = read_column(database, "SELECT artifact_location FROM experiments WHERE name = 'e'")
    assert experiment == "mlflow-artifacts:/1"
    assert f"mlflow-artifacts:/1/{runs[0]}/artifacts" in all_locations(database)
    assert (database.parent / f"plain/1/{runs[0]}/artifacts/a/b ü.txt").read_text() == "hello 0"
    for location in read_column(database, "SELECT storage_location FROM model_versions"):
        path = database.parent / "plain" / location.removeprefix("mlflow-artifacts:/")
        assert (path / "MLmodel").is_file()
    assert f"--artifacts-destination {database.parent}/plain`" in done.stderr


def test_a_dry_run_changes_nothing(cli: CommandLine, site: dict[str, Any], database: Path) -> None:
    before = database.read_bytes()
    planned = cli(*arguments(database, "--dry-run", "--json")).records[-1]
    assert database.read_bytes() == before
    assert not (database.parent / "plain").exists()
    done = cli(*arguments(database, "--json")).records[-1]
    assert planned["counts"] == done["counts"]
    assert planned["counts"] == {"experiment": 2, "run": 3, "logged model": 1, "model version": 5}
    assert (planned["left"], planned["files"]) == (0, done["files"])
    del site


def test_running_runs_are_left_and_listed(
    cli: CommandLine, site: dict[str, Any], client: MlflowClient, database: Path
) -> None:
    run_id = client.create_run("1").info.run_id
    client.log_text(run_id, "one", "a.txt")
    done = cli(*arguments(database), code=1)
    assert f"run {run_id}: is not finished" in done.lines[0]
    [uri] = read_column(database, f"SELECT artifact_uri FROM runs WHERE run_uuid = '{run_id}'")
    assert uri.startswith("mfs://")
    client.log_text(run_id, "two", "b.txt")
    client.set_terminated(run_id)
    cli(*arguments(database))
    wanted = site | {f"run {run_id}": {"a.txt": "one", "b.txt": "two"}}
    assert read_site(database, wanted) == wanted


def test_running_runs_are_included_on_request(cli: CommandLine, client: MlflowClient, database: Path) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, "one", "a.txt")
    cli(*arguments(database, "--include-running"))
    wanted = {f"run {run_id}": {"a.txt": "one"}}
    assert read_site(database, wanted) == wanted


def test_versions_that_are_not_frozen(
    cli: CommandLine, client: MlflowClient, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
    client.create_registered_model("m")
    runs = [client.create_run("0").info for _ in range(2)]
    for number, run in enumerate(runs):
        client.log_artifacts(run.run_id, str(model_directory(tmp_path / "model", f"run {number}")), "model")
        client.create_model_version("m", f"{run.artifact_uri}/model", run.run_id)
    client.set_terminated(runs[0].run_id)
    done = cli(*arguments(database), code=1)
    assert {line.split(": ")[0].split(None, 1)[1] for line in done.lines if line.startswith("left")} == {
        f"run {runs[1].run_id}",
        "model version m/2",
    }
    client.set_terminated(runs[1].run_id)
    cli(*arguments(database))
    sources = read_column(database, "SELECT source FROM model_versions")
    assert sources == [f"{tmp_path}/plain/0/{run.run_id}/artifacts/model" for run in runs]
    names = {
        f"version {number + 1}": {"MLmodel": "flavors: {}\n", "weights.bin": f"run {number}"} for number in range(2)
    }
    assert read_site(database, names) == names


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # MLflow's own, at its first trace
def test_traces(cli: CommandLine, client: MlflowClient, database: Path) -> None:
    @mlflow.trace
    def work(x: int) -> int:
        return x + 1

    experiment = client.create_experiment("traced")
    mlflow.set_experiment("traced")
    assert work(1) == 2
    mlflow.flush_trace_async_logging()
    assert len(mlflow.search_traces(locations=[experiment], return_type="list")) == 1
    cli(*arguments(database))
    [location] = [one for one in all_locations(database) if "/traces/" in one]
    assert location.startswith(f"{database.parent}/plain/{experiment}/traces/tr-")
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    [trace] = mlflow.search_traces(locations=[experiment], return_type="list")
    assert [span.name for span in trace.data.spans] == ["work"]


def test_what_is_outside_the_store_stays(
    cli: CommandLine, client: MlflowClient, database: Path, tmp_path: Path
) -> None:
    experiment = client.create_experiment("plain", str(tmp_path / "mlruns"))
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "one", "a.txt")
    client.set_terminated(run_id)
    done = cli(*arguments(database))
    assert "the artifacts of 1 row of the database were outside the store already" in done.stderr
    assert (tmp_path / "mlruns" / run_id / "artifacts/a.txt").read_text() == "one"
    assert read_column(database, f"SELECT artifact_uri FROM runs WHERE run_uuid = '{run_id}'") == [
        f"{tmp_path}/mlruns/{run_id}/artifacts"
    ]


def test_datasets_with_a_cid_are_counted(
    cli: CommandLine, client: MlflowClient, store: ContentStore, database: Path
) -> None:
    cid = store.add_bytes(b"data")
    source = {"name": "d", "digest": str(cid)[-36:], "source_type": "ipfs", "source": f'{{"uri": "ipfs://{cid}"}}'}
    run_id = client.create_run("0").info.run_id
    dataset = mlflow.entities.Dataset(**source)
    client.log_inputs(run_id, [mlflow.entities.DatasetInput(dataset, [])])
    client.set_terminated(run_id)
    assert "the source of 1 dataset stays ipfs://<cid>" in cli(*arguments(database)).stderr


def test_a_directory_whose_name_must_be_quoted(
    cli: CommandLine, site: dict[str, Any], database: Path, tmp_path: Path
) -> None:
    options = ("eject", "--backend-store-uri", f"sqlite:///{database}", "--artifacts", f"{tmp_path}/50% plain #1")
    cli(*options)
    assert read_site(database, site) == site
    assert any(one.startswith("file:///") and "50%25%20plain%20%231" in one for one in all_locations(database))


def test_artifacts_behind_a_server(
    cli: CommandLine, client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path
) -> None:
    """``mlflow-artifacts:`` locations stay, and their files are written to the same paths."""
    experiment = client.create_experiment("served", "mlflow-artifacts:/7")
    run = client.create_run(experiment).info
    for text in ("one", "two"):
        store.files.put_tree(store_path(f"7/{run.run_id}/artifacts/model"), model_directory(tmp_path / "model", text))
        if text == "one":
            cid = store.files.freeze(store_path(f"7/{run.run_id}/artifacts/model"), "model-version:x").cid
    client.create_registered_model("m")
    with_frozen = f"mlflow-artifacts:/7/{run.run_id}/artifacts/model/@{cid}"
    client.create_model_version("m", f"ipfs://{cid}", run.run_id)
    execute(database, "UPDATE model_versions SET storage_location = ?, source = ?", with_frozen, with_frozen)
    client.set_terminated(run.run_id)
    done = cli(*arguments(database))
    assert read_column(database, "SELECT artifact_uri FROM runs") == [run.artifact_uri]
    wanted = f"mlflow-artifacts:/7/{run.run_id}/frozen/{cid}"
    assert read_column(database, "SELECT storage_location FROM model_versions") == [wanted]
    assert (tmp_path / f"plain/7/{run.run_id}/artifacts/model/weights.bin").read_text() == "two"
    assert (tmp_path / f"plain/7/{run.run_id}/frozen/{cid}/weights.bin").read_text() == "one"
    assert "--artifacts-destination" in done.stderr


def test_what_was_converted_for_a_server_is_ejected_in_two_calls(
    cli: CommandLine, client: MlflowClient, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the files of ejected runs in the database's own tree, below what ``mlflow-artifacts:/`` means."""
    runs = [client.create_run("0").info for _ in range(2)]
    for run in runs:
        client.log_text(run.run_id, "one", "a.txt")
    client.set_terminated(runs[0].run_id)
    uri = ("--backend-store-uri", f"sqlite:///{database}")
    cli("databases", "convert", "--to", "server", *uri)
    done = cli(*arguments(database), code=1)
    assert f"MLFLOW_ARTIFACTS_DESTINATION={tmp_path / 'plain'}" in done.stderr
    cli(*arguments(database), code=1)
    cli(*arguments(database, "--include-running"))
    assert len(list((tmp_path / "plain").rglob("a.txt"))) == 2
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", str(tmp_path / "plain"))
    cli(*arguments(database, "--include-running"))
    done = cli("backup", tmp_path / "copy", *uri, code=5)
    assert "2 runs in mlflow-artifacts:/" in done.stdout.decode()


@pytest.mark.postgres
@pytest.mark.slow
def test_a_postgresql_database(
    cli: CommandLine, store: ContentStore, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = postgres.uri(postgres.create_database())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"ipfs+{uri}")  # `create_model_version` resolves runs:/ there
    site = make_site(mlflow.MlflowClient(), store, tmp_path)
    options = ("eject", "--backend-store-uri", uri, "--artifacts")
    long = cli(*options, f"{tmp_path}/{'long/' * 40}plain", code=1)
    assert any("characters, but MLflow's database stores at most 200" in line for line in long.lines)
    done = cli(*options, tmp_path / "plain")
    assert read_site(name_driver(uri), site) == site
    assert "3 runs" in done.lines[0]
    assert postgres.password not in done.stderr


def store_path(path: str) -> Any:
    from mlflow_ipfs.content.mfs import MfsPath

    return MfsPath("mlflow", path)


def execute(database: Path, statement: str, *values: str) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement, values)
