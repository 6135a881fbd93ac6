"""What users of stock MLflow make and read: scripts for processes that have MLflow and not this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from support.clients import run_client

if TYPE_CHECKING:
    from pathlib import Path

RUNS: Final = 50
VERSIONS: Final = 14
TRACES: Final = 5

_FILL = """
import hashlib
from pathlib import Path
import mlflow
from mlflow.entities import TraceData, TraceInfo, TraceLocation, TraceState
from mlflow.tracing.attachments import Attachment
from sklearn.linear_model import LinearRegression

uri, runs = sys.argv[1], int(sys.argv[2])
mlflow.set_tracking_uri(uri)
client = mlflow.MlflowClient()
model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])

def log_run(number):
    mlflow.log_params({"number": number})
    mlflow.log_metric("loss", 1 / (number + 1), step=1)
    mlflow.log_dict({"number": number}, "a dir/settings é.json")
    path = Path("weights.bin")
    path.write_bytes(hashlib.sha256(str(number).encode()).digest() * (40_000 if number == 7 else 40))
    mlflow.log_artifact(str(path), "plain")
    if number % 5 == 0:  # a logged model, of which every second one is registered
        name = "net" if number % 10 == 0 else None
        mlflow.sklearn.log_model(model, name="net", registered_model_name=name, pip_requirements=["scikit-learn"])
    if number % 10 == 1:  # a model as MLflow 2 logged it: files of the run
        Path("old").mkdir(exist_ok=True)
        Path("old/MLmodel").write_text("flavors: {}")
        Path("old/weights.bin").write_bytes(path.read_bytes())
        mlflow.log_artifacts("old", "model")

def register(run_id, source):
    client.create_model_version("old", source, run_id)

@mlflow.trace
def answer_a_question(question, image):
    return {"answer": question.upper()}

def spans_in_a_file(experiment_id):
    trace = TraceInfo("tr-" + hashlib.md5(uri.encode()).hexdigest(), TraceLocation.from_experiment_id(experiment_id), 0, TraceState.OK)
    tracing = mlflow.tracing.client.TracingClient(uri)
    tracing._upload_trace_data(tracing.start_trace(trace), TraceData(spans=[]))

client.create_registered_model("net")
client.create_registered_model("old")
for number in range(runs):
    if number % 25 == 0:
        mlflow.set_experiment(f"experiment {number // 25}")
    with mlflow.start_run() as run:
        log_run(number)
    if number % 10 == 1:
        register(run.info.run_id, f"runs:/{run.info.run_id}/model")
    if number == 1:
        for _ in range(4):
            register(run.info.run_id, f"{run.info.artifact_uri}/model")
client.set_registered_model_alias("net", "champion", "2")
client.set_registered_model_alias("old", "first", "1")
for number in range(4):
    answer_a_question(f"number {number}", Attachment(content_type="image/png", content_bytes=b"png %d" % number))
spans_in_a_file(run.info.experiment_id)
mlflow.flush_trace_async_logging()
"""
_READ = """
import hashlib, tempfile
from pathlib import Path
import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
found = {}

def read(uri):
    with tempfile.TemporaryDirectory() as directory:
        top = Path(mlflow.artifacts.download_artifacts(uri, dst_path=directory))
        files = {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}
    files.pop("registered_model_meta", None)  # MLflow's client adds it to some downloads of a version
    return {path: [len(data), hashlib.sha256(data).hexdigest()] for path, data in files.items()}

experiments = [one.experiment_id for one in client.search_experiments()]
for run in client.search_runs(experiments, max_results=1000):
    found[f"run {run.info.run_id}"] = [run.data.params, run.data.metrics, read(run.info.artifact_uri)]
for model in client.search_logged_models(experiments):
    found[f"logged model {model.model_id}"] = read(model.artifact_location)
for version in client.search_model_versions():
    found[f"version {version.name}/{version.version}"] = read(f"models:/{version.name}/{version.version}")
for alias in ("net@champion", "old@first"):
    found[f"alias {alias}"] = read(f"models:/{alias}")
found["prediction"] = mlflow.sklearn.load_model("models:/net@champion").predict([[3.0]]).tolist()
for trace in client.search_traces(locations=experiments):
    location = trace.info.tags["mlflow.artifactLocation"]
    files = get_artifact_repository(location).list_artifacts()
    spans = [[span.name, span.inputs, span.outputs] for span in trace.data.spans]
    found[f"trace {trace.info.trace_id}"] = [spans, read(location) if files else {}]
answer(found)
"""


def fill(tracking_uri: str, directory: Path, python: Path, env: dict[str, str] | None = None) -> None:
    """Log ``RUNS`` runs with files, logged models, model versions, aliases and traces by a client of stock MLflow."""
    run_client(_FILL, tracking_uri, str(RUNS), directory=directory, python=python, env=env)


def read(tracking_uri: str, directory: Path, python: Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what a client of stock MLflow reads: for each thing that has files, their paths, sizes and hashes."""
    found: dict[str, Any] = run_client(_READ, tracking_uri, directory=directory, python=python, env=env)
    kinds = [name.split()[0] for name in found]
    assert (kinds.count("run"), kinds.count("version"), kinds.count("trace")) == (RUNS, VERSIONS, TRACES)
    assert found["prediction"] == pytest.approx([6.0])
    return found
