"""Collecting from a SQLite database that MLflow made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from mlflow_ipfs.binding.databases.connections import opened_database
from mlflow_ipfs.errors import NotFoundError, SettingsError
from reports import collect
from reports.database_source import DatabaseTracking
from support.recorded_runs import DATASET, EXPERIMENT, HOSTILE, LOSS

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

    from support.recorded_runs import RecordedRuns


@pytest.fixture
def uri(database: Path, recorded: RecordedRuns) -> str:
    del recorded
    return f"sqlite:///{database}"


@pytest.mark.parametrize("prefix", ["", "ipfs+"])
def test_a_run_comes_with_its_complete_histories(uri: str, prefix: str, recorded: RecordedRuns) -> None:
    data = collect(run_ids=[recorded.full], tracking_uri=prefix + uri)
    (run,) = data.runs
    assert data.missing == ()
    assert data.title == "run full"
    assert (run.name, run.experiment, run.status, run.duration_seconds) == ("full", EXPERIMENT, "FINISHED", 2500.0)
    loss = run.metrics["loss"]
    points = list(zip(loss.steps.tolist(), loss.values.tolist(), strict=True))
    assert repr(points) == repr([LOSS[3], LOSS[1], LOSS[4], LOSS[2], LOSS[0], LOSS[5]])
    assert loss.times_ms.tolist() == [2_000_003, 2_000_001, 2_000_004, 2_000_002, 2_000_000, 2_000_005]
    assert len(run.metrics["val_loss"]) == 5
    assert set(run.system) == {"", "node-a", "node-b"}
    assert run.system["node-b"]["cpu_utilization_percentage"].values.tolist() == [0.0, 10.0, 20.0]


def test_params_and_tags_are_kept_as_they_are(uri: str, recorded: RecordedRuns) -> None:
    (run,) = collect(run_ids=[recorded.full], tracking_uri=uri).runs
    assert run.params == {"huge": "x" * 5000, "lr": "0.1", "name": HOSTILE}
    assert run.tags["note"] == HOSTILE


def test_lineage_by_cid(uri: str, recorded: RecordedRuns) -> None:
    data = collect(run_ids=[recorded.full], tracking_uri=uri)
    other, rows = data.runs[0].datasets
    assert (rows.name, rows.context, rows.cid, rows.cid_is_certain, rows.size_bytes) == (
        *("rows", "training", str(DATASET), True, 8),
    )
    assert rows.source == f"ipfs://{DATASET}"
    assert (other.name, other.cid, other.cid_is_certain) == ("other", None, False)
    (version,) = data.versions_of(recorded.full)
    assert (version.name, version.version, version.aliases) == ("digits", 1, ("champion",))
    assert version.cid is not None
    assert version.cid == version.tags["ipfs.cid"]


def test_latency_histograms_are_read_from_the_artifacts(uri: str, recorded: RecordedRuns) -> None:
    (latency,) = collect(run_ids=[recorded.full], tracking_uri=uri).runs[0].latencies
    assert (latency.path, latency.stage, latency.device) == ("inference/test/latency.json", "test", "cpu")
    assert latency.recorder.warmup_batches == 1
    assert {size: one.count for size, one in latency.recorder.histograms.items()} == {8: 60, 16: 59}


def test_artifacts_on_a_server_that_was_not_named_are_missing_for_that_reason(
    uri: str, recorded: RecordedRuns, database: Path
) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE runs SET artifact_uri = 'mlflow-artifacts:/1/' || run_uuid || '/artifacts'")
    (missing,) = collect(run_ids=[recorded.full], tracking_uri=uri).missing
    assert missing.what == "the latency histogram inference/test/latency.json"
    assert missing.reason.endswith("use the server's URL")


def test_an_experiment_by_name_and_by_id_gives_the_newest_run_first(uri: str, recorded: RecordedRuns) -> None:
    by_name = collect(experiment=EXPERIMENT, tracking_uri=uri)
    by_id = collect(experiment="1", tracking_uri=uri)
    assert [run.run_id for run in by_name.runs] == [run.run_id for run in by_id.runs] == [recorded.empty, recorded.full]
    assert by_name.title == "experiment reported"
    assert by_name.runs[0].point_count == 0


def test_a_filter_is_mlflows_own(uri: str, recorded: RecordedRuns) -> None:
    found = collect(experiment=EXPERIMENT, filter_string="params.lr = '0.1'", tracking_uri=uri)
    assert [run.run_id for run in found.runs] == [recorded.full]
    everywhere = collect(filter_string="attributes.status = 'RUNNING'", tracking_uri=uri)
    assert [run.run_id for run in everywhere.runs] == [recorded.empty]
    assert collect(filter_string="metrics.once > 100", tracking_uri=uri).runs == ()


@pytest.mark.parametrize(
    "model", ["digits", "digits/1", "models:/digits/1", "digits@champion", "models:/digits@champion", "digits/latest"]
)
def test_a_model_names_the_runs_of_its_versions(uri: str, model: str, recorded: RecordedRuns) -> None:
    data = collect(model=model, tracking_uri=uri)
    assert [run.run_id for run in data.runs] == [recorded.full]
    assert [version.version for version in data.versions] == [1]


def test_older_runs_that_do_not_fit_are_named(uri: str, recorded: RecordedRuns) -> None:
    data = collect(experiment=EXPERIMENT, tracking_uri=uri, max_runs=1)
    assert [run.run_id for run in data.runs] == [recorded.empty]
    assert [one.what for one in data.missing] == ["1 older runs"]


def test_one_unknown_run_among_others_is_missing(uri: str, recorded: RecordedRuns) -> None:
    data = collect(run_ids=[recorded.full, "0" * 32, recorded.empty], tracking_uri=uri)
    assert [run.run_id for run in data.runs] == [recorded.full, recorded.empty]
    assert [(one.what, one.run_id) for one in data.missing] == [(f"the run {'0' * 32}", "0" * 32)]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"run_ids": ["0" * 32]}, "has no run"),
        ({"experiment": "elsewhere"}, "no experiment with the name or id 'elsewhere'"),
        ({"experiment": "99"}, "no experiment"),
        ({"model": "nothing"}, "no registered model nothing"),
        ({"model": "digits/2"}, "no registered model digits, version 2"),
        ({"model": "digits@nobody"}, "no registered model digits@nobody"),
    ],
)
def test_what_mlflow_does_not_have_is_an_error(uri: str, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(NotFoundError, match=message):
        collect(**wanted, tracking_uri=uri)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"run_ids": ["a"], "experiment": "b"},
        {"model": "m", "filter_string": "x"},
        {"model": "a/b/c"},
        {"model": ""},
        {"model": "a/1@b"},
        {"experiment": "e", "max_runs": 0},
    ],
)
def test_a_selection_that_means_nothing_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        collect(**wanted, tracking_uri="sqlite:///none.db")


def test_the_database_is_not_written_and_needs_no_write_permission(
    database: Path, recorded: RecordedRuns, tmp_path: Path
) -> None:
    del recorded
    copy = tmp_path / "a copy #1?.db"
    copy.write_bytes(database.read_bytes())
    copy.chmod(0o444)
    before = hashlib.sha256(copy.read_bytes()).digest(), sorted(os.listdir(tmp_path))
    with opened_database(sqlalchemy.URL.create("sqlite", database=str(copy)), is_read_only=True) as connection:
        runs = DatabaseTracking(connection, lambda *_: ([], 0)).search_runs(EXPERIMENT, None, 10).runs
        with pytest.raises(sqlalchemy.exc.OperationalError, match="readonly"):
            connection.execute(sqlalchemy.text("DELETE FROM metrics"))
    assert len(runs) == 2
    assert (hashlib.sha256(copy.read_bytes()).digest(), sorted(os.listdir(tmp_path))) == before


def test_a_file_that_is_no_database_of_mlflow(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        collect(experiment="e", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (a)")
    with pytest.raises(NotFoundError, match="not a database of MLflow"):
        collect(experiment="e", tracking_uri=f"sqlite:///{tmp_path}/other.db")
    (tmp_path / "text.db").write_text("not a database, not at all" * 100)
    with pytest.raises(SettingsError, match="cannot be read"):
        collect(experiment="e", tracking_uri=f"sqlite:///{tmp_path}/text.db")


def test_a_histogram_that_is_gone_or_damaged_is_missing(
    uri: str, recorded: RecordedRuns, client: MlflowClient, tmp_path: Path
) -> None:
    damaged = tmp_path / "latency.json"
    for text, reason in [("{", "not a record"), ('{"format": 9}', "upgrade"), (_overflowing(), "99999999")]:
        damaged.write_text(text)
        client.log_artifact(recorded.full, str(damaged), "inference/test")
        data = collect(run_ids=[recorded.full], tracking_uri=uri)
        assert data.runs[0].latencies == ()
        (missing,) = data.missing
        assert missing.what == "the latency histogram inference/test/latency.json"
        assert reason in missing.reason
    client.log_metric(recorded.empty, "m/inference/measured_batches", 3)
    (missing,) = collect(run_ids=[recorded.empty], tracking_uri=uri).missing
    assert missing.run_id == recorded.empty


def test_a_users_metric_of_the_same_name_is_no_missing_histogram(
    uri: str, recorded: RecordedRuns, client: MlflowClient
) -> None:
    client.log_metric(recorded.empty, "bench/measured_batches", 3)
    assert collect(run_ids=[recorded.empty], tracking_uri=uri).missing == ()


def _overflowing() -> str:
    counts = {
        "counts": {"99999999": 1},
        "count": 1,
        "total_ns": 1,
        "max_ns": 1,
        "samples": 1,
        "peak_memory_bytes": None,
    }
    fields = {"format": 1, "growth": 1.01, "warmup_batches": 0, "first_batch_ns": None, "batch_sizes": {"1": counts}}
    return json.dumps(fields)


def test_a_registry_that_cannot_be_read_is_missing_unless_a_model_was_asked_for(
    uri: str, recorded: RecordedRuns, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/none.db")
    data = collect(run_ids=[recorded.full], tracking_uri=uri)
    assert [one.what for one in data.missing] == ["the model versions"]
    assert data.runs[0].metrics
    with pytest.raises(NotFoundError, match="does not exist"):
        collect(model="digits", tracking_uri=uri)


def test_of_many_versions_the_runs_of_the_newest_are_read(
    uri: str, client: MlflowClient, recorded: RecordedRuns
) -> None:
    version = client.get_model_version("digits", "1")
    client.log_artifact(recorded.empty, version_file(client, recorded), "model")
    source = f"{client.get_run(recorded.empty).info.artifact_uri}/model"
    client.create_model_version("digits", source, run_id=recorded.empty)
    data = collect(model="digits", tracking_uri=uri, max_runs=1)
    assert [run.run_id for run in data.runs] == [recorded.empty]
    assert [one.version for one in data.versions] == [1, 2]
    assert data.versions[0].cid == version.tags["ipfs.cid"]
    assert [one.what for one in data.missing] == ["1 of the runs"]


def version_file(client: MlflowClient, recorded: RecordedRuns) -> str:
    return str(client.download_artifacts(recorded.full, "model/MLmodel"))


def test_what_was_deleted_is_called_deleted(uri: str, client: MlflowClient, recorded: RecordedRuns) -> None:
    client.delete_run(recorded.full)
    assert [run.status for run in collect(run_ids=[recorded.full], tracking_uri=uri).runs] == ["DELETED"]
    client.delete_experiment(client.get_run(recorded.full).info.experiment_id)
    with pytest.raises(NotFoundError, match=f"'{EXPERIMENT}' was deleted, with its runs"):
        collect(experiment=EXPERIMENT, tracking_uri=uri)


def test_progress_counts_runs(uri: str) -> None:
    seen: list[tuple[int, int]] = []
    collect(experiment=EXPERIMENT, tracking_uri=uri, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_a_million_points_of_one_run(database: Path, recorded: RecordedRuns) -> None:
    with sqlite3.connect(database) as connection:
        connection.executemany(
            "INSERT INTO metrics (run_uuid, key, step, timestamp, value, is_nan) VALUES (?, 'long', ?, ?, ?, 0)",
            ((recorded.full, step, step, float(step)) for step in range(300_000)),
        )
    connection.close()
    series = collect(run_ids=[recorded.full], tracking_uri=f"sqlite:///{database}").runs[0].metrics["long"]
    assert len(series) == 300_000
    assert series.steps[[0, 49_999, 50_000, -1]].tolist() == [0, 49_999, 50_000, 299_999]
    assert math.isclose(series.values.sum(), 299_999 * 300_000 / 2)
