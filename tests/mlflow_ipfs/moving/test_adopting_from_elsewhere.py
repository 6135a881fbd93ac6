"""Adoption of databases in PostgreSQL, and of artifacts in S3."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from mlflow import MlflowClient

from mlflow_ipfs.binding.databases.drivers import name_driver
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.opening import shared_store
from support.s3 import BUCKET, open_s3, run_s3
from support.stock_sites import ODD_NAMES, StockSite, read_directory, read_site, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.command_line import CommandLine
    from support.postgres import PostgresServer

pytestmark = pytest.mark.slow

# MLflow sends percent signs, '?' and '#' to S3 in forms that it does not read back.
S3_NAMES = [name for name in ODD_NAMES if not {"%", "?", "#"} & set(name)]


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a client of an S3 server that MLflow uses in this test."""
    with run_s3(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield open_s3(environment)


def keys(s3: Any) -> list[str]:
    return [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def upload(s3: Any, directory: Path, prefix: str) -> None:
    for path, data in read_directory(directory).items():
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{path}", Body=data)


@pytest.fixture
def in_s3(site: StockSite, s3: Any) -> StockSite:
    """Return a site whose artifacts are in a bucket."""
    run = site.add_run({name: f"content of {name}" for name in S3_NAMES})
    model = site.add_model(run)
    site.add_version("net", f"models:/{model.model_id}", run.info.run_id, model.model_id)
    site.move_behind_a_server()
    for table, column in (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "storage_location"),
    ):
        site.query(f"UPDATE {table} SET {column} = replace({column}, 'mlflow-artifacts:', 's3://{BUCKET}/mlruns')")
    upload(s3, site.directory / "mlartifacts", "mlruns")
    return site


def test_a_bucket_is_taken_in_and_emptied(cli: CommandLine, in_s3: StockSite, s3: Any) -> None:
    before = read_site(in_s3.uri)
    s3.put_object(Bucket=BUCKET, Key="mlruns/0/other.txt", Body=b"not an artifact")
    assert f"from s3://{BUCKET}/mlruns" in cli("adopt", "--backend-store-uri", in_s3.uri, "--dry-run").lines[0]
    cli("adopt", "--backend-store-uri", in_s3.uri)
    assert read_site(f"ipfs+{in_s3.uri}") == before
    assert not [path for path in (cli.store / "views").rglob("*") if path.is_file()]
    assert len(keys(s3)) == len(S3_NAMES) + 3
    assert "removed     6 old files" in cli("adopt", "--backend-store-uri", in_s3.uri, "--remove-source").lines[-1]
    assert keys(s3) == ["mlruns/0/other.txt"]
    assert read_site(f"ipfs+{in_s3.uri}") == before


def test_what_changed_in_a_bucket_is_not_removed(cli: CommandLine, in_s3: StockSite, s3: Any) -> None:
    cli("adopt", "--backend-store-uri", in_s3.uri)
    [changed] = [key for key in keys(s3) if key.endswith("weights.bin")]
    s3.put_object(Bucket=BUCKET, Key=changed, Body=b"two")
    done = cli("adopt", "--backend-store-uri", in_s3.uri, "--remove-source", code=1)
    assert any("'weights.bin' differs from the store" in line for line in done.lines)
    assert sorted(key.rpartition("/")[2] for key in keys(s3)) == ["MLmodel", "weights.bin"]


def test_a_server_whose_artifacts_are_in_a_bucket(cli: CommandLine, site: StockSite, s3: Any) -> None:
    run = site.add_run({"a.txt": "a", "b/c.txt": "c"})
    site.move_behind_a_server()
    upload(s3, site.directory / "mlartifacts", "served")
    done = cli("adopt", "--backend-store-uri", site.uri, "--artifacts", f"s3://{BUCKET}/served")
    assert f"1 run; 2 files, 2 B from s3://{BUCKET}/served" in done.lines[0]
    found = shared_store().files.walk(MfsPath("mlflow"))
    assert [entry.path for entry in found] == [f"0/{run.info.run_id}/artifacts/{name}" for name in ("a.txt", "b/c.txt")]
    done = cli("adopt", "--backend-store-uri", site.uri, "--artifacts", f"s3://{BUCKET}/served")
    assert "unchanged   1, taken in earlier" in done.lines


def test_what_a_running_program_still_writes_to_a_bucket_is_taken_in_later(
    cli: CommandLine, site: StockSite, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = site.add_run(status="RUNNING")
    prefix = f"mlruns/0/{run.info.run_id}/artifacts"
    site.query("UPDATE runs SET artifact_uri = ?", f"s3://{BUCKET}/{prefix}")
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/a.txt", Body=b"a")
    cli("adopt", "--backend-store-uri", site.uri, "--include-running")
    assert "unchanged   1, taken in earlier" in cli("adopt", "--backend-store-uri", site.uri).lines
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/b.txt", Body=b"b")
    site.client.set_terminated(run.info.run_id)
    assert "run; 2 files, 2 B" in cli("adopt", "--backend-store-uri", site.uri).lines[0]
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"a.txt": b"a", "b.txt": b"b"}}
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    cli("adopt", "--backend-store-uri", site.uri)  # the bucket is not needed any more


