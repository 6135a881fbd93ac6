"""The Lightning callbacks in real Trainers: which metrics, at which steps, in which run, and what faults cost."""

from __future__ import annotations

import json
import logging
import pickle
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from mlflow_ipfs.training.latency import LatencyRecorder
from mlflow_ipfs.training.runlog.opening import open_run_log, sync_run_logs

pytest.importorskip("pytorch_lightning")

import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger

from lightning_ipfs import DatasetInputs, EpochMetrics, InferenceMetrics, IPFSCallback, IPFSLogger, Resources
from support.lightning_models import BATCH_SIZE, BATCHES, LAST, MARKS, ModelSteps, build_model, loader, trainer

if TYPE_CHECKING:
    from pathlib import Path

    from support.run_targets import MemoryTarget

pytestmark = MARKS


def fit(*callbacks: Any, model: Any = None, package: str = "pytorch_lightning", **options: Any) -> Any:
    training = trainer(*callbacks, package=package, **options)
    training.fit(model or build_model(package), loader(), loader(2))
    return training


def steps(target: MemoryTarget, key: str) -> list[int]:
    return [step for step, _ in target.values(key)]


def test_everything_with_one_line(target: MemoryTarget, package: str) -> None:
    training = fit(IPFSCallback(resource_seconds=0.5), package=package)
    for key in ("train_loss_epoch", "val_loss", "epoch_seconds", "validation_seconds", "data_wait_share"):
        assert steps(target, key) == [LAST, LAST + BATCHES], key
    assert target.values("epoch") == [(1, 0), (3, 0), (LAST, 0), (7, 1), (9, 1), (LAST + BATCHES, 1)]
    assert target.values("learning_rate") == [(LAST, 0.1), (LAST + BATCHES, 0.1)]
    for step, seconds in target.values("epoch_seconds"):
        samples = dict(target.values("samples_per_second"))[step]
        assert samples == pytest.approx(BATCHES * BATCH_SIZE / seconds)
        assert 0 <= dict(target.values("data_wait_share"))[step] <= 1
    assert [status for _, status, _ in target.finished] == ["FINISHED"]
    before = len(target.points)
    training.test(training.lightning_module, loader(12), verbose=False)
    training.predict(training.lightning_module, loader(12))
    assert len(target.points) > before
    assert set(target.runs.values()) == {"run-1"}, "fit, test and predict are one run"
    for stage in ("test", "predict"):
        metrics = {
            key: target.values(f"inference/{stage}/{key}")[0][1] for key in ("warmup_batches", "measured_batches")
        }
        assert metrics == {"warmup_batches": 5, "measured_batches": 7}
        data = target.artifacts[f"inference/{stage}/latency.json"]
        assert json.loads(data)["loop"] == "closed"
        assert LatencyRecorder.from_json(data).total().samples == 7 * BATCH_SIZE
    assert steps(target, "test_loss") == [2 * BATCHES], "as in MLFlowLogger"
    numbers = [
        step
        for key in {point.key for _, point in target.points}
        if "cpu_utilization" in key
        for step in steps(target, key)
    ]
    assert numbers == list(range(len(numbers))), "one series over fit, test and predict"


def test_each_callback_alone(target: MemoryTarget) -> None:
    fit(EpochMetrics())
    keys = {point.key for _, point in target.points}
    assert "epoch_seconds" in keys
    assert not any(key.startswith(("system/", "inference/")) for key in keys)
    target.points.clear()
    trainer(InferenceMetrics(warmup=1)).predict(build_model(), loader(4))
    assert target.values("inference/predict/measured_batches")[0][1] == 3
    target.points.clear()
    fit(Resources(node="n1"), max_epochs=1)
    assert {point.key.split("/")[1] for _, point in target.points} == {"n1"}


def test_our_logger_logs_every_step_and_the_callback_does_not_repeat_it(target: MemoryTarget, package: str) -> None:
    logger = IPFSLogger("digits", run_name="first", tags={"team": "a"})
    model = build_model(package)
    model.save_hyperparameters({"width": 4, "optimizer": {"name": "sgd"}})
    fit(IPFSCallback(resource_seconds=None), model=model, package=package, logger=logger)
    assert target.params == {"width": "4", "optimizer/name": "sgd"}
    assert steps(target, "train_loss_step") == [1, 3, 5, 7, 9, 11]
    assert steps(target, "train_loss_epoch") == [LAST, LAST + BATCHES]
    assert steps(target, "val_loss") == [LAST, LAST + BATCHES]
    assert "train_loss" not in {point.key for _, point in target.points}
    assert logger.run_id == "run-1" == logger.version
    assert [status for _, status, _ in target.finished] == ["FINISHED"]


