"""Collecting from a real `mlflow server` and from PostgreSQL gives what the database of SQLite gives."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.errors import NotFoundError, RemoteError
from reports import collect
from reports.json_format import to_json
from reports.server_source import ClientTracking
from support.command_line import CommandLine
from support.recorded_runs import EXPERIMENT, record_runs

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer
    from reports import ReportData
    from support.postgres import PostgresServer


def describe(data: ReportData) -> dict[str, Any]:
    """Return everything of a report but the MLflow that it was read from."""
    fields: dict[str, Any] = json.loads(to_json(data))
    del fields["source"]
    return fields


@pytest.mark.server
def test_a_server_gives_what_its_database_gives(
    mlflow_server: StartServer, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"}
    monkeypatch.setenv("MLFLOW_IPFS_STORE", env["MLFLOW_IPFS_STORE"])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    server = mlflow_server(
        *("--backend-store-uri", f"sqlite:///{database}", "--registry-store-uri", f"ipfs+sqlite:///{database}"),
        *("--artifacts-destination", "mfs://mlflow"),
        env=env,
        workers=1,
    )
    client = MlflowClient(server.url, server.url)
    recorded = record_runs(client, tmp_path)
    from_server = collect(experiment=EXPERIMENT, tracking_uri=server.url)
    assert from_server.missing == ()
    assert len(from_server.runs[1].latencies) == 1
    assert from_server.versions[0].cid is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)  # for the artifacts, whose locations are mlflow-artifacts:/
    assert describe(from_server) == describe(collect(experiment=EXPERIMENT, tracking_uri=f"sqlite:///{database}"))
    for wanted in ({"model": "digits@champion"}, {"run_ids": [recorded.full]}, {"filter_string": "metrics.once = 7"}):
        assert [run.run_id for run in collect(**wanted, tracking_uri=server.url).runs] == [recorded.full]
    for wanted in ({"model": "none"}, {"run_ids": ["0" * 32]}, {"experiment": "none"}, {"experiment": "99"}):
        with pytest.raises(NotFoundError):
            collect(**wanted, tracking_uri=server.url)
    _check_answers_that_are_cut(client, server.url, monkeypatch)
    CommandLine(tmp_path / "other-store")(
        *("report", "--run", recorded.full, "-o", tmp_path / "out", "--formats", "txt"),
        *("--log-to-run", "--tracking-uri", server.url),
    )
    assert [file.path for file in client.list_artifacts(recorded.full, "report")] == ["report/report.txt"]


def _check_answers_that_are_cut(client: MlflowClient, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's limit of points is lowered through the parameter of its request."""
    experiment = client.create_experiment("long")
    lengths = [7, 60, 1, 12, 13, 0, 40]
    for length in lengths:
        run_id = client.create_run(experiment).info.run_id
        client.log_batch(run_id, [Metric("loss", float(step), 1000 + step, step) for step in range(length)])
    monkeypatch.setattr(mlflow_compat, "MAX_POINTS_IN_BULK", 25)
    requests: list[int] = []
    in_bulk = mlflow_compat.read_histories_in_bulk

    def count_requests(*arguments: Any) -> Any:
        requests.append(1)
        return in_bulk(*arguments)

    monkeypatch.setattr(mlflow_compat, "read_histories_in_bulk", count_requests)
    data = collect(experiment="long", tracking_uri=url)
    assert sorted(run.point_count for run in data.runs) == sorted(lengths)
    assert all(run.metrics["loss"].steps.tolist() == list(range(run.point_count)) for run in data.runs if run.metrics)
    assert len(requests) > 2
    monkeypatch.setattr(mlflow_compat, "read_histories_in_bulk", lambda *_: None)  # as of a server without the request
    assert sorted(run.point_count for run in collect(experiment="long", tracking_uri=url).runs) == sorted(lengths)


