"""Latency histograms that the callbacks stored as artifacts of runs."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.redaction import hide_secrets
from mlflow_ipfs.errors import InvalidDataError
from mlflow_ipfs.training.latency import LatencyRecorder
from mlflow_ipfs.training.metric_names import INFERENCE

from .data import Latency, Missing

if TYPE_CHECKING:
    from .data import Run

_COUNT: Final = re.compile(rf"(^|/){INFERENCE}/(.+/)?measured_batches$")  # logged together with each artifact
_FILE: Final = "latency.json"
_MAX_BYTES: Final = 16_000_000


def read_latencies(run: Run, tracking_uri: str | None) -> tuple[list[Latency], list[Missing]]:
    """Return the latencies of a run, and what could not be read. A run without metrics of inference is not asked for any.

    Args:
        run: the run, with its metrics.
        tracking_uri: the server of locations ``mlflow-artifacts:/``; None: the one that MLflow uses in this process.
    """
    prefixes = [key.rpartition("/")[0] for key in run.metrics if _COUNT.search(key)]
    found, missing = [], []
    for prefix in prefixes:
        path = f"{prefix}/{_FILE}"
        try:
            found.append(_parse(path, _read(run.artifact_uri, path, tracking_uri)))
        except Exception as error:  # noqa: BLE001 - artifact repositories, also those of plugins, raise anything
            reason = _explain(run.artifact_uri, tracking_uri) or hide_secrets(f"{type(error).__name__}: {error}")
            missing.append(Missing(f"the latency histogram {path}", reason, run.run_id))
    return found, missing


def _explain(artifact_uri: str, tracking_uri: str | None) -> str:
    """Return why artifacts cannot be read if their location needs a server and the tracking URI is none; else ``""``."""
    uri = mlflow_compat.client_uris(tracking_uri)[0]
    if not artifact_uri.startswith("mlflow-artifacts:") or uri.startswith(("http://", "https://")):
        return ""
    return (
        "the run's artifacts are on an MLflow server, and MLflow's database was read without it; use the server's URL"
    )


def _read(artifact_uri: str, path: str, tracking_uri: str | None) -> bytes:
    repository = mlflow_compat.open_artifact_repository(artifact_uri, tracking_uri)
    with mlflow_compat.hidden_progress_bars(), tempfile.TemporaryDirectory() as directory:
        file = Path(repository.download_artifacts(path, directory))
        if file.stat().st_size > _MAX_BYTES:
            msg = f"the file has {file.stat().st_size:,} bytes, and at most {_MAX_BYTES:,} are read"
            raise InvalidDataError(msg)
        return file.read_bytes()


def _parse(path: str, data: bytes) -> Latency:
    recorder = LatencyRecorder.from_json(data)
    fields = json.loads(data)
    return Latency(path, str(fields.get("stage", "")), str(fields.get("device", "")), recorder)