def test_gradient_accumulation_and_several_optimizers(target: MemoryTarget) -> None:
    fit(EpochMetrics(), accumulate_grad_batches=2)
    assert steps(target, "epoch_seconds") == [2, 5], "batches that stepped"
    target.points.clear()
    fit(EpochMetrics(), model=build_model(optimizers=2), max_epochs=1)
    assert {key.key: key.value for _, key in target.points if key.key.startswith("learning_rate")} == {
        "learning_rate/SGD-0": 0.1,
        "learning_rate/SGD-1": 0.01,
    }


def test_learning_rates_are_those_before_the_step_of_a_scheduler(target: MemoryTarget) -> None:
    class Scheduled(ModelSteps):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.layer.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)]

    fit(EpochMetrics(), model=build_model(steps=Scheduled), max_epochs=3)
    assert [step for step, _ in target.values("learning_rate")] == [LAST + number * BATCHES for number in range(3)]
    assert [rate for _, rate in target.values("learning_rate")] == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.parametrize("callbacks", [(IPFSCallback, EpochMetrics), (IPFSCallback, IPFSCallback)])
def test_a_callback_that_is_given_twice_logs_once(
    target: MemoryTarget, caplog: pytest.LogCaptureFixture, callbacks: tuple[type[Any], type[Any]]
) -> None:
    training = fit(*(callback() for callback in callbacks))
    assert [step for step, _ in target.values("epoch_seconds")] == [LAST, LAST + BATCHES]
    assert "the callback EpochMetrics is given twice" in caplog.text
    training.test(training.lightning_module, loader(6), verbose=False)
    assert len(target.values("inference/test/latency_p50_ms")) == 1
    assert [status for _, status, _ in target.finished] == ["FINISHED"] * 2
    assert set(target.runs.values()) == {"run-1"}


def test_a_callback_of_two_trainers_at_once_says_that_it_leaves_the_first_one(
    target: MemoryTarget, caplog: pytest.LogCaptureFixture
) -> None:
    callback = EpochMetrics()

    class Tunes(ModelSteps):
        def on_train_epoch_start(self: Any) -> None:
            if self.current_epoch == 1:
                trainer(callback, max_epochs=1).fit(build_model(), loader())

    fit(callback, model=build_model(steps=Tunes), max_epochs=3)
    assert "the callback EpochMetrics is used by a Trainer that has not ended" in caplog.text
    assert [status for _, status, _ in target.finished] == ["KILLED", "FINISHED"]
    assert [step for step, _ in target.values("epoch_seconds")] == [LAST, LAST], "one epoch of each"


def test_inference_that_was_all_warmup_says_so(target: MemoryTarget, caplog: pytest.LogCaptureFixture) -> None:
    trainer(InferenceMetrics()).predict(build_model(), loader(4))
    assert target.values("inference/predict/measured_batches")[0][1] == 0
    assert "no latency of predict was measured: all 4 batches were warm-up" in caplog.text


