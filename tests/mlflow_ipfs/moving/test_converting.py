"""Conversion of locations between ``mfs://`` and ``mlflow-artifacts:/``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from mlflow_ipfs.binding.locations import parse_mfs
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.entries import Frozen
from support.command_line import CommandLine
from support.ejected_sites import all_locations, make_site
from support.mlflow_sites import pin_owners, storage_location

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore

pytestmark = pytest.mark.slow


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "store")


@pytest.fixture
def site(client: MlflowClient, store: ContentStore, tmp_path: Path) -> dict[str, Any]:
    return make_site(client, store, tmp_path)


@pytest.fixture
def root(client: MlflowClient) -> str:
    return str(client.get_experiment("0").artifact_location).removesuffix("/0")


def arguments(database: Path, target: str, *more: str) -> tuple[str, ...]:
    return ("databases", "convert", "--to", target, "--backend-store-uri", f"sqlite:///{database}", *more)


def test_there_and_back(
    cli: CommandLine, site: dict[str, Any], store: ContentStore, client: MlflowClient, database: Path, root: str
) -> None:
    del site
    before, pins = all_locations(database), pin_owners(store)
    content = client.get_model_version("m", "5").tags["ipfs.cid"]
    registry_id = root.rpartition("/")[2]

    done = cli(*arguments(database, "server"))
    served = all_locations(database)
    assert {one.partition("/")[0] for one in served} == {"mlflow-artifacts:", "runs:", "models:", "ipfs:"}
    assert not [one for one in served if one.startswith("ipfs:") and one != f"ipfs://{content}"]
    assert f"mlflow-artifacts:/{registry_id}/0" in served
    assert storage_location(database, "m", 5) == f"mlflow-artifacts:/0/registry/{registry_id}/@{content}"
    assert f"--registry-store-uri ipfs+sqlite:///{database} --artifacts-destination mfs://mlflow`" in done.stderr
    assert "MLFLOW_IPFS_ROOT" not in done.stderr
    above = parse_mfs(f"mfs://mlflow/0/registry/{registry_id}")
    assert store.storage.entries.is_frozen(Frozen(above.root, above.path, CID.parse(content)))

    done = cli(*arguments(database, "direct"))
    after = all_locations(database)
    by_content = f"mfs://mlflow/0/registry/{registry_id}/@{content}"
    assert after == [
        by_content if one == f"ipfs://{content}" and after[at] == by_content else one for at, one in enumerate(before)
    ]
    assert f"MLFLOW_TRACKING_URI=ipfs+sqlite:///{database}" in done.stderr
    assert (mlflow.artifacts.load_text("models:/m/5/MLmodel")) == "flavors: {}\n"
    assert mlflow.artifacts.load_text("models:/m@champion/weights.bin") == "run 1"
    assert pin_owners(store) == pins


def test_a_dry_run_counts(cli: CommandLine, site: dict[str, Any], database: Path) -> None:
    del site
    before = all_locations(database)
    planned = cli(*arguments(database, "server", "--dry-run", "--json")).records[0]
    assert all_locations(database) == before
    assert cli(*arguments(database, "server", "--json")).records[0]["locations"] == planned["locations"] > 10
    assert cli(*arguments(database, "server", "--json")).records[0]["locations"] == 0


def test_what_is_not_below_the_destination_is_listed(
    cli: CommandLine, client: MlflowClient, database: Path, root: str
) -> None:
    client.create_experiment("other", "mfs://team/e")
    done = cli(*arguments(database, "server"), code=1)
    assert done.lines[0].startswith("left     mfs://team/e: it is not below mfs://mlflow")
    assert f"mlflow-artifacts:/{root.rpartition('/')[2]}/0" in all_locations(database)


def test_a_destination_can_be_named(cli: CommandLine, client: MlflowClient, database: Path, root: str) -> None:
    """For basic-auth, which looks for the experiment's number at the start of a path."""
    client.create_run("0")
    done = cli(*arguments(database, "server", "--artifacts-destination", root))
    assert "mlflow-artifacts:/0" in all_locations(database)
    assert f"--artifacts-destination {root}`" in done.stderr
    assert f"MLFLOW_IPFS_ROOT={root}\n" in done.stderr


def test_a_client_without_a_server_goes_on_with_a_run_that_was_converted(
    cli: CommandLine, client: MlflowClient, store: ContentStore, database: Path
) -> None:
    run = client.create_run("0").info
    client.log_text(run.run_id, "before", "a.txt")
    cli(*arguments(database, "server"))
    client.log_text(run.run_id, "after", "b.txt")
    assert {entry.path.rpartition("/")[2] for entry in store.files.walk(parse_mfs(run.artifact_uri))} == {
        "a.txt",
        "b.txt",
    }


def test_the_destination_of_artifacts_that_a_server_has_is_kept(
    cli: CommandLine, client: MlflowClient, store: ContentStore, database: Path, root: str
) -> None:
    experiment = client.create_experiment("served", "mlflow-artifacts:/7")
    run = client.create_run(experiment).info
    store.files.put_stream(parse_mfs(f"mfs://mlflow/7/{run.run_id}/artifacts/a.txt"), io.BytesIO(b"hello"))
    cli(*arguments(database, "server"))
    assert f"mlflow-artifacts:/{root.rpartition('/')[2]}/0" in all_locations(database)
    cli(*arguments(database, "direct"))
    assert {f"{root}/0", "mfs://mlflow/7", f"mfs://mlflow/7/{run.run_id}/artifacts"} <= set(all_locations(database))


def test_a_destination_outside_the_store_is_refused(cli: CommandLine, client: MlflowClient, database: Path) -> None:
    client.create_run("0")
    done = cli(*arguments(database, "server", "--artifacts-destination", "./mlartifacts"), code=2)
    assert "is not in the store; write mfs://<root>" in done.stderr


def test_a_location_on_another_server_is_listed(cli: CommandLine, client: MlflowClient, database: Path) -> None:
    client.create_experiment("far", "mlflow-artifacts://host:5000/7")
    done = cli(*arguments(database, "direct"), code=1)
    assert done.lines[0] == "left     mlflow-artifacts://host:5000/7: the artifacts are on the server host:5000"


def test_names_that_no_client_lists_through_a_server_are_named(
    cli: CommandLine, client: MlflowClient, database: Path, tmp_path: Path
) -> None:
    run_id = client.create_run("0").info.run_id
    for name in ("deep/#1.txt", "deep/plain.txt"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_text(name)
    client.log_artifacts(run_id, str(tmp_path / "files"))
    options = ("databases", "convert", "--backend-store-uri", f"sqlite:///{database}", "--to")
    assert "1 file with '#' or '?' in the name" in cli(*options, "server").stderr
    assert "'#'" not in cli(*options, "direct").stderr
