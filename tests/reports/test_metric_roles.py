"""What metrics' keys say: model, stage and quantity, in the ways in which libraries name them."""

from __future__ import annotations

import pytest

import reports
from reports.data import ReportData, Run
from reports.metric_roles import Role, group_keys, parse_key
from support.panels import titled
from support.report_samples import series


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("val_loss", Role("", "validation", "loss")),
        ("loss", Role("", "", "loss")),
        ("model_1/train_loss", Role("model_1", "training", "loss")),
        ("model_1/loss", Role("model_1", "", "loss")),
        ("train_loss_step", Role("", "training", "loss", "step")),
        ("grad_norm_epoch", Role("", "", "grad_norm", "epoch")),
        ("loss/train", Role("", "training", "loss")),
        ("loss/val", Role("", "validation", "loss")),
        ("loss/train_epoch", Role("", "training", "loss", "epoch")),
        ("model_1/loss/train", Role("model_1", "training", "loss")),
        ("train/loss", Role("", "training", "loss")),
        ("train/loss/0", Role("train/loss", "", "0")),
        ("train/val", Role("", "training", "val")),
        ("train-mlogloss", Role("", "training", "mlogloss")),
        ("validation_0-logloss", Role("", "validation", "logloss", number="0")),
        ("valid_1-l2", Role("", "validation", "l2", number="1")),
        ("val_0_loss", Role("", "validation", "0_loss")),
        ("loss_train", Role("", "training", "loss")),
        ("m/rmse_val_epoch", Role("m", "validation", "rmse", "epoch")),
        ("accuracy-test", Role("", "test", "accuracy")),
        ("samples_train", Role("", "", "samples_train")),
        ("", Role("", "", "")),
        ("_step", Role("", "", "_step")),
        ("a/", Role("a", "", "")),
        ("a\nb/c\nd", Role("a\nb", "", "c\nd")),
    ],
)
def test_a_key_says_model_stage_and_quantity(key: str, role: Role) -> None:
    assert parse_key(key) == role


@pytest.mark.parametrize(
    "quantity",
    [
        "loss",
        "log_loss",
        "logloss",
        "mlogloss",
        "binary_logloss",
        "cross_entropy",
        "crossentropy",
        "binary_crossentropy",
        "bce",
        "ce",
        "kl",
        "kl_divergence",
        "nll",
        "mse",
        "rmse",
        "mae",
        "mape",
        "l1",
        "l2",
        "merror",
        "mean_squared_error",
        "hinge",
        "box_loss",
        "loss1",
        "Loss",
    ],
)
def test_usual_names_of_losses_are_losses(quantity: str) -> None:
    assert [parse_key(key).kind for key in (quantity, f"train_{quantity}", f"{quantity}/val")] == ["loss"] * 3


@pytest.mark.parametrize("quantity", ["lossless", "l2_norm", "skills", "epoch", "errors_fixed", "place", "grad_norm"])
def test_other_names_are_not_losses(quantity: str) -> None:
    assert parse_key(quantity).kind == "other"


def test_metrics_of_the_table_are_not_grouped_by_stage() -> None:
    keys = [
        "inference/test/latency_p50_ms",
        "inference/test",
        "learning_rate/train",
        "lr",
        "epoch",
        "loss/train",
        "loss/val",
    ]
    assert group_keys(keys) == {("", "loss"): ["loss/train", "loss/val"]}


@pytest.mark.parametrize(
    ("training", "validation"), [("logloss/train", "logloss/valid"), ("train-logloss", "validation_0-logloss")]
)
def test_a_loss_of_two_stages_is_one_chart(training: str, validation: str) -> None:
    metrics = {key: series(key, [2.0, 1.0, 0.5]) for key in (training, validation)}
    dashboard = reports.plot_training_metrics(ReportData("t", runs=(Run("r", metrics=metrics),)))
    panel = titled(dashboard, "logloss")
    assert [line.name.removesuffix(" 0") for line in panel.lines] == ["training", "validation"]
    assert panel.sentence == "Course of logloss in training and validation; lower is better."


def test_stages_have_the_same_order_and_colours_in_every_chart() -> None:
    keys = [
        "test_loss",
        "train_loss",
        "val_loss",
        "test_acc",
        "val_acc",
        "test_f1",
        "mae",
        "val_mae",
        "train_mse_step",
        "train_mse",
    ]
    metrics = {key: series(key, [2.0, 1.0]) for key in keys}
    dashboard = reports.plot_training_metrics(ReportData("t", runs=(Run("r", metrics=metrics),)))

    def lines(title: str) -> list[tuple[str, int, int]]:
        return [(line.name, line.colour, line.dash) for line in titled(dashboard, title).lines]

    training, validation, test = ("training", 0, 0), ("validation", 1, 1), ("test", 2, 2)
    assert lines("loss") == [training, validation, test]
    assert lines("acc") == [validation, test]
    assert [line[1:] for line in lines("f1")] == [test[1:]]
    assert lines("mae") == [training, validation]
    assert lines("mse") == [training, ("training, each step", 3, 3)]
    assert titled(dashboard, "loss").sentence == "Course of loss in training, validation and test; lower is better."