def test_a_fast_development_run_logs_nothing(target: MemoryTarget, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("rows")
    fit(IPFSCallback([data]), logger=IPFSLogger(), fast_dev_run=2)
    assert (target.runs, target.points, target.params) == ({}, {}, {})


def test_a_validation_alone_and_sanity_checks(target: MemoryTarget) -> None:
    trainer(EpochMetrics(), num_sanity_val_steps=2).fit(build_model(), loader(), loader(2))
    assert len(target.values("val_loss")) == 2, "the sanity check is not logged"
    target.points.clear()
    trainer(EpochMetrics()).validate(build_model(), loader(2), verbose=False)
    assert len(target.values("val_loss")) == 1


def test_a_resumed_training_goes_on_at_its_step(target: MemoryTarget, tmp_path: Path) -> None:
    first = fit(EpochMetrics(), max_epochs=1)
    first.save_checkpoint(tmp_path / "last.ckpt")
    target.points.clear()
    trainer(EpochMetrics(), max_epochs=2).fit(build_model(), loader(), loader(2), ckpt_path=str(tmp_path / "last.ckpt"))
    assert target.values("epoch") == [(7, 1), (9, 1), (LAST + BATCHES, 1)]


@pytest.mark.parametrize(
    ("error", "raised", "status"), [(RuntimeError, RuntimeError, "FAILED"), (KeyboardInterrupt, SystemExit, "KILLED")]
)
def test_a_training_that_fails_has_a_status_and_keeps_its_metrics(
    target: MemoryTarget, error: type[BaseException], raised: type[BaseException], status: str
) -> None:
    model = build_model(fail_at=BATCHES + 2, error=error)
    training = trainer(IPFSCallback(resource_seconds=None))
    callbacks = list(training.callbacks)
    with pytest.raises(raised):
        training.fit(model, loader(), loader(2))
    assert steps(target, "epoch_seconds") == [LAST]
    assert steps(target, "train_loss_step") == [1, 3, 5, 7]
    assert [found for _, found, _ in target.finished] == [status]
    assert training.callbacks == callbacks, "what the callback added is removed"


def test_a_test_that_fails_fails_the_run(target: MemoryTarget) -> None:
    class NoTest(ModelSteps):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            del batch, batch_idx
            raise RuntimeError("the test failed")

    model = build_model(steps=NoTest)
    training = fit(IPFSCallback(resource_seconds=None), model=model, max_epochs=1)
    with pytest.raises(RuntimeError, match="the test failed"):
        training.test(model, loader(2), verbose=False)
    assert [(run, status) for run, status, _ in target.finished] == [("run-1", "FINISHED"), ("run-1", "FAILED")]


def test_a_training_that_stops_early_is_finished(target: MemoryTarget) -> None:
    fit(IPFSCallback(resource_seconds=None), EarlyStopping("train_loss", patience=1, min_delta=1e9), max_epochs=9)
    assert steps(target, "epoch_seconds") == [LAST, LAST + BATCHES]
    assert [status for _, status, _ in target.finished] == ["FINISHED"]


def test_an_active_run_is_used_and_stays_running(target: MemoryTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    class Active:
        class info:  # noqa: N801 - MLflow's attribute
            run_id = "mine"

    monkeypatch.setattr(mlflow, "active_run", Active)
    fit(IPFSCallback(resource_seconds=None))
    assert {run for run, _ in target.points} == {"mine"}
    assert target.finished == []


def test_a_test_after_the_active_run_has_ended_belongs_to_it(
    target: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Active:
        class info:  # noqa: N801 - MLflow's attribute
            run_id = "mine"

    with monkeypatch.context() as patch:
        patch.setattr(mlflow, "active_run", Active)
        training = fit(IPFSCallback(resource_seconds=None), max_epochs=1)
    training.test(training.lightning_module, loader(8), verbose=False)
    assert steps(target, "test_loss") == [BATCHES]
    assert {run for run, _ in target.points} == {"mine"}
    assert target.finished == []


def test_all_stages_are_one_run_although_mlflow_is_away(
    target: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_ipfs.sessions.open_run_log", partial(open_run_log, close_seconds=0.2))
    target.is_away = True
    training = fit(IPFSCallback(resource_seconds=None), max_epochs=1)
    training.test(training.lightning_module, loader(8), verbose=False)
    target.is_away = False
    assert [state.problem for state in sync_run_logs(tmp_path / "runlog", "http://127.0.0.1:1")] == [None, None]
    assert set(target.runs.values()) == {"run-1"}
    assert steps(target, "epoch_seconds") == [LAST]
    assert steps(target, "test_loss") == [BATCHES]


@pytest.mark.parametrize("callback", [IPFSCallback(["data.csv"]), DatasetInputs(["data.csv"]), EpochMetrics()])
def test_callbacks_can_be_sent_to_the_processes_of_a_spawning_strategy(callback: Any) -> None:
    copy = pickle.loads(pickle.dumps(callback))
    assert type(copy) is type(callback)


def test_an_mlflow_that_is_away_costs_nothing_and_gets_everything_later(
    target: MemoryTarget, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target.is_away = True
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        started = time.monotonic()
        fit(IPFSCallback(resource_seconds=None), logger=IPFSLogger(close_seconds=0.5))
    assert time.monotonic() - started < 60
    assert "mlflow-ipfs runlog sync" in caplog.text
    target.is_away = False
    assert [state.points for state in sync_run_logs(tmp_path / "runlog", "http://127.0.0.1:1")] == [0]
    assert steps(target, "epoch_seconds") == [LAST, LAST + BATCHES]
    assert len(steps(target, "train_loss_step")) == 6


@pytest.mark.usefixtures("target")
def test_nothing_is_read_from_the_device_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    callback = IPFSCallback(resource_seconds=None)
    training = trainer(callback)
    reads: list[str] = []
    read = torch.Tensor.item

    def item(tensor: Any) -> Any:
        import threading

        reads.append(threading.current_thread().name)
        return read(tensor)

    monkeypatch.setattr(torch.Tensor, "item", item)
    callback.on_train_epoch_start(training, None)
    for number in range(10):
        callback.on_train_batch_start(training, None, (torch.ones(3, 1),), number)
        callback.on_train_batch_end(training, None, {"loss": torch.ones(())}, (torch.ones(3, 1),), number)
    assert reads == []


def test_a_stock_logger_is_used_and_its_cost_is_said(target: MemoryTarget, caplog: pytest.LogCaptureFixture) -> None:
    class MLFlowLogger(Logger):  # the stock one contacts MLflow at once
        name = version = "stock"
        run_id = "stock"
        _tracking_uri = "http://127.0.0.1:1"

        def log_metrics(self, metrics: Any, step: Any = None) -> None:
            pass

        def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
            pass

    with caplog.at_level(logging.WARNING, logger="lightning_ipfs"):
        fit(IPFSCallback(resource_seconds=None), logger=MLFlowLogger())
    assert "waits for MLflow on the training thread" in caplog.text
    assert {run for run, _ in target.points} == {"stock"}
    assert "train_loss" not in {point.key for _, point in target.points}, "the stock logger logs it"
    assert steps(target, "epoch_seconds") == [LAST, LAST + BATCHES]
