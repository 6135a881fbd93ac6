"""What a module logs with ``self.log``: which values ``IPFSCallback`` logs at which steps, without a logger."""

from __future__ import annotations

import logging
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pytorch_lightning")

import torch

from lightning_ipfs import EpochMetrics, IPFSCallback, IPFSLogger
from lightning_ipfs.module_metrics import BatchMetrics
from support.lightning_models import BATCHES, LAST, MARKS, ModelSteps, build_model, loader, trainer

if TYPE_CHECKING:
    from support.run_targets import MemoryTarget

pytestmark = MARKS


class ManyMetrics(ModelSteps):
    """A module that logs in most of the ways that Lightning has."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss_of_step", loss)  # Lightning's default in a training step: no value of the epoch
        self.log("hidden", loss, logger=False)
        self.log_dict({"a": loss, "b": float(batch_idx)}, on_step=False, on_epoch=True)
        return loss

    def on_train_batch_start(self: Any, *_: Any) -> None:
        self.log("batch_start", 1.0)

    def on_train_epoch_end(self: Any) -> None:
        if self.current_epoch % 2 == 0:
            self.log("even_epoch", float(self.current_epoch))

    def on_validation_epoch_end(self: Any) -> None:
        self.log("val_end", float(self.global_step))


def fit(target: MemoryTarget, steps: type[Any] = ManyMetrics, **options: Any) -> dict[str, list[int]]:
    """Train with ``IPFSCallback``. Return the steps of each metric, and check that no point is there twice."""
    trainer(IPFSCallback(resource_seconds=None), **options).fit(build_model(steps=steps), loader(), loader(2))
    found: dict[str, list[int]] = {}
    for _, point in target.points:
        found.setdefault(point.key, []).append(point.step)
    assert max(Counter((point.key, point.step) for _, point in target.points).values()) == 1
    return found


def test_metrics_are_those_of_a_logger_at_the_same_steps(target: MemoryTarget) -> None:
    with_logger = fit(target, logger=IPFSLogger())
    target.points.clear()
    without = fit(target)
    assert without == with_logger


def test_metrics_of_batches_follow_log_every_n_steps(target: MemoryTarget) -> None:
    assert fit(target)["train_loss_step"] == [1, 3, 5, 7, 9, 11]
    target.points.clear()
    found = fit(target, log_every_n_steps=4)
    assert found["train_loss_step"] == [3, 7, 11]
    assert found["loss_of_step"] == [3, 7, 11]
    target.points.clear()
    assert "train_loss_step" not in fit(target, log_every_n_steps=0)


def test_accumulated_batches_are_one_step(target: MemoryTarget) -> None:
    found = fit(target, accumulate_grad_batches=2)
    assert found["train_loss_step"] == [1, 3, 5]
    assert found["train_loss_epoch"] == [2, 5]
    assert found["val_loss"] == [2, 5]


def test_what_the_module_logs_at_the_end_of_its_epoch_has_the_step_of_this_epoch(target: MemoryTarget) -> None:
    found = fit(target, max_epochs=4)
    assert target.values("even_epoch") == [(LAST, 0), (LAST + 2 * BATCHES, 2)]
    assert found["a"] == [LAST + number * BATCHES for number in range(4)]
    assert "hidden" not in found


def test_a_validation_is_logged_when_it_is_run(target: MemoryTarget) -> None:
    found = fit(target, val_check_interval=3)
    assert found["val_loss"] == [2, 5, 8, 11]
    assert target.values("val_end") == [(2, 3), (5, 6), (8, 9), (11, 12)]
    assert found["validation_seconds"] == [5, 11]
    target.points.clear()
    found = fit(target, max_epochs=4, check_val_every_n_epoch=2)
    assert found["val_loss"] == [LAST + BATCHES, LAST + 3 * BATCHES], "an old value is not repeated"
    assert found["validation_seconds"] == [LAST + BATCHES, LAST + 3 * BATCHES]


def test_several_validation_loaders(target: MemoryTarget) -> None:
    class TwoLoaders(ModelSteps):
        def validation_step(self: Any, batch: Any, _: int, dataloader_idx: int) -> None:  # type: ignore[override]
            self.log("val_loss", self._loss(batch) + dataloader_idx)

    trainer(EpochMetrics(), max_epochs=1).fit(build_model(steps=TwoLoaders), loader(), [loader(2), loader(2)])
    keys = {point.key for _, point in target.points if point.key.startswith("val")}
    assert keys == {"val_loss/dataloader_idx_0", "val_loss/dataloader_idx_1", "validation_seconds"}


def test_a_fit_that_is_resumed_inside_an_epoch_measures_what_it_trains(target: MemoryTarget, tmp_path: Any) -> None:
    from pytorch_lightning.callbacks import ModelCheckpoint

    saves = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=-1)
    trainer(saves, max_epochs=1, enable_checkpointing=True).fit(build_model(), loader())
    [checkpoint] = tmp_path.glob("*.ckpt")
    training = trainer(EpochMetrics(), max_epochs=1, log_every_n_steps=1)
    training.fit(build_model(), loader(), ckpt_path=str(checkpoint), weights_only=False)
    assert [step for step, _ in target.values("train_loss_step")] == [4, 5]
    [(step, seconds)] = target.values("epoch_seconds")
    assert step == LAST
    assert 0 < seconds < 60


class OnDevice(torch.Tensor):
    """A tensor whose value is still being computed: reading it would wait."""

    def item(self) -> Any:
        raise AssertionError("the training thread waits for the device")

    __float__ = __bool__ = tolist = numpy = cpu = item  # type: ignore[assignment]


def test_no_metric_of_a_batch_is_read_from_the_device() -> None:
    result = SimpleNamespace(
        meta=SimpleNamespace(logger=True, on_step=True, forked_name=lambda on_step: f"loss{on_step}"),
        has_reset=False,
        _forward_cache=torch.ones(()).as_subclass(OnDevice),
    )
    epoch_loop = SimpleNamespace(_batches_that_stepped=0, _results={"training_step.loss": result})
    training = SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_loop=epoch_loop),
        log_every_n_steps=1,
        should_stop=False,
        current_epoch=7,
        accumulate_grad_batches=1,
    )
    logged: list[Any] = []
    batches = BatchMetrics(training, lambda metrics, step: logged.append((metrics, step)))
    for number in range(3):
        epoch_loop._batches_that_stepped = number
        batches.end_batch()
    assert [(list(metrics), step) for metrics, step in logged] == [(["lossTrue", "epoch"], step) for step in range(3)]


def test_another_lightning_without_these_results_costs_only_the_metrics_of_batches(
    target: MemoryTarget, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def results(_: Any) -> Any:
        raise AttributeError("no such attribute: _results")

    monkeypatch.setattr("lightning_ipfs.module_metrics._results", results)
    with caplog.at_level(logging.WARNING, logger="lightning_ipfs"):
        found = fit(target, ModelSteps)
    assert found["train_loss"] == found["val_loss"] == [LAST, LAST + BATCHES]
    assert caplog.text.count("cannot be read from this version of Lightning") == 1