def test_a_history_that_a_server_does_not_give_is_missing_and_the_others_are_there(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests go to MLflow's own store: what is tested is what happens with their failures."""
    recorded = record_runs(client, tmp_path)
    (run,) = collect(run_ids=[recorded.full], tracking_uri=client.tracking_uri).runs

    def fail_for_loss(_client: MlflowClient, _run_ids: list[str], key: str) -> None:
        if key == "loss":
            msg = "PERMISSION_DENIED"
            raise MlflowException(msg)

    monkeypatch.setattr(mlflow_compat, "read_histories_in_bulk", fail_for_loss)
    source = ClientTracking(client, "http://server")
    done: list[int] = []
    histories, missing = source.read_histories(source.find_runs([recorded.full]), done.append)
    assert [(one.what, one.run_id) for one in missing] == [("the history of loss", recorded.full)]
    keys = set(run.metrics) - {"loss"}
    assert keys < set(histories[recorded.full])
    assert sum(done) == 1


def test_a_history_that_comes_without_points_is_missing(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = record_runs(client, tmp_path)
    monkeypatch.setattr(mlflow_compat, "read_histories_in_bulk", lambda *_: [])
    source = ClientTracking(client, "http://server")
    runs = source.find_runs([recorded.full])
    histories, missing = source.read_histories(runs, lambda _: None)
    assert histories == {}
    assert len(missing) > 5
    assert {(one.reason, one.run_id) for one in missing} == {("MLflow answered without a point", recorded.full)}


def test_after_a_server_went_away_no_further_request_waits_for_it(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = record_runs(client, tmp_path)
    tried: list[str] = []

    def fail(_client: MlflowClient, _run_ids: list[str], key: str) -> None:
        tried.append(key)
        time.sleep(0.05)
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            msg = f"API request failed with exception {error}"
            raise MlflowException(msg)  # noqa: B904 - as MLflow does

    monkeypatch.setattr(mlflow_compat, "read_histories_in_bulk", fail)
    source = ClientTracking(client, "http://server")
    runs = source.find_runs([recorded.full, recorded.empty])
    done: list[int] = []
    histories, missing = source.read_histories(runs, done.append)
    assert histories == {}
    assert {one.reason.partition(": ")[2] for one in missing} == {
        "MLflow at http://server cannot be reached; check that the server is running, and its address"
    }
    assert len(tried) <= 8 < len(missing)
    assert sum(done) == 2


def test_a_server_that_is_away_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RemoteError, match="cannot be reached; check") as found:
            collect(experiment="e", tracking_uri=url)
    assert "secret" not in str(found.value)


def test_a_server_that_answers_with_errors_is_not_called_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

    class Failing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(RemoteError, match="answers with errors .too many 500 error responses.; the server's log"):
            collect(run_ids=["a" * 32], tracking_uri=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_an_answer_that_is_not_mlflows_is_missing(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = record_runs(client, tmp_path)
    monkeypatch.setattr(mlflow_compat, "read_histories_in_bulk", lambda *_: [{"value": "1"}])
    source = ClientTracking(client, "http://server")
    histories, missing = source.read_histories(source.find_runs([recorded.full]), lambda _: None)
    assert histories == {}
    assert {one.reason for one in missing} == {"MLflow's answer cannot be read (KeyError: 'run_id')"}


def test_postgresql_gives_what_sqlite_gives(
    postgres: PostgresServer, tmp_path: Path, client: MlflowClient, database: Path
) -> None:
    uri = f"ipfs+{postgres.uri(postgres.create_database())}"
    mlflow.set_tracking_uri(uri)  # registration looks there for the datasets of the run
    recorded = record_runs(MlflowClient(), tmp_path)
    mlflow.set_tracking_uri(f"ipfs+sqlite:///{database}")
    data = collect(experiment=EXPERIMENT, tracking_uri=uri)
    assert postgres.password not in data.source
    record_runs(client, tmp_path)
    assert without_ids(data) == without_ids(collect(experiment=EXPERIMENT, tracking_uri=f"sqlite:///{database}"))
    assert [run.run_id for run in collect(model="digits", tracking_uri=uri).runs] == [recorded.full]
    found = collect(filter_string="metrics.once = 7", tracking_uri=uri)
    assert [run.run_id for run in found.runs] == [recorded.full]


def without_ids(data: ReportData) -> dict[str, Any]:
    """Return everything of a report that does not differ between two recordings of the same."""
    fields = describe(data)
    for run in fields["runs"]:
        del run["run_id"], run["artifact_uri"]
    for version in fields["versions"]:
        del version["run_id"], version["source"], version["created_ms"]
    return fields