def test_what_a_server_still_writes_to_a_bucket_replaces_only_what_no_client_changed(
    cli: CommandLine, site: StockSite, s3: Any
) -> None:
    run = site.add_run({"a.txt": "a", "b.txt": "b"})
    site.move_behind_a_server()
    upload(s3, site.directory / "mlartifacts", "served")
    adopt = ("adopt", "--backend-store-uri", site.uri, "--artifacts", f"s3://{BUCKET}/served")
    cli(*adopt)
    path = f"0/{run.info.run_id}/artifacts"
    shared_store().files.put_stream(MfsPath("mlflow", f"{path}/b.txt"), io.BytesIO(b"of a client"))
    for name in ("a.txt", "b.txt"):
        s3.put_object(Bucket=BUCKET, Key=f"served/{path}/{name}", Body=b"later")
    done = cli(*adopt, code=1)
    assert f"'s3://{BUCKET}/served/{path}/b.txt': the file in the store was changed, too" in done.lines[0]
    store = shared_store()
    found = {entry.name: store.open(entry.cid).read() for entry in store.files.walk(MfsPath("mlflow", path))}
    assert found == {"a.txt": b"later", "b.txt": b"of a client"}


def test_an_object_that_is_written_again_after_an_interrupted_adoption_is_taken_in(
    cli: CommandLine, in_s3: StockSite, s3: Any
) -> None:
    in_s3.query("UPDATE runs SET status = 'RUNNING'")
    cli("adopt", "--backend-store-uri", in_s3.uri, code=1)
    in_s3.query("UPDATE runs SET status = 'FINISHED'")
    older = in_s3.database.read_bytes()
    cli("adopt", "--backend-store-uri", in_s3.uri)
    in_s3.database.write_bytes(older)
    [changed] = [key for key in keys(s3) if key.endswith("weights.bin")]
    s3.put_object(Bucket=BUCKET, Key=changed, Body=b"two")
    cli("adopt", "--backend-store-uri", in_s3.uri)
    assert b"two" in [data for files in read_site(f"ipfs+{in_s3.uri}").values() for data in files.values()]


@pytest.mark.postgres
def test_a_database_in_postgresql(cli: CommandLine, postgres: PostgresServer, tmp_path: Path) -> None:
    uri = name_driver(postgres.uri(postgres.create_database()))
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("digits", artifact_location=str(tmp_path / "mlruns/1"))
    run = client.create_run(experiment)
    for name in ODD_NAMES:
        write(tmp_path / f"mlruns/1/{run.info.run_id}/artifacts" / name, name)
    write(tmp_path / f"mlruns/1/{run.info.run_id}/artifacts/model/MLmodel", "flavors: {}")
    client.set_terminated(run.info.run_id)
    client.create_registered_model("net")
    client.create_model_version("net", f"{run.info.artifact_uri}/model", run.info.run_id)
    before = read_site(uri)
    assert len(before[run.info.run_id]) == len(ODD_NAMES) + 1
    done = cli("adopt", "--backend-store-uri", uri, "--remove-source")
    assert "versions    1 frozen" in done.lines
    assert postgres.password not in done.stdout.decode() + done.stderr
    stock = sqlalchemy.make_url(uri).set(drivername="postgresql").render_as_string(hide_password=False)
    assert read_site(f"ipfs+{stock}") == before
    assert os.listdir(tmp_path / "mlruns") == []
