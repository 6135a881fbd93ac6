"""Real trainings of one, two and more processes, with a real MLflow server: one run, each metric once at its step."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pytorch_lightning")
pytest.importorskip("sklearn")

from mlflow import MlflowClient

from mlflow_ipfs.training.runlog.opening import list_run_logs, sync_run_logs
from support.digits_training import BATCH_SIZE, EPOCHS, EVERY, TRAIN_ROWS, VAL_ROWS
from support.lightning_models import MARKS
from support.mlflow_server import clean_environment, run_mlflow_server
from support.processes import find_free_port, read_tail, start_process, stop_process, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytestmark = [*MARKS, pytest.mark.server]

TESTS = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 300  # a training takes 20 s on a machine that does nothing else
WARMUP = 5


@dataclass(frozen=True)
class RecordedRun:
    """A run, as MLflow's API shows it, with the values by step of each metric."""

    run_id: str
    status: str
    metrics: dict[str, dict[int, float]]


@dataclass
class Site:
    """An MLflow server, and the trainings that log to it, each to an experiment of its own."""

    url: str
    directory: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, *arguments: str, script: Path | None = None, **env: str) -> subprocess.Popen[bytes]:
        """Start a training."""
        settings = {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_EXPERIMENT_NAME": name,
            "MLFLOW_IPFS_RUNLOG": str(self.directory / f"runlog-{name}"),
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",  # more threads than cores wait for each other
        }
        command: list[str | Path] = [sys.executable, script or TESTS / "support" / "digits_training.py", *arguments]
        process = start_process(
            command, env=clean_environment(**settings, **env), cwd=self.directory, log=self.log_of(name)
        )
        self.processes.append(process)
        return process

    def train(self, name: str, *arguments: str) -> int:
        """Run a training to its end. Return its exit code."""
        return self.start(name, *arguments).wait(LIMIT_SECONDS)

    def log_of(self, name: str) -> Path:
        """Return the file with the output of a training."""
        return self.directory / f"{name}.log"

    def find_run(self, name: str) -> RecordedRun:
        """Return the experiment's only run. Fail if a metric has a step twice."""
        client = MlflowClient(self.url)
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None, read_tail(self.log_of(name))
        [run] = client.search_runs([experiment.experiment_id])
        histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        twice = {
            key: steps
            for key, points in histories.items()
            if max((steps := Counter(point.step for point in points)).values()) > 1
        }
        assert twice == {}
        metrics = {key: {point.step: point.value for point in points} for key, points in histories.items()}
        return RecordedRun(run.info.run_id, run.info.status, metrics)

    def spools(self, name: str) -> list[Path]:
        """Return the run logs on disk that have not been sent completely."""
        return [state.directory for state in list_run_logs(self.directory / f"runlog-{name}")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("trainings")
    database = f"sqlite:///{directory / 'mlflow.db'}"
    artifacts = directory / "artifacts"
    with run_mlflow_server(
        directory, "--backend-store-uri", database, "--artifacts-destination", artifacts, workers=1
    ) as server:
        site = Site(server.url, directory)
        yield site
        for process in site.processes:
            stop_process(process)


def check_digits(site: Site, name: str, processes: int) -> dict[str, dict[int, float]]:
    """Check the metrics of a training of ``digits_training`` in so many processes."""
    run = site.find_run(name)
    found = run.metrics
    batches = TRAIN_ROWS // BATCH_SIZE // processes
    ends = [epoch * batches - 1 for epoch in range(1, EPOCHS + 1)]
    for key in (
        "train_accuracy", "train_loss_epoch", "val_loss", "val_accuracy", "learning_rate",
        "epoch_seconds", "validation_seconds", "samples_per_second", "batches_per_second", "data_wait_share",
    ):  # fmt: skip
        assert list(found[key]) == ends, key
    assert list(found["train_loss_step"]) == list(range(EVERY - 1, EPOCHS * batches, EVERY))
    assert [found["epoch"][step] for step in ends] == list(range(EPOCHS))
    assert found["val_accuracy"][ends[-1]] > 0.8
    end = EPOCHS * batches
    assert found["test_accuracy"] == {end: pytest.approx(found["val_accuracy"][ends[-1]])}, "the same data and weights"
    assert found["inference/test/warmup_batches"] == {end: processes * WARMUP}
    assert found["inference/test/measured_batches"] == {end: VAL_ROWS // BATCH_SIZE - processes * WARMUP}
    assert run.status == "FINISHED"
    assert site.spools(name) == []
    artifacts = MlflowClient(site.url).list_artifacts(run.run_id, "inference/test")
    assert [file.path for file in artifacts] == ["inference/test/latency.json"]
    return found


def nodes_of(found: dict[str, dict[int, float]]) -> set[str]:
    """Return the nodes with resources. Check that the samples of each are one series."""
    for key, points in found.items():
        if key.startswith("system/") and key.endswith("/cpu_utilization_percentage"):
            assert list(points) == list(range(len(points))), key
    return {key.split("/")[1] for key in found if key.startswith("system/")}


def test_the_digits_in_one_process(site: Site) -> None:
    assert site.train("one", "auto", "1", "1") == 0, read_tail(site.log_of("one"))
    assert len(nodes_of(check_digits(site, "one", 1))) == 1


def test_the_digits_in_two_processes_are_one_run(site: Site) -> None:
    assert site.train("ddp", "ddp", "2", "1") == 0, read_tail(site.log_of("ddp"))
    found = check_digits(site, "ddp", 2)
    assert len(nodes_of(found)) == 1, "one process of the node samples its resources"


def test_spawned_processes_log_to_the_active_run_of_their_parent(site: Site) -> None:
    assert site.train("spawn", "ddp_spawn", "2", "1") == 0, read_tail(site.log_of("spawn"))
    found = site.find_run("spawn").metrics
    batches = TRAIN_ROWS // BATCH_SIZE // 2
    assert list(found["val_loss"]) == [epoch * batches - 1 for epoch in range(1, EPOCHS + 1)]
    assert len(nodes_of(found)) == 1


def test_two_nodes_are_one_run_with_the_resources_of_both(site: Site) -> None:
    port = str(find_free_port())
    nodes = [
        site.start("nodes", "ddp", "1", "2", NODE_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for rank in range(2)
    ]
    assert [node.wait(LIMIT_SECONDS) for node in nodes] == [0, 0], read_tail(site.log_of("nodes"))
    assert nodes_of(check_digits(site, "nodes", 2)) == {"node-0", "node-1"}
    assert "does not exist yet" not in site.log_of("nodes").read_text()


def test_a_rank_that_fails_ends_the_training_and_the_points_are_sent(site: Site) -> None:
    assert site.train("fails", "ddp", "2", "1", "1") != 0
    assert "this rank failed" in site.log_of("fails").read_text()
    for state in sync_run_logs(site.directory / "runlog-fails", site.url):  # Lightning may kill rank 0 after 5 s
        assert state.problem is None
    run = site.find_run("fails")
    batches = TRAIN_ROWS // BATCH_SIZE // 2
    assert list(run.metrics["epoch_seconds"]) == list(run.metrics["val_loss"]) == [batches - 1]
    assert run.status in {"FAILED", "RUNNING"}, "RUNNING if Lightning killed rank 0 before it could say so"
    assert site.spools("fails") == []


ENDLESS = """
import sys, time
from pytorch_lightning import Callback
from lightning_ipfs import IPFSCallback
from support.lightning_models import ModelSteps, build_model, loader, trainer

class Steps(ModelSteps):
    def training_step(self, batch, batch_idx):
        time.sleep(0.01)
        return super().training_step(batch, batch_idx)

class Saves(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        print("epoch", flush=True)

    def on_exception(self, trainer, pl_module, exception):
        print("saved at", type(exception).__name__, flush=True)

trainer(IPFSCallback(resource_seconds=None), Saves(), max_epochs=-1).fit(build_model(steps=Steps), loader())
"""


def test_sigterm_ends_a_training_as_lightning_does(site: Site) -> None:
    script = site.directory / "endless.py"
    script.write_text(ENDLESS)
    process = site.start("sigterm", script=script)
    log = site.log_of("sigterm")
    wait_until(lambda: log.read_text().count("epoch\n") > 2, timeout_seconds=LIMIT_SECONDS, what="two epochs")
    process.send_signal(signal.SIGTERM)
    process.wait(LIMIT_SECONDS)
    assert "saved at SIGTERMException" in log.read_text(), "the callbacks of the user run, as without ours"
    run = site.find_run("sigterm")
    assert len(run.metrics["epoch_seconds"]) >= log.read_text().count("epoch\n")
    assert run.status == "KILLED"
    assert site.spools("sigterm") == []
