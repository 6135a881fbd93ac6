"""The training dashboard: losses and qualities with validation, learning rate, speed, and signs of trouble."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.training import metric_names as names

from ..figures import Axis, Dashboard, Section
from ..metric_roles import STAGES, Role, group_keys, is_learning_rate, parse_key
from ..numbers import shown
from .comparison import build_run_table
from .curves import Curve, build_lines_panel
from .metric_table import build_metric_table
from .naming import name_runs
from .notes import notes_of
from .ranking import choose_metrics
from .summary import build_facts, build_params_table
from .training_findings import find_in_losses, find_in_speed, find_not_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..data import ReportData, Run, Series
    from ..figures import Finding, LinesPanel, Panel, TablePanel

MAX_RUNS: Final = 5
MAX_CHARTS: Final = 8
MAX_LINES: Final = 10


def plot_training_metrics(data: ReportData, model_id: str | None = None) -> Dashboard:
    """Return the training dashboard of up to ``MAX_RUNS`` runs.

    Args:
        data: the runs.
        model_id: only the metrics below ``<model_id>/``; None for all.
    """
    runs = data.runs[:MAX_RUNS]
    quality = build_quality_panels(runs, model_id)
    sections = (
        Section("At a glance", (_build_summary(data, runs),)),
        Section("Losses and qualities", quality),
        Section("Learning rate and speed", build_speed_panels(runs, model_id)),
        Section(
            "Details",
            (build_all_metrics(runs, model_id), build_params_table(runs, "training-params")),
        ),
    )
    sentence = "How the losses and the other metrics of the training went, and how fast it was."
    notes = (*notes_of(data, MAX_RUNS), *_note_uncharted(runs, model_id))
    return Dashboard("training", f"Training: {shown(data.title)}", sentence, sections, notes)


def build_all_metrics(runs: Sequence[Run], model_id: str | None = None) -> TablePanel:
    """Return the table of all metrics, with what was found in any of them."""
    keys = sorted({key for run in runs for key in run.metrics if _belongs(key, model_id)})
    return build_metric_table(runs, "training-metrics", model_id, findings=find_not_finite(runs, keys))


def _build_summary(data: ReportData, runs: Sequence[Run]) -> Panel:
    if len(runs) > 1:
        return build_run_table(data, runs, "training-runs", choose_metrics(runs))
    return build_facts(data, runs[0] if runs else None, "training-facts")


def build_quality_panels(runs: Sequence[Run], model_id: str | None = None) -> tuple[Panel, ...]:
    """Return a chart for each loss and quality, up to ``MAX_CHARTS``. The table of all metrics has the others."""
    charted = _charted_groups(runs, model_id)[:MAX_CHARTS]
    if not charted:
        reason = "The runs have no metric with more than one point, beside those of speed and resources."
        sentence = "Losses by step."
        return (build_lines_panel("training-loss", "Loss", sentence, (), Axis("loss"), empty_reason=reason),)
    return tuple(_build_quality_panel(number, runs, group, keys) for number, (group, keys) in enumerate(charted, 1))


def _build_quality_panel(number: int, runs: Sequence[Run], group: tuple[str, str], keys: Sequence[str]) -> LinesPanel:
    model, quantity = group
    title = shown(f"{quantity} of {model}" if model else quantity)
    curves = _build_curves(
        runs,
        keys[:MAX_LINES],
        lambda key: _role_among(key, keys).legend,
        title,
        numbers=_number_by_stage(keys)[:MAX_LINES],
    )
    kind = parse_key(keys[0]).kind
    better = {"loss": "; lower is better", "quality": "; higher is better", "other": ""}[kind]
    stages = list(dict.fromkeys(stage for key in keys if (stage := _role_among(key, keys).stage)))
    listed = " and ".join(part for part in (", ".join(stages[:-1]), *stages[-1:]) if part)
    of = f" in {listed}" if stages else ""
    more = f" {len(keys) - MAX_LINES:,} more are in the table of all metrics." if len(keys) > MAX_LINES else ""
    findings = find_in_losses(runs, keys) if kind == "loss" else []
    return build_lines_panel(
        f"training-{number}",
        title,
        f"Course of {title}{of}{better}.{more}",
        curves,
        Axis(shown(quantity)),
        findings=findings,
    )


def _role_among(key: str, keys: Sequence[str]) -> Role:
    """Return the role of a key. One without a stage, beside that of a validation, is that of the training, as in Keras."""
    role, stages = parse_key(key), {parse_key(other).stage for other in keys}
    is_training = not role.stage and "validation" in stages and "training" not in stages
    return replace(role, stage="training") if is_training else role


def _number_by_stage(keys: Sequence[str]) -> list[int]:
    """Return the numbers of colours and dashes: a stage has the same one in all charts, further keys have free ones."""
    wanted = [STAGES.index(_role_among(key, keys).stage or STAGES[0]) for key in keys]
    others = [number for number in (3, 4, 0, 1, 2) if number not in wanted]
    free = iter([*others, *range(len(others), len(others) + len(keys))])
    return [number if number not in wanted[:place] else next(free) for place, number in enumerate(wanted)]


def build_speed_panels(runs: Sequence[Run], model_id: str | None = None) -> tuple[Panel, ...]:
    """Return the charts of learning rate, epoch times, throughput and data wait."""

    def build(
        name: str, title: str, sentence: str, y: Axis, *, is_wanted: Callable[[str], bool], factor: float = 1.0
    ) -> Panel:
        keys = sorted({key for run in runs for key in run.metrics if _belongs(key, model_id) and is_wanted(key)})[
            :MAX_LINES
        ]
        curves = _build_curves(
            runs, keys, lambda key: _plain_name(key, keys), title, numbers=range(len(keys)), factor=factor
        )
        reason = f"The runs did not record {name}."
        findings: list[Finding] = find_in_speed(runs, keys)
        return build_lines_panel(
            f"training-{name.replace(' ', '-')}", title, sentence, curves, y, findings=findings, empty_reason=reason
        )

    def ends(*wanted: str) -> Callable[[str], bool]:
        return lambda key: key.rpartition("/")[2] in wanted and f"/{names.INFERENCE}/" not in f"/{key}"

    return (
        build(
            "learning rate",
            "Learning rate",
            "The learning rate of each optimizer in the last batch of each epoch.",
            Axis("learning rate"),
            is_wanted=is_learning_rate,
        ),
        build(
            "epoch times",
            "Epoch times",
            "Wall time of the training part of each epoch, and of its validation.",
            Axis("time", "s"),
            is_wanted=ends(names.EPOCH_SECONDS, names.VALIDATION_SECONDS),
        ),
        build(
            "throughput",
            "Throughput",
            "Training samples a second in each epoch, of all ranks.",
            Axis("throughput", "samples/s"),
            is_wanted=ends(names.SAMPLES_PER_SECOND),
        ),
        build(
            "data wait",
            "Waiting for data",
            "Share of each epoch in which the loop waited for the next batch.",
            Axis("share of the epoch", "%", low=0, high=100),
            is_wanted=ends(names.DATA_WAIT_SHARE),
            factor=100,
        ),
    )


def _build_curves(
    runs: Sequence[Run],
    keys: Sequence[str],
    legend: Callable[[str], str],
    title: str,
    *,
    numbers: Sequence[int],
    factor: float = 1.0,
) -> list[Curve]:
    """Return the curves of keys, which have numbers: with one run, each key has its colour; with several, each run.

    A legend says what the title does not: the stage or the name, the run, or both.
    """
    labels = name_runs(runs)
    found = []
    for number, run in enumerate(runs):
        for place, key in zip(numbers, keys, strict=True):
            series: Series | None = run.metrics.get(key)
            if series is None or not len(series):
                continue
            parts = [labels[run.run_id]] if len(runs) > 1 else []
            parts += [legend(key)] if len(keys) > 1 else []
            name = ": ".join(parts) or title
            found.append(Curve(run, series, name, number if len(runs) > 1 else place, place, factor))
    return found


def _plain_name(key: str, keys: Sequence[str]) -> str:
    last = key.rpartition("/")[2]
    is_alone = sum(other.rpartition("/")[2] == last for other in keys) == 1
    return last.replace("_", " ") if is_alone else key


def _belongs(key: str, model_id: str | None) -> bool:
    return model_id is None or key.startswith(f"{model_id}/")


def _charted_groups(runs: Sequence[Run], model_id: str | None) -> list[tuple[tuple[str, str], list[str]]]:
    groups = group_keys(key for run in runs for key in run.metrics if _belongs(key, model_id))
    return [(group, keys) for group, keys in groups.items() if _is_charted(runs, keys)]


def _note_uncharted(runs: Sequence[Run], model_id: str | None) -> list[str]:
    count = len(_charted_groups(runs, model_id))
    if count <= MAX_CHARTS:
        return []
    return [f"The charts show {MAX_CHARTS} of {count:,} metrics; the table of all metrics has the others."]


def _is_charted(runs: Sequence[Run], keys: Sequence[str]) -> bool:
    """Return whether a group has a curve: more than one point in a run, or a kind that a reader looks for first."""
    longest = max(len(run.metrics[key]) for run in runs for key in keys if key in run.metrics)
    return longest > 1 or (parse_key(keys[0]).kind != "other" and longest > 0)
